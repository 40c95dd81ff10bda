"""Gaussian multipole moments on a TensorSpace, exactly: a Gaussian times a monomial is a product
of one factor for each axis, and a sum of such is a product of three matrices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import torch
from torch import Tensor

from fedens.features.blocks import runner
from fedens.features.moments import Channels, Moments, Reduction, no_moments
from fedens.features.probes import Probes
from fedens.features.surroundings import Surroundings
from fedens.fem.harmonics import Powers, harmonic_coefficients, monomials
from fedens.fem.separable import gaussian_factors
from fedens.fem.tensor import TensorSpace

#: Entries of one block (monomials x points, or x Gaussians of a plane).
_BLOCK_ENTRIES = 1_000_000
#: Gaussians below this share of their height, times powers of the distance, are left out.
_NEGLIGIBLE = 1e-13


def separable_rows(
    reduction: Reduction,
    space: TensorSpace,
    atoms: Surroundings,
    channels: Channels,
    probes: Probes,
) -> Tensor:
    """Rows of a reduction of the moments of each channel, (n_rows, n_points)."""
    products = [_axis_products(space, atoms, channel, probes) for channel in channels]
    n_x, n_y, n_z = space.shape
    n_terms = (probes.max_order + 1) * (probes.max_order + 2) // 2
    n_gaussians = max(len(p.amplitudes) for p in products if p is not None)
    size = max(1, _BLOCK_ENTRIES // (n_terms * n_z * max(n_x, n_gaussians)))
    run = runner([*atoms.tensors, *(axis.points for axis in space.axes)] if size < n_y else [])

    def block(parts: Sequence[_AxisProducts | None]) -> Tensor:
        n_rows = next(len(p.bare[1]) for p in parts if p is not None)
        nothing = space.axes[0].points.new_zeros(n_x, n_rows, n_z)
        empty = no_moments(nothing, len(probes.widths), probes.max_order)
        return reduction([empty if p is None else p.moments() for p in parts])

    n_blocks = -(-n_y // size)
    parts = [[None] * n_blocks if p is None else p.in_rows(size) for p in products]
    return torch.cat([run(block, part) for part in zip(*parts, strict=True)], dim=2).flatten(1)


def _axis_products(
    space: TensorSpace, atoms: Surroundings, elements: Sequence[str], probes: Probes
) -> _AxisProducts | None:
    """Factors of all Gaussians of some elements, bare and through each probe."""
    if not elements:
        return None
    owners = [
        i for s in elements for i in atoms.of_element[s] for _ in range(len(probes.gaussians[s]))
    ]
    probed = probes.probed([s for s in elements for _ in atoms.of_element[s]], atoms.positions)
    centres, filled = atoms.positions[owners], atoms.occupancies[owners]
    factors = [
        [gaussian_factors(axis, centres[:, i], e, probes.max_order) for e in probed.exponents]
        for i, axis in enumerate(space.axes)
    ]
    bare = [
        gaussian_factors(axis, centres[:, i], probed.betas)[0] for i, axis in enumerate(space.axes)
    ]
    return _AxisProducts(factors, bare, probed.strengths * filled, probed.amplitudes * filled)


@dataclass(frozen=True, eq=False)
class _AxisProducts:
    """Gaussians on a space: ``factors[axis][width]`` (power, n_points of the axis, n)."""

    factors: list[list[Tensor]]
    bare: list[Tensor]
    strengths: Tensor
    amplitudes: Tensor

    def in_rows(self, size: int) -> list[_AxisProducts]:
        """The same for blocks of ``size`` points along y."""
        (x, y, z), (bare_x, bare_y, bare_z) = self.factors, self.bare
        blocks = zip(*(of_width.split(size, dim=1) for of_width in y), strict=True)
        return [
            replace(self, factors=[x, list(block), z], bare=[bare_x, bare_block, bare_z])
            for block, bare_block in zip(blocks, bare_y.split(size), strict=True)
        ]

    def moments(self) -> Moments:
        """Density (n_x, n_y, n_z) and moments at the points."""
        x, y, z = self.bare
        zeroth = _monomial_sums(x[None], y[None], z[None], self.amplitudes[None])
        density = zeroth[0, 0, 0]
        moments: list[list[Tensor]] = [[] for _ in self.strengths]
        for width, factors in enumerate(zip(*self.factors, strict=True)):
            # Gaussians that have died out at these rows
            near = torch.nonzero(factors[1].detach().abs().amax(dim=(0, 1)) > _NEGLIGIBLE)[:, 0]
            x, y, z = (factor.index_select(2, near) for factor in factors)
            terms = _monomial_sums(x, y, z, self.strengths[:, width, near])
            for order, of_width in enumerate(moments):
                monomial = torch.stack([terms[powers] for powers in monomials(order)])
                # the factors count from the atom to the point, moments from the point
                harmonics = (-1) ** order * harmonic_coefficients(order).to(monomial)
                of_width.append(torch.tensordot(harmonics, monomial, dims=1))
        return density, [torch.stack(of_width) for of_width in moments]


def _monomial_sums(x: Tensor, y: Tensor, z: Tensor, strengths: Tensor) -> dict[Powers, Tensor]:
    """sum over i of strengths[a+b+c, i] x[a, :, i] y[b, :, i] z[c, :, i], (n_x, n_y, n_z).

    By powers (a, b, c) up to the highest order. Each product of y and z serves all powers of x.
    """
    n_orders = len(strengths)
    along_x, along_y, along_z = x.unbind(), y.unbind(), z.unbind()
    sums: dict[Powers, Tensor] = {}
    for b, c in product(range(n_orders), repeat=2):
        if b + c >= n_orders:
            continue
        plane = (along_y[b][:, None, :] * along_z[c]).flatten(0, 1)
        powers = range(n_orders - b - c)
        rows = torch.cat([along_x[a] * strengths[a + b + c] for a in powers])
        summed = (rows @ plane.T).reshape(len(powers), x.shape[1], y.shape[1], z.shape[1])
        sums |= {(a, b, c): values for a, values in zip(powers, summed.unbind(), strict=True)}
    return sums
