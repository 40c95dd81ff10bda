"""What the networks of a model of crystals are to learn, from whole elements of the mesh."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from fedens.learning.pointwise import PointwiseNetwork
from fedens.models.crystal.data import TrainingData
from fedens.models.crystal.losses import EnergyDensityLoss, RootDensityLoss
from fedens.models.crystal.structure_loss import StructureLoss

_VALIDATION_SHARE = 0.03
#: Elements per block of the ridge regression.
_BLOCK = 64


@dataclass(frozen=True, eq=False)
class Batch:
    """Indices of elements, and of a structure whose terms as a whole are added, or None."""

    elements: Tensor
    structure: int | None = None


@dataclass(frozen=True, eq=False)
class ElementObjective:
    """Errors of the elements of all structures but those that a member leaves out.

    Attributes:
        data: elements of all structures. loss_of: of errors, weights and lengths of elements.
        member: number of the network in a committee of ``committee``.
        batch_points: points per step, in whole elements. seed: of the choice of what validates.
        fresh: whether to begin with new weights; else with those that are there.
    """

    data: TrainingData
    loss_of: RootDensityLoss | EnergyDensityLoss
    member: int
    committee: int
    batch_points: int
    seed: int
    fresh: bool

    @torch.no_grad()
    def start(self, network: nn.Module) -> None:
        """New weights, the linear part from ridge regression."""
        if not self.fresh:
            return
        assert isinstance(network, PointwiseNetwork)
        for module in network.modules():
            if isinstance(module, nn.Linear):
                module.reset_parameters()
        network.start_from_ridge(self._blocks())

    def _blocks(self) -> Iterator[tuple[Tensor, Tensor]]:
        parts = self.data.features.split(_BLOCK), self.data.targets.split(_BLOCK)
        for features, targets in zip(*parts, strict=True):
            yield features.flatten(0, 1), targets.flatten(0, 1)

    def batch(self, step: int, rng: torch.Generator) -> Batch:  # noqa: ARG002
        """Elements of one step."""
        choices, _ = self._split
        size = max(1, round(self.batch_points / self.data.features.shape[1]))
        return Batch(choices[torch.randint(len(choices), (size,), generator=rng)])

    def loss(self, network: nn.Module, batch: Batch) -> Tensor:
        """The loss of a batch's elements."""
        data = self.data
        index = batch.elements.to(data.features.device)
        error = network(data.features[index]) - data.targets[index]
        return self.loss_of(error, data.weights[index], data.lengths[index])

    def validation(self) -> Batch:
        """A few elements of what the member leaves out, or of all where it leaves out nothing."""
        return Batch(self._split[1])

    @property
    def left_out(self) -> list[int]:
        """The structures that the member does not learn from."""
        return self.data.left_out(self.member, self.committee)

    @cached_property
    def _split(self) -> tuple[Tensor, Tensor]:
        """Elements to train on and to validate with; the same for every run of a seed."""
        rng = torch.Generator().manual_seed(self.seed)
        order = torch.randperm(len(self.data), generator=rng)
        n_validation = max(1, int(_VALIDATION_SHARE * len(order)))
        if not self.left_out:
            return order[n_validation:], order[:n_validation]
        held = torch.isin(self.data.owners[order], torch.tensor(self.left_out))
        return order[~held], order[held][:n_validation]


@dataclass(frozen=True, eq=False)
class StructureObjective(ElementObjective):
    """Errors of elements, and at some steps the terms of a whole structure, each in its turn.

    Attributes:
        whole: the terms. every: steps between those that add them.
    """

    whole: StructureLoss
    every: int

    def batch(self, step: int, rng: torch.Generator) -> Batch:
        """Elements of one step, with the structure whose turn it is."""
        batch = super().batch(step, rng)
        if step % self.every:
            return batch
        choices = [i for i in range(len(self.whole)) if i not in self.left_out]
        return Batch(batch.elements, choices[step // self.every % len(choices)])

    def loss(self, network: nn.Module, batch: Batch) -> Tensor:
        """The elements' loss, and the structure's terms where the batch has one."""
        loss = super().loss(network, batch)
        if batch.structure is None:
            return loss
        features = self.data.features[self.data.owners == batch.structure]
        return loss + self.whole(batch.structure, network(features))
