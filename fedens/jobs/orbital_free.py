"""Orbital-free reference data as configurations ask for them, for the jobs that need some."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from fedens.configuration import Configuration, ReferencePointsConfiguration
from fedens.configuration.material import FunctionalOptions
from fedens.data.sample import Sample
from fedens.energy.functional import EnergyFunctional
from fedens.energy.pseudopotential import pseudopotential_from_description
from fedens.fem.tensor import TensorSpace
from fedens.reference.orbital_free import solve_ground_state
from fedens.structure import Structure


def functional_of(options: FunctionalOptions) -> EnergyFunctional:
    """The energy functional that a configuration's section describes."""
    pseudopotentials = {
        symbol: pseudopotential_from_description(one.model_dump(mode="json"))
        for symbol, one in options.pseudopotentials.items()
    }
    return EnergyFunctional.orbital_free(
        options.kinetic, options.vw_weight, options.xc, pseudopotentials, options.gaussian_width
    )


@dataclass(frozen=True)
class OrbitalFreeLabeller:
    """Ground states by an orbital-free functional; see :func:`solve_ground_state`."""

    functional: EnergyFunctional
    spacing: float
    order: int
    residual_tolerance: float
    max_evaluations: int

    @classmethod
    def of(cls, configuration: Configuration | ReferencePointsConfiguration) -> Self:
        """The one that a configuration asks for."""
        space, solver = configuration.space, configuration.solver
        return cls(
            functional_of(configuration.functional),
            space.spacing,
            space.order,
            solver.residual_tolerance,
            solver.max_evaluations,
        )

    def __call__(self, structure: Structure) -> Sample:
        """Reference data of one structure.

        Raises:
            ConvergenceError: when the solver does not reach its tolerance.
        """
        state = solve_ground_state(
            structure,
            TensorSpace.for_structure(structure, self.spacing, self.order),
            self.functional,
            residual_tolerance=self.residual_tolerance,
            max_evaluations=self.max_evaluations,
        )
        return state.to_sample()


def numbered(structures: Sequence[Structure]) -> dict[str, Structure]:
    """Structures by the names of their samples: number and formula."""
    return {f"{index:04d}-{one.formula}": one for index, one in enumerate(structures)}
