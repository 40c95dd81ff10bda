"""What turns structures into reference data, by kind; a new labeller is one line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, Protocol

from fedens.data.sample import Sample
from fedens.errors import ConfigurationError
from fedens.structure import Structure

#: Kind -> "module:class".
LABELLERS: dict[str, str] = {
    "kohn_sham": "fedens.reference.kohn_sham.labeller:KohnShamLabeller",
    "orbital_free": "fedens.reference.orbital_free:OrbitalFreeLabeller",
    "pyscf": "fedens.reference.pyscf.kohn_sham:PySCFLabeller",
}


#: Called after each step with its number, the energy (hartree) and the residual.
StepReport = Callable[[int, float, float], None]


class Labeller(Protocol):
    """Reference data of structures: a pure function, which another process can be given.

    Classes also have ``from_description``, which takes :meth:`describe` without its kind.
    """

    def __call__(
        self,
        structure: Structure,
        report: StepReport | None = None,
        checkpoint: Path | None = None,
    ) -> Sample:
        """Fields and energies of one structure.

        Args:
            report: called as the calculation goes on, where it can be.
            checkpoint: a file from which a calculation that was stopped goes on, where it can.

        Raises:
            ConvergenceError: the calculation did not converge.
            SamplingError: k-points, smearing or bands do not fit this structure.
        """

    def describe(self) -> dict[str, Any]:
        """``kind`` and all that the samples depend on, as JSON can hold it."""


def labeller_from_description(description: Mapping[str, Any]) -> Labeller:
    """The labeller of :meth:`Labeller.describe`.

    Raises:
        ConfigurationError: a kind that this fedens does not know.
    """
    settings = dict(description)
    kind = settings.pop("kind", None)
    if kind not in LABELLERS:
        expected = ", ".join(LABELLERS)
        raise ConfigurationError(
            f"no labeller of kind {kind!r} is known; expected one of {expected}"
        )
    labeller: Labeller = resolve_name(LABELLERS[kind]).from_description(settings)
    return labeller
