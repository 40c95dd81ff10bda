"""Orbital-free reference data as configurations ask for them, for the jobs that need some."""

from __future__ import annotations

from collections.abc import Sequence

from fedens.configuration import Configuration, ReferencePointsConfiguration
from fedens.configuration.material import FunctionalOptions
from fedens.energy.functional import EnergyFunctional
from fedens.energy.pseudopotential import pseudopotential_from_description
from fedens.reference.orbital_free import OrbitalFreeLabeller
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


def labeller_of(
    configuration: Configuration | ReferencePointsConfiguration,
) -> OrbitalFreeLabeller:
    """Ground states as a configuration asks for them."""
    space, solver = configuration.space, configuration.solver
    return OrbitalFreeLabeller(
        functional_of(configuration.functional),
        space.spacing,
        space.order,
        solver.residual_tolerance,
        solver.max_evaluations,
    )


def numbered(structures: Sequence[Structure]) -> dict[str, Structure]:
    """Structures by the names of their samples: number and formula."""
    return {f"{index:04d}-{one.formula}": one for index, one in enumerate(structures)}
