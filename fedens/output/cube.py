"""Cube files: a field on a uniform grid, for VESTA, VMD, Avogadro and others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fedens.fem.tensor import TensorSpace
from fedens.fields import field_unit
from fedens.files import write_atomically
from fedens.output.uniform_grid import UniformGrid, uniform_grid
from fedens.structure import Structure


def write_cube(
    path: str | Path,
    structure: Structure,
    space: TensorSpace,
    values: Tensor | ArrayLike,
    name: str = "density",
    *,
    spacing: float | None = None,
    unit: str | None = None,
) -> Path:
    """A field on a uniform grid as a Gaussian cube file, in atomic units, as such files are.

    The grid is that of :class:`fedens.output.uniform_grid.UniformGrid`. The first line names
    field and units. Numbers have the format's six digits.

    Args:
        values: (n_points,), at ``space.points``.
        name: of the field; ``unit`` (atomic) if the name does not tell it, see
            :data:`fedens.fields.UNITS`.
        spacing: largest distance of grid points, bohr; default: the finest spacing of the space.

    Raises:
        OutputError: for a file that cannot be written, a spacing that is not positive, or a
            field without a unit.
        SpaceError: for a field of the wrong shape, or a structure that does not fit the space.
    """
    space.check_matches(structure)
    grid = uniform_grid(space, values, name, spacing)
    return write_cube_grid(path, structure, grid, name, unit=unit)


def write_cube_grid(
    path: str | Path,
    structure: Structure,
    grid: UniformGrid,
    name: str = "density",
    *,
    unit: str | None = None,
) -> Path:
    """A field that is on a uniform grid already; its remark goes to the first line.

    See :func:`write_cube`.
    """
    unit_name = field_unit(name, {name: unit} if unit else None).name
    atoms = zip(structure.numbers, structure.positions, strict=True)
    head = [
        "; ".join(filter(None, [f"fedens: {name} in {unit_name}", "lengths in bohr", grid.remark])),
        "outer loop x, middle loop y, inner loop z",
        _line(len(structure), grid.origin),
        # more digits, for the sum of many steps
        *(_line(n, h, 8) for n, h in zip(grid.values.shape, np.diag(grid.steps), strict=True)),
        *(_line(number, [number, *position]) for number, position in atoms),
    ]
    return write_atomically(path, "\n".join(head) + "\n" + _rows(grid.values))


def _line(number: int, values: ArrayLike, digits: int = 6) -> str:
    """In columns of twelve, as a fixed format reads them too."""
    return f"{number:5d}" + "".join(f"{v:12.{digits}f}" for v in np.asarray(values))


def _rows(values: NDArray[np.float64]) -> str:
    """Six numbers to a line; each run along z starts a new one."""
    rows = values.reshape(-1, values.shape[-1])
    template = "".join(
        "%13.5E" + ("\n" if (i + 1) % 6 == 0 or i + 1 == rows.shape[1] else "")
        for i in range(rows.shape[1])
    )
    return "".join(template % tuple(row) for row in rows.tolist())
