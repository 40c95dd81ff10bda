"""Training of pointwise models on samples, element by element, with checkpoints and resume.

Networks see whole elements of the mesh, so that the gradient of the error is known inside each.
The loss of the root density is the squared error plus a multiple of the squared gradient of the
error: to second order that is what a density error costs in energy, where the von Weizsaecker
term makes roughness dear.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from fedens.baseline import baseline_density, default_baseline
from fedens.energy.functional import EnergyFunctional
from fedens.errors import DeviceError, ModelError
from fedens.features.descriptor import Descriptor
from fedens.features.scaling import Standardise
from fedens.fem.tensor import TensorSpace
from fedens.files import write_atomically
from fedens.models.pointwise import FieldNetwork
from fedens.models.predictor import Predictor
from fedens.sample import ENERGY_DENSITIES, Sample

_WARM_UP_STEPS = 100
_LAST_RATE = 1e-3
_RECORD_EVERY = 50
_VALIDATION_SHARE = 0.03


@dataclass(frozen=True)
class TrainingSettings:
    """How to train.

    Attributes:
        hidden: units of the hidden layers. committee: number of networks, each its own seed.
        steps: optimiser steps per network. max_seconds: end sooner after this time per network.
        batch_points: points per step, in whole elements.
        learning_rate: highest rate of AdamW; it warms up, then falls along a cosine.
        gradient_weight: weight of |grad error|^2 against error^2 for the root density, bohr^2.
            Half of it is about the ratio in which they enter the energy of a simple metal.
        integral_weight: weight of the squared error of the summed energy densities' mean over an
            element against the squared error at points: what counts for the total energy.
        checkpoint_every: steps between checkpoints. seed: of weights and batches.
    """

    hidden: tuple[int, ...] = (128, 128)
    committee: int = 1
    steps: int = 5000
    max_seconds: float | None = None
    batch_points: int = 8192
    learning_rate: float = 2e-3
    gradient_weight: float = 0.5
    integral_weight: float = 10.0
    checkpoint_every: int = 500
    seed: int = 0


@dataclass(eq=False)
class TrainingData:
    """Elements of all training structures, scaled, ready for the networks; float32.

    Attributes:
        features: (n_elements, n_quadrature, n_features). targets: (n_elements, n_quadrature, 4).
        weights: quadrature weights relative to the mean, (n_elements, n_quadrature).
        lengths: edges of the elements, (n_elements, 3), bohr.
        scaling: of the features. target_scales: (4,), float64. order: of the elements.
    """

    features: Tensor
    targets: Tensor
    weights: Tensor
    lengths: Tensor
    scaling: Standardise
    target_scales: Tensor
    order: int

    @classmethod
    def from_samples(
        cls,
        samples: Sequence[Sample],
        descriptor: Descriptor,
        functional: EnergyFunctional,
        baseline: str,
        device: torch.device | str = "cpu",
        report: Callable[[int], None] | None = None,
    ) -> TrainingData:
        """Descriptors and targets of samples; computed once, kept in memory.

        ``report`` is called with the number of samples done.
        """
        parts = []
        for i, sample in enumerate(samples):
            parts.append(_prepare(sample, descriptor, functional, baseline, device))
            if report is not None:
                report(i + 1)
        orders = {part.order for part in parts}
        if len(orders) != 1:
            raise ModelError(f"samples have elements of orders {sorted(orders)}; expected one")
        scaling = Standardise.fit(part.features.flatten(0, 1) for part in parts)
        targets = torch.cat([part.targets for part in parts])
        target_scales = targets.flatten(0, 1).std(dim=0).clamp(min=1e-12)
        weights = torch.cat([part.weights for part in parts])
        return cls(
            torch.cat([scaling(part.features).float() for part in parts]),
            (targets / target_scales).float(),
            (weights / weights.mean()).float(),
            torch.cat([part.lengths for part in parts]).float(),
            scaling,
            target_scales,
            orders.pop(),
        )

    def __len__(self) -> int:
        return len(self.features)


@dataclass(frozen=True, eq=False)
class _Prepared:
    features: Tensor
    targets: Tensor
    weights: Tensor
    lengths: Tensor
    order: int


@torch.no_grad()
def _prepare(
    sample: Sample,
    descriptor: Descriptor,
    functional: EnergyFunctional,
    baseline: str,
    device: torch.device | str,
) -> _Prepared:
    space = space_of(sample, device)
    bound = functional.bind(sample.structure, space)
    base = baseline_density(baseline, sample.structure, bound)
    base_energies = bound.energy_densities(base)
    targets = [_field(sample, "density", device).clamp(min=0).sqrt() - base.root]
    targets += [_field(sample, name, device) - base_energies[name] for name in ENERGY_DENSITIES]
    return _Prepared(
        space.element_blocks(descriptor(space, sample.structure)),
        space.element_blocks(torch.stack(targets, dim=1)),
        space.element_blocks(space.weights),
        space.element_lengths,
        space.order,
    )


def space_of(sample: Sample, device: torch.device | str = "cpu") -> TensorSpace:
    """The function space a sample's fields live on.

    Raises:
        ModelError: when its provenance does not say, or does not fit its points.
    """
    description = sample.provenance.get("space")
    if description is None:
        raise ModelError("sample does not say which space its points belong to")
    space = TensorSpace.from_description(description, device)
    if space.n_points != len(sample.weights):
        raise ModelError(
            f"sample has {len(sample.weights)} points, its space {space.n_points}: they differ"
        )
    return space


def _field(sample: Sample, name: str, device: torch.device | str) -> Tensor:
    if name not in sample.fields:
        raise ModelError(f"sample {sample.structure.formula} has no field {name!r} to learn")
    return torch.tensor(sample.fields[name], device=device)


class ElementLoss:
    """Loss of a batch of elements; see the head of this module."""

    def __init__(self, data: TrainingData, settings: TrainingSettings):
        self.settings = settings
        self.size = data.order + 1
        matrix = torch.tensor(gauss_differentiation(data.order), dtype=torch.float32)
        self.differentiation = matrix.to(data.features.device)
        scales = data.target_scales[1:].float()
        self.energy_scales = scales / scales.mean()

    def __call__(
        self, outputs: Tensor, targets: Tensor, weights: Tensor, lengths: Tensor
    ) -> Tensor:
        """Scalar loss of outputs and targets (n_elements, n_quadrature, 4)."""
        error = outputs - targets
        root, energies = error[..., 0], error[..., 1:]
        gradient = self._squared_gradient(root, lengths)
        density_loss = (weights * (root**2 + self.settings.gradient_weight * gradient)).mean()
        energy_loss = (weights[..., None] * energies**2).mean()
        integrals = (weights * (energies @ self.energy_scales)).mean(dim=1)
        return density_loss + energy_loss + self.settings.integral_weight * (integrals**2).mean()

    def _squared_gradient(self, values: Tensor, lengths: Tensor) -> Tensor:
        """|gradient|^2 (n_elements, n_quadrature) of the elements' interpolating polynomials."""
        grid = values.reshape(-1, self.size, self.size, self.size)
        parts = [
            torch.einsum("ai,bijk->bajk", self.differentiation, grid),
            torch.einsum("aj,bijk->biak", self.differentiation, grid),
            torch.einsum("ak,bijk->bija", self.differentiation, grid),
        ]
        squares = [(p.flatten(1) / lengths[:, i : i + 1]) ** 2 for i, p in enumerate(parts)]
        return squares[0] + squares[1] + squares[2]


def gauss_differentiation(order: int) -> np.ndarray:
    """Derivatives at the Gauss points of [0, 1] of the polynomial through values there.

    (order + 1, order + 1); Berrut and Trefethen, SIAM Rev. 46, 501 (2004), section 9.3.
    """
    points = (np.polynomial.legendre.leggauss(order + 1)[0] + 1) / 2
    distances = points[:, None] - points + np.eye(len(points))
    barycentric = 1 / distances.prod(axis=1)
    matrix = barycentric / barycentric[:, None] / distances
    np.fill_diagonal(matrix, 0.0)
    np.fill_diagonal(matrix, -matrix.sum(axis=1))
    return matrix


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
    report: Callable[[dict[str, Any]], None] | None = None,
) -> Predictor:
    """Train a predictor of density and energy densities on samples.

    Args:
        samples: with ``density`` and energy densities on a TensorSpace.
        functional: the parent functional; default the one in the samples' provenance.
        baseline: ``linear_response`` or ``superposed_atoms``; default the first for periodic
            structures, the second for isolated ones.
        device: ``auto``, ``cpu`` or ``cuda``.
        checkpoint: folder for checkpoints; a training that was cut off goes on from there when
            it is called again with the same settings.
        report: called with ``stage``, ``done``, ``total`` and, in training, ``loss``.

    Raises:
        ModelError: samples that do not fit together. DeviceError: a missing device.
    """
    if not samples:
        raise ModelError("no samples to train on")
    settings = settings or TrainingSettings()
    target = resolve_device(device)
    functional = functional or _functional_of(samples)
    baseline = baseline or default_baseline(samples[0].structure)
    report = report or (lambda _: None)

    def described(done: int) -> None:
        report({"stage": "descriptors", "done": done, "total": len(samples)})

    data = TrainingData.from_samples(samples, descriptor, functional, baseline, target, described)
    networks, histories = [], []
    for member in range(settings.committee):
        folder = None if checkpoint is None else Path(checkpoint) / f"network-{member}"
        trainer = _Trainer(data, settings, member, folder, target)
        networks.append(trainer.run(report))
        histories.append(trainer.history)
    space = space_of(samples[0])
    return Predictor(
        descriptor=descriptor,
        scaling=data.scaling,
        networks=networks,
        target_scales=data.target_scales,
        functional=functional,
        baseline=baseline,
        spacing=space.spacing,
        order=space.order,
        hidden=settings.hidden,
        history=histories[0],
        provenance={
            "settings": asdict(settings),
            "n_samples": len(samples),
            "formulas": [sample.structure.formula for sample in samples],
        },
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

    data: TrainingData
    settings: TrainingSettings
    member: int
    folder: Path | None
    device: torch.device
    history: dict[str, list[float]] = field(
        default_factory=lambda: {"step": [], "training_loss": [], "validation_loss": []}
    )
    step: int = 0
    seconds: float = 0.0

    def run(self, report: Callable[[dict[str, Any]], None]) -> FieldNetwork:
        from lightning_fabric import Fabric

        fabric = Fabric(accelerator=self.device.type, devices=1)
        network, optimiser = fabric.setup(*self._build())
        loss_of = ElementLoss(self.data, self.settings)
        training, validation = self._split()
        start = time.monotonic() - self.seconds
        while self.step < self.settings.steps:
            progress = self._progress(time.monotonic() - start)
            if progress >= 1:
                break
            for group in optimiser.param_groups:
                group["lr"] = self._rate(progress)
            loss = self._loss(network, loss_of, self._batch(training))
            optimiser.zero_grad()
            fabric.backward(loss)
            optimiser.step()
            self.step += 1
            self.seconds = time.monotonic() - start
            if self.step % _RECORD_EVERY == 0 or self.step == self.settings.steps:
                self._record(network, loss_of, loss, validation)
                report(self._state(loss))
            if self.step % self.settings.checkpoint_every == 0:
                self._save(network.module, optimiser)
        self._save(network.module, optimiser)
        report(self._state(loss if self.step else None))
        return network.module

    def _state(self, loss: Tensor | None) -> dict[str, Any]:
        total = self.settings.steps
        state = {"stage": "training", "done": self.step, "total": total, "member": self.member}
        return state if loss is None else {**state, "loss": float(loss.detach())}

    def _build(self) -> tuple[FieldNetwork, torch.optim.Optimizer]:
        torch.manual_seed(self.settings.seed + 1000 * self.member)
        n_features = self.data.features.shape[-1]
        network = FieldNetwork(n_features, self.settings.hidden, len(ENERGY_DENSITIES))
        network = network.to(self.data.features.device)
        resumed = self._load(network)
        if resumed is None:
            network.start_from_ridge(self._chunks())
        optimiser = torch.optim.AdamW(
            network.parameters(), lr=self.settings.learning_rate, weight_decay=0.0
        )
        if resumed is not None:
            _restore_moments(optimiser, network, resumed, self.step)
        return network, optimiser

    def _chunks(self) -> Iterator[tuple[Tensor, Tensor]]:
        for features, targets in zip(
            self.data.features.split(64), self.data.targets.split(64), strict=True
        ):
            yield features.flatten(0, 1), targets.flatten(0, 1)

    def _split(self) -> tuple[Tensor, Tensor]:
        """Elements to train on and a few to validate with; the same for every run of a seed."""
        generator = torch.Generator().manual_seed(self.settings.seed)
        order = torch.randperm(len(self.data), generator=generator)
        n_validation = max(1, int(_VALIDATION_SHARE * len(order)))
        return order[n_validation:], order[:n_validation]

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

    def _loss(self, network: torch.nn.Module, loss_of: ElementLoss, index: Tensor) -> Tensor:
        data = self.data
        index = index.to(data.features.device)
        outputs = network(data.features[index])
        return loss_of(outputs, data.targets[index], data.weights[index], data.lengths[index])

    def _record(
        self, network: torch.nn.Module, loss_of: ElementLoss, loss: Tensor, validation: Tensor
    ) -> None:
        with torch.no_grad():
            held_out = self._loss(network, loss_of, validation)
        self.history["step"].append(self.step)
        self.history["training_loss"].append(float(loss.detach()))
        self.history["validation_loss"].append(float(held_out))

    def _save(self, network: torch.nn.Module, optimiser: torch.optim.Optimizer) -> None:
        """A checkpoint: weights and optimiser moments as safetensors, the rest as JSON."""
        if self.folder is None:
            return
        tensors = {f"weights.{k}": v for k, v in network.state_dict().items()}
        names = [name for name, _ in network.named_parameters()]
        for name, state in zip(names, optimiser.state_dict()["state"].values(), strict=False):
            tensors |= {f"{key}.{name}": state[key] for key in ("exp_avg", "exp_avg_sq")}
        tensors = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
        name = f"checkpoint-{self.step}.safetensors"
        write_atomically(self.folder / name, lambda path: save_file(tensors, path))
        record = {
            "file": name,
            "step": self.step,
            "seconds": self.seconds,
            "settings": asdict(self.settings),
            "history": self.history,
        }
        write_atomically(self.folder / "checkpoint.json", json.dumps(record))
        for old in self.folder.glob("checkpoint-*.safetensors"):
            if old.name != name:
                old.unlink()

    def _load(self, network: torch.nn.Module) -> dict[str, Tensor] | None:
        """Tensors of the last checkpoint, if there is one of these settings."""
        if self.folder is None or not (self.folder / "checkpoint.json").is_file():
            return None
        record = json.loads((self.folder / "checkpoint.json").read_text())
        if record["settings"] != json.loads(json.dumps(asdict(self.settings))):
            return None
        tensors = load_file(self.folder / record["file"])
        weights = {k.removeprefix("weights."): v for k, v in tensors.items() if "weights." in k}
        network.load_state_dict(weights)
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
