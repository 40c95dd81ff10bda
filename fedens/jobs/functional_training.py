"""Data and models of the job ``functional``: see :mod:`fedens.jobs.functionals`."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from fedens.configuration import FunctionalsConfiguration
from fedens.configuration.functional_training import AtomsOptions
from fedens.data.dataset import Dataset
from fedens.data.sample import Sample
from fedens.energy.density_variables import DensityVariables
from fedens.energy.functional import EnergyFunctional
from fedens.errors import ConvergenceError, DatasetError
from fedens.features.gmp import GMP
from fedens.features.points import PointSet
from fedens.fem.modes import spacing_for_cutoff
from fedens.jobs.kohn_sham import kohn_sham_labelling
from fedens.jobs.run import Run
from fedens.models.base import Model
from fedens.models.functional.correction import CorrectionSettings, train_correction
from fedens.models.functional.equations import LabelEquations
from fedens.models.functional.fit import KineticFitSettings
from fedens.models.functional.model import FunctionalModel
from fedens.models.functional.training import label_equations, train_functional
from fedens.models.points.objective import EnergyTrainingSettings
from fedens.models.points.training import train_energy_model
from fedens.progress import Report
from fedens.reference.kohn_sham.smearing import Smearing
from fedens.reference.model_potentials.labels import ModelPotentialLabels

#: Methods that learn, each after those that it needs.
LEARNING = ("direct", "delta", "learned", "learned_delta")
_SOURCE = re.compile(r"[a-z]+\d+")


class FunctionalTraining(Run[FunctionalsConfiguration]):
    """A run as far as the training: labels of crystals and model potentials, models."""

    data_sections = ("seed", "structures", "space", "theory")

    # --- data

    @property
    def labelling(self) -> dict[str, Any]:
        """Kohn-Sham ground states."""
        return kohn_sham_labelling(self.configuration.theory, self.configuration.space)

    def generate(self) -> dict[str, str]:
        """Label all cells and the model potentials; returns those that did not converge."""
        _ = self.model_potentials
        # the longest calculations first, so that workers end together
        return self.generate_data(self.configuration.larger_cells() | self.configuration.cells())

    @property
    def split(self) -> tuple[list[str], list[str]]:
        """Names of the small cells to train on, and of those held out."""
        wanted = self.configuration.training.train_count
        names = [name for name in self.data.names if name.startswith("cells")]
        if len(names) <= wanted:
            raise DatasetError(
                f"{self.folder / 'data'} holds {len(names)} small cells, training.train_count is "
                f"{wanted}: at least one must be left to hold out"
            )
        mixed = in_proportion(names, self.configuration.seed)
        return mixed[:wanted], sorted(mixed[wanted:])

    @property
    def larger(self) -> list[str]:
        """Names of the cells that are only evaluated."""
        return [name for name in self.data.names if name.startswith("larger")]

    @cached_property
    def model_potentials(self) -> list[Sample]:
        """Labels without atoms, made unless they are there."""
        labels, folder = self._model_labels, self.folder / "model_potentials"
        inputs = {"labels": labels.describe(), **self.chosen("seed")}
        if self.sections.change("model potentials", inputs):
            self.progress.say("model potentials: made again, their settings have changed")
            shutil.rmtree(folder, ignore_errors=True)
        self.sections.store("model potentials", inputs, None)
        data, names = Dataset.open(folder, create=True), self._model_names
        with self.progress.stage("model potentials", len(names)) as count:
            for name, (kind, index) in names.items():
                if name not in data:
                    data.add(labels.sample(kind, index, self.configuration.seed), name)
                count(1)
        return [data[name] for name in names]

    @property
    def _model_names(self) -> dict[str, tuple[str, int]]:
        """Name -> kind and place of the model potentials that are asked for."""
        counts = self.configuration.training.model_potentials.model_dump(exclude={"densities"})
        return {
            f"{kind}-{index:04d}": (kind, index)
            for kind, count in counts.items()
            for index in range(count)
        }

    @property
    def _model_labels(self) -> ModelPotentialLabels:
        """Smeared as the crystals are, if they are."""
        options, smearing = self.configuration, self.configuration.theory.smearing
        return ModelPotentialLabels(
            options.mean_density,
            Smearing(smearing.width, smearing.kind) if smearing.width else None,
            densities=options.training.model_potentials.densities,
        )

    # --- functionals

    def functional(self, kinetic: str) -> EnergyFunctional:
        """A classical functional for the labels' crystals, with the mean density of the bulk."""
        options = self.configuration
        return EnergyFunctional.orbital_free(
            kinetic,
            xc=options.functional.xc or options.theory.xc,
            pseudopotential=options.local_pseudopotentials,
            gaussian_width=options.theory.gaussian_width,
            mean_density=options.mean_density,
            temperature=options.temperature,
        )

    def model_of(self, kinetic: str) -> FunctionalModel:
        """A classical functional as a model, with nothing learned."""
        mesh = self.configuration.space
        solver = self.configuration.solver
        return FunctionalModel(
            self.functional(kinetic), self._spacing, mesh.order, solver.residual_tolerance
        )

    @cached_property
    def _spacing(self) -> float:
        """Of the models' own meshes, bohr."""
        given = self.configuration.space.spacing
        if given is not None:
            return given
        first = self.data[self.split[0][0]]
        return spacing_for_cutoff(first.provenance["cutoff_hartree"])

    # --- models

    @property
    def folders(self) -> dict[str, Path]:
        """Methods that learn and are asked for -> folder of the model; that of the run is model."""
        asked = self.configuration.comparison.methods
        needed = {self.best, *(name for name in LEARNING if name in asked)}
        needed |= {"learned"} if "learned_delta" in needed else set()
        return {
            name: self.folder / ("model" if name == self.best else f"models/{name}")
            for name in LEARNING
            if name in needed
        }

    @property
    def best(self) -> str:
        """The method whose model is that of the run."""
        return "learned_delta" if self.configuration.training.correction.enabled else "learned"

    def train(self) -> dict[str, Model]:
        """The models by method; what has been done is not done again.

        Without those, but that of the run, of functionals that run away on the training cells.
        """
        names, models = self.split[0], dict[str, Model]()
        for method, folder in self.folders.items():
            fit = partial(self.fit, method, names, models)
            try:
                models[method] = self.model(folder, self.inputs(method, names), fit)
            except ConvergenceError as error:
                if method == self.best:
                    raise
                self.progress.say(f"{method} left out: {error}")
        return models

    def inputs(self, method: str, names: Sequence[str]) -> dict[str, Any]:
        """What a trained model depends on."""
        training = self.configuration.training.model_dump(mode="json")
        direct, correction = training.pop("direct"), training.pop("correction")
        del training["train_count"], correction["enabled"]
        inputs = {"samples": self.checksums(names), **self.chosen("seed")}
        if method == "direct":
            return inputs | {"training.direct": direct}
        kinetic = self.configuration.functional.kinetic if "learned" in method else "wt"
        inputs["functional"] = self.functional(kinetic).describe()
        inputs |= {"spacing": self._spacing, **self.chosen("space", "solver")}
        if "delta" in method:
            inputs["training.correction"] = correction
        if "learned" in method:
            inputs |= {"training": training, "model potentials": self._model_labels.describe()}
        return inputs

    def fit(self, method: str, names: Sequence[str], models: dict[str, Model]) -> Model:
        """Train one; ``models`` holds those that it needs."""
        samples = [self.data[name] for name in names]
        with self.progress.reporter(f"{method}, {len(names)} cells") as report:
            if method == "direct":
                return self._direct(samples, report)
            if method == "learned":
                crystals = names if self.configuration.training.crystals else ()
                labels = {name: self.data[name] for name in crystals}
                potentials = dict(zip(self._model_names, self.model_potentials, strict=True))
                return self._learned(labels | potentials, report)
            base = self.model_of("wt") if method == "delta" else models["learned"]
            assert isinstance(base, FunctionalModel)
            return self._corrected(base, samples, report)

    def _direct(self, samples: Sequence[Sample], report: Report) -> Model:
        options, atoms = self.configuration.training.direct, [PointSet("atoms")]
        gmp = GMP(options.gmp.widths, options.gmp.max_order, form="smooth")
        settings = self._atom_settings(options)
        return train_energy_model(samples, gmp, atoms, settings, report=report)

    def _corrected(
        self, base: FunctionalModel, samples: Sequence[Sample], report: Report
    ) -> FunctionalModel:
        options = self.configuration.training.correction
        settings = CorrectionSettings(
            GMP(options.gmp.widths, options.gmp.max_order, form="squared"),
            replace(self._atom_settings(options), ridge=None, with_stress=True),
        )
        correction = train_correction(samples, base.functional, settings, report)
        provenance = {**base.provenance, "n_samples": len(samples)}
        return replace(base, correction=correction, provenance=provenance)

    @cached_property
    def _known_equations(self) -> dict[str, LabelEquations]:
        """Those of labels by name, for the learning curve's smaller sets."""
        return {}

    def _atom_settings(self, options: AtomsOptions) -> EnergyTrainingSettings:
        chosen = options.model_dump(exclude={"enabled", "gmp"})
        return EnergyTrainingSettings(seed=self.configuration.seed, **chosen)

    def _learned(self, labels: Mapping[str, Sample], report: Report) -> Model:
        options, kinetic = self.configuration.training, self.configuration.functional.kinetic
        settings = KineticFitSettings(
            DensityVariables(**options.variables.model_dump()),
            **options.model_dump(include={"degree", "ridge", "energy_error", "model_weight"}),
        )
        functional = self.functional(kinetic)
        known = self._known_equations
        equations = label_equations(labels, functional, settings, report, known)
        model = train_functional(
            equations,
            functional,
            settings,
            spacing=self._spacing,
            order=self.configuration.space.order,
        )
        return replace(
            model,
            residual_tolerance=self.configuration.solver.residual_tolerance,
            provenance={**model.provenance, "n_samples": len(labels)},
        )


def in_proportion(names: Sequence[str], seed: int) -> list[str]:
    """Names such that every beginning holds of each source its share, drawn at random.

    The source of a cell is what its name begins with, such as ``cells0``.
    """
    sources: dict[str, list[str]] = {}
    for name in sorted(names):
        found = _SOURCE.match(name)
        sources.setdefault(found[0] if found else "", []).append(name)
    random = np.random.default_rng(seed)
    places = {
        str(name): (rank + 0.5) / len(own)
        for own in sources.values()
        for rank, name in enumerate(random.permutation(own))
    }
    return sorted(places, key=lambda name: places[name])
