"""A periodic potential along one axis and its Bloch levels, in plane waves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor

from fedens.errors import FunctionalError, SamplingError


@dataclass(frozen=True)
class AxisPotential:
    """v(x) = c_0 + 2 Re sum_m c_m exp(2 pi i m x / length).

    Attributes:
        length: period, bohr. coefficients: c_0, c_1, ..., hartree; of c_0 the real part counts.

    Raises:
        FunctionalError: numbers that are not finite, a length that is not positive.
    """

    length: float
    coefficients: tuple[complex, ...] = (0j,)

    def __post_init__(self) -> None:
        finite = torch.isfinite(torch.tensor(self.coefficients, dtype=torch.complex128))
        if not 0 < self.length < math.inf or not len(finite) or not finite.all():
            raise FunctionalError(
                f"a potential of period {self.length} bohr with coefficients {self.coefficients}: "
                "expected a positive length and one or more finite numbers"
            )

    def at(self, points: Tensor) -> Tensor:
        """Values (n,), hartree, at positions (n,), bohr."""
        _, q = self._waves
        waves = torch.exp(1j * points[:, None] * q)
        return (waves @ self._all_coefficients).real

    def matrix(self, size: int) -> Tensor:
        """Elements c_(m - m') between ``size`` neighbouring plane waves, (size, size)."""
        m, _ = self._waves
        place = torch.arange(size)
        difference = place[:, None] - place
        held = difference.abs() <= m[-1]
        index = torch.where(held, difference + m[-1], 0)
        return self._all_coefficients[index] * held

    @cached_property
    def lowest(self) -> float:
        """The lowest value, hartree, found on a mesh of 16 points for the shortest wave."""
        mesh = torch.arange(16 * len(self.coefficients), dtype=torch.float64)
        return float(self.at(mesh * (self.length / len(mesh))).min())

    @cached_property
    def _waves(self) -> tuple[Tensor, Tensor]:
        """Numbers of the waves, -M to M, and their wave numbers, 1/bohr."""
        m = torch.arange(1 - len(self.coefficients), len(self.coefficients))
        return m, 2 * math.pi / self.length * m.double()

    @cached_property
    def _all_coefficients(self) -> Tensor:
        c = torch.tensor(self.coefficients, dtype=torch.complex128)
        return torch.cat([c[1:].conj().flip(0), c[:1].real + 0j, c[1:]])

    def describe(self) -> dict[str, Any]:
        """Length and coefficients, as JSON can hold them."""
        pairs = [[c.real, c.imag] for c in self.coefficients]
        return {"length_bohr": self.length, "coefficients_hartree": pairs}

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> Self:
        """The potential of :meth:`describe`."""
        pairs = description["coefficients_hartree"]
        return cls(description["length_bohr"], tuple(complex(*pair) for pair in pairs))


@dataclass(frozen=True, eq=False)
class AxisLevels:
    """Some of the levels of an axis.

    Attributes:
        energies: (n,), hartree, of which kinetic: (n,). weights: of their k-points, (n,).
        squares, slopes: |phi|^2 and |dphi/dx|^2 at points, (n_points, n), 1/bohr and 1/bohr^3.
    """

    energies: Tensor
    kinetic: Tensor
    weights: Tensor
    squares: Tensor
    slopes: Tensor


@dataclass(frozen=True, eq=False)
class AxisBands:
    """All levels of an axis that its plane waves hold.

    Attributes:
        length: bohr. weights: of the k-points, (n_k,). wave_numbers: (n_k, n_waves), 1/bohr.
        energies: (n_k, n_bands), hartree. vectors: their coefficients, (n_k, n_waves, n_bands).
        highest: energy up to which the levels are right, hartree.
    """

    length: float
    weights: Tensor
    wave_numbers: Tensor
    energies: Tensor
    vectors: Tensor
    highest: float

    @classmethod
    def solve(cls, potential: AxisPotential, kpoints: int, cutoff: float) -> AxisBands:
        """The levels in a potential.

        Args:
            kpoints: number in the Brillouin zone, a shifted mesh: of k and -k one is taken.
            cutoff: largest kinetic energy of the plane waves, hartree; levels whose own is at most
                half of it are taken to be right.
        """
        unit = 2 * math.pi / potential.length
        count = math.ceil(math.sqrt(2 * cutoff) / unit)
        k, weights = _shifted_mesh(kpoints)
        q = unit * (k[:, None] + torch.arange(-count, count + 1))
        hamiltonian = torch.diag_embed(q**2 / 2) + potential.matrix(2 * count + 1)
        energies, vectors = torch.linalg.eigh(hamiltonian)
        highest = potential.lowest + cutoff / 2
        return cls(potential.length, weights, q, energies, vectors, highest)

    @property
    def lowest(self) -> float:
        """Energy of the lowest level, hartree."""
        return float(self.energies.min())

    def below(self, energy: float, points: Tensor) -> AxisLevels:
        """The levels below an energy (hartree), with their squares at points (n_points,), bohr.

        Raises:
            SamplingError: an energy that is too high for the plane waves.
        """
        if energy > self.highest:
            raise SamplingError(
                f"levels are filled up to {energy:.3g} hartree along an axis whose plane waves "
                f"hold {self.highest:.3g}: raise the cutoff, or take a smoother potential"
            )
        k, band = torch.nonzero(self.energies <= energy, as_tuple=True)
        c, q = self.vectors[k, :, band], self.wave_numbers[k]
        waves = torch.exp(1j * points[:, None, None] * self.wave_numbers)
        return AxisLevels(
            energies=self.energies[k, band],
            kinetic=(c.abs() ** 2 * q**2).sum(dim=1) / 2,
            weights=self.weights[k],
            squares=self._squares(waves, c, k),
            slopes=self._squares(waves, q * c, k),
        )

    def _squares(self, waves: Tensor, coefficients: Tensor, k: Tensor) -> Tensor:
        fields = torch.einsum("pnq,nq->pn", waves[:, k], coefficients)
        return (fields.real**2 + fields.imag**2) / self.length


def _shifted_mesh(count: int) -> tuple[Tensor, Tensor]:
    """Of (2 r - n - 1)/(2 n), r = 1 to n, those that are not negative, and their weights."""
    k = (torch.arange(count, dtype=torch.float64) + 0.5 - count / 2) / count
    k = k[k > -1e-9]
    weights = torch.where(k > 1e-9, 2.0, 1.0).double() / count
    return k, weights
