"""Sums of radial functions around atoms at the points of a space."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from fedens.fem.axis import Axis
from fedens.fem.space import FunctionSpace
from fedens.fem.tensor import TensorSpace


def radial_sum(
    space: FunctionSpace,
    centres: Tensor,
    function: Callable[[Tensor], Tensor],
    cutoff: float,
) -> Tensor:
    """sum_A function(|r - R_A|) at the space's points, periodic images included.

    Args:
        centres: (n_atoms, 3), bohr. function: of distances (n,) in bohr, any shape.
        cutoff: distance beyond which the function is taken as zero, bohr.

    Returns:
        (n_points,), differentiable in the centres and in the space's scaling.
    """
    if not isinstance(space, TensorSpace):
        return _sum_at(space.points, centres, function, cutoff)
    ny, nz = space.shape[1:]
    total = centres.new_zeros(space.n_points)
    for centre in centres:
        near = [_axis_neighbours(a, centre[i], cutoff) for i, a in enumerate(space.axes)]
        (ix, dx), (iy, dy), (iz, dz) = near
        r2 = dx[:, None, None] ** 2 + dy[:, None] ** 2 + dz**2
        inside = r2.detach() < cutoff**2
        index = (ix[:, None, None] * ny + iy[:, None]) * nz + iz
        distances = torch.sqrt(r2[inside] + 1e-30)
        total = total.index_add(0, index[inside], function(distances))
    return total


def _sum_at(
    points: Tensor, centres: Tensor, function: Callable[[Tensor], Tensor], cutoff: float
) -> Tensor:
    """The sum at isolated points (n_points, 3), without images."""
    total = centres.new_zeros(len(points))
    for centre in centres:
        r2 = ((points - centre) ** 2).sum(dim=1)
        inside = torch.nonzero(r2.detach() < cutoff**2)[:, 0]
        total = total.index_add(0, inside, function(torch.sqrt(r2[inside])))
    return total


def _axis_neighbours(axis: Axis, centre: Tensor, cutoff: float) -> tuple[Tensor, Tensor]:
    """Indices of an axis' points within the cutoff of a centre's images, and their offsets."""
    length = axis.edges[-1] - axis.edges[0]
    d = axis.points - centre
    if not axis.periodic:
        index = torch.nonzero(d.abs() < cutoff)[:, 0]
        return index, d[index]
    d = d - length * torch.round((d / length).detach())
    images = max(0, math.ceil(cutoff / float(length.detach()) - 0.5))
    shifts = torch.arange(-images, images + 1, device=d.device, dtype=d.dtype)
    d = d[:, None] - length * shifts
    index, image = torch.nonzero(d.abs() < cutoff, as_tuple=True)
    return index, d[index, image]
