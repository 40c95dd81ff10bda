"""What jobs share that learn from orbital-free calculations."""

from __future__ import annotations

from functools import cached_property
from typing import Any, TypeVar

import torch

from fedens.configuration import Configuration, ReferencePointsConfiguration
from fedens.energy.functional import EnergyFunctional
from fedens.jobs.run import Run
from fedens.learning.devices import resolve_device

Options = TypeVar("Options", Configuration, ReferencePointsConfiguration)


class OrbitalFreeRun(Run[Options]):
    """A run whose data are orbital-free ground states of the structures it is given."""

    @property
    def data_sections(self) -> tuple[str, ...]:
        return ("seed", "structures", "space", "functional", "solver")

    @property
    def device(self) -> torch.device:
        """The one the configuration asks for."""
        return resolve_device(self.configuration.device)

    @cached_property
    def functional(self) -> EnergyFunctional:
        """The energy functional the configuration asks for."""
        options = self.configuration.functional
        assert options is not None  # a configuration without one has another theory
        pseudopotentials = {
            symbol: one.pseudopotential(symbol) for symbol, one in options.pseudopotentials.items()
        }
        return EnergyFunctional.orbital_free(
            options.kinetic,
            options.vw_weight,
            options.xc,
            pseudopotentials,
            options.gaussian_width,
            temperature=options.temperature,
        )

    @property
    def labelling(self) -> dict[str, Any]:
        """Ground states as the configuration asks for them."""
        space, solver = self.configuration.space, self.configuration.solver
        chosen = {**space.model_dump(), **solver.model_dump()}
        return {"kind": "orbital_free", "functional": self.functional.describe(), **chosen}

    def generate(self) -> dict[str, str]:
        """Label all structures; returns those that did not converge."""
        structures = self.configuration.structures.source().structures(self.configuration.seed)
        named = {f"{index:04d}-{one.formula}": one for index, one in enumerate(structures)}
        return self.generate_data(named)
