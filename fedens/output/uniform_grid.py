"""A field on a uniform grid over the box, as cube and CHGCAR files have it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fedens.errors import OutputError
from fedens.fem.mesh import grid_values
from fedens.fem.tensor import TensorSpace
from fedens.fields import is_density


@dataclass(frozen=True, eq=False)
class UniformGrid:
    """A field on a grid that starts at the box's lower corner and leaves out the far faces.

    Those repeat the near ones or, in isolated boxes, are walls where the field vanishes: sum
    times :attr:`voxel` is the integral.

    Attributes:
        values: (nx, ny, nz), as given. origin: lower corner, (3,), bohr.
        steps: distance of planes along each axis, (3,), bohr.
        remark: what a reader of a file with it should know.
    """

    values: NDArray[np.float64]
    origin: NDArray[np.float64]
    steps: NDArray[np.float64]
    remark: str = ""

    @property
    def voxel(self) -> float:
        """Volume that belongs to a grid point, bohr^3."""
        return float(np.prod(self.steps))

    @property
    def lengths(self) -> NDArray[np.float64]:
        """Edges of the box, (3,), bohr."""
        return self.steps * self.values.shape


def planes_of_box(
    origin: ArrayLike, lengths: ArrayLike, spacing: float
) -> tuple[list[NDArray[np.float64]], NDArray[np.float64]]:
    """Coordinates of a grid's planes along each axis, and their distances (3,), bohr.

    Args:
        origin, lengths: lower corner and edges of the box, (3,), bohr.
        spacing: largest distance of planes, bohr.

    Raises:
        OutputError: for a spacing that is not a positive number.
    """
    if not 0 < spacing < math.inf:
        raise OutputError(f"spacing is {spacing} bohr; expected a positive number")
    counts = np.ceil(np.asarray(lengths) / spacing - 1e-9).astype(int)
    steps = np.asarray(lengths) / counts
    corner = np.asarray(origin)
    return [o + np.arange(n) * h for o, n, h in zip(corner, counts, steps, strict=True)], steps


def uniform_grid(
    space: TensorSpace, values: Tensor | ArrayLike, name: str, spacing: float | None = None
) -> UniformGrid:
    """A field (n_points,) on a uniform grid.

    Args:
        name: of the field; a density is interpolated by its square root.
        spacing: largest distance of planes, bohr; default: the finest spacing of the space.

    Raises:
        OutputError: for a spacing that is not positive. SpaceError: for a field of the wrong shape.
    """
    spacing = space.finest_spacing if spacing is None else spacing
    origin = np.array([float(axis.edges[0]) for axis in space.axes])
    planes, steps = planes_of_box(origin, space.lengths, spacing)
    return UniformGrid(grid_values(space, values, planes, root=is_density(name)), origin, steps)
