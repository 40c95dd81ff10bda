"""Sums of Gaussians on a space; on a TensorSpace with periodic images, as products over the axes.

A Gaussian times a monomial factors over x, y and z, so a sum over atoms at all points is a
product of three per-axis matrices: exact, differentiable, and far cheaper than a pair sum.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fedens.fem.axis import Axis
from fedens.fem.space import FunctionSpace
from fedens.fem.tensor import TensorSpace

#: Gaussians are followed until exp(-40) = 4e-18 of their height.
_REACH_EXPONENT = 40.0
#: Largest number of entries of one intermediate product.
_CHUNK_ENTRIES = 6_000_000


def gaussian_factors(axis: Axis, centres: Tensor, exponents: Tensor, max_power: int = 0) -> Tensor:
    """Per-axis factors sum over images of (x - c)^k exp(-beta (x - c)^2).

    Args:
        axis: axis with points (n_points,).
        centres: (n,), bohr. exponents: (n,), bohr^-2.
        max_power: largest k.

    Returns:
        (max_power + 1, n_points, n), differentiable in centres and in the axis' points.
    """
    length = axis.edges[-1] - axis.edges[0]
    d = axis.points[:, None] - centres
    if axis.periodic:
        d = d - length * torch.round((d / length).detach())
        reach = math.sqrt(_REACH_EXPONENT / float(exponents.min().detach()))
        images = max(0, math.ceil(reach / float(length.detach()) - 0.5))
        shifts = length * torch.arange(-images, images + 1, device=d.device, dtype=d.dtype)
        d = d[..., None] - shifts
    else:
        d = d[..., None]
    gaussian = torch.exp(-exponents[:, None] * d**2)
    terms = [gaussian]
    for _ in range(max_power):
        terms.append(terms[-1] * d)
    return torch.stack(terms).sum(dim=-1)


def gaussian_sum(
    space: FunctionSpace,
    centres: Tensor,
    exponents: Tensor,
    amplitudes: Tensor,
    quadratic: Tensor | None = None,
) -> Tensor:
    """sum_i (amplitude_i + quadratic_i r_i^2) exp(-exponent_i r_i^2) at the space's points.

    Args:
        centres: (n, 3), bohr. exponents, amplitudes: (n,).
        quadratic: (n,) factors of r^2, or None.

    Returns:
        (n_points,), differentiable in everything.
    """
    if not isinstance(space, TensorSpace):
        return _gaussians_at(space.points, centres, exponents, amplitudes, quadratic)
    ny, nz = space.shape[1:]
    per_chunk = max(1, _CHUNK_ENTRIES // (ny * nz))
    total = space.axes[0].points.new_zeros(space.shape[0], ny * nz)
    for start in range(0, len(centres), per_chunk):
        part = slice(start, start + per_chunk)
        total = total + _gaussian_products(
            space,
            centres[part],
            exponents[part],
            amplitudes[part],
            None if quadratic is None else quadratic[part],
        )
    return total.reshape(-1)


def _gaussians_at(
    points: Tensor,
    centres: Tensor,
    exponents: Tensor,
    amplitudes: Tensor,
    quadratic: Tensor | None,
) -> Tensor:
    """The sum at isolated points (n_points, 3), without images."""
    total = points.new_zeros(len(points))
    for i, centre in enumerate(centres):
        r2 = ((points - centre) ** 2).sum(dim=1)
        factor = amplitudes[i] if quadratic is None else amplitudes[i] + quadratic[i] * r2
        total = total + factor * torch.exp(-exponents[i] * r2)
    return total


def _gaussian_products(
    space: TensorSpace,
    centres: Tensor,
    exponents: Tensor,
    amplitudes: Tensor,
    quadratic: Tensor | None,
) -> Tensor:
    power = 0 if quadratic is None else 2
    x, y, z = (
        gaussian_factors(axis, centres[:, i], exponents, power) for i, axis in enumerate(space.axes)
    )
    plane = y[0][:, None, :] * (z[0] * amplitudes)
    if quadratic is None:
        return x[0] @ plane.flatten(0, 1).T
    bare = y[0][:, None, :] * (z[0] * quadratic)
    plane = plane + y[2][:, None, :] * (z[0] * quadratic) + y[0][:, None, :] * (z[2] * quadratic)
    return x[0] @ plane.flatten(0, 1).T + x[2] @ bare.flatten(0, 1).T
