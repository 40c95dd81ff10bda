"""The main job: structures, data, training, held-out evaluation, report.

Beside what every run's folder holds (:mod:`fedens.jobs.run`)::

    metrics.json   every number, with its unit
    rounds/        active learning, if any: see fedens.jobs.rounds
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedens.analysis.crystals import evaluate_sample, quick_errors
from fedens.analysis.evaluation import Evaluation, mean_errors, summarise
from fedens.analysis.uncertainty import agreements
from fedens.configuration import Configuration
from fedens.configuration.theory import KohnShamOptions
from fedens.data.sample import Sample
from fedens.data.sampling import describe_samplings
from fedens.errors import DatasetError
from fedens.features.descriptor import Concatenation, Descriptor
from fedens.features.gmp import GMP
from fedens.features.response import ResponseFields
from fedens.fields import ENERGY_DENSITIES
from fedens.jobs.kohn_sham import kohn_sham_labelling
from fedens.jobs.orbital_free import OrbitalFreeRun
from fedens.jobs.run import Section
from fedens.jobs.summary import HELD_OUT_FIELDS, REPORT, Summary
from fedens.models.crystal.model import Predictor
from fedens.models.crystal.objective import TrainingSettings
from fedens.models.crystal.prediction import Prediction
from fedens.models.crystal.training import train
from fedens.output.vtk import write_vtu
from fedens.report.crystals import write_crystals_report
from fedens.report.sections import summary_table
from fedens.report.slices import density_slices

Array = NDArray[np.float64]

_CURVE_SHARE = 4
#: Of a level in the density of states, hartree.
_STATES_WIDTH = 0.01
_ADDED = re.compile(r"round\d+-")


def is_added(name: str) -> bool:
    """Whether a sample's name says that a round of active learning has added it."""
    return _ADDED.match(name) is not None


class CrystalsRun(OrbitalFreeRun[Configuration]):
    """Learns the density and the energy densities of crystals."""

    @property
    def _kohn_sham(self) -> bool:
        return isinstance(self.configuration.theory, KohnShamOptions)

    @property
    def data_sections(self) -> tuple[str, ...]:
        if self._kohn_sham:
            return ("seed", "structures", "space", "theory")
        return ("theory", *super().data_sections)

    @property
    def labelling(self) -> dict[str, Any]:
        theory = self.configuration.theory
        if isinstance(theory, KohnShamOptions):
            return kohn_sham_labelling(theory, self.configuration.space)
        return super().labelling

    @property
    def split(self) -> tuple[list[str], list[str]]:
        """Names of the samples to train on, before any rounds, and of those held out."""
        wanted = self.configuration.training.train_count
        names = [name for name in self.data.names if not is_added(name)]
        if len(names) <= wanted:
            raise DatasetError(
                f"{self.folder / 'data'} holds {len(names)} samples, training.train_count is "
                f"{wanted}: at least one must be left to hold out"
            )
        return self.data.split(wanted, self.configuration.seed, names)

    def train(self) -> Predictor:
        """Train on the training samples; what has been done is not done again."""
        return self.trained(self.split[0], self.settings(), self.folder / "model")

    def rounds(self) -> list[dict[str, Any]]:
        """One row per round of active learning."""
        return []

    def trained(
        self,
        names: Sequence[str],
        settings: TrainingSettings,
        folder: Path,
        start_from: Predictor | None = None,
    ) -> Predictor:
        """The model of some samples, trained and saved unless the folder holds it already."""
        inputs: dict[str, Any] = {"samples": self.checksums(names), **self._learning(settings)}
        if start_from is not None:
            inputs["first model"] = start_from.provenance["key"]
        return self.model(
            folder,
            inputs,
            lambda: self._train_on(names, settings, folder / "checkpoints", start_from),
            # a run without rounds may be given some later: its model is where they begin
            self.folder / "model" if start_from is None else None,
        )

    def _learning(self, settings: TrainingSettings) -> dict[str, Any]:
        """What a trained model depends on beside samples and first weights."""
        wanted = asdict(settings)
        del wanted["checkpoint_every"]
        inputs = {
            "settings": wanted,
            "descriptors": self.descriptor().describe(),
            **self.chosen("training.baseline"),
        }
        # elsewhere the data say which it is
        return inputs | (self.chosen("functional") if self._kohn_sham else {})

    def _train_on(
        self,
        names: Sequence[str],
        settings: TrainingSettings,
        checkpoint: Path | None,
        start_from: Predictor | None = None,
    ) -> Predictor:
        options = self.configuration.training
        baseline = None if options.baseline == "auto" else options.baseline
        with self.progress.reporter(f"{len(names)} structures") as report:
            predictor = train(
                [self.data[name] for name in names],
                self.descriptor(),
                settings,
                self.functional if self.configuration.functional else None,
                baseline,
                self.configuration.device,
                checkpoint,
                report,
                start_from,
            )
        # as asked for, not as fine as the training cells happened to come out
        spacing = self.configuration.space.spacing
        return predictor if spacing is None else replace(predictor, spacing=spacing)

    def descriptor(self) -> Descriptor:
        """The descriptors the configuration asks for."""
        options = self.configuration.training.descriptors
        parts: list[Descriptor] = [GMP(options.gmp.widths, options.gmp.max_order, form="smooth")]
        if options.response_fields:
            parts.append(ResponseFields(self.functional))
        return Concatenation(parts)

    def settings(self) -> TrainingSettings:
        """Training settings of the configuration."""
        options = self.configuration.training
        other = {"train_count", "descriptors", "network", "baseline", "learning_curve"}
        return TrainingSettings(
            hidden=options.network.hidden,
            committee=options.network.committee,
            seed=self.configuration.seed,
            **options.model_dump(exclude=other),
        )

    def learning_curve(self) -> list[dict[str, float]]:
        """Held-out errors of short trainings on the first structures of the training set."""
        names, _ = self.split
        sizes = [n for n in self.configuration.training.learning_curve if n < len(names)]
        if not sizes:
            return []
        full = self.settings()
        steps = max(1, full.steps // _CURVE_SHARE)
        limit = None if full.max_seconds is None else full.max_seconds / _CURVE_SHARE
        settings = replace(
            full, committee=1, steps=steps, max_seconds=limit, energy_density_share=0.0
        )
        return [self._curve_row(names[:size], settings) for size in [*sizes, len(names)]]

    def _curve_row(self, names: Sequence[str], settings: TrainingSettings) -> dict[str, float]:
        inputs = {"samples": self.checksums(names), **self._learning(settings)}
        inputs["held-out samples"] = self.checksums(self.split[1])
        errors = self.once(
            f"learning curve, {len(names)} structures",
            Section(
                inputs,
                lambda: self.mean_errors(self._train_on(names, settings, None), self.split[1]),
            ),
        )
        return {"structures": len(names), **errors}

    def mean_errors(self, predictor: Predictor, names: Sequence[str]) -> dict[str, float]:
        """Mean NMAPE and energy error by the functional; no forces, to be quick."""
        return mean_errors(quick_errors(predictor, self.data[name]) for name in names)

    def compared(self) -> Summary:
        """Compare with every held-out sample; write metrics, report and ParaView files."""
        predictor, curve = self.train(), self.learning_curve()
        files = ["metrics.json", REPORT]
        files += [HELD_OUT_FIELDS] * self.configuration.output.fields
        inputs = {
            "model": predictor.provenance["key"],
            "held-out samples": self.checksums(self.split[1]),
            "learning curve": curve,
            "rounds": self.rounds(),
            **self.chosen("output"),
        }
        section = Section(inputs, lambda: self._compared(predictor, curve), files)
        return self.summarised("held-out evaluation", section)

    def _compared(self, predictor: Predictor, curve: list[dict[str, float]]) -> Summary:
        start = time.monotonic()
        pictures: dict[float, bytes] = {}

        def compare(_: int, name: str) -> tuple[Evaluation, Sequence[Path]]:
            sample = self.data[name]
            evaluation, prediction = evaluate_sample(predictor, sample, name)
            error = evaluation.numbers["nmape_percent"]
            if error > max(pictures, default=-1.0):
                pictures.clear()
                pictures[error] = density_slices(sample, prediction.density.values)
            fields = self.configuration.output.fields
            return evaluation, self._write_fields(evaluation, sample, prediction) if fields else []

        evaluations = self.compare_each("held-out evaluation", self.split[1], compare)
        rounds = self.rounds()
        self._write_metrics(evaluations, curve, rounds, time.monotonic() - start)
        output = self.configuration.output
        write_crystals_report(
            self.folder / REPORT,
            self.configuration.name,
            predictor.provenance["n_samples"],
            self._what_was_run(predictor),
            evaluations,
            curve,
            rounds,
            predictor.history,
            next(iter(pictures.values())) if output.figures else None,
            self._states(),
        )
        return Summary(summary_table(f"{len(evaluations)} held-out structures", evaluations))

    def _states(self) -> tuple[str, Array, Array, float] | None:
        """The density of states of the first held-out sample, where the data have bands."""
        name = self.split[1][0]
        bands = self.data[name].bands
        if bands is None:
            return None
        low, high = bands.eigenvalues.min() - 4 * _STATES_WIDTH, bands.eigenvalues[:, -1].min()
        energies = np.linspace(low, high, 400)
        states = bands.density_of_states(energies, _STATES_WIDTH)
        return name, energies, states, bands.chemical_potential

    def _what_was_run(self, predictor: Predictor) -> dict[str, object]:
        settings, steps = predictor.provenance["settings"], predictor.history["step"]
        functional = predictor.functional
        return {
            "configuration": self.configuration.name,
            "seed": self.configuration.seed,
            **self._data_words(),
            "functional": f"{functional.kinetic}, {functional.xc}" if functional else "none",
            "space": f"order {predictor.order}, spacing {predictor.spacing:.3f} bohr",
            "descriptors": f"{predictor.descriptor.n_features} features per point",
            "differences learned to": predictor.baseline.kind,
            "networks": f"{settings['committee']} of {list(predictor.hidden)} hidden units",
            "optimiser steps": int(steps[-1]) if steps else 0,
        }

    def _data_words(self) -> dict[str, str]:
        """Theory, k-points and smearing of Kohn-Sham data."""
        theory = self.configuration.theory
        if not isinstance(theory, KohnShamOptions):
            return {}
        index = self.data.index.values()
        return {
            "data": f"Kohn-Sham, {theory.xc}",
            **describe_samplings(entry["sampling"] for entry in index),
        }

    def _write_fields(
        self, evaluation: Evaluation, sample: Sample, prediction: Prediction
    ) -> list[Path]:
        reference = {name: torch.tensor(values) for name, values in sample.fields.items()}
        predicted = {"density": prediction.density.values, **prediction.energy_densities}
        fields = {}
        for name in ("density", *ENERGY_DENSITIES):
            fields[f"{name}_reference"] = reference[name]
            fields[f"{name}_predicted"] = predicted[name].cpu()
            fields[f"{name}_error"] = predicted[name].cpu() - reference[name]
        if prediction.density_uncertainty is not None:
            fields["density_uncertainty"] = prediction.density_uncertainty.cpu()
        forces = {f"forces_{route}": f for route, f in evaluation.forces.items()}
        for route, uncertainty in evaluation.force_uncertainties.items():
            forces[f"forces_{route}_uncertainty"] = uncertainty
        return write_vtu(
            self.folder / "fields" / f"{evaluation.name}.vtu",
            sample.space(),
            fields,
            sample.structure,
            subdivisions=self.configuration.output.subdivisions,
            atom_fields=forces,
        )

    def _write_metrics(
        self,
        evaluations: Sequence[Evaluation],
        curve: list[dict[str, float]],
        rounds: list[dict[str, Any]],
        seconds: float,
    ) -> None:
        train_names, held_out = self.split
        metrics = {
            "held_out": summarise(evaluations),
            "uncertainties": agreements(evaluations),
            "per_structure": {e.name: {"formula": e.formula, **e.numbers} for e in evaluations},
            "learning_curve": curve,
            "rounds": rounds,
            "training_structures": [*train_names, *(n for row in rounds for n in row["added"])],
            "held_out_structures": held_out,
            "left_out": self.failures,
            "evaluation_seconds": seconds,
        }
        self.write_json("metrics.json", metrics)
