"""What the networks of a model of crystals are to learn, from whole elements of the mesh."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from fedens.learning.committee import left_out
from fedens.learning.pointwise import PointwiseNetwork
from fedens.models.crystal.data import TrainingData
from fedens.models.crystal.losses import EnergyDensityLoss, RootDensityLoss
from fedens.models.crystal.structure_loss import StructureLoss

_VALIDATION_SHARE = 0.03
#: Elements per block of the ridge regression.
_BLOCK = 64


@dataclass(frozen=True)
class TrainingSettings:
    """How to train.

    Attributes:
        hidden: units of the hidden layers.
        committee: number of networks. Each has its own seed and leaves out its share of the
            structures, which then show its errors and calibrate the uncertainty.
        steps: optimiser steps per network. max_seconds: end sooner after this processor time per
            network.
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


@dataclass(frozen=True, eq=False)
class Batch:
    """Indices of elements, and of a structure whose terms as a whole are added, or None."""

    elements: Tensor
    structure: int | None = None


@dataclass(frozen=True, eq=False)
class ElementObjective:
    """Errors of the elements of all structures but those that a member leaves out.

    With ``whole``, some steps add the terms of a whole structure, each in its turn.

    Attributes:
        data: elements of all structures. loss_of: of errors, weights and lengths of elements.
        member: number of the network in its committee.
        fresh: whether to begin with new weights; else with those that are there.
        whole: terms of whole structures.
    """

    data: TrainingData
    loss_of: RootDensityLoss | EnergyDensityLoss
    member: int
    settings: TrainingSettings
    fresh: bool
    whole: StructureLoss | None = None

    @torch.no_grad()
    def start(self, network: nn.Module) -> None:
        """New weights, the linear part from ridge regression."""
        if not self.fresh:
            return
        assert isinstance(network, PointwiseNetwork)
        for module in network.modules():
            if isinstance(module, nn.Linear):
                module.reset_parameters()
        parts = self.data.features.split(_BLOCK), self.data.targets.split(_BLOCK)
        blocks = zip(*parts, strict=True)
        network.start_from_ridge((x.flatten(0, 1), y.flatten(0, 1)) for x, y in blocks)

    def batch(self, step: int, rng: torch.Generator) -> Batch:
        """Elements of one step, and the structure whose turn it is."""
        choices, every = self._split[0], self.settings.structure_every
        size = max(1, round(self.settings.batch_points / self.data.features.shape[1]))
        elements = choices[torch.randint(len(choices), (size,), generator=rng)]
        if self.whole is None or step % every:
            return Batch(elements)
        learned = [i for i in range(len(self.whole)) if i not in self.left_out]
        return Batch(elements, learned[step // every % len(learned)])

    def loss(self, network: nn.Module, batch: Batch) -> Tensor:
        """The elements' loss, and the structure's terms where the batch has one."""
        data = self.data
        index = batch.elements.to(data.features.device)
        error = network(data.features[index]) - data.targets[index]
        loss = self.loss_of(error, data.weights[index], data.lengths[index])
        if self.whole is None or batch.structure is None:
            return loss
        features = data.features[data.owners == batch.structure]
        return loss + self.whole(batch.structure, network(features))

    def validation(self) -> Batch:
        """A few elements of what the member leaves out, or of all where it leaves out nothing."""
        return Batch(self._split[1])

    @property
    def left_out(self) -> list[int]:
        """The structures that the member does not learn from."""
        return left_out(int(self.data.owners[-1]) + 1, self.member, self.settings.committee)

    @cached_property
    def _split(self) -> tuple[Tensor, Tensor]:
        """Elements to train on and to validate with; the same for every run of a seed."""
        rng = torch.Generator().manual_seed(self.settings.seed)
        order = torch.randperm(len(self.data), generator=rng)
        n_validation = max(1, int(_VALIDATION_SHARE * len(order)))
        if not self.left_out:
            return order[n_validation:], order[:n_validation]
        held = torch.isin(self.data.owners[order], torch.tensor(self.left_out))
        return order[~held], order[held][:n_validation]
