"""Files for people and other programs: VTU and PVD for ParaView, cube files, the HTML report."""

from fedens.output.cube import write_cube
from fedens.output.report import ReportContent, ReportFigure, ReportTable, write_report
from fedens.output.vtk import write_atoms, write_pvd, write_vtu

__all__ = [
    "ReportContent",
    "ReportFigure",
    "ReportTable",
    "write_atoms",
    "write_cube",
    "write_pvd",
    "write_report",
    "write_vtu",
]
