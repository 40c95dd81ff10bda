"""The smooth part of a lattice sum: plane waves, one lattice vector after the other.

A wave exp(i k.r) is a product of one factor for each lattice vector, and so are powers of the
whole numbers n of k = n @ reciprocal. Sums over k at a point, with harmonics S_lm(k), are
therefore three products with small matrices, and on a grid three products for all points at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedens.features.blocks import runner
from fedens.features.power_law import PowerLaws, fourier_kernel
from fedens.fem.harmonics import Powers, harmonic_coefficients, monomials

#: Complex entries of one block of a structure factor.
_BLOCK_ENTRIES = 1_000_000


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
        """Number of atoms in all channels."""
        return sum(len(indices) for indices, _ in self.channels)

    @property
    def tensors(self) -> list[Tensor | None]:
        """All that may be differentiated."""
        return [self.positions, self.cell, *(strengths for _, strengths in self.channels)]


class Waves:
    """Fields of v_{p,eta} as sums over waves.

    Fields are real, so the first n need not be negative, and the last factor is written with
    cosines and sines: the largest products are then of real matrices.

    Args:
        laws: exponents and largest l. sources: in a cell.
        width: eta, bohr.
        dtype: of the sums over waves.

    Attributes:
        numbers: n of each reciprocal vector, from 0 for the first.
        amplitudes: (n_fields, n_1, n_2, n_3), complex, by cosines and sines of the last;
            without the factors i^l S_lm(k).
        harmonics: S_lm(k) of each l as coefficients of the monomials of n.
    """

    def __init__(self, laws: PowerLaws, sources: Sources, width: float, dtype: torch.dtype):
        assert sources.cell is not None
        self.laws, self.dtype = laws, dtype
        cell = sources.cell
        self.inverse = torch.linalg.inv(cell)
        self.reciprocal = 2 * math.pi * self.inverse.T
        n1, n2, n3 = wave_counts(laws, cell, width)
        self.numbers = [
            torch.arange(first, last + 1, dtype=cell.dtype, device=cell.device)
            for first, last in ((0, n1), (-n2, n2), (-n3, n3))
        ]
        harmonics = _harmonics_of_numbers(laws.max_angular, self.reciprocal)
        self.harmonics = [coefficients.to(dtype) for coefficients in harmonics]
        amplitudes = _in_cosines_and_sines(self._amplitudes(sources, width))
        self.amplitudes = amplitudes.to(_complex(dtype))

    def moments_at(self, points: Tensor) -> Tensor:
        """Moments (n_fields, n_harmonics, n_points) at points (n_points, 3)."""
        highest = self.laws.max_angular
        x, y, z = self._factors((points @ self.inverse).unbind(dim=1))
        n_fields, n1, n2, n3 = self.amplitudes.shape
        by_last = torch.view_as_real(self.amplitudes.movedim(3, 0)).reshape(n3, -1)
        sums: dict[Powers, Tensor] = {}
        for c in range(highest + 1):
            planes = (z[c] @ by_last).reshape(len(points), n_fields * n1, n2, 2)
            lines = torch.view_as_complex(planes) @ torch.stack(y[: highest + 1 - c], dim=2)
            lines = lines.reshape(len(points), n_fields, n1, -1)
            for b in range(highest + 1 - c):
                ends = torch.stack(x[: highest + 1 - b - c], dim=2)
                found = torch.einsum("pfn,pna->afp", lines[..., b], ends)
                for a, of_power in enumerate(found):
                    sums[a, b, c] = _real_part(of_power, a + b + c, c)
        return self._moments(sums)

    def moments_on(self, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        """Moments at the grid of coordinates along the axes of an orthorhombic cell."""
        highest = self.laws.max_angular
        scales = torch.diagonal(self.inverse)
        along = self._factors([c * scale for c, scale in zip((x, y, z), scales, strict=True)])
        sums: dict[Powers, Tensor] = {}
        for a in range(highest + 1):
            planes = torch.einsum("xn,fnmk->fxmk", along[0][a], self.amplitudes)
            for b in range(highest + 1 - a):
                lines = along[1][b] @ planes
                for c in range(highest + 1 - a - b):
                    real = _real_part(lines, a + b + c, c)
                    sums[a, b, c] = (real @ along[2][c].T).flatten(1)
        return self._moments(sums)

    def _moments(self, sums: dict[Powers, Tensor]) -> Tensor:
        """From sums with powers n_1^a n_2^b n_3^c to those with S_lm(k)."""
        parts = []
        for order, coefficients in enumerate(self.harmonics):
            of_order = torch.stack([sums[powers] for powers in monomials(order)])
            parts.append(torch.einsum("mc,cfp->fmp", coefficients, of_order))
        return torch.cat(parts, dim=1)

    def _factors(self, fractions: Sequence[Tensor]) -> list[list[Tensor]]:
        """For each lattice vector, waves at n_points fractions of it times n^0, n^1, ...

        (n_points, n); of the last, cosines and sines.
        """
        highest = self.laws.max_angular
        factors = []
        for fraction, numbers in zip(fractions[:2], self.numbers[:2], strict=True):
            waves = _waves(fraction, numbers).to(_complex(self.dtype))
            factors.append([waves * numbers.to(self.dtype) ** k for k in range(highest + 1)])
        numbers = self.numbers[2][len(self.numbers[2]) // 2 :]
        waves = _waves(fractions[2], numbers).to(_complex(self.dtype))
        factors.append(_cosines_and_sines(waves, numbers.to(self.dtype), highest))
        return factors

    def _amplitudes(self, sources: Sources, width: float) -> Tensor:
        """Complex amplitudes of the waves, (n_fields, n_1, n_2, n_3)."""
        laws, (n1, n2, n3) = self.laws, self.numbers
        k = torch.stack(torch.meshgrid(n1, n2, n3, indexing="ij"), dim=-1) @ self.reciprocal
        k2 = (k * k).sum(dim=-1)
        at_zero = k2 == 0
        k2 = torch.where(at_zero, 1.0, k2)
        # with its opposite, which is not among the numbers; over the volume
        share = (1 + (n1 > 0).to(n1))[:, None, None] * torch.linalg.det(self.inverse).abs()
        kernels = [
            share * torch.where(at_zero, laws.constant(p, width), fourier_kernel(p, width, k2))
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
        n1, n2, n3 = (len(numbers) for numbers in self.numbers)

        def block(where: Tensor, strength: Tensor) -> Tensor:
            x, y, z = (_waves(-where[:, i], n) for i, n in enumerate(self.numbers))
            planes = (x[:, :, None] * y[:, None, :]).flatten(1)
            return planes.T @ (z * strength[:, None])

        size = max(1, _BLOCK_ENTRIES // (n1 * n2))
        parts = zip(fractions.split(size), strengths.split(size), strict=True)
        total: Tensor = fractions.new_zeros(n1 * n2, n3, dtype=torch.complex128)
        for where, strength in parts:
            if len(where):
                total = total + run(block, where, strength)
        return total.reshape(n1, n2, n3)


def wave_counts(laws: PowerLaws, cell: Tensor, width: float) -> list[int]:
    """Largest n along each reciprocal vector: n = k.a/(2 pi)."""
    lengths = torch.linalg.norm(cell.detach(), dim=1).tolist()
    return [math.ceil(laws.wave_reach / width * length / (2 * math.pi)) for length in lengths]


def _complex(dtype: torch.dtype) -> torch.dtype:
    return torch.complex64 if dtype == torch.float32 else torch.complex128


def _waves(fractions: Tensor, numbers: Tensor) -> Tensor:
    """exp(2 pi i n f), (n_points, n)."""
    angles = 2 * math.pi * fractions[:, None] * numbers
    return torch.polar(torch.ones_like(angles), angles)


def _in_cosines_and_sines(amplitudes: Tensor) -> Tensor:
    """Amplitudes of waves n = -N to N along the last axis as those of N + 1 cosines, N sines."""
    middle = amplitudes.shape[-1] // 2
    ahead, behind = amplitudes[..., middle:], amplitudes[..., : middle + 1].flip(-1)
    zero, cosines, sines = ahead[..., :1], ahead + behind, 1j * (ahead - behind)
    return torch.cat([zero, cosines[..., 1:], sines[..., 1:]], dim=-1)


def _cosines_and_sines(waves: Tensor, numbers: Tensor, highest: int) -> list[Tensor]:
    """Cosines and sines of n >= 0, where (-i d/df)^power, so n^power, makes of waves.

    For odd powers a factor i is left out; see :func:`_real_part`.
    """
    cosines, sines, positive = waves.real, waves.imag[:, 1:], numbers[1:]
    result = []
    for power in range(highest + 1):
        if power % 2:
            pair = waves.imag * numbers**power, -waves.real[:, 1:] * positive**power
        else:
            pair = cosines * numbers**power, sines * positive**power
        result.append(torch.cat(pair, dim=1))
    return result


def _real_part(values: Tensor, order: int, last_power: int) -> Tensor:
    """Real part of i^l times a sum over waves, whose factor i of an odd last power is due."""
    turns = order + last_power % 2
    sign = (1, -1, -1, 1)[turns % 4]
    return sign * (values.imag if turns % 2 else values.real)


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
