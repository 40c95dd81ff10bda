"""Gaussian multipole moments at any points: sums over the atoms near groups of points.

Points that lie close together share one list of atoms. With u = r - o and w = R - o from the
middle o of their group, the sums over atoms of exp(-e |w - u|^2) R_lm(w) are matrix products; the
addition theorem of solid harmonics makes of them those of R_lm(w - u), exactly. A Gaussian is
followed no farther than it reaches.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import pad

from fedens.features.blocks import runner
from fedens.features.moments import Channels, Moments, Reduction, added, no_moments
from fedens.features.pairs import Images, compact_groups, wrapped
from fedens.features.probes import ProbedGaussians, Probes
from fedens.features.surroundings import Surroundings
from fedens.fem.harmonics import addition_coefficients, solid_harmonics

#: Gaussians are followed until exp(-30) = 1e-13 of their height, in float32 exp(-18) = 1.5e-8.
_REACH_EXPONENT = {torch.float64: 30.0, torch.float32: 18.0}
#: Entries of one block (points x atoms x Gaussians).
_PAIR_ENTRIES = 4_000_000
#: Mean radius of the groups of points, in units of the reach, and their largest size.
_GROUP_RADIUS = 0.06
_GROUP_POINTS = 96
#: Gaussians are sorted by reach into this many parts; each part has atoms of its own.
_PARTS = 8

#: Indices (n_groups, k) of images near groups, nearest first, and how many each part needs.
_Near: TypeAlias = tuple[Tensor, list[int]]


def pair_rows(
    reduction: Reduction,
    points: Tensor,
    atoms: Surroundings,
    channels: Channels,
    probes: Probes,
    cutoff: float | None,
    dtype: torch.dtype,
) -> Tensor:
    """Rows of a reduction of the moments of each channel, (n_rows, n_points).

    Args:
        points: (n_points, 3), float64, bohr.
        cutoff: distance at which the sum ends, bohr, or None.
        dtype: of the result.
    """
    if not len(points):
        empty = no_moments(points.new_zeros(0, dtype=dtype), len(probes.widths), probes.max_order)
        return reduction([empty] * len(channels))
    points = wrapped(points, atoms.cell)
    elements = dict.fromkeys(s for channel in channels for s in channel)
    gaussians = {s: _Gaussians(probes.probed([s], points), cutoff, dtype) for s in elements}
    groups = _groups(points, min(g.reach for g in gaussians.values()))
    sources = {s: _Source(s, atoms, points[groups], g) for s, g in gaussians.items()}
    run = runner([points, *atoms.tensors])

    def block(members: Tensor, near: Mapping[str, _Near]) -> Tensor:
        nothing = members.new_zeros(members[..., 0].numel(), dtype=dtype)
        result = []
        for channel in channels:
            moments = no_moments(nothing, len(probes.widths), probes.max_order)
            for s in channel:
                moments = added(moments, sources[s].moments(members, near[s]))
            result.append(moments)
        return reduction(result)

    work = groups.shape[1] * max(source.work for source in sources.values())
    rows = []
    for part in groups.split(max(1, _PAIR_ENTRIES // work)):
        members = points[part]
        rows.append(run(block, members, {s: source.near(members) for s, source in sources.items()}))
    places = torch.empty(len(points), dtype=torch.int64, device=points.device)
    places[groups.flatten()] = torch.arange(groups.numel(), device=points.device)
    return torch.cat(rows, dim=1)[:, places]


def _groups(points: Tensor, reach: float) -> Tensor:
    """Indices (n_groups, size) of points that lie close together, small groups first."""
    groups = torch.as_tensor(compact_groups(points, _GROUP_RADIUS * reach, _GROUP_POINTS))
    groups = groups.to(points.device)
    return groups[torch.argsort(_middles(points[groups])[1])]


def _middles(members: Tensor) -> tuple[Tensor, Tensor]:
    """Middles (n_groups, 3) of groups of points (n_groups, size, 3), and radii about them.

    A point that is a group of its own is its middle, derivatives included.
    """
    if members.shape[1] == 1:
        return members[:, 0], members.new_zeros(len(members))
    members = members.detach()
    middles = (members.amin(dim=1) + members.amax(dim=1)) / 2
    return middles, (members - middles[:, None]).norm(dim=2).amax(dim=1)


class _Gaussians:
    """Gaussians of one element by decreasing exponent: how far they reach, what they add to.

    Attributes:
        parts: exponents, part by part. reaches: of each part, bohr.
        strengths: (max_order + 1, n_widths, n) shares in the moments. amplitudes: (n,), those in
            the density, zero for the probed Gaussians.
    """

    def __init__(self, gaussians: ProbedGaussians, cutoff: float | None, dtype: torch.dtype):
        _, n_widths, n = gaussians.strengths.shape
        probed = torch.stack([torch.block_diag(*strengths) for strengths in gaussians.strengths])
        order = torch.argsort(gaussians.all_exponents, descending=True)
        exponents = gaussians.all_exponents[order]
        self.cutoff, self.dtype = cutoff, dtype
        self.parts = exponents.to(dtype).tensor_split(min(_PARTS, len(order)))
        reaches = [math.sqrt(_REACH_EXPONENT[dtype] / float(part.min())) for part in self.parts]
        self.reaches = [r if cutoff is None else min(r, cutoff) for r in reaches]
        self.strengths = pad(probed, (0, n))[..., order].to(dtype)
        self.amplitudes = pad(gaussians.amplitudes, (n_widths * n, 0))[order].to(dtype)

    @property
    def reach(self) -> float:
        """Of the one that reaches farthest, bohr."""
        return max(self.reaches)

    @property
    def max_order(self) -> int:
        return len(self.strengths) - 1


class _Source:
    """The atoms of one element, around groups of points (n_groups, size, 3)."""

    def __init__(self, symbol: str, atoms: Surroundings, members: Tensor, gaussians: _Gaussians):
        self.gaussians = gaussians
        self.images = Images(
            atoms.of_element[symbol],
            atoms.positions,
            atoms.cell,
            atoms.occupancies,
            members.reshape(-1, 3),
            gaussians.reach + float(_middles(members)[1].max()),
        )

    @property
    def work(self) -> int:
        """About how many Gaussians reach a point."""
        return self.images.typical_neighbours * len(self.gaussians.amplitudes)

    def near(self, members: Tensor) -> _Near:
        """Images within reach of each group."""
        middles, radii = _middles(members)
        radius = float(radii.max())
        indices, distances = self.images.nearest(middles, self.gaussians.reach + radius)
        within = [(distances <= reach + radius).any(dim=0) for reach in self.gaussians.reaches]
        return indices, [int(part.sum()) for part in within]

    def moments(self, members: Tensor, near: _Near) -> Moments:
        """Density (n_points,) and moments of all images near each group."""
        indices, counts = near
        dtype, max_order = self.gaussians.dtype, self.gaussians.max_order
        middles = _middles(members)[0]
        # differences in float64, so that float32 does not feel where the cell's origin is
        w = (self.images.positions[indices] - middles[:, None]).to(dtype)
        u = (members - middles[:, None]).to(dtype)
        filled = self.images.occupancies[indices].to(dtype)
        weighted = _harmonics(w, max_order) * filled[..., None]
        sums = self._sums(_squared_distances(u, w), weighted, counts)
        return _about_the_points(sums.flatten(0, 1), u.reshape(-1, 3), self.gaussians)

    def _sums(self, squares: Tensor, weighted: Tensor, counts: Sequence[int]) -> Tensor:
        """sum over images of exp(-e d^2) R_lm(w) of all Gaussians, (n_groups, size, n, n_lm)."""
        gaussians = self.gaussians
        if gaussians.cutoff is not None:
            squares = squares.masked_fill(squares > gaussians.cutoff**2, math.inf)
        n_groups, size = squares.shape[:2]
        sums = []
        for exponents, count in zip(gaussians.parts, counts, strict=True):
            decay = (-exponents[:, None] * squares[:, :, None, :count]).exp_()
            part = decay.flatten(1, 2) @ weighted[:, :count]
            sums.append(part.reshape(n_groups, size, len(exponents), -1))
        return torch.cat(sums, dim=2)


def _squared_distances(u: Tensor, w: Tensor) -> Tensor:
    """|w - u|^2 of points (n_groups, size, 3) and images (n_groups, k, 3), (n_groups, size, k)."""
    cross = u @ w.transpose(1, 2)
    return (u * u).sum(dim=2)[:, :, None] + (w * w).sum(dim=2)[:, None, :] - 2 * cross


def _harmonics(vectors: Tensor, max_order: int) -> Tensor:
    """Solid harmonics (..., (max_order + 1)^2) of vectors (..., 3)."""
    flat = solid_harmonics(max_order)(vectors.reshape(-1, 3))
    return flat.reshape(*vectors.shape[:-1], (max_order + 1) ** 2)


def _about_the_points(sums: Tensor, u: Tensor, gaussians: _Gaussians) -> Moments:
    """Moments at points u (n_points, 3) from sums (n_points, n, n_lm) of R_lm(w), all about o."""
    n_orders, n_widths, _ = gaussians.strengths.shape
    density = math.sqrt(4 * math.pi) * sums[..., 0] @ gaussians.amplitudes  # R_00 = 1/sqrt(4 pi)
    of_width = (gaussians.strengths.flatten(0, 1) @ sums).unflatten(1, (n_orders, n_widths))
    shift = _harmonics(-u, gaussians.max_order)
    moments = []
    for n in range(n_orders):
        total = of_width[:, n, :, : (n + 1) ** 2] @ _shift_matrix(shift, n)
        moments.append(total.permute(1, 2, 0))
    return density, moments


def _shift_matrix(shift: Tensor, order: int) -> Tensor:
    """R_nm(w - u) from all R_l'm'(w) with l' <= n, given R_lm(-u): (n_points, n_lm, 2n + 1)."""
    rows = []
    for first in range(order + 1):
        second = order - first
        theorem = addition_coefficients(first, second).to(shift)
        of_second = shift[:, second**2 : (second + 1) ** 2]
        rows.append(torch.tensordot(of_second, theorem, dims=([1], [1])))
    return torch.cat(rows, dim=1)
