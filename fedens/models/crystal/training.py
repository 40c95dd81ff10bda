"""Training of pointwise models on samples, element by element, with checkpoints and resume.

First the root density is learned as a difference to a baseline, then the energy densities as
differences to the known functional at the predicted density. Networks see whole elements of the
mesh, so that the gradient of the error is known inside each. The loss of the root density is the
squared error plus a multiple of the squared gradient of the error: to second order that is what a
density error costs in energy, where the von Weizsaecker term makes roughness dear.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from fedens.atoms.baseline import default_baseline
from fedens.data.sample import Sample
from fedens.energy.functional import EnergyFunctional
from fedens.errors import DeviceError, ModelError
from fedens.features.descriptor import Descriptor
from fedens.fields import ENERGY_DENSITIES
from fedens.files import write_atomically
from fedens.learning.domain import TrainingDomain
from fedens.learning.pointwise import FieldNetwork, PointwiseNetwork
from fedens.models.crystal.calibration import left_out_calibration
from fedens.models.crystal.data import TrainingData, energy_density_targets, sample_field
from fedens.models.crystal.losses import EnergyDensityLoss, RootDensityLoss
from fedens.models.crystal.model import Predictor
from fedens.models.crystal.structure_loss import StructureLoss
from fedens.progress import Advance, Report, silent

_WARM_UP_STEPS = 100
_LAST_RATE = 1e-3
_RECORD_EVERY = 50
_VALIDATION_SHARE = 0.03


@dataclass(frozen=True)
class TrainingSettings:
    """How to train.

    Attributes:
        hidden: units of the hidden layers.
        committee: number of networks. Each has its own seed and leaves out its share of the
            structures, which then show its errors and calibrate the uncertainty.
        steps: optimiser steps per network. max_seconds: end sooner after this time per network.
        batch_points: points per step, in whole elements.
        learning_rate: highest rate of AdamW; it warms up, then falls along a cosine.
        gradient_weight: weight of |grad error|^2 against error^2 for the root density, bohr^2.
            Half of it is about the ratio in which they enter the energy of a simple metal.
        energy_density_share: steps for the energy densities, relative to ``steps``.
        integral_weight: weight of the squared error of the summed energy densities' mean over an
            element against the squared error at points: what counts for the total energy.
        energy_weight: weight of the functional's energy at the predicted density, above that of
            the reference, per volume and in units of the targets' spread squared.
        force_weight: weight of the squared error of the Hellmann-Feynman forces, (hartree/bohr)^2
            in units of the targets' spread squared.
        structure_every: steps between those that add the two terms of whole structures.
        checkpoint_every: steps between checkpoints. seed: of weights and batches.
    """

    hidden: tuple[int, ...] = (64, 64)
    committee: int = 4
    steps: int = 2000
    max_seconds: float | None = None
    batch_points: int = 8192
    learning_rate: float = 3e-3
    gradient_weight: float = 0.5
    energy_density_share: float = 0.2
    integral_weight: float = 10.0
    energy_weight: float = 0.0
    force_weight: float = 0.0
    structure_every: int = 20
    checkpoint_every: int = 500
    seed: int = 0


def resolve_device(name: str) -> torch.device:
    """``auto``, ``cpu`` or ``cuda`` as a torch device.

    Raises:
        DeviceError: a device that this machine lacks.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name not in ("cpu", "cuda"):
        raise DeviceError(f"device is {name!r}; expected 'auto', 'cpu' or 'cuda'")
    if name == "cuda" and not torch.cuda.is_available():
        raise DeviceError("device 'cuda' was asked for, but torch finds no GPU here; use 'auto'")
    return torch.device(name)


def train(
    samples: Sequence[Sample],
    descriptor: Descriptor,
    settings: TrainingSettings | None = None,
    functional: EnergyFunctional | None = None,
    baseline: str | None = None,
    device: str = "auto",
    checkpoint: str | Path | None = None,
    report: Report = silent,
    start_from: Predictor | None = None,
) -> Predictor:
    """Train a predictor of density and energy densities on samples.

    Args:
        samples: with ``density`` on a TensorSpace and, all of them or none, energy densities.
            Without them, as in imported data, the density alone is learned.
        functional: the parent functional; default the one in the samples' provenance. For data
            whose functional is not known, one with as many electrons: it gives the baseline.
        baseline: ``relaxed_response``, ``linear_response`` or ``superposed_atoms``, see
            :func:`fedens.atoms.baseline.baseline_density`; default the first for periodic
            structures, the second for isolated ones.
        device: ``auto``, ``cpu`` or ``cuda``.
        checkpoint: folder for checkpoints; a training that was cut off goes on from there when
            it is called again with the same samples and settings.
        report: called as training goes on.
        start_from: a trained predictor whose weights to start from. It keeps its scaling of
            features and targets, so that they keep their meaning. Where it comes from a
            committee, put its samples first and in the same order: each member then goes on
            leaving out the structures it has not seen.

    Raises:
        ModelError: samples that do not fit together, or have other numbers of electrons than
            the functional; ``start_from`` of another kind.
        DeviceError: a missing device.
    """
    if not samples:
        raise ModelError("no samples to train on")
    density_alone = not any(name in s.fields for s in samples for name in ENERGY_DENSITIES)
    for sample in samples:
        for name in ("density", *(() if density_alone else ENERGY_DENSITIES)):
            sample_field(sample, name)  # rather now than after an hour
    settings = settings or TrainingSettings()
    target = resolve_device(device)
    functional = functional or _functional_of(samples)
    _check_electrons(samples, functional)
    baseline = baseline or default_baseline(samples[0].structure, functional)
    if start_from is not None:
        _check_same_kind(start_from, descriptor, settings, functional, baseline)

    def described(done: int) -> None:
        report(Advance("descriptors", done, len(samples)))

    data = TrainingData.from_samples(
        samples, descriptor, functional, baseline, target, described, start_from
    )
    spacing = max(sample.tensor_space().finest_spacing for sample in samples)
    predictor = Predictor(
        descriptor=descriptor,
        scaling=data.scaling,
        networks=[network.to(target) for network in _networks(descriptor, settings, start_from)],
        target_scales=torch.cat([data.target_scales, data.target_scales.new_zeros(3)]),
        functional=functional,
        baseline=baseline,
        spacing=spacing,
        order=data.order,
        hidden=settings.hidden,
        domain=TrainingDomain.of(data.features, [sample.structure for sample in samples]),
        provenance={
            "settings": asdict(settings),
            "n_samples": len(samples),
            "formulas": [sample.structure.formula for sample in samples],
        },
    )
    start = _Start.of(samples, start_from, checkpoint)
    whole = StructureLoss.of(samples, predictor, settings.energy_weight, settings.force_weight)
    _train_root_densities(predictor, data, whole, settings, start, report)
    if not density_alone:
        scales = None if start_from is None else start_from.target_scales[1:].to(target)
        data = data.with_targets(energy_density_targets(samples, predictor), scales)
        _train_energy_densities(predictor, data, settings, start, report)
    if start_from is not None:
        predictor.history.update(_joined(start_from.history, predictor.history))
    return replace(predictor, calibration=left_out_calibration(predictor, samples))


def _check_electrons(samples: Sequence[Sample], functional: EnergyFunctional) -> None:
    for sample in samples:
        expected = functional.number_of_electrons(sample.structure)
        if abs(sample.number_of_electrons - expected) > 0.5:
            raise ModelError(
                f"sample {sample.structure.formula} holds {sample.number_of_electrons:.4f} "
                f"electrons, the functional's pseudopotentials make it {expected:g}: choose some "
                "of the same valence"
            )


def _check_same_kind(
    start_from: Predictor,
    descriptor: Descriptor,
    settings: TrainingSettings,
    functional: EnergyFunctional,
    baseline: str,
) -> None:
    asked: dict[str, tuple[Any, Any]] = {
        "descriptor": (start_from.descriptor.describe(), descriptor.describe()),
        "hidden units": (list(start_from.hidden), list(settings.hidden)),
        "committee": (len(start_from.networks), settings.committee),
        "functional": (start_from.functional.describe(), functional.describe()),
        "baseline": (start_from.baseline, baseline),
    }
    for name, (there, wanted) in asked.items():
        if there != wanted:
            raise ModelError(
                f"cannot start from this predictor: its {name} is {there}, asked for is {wanted}"
            )


def _networks(
    descriptor: Descriptor, settings: TrainingSettings, start_from: Predictor | None
) -> list[FieldNetwork]:
    if start_from is not None:
        return [copy.deepcopy(network) for network in start_from.networks]
    return [
        FieldNetwork(descriptor.n_features, settings.hidden, len(ENERGY_DENSITIES))
        for _ in range(settings.committee)
    ]


def _joined(
    before: dict[str, list[float]], after: dict[str, list[float]]
) -> dict[str, list[float]]:
    """Two histories as one, with the steps counted on."""
    done = before["step"][-1] if before["step"] else 0
    after = after | {"step": [done + step for step in after["step"]]}
    return {name: before[name] + after[name] for name in after}


@dataclass(frozen=True)
class _Start:
    """Where a training begins.

    Attributes:
        fresh: whether from new weights. identity: of samples and first weights.
        checkpoints: folder to go on from, if it holds a training of this identity.
    """

    fresh: bool
    identity: str
    checkpoints: Path | None

    @classmethod
    def of(
        cls, samples: Sequence[Sample], start_from: Predictor | None, folder: str | Path | None
    ) -> _Start:
        digest = hashlib.sha256(repr([sample.energy for sample in samples]).encode())
        for sample in samples:
            if sample.energy is None:
                digest.update(sample.fields["density"].tobytes())
        for network in start_from.networks if start_from is not None else ():
            for weights in network.parameters():
                digest.update(weights.detach().cpu().numpy().tobytes())
        checkpoints = None if folder is None else Path(folder)
        return cls(start_from is None, digest.hexdigest(), checkpoints)


def _train_root_densities(
    predictor: Predictor,
    data: TrainingData,
    whole: StructureLoss | None,
    settings: TrainingSettings,
    start: _Start,
    report: Report,
) -> None:
    loss_of = RootDensityLoss(data.order, settings.gradient_weight, data.features.device)
    for member, network in enumerate(predictor.networks):
        label = f"root density {member}"
        trainer = _Trainer(
            label, network.root_density, data, loss_of, settings, member, start, whole
        )
        history = trainer.run(report)
        if member == 0:
            predictor.history.update(history)


def _train_energy_densities(
    predictor: Predictor,
    data: TrainingData,
    settings: TrainingSettings,
    start: _Start,
    report: Report,
) -> None:
    """Learn what the functional's energy densities at the predicted density lack."""
    predictor.target_scales[1:] = data.target_scales
    share = settings.energy_density_share
    limit = None if settings.max_seconds is None else share * settings.max_seconds
    settings = replace(settings, steps=max(1, round(share * settings.steps)), max_seconds=limit)
    loss_of = EnergyDensityLoss(data.target_scales, settings.integral_weight)
    for member, network in enumerate(predictor.networks):
        label = f"energy densities {member}"
        _Trainer(label, network.energy_densities, data, loss_of, settings, member, start).run(
            report
        )


def _functional_of(samples: Sequence[Sample]) -> EnergyFunctional:
    descriptions = [sample.provenance.get("functional") for sample in samples]
    if descriptions[0] is None or any(d != descriptions[0] for d in descriptions):
        raise ModelError(
            "samples come from different functionals, or do not name theirs: train on data of "
            "one functional, or pass functional="
        )
    return EnergyFunctional.from_description(descriptions[0])


@dataclass(eq=False)
class _Trainer:
    """One network's training, which can be cut off and taken up again."""

    label: str
    network: PointwiseNetwork
    data: TrainingData
    loss_of: Callable[[Tensor, Tensor, Tensor], Tensor]
    settings: TrainingSettings
    member: int
    begin: _Start
    whole: StructureLoss | None = None
    history: dict[str, list[float]] = field(
        default_factory=lambda: {"step": [], "training_loss": [], "validation_loss": []}
    )
    step: int = 0
    seconds: float = 0.0

    def run(self, report: Report) -> dict[str, list[float]]:
        """Train the network in place; returns the history."""
        from lightning_fabric import Fabric

        fabric = Fabric(accelerator=self.data.features.device.type, devices=1)
        network, optimiser = fabric.setup(self.network, self._start())
        training, validation = self._split()
        start = time.monotonic() - self.seconds
        while self.step < self.settings.steps:
            progress = self._progress(time.monotonic() - start)
            if progress >= 1:
                break
            for group in optimiser.param_groups:
                group["lr"] = self._rate(progress)
            loss = self._loss(network, self._batch(training))
            if self.whole is not None and self.step % self.settings.structure_every == 0:
                loss = loss + self._loss_of_structure(network, self.whole)
            optimiser.zero_grad()
            fabric.backward(loss)
            optimiser.step()
            self.step += 1
            self.seconds = time.monotonic() - start
            if self.step % _RECORD_EVERY == 0 or self.step == self.settings.steps:
                self._record(network, loss, validation)
                report(self._state(float(loss.detach())))
            if self.step % self.settings.checkpoint_every == 0:
                self._save(optimiser)
        self._save(optimiser)
        return self.history

    def _state(self, loss: float) -> Advance:
        return Advance(self.label, self.step, self.settings.steps, loss)

    def _start(self) -> torch.optim.Optimizer:
        """Weights from the last checkpoint, or where the training begins; their optimiser."""
        torch.manual_seed(self.settings.seed + 1000 * self.member)
        resumed = self._load()
        if resumed is None and self.begin.fresh:
            self._initialise()
        optimiser = torch.optim.AdamW(
            self.network.parameters(), lr=self.settings.learning_rate, weight_decay=0.0
        )
        if resumed is not None:
            _restore_moments(optimiser, self.network, resumed, self.step)
        return optimiser

    def _initialise(self) -> None:
        """New weights, the linear part from ridge regression."""
        for module in self.network.modules():
            if isinstance(module, torch.nn.Linear):
                module.reset_parameters()
        self.network.start_from_ridge(self._chunks())

    @property
    def _folder(self) -> Path | None:
        name = self.label.replace(" ", "-")
        return None if self.begin.checkpoints is None else self.begin.checkpoints / name

    def _chunks(self) -> Iterator[tuple[Tensor, Tensor]]:
        for features, targets in zip(
            self.data.features.split(64), self.data.targets.split(64), strict=True
        ):
            yield features.flatten(0, 1), targets.flatten(0, 1)

    def _split(self) -> tuple[Tensor, Tensor]:
        """Elements to train on and a few to validate with; the same for every run of a seed.

        A member of a committee validates with the structures it leaves out.
        """
        generator = torch.Generator().manual_seed(self.settings.seed)
        order = torch.randperm(len(self.data), generator=generator)
        n_validation = max(1, int(_VALIDATION_SHARE * len(order)))
        left_out = self.data.left_out(self.member, self.settings.committee)
        if not left_out:
            return order[n_validation:], order[:n_validation]
        held = torch.isin(self.data.owners[order], torch.tensor(left_out))
        return order[~held], order[held][:n_validation]

    def _progress(self, seconds: float) -> float:
        limit = self.settings.max_seconds
        return max(self.step / self.settings.steps, seconds / limit if limit else 0.0)

    def _rate(self, progress: float) -> float:
        warm = min(1.0, (self.step + 1) / _WARM_UP_STEPS)
        fall = 0.5 * (1 + math.cos(math.pi * progress))
        return self.settings.learning_rate * warm * max(fall, _LAST_RATE)

    def _batch(self, choices: Tensor) -> Tensor:
        """Elements of one step, a function of seed and step alone, so that resuming is exact."""
        seed = hash((self.settings.seed, self.member, self.step)) % 2**63
        generator = torch.Generator().manual_seed(seed)
        size = max(1, round(self.settings.batch_points / self.data.features.shape[1]))
        return choices[torch.randint(len(choices), (size,), generator=generator)]

    def _loss(self, network: torch.nn.Module, index: Tensor) -> Tensor:
        data = self.data
        index = index.to(data.features.device)
        error = network(data.features[index]) - data.targets[index]
        return self.loss_of(error, data.weights[index], data.lengths[index])

    def _loss_of_structure(self, network: torch.nn.Module, whole: StructureLoss) -> Tensor:
        """The terms of one whole structure that this member may see, in turn."""
        left_out = self.data.left_out(self.member, self.settings.committee)
        seen = [i for i in range(len(whole)) if i not in left_out]
        index = seen[self.step // self.settings.structure_every % len(seen)]
        return whole(index, network(self.data.features[self.data.owners == index]))

    def _record(self, network: torch.nn.Module, loss: Tensor, validation: Tensor) -> None:
        with torch.no_grad():
            held_out = self._loss(network, validation)
        self.history["step"].append(self.step)
        self.history["training_loss"].append(float(loss.detach()))
        self.history["validation_loss"].append(float(held_out))

    def _save(self, optimiser: torch.optim.Optimizer) -> None:
        """A checkpoint: weights and optimiser moments as safetensors, the rest as JSON."""
        if self._folder is None:
            return
        tensors = {f"weights.{k}": v for k, v in self.network.state_dict().items()}
        names = [name for name, _ in self.network.named_parameters()]
        for name, state in zip(names, optimiser.state_dict()["state"].values(), strict=False):
            tensors |= {f"{key}.{name}": state[key] for key in ("exp_avg", "exp_avg_sq")}
        tensors = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
        name = f"checkpoint-{self.step}.safetensors"
        write_atomically(self._folder / name, lambda path: save_file(tensors, path))
        record = {
            "file": name,
            "step": self.step,
            "seconds": self.seconds,
            "settings": asdict(self.settings),
            "identity": self.begin.identity,
            "history": self.history,
        }
        write_atomically(self._folder / "checkpoint.json", json.dumps(record))
        for old in self._folder.glob("checkpoint-*.safetensors"):
            if old.name != name:
                old.unlink()

    def _load(self) -> dict[str, Tensor] | None:
        """Tensors of the last checkpoint, if there is one of this data and these settings."""
        if self._folder is None or not (self._folder / "checkpoint.json").is_file():
            return None
        record = json.loads((self._folder / "checkpoint.json").read_text())
        if record["settings"] != json.loads(json.dumps(asdict(self.settings))):
            return None
        if record.get("identity") != self.begin.identity:
            return None
        tensors = load_file(self._folder / record["file"])
        weights = {k.removeprefix("weights."): v for k, v in tensors.items() if "weights." in k}
        self.network.load_state_dict(weights)
        self.step, self.seconds = record["step"], record["seconds"]
        self.history = record["history"]
        return tensors


def _restore_moments(
    optimiser: torch.optim.Optimizer,
    network: torch.nn.Module,
    tensors: dict[str, Tensor],
    step: int,
) -> None:
    for name, parameter in network.named_parameters():
        if f"exp_avg.{name}" in tensors:
            optimiser.state[parameter] = {
                "step": torch.tensor(float(step)),
                "exp_avg": tensors[f"exp_avg.{name}"].to(parameter),
                "exp_avg_sq": tensors[f"exp_avg_sq.{name}"].to(parameter),
            }
