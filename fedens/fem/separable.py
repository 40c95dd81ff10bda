"""Sums over atoms at the points of three axes, periodic images included.

A Gaussian times a monomial factors over x, y and z, so a sum over atoms at all points is a
product of three per-axis matrices: exact, differentiable, and far cheaper than a pair sum. Other
radial functions are summed over the points within their cutoff, found axis by axis; in periodic
cells also by their Fourier series, whose waves factor just so.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from functools import reduce

import torch
from torch import Tensor

from fedens.fem.axis import Axis

#: Axes along x, y and z.
Axes = tuple[Axis, Axis, Axis]

#: Gaussians are followed until exp(-40) = 4e-18 of their height.
REACH_EXPONENT = 40.0
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
        reach = math.sqrt(REACH_EXPONENT / float(exponents.min().detach()))
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


def gaussian_sum(axes: Axes, centres: Tensor, exponents: Tensor, amplitudes: Tensor) -> Tensor:
    """See :meth:`fedens.fem.space.FunctionSpace.gaussian_sum`."""
    amplitudes = amplitudes[:, None] if amplitudes.ndim == 1 else amplitudes
    powers = amplitudes.shape[1]
    nx, ny, nz = (len(axis.points) for axis in axes)
    per_chunk = max(1, _CHUNK_ENTRIES // (ny * nz))
    total = axes[0].points.new_zeros(nx, ny * nz)
    for start in range(0, len(centres), per_chunk):
        part = slice(start, start + per_chunk)
        x, y, z = (
            gaussian_factors(axis, centres[part, i], exponents[part], 2 * powers - 2)[::2]
            for i, axis in enumerate(axes)
        )
        for a in range(powers):
            plane = _plane(a, y, z, amplitudes[part])
            total = total + x[a] @ plane.flatten(0, 1).T
    return total.reshape(-1)


def _plane(a: int, y: Tensor, z: Tensor, amplitudes: Tensor) -> Tensor:
    """What stands beside x^2a in the sum of amplitude_p r^2p, Gaussians included; (ny, nz, n).

    The factor of x^2a y^2b z^2c in r^2p, p = a + b + c, is p!/(a! b! c!).
    """

    def line(b: int) -> Tensor:
        factors = (math.comb(a + b + c, a) * math.comb(b + c, b) for c in range(len(z) - a - b))
        terms = (z[c] * (f * amplitudes[:, a + b + c]) for c, f in enumerate(factors))
        return reduce(operator.add, terms)

    return reduce(operator.add, (y[b][:, None] * line(b) for b in range(len(y) - a)))


def radial_sum(
    axes: Axes, centres: Tensor, function: Callable[[Tensor], Tensor], cutoff: float
) -> Tensor:
    """See :meth:`fedens.fem.space.FunctionSpace.radial_sum`."""
    nx, ny, nz = (len(axis.points) for axis in axes)
    total = centres.new_zeros(nx * ny * nz)
    for centre in centres:
        near = [_axis_neighbours(axis, centre[i], cutoff) for i, axis in enumerate(axes)]
        (ix, dx), (iy, dy), (iz, dz) = near
        r2 = dx[:, None, None] ** 2 + dy[:, None] ** 2 + dz**2
        inside = r2.detach() < cutoff**2
        index = (ix[:, None, None] * ny + iy[:, None]) * nz + iz
        distances = torch.sqrt(r2[inside] + 1e-30)
        total = total.index_add(0, index[inside], function(distances))
    return total


def fourier_sum(
    axes: Axes,
    centres: Tensor,
    amplitudes: Tensor,
    transform: Callable[[Tensor], Tensor],
    largest: float,
) -> Tensor:
    """See :meth:`fedens.fem.space.FunctionSpace.fourier_sum`."""
    lengths = [axis.edges[-1] - axis.edges[0] for axis in axes]
    waves = [_wave_numbers(length, largest) for length in lengths]
    waves[0] = waves[0][len(waves[0]) // 2 :]  # those of opposite sign are the complex conjugate
    kx, ky, kz = waves
    q = torch.sqrt(kx[:, None, None] ** 2 + ky[:, None] ** 2 + kz**2 + 1e-30)
    form = torch.where(q < largest, transform(q), 0.0) / (lengths[0] * lengths[1] * lengths[2])
    form = torch.cat([form[:1], 2 * form[1:]])
    coefficients = form * _structure_factor(waves, centres, amplitudes).reshape(form.shape)
    x, y, z = (_phases(axis.points, k) for axis, k in zip(axes, waves, strict=True))
    planes = (y @ (coefficients @ z.T)).flatten(1)
    return (x.real @ planes.real - x.imag @ planes.imag).reshape(-1)


def _wave_numbers(length: Tensor, largest: float) -> Tensor:
    highest = math.floor(largest * float(length.detach()) / (2 * math.pi))
    numbers = torch.arange(-highest, highest + 1, device=length.device, dtype=length.dtype)
    return 2 * math.pi / length * numbers


def _phases(points: Tensor, waves: Tensor) -> Tensor:
    angles = points[:, None] * waves
    return torch.complex(torch.cos(angles), torch.sin(angles))


def _structure_factor(waves: list[Tensor], centres: Tensor, amplitudes: Tensor) -> Tensor:
    """sum_A amplitude_A exp(-i k R_A), (n_kx, n_ky * n_kz)."""
    kx, ky, kz = waves
    per_chunk = max(1, _CHUNK_ENTRIES // (len(ky) * len(kz)))
    total = torch.zeros(len(kx), len(ky) * len(kz), dtype=torch.complex128, device=kx.device)
    for start in range(0, len(centres), per_chunk):
        part = slice(start, start + per_chunk)
        x, y, z = (_phases(-centres[part, i], k) for i, k in enumerate(waves))
        plane = (y[:, :, None] * z[:, None, :]).flatten(1)
        total = total + (amplitudes[part, None] * x).T @ plane
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
