"""The main job: structures, data, training, held-out evaluation, report; each step resumable.

A run lives in one folder::

    config.yaml   resolved configuration      metrics.json  every number, with its unit
    data/         the data set                report.html   one page to read
    model/        the trained predictor       fields/       VTU files and a PVD for ParaView
    rounds/       active learning, if any: see fedens.jobs.rounds
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from fedens.analysis.crystals import evaluate_sample, quick_errors
from fedens.analysis.evaluation import Evaluation, mean_errors, summarise
from fedens.analysis.uncertainty import agreements
from fedens.configuration import Configuration, load_configuration
from fedens.data.dataset import Dataset
from fedens.data.sample import Sample
from fedens.energy.functional import EnergyFunctional
from fedens.energy.pseudopotential import pseudopotential_from_description
from fedens.errors import ConfigurationError, ConvergenceError, DatasetError
from fedens.features.descriptor import Concatenation, Descriptor
from fedens.features.gmp import GMP
from fedens.features.response import ResponseFields
from fedens.fields import ENERGY_DENSITIES
from fedens.files import write_atomically
from fedens.jobs.rounds import (
    candidates,
    is_added,
    learn_in_rounds,
    model_digest,
    read_rounds,
)
from fedens.models.crystal.model import Predictor
from fedens.models.crystal.prediction import Prediction
from fedens.models.crystal.training import TrainingSettings, resolve_device, train
from fedens.output.vtk import write_pvd, write_vtu
from fedens.progress import Progress
from fedens.reference.orbital_free import OrbitalFreeLabeller
from fedens.report.crystals import write_crystals_report
from fedens.report.slices import density_slices
from fedens.structure import Structure

#: Sections that define the data; a run folder holds data of one choice of them.
_DATA_SECTIONS = ("seed", "structures", "space", "functional", "solver")
_CURVE_SHARE = 4


@dataclass(frozen=True)
class Run:
    """One configuration with its folder.

    Attributes:
        configuration: what to do. folder: where everything goes. progress: shows how far it is.
    """

    configuration: Configuration
    folder: Path
    progress: Progress

    @classmethod
    def open(cls, configuration: Configuration, folder: str | Path, progress: Progress) -> Run:
        """Prepare a run folder, or take one up again.

        Raises:
            ConfigurationError: the folder holds data of another configuration.
            DeviceError: a device that is missing. OutputError: a folder that cannot be written.
        """
        folder = Path(folder)
        resolve_device(configuration.device)
        resolved = folder / "config.yaml"
        if resolved.is_file():
            _refuse_other_data(load_configuration(resolved), configuration, folder)
        configuration.write(resolved)
        return cls(configuration, folder, progress)

    @cached_property
    def functional(self) -> EnergyFunctional:
        """The energy functional the configuration asks for."""
        options = self.configuration.functional
        return EnergyFunctional.orbital_free(
            options.kinetic,
            options.vw_weight,
            options.xc,
            {
                symbol: pseudopotential_from_description(p.model_dump(mode="json"))
                for symbol, p in options.pseudopotentials.items()
            },
            options.gaussian_width,
        )

    @property
    def labeller(self) -> OrbitalFreeLabeller:
        """Ground states as the configuration asks for them."""
        space, solver = self.configuration.space, self.configuration.solver
        return OrbitalFreeLabeller(
            self.functional,
            space.spacing,
            space.order,
            solver.residual_tolerance,
            solver.max_evaluations,
        )

    @cached_property
    def data(self) -> Dataset:
        """The data set of the run."""
        return Dataset.open(self.folder / "data", create=True)

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

    def generate(self) -> dict[str, str]:
        """Label every structure that is not yet in the data set.

        Returns:
            name -> message of those that did not converge; they are not in the data set.
        """
        structures = self.configuration.structures.source().structures(self.configuration.seed)
        candidates(self)  # too few of them should show now, not after the training
        return self.label("reference data", dict(zip(_names(structures), structures, strict=True)))

    def label(self, title: str, structures: Mapping[str, Structure]) -> dict[str, str]:
        """Add structures to the data set by name, those that it does not have.

        Returns:
            name -> message of those that did not converge; they are not in the data set.
        """
        missing = {name: s for name, s in structures.items() if name not in self.data}
        failed: dict[str, str] = {}
        with self.progress.stage(title, len(structures)) as advance:
            advance(len(structures) - len(missing))
            for name, structure in missing.items():
                try:
                    sample = self.labeller(structure)
                    self.data.add(sample, name)
                except ConvergenceError as error:
                    failed[name] = str(error)
                advance(1)
        for name, message in failed.items():
            self.progress.say(f"{name} left out: {message}")
        return failed

    def train(self) -> Predictor:
        """Train on the training samples and in rounds; what has been done is not done again.

        The model folder holds the last model.
        """
        folder = self.folder / "model"
        if not self.configuration.rounds.count:
            return self.trained(self.split[0], self.settings(), folder)
        predictor = learn_in_rounds(self)
        if self._stored(predictor.provenance["key"], folder) is None:
            predictor.save(folder)
        return predictor

    def trained(
        self,
        names: Sequence[str],
        settings: TrainingSettings,
        folder: Path,
        start_from: Predictor | None = None,
    ) -> Predictor:
        """The model of some samples, trained and saved unless the folder holds it already."""
        key = self._model_key(names, settings, start_from)
        predictor = self._stored(key, folder)
        if predictor is not None:
            self.progress.say(f"model is already trained; delete {folder} to train it again")
            return predictor
        if start_from is None:
            # a run without rounds may be given some later: its model is where they begin
            predictor = self._stored(key, self.folder / "model")
        if predictor is None:
            predictor = self._train_on(names, settings, folder / "checkpoints", start_from)
            predictor.provenance["key"] = key
        predictor.save(folder)
        return predictor

    def _stored(self, key: str, folder: Path) -> Predictor | None:
        """The model in a folder, if it is the one of the key."""
        if not (folder / "model.json").is_file():
            return None
        predictor = Predictor.load(folder, resolve_device(self._device))
        return predictor if predictor.provenance.get("key") == key else None

    def _train_on(
        self,
        names: Sequence[str],
        settings: TrainingSettings,
        checkpoint: Path | None,
        start_from: Predictor | None = None,
    ) -> Predictor:
        options = self.configuration.training
        baseline = None if options.baseline == "auto" else options.baseline
        label = f"{len(names)} structures"
        with self.progress.reporter(label) as report:
            predictor = train(
                [self.data[name] for name in names],
                self.descriptor(),
                settings,
                self.functional,
                baseline,
                self._device,
                checkpoint,
                report,
                start_from,
            )
        # as asked for, not as fine as the training cells happened to come out
        return replace(predictor, spacing=self.configuration.space.spacing)

    @property
    def _device(self) -> str:
        return self.configuration.device

    def _model_key(
        self, names: Sequence[str], settings: TrainingSettings, start_from: Predictor | None
    ) -> str:
        """What a trained model depends on, to recognise one that is there already."""
        parts = [list(names), str(settings), self.descriptor().describe()]
        parts.append(self.configuration.training.baseline)
        if start_from is not None:
            parts.append(model_digest(start_from))
        return json.dumps(parts, sort_keys=True)

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
        return TrainingSettings(
            hidden=options.network.hidden,
            committee=options.network.committee,
            steps=options.steps,
            max_seconds=options.max_seconds,
            batch_points=options.batch_points,
            learning_rate=options.learning_rate,
            energy_weight=options.energy_weight,
            force_weight=options.force_weight,
            checkpoint_every=options.checkpoint_every,
            seed=self.configuration.seed,
        )

    def learning_curve(self) -> list[dict[str, float]]:
        """Held-out errors of short trainings on the first structures of the training set."""
        names, held_out = self.split
        sizes = [n for n in self.configuration.training.learning_curve if n < len(names)]
        if not sizes:
            return []
        full = self.settings()
        steps = max(1, full.steps // _CURVE_SHARE)
        limit = None if full.max_seconds is None else full.max_seconds / _CURVE_SHARE
        settings = replace(
            full, committee=1, steps=steps, max_seconds=limit, energy_density_share=0.0
        )
        rows = []
        for size in [*sizes, len(names)]:
            predictor = self._train_on(names[:size], settings, None)
            rows.append({"structures": size, **self.mean_errors(predictor, held_out)})
        return rows

    def mean_errors(self, predictor: Predictor, names: Sequence[str]) -> dict[str, float]:
        """Mean NMAPE and energy error by the functional; no forces, to be quick."""
        return mean_errors(quick_errors(predictor, self.data[name]) for name in names)

    def evaluate(self, predictor: Predictor) -> list[Evaluation]:
        """Compare with every held-out sample; write metrics, report and ParaView files."""
        start = time.monotonic()
        _, names = self.split
        evaluations: list[Evaluation] = []
        entries: list[tuple[float, list[Path]]] = []
        worst, picture = -1.0, b""
        with self.progress.stage("held-out evaluation", len(names)) as advance:
            for index, name in enumerate(names):
                sample = self.data[name]
                evaluation, prediction = evaluate_sample(predictor, sample, name)
                evaluations.append(evaluation)
                if self.configuration.output.fields:
                    entries.append((index, self._write_fields(evaluation, sample, prediction)))
                if evaluation.numbers["nmape_percent"] > worst:
                    worst = evaluation.numbers["nmape_percent"]
                    picture = density_slices(sample, prediction.density.values)
                advance(1)
        if entries:
            write_pvd(self.folder / "fields" / "held_out.pvd", entries)
        curve, rounds = self.learning_curve(), read_rounds(self)
        self._write_metrics(evaluations, curve, rounds, time.monotonic() - start)
        write_crystals_report(
            self.folder / "report.html",
            self.configuration.name,
            predictor.provenance["n_samples"],
            self._what_was_run(predictor),
            evaluations,
            curve,
            rounds,
            predictor.history,
            picture if self.configuration.output.figures else None,
        )
        return evaluations

    def _what_was_run(self, predictor: Predictor) -> dict[str, object]:
        settings, steps = predictor.provenance["settings"], predictor.history["step"]
        return {
            "configuration": self.configuration.name,
            "seed": self.configuration.seed,
            "functional": f"{predictor.functional.kinetic}, {predictor.functional.xc}",
            "space": f"order {predictor.order}, spacing {predictor.spacing:.3f} bohr",
            "descriptors": f"{predictor.descriptor.n_features} features per point",
            "differences learned to": predictor.baseline,
            "networks": f"{settings['committee']} of {list(predictor.hidden)} hidden units",
            "optimiser steps": int(steps[-1]) if steps else 0,
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
        if prediction.spread is not None:
            fields["density_uncertainty"] = prediction.spread.cpu()
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
            "evaluation_seconds": seconds,
        }
        write_atomically(self.folder / "metrics.json", json.dumps(metrics, indent=1))


def _names(structures: Sequence[Structure]) -> list[str]:
    return [f"{index:04d}-{structure.formula}" for index, structure in enumerate(structures)]


def _refuse_other_data(before: Configuration, now: Configuration, folder: Path) -> None:
    old, new = before.model_dump(mode="json"), now.model_dump(mode="json")
    differing: list[Any] = [name for name in _DATA_SECTIONS if old[name] != new[name]]
    if differing:
        raise ConfigurationError(
            f"{folder} holds a run whose {', '.join(differing)} differ from this configuration's: "
            "choose another --output, or delete the folder"
        )
