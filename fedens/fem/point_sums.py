"""Sums over atoms at points that lie anywhere, without periodic images."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def gaussian_sum(
    points: Tensor,
    centres: Tensor,
    exponents: Tensor,
    amplitudes: Tensor,
    quadratic: Tensor | None = None,
) -> Tensor:
    """At points (n_points, 3); see :meth:`fedens.fem.space.FunctionSpace.gaussian_sum`."""
    total = points.new_zeros(len(points))
    for i, centre in enumerate(centres):
        r2 = ((points - centre) ** 2).sum(dim=1)
        factor = amplitudes[i] if quadratic is None else amplitudes[i] + quadratic[i] * r2
        total = total + factor * torch.exp(-exponents[i] * r2)
    return total


def radial_sum(
    points: Tensor, centres: Tensor, function: Callable[[Tensor], Tensor], cutoff: float
) -> Tensor:
    """At points (n_points, 3); see :meth:`fedens.fem.space.FunctionSpace.radial_sum`."""
    total = centres.new_zeros(len(points))
    for centre in centres:
        r2 = ((points - centre) ** 2).sum(dim=1)
        inside = torch.nonzero(r2.detach() < cutoff**2)[:, 0]
        total = total.index_add(0, inside, function(torch.sqrt(r2[inside])))
    return total
