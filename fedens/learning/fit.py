"""The one training loop: whatever learns by gradient descent learns here.

An :class:`Objective` says what is to be learned and knows the data; :func:`fit` knows how: rates,
checkpoints, resume, histories. It knows no physics.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from fedens.errors import ModelError
from fedens.learning.checkpoints import Checkpoint, read_checkpoint, write_checkpoint
from fedens.progress import Advance, Report, silent

Batch = TypeVar("Batch")


class Objective(Protocol[Batch]):
    """What a network is to learn."""

    def start(self, network: nn.Module) -> None:
        """First weights, for a fit that begins; one that goes on does not need them."""

    def batch(self, step: int, rng: torch.Generator) -> Batch:
        """What a step learns from: a function of the step and a generator of its own."""

    def loss(self, network: nn.Module, batch: Batch) -> Tensor:
        """A scalar, differentiable in the network's weights."""

    def validation(self) -> Batch | None:
        """What the network does not learn from, to show its errors; None: there is nothing."""


@dataclass(frozen=True)
class FitSettings:
    """How one network is fitted.

    Attributes:
        steps: of AdamW. max_seconds: end sooner after this processor time.
        learning_rate: the highest; it rises over ``warm_up_steps``, then falls along a cosine to
            ``last_rate`` of itself. weight_decay: of AdamW.
        largest_gradient: the gradient's norm is cut to this; None: never.
        record_every: steps between records of the losses. checkpoint_every: likewise.
        seed: of weights and batches.
    """

    steps: int
    learning_rate: float
    max_seconds: float | None = None
    weight_decay: float = 0.0
    warm_up_steps: int = 0
    last_rate: float = 1e-3
    largest_gradient: float | None = None
    record_every: int = 50
    checkpoint_every: int = 500
    seed: int = 0

    def rate(self, step: int, progress: float) -> float:
        """Learning rate of a step, counted from 0, at a share ``progress`` of the whole."""
        warm = min(1.0, (step + 1) / self.warm_up_steps) if self.warm_up_steps else 1.0
        fall = 0.5 * (1 + math.cos(math.pi * progress))
        return self.learning_rate * warm * max(fall, self.last_rate)


@dataclass
class History:
    """Losses at some steps; ``validation_loss`` is empty where nothing is held out."""

    step: list[int] = field(default_factory=list)
    training_loss: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Checkpoints:
    """Where fits leave what they have done, and whose they are.

    Attributes:
        folder: a folder for every fit lies in it. identity: of data, settings and first weights;
            what another identity left is not used.
    """

    folder: Path
    identity: str

    @classmethod
    def for_data(
        cls, folder: str | Path | None, description: Any, tensors: Iterable[Tensor | None]
    ) -> Checkpoints | None:
        """In a folder of their own for settings and data; None without a folder.

        Args:
            description: what JSON can hold. tensors: on the CPU; None is left out.
        """
        if folder is None:
            return None
        digest = hashlib.sha256(json.dumps(description, sort_keys=True).encode())
        for tensor in tensors:
            if tensor is not None:
                digest.update(tensor.detach().contiguous().numpy().tobytes())
        identity = digest.hexdigest()[:16]
        return cls(Path(folder) / identity, identity)


def generator(seed: int, member: int, step: int) -> torch.Generator:
    """Random numbers of one step of one member, whatever happened before."""
    return torch.Generator().manual_seed(hash((seed, member, step)) % 2**63)


def fit(
    network: nn.Module,
    objective: Objective[Batch],
    settings: FitSettings,
    label: str,
    *,
    member: int = 0,
    device: torch.device | str = "cpu",
    checkpoints: Checkpoints | None = None,
    report: Report = silent,
) -> History:
    """Fit a network in place.

    Every step depends on seed, member, step and weights alone, so that a fit that was cut off and
    goes on from its last checkpoint ends with the same bits.

    Args:
        label: what is fitted, for reports and the checkpoint's folder.
        member: number of the network in its committee.

    Raises:
        ModelError: a loss or weights that are not finite; what was there before stays.
    """
    return _Fit(network, objective, settings, label, member, device, checkpoints, report).run()


@dataclass
class _Fit:
    network: nn.Module
    objective: Objective[Any]
    settings: FitSettings
    label: str
    member: int
    device: torch.device | str
    checkpoints: Checkpoints | None
    report: Report
    history: History = field(default_factory=History)
    step: int = 0
    seconds: float = 0.0

    def run(self) -> History:
        from lightning_fabric import Fabric

        fabric = Fabric(accelerator=torch.device(self.device).type, devices=1)
        network, optimiser = fabric.setup(self.network, self._begin())
        validation = self.objective.validation()
        start = time.process_time() - self.seconds
        while self.step < self.settings.steps:
            progress = self._progress()
            if progress >= 1:
                break
            for group in optimiser.param_groups:
                group["lr"] = self.settings.rate(self.step, progress)
            rng = generator(self.settings.seed, self.member, self.step)
            batch = self.objective.batch(self.step, rng)
            loss = self.objective.loss(network, batch)
            self._check(loss)
            optimiser.zero_grad()
            fabric.backward(loss)
            if self.settings.largest_gradient is not None:
                nn.utils.clip_grad_norm_(network.parameters(), self.settings.largest_gradient)
            optimiser.step()
            self.step += 1
            if self.settings.max_seconds is not None:
                self.seconds = time.process_time() - start
            self._record(network, loss, validation)
            if self.step % self.settings.checkpoint_every == 0:
                self._save(optimiser)
        for parameter in self.network.parameters():
            self._check(parameter)
        self._save(optimiser)
        return self.history

    def _begin(self) -> torch.optim.Optimizer:
        """Weights of the last checkpoint, or where the fit begins; their optimiser."""
        torch.manual_seed(self.settings.seed + 1000 * self.member)
        known = None
        if self.checkpoints is not None:
            known = read_checkpoint(*self._place(self.checkpoints))
        if known is None:
            self.objective.start(self.network)
        optimiser = torch.optim.AdamW(
            self.network.parameters(),
            lr=self.settings.learning_rate,
            weight_decay=self.settings.weight_decay,
        )
        if known is not None:
            known.restore(self.network, optimiser)
            self.step, self.seconds = known.step, known.seconds
            self.history = History(**known.history)
        return optimiser

    def _progress(self) -> float:
        limit = self.settings.max_seconds
        return max(self.step / self.settings.steps, self.seconds / limit if limit else 0.0)

    def _check(self, values: Tensor) -> None:
        if not torch.isfinite(values).all():
            raise ModelError(
                f"training of {self.label} diverged at step {self.step}: loss or weights are not "
                f"finite; lower the learning rate ({self.settings.learning_rate:g})"
            )

    def _record(self, network: nn.Module, loss: Tensor, validation: object) -> None:
        last = self._progress() >= 1
        if self.step % self.settings.record_every != 0 and not last:
            return
        value = float(loss.detach())
        if validation is not None:
            held_out = float(self.objective.loss(network, validation).detach())
            self.history.validation_loss.append(held_out)
        self.history.step.append(self.step)
        self.history.training_loss.append(value)
        self.report(Advance(self.label, self.step, self.settings.steps, value))

    def _save(self, optimiser: torch.optim.Optimizer) -> None:
        if self.checkpoints is None:
            return
        history = vars(self.history).copy()
        state = Checkpoint.of(self.network, optimiser, self.step, self.seconds, history)
        write_checkpoint(*self._place(self.checkpoints), state)

    def _place(self, checkpoints: Checkpoints) -> tuple[Path, str]:
        """Folder and identity of this fit."""
        identity = f"{checkpoints.identity} {self.settings} {self.member}"
        return checkpoints.folder / self.label.replace(" ", "-"), identity
