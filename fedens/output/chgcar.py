"""CHGCAR files: a density on a uniform grid as VASP writes it, for VESTA, pymatgen and others."""

from __future__ import annotations

from pathlib import Path

from ase import Atoms
from numpy.typing import ArrayLike
from torch import Tensor

from fedens.fem.tensor import TensorSpace
from fedens.files import write_atomically
from fedens.output.uniform_grid import UniformGrid, uniform_grid
from fedens.structure import Structure
from fedens.units import BOHR_IN_ANGSTROM


def write_chgcar(
    path: str | Path,
    structure: Structure,
    space: TensorSpace,
    density: Tensor | ArrayLike,
    *,
    spacing: float | None = None,
) -> Path:
    """An electron density as a VASP CHGCAR file: density times cell volume, x running fastest.

    The mean of the numbers is the number of electrons. Isolated structures get their box as a
    cell, with its lower corner as the origin, as the format has no other.

    Args:
        density: (n_points,), at ``space.points``, electron/bohr^3.
        spacing: largest distance of grid points, bohr; default: the finest spacing of the space.

    Raises:
        OutputError: for a file that cannot be written, or a spacing that is not positive.
        SpaceError: for a density of the wrong shape, or a structure that does not fit the space.
        StructureError: for partial occupancies, which such files cannot hold.
    """
    space.check_matches(structure)
    return write_chgcar_grid(path, structure, uniform_grid(space, density, "density", spacing))


def write_chgcar_grid(path: str | Path, structure: Structure, grid: UniformGrid) -> Path:
    """A density that is on a uniform grid already; its remark goes to the first line.

    See :func:`write_chgcar`.
    """
    from ase.calculators.vasp import VaspChargeDensity

    positions = structure.positions - grid.origin
    atoms: Atoms = structure.replace(positions=positions, cell=grid.lengths, pbc=True).to_ase()
    content = VaspChargeDensity(None)
    content.atoms, content.chg = [atoms], [grid.values / BOHR_IN_ANGSTROM**3]

    def write(file: Path) -> None:
        content.write(str(file), format="chgcar")
        if grid.remark:
            first, rest = file.read_text().split("\n", 1)
            file.write_text(f"{first.strip()}; fedens: {grid.remark}\n{rest}")

    return write_atomically(path, write)
