"""The ground state of a functional as a baseline: models learn what its density lacks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from torch import Tensor

from fedens.atoms.baseline import Baseline, baseline_from_description
from fedens.data.density import Density
from fedens.energy.functional import EnergyFunctional
from fedens.errors import FedensError
from fedens.fem.space import FunctionSpace
from fedens.reference.orbital_free import solve_ground_state
from fedens.structure import Structure


@dataclass(frozen=True, eq=False)
class GroundStateBaseline:
    """The density n* that minimises a functional, a :class:`fedens.atoms.baseline.Baseline`.

    For densities that no functional of local potentials has, such as those of pseudopotentials
    with projectors: n = n* + what is learned. It is not differentiated: energies of such a model
    have no forces by their derivative; those of Hellmann and Feynman need none.

    Attributes:
        functional: what is minimised. residual_tolerance: see :func:`solve_ground_state`.
    """

    kind: ClassVar[str] = "ground_state"

    functional: EnergyFunctional
    residual_tolerance: float = 1e-6

    def number_of_electrons(self, structure: Structure) -> float:
        """Electrons that the functional puts around the ions."""
        return self.functional.number_of_electrons(structure)

    def density(
        self, structure: Structure, space: FunctionSpace, positions: Tensor | None = None
    ) -> Density:
        """The density on a space.

        Raises:
            FedensError: positions that are to be differentiated.
            ConvergenceError: no minimum within the tolerance.
        """
        if positions is not None:
            if positions.requires_grad:
                raise FedensError(
                    "the ground state of a functional is not differentiated in the positions: use "
                    "the density and Hellmann-Feynman forces, or the baseline 'relaxed_response'"
                )
            structure = structure.replace(positions=positions.cpu().numpy())
        state = solve_ground_state(
            structure, space, self.functional, residual_tolerance=self.residual_tolerance
        )
        return state.density

    def describe(self) -> dict[str, Any]:
        """Kind and attributes."""
        return {
            "kind": self.kind,
            "functional": self.functional.describe(),
            "residual_tolerance": self.residual_tolerance,
        }

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> Self:
        """The baseline of :meth:`describe`."""
        functional = EnergyFunctional.from_description(description["functional"])
        return cls(functional, description["residual_tolerance"])


def any_baseline_from_description(description: Mapping[str, Any]) -> Baseline:
    """A ground state or one of :func:`fedens.atoms.baseline.baseline_from_description`."""
    if description["kind"] == GroundStateBaseline.kind:
        return GroundStateBaseline.from_description(description)
    return baseline_from_description(description)
