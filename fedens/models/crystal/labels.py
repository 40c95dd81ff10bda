"""What a model of Kohn-Sham data knows of their energies and forces: less than of their fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from fedens.data.sample import WITHOUT_DENSITY, Sample
from fedens.energy.electrostatics import find_pseudopotential
from fedens.energy.functional import EnergyFunctional
from fedens.energy.gth import GTH
from fedens.energy.kohn_sham import KohnSham
from fedens.energy.pseudopotential import LocalPseudopotential
from fedens.errors import ModelError

_WORDS = {
    "ions": "the pseudopotentials of the data, which are not those of its functional",
    "nonlocal": "the energy of the non-local projectors",
    "entropy": "the entropy of the smeared occupations",
}


@dataclass(frozen=True)
class KohnShamLabels:
    """Labels that are not the model's own functional's, but of Kohn-Sham theory.

    The functional is then only where the learned differences begin. Its energy at the predicted
    density is not that of the labels, and is refused as such. Sums of energy densities are, where
    nothing is ``unknown``; forces of Hellmann and Feynman, where the ions are known and local.

    Attributes:
        theory: :meth:`fedens.energy.kohn_sham.KohnSham.describe`.
        unknown: what no predicted field holds of their energy: ``ions``, ``nonlocal``, ``entropy``.
    """

    theory: Mapping[str, Any]
    unknown: tuple[str, ...]

    @classmethod
    def of(cls, samples: Sequence[Sample], functional: EnergyFunctional | None) -> Self | None:
        """Of training samples; None for those of other theories.

        Raises:
            PseudopotentialError: the functional has none for an element of the samples.
        """
        theory: Any = samples[0].provenance.get("functional")
        if not is_kohn_sham(theory):
            return None
        parts = [n for n in WITHOUT_DENSITY if any(s.energies.get(n) for s in samples)]
        symbols = {symbol for sample in samples for symbol in sample.structure.symbols}
        labels = KohnSham.from_description(theory)
        if functional is None or not _same_ions(labels, functional, symbols):
            parts.insert(0, "ions")
        return cls(theory, tuple(parts))

    @classmethod
    def from_description(cls, description: Mapping[str, Any] | None) -> Self | None:
        """Those of :meth:`describe`, if there are some."""
        if description is None:
            return None
        return cls(description["theory"], tuple(description["unknown"]))

    def describe(self) -> dict[str, Any]:
        """The attributes as JSON can hold them."""
        return {**asdict(self), "unknown": list(self.unknown)}

    def missing(self, route: str) -> list[str]:
        """What a route to energies or forces would need and does not have, in words."""
        if route == "functional":
            return ["the energy of the functional is not that of Kohn-Sham theory"]
        needed = ("ions", "nonlocal") if route == "hellmann_feynman" else tuple(_WORDS)
        return [f"it does not know {_WORDS[part]}" for part in self.unknown if part in needed]

    def check(self, route: str) -> None:
        """Raise a :class:`ModelError` unless the route gives the labels' energy or forces."""
        missing = self.missing(route)
        if missing:
            others = [r for r in ("energy_density", "hellmann_feynman") if not self.missing(r)]
            raise ModelError(
                f"this model has learned from Kohn-Sham data and has no route {route!r}: "
                f"{'; '.join(missing)}. Use its density and energy densities"
                + (f", or route {' or '.join(others)}" if others else "")
            )


def is_kohn_sham(theory: Any) -> bool:
    """Whether the description of a functional is that of our own Kohn-Sham theory."""
    return isinstance(theory, Mapping) and theory.get("kind") == "kohn_sham"


def _same_ions(labels: KohnSham, functional: EnergyFunctional, symbols: set[str]) -> bool:
    ours = {s: find_pseudopotential(functional.pseudopotentials, s) for s in sorted(symbols)}
    theirs = labels.pseudopotentials
    widths = all(functional.widths[symbol] == labels.widths[symbol] for symbol in symbols)
    return widths and all(_local(ours[s]) == _local(theirs[s]) for s in symbols)


def _local(pseudopotential: LocalPseudopotential) -> LocalPseudopotential:
    return pseudopotential.local if isinstance(pseudopotential, GTH) else pseudopotential
