"""Occupation of energy levels, and the energy that belongs to smeared ones.

With x = (eps - mu)/width a level for two electrons holds f = 2 g(x) of them and adds 2 width s(x)
to the free energy F, where s' = -x g'. So F is variational: dF/df = mu, and dF/d(eps) = f.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real

import torch
from torch import Tensor

from fedens.errors import SamplingError

#: Electrons that the topmost band may hold; with 1e-3 self-consistency stalls.
HIGHEST_TOP_OCCUPATION = 1e-5
#: Without smearing, filled and empty levels are at least this far apart, hartree.
SMALLEST_GAP = 1e-5
#: Levels below an energy that a k-point has beyond the average number, over its cube root: counted
#: for free electrons with up to a thousand levels at general k-points.
UNEVEN = 2.5
#: Beyond so many widths every level is full or empty.
_REACH = 40.0
#: Error of the number of electrons, relative.
_TOLERANCE = 1e-12
_BISECTIONS = 100
_SQRT_PI = math.sqrt(math.pi)


@dataclass(frozen=True)
class _Kind:
    """g and s of a way to smear, as functions of x.

    monotone: whether g falls everywhere. second_order: whether F differs from the energy at zero
    width by a term in the width squared, of which E has the opposite.
    """

    occupation: Callable[[Tensor], Tensor]
    entropy: Callable[[Tensor], Tensor]
    monotone: bool
    second_order: bool


def _fermi_dirac_entropy(x: Tensor) -> Tensor:
    filled, empty = torch.sigmoid(-x), torch.sigmoid(x)
    return torch.xlogy(filled, filled) + torch.xlogy(empty, empty)


def _half_erfc(x: Tensor) -> Tensor:
    return torch.erfc(x) / 2


def _gaussian(x: Tensor) -> Tensor:
    return torch.exp(-(x**2)) / _SQRT_PI


def _cold_occupation(x: Tensor) -> Tensor:
    shifted = x + math.sqrt(0.5)
    return _half_erfc(shifted) + _gaussian(shifted) / math.sqrt(2)


def _cold_entropy(x: Tensor) -> Tensor:
    shifted = x + math.sqrt(0.5)
    return -shifted * _gaussian(shifted) / math.sqrt(2)


#: Mermin, Phys. Rev. 137, A1441 (1965); Fu and Ho, Phys. Rev. B 28, 5480 (1983); Methfessel and
#: Paxton, Phys. Rev. B 40, 3616 (1989), order 1; Marzari et al., Phys. Rev. Lett. 82, 3296 (1999).
KINDS = {
    "fermi_dirac": _Kind(lambda x: torch.sigmoid(-x), _fermi_dirac_entropy, True, True),
    "gaussian": _Kind(_half_erfc, lambda x: -_gaussian(x) / 2, True, True),
    "methfessel_paxton": _Kind(
        lambda x: _half_erfc(x) - x * _gaussian(x) / 2,
        lambda x: (2 * x**2 - 1) * _gaussian(x) / 4,
        False,
        False,
    ),
    "cold": _Kind(_cold_occupation, _cold_entropy, False, False),
}


@dataclass(frozen=True)
class Occupation:
    """Filled levels.

    Attributes:
        occupations: electrons of each level, (n_k, n_bands), 0 to 2 (a little beyond both with
            Methfessel-Paxton, beyond 2 with cold smearing).
        chemical_potential: hartree; without smearing the middle of the gap, or the highest filled
            level where there is no empty one.
        entropy_energy: -T S, or what stands for it, hartree; F = E + entropy_energy.
        gap: lowest empty less highest filled level, hartree, infinite where there is no empty
            level; ``None`` with smearing.
    """

    occupations: Tensor
    chemical_potential: float
    entropy_energy: float
    gap: float | None = None

    @property
    def top(self) -> float:
        """Largest number of electrons, in magnitude, of the topmost band at any k-point."""
        return float(self.occupations[:, -1].abs().max())

    def check(self) -> None:
        """Raise a :class:`SamplingError` for a metal without smearing, or for too few bands.

        For the end of a calculation: on the way there levels may overlap for a while.
        """
        if self.gap is None:
            self._refuse_filled_top()
        elif self.gap < SMALLEST_GAP:
            raise SamplingError(
                f"without smearing the gap is {self.gap:.2e} hartree, so that levels are filled "
                "in part: a metal, or an open shell; give a smearing such as smearing=0.01"
            )

    def _refuse_filled_top(self) -> None:
        if self.top > HIGHEST_TOP_OCCUPATION:
            n_bands = self.occupations.shape[1]
            raise SamplingError(
                f"{n_bands} bands are too few: the topmost one holds {self.top:.1e} electrons, "
                f"more than {HIGHEST_TOP_OCCUPATION:g}; give bands={n_bands + n_bands // 4 + 2} or "
                "a smaller smearing"
            )


@dataclass(frozen=True)
class Smearing:
    """How levels near the chemical potential are filled.

    Args:
        width: hartree; of Fermi-Dirac this is kT. 0 fills the lowest levels (insulators).
        kind: ``fermi_dirac``, ``gaussian``, ``methfessel_paxton`` (order 1) or ``cold``.

    Raises:
        SamplingError: for a negative width or an unknown kind.
    """

    width: float = 0.0
    kind: str = "fermi_dirac"

    def __post_init__(self) -> None:
        if not isinstance(self.width, Real) or not 0 <= self.width < math.inf:
            raise SamplingError(
                f"smearing width is {self.width!r} hartree, expected 0 or more; a kind goes with "
                "it as in Smearing(0.01, 'cold')"
            )
        if self.kind not in KINDS:
            raise SamplingError(f"smearing kind is {self.kind!r}, expected {', '.join(KINDS)}")

    def occupations(self, eigenvalues: Tensor, weights: Tensor, electrons: float) -> Occupation:
        """Fill levels with a number of electrons.

        Args:
            eigenvalues: (n_k, n_bands), hartree, ascending at each k-point.
            weights: of the k-points, (n_k,), with the sum 1.
            electrons: per cell.

        Raises:
            SamplingError: for too few bands, an odd number of electrons without smearing, or
                eigenvalues that are not finite.
        """
        levels = eigenvalues.detach()
        self._check_input(levels, electrons)
        if self.width == 0:
            return _lowest_levels(levels, round(electrons / 2))
        return self.fill(levels, weights[:, None], electrons)

    def fill(self, levels: Tensor, weights: Tensor, electrons: float) -> Occupation:
        """Fill levels in any order, with a width, with a number of electrons.

        Args:
            levels: of any shape, hartree. weights: of each level, of a shape that broadcasts.
        """
        mu = self._chemical_potential(levels, weights, electrons)
        x = (levels - mu) / self.width
        kind = KINDS[self.kind]
        entropy_energy = 2 * self.width * float((weights * kind.entropy(x)).sum())
        return Occupation(2 * kind.occupation(x), mu, entropy_energy)

    def _check_input(self, levels: Tensor, electrons: float) -> None:
        if not electrons > 0 or not torch.isfinite(levels).all():
            raise SamplingError(
                f"{electrons} electrons in levels from {float(levels.min())} to "
                f"{float(levels.max())} hartree: expected a positive number and finite levels"
            )
        if self.width == 0 and abs(electrons / 2 - round(electrons / 2)) > 1e-9:
            raise SamplingError(
                f"{electrons:g} electrons fill no whole number of levels: without smearing the "
                "number must be even; give a smearing such as smearing=0.01"
            )
        needed = math.ceil(electrons / 2 - 1e-9) + (self.width > 0)
        if levels.shape[1] < needed:
            raise SamplingError(
                f"{levels.shape[1]} bands cannot hold {electrons:g} electrons with a smearing of "
                f"{self.width:g} hartree: give bands={needed} or more"
            )

    def _chemical_potential(self, levels: Tensor, weights: Tensor, electrons: float) -> float:
        kind = KINDS[self.kind]

        def excess(mu: float, occupation: Callable[[Tensor], Tensor]) -> float:
            filled = 2 * occupation((levels - mu) / self.width)
            return float((weights * filled).sum()) - electrons

        first = kind if kind.monotone else KINDS["gaussian"]
        reach = _REACH * self.width
        ends = float(levels.min()) - reach, float(levels.max()) + reach
        tolerance = _TOLERANCE * electrons
        mu = _middle_root(lambda mu: excess(mu, first.occupation), *ends, tolerance)
        if kind.monotone:
            return mu
        return _nearest_root(lambda mu: excess(mu, kind.occupation), mu, self.width / 4, tolerance)

    def energy_at_zero_width(self, free_energy: float, entropy_energy: float) -> float:
        """Estimate of the energy without smearing, hartree: (E + F)/2, or F where it is as good.

        What is left is of fourth order in the width, of third with cold smearing.
        """
        if KINDS[self.kind].second_order:
            return free_energy - entropy_energy / 2
        return free_energy

    def empty_bands(self, electrons: float, volume: float) -> int:
        """Bands to add to the filled ones so that the topmost one is as good as empty.

        As many as the uniform gas in ``volume`` (bohr^3, of the cell) would need, and some more
        for the k-points that differ from the average; :meth:`Occupation.check` tells afterwards.
        Without smearing a quarter more, at least two: they show the gap and help to converge.
        """
        if self.width == 0:
            return max(2, math.ceil(electrons / 8))
        fermi_energy = (3 * math.pi**2 * electrons / volume) ** (2 / 3) / 2
        filled = electrons / 2
        reached = filled * (1 + self.reach() / fermi_energy) ** 1.5
        return max(4, math.ceil(reached - filled + UNEVEN * reached ** (1 / 3)))

    def reach(self, negligible: float = HIGHEST_TOP_OCCUPATION) -> float:
        """How far above mu, hartree, levels hold more than a ``negligible`` number of electrons."""
        x = torch.linspace(0, _REACH, 4001, dtype=torch.float64)
        filled = 2 * KINDS[self.kind].occupation(x).abs() > negligible
        return self.width * float(x[filled][-1])


def _lowest_levels(levels: Tensor, n_filled: int) -> Occupation:
    """Two electrons in each of the lowest levels of every k-point."""
    occupations = torch.zeros_like(levels)
    occupations[:, :n_filled] = 2
    highest = float(levels[:, :n_filled].max())
    if n_filled == levels.shape[1]:
        return Occupation(occupations, highest, 0.0, math.inf)
    lowest = float(levels[:, n_filled:].min())
    return Occupation(occupations, (highest + lowest) / 2, 0.0, lowest - highest)


def _middle_root(
    excess: Callable[[float], float], low: float, high: float, tolerance: float
) -> float:
    """Middle of the range in which a rising function is zero: in an insulator that of the gap."""
    first = _bisect(lambda mu: excess(mu) > -tolerance, low, high)
    last = _bisect(lambda mu: excess(mu) > tolerance, low, high)
    return (first + last) / 2


def _nearest_root(
    excess: Callable[[float], float], start: float, step: float, tolerance: float
) -> float:
    """Where a function, negative far below and positive far above, changes sign near ``start``."""
    value = excess(start)
    if abs(value) <= tolerance:
        return start
    for reach in itertools.count():
        for side in (-step, step):
            near, far = start + reach * side, start + (reach + 1) * side
            if (excess(far) > 0) != (value > 0):
                return _bisect(lambda mu: (excess(mu) > 0) != (value > 0), near, far)
    raise AssertionError("no change of sign")


def _bisect(past: Callable[[float], bool], near: float, far: float) -> float:
    """Where a condition that holds at ``far`` and not at ``near`` begins to hold."""
    for _ in range(_BISECTIONS):
        middle = (near + far) / 2
        if middle in (near, far):
            break
        near, far = (near, middle) if past(middle) else (middle, far)
    return far
