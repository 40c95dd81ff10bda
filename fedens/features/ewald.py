r"""Fields of smeared power laws around atoms, open or summed over a lattice, and their harmonics.

The field V(r) = sum_j w_j v_{p,s}(|r - r_j|) of :mod:`fedens.features.power_law` has at every
point the harmonic derivatives

    F_lm(r) = S_lm(grad) V(r) = sum_j w_j K_l(d_j^2) S_lm(d_j),   d_j = r_j - r.

In a periodic cell of volume Omega the kernel is split (P. P. Ewald, Ann. Phys. 369, 253 (1921)) at
a width eta >= s into v_{p,s} - v_{p,eta}, which dies out within a few eta and is summed over pairs,
and v_{p,eta}, whose Fourier transform dies out within a few 1/eta:

    F_lm(r) = (1/Omega) sum_k i^l S_lm(k) v^(k) S(k) exp(i k.r),   S(k) = sum_j w_j exp(-i k.r_j).

The result does not depend on eta. For p <= 3 the term k = 0 is left out: a uniform background
makes the cell neutral. Sums over k are in :mod:`fedens.features.waves`, for any points and, at a
cost that does not grow with the number of neighbours, for all points of a tensor-product space.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from fedens.features.blocks import runner
from fedens.features.pairs import Images
from fedens.features.power_law import PowerLaws
from fedens.features.waves import Sources, Waves, wave_counts
from fedens.fem.harmonics import solid_harmonics
from fedens.fem.tensor import TensorSpace

#: Pairs, and complex entries of a sum over waves, in one block of points.
_BLOCK_PAIRS = 60_000
_BLOCK_WAVES = 1_000_000
#: Seconds for a pair and exponent, for a wave at a point, and for the amplitude of a wave: how
#: they compare decides the width of the splitting.
_PAIR_TIME = 2.5e-7
_PRODUCT_TIME = 2.2e-10
_AMPLITUDE_TIME = 5e-7
#: Widths that are tried.
_TRIED_WIDTHS = 40

#: Moments (n_fields, (max_angular + 1)^2, n_points) to rows (n_rows, n_points) that are kept.
Reduction = Callable[[Tensor], Tensor]


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
        width: eta of the splitting, bohr, at least s; default: the one that costs least.
        dtype: of the sums; distances and phases are always found in float64.
    """
    if not len(points):
        n_fields = len(sources.channels) * len(laws.exponents)
        return reduction(points.new_zeros(n_fields, laws.n_harmonics, 0, dtype=dtype))
    run = runner([points, *sources.tensors])
    if sources.cell is None:

        def everything(part: Tensor) -> Tensor:
            moments = []
            for indices, strengths in sources.channels:
                distances = (sources.positions[list(indices)] - part[:, None]).to(dtype)
                moments.append(_pair_moments(laws, distances, strengths.to(dtype), None))
            return reduction(torch.cat(moments))

        size = max(1, _BLOCK_PAIRS // max(1, sources.n_sources))
        return torch.cat([run(everything, part) for part in points.split(size)], dim=1)
    if width is None:
        width = _cheapest_width(laws, sources, len(points), None)
    waves = Waves(laws, sources, width, dtype)
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
    waves = Waves(laws, sources, width, torch.float64)
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


class _Pairs:
    """The part of the sum that is short-ranged, over periodic images near each point."""

    def __init__(
        self, laws: PowerLaws, sources: Sources, width: float, points: Tensor, dtype: torch.dtype
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
        # images carry a factor for each atom, whatever it means
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
        n1, n2, n3 = wave_counts(laws, cell, width)
        n_waves = (n1 + 1) * (2 * n2 + 1) * (2 * n3 + 1)
        building = n_waves * (n_exponents * _AMPLITUDE_TIME + 2 * sources.n_sources * _PRODUCT_TIME)
        products = n_points * n_waves
        if space is not None:
            x, y, _ = space.shape
            products = 2 * x * n_waves + 2 * x * y * (2 * n2 + 1) * (2 * n3 + 1)
            products += n_points * (2 * n3 + 1) * (laws.max_angular + 1)
        return pairs + building + products * n_fields * (laws.max_angular + 1) * _PRODUCT_TIME

    edge = float(torch.linalg.norm(cell.detach(), dim=1).max())
    widths = np.geomspace(laws.smearing, max(2 * laws.smearing, edge / 2), _TRIED_WIDTHS)
    return float(min(widths, key=seconds))
