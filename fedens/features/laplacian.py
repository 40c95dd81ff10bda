"""Gaussian multipole moments on a TensorSpace by functions of its Laplacian.

With the density n of all atoms, seen through a probe of width sigma,

    A_nm = sigma^(2n) R_nm(grad) exp(sigma^2 lap/2) n,

so that all widths come from one field, at a cost that does not depend on the number of atoms. Both
the smoothing and the derivatives are functions of the Laplacian of each axis, lap_x = -lambda:
even derivatives are powers of -lambda, and an odd one is taken on the side of the test functions,
where nothing jumps between elements. The field one starts from is not n but n seen through a
probe a little narrower than the narrowest, which the space resolves; it is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedens.features.blocks import runner
from fedens.features.harmonics import Powers, harmonic_coefficients, monomials
from fedens.features.moments import Atoms, Moments, Reduction, no_moments
from fedens.features.probes import Probes
from fedens.fem.axis import Axis
from fedens.fem.separable import gaussian_sum
from fedens.fem.tensor import TensorSpace

#: Entries of one block (monomials x points).
_BLOCK_ENTRIES = 2_000_000
#: Variance of the field one starts from, in units of that of the narrowest probe.
_FIRST_VARIANCE = 0.5


def laplacian_rows(
    reduction: Reduction,
    space: TensorSpace,
    atoms: Atoms,
    channels: Sequence[Sequence[str]],
    probes: Probes,
) -> Tensor:
    """Rows of a reduction of the moments of each channel, (n_rows, n_points).

    Args:
        channels: for each channel, the elements that it adds up.
    """
    fields = [_Field.of(space, atoms, channel, probes) if channel else None for channel in channels]
    n_x, n_y, n_z = space.shape
    n_terms = (probes.max_order + 1) * (probes.max_order + 2) // 2
    size = max(1, _BLOCK_ENTRIES // (n_terms * n_x * n_z))
    operators = [_operators(space, width, probes) for width in probes.widths]
    factors = probes.derivative_factors(space.points)
    run = runner([*atoms.tensors, space.axes[0].points] if size < n_y else [])

    def block(rows: slice) -> Tensor:
        nothing = space.axes[0].points.new_zeros(n_x, len(range(n_y)[rows]), n_z)
        empty = no_moments(nothing, len(probes.widths), probes.max_order)
        return reduction(
            [empty if f is None else f.moments(operators, factors, rows) for f in fields]
        )

    blocks = [run(block, slice(start, start + size)) for start in range(0, n_y, size)]
    return torch.cat(blocks, dim=2).flatten(1)


def _operators(space: TensorSpace, width: float, probes: Probes) -> list[Tensor]:
    """For each axis, matrices (max_order + 1, n_points, n_points) of derivatives and smoothing."""
    variance = width**2 - _first_variance(probes)
    return [_derivatives(axis, variance, probes.max_order) for axis in space.axes]


def _first_variance(probes: Probes) -> float:
    return _FIRST_VARIANCE * min(probes.widths) ** 2


def _derivatives(axis: Axis, variance: float, highest: int) -> Tensor:
    """d^a/dx^a exp(variance lap/2) of fields at the points of an axis, a = 0 to ``highest``."""
    smoothing = torch.exp(-0.5 * variance * axis.eigenvalues)
    sides = (axis.values * axis.weights[:, None]).T, -(axis.derivatives * axis.weights[:, None]).T
    return torch.stack(
        [
            axis.values @ (((-axis.eigenvalues) ** (a // 2) * smoothing)[:, None] * sides[a % 2])
            for a in range(highest + 1)
        ]
    )


@dataclass(frozen=True, eq=False)
class _Field:
    """Density of a channel and the field one starts from, (n_x, n_y, n_z) each."""

    density: Tensor
    source: Tensor

    @classmethod
    def of(
        cls, space: TensorSpace, atoms: Atoms, elements: Sequence[str], probes: Probes
    ) -> _Field:
        """Of the atoms of some elements."""
        table = probes.gaussians
        owners = [i for s in elements for i in atoms.of_element[s] for _ in range(len(table[s]))]
        seen = probes.seen([s for s in elements for _ in atoms.of_element[s]], atoms.positions)
        centres, amplitudes = atoms.positions[owners], seen.amplitudes * atoms.occupancies[owners]
        wider = 1 + 2 * _first_variance(probes) * seen.betas
        density = gaussian_sum(space, centres, seen.betas, amplitudes)
        source = gaussian_sum(space, centres, seen.betas / wider, amplitudes / wider**1.5)
        return cls(density.reshape(space.shape), source.reshape(space.shape))

    def moments(
        self, operators: Sequence[Sequence[Tensor]], factors: Tensor, rows: slice
    ) -> Moments:
        """Density and moments at some points along y."""
        moments: list[list[Tensor]] = [[] for _ in factors]
        for width, axes in enumerate(operators):
            terms = _derivatives_of(self.source, axes, rows)
            for order, of_width in enumerate(moments):
                monomial = torch.stack([terms[powers] for powers in monomials(order)])
                harmonics = factors[order, width] * harmonic_coefficients(order).to(monomial)
                of_width.append(torch.tensordot(harmonics, monomial, dims=1))
        return self.density[:, rows], [torch.stack(of_width) for of_width in moments]


def _derivatives_of(source: Tensor, axes: Sequence[Tensor], rows: slice) -> dict[Powers, Tensor]:
    """Derivatives d^(a+b+c) / dx^a dy^b dz^c of a field, smoothed, at some rows along y."""
    x, y, z = axes
    result: dict[Powers, Tensor] = {}
    for b in range(len(y)):
        along_y = torch.matmul(y[b, rows], source)
        for c in range(len(z) - b):
            along_z = along_y @ z[c].T
            flat = x[: len(x) - b - c].flatten(0, 1) @ along_z.flatten(1)
            values = flat.reshape(-1, x.shape[1], *along_z.shape[1:])
            result |= {(a, b, c): values[a] for a in range(len(values))}
    return result
