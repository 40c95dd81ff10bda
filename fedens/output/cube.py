"""Cube files: a field on a uniform grid, for VESTA, VMD, Avogadro and others."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fedens.errors import OutputError
from fedens.fem.mesh import grid_values
from fedens.fem.tensor import TensorSpace
from fedens.files import write_atomically
from fedens.output.files import field_unit, is_density
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

    The grid starts at the box's lower corner and leaves out the far faces, which repeat the
    near ones or, in isolated boxes, are walls: sum times cell volume is the integral. The first
    line names field and units. Numbers have the format's six digits.

    Args:
        values: (n_points,), at ``space.points``.
        name: of the field; ``unit`` (atomic) if the name does not tell it, see
            :data:`fedens.output.files.FILE_UNITS`.
        spacing: largest distance of grid points, bohr; default: the finest spacing of the space.

    Raises:
        OutputError: for a file that cannot be written, a spacing that is not positive, or a
            field without a unit.
        SpaceError: for a field of the wrong shape, or a structure that does not fit the space.
    """
    space.check_matches(structure)
    unit = field_unit(name, {name: unit} if unit else None)
    spacing = space.finest_spacing if spacing is None else spacing
    if not spacing > 0:
        raise OutputError(f"spacing is {spacing} bohr; expected a positive number")
    counts = [math.ceil(length / spacing - 1e-9) for length in space.lengths]
    steps = [length / count for length, count in zip(space.lengths, counts, strict=True)]
    origin = [float(axis.edges[0]) for axis in space.axes]
    grid = [o + np.arange(n) * h for o, n, h in zip(origin, counts, steps, strict=True)]
    head = [
        f"fedens: {name} in {unit}; lengths in bohr",
        "outer loop x, middle loop y, inner loop z",
        _line(len(structure), origin),
        *(_line(n, h * axis) for n, h, axis in zip(counts, steps, np.eye(3), strict=True)),
        *(_line(z, [z, *r]) for z, r in zip(structure.numbers, structure.positions, strict=True)),
    ]
    data = grid_values(space, values, grid, root=is_density(name))
    return write_atomically(path, "\n".join(head) + "\n" + _rows(data))


def _line(number: int, values: ArrayLike) -> str:
    return f"{number:5d}" + "".join(f"{v:12.6f}" for v in np.asarray(values))


def _rows(values: NDArray[np.float64]) -> str:
    """Six numbers to a line; each run along z starts a new one."""
    rows = values.reshape(-1, values.shape[-1])
    template = "".join(
        "%13.5E" + ("\n" if (i + 1) % 6 == 0 or i + 1 == rows.shape[1] else "")
        for i in range(rows.shape[1])
    )
    return "".join(template % tuple(row) for row in rows.tolist())
