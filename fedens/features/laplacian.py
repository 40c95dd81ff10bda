"""Gaussian multipole moments on a TensorSpace by functions of its Laplacian.

With the density n of all atoms, seen through a probe of width sigma,

    A_nm(sigma) = sigma^(2n) R_nm(grad) exp(sigma^2 lap/2) n,

so that the moments of every width follow from those of the narrowest, s,

    A_nm(sigma) = (sigma/s)^(2n) exp((sigma^2 - s^2) lap/2) A_nm(s),

by one factor for each eigenmode. The narrowest is summed exactly (axis_products); its derivatives
are those of Gaussians, not of fields whose slopes jump between elements. So are widths that differ
from it by less than the space resolves. Smoothing leaves few modes of the wider ones, so that they
cost least.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from fedens.errors import DescriptorError
from fedens.features.axis_products import separable_rows
from fedens.features.blocks import runner
from fedens.features.moments import Channels, Moments, Reduction
from fedens.features.probes import Probes
from fedens.features.surroundings import Surroundings
from fedens.fem.tensor import TensorSpace

#: Entries of one block (harmonics x points).
_BLOCK_ENTRIES = 2_000_000
#: Smallest variance of a smoothing that is left to the space, in squares of its spacing.
_RESOLVED_VARIANCE = 8.0
#: Modes are kept until smoothing has left exp(-32) = 1e-14 of them.
_KEPT_EXPONENT = 32.0


def laplacian_rows(
    reduction: Reduction,
    space: TensorSpace,
    atoms: Surroundings,
    channels: Channels,
    probes: Probes,
) -> Tensor:
    """Rows of a reduction of the moments of each channel, (n_rows, n_points).

    Raises:
        DescriptorError: for a space that is not periodic, whose fields end at its walls.
    """
    if not space.is_periodic:
        raise DescriptorError(
            'path="laplacian" needs a periodic space: smoothing in an isolated box feels its '
            'walls; use path="separable"'
        )
    widths = sorted(probes.widths)
    variances = [width**2 - widths[0] ** 2 for width in widths]
    n_exact = bisect_left(variances, _RESOLVED_VARIANCE * space.spacing**2)
    n_harmonics = (probes.max_order + 1) ** 2
    exact = replace(probes, widths=tuple(widths[:n_exact]))
    fields = separable_rows(_all_fields, space, atoms, channels, exact)
    fields = fields.reshape(len(channels), -1, *space.shape)
    coefficients = space.test(fields[:, 1 : 1 + n_harmonics].flatten(2))
    coefficients = coefficients.reshape(*coefficients.shape[:2], *space.coefficient_shape)
    factors = _factors(probes, space.points)

    def block(rows: slice) -> Tensor:
        part = fields[..., rows, :]
        of_width = dict(zip(widths, part[:, 1:].split(n_harmonics, dim=1), strict=False))
        for width, variance in list(zip(widths, variances, strict=True))[n_exact:]:
            smooth = _smoothed(space, coefficients, variance, rows)
            of_width[width] = factors[width] * smooth
        stacked = torch.stack([of_width[width] for width in probes.widths], dim=1)
        moments = [stacked[:, :, n * n : (n + 1) ** 2] for n in range(probes.max_order + 1)]
        return reduction(
            [(density, [m[c] for m in moments]) for c, density in enumerate(part[:, 0])]
        )

    n_x, n_y, n_z = space.shape
    size = max(1, _BLOCK_ENTRIES // (fields.shape[1] * n_x * n_z))
    run = runner([*atoms.tensors, space.axes[0].points] if size < n_y else [])
    blocks = [run(block, slice(start, start + size)) for start in range(0, n_y, size)]
    return torch.cat(blocks, dim=2).flatten(1)


def _all_fields(channels: Sequence[Moments]) -> Tensor:
    """Density and then the moments of each width, channel by channel, (n_fields, ...)."""
    fields = []
    for density, moments in channels:
        fields.append(density[None])
        for of_width in zip(*moments, strict=True):
            fields += of_width
    return torch.cat(fields)


def _factors(probes: Probes, like: Tensor) -> dict[float, Tensor]:
    """For each width, factors (n_lm, 1, 1, 1) of moments in units of the narrowest width's."""
    factors = probes.derivative_factors(like)
    narrowest = factors[:, probes.widths.index(min(probes.widths))]
    repeats = torch.tensor([2 * n + 1 for n in range(len(factors))], device=like.device)
    return {
        width: (of_width / narrowest).repeat_interleave(repeats)[:, None, None, None]
        for width, of_width in zip(probes.widths, factors.T, strict=True)
    }


def _smoothed(space: TensorSpace, coefficients: Tensor, variance: float, rows: slice) -> Tensor:
    """exp(variance lap/2) of fields, at some rows along y: (..., n_x, n_rows, n_z)."""
    factors = []
    for axis in space.axes:
        kept = axis.eigenvalues[variance * axis.eigenvalues < 2 * _KEPT_EXPONENT]
        factors.append(axis.values[:, : len(kept)] * torch.exp(-0.5 * variance * kept))
    x, y, z = factors
    kept_modes = coefficients[..., : x.shape[1], : y.shape[1], : z.shape[1]]
    along = torch.matmul(y[rows], kept_modes) @ z.T
    planes: Tensor = torch.matmul(x, along.flatten(-2)).unflatten(-1, along.shape[-2:])
    return planes
