r"""Fields of smeared power laws around atoms, open or summed over a lattice, and their harmonics.

The field V(r) = sum_j w_j v_{p,s}(|r - r_j|) of :mod:`fedens.features.power_law` has at every
point the harmonic derivatives

    F_lm(r) = S_lm(grad) V(r) = sum_j w_j K_l(d_j^2) S_lm(d_j),   d_j = r_j - r.

In a periodic cell of volume Omega the kernel is split (P. P. Ewald, Ann. Phys. 369, 253 (1921)) at
a width eta >= s into v_{p,s} - v_{p,eta}, which dies out within a few eta and is summed over pairs,
and v_{p,eta}, whose Fourier transform dies out within a few 1/eta:

    F_lm(r) = (1/Omega) sum_k i^l S_lm(k) v^(k) S(k) exp(i k.r),   S(k) = sum_j w_j exp(-i k.r_j).

The result does not depend on eta. For p <= 3 the term k = 0 is left out: a uniform background
makes the cell neutral. A wave exp(i k.r) is a product of one factor for each lattice vector, and
so are powers of k; sums over k are therefore three matrix products, one vector after the other,
also for all points of a tensor-product space at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import gammainccinv
from torch import Tensor

from fedens.features.blocks import runner
from fedens.features.harmonics import (
    Powers,
    harmonic_coefficients,
    monomials,
    solid_harmonics,
)
from fedens.features.pairs import Images
from fedens.features.power_law import (
    fourier_at_zero,
    fourier_kernel,
    harmonic_kernels,
    integral_of_difference,
)
from fedens.fem.tensor import TensorSpace

#: Share of a kernel and its derivatives that both sums may leave out.
_ACCURACY = 1e-14
#: Pairs, and complex entries of a sum over waves, in one block of points.
_BLOCK_PAIRS = 60_000
_BLOCK_WAVES = 1_000_000
#: Seconds for a pair and exponent, for a multiplication of complex numbers, and for the amplitude
#: of a wave: how they compare decides the width of the splitting.
_PAIR_TIME = 2.5e-7
_PRODUCT_TIME = 4e-10
_WAVE_TIME = 5e-7
#: Widths that are tried.
_TRIED_WIDTHS = 40

#: Moments (n_fields, (max_angular + 1)^2, n_points) to rows (n_rows, n_points) that are kept.
Reduction = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class PowerLaws:
    """Kernels v_{p,s} of some exponents p with one smearing s (bohr), and the largest l wanted."""

    exponents: tuple[float, ...]
    smearing: float
    max_angular: int

    @property
    def n_harmonics(self) -> int:
        return (self.max_angular + 1) ** 2

    def kernels(self, r2: Tensor, width: float | None = None) -> Tensor:
        """K_l of each exponent, (n_exponents, max_angular + 1, ...); less those of a width."""
        result = torch.stack([self._of(p, self.smearing, r2) for p in self.exponents])
        if width is None:
            return result
        return result - torch.stack([self._of(p, width, r2) for p in self.exponents])

    def _of(self, exponent: float, smearing: float, r2: Tensor) -> Tensor:
        return harmonic_kernels(exponent, smearing, self.max_angular, r2)

    def constant(self, exponent: float, width: float) -> float:
        """The term k = 0 of the sum over waves, so that with that of the pairs it is as it is."""
        if exponent > 3:
            return fourier_at_zero(exponent, width)
        return -integral_of_difference(exponent, self.smearing, width)

    @property
    def pair_reach(self) -> float:
        """Distance at which v_{p,s} - v_{p,eta} has died out, in units of eta."""
        order = max(self.exponents) / 2 + self.max_angular
        return math.sqrt(2 * gammainccinv(order, _ACCURACY))

    @property
    def wave_reach(self) -> float:
        """Wave vector at which the transform of v_{p,eta} has died out, in units of 1/eta."""
        return math.sqrt(2 * gammainccinv((self.max_angular + 3) / 2, _ACCURACY))


@dataclass(frozen=True, eq=False)
class Sources:
    """Point sources of the fields.

    Attributes:
        positions: (n_atoms, 3), bohr.
        channels: for each channel, indices of its atoms and their strengths w (n,).
        cell: (3, 3), bohr, or None.
    """

    positions: Tensor
    channels: Sequence[tuple[Sequence[int], Tensor]]
    cell: Tensor | None

    @property
    def n_sources(self) -> int:
        return sum(len(indices) for indices, _ in self.channels)

    @property
    def tensors(self) -> list[Tensor | None]:
        """All that may be differentiated."""
        return [self.positions, self.cell, *(strengths for _, strengths in self.channels)]


def fields_at_points(
    laws: PowerLaws,
    sources: Sources,
    points: Tensor,
    reduction: Reduction,
    width: float | None = None,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """Rows of a reduction of the moments at points (n_points, 3), block by block.

    Fields are ordered by channel, then exponent; harmonics as l^2 + l + m. Differentiable in
    everything; blocks are computed again for derivatives.

    Args:
        width: eta of the splitting, bohr; default: the one that costs least.
        dtype: of the sums; distances and phases are always found in float64.
    """
    if not len(points):
        n_fields = len(sources.channels) * len(laws.exponents)
        return reduction(points.new_zeros(n_fields, laws.n_harmonics, 0, dtype=dtype))
    run = runner([points, *sources.tensors])
    if sources.cell is None:
        everything = _all_pairs(laws, sources, reduction, dtype)
        size = max(1, _BLOCK_PAIRS // max(1, sources.n_sources))
        return torch.cat([run(everything, part) for part in points.split(size)], dim=1)
    if width is None:
        width = _cheapest_width(laws, sources, len(points), None)
    waves = _Waves(laws, sources, width, dtype)
    pairs = _Pairs(laws, sources, width, points, dtype)

    def block(part: Tensor, near: list[Tensor | None]) -> Tensor:
        return reduction(pairs.moments(part, near) + waves.moments_at(part))

    size = max(1, min(pairs.block_size, _BLOCK_WAVES // waves.amplitudes[..., 0].numel()))
    rows = [run(block, part, pairs.near(part)) for part in points.split(size)]
    return torch.cat(rows, dim=1)


def fields_on_space(
    laws: PowerLaws,
    sources: Sources,
    space: TensorSpace,
    reduction: Reduction,
    width: float | None = None,
) -> Tensor:
    """As :func:`fields_at_points`, at all points of a periodic TensorSpace."""
    if width is None:
        width = _cheapest_width(laws, sources, space.n_points, space)
    waves = _Waves(laws, sources, width, torch.float64)
    x, y, z = (axis.points for axis in space.axes)
    pairs = _Pairs(laws, sources, width, space.points, torch.float64)
    run = runner([x, y, z, *sources.tensors])

    def block(rows: Tensor, near: list[Tensor | None]) -> Tensor:
        moments = waves.moments_on(rows, y, z)
        if pairs.any:
            grids = torch.meshgrid(rows, y, z, indexing="ij")
            part = torch.stack([grid.reshape(-1) for grid in grids], dim=1)
            moments = moments + pairs.moments(part, near)
        return reduction(moments)

    per_row = space.n_points // len(x)
    largest = max(per_row, waves.amplitudes[0, 0].numel()) * len(waves.amplitudes)
    size = max(1, min(pairs.block_size // per_row, _BLOCK_WAVES // largest))
    near = [pairs.near(part) for part in space.points.split(size * per_row)]
    blocks = zip(x.split(size), near, strict=True)
    return torch.cat([run(block, rows, indices) for rows, indices in blocks], dim=1)


# --- pairs ---------------------------------------------------------------------------------------


def _all_pairs(
    laws: PowerLaws, sources: Sources, reduction: Reduction, dtype: torch.dtype
) -> Callable[[Tensor], Tensor]:
    """Moments at points from all atoms of an open structure."""

    def block(points: Tensor) -> Tensor:
        moments = []
        for indices, strengths in sources.channels:
            distances = (sources.positions[list(indices)] - points[:, None]).to(dtype)
            moments.append(_pair_moments(laws, distances, strengths.to(dtype), None))
        return reduction(torch.cat(moments))

    return block


class _Pairs:
    """The part of the sum that is short-ranged, over periodic images near each point."""

    def __init__(
        self,
        laws: PowerLaws,
        sources: Sources,
        width: float,
        points: Tensor,
        dtype: torch.dtype,
    ):
        self.laws, self.width, self.dtype = laws, width, dtype
        self.any = width > laws.smearing
        self.images = [
            self._images(sources, indices, strengths, points) if self.any and indices else None
            for indices, strengths in sources.channels
        ]

    def _images(
        self, sources: Sources, indices: Sequence[int], strengths: Tensor, points: Tensor
    ) -> Images:
        spread = torch.zeros_like(sources.positions[:, 0])
        spread = spread.index_put((torch.tensor(indices, device=spread.device),), strengths)
        reach = self.laws.pair_reach * self.width
        return Images(indices, sources.positions, sources.cell, spread, points, reach)

    @property
    def block_size(self) -> int:
        """Points whose pairs make one block."""
        return _BLOCK_PAIRS // max([1, *(i.typical_neighbours for i in self.images if i)])

    def near(self, points: Tensor) -> list[Tensor | None]:
        """For each channel, the images (n_points, k) near the points."""
        return [images.near(points) if images else None for images in self.images]

    def moments(self, points: Tensor, near: list[Tensor | None]) -> Tensor:
        """Moments (n_fields, n_harmonics, n_points)."""
        shape = len(self.laws.exponents), self.laws.n_harmonics, len(points)
        parts = []
        for images, indices in zip(self.images, near, strict=True):
            if images is None or indices is None:
                parts.append(points.new_zeros(*shape, dtype=self.dtype))
                continue
            distances = (images.positions[indices] - points[:, None]).to(self.dtype)
            strengths = images.occupancies[indices].to(self.dtype)
            parts.append(_pair_moments(self.laws, distances, strengths, self.width))
        return torch.cat(parts)


def _pair_moments(
    laws: PowerLaws, distances: Tensor, strengths: Tensor, width: float | None
) -> Tensor:
    """Moments (n_exponents, n_harmonics, n_points) of sources at distances (n_points, k, 3)."""
    x, y, z = distances.unbind(dim=2)
    kernels = laws.kernels(x * x + y * y + z * z, width) * strengths
    n_points, n_near = distances.shape[:2]
    harmonics = solid_harmonics(laws.max_angular)(distances.reshape(-1, 3))
    harmonics = harmonics.reshape(n_points, n_near, laws.n_harmonics)
    parts = [
        torch.einsum("epk,pkm->emp", kernels[:, n], harmonics[..., n * n : (n + 1) ** 2])
        for n in range(laws.max_angular + 1)
    ]
    return torch.cat(parts, dim=1)


# --- waves ---------------------------------------------------------------------------------------


class _Waves:
    """The smooth part of the sum, over wave vectors k = n @ ``reciprocal`` of whole numbers n.

    Attributes:
        numbers: n of each reciprocal vector; for the last only n >= 0, because fields are real.
        harmonics: S_lm(k) of each l as coefficients of the monomials of n.
        amplitudes: (n_fields, n_1, n_2, n_3), complex; without the factors i^l S_lm(k).
    """

    def __init__(self, laws: PowerLaws, sources: Sources, width: float, dtype: torch.dtype):
        assert sources.cell is not None
        self.laws, self.dtype = laws, dtype
        cell = sources.cell
        self.inverse = torch.linalg.inv(cell)
        self.reciprocal = 2 * math.pi * self.inverse.T
        n1, n2, n3 = _wave_counts(laws, cell, width)
        self.numbers = [
            torch.arange(first, last + 1, dtype=cell.dtype, device=cell.device)
            for first, last in ((-n1, n1), (-n2, n2), (0, n3))
        ]
        harmonics = _harmonics_of_numbers(laws.max_angular, self.reciprocal)
        self.harmonics = [coefficients.to(dtype) for coefficients in harmonics]
        self.amplitudes = self._amplitudes(sources, width).to(_complex(dtype))

    def moments_at(self, points: Tensor) -> Tensor:
        """Moments (n_fields, n_harmonics, n_points) at points (n_points, 3)."""
        highest = self.laws.max_angular
        x, y, z = self._phases(points @ self.inverse)
        n_fields, *shape = self.amplitudes.shape
        by_last = self.amplitudes.movedim(3, 0).reshape(shape[2], -1)
        sums: dict[Powers, Tensor] = {}
        for c in range(highest + 1):
            planes = z[c] @ by_last
            rows = planes.reshape(len(points), n_fields * shape[0], shape[1])
            lines = rows @ torch.stack(y[: highest + 1 - c], dim=2)
            lines = lines.reshape(len(points), n_fields, shape[0], -1)
            for b in range(highest + 1 - c):
                ends = torch.stack(x[: highest + 1 - b - c], dim=2)
                found = torch.einsum("pfn,pna->afp", lines[..., b], ends)
                sums |= {(a, b, c): of_power for a, of_power in enumerate(found)}
        return self._moments(sums)

    def moments_on(self, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        """Moments at the grid of coordinates along the axes of an orthorhombic cell."""
        highest = self.laws.max_angular
        scales = torch.diagonal(self.inverse)
        along = [
            _with_powers(_waves(c * scale, n), n, highest, self.dtype)
            for c, scale, n in zip((x, y, z), scales, self.numbers, strict=True)
        ]
        sums: dict[Powers, Tensor] = {}
        for a in range(highest + 1):
            planes = torch.einsum("xn,fnmk->fxmk", along[0][a], self.amplitudes)
            for b in range(highest + 1 - a):
                lines = along[1][b] @ planes
                for c in range(highest + 1 - a - b):
                    sums[a, b, c] = (lines @ along[2][c].T).flatten(1)
        return self._moments(sums)

    def _moments(self, sums: dict[Powers, Tensor]) -> Tensor:
        """From sums with powers n_1^a n_2^b n_3^c to those with i^l S_lm(k)."""
        parts = []
        for order, coefficients in enumerate(self.harmonics):
            # the real part of i^l times a sum
            sign = (1, -1, -1, 1)[order % 4]
            of_order = [sums[powers] for powers in monomials(order)]
            real = torch.stack([s.imag if order % 2 else s.real for s in of_order])
            parts.append(sign * torch.einsum("mc,cfp->fmp", coefficients, real))
        return torch.cat(parts, dim=1)

    def _phases(self, fractions: Tensor) -> list[list[Tensor]]:
        """exp(2 pi i n f) n^power for each lattice vector and power, (n_points, n)."""
        return [
            _with_powers(_waves(fractions[:, i], n), n, self.laws.max_angular, self.dtype)
            for i, n in enumerate(self.numbers)
        ]

    def _amplitudes(self, sources: Sources, width: float) -> Tensor:
        laws, (n1, n2, n3) = self.laws, self.numbers
        grids = torch.meshgrid(n1, n2, n3, indexing="ij")
        k = torch.stack(grids, dim=-1) @ self.reciprocal
        k2 = (k * k).sum(dim=-1)
        at_zero = k2 == 0
        k2 = torch.where(at_zero, 1.0, k2)
        volume = torch.linalg.det(self.inverse).abs()
        twice = (1 + (n3 > 0).to(n3)) * volume
        kernels = [
            twice * torch.where(at_zero, laws.constant(p, width), fourier_kernel(p, width, k2))
            for p in laws.exponents
        ]
        factors = [self._structure_factor(sources, *channel) for channel in sources.channels]
        return torch.stack([kernel * factor for factor in factors for kernel in kernels])

    def _structure_factor(
        self, sources: Sources, indices: Sequence[int], strengths: Tensor
    ) -> Tensor:
        """Sum over atoms of w exp(-i k.r), (n_1, n_2, n_3)."""
        fractions = sources.positions[list(indices)] @ self.inverse
        run = runner(sources.tensors)
        n1, n2, n3 = self.numbers

        def block(where: Tensor, strength: Tensor) -> Tensor:
            x, y, z = (_waves(-where[:, i], n) for i, n in enumerate(self.numbers))
            planes = (x[:, :, None] * y[:, None, :]).flatten(1)
            return planes.T @ (z * strength[:, None])

        size = max(1, _BLOCK_WAVES // (len(n1) * len(n2)))
        parts = zip(fractions.split(size), strengths.split(size), strict=True)
        total = fractions.new_zeros(len(n1) * len(n2), len(n3), dtype=torch.complex128)
        for where, strength in parts:
            if len(where):
                total = total + run(block, where, strength)
        return total.reshape(len(n1), len(n2), len(n3))


def _complex(dtype: torch.dtype) -> torch.dtype:
    return torch.complex64 if dtype == torch.float32 else torch.complex128


def _waves(fractions: Tensor, numbers: Tensor) -> Tensor:
    """exp(2 pi i n f), (n_points, n)."""
    angles = 2 * math.pi * fractions[:, None] * numbers
    return torch.polar(torch.ones_like(angles), angles)


def _with_powers(waves: Tensor, numbers: Tensor, highest: int, dtype: torch.dtype) -> list[Tensor]:
    """Times n^0 to n^highest, each (n_points, n)."""
    result = [waves.to(_complex(dtype))]
    for _ in range(highest):
        result.append(result[-1] * numbers.to(dtype))
    return result


def _harmonics_of_numbers(highest: int, reciprocal: Tensor) -> list[Tensor]:
    """S_lm(k) of each l, k = n @ reciprocal, as coefficients of the monomials of n."""
    result, transform = [], reciprocal.new_ones(1, 1)
    for order in range(highest + 1):
        if order:
            transform = _next_transform(transform, order, reciprocal)
        result.append(harmonic_coefficients(order).to(reciprocal) @ transform)
    return result


def _next_transform(transform: Tensor, order: int, matrix: Tensor) -> Tensor:
    """How monomials of k = n @ matrix depend on those of n, from one order to the next.

    ``transform`` (n_monomials, n_monomials) belongs to ``order - 1``.
    """
    lower, upper = monomials(order - 1), monomials(order)
    raised = torch.tensor([upper.index(_plus(p, i)) for i in range(3) for p in lower])
    raised = raised.to(matrix.device)
    rows = []
    for powers in upper:
        axis = next(i for i in range(3) if powers[i])
        row = transform[lower.index(_plus(powers, axis, -1))]
        times_n = (matrix[:, axis, None] * row).flatten()
        rows.append(row.new_zeros(len(upper)).index_add(0, raised, times_n))
    return torch.stack(rows)


def _plus(powers: Powers, axis: int, step: int = 1) -> Powers:
    a, b, c = (power + step * (i == axis) for i, power in enumerate(powers))
    return a, b, c


# --- how to split --------------------------------------------------------------------------------


def _wave_counts(laws: PowerLaws, cell: Tensor, width: float) -> list[int]:
    """Largest n along each reciprocal vector: n = k.a/(2 pi)."""
    lengths = torch.linalg.norm(cell.detach(), dim=1).tolist()
    return [math.ceil(laws.wave_reach / width * length / (2 * math.pi)) for length in lengths]


def _cheapest_width(
    laws: PowerLaws, sources: Sources, n_points: int, space: TensorSpace | None
) -> float:
    """The width of the splitting that should take the least time."""
    assert sources.cell is not None
    cell = sources.cell
    volume = abs(float(torch.linalg.det(cell.detach())))
    n_fields, n_exponents = len(sources.channels) * len(laws.exponents), len(laws.exponents)

    def seconds(width: float) -> float:
        per_point = sources.n_sources / volume * 4 / 3 * math.pi * (laws.pair_reach * width) ** 3
        pairs = n_points * per_point * n_exponents * _PAIR_TIME if width > laws.smearing else 0.0
        n1, n2, n3 = _wave_counts(laws, cell, width)
        n_waves = (2 * n1 + 1) * (2 * n2 + 1) * (n3 + 1)
        building = n_waves * (n_exponents * _WAVE_TIME + sources.n_sources * _PRODUCT_TIME)
        products = n_points * n_waves
        if space is not None:
            x, y, _ = space.shape
            # one axis after the other; the last counts for every monomial
            products = n_waves * x + n_waves // (2 * n1 + 1) * x * y
            products += n_points * (n3 + 1) * (laws.max_angular + 3)
        return pairs + building + products * n_fields * (laws.max_angular + 1) * _PRODUCT_TIME

    edge = float(torch.linalg.norm(cell.detach(), dim=1).max())
    widths = np.geomspace(laws.smearing, max(2 * laws.smearing, edge / 2), _TRIED_WIDTHS)
    return float(min(widths, key=seconds))
