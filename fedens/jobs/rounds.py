"""Active learning: in rounds, label structures that the model knows least about, and train on.

A round looks at structures that the run does not hold yet, labels those of the most uncertain
energy and goes on training with them. Held-out structures stay held out. What a round has done is
not done again when the run is started anew. ``rounds/1`` holds the model after the first round,
``rounds/0`` that of the first training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch

from fedens.jobs.crystals import CrystalsRun
from fedens.jobs.run import Section
from fedens.models.crystal.model import Predictor
from fedens.models.crystal.objective import TrainingSettings
from fedens.structure import Structure
from fedens.units import HARTREE_IN_MEV

#: Learning rate of a round relative to the first training's: at the full rate the energy densities
#: forget more in the few steps than they learn.
_RATE = 1 / 3


@torch.no_grad()
def energy_uncertainty(predictor: Predictor, structure: Structure) -> float:
    """Estimated error of the energy by the functional, meV/atom; no forces, to be quick."""
    uncertainty = predictor.predict(structure).energy_uncertainty("functional")
    assert uncertainty is not None  # the functional needs no committee
    return uncertainty * HARTREE_IN_MEV / len(structure)


def most_uncertain(uncertainties: Mapping[str, float], count: int) -> list[str]:
    """The ``count`` names of the largest uncertainties, the largest first."""
    return sorted(uncertainties, key=lambda name: (-uncertainties[name], name))[:count]


class RoundsRun(CrystalsRun):
    """The job on crystals with the rounds that its configuration asks for, if any."""

    @cached_property
    def candidates(self) -> list[dict[str, Structure]]:
        """By name, the structures that each round looks at; none is in two, or used otherwise.

        Raises:
            StructureError: a structure file that has too few.
        """
        options = self.configuration.rounds
        if not options.count:
            return []
        source = self.configuration.structures.source()
        every = source.further(options.count * options.candidates, self.configuration.seed)
        named = [
            (f"round{1 + i // options.candidates}-{place:04d}-{structure.formula}", structure)
            for i, (place, structure) in enumerate(every.items())
        ]
        firsts = range(0, len(named), options.candidates)
        return [dict(named[first : first + options.candidates]) for first in firsts]

    def generate(self) -> dict[str, str]:
        """The data of the first training and the structures held out."""
        _ = self.candidates  # too few of them should show now, not after the training
        return super().generate()

    def train(self) -> Predictor:
        """The first training and all rounds; the model folder holds the last model.

        Raises:
            StructureError: a structure file that has too few structures.
        """
        if not self.configuration.rounds.count:
            return super().train()
        predictor, _ = self._history[-1]
        self.save_model(predictor, self.folder / "model")
        return predictor

    def rounds(self) -> list[dict[str, Any]]:
        """One row per round, the first training included; none for a run without rounds.

        Each has ``round``, ``structures`` (trained on), ``added`` (names),
        ``mean_candidate_uncertainty_mev_per_atom`` (by the model before the round; None at first)
        and mean errors of the held-out structures.
        """
        return [row for _, row in self._history] if self.configuration.rounds.count else []

    @cached_property
    def _history(self) -> list[tuple[Predictor, dict[str, Any]]]:
        """The model and the row of every round."""
        names, _ = self.split
        predictor = self.trained(names, self.settings(), self._folder(0))
        history = [(predictor, self._row(0, predictor, names, [], None))]
        for number, structures in enumerate(self.candidates, start=1):
            uncertainties = self._uncertainties(number, predictor, structures)
            chosen = most_uncertain(uncertainties, self.configuration.rounds.add)
            title = f"round {number}: reference data"
            failed = self.label(title, {name: structures[name] for name in chosen})
            added = [name for name in chosen if name not in failed]
            names = [*names, *added]
            predictor = self.trained(names, self._settings, self._folder(number), predictor)
            mean = sum(uncertainties.values()) / len(uncertainties)
            history.append((predictor, self._row(number, predictor, names, added, mean)))
        return history

    def _folder(self, number: int) -> Path:
        return self.folder / "rounds" / str(number)

    @property
    def _settings(self) -> TrainingSettings:
        """Those of the first training for another number of steps, at a lower rate."""
        first, steps = self.settings(), self.configuration.rounds.steps
        limit = None if first.max_seconds is None else first.max_seconds * steps / first.steps
        rate = _RATE * first.learning_rate
        return replace(first, steps=steps, max_seconds=limit, learning_rate=rate)

    def _uncertainties(
        self, number: int, predictor: Predictor, structures: Mapping[str, Structure]
    ) -> dict[str, float]:
        """Energy uncertainty of a round's candidates, meV/atom."""
        cases = {
            f"uncertainty of {name}": Section(
                {"model": predictor.provenance["key"], "structure": structure},
                partial(energy_uncertainty, predictor, structure),
            )
            for name, structure in structures.items()
        }
        values = self.each(f"round {number}: candidates", cases)
        return dict(zip(structures, values, strict=True))

    def _row(
        self,
        number: int,
        predictor: Predictor,
        names: Sequence[str],
        added: Sequence[str],
        uncertainty: float | None,
    ) -> dict[str, Any]:
        held_out = self.split[1]
        inputs = {
            "model": predictor.provenance["key"],
            "held-out samples": self.checksums(held_out),
        }
        errors = self.once(
            f"round {number}: held-out errors",
            Section(inputs, partial(self.mean_errors, predictor, held_out)),
        )
        return {
            "round": number,
            "structures": len(names),
            "added": list(added),
            "mean_candidate_uncertainty_mev_per_atom": uncertainty,
            **errors,
        }
