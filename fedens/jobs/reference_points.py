"""The job ``reference_points``: the same data, descriptors and time for every choice of points.

Beside what every run's folder holds (:mod:`fedens.jobs.run`): ``results.json``, every training and
every cost.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import cache, partial
from itertools import product
from typing import Any, ClassVar

import torch

from fedens.analysis.reference_points import (
    LABELS,
    Cost,
    Outcome,
    averages,
    cost_of,
    findings,
    held_out_errors,
)
from fedens.configuration import ReferencePointsConfiguration
from fedens.errors import DatasetError
from fedens.features.gmp import GMP
from fedens.features.points import PointSet
from fedens.jobs.orbital_free import OrbitalFreeRun
from fedens.jobs.run import Run, Section
from fedens.jobs.summary import Summary
from fedens.models.points.data import StructureData, prepare_structure
from fedens.models.points.objective import EnergyTrainingSettings
from fedens.models.points.training import fit_energy_model
from fedens.report.page import ReportTable
from fedens.report.reference_points import write_reference_points_report

#: No training comes to this many steps in its time.
_ENDLESS = 10**9

#: Structures at a set of points, and the seconds that one of them takes.
Features = tuple[list[StructureData], float]


class PointsRun(OrbitalFreeRun[ReferencePointsConfiguration]):
    """Compares reference points for energies as sums over them."""

    leaves: ClassVar = {**Run.leaves, "train": ("trainings and costs", "sections.json")}

    def train(self) -> tuple[list[Outcome], list[Cost]]:
        """Every training; features are computed once per set of points, if they are needed."""
        results = [
            result
            for name, kinds in self.configuration.points.items()
            for result in self._trainings(name, [kind.points() for kind in kinds])
        ]
        outcomes = [Outcome(**one["outcome"]) for one in results]
        return outcomes, [Cost(**one["cost"]) for one in results if one["cost"] is not None]

    def _trainings(self, name: str, sets: Sequence[PointSet]) -> list[dict[str, Any]]:
        """Outcomes of a set of points; the first, of the largest training, has its cost too."""
        same = ("seed", "gmp", "held_out", "seconds", "steps", "hidden", "learning_rate", "ridge")
        inputs = {"samples": self.checksums(self._names), "points": sets, **self.chosen(*same)}
        features = cache(partial(self._features, name, sets))
        cases = {
            f"{name}, {labels}, {size} structures, seed {seed}": Section(
                {**inputs, "cost": place == 0},
                partial(self._train, name, sets, features, labels, size, seed, place == 0),
            )
            for place, (labels, size, seed) in enumerate(self._cases(sets))
        }
        if any(self.sections.change(case, s.inputs) is not None for case, s in cases.items()):
            features()
        return self.each(f"{name}: trainings", cases)

    @property
    def _names(self) -> list[str]:
        """Of the samples, those held out last."""
        names, options = self.data.names, self.configuration
        needed = max(options.sizes) + options.held_out
        if len(names) < needed:
            raise DatasetError(
                f"{self.folder / 'data'} holds {len(names)} samples, the largest of sizes and "
                f"held_out need {needed}: make more with fedens generate, or ask for fewer"
            )
        return names

    def _cases(self, sets: Sequence[PointSet]) -> Iterator[tuple[str, int, int]]:
        # the largest training first: the costs are measured with its model
        sizes = sorted(self.configuration.sizes, reverse=True)
        for labels, size, seed in product(reversed(LABELS), sizes, range(self.configuration.seeds)):
            with_fields = LABELS[labels][2] > 0
            if sets[0].per_volume or not with_fields:
                yield labels, size, seed

    def _features(self, name: str, sets: Sequence[PointSet]) -> Features:
        prepared = []
        start = time.process_time()
        with self.progress.stage(f"{name}: features", len(self._names)) as advance:
            for sample in map(self.data.__getitem__, self._names):
                how = {"with_fields": sets[0].per_volume}
                one = prepare_structure(sample, self._descriptor, sets, self.functional, **how)
                prepared.append(one)
                advance(1)
        return prepared, (time.process_time() - start) / len(prepared)

    @property
    def _descriptor(self) -> GMP:
        options = self.configuration.gmp
        return GMP(options.widths, options.max_order, form="smooth")

    def _train(
        self,
        name: str,
        sets: Sequence[PointSet],
        features: Callable[[], Features],
        labels: str,
        size: int,
        seed: int,
        with_cost: bool,
    ) -> dict[str, Any]:
        """One training: its outcome, and the cost of its points where that is wanted."""
        options, (structures, preparation) = self.configuration, features()
        n_training = len(structures) - options.held_out
        order = torch.randperm(n_training, generator=torch.Generator().manual_seed(seed))
        start = time.process_time()
        model = fit_energy_model(
            [structures[i] for i in order[:size]],
            self._descriptor,
            sets,
            self._settings(labels, seed),
            self.functional,
        )
        epochs = max(model.provenance["steps"], 1) / size
        seconds = (time.process_time() - start) / epochs
        errors = held_out_errors(model, structures[n_training:])
        outcome = Outcome(name, labels, size, seed, *errors, seconds, epochs)
        last = self.data[self._names[-1]].structure
        cost = cost_of(name, model, last, structures[-1], preparation) if with_cost else None
        return {"outcome": asdict(outcome), "cost": None if cost is None else asdict(cost)}

    def _settings(self, labels: str, seed: int) -> EnergyTrainingSettings:
        options, (energy, force, fields) = self.configuration, LABELS[labels]
        return EnergyTrainingSettings(
            hidden=options.hidden,
            energy_weight=energy,
            force_weight=force,
            field_weight=fields,
            steps=options.steps or _ENDLESS,
            max_seconds=options.seconds,
            learning_rate=options.learning_rate,
            ridge=options.ridge,
            seed=options.seed + seed,
        )

    def compared(self) -> Summary:
        """The results and the report page."""
        outcomes, costs = self.train()
        inputs = {"outcomes": outcomes, "costs": costs, **self.chosen("gmp", "seconds", "hidden")}
        compute = partial(self._compared, outcomes, costs)
        return self.summarised("report", Section(inputs, compute, ["results.json", "report.html"]))

    def _compared(self, outcomes: Sequence[Outcome], costs: Sequence[Cost]) -> Summary:
        results = {
            "outcomes": [asdict(one) for one in outcomes],
            "costs": [asdict(one) for one in costs],
            "left_out": self.failures,
        }
        self.write_json("results.json", results)
        options = self.configuration
        run = {
            "training time": f"{options.seconds:g} processor s each, after the features are known",
            "descriptors": f"Gaussian multipoles, widths {list(options.gmp.widths)} bohr, orders "
            f"to {options.gmp.max_order}",
            "networks": f"linear + {list(options.hidden)} hidden units",
            "added to every model": "the closed energy of the ions' Gaussian charges",
            "held-out structures": options.held_out,
            "seeds": options.seeds,
            "seed": options.seed,
        }
        path = self.folder / "report.html"
        write_reference_points_report(path, options.name, run, outcomes, costs)
        largest = max(one.structures for one in outcomes)
        keys = ("points", "labels", "energy_error", "force_error")
        table = ReportTable(
            f"mean held-out errors with {largest} structures",
            ("reference points", "taught", "energy (meV/atom)", "forces (meV/angstrom)"),
            [[r[k] for k in keys] for r in averages(outcomes) if r["structures"] == largest],
        )
        return Summary(table, findings(outcomes, costs))
