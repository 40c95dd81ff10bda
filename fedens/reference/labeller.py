"""What turns structures into reference data."""

from __future__ import annotations

from typing import Any, Protocol

from fedens.data.sample import Sample
from fedens.structure import Structure


class Labeller(Protocol):
    """Reference data of structures: a pure function, which another process can be given."""

    def __call__(self, structure: Structure) -> Sample:
        """Fields and energies of one structure.

        Raises:
            ConvergenceError: the calculation did not converge.
        """

    def describe(self) -> dict[str, Any]:
        """``kind`` and all that the samples depend on, as JSON can hold it; bohr and hartree."""
