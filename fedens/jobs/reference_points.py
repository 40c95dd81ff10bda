"""The job ``reference_points``: the same data, descriptors and time for every choice of points.

A run lives in one folder::

    config.yaml   resolved configuration      results.json  every training, every cost
    data/         config and data set         report.html   tables, learning curves, findings
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path

import torch

from fedens.analysis.reference_points import (
    LABELS,
    Cost,
    Outcome,
    cost_of,
    findings,
    held_out_errors,
)
from fedens.configuration import Configuration, ReferencePointsConfiguration, TrainingOptions
from fedens.data.sample import Sample
from fedens.features.gmp import GMP
from fedens.features.points import PointSet
from fedens.files import write_atomically
from fedens.jobs.crystals import Run
from fedens.models.points.data import StructureData, prepare_structure
from fedens.models.points.model import EnergyModel
from fedens.models.points.settings import EnergyTrainingSettings
from fedens.models.points.training import fit_energy_model
from fedens.progress import Progress
from fedens.report.reference_points import write_reference_points_report

#: No training comes to this many steps in its time.
_ENDLESS = 10**9


def run(configuration: ReferencePointsConfiguration, folder: Path, progress: Progress) -> None:
    """Do the experiment, or go on with it where it was cut off, and write its report.

    Raises:
        ConfigurationError: the folder holds results of another configuration.
    """
    experiment = Experiment.open(configuration, folder, progress)
    experiment.train_all()
    path = experiment.report()
    for sentence in findings(experiment.outcomes, experiment.costs):
        progress.say(sentence)
    progress.say(f"open next: {path}")


@dataclass(eq=False)
class Experiment:
    """All trainings of one configuration, those done and those still to do."""

    configuration: ReferencePointsConfiguration
    folder: Path
    progress: Progress
    data: Run
    outcomes: list[Outcome] = field(default_factory=list)
    costs: list[Cost] = field(default_factory=list)

    @classmethod
    def open(
        cls, configuration: ReferencePointsConfiguration, folder: Path, progress: Progress
    ) -> Experiment:
        """Label the structures and read what has been done already."""
        found = configuration.results_in(folder / "results.json")
        configuration.write(folder / "config.yaml")
        shared = {
            name: getattr(configuration, name)
            for name in ("name", "seed", "device", "structures", "space", "functional", "solver")
        }
        # only to label: what it says about its own training is not used
        labelling = Configuration(**shared, training=TrainingOptions(train_count=1))
        data = Run.open(labelling, folder / "data", progress)
        data.generate()
        return cls(
            configuration,
            folder,
            progress,
            data,
            [Outcome(**one) for one in found.get("outcomes", [])],
            [Cost(**one) for one in found.get("costs", [])],
        )

    def train_all(self) -> None:
        """Every training that is not there yet; features are computed once per set of points."""
        samples = list(self.data.data)
        for name, kinds in self.configuration.points.items():
            sets = [kind.points() for kind in kinds]
            pending = list(self._pending(name, sets))
            if not pending:
                continue
            seen, seconds = self._prepared(samples, name, sets)
            with self.progress.stage(f"{name}: trainings", len(pending)) as advance:
                for labels, size, seed in pending:
                    model = self._train(name, sets, seen, labels, size, seed)
                    if all(one.points != name for one in self.costs):
                        last = samples[-1].structure
                        self.costs.append(cost_of(name, model, last, seen[-1], seconds))
                    self._store()
                    advance(1)

    def _pending(self, name: str, sets: Sequence[PointSet]) -> Iterator[tuple[str, int, int]]:
        done = {(one.points, one.labels, one.structures, one.seed) for one in self.outcomes}
        seeds = range(self.configuration.seeds)
        # the largest training first: the costs are measured with its model
        sizes = sorted(self.configuration.sizes, reverse=True)
        for labels, size, seed in product(reversed(LABELS), sizes, seeds):
            with_fields = LABELS[labels][2] > 0
            if with_fields and not sets[0].per_volume:
                continue
            if (name, labels, size, seed) not in done:
                yield labels, size, seed

    def _prepared(
        self, samples: Sequence[Sample], name: str, sets: Sequence[PointSet]
    ) -> tuple[list[StructureData], float]:
        """All structures at a set of points, and the seconds that one of them takes."""
        seen = []
        start = time.process_time()
        with self.progress.stage(f"{name}: features", len(samples)) as advance:
            for sample in samples:
                how = {"with_fields": sets[0].per_volume}
                seen.append(
                    prepare_structure(sample, self._descriptor, sets, self.data.functional, **how)
                )
                advance(1)
        return seen, (time.process_time() - start) / len(samples)

    @property
    def _descriptor(self) -> GMP:
        options = self.configuration.gmp
        return GMP(options.widths, options.max_order, form="smooth")

    def _train(
        self,
        name: str,
        sets: Sequence[PointSet],
        seen: Sequence[StructureData],
        labels: str,
        size: int,
        seed: int,
    ) -> EnergyModel:
        """One training with its outcome."""
        options = self.configuration
        n_training = len(seen) - options.held_out
        order = torch.randperm(n_training, generator=torch.Generator().manual_seed(seed))
        energy, force, fields = LABELS[labels]
        settings = EnergyTrainingSettings(
            hidden=options.hidden,
            energy_weight=energy,
            force_weight=force,
            field_weight=fields,
            steps=_ENDLESS,
            max_seconds=options.seconds,
            learning_rate=options.learning_rate,
            ridge=options.ridge,
            seed=options.seed + seed,
        )
        start = time.process_time()
        model = fit_energy_model(
            [seen[i] for i in order[:size]],
            self._descriptor,
            sets,
            settings,
            self.data.functional,
        )
        epochs = max(model.provenance["steps"], 1) / size
        seconds = (time.process_time() - start) / epochs
        errors = held_out_errors(model, seen[n_training:])
        self.outcomes.append(Outcome(name, labels, size, seed, *errors, seconds, epochs))
        return model

    def _store(self) -> None:
        content = {
            "configuration": self.configuration.model_dump(mode="json"),
            "outcomes": [asdict(one) for one in self.outcomes],
            "costs": [asdict(one) for one in self.costs],
        }
        write_atomically(self.folder / "results.json", json.dumps(content, indent=1))

    def report(self) -> Path:
        """Write the report page."""
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
        return write_reference_points_report(path, options.name, run, self.outcomes, self.costs)
