"""Reference points of a structure: where descriptors look and energies are summed."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from fedens.errors import DescriptorError
from fedens.fem.space import FunctionSpace
from fedens.fem.tensor import TensorSpace
from fedens.structure import Structure

KINDS = ("atoms", "grid", "quadrature")
_PLANNED = ("bonds", "nodes")


def reference_points(
    structure: Structure,
    kind: str = "atoms",
    *,
    spacing: float | None = None,
    space: FunctionSpace | None = None,
) -> tuple[Tensor, Tensor]:
    """Points of one kind and their weights w in a sum over points, sum of w e.

    Args:
        structure: the atoms.
        kind: "atoms" for the nuclei, with weights 1; "grid" for a uniform grid in a periodic
            cell of any shape, with weights volume / n_points (bohr^3); "quadrature" for the
            points and weights of a space (bohr^3).
        spacing: for "grid", the largest distance of neighbouring points along a cell vector,
            bohr.
        space: for "quadrature", the space.

    Returns:
        points (n_points, 3), bohr, and weights (n_points,), both float64.

    Raises:
        DescriptorError: for an unknown kind, or an argument that is missing or out of range.
        SpaceError: for a TensorSpace that does not fit the structure.
    """
    if kind == "atoms":
        return torch.tensor(structure.positions), torch.ones(len(structure), dtype=torch.float64)
    if kind == "grid":
        return _grid(structure, spacing)
    if kind == "quadrature":
        if space is None:
            raise DescriptorError('kind "quadrature" needs space=, whose points are meant')
        if isinstance(space, TensorSpace):
            space.check_matches(structure)
        return space.points, space.weights
    if kind in _PLANNED:
        raise DescriptorError(f"kind {kind!r} is not built yet; there are {', '.join(KINDS)}")
    raise DescriptorError(f"kind is {kind!r}: expected one of {', '.join(KINDS)}")


def _grid(structure: Structure, spacing: float | None) -> tuple[Tensor, Tensor]:
    if spacing is None or not (math.isfinite(spacing) and spacing > 0):
        raise DescriptorError(f"spacing is {spacing}: a grid needs a positive spacing in bohr")
    if not structure.periodic or structure.cell is None:
        raise DescriptorError(
            'kind "grid" needs a periodic structure; for isolated atoms use "quadrature" with a '
            "space made for the structure"
        )
    lengths = np.linalg.norm(structure.cell, axis=1)
    # a spacing that divides the cell but for rounding is taken as it is
    counts = [max(1, math.ceil(length / spacing - 1e-9)) for length in lengths]
    fractions = np.meshgrid(*(np.arange(n) / n for n in counts), indexing="ij")
    points = np.stack([f.ravel() for f in fractions], axis=1) @ structure.cell
    weights = np.full(len(points), structure.volume / len(points))
    return torch.tensor(points), torch.tensor(weights)
