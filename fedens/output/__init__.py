"""Files for people and other programs: VTU and PVD for ParaView, cube and CHGCAR files."""

from fedens.output.cube import write_cube
from fedens.output.vtk import write_atoms, write_pvd, write_vtu

__all__ = [
    "write_atoms",
    "write_cube",
    "write_pvd",
    "write_vtu",
]
