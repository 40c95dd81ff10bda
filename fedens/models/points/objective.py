r"""What an energy model learns: energies, forces and fields.

The loss is a sum of squared errors, each in its own unit:

    w_E mean (E - E_ref)^2 / (n_atoms u_E)^2 + w_F mean (F - F_ref)^2 / u_F^2
        + w_f integral [(e - e_ref)^2 / u_e^2 + (n - n_ref)^2 / u_n^2] / volume

u_E and u_F are 1 mHa per atom and 1 mHa/bohr, u_e and u_n the spreads of the fields. Stresses are
forces on the cell (:mod:`fedens.models.points.coordinates`) and count as those on the atoms.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from fedens.errors import ModelError
from fedens.learning.least_squares import best_ridge, least_squares, with_constant
from fedens.learning.scaling import Standardise
from fedens.models.points.data import PointsData, StructureData
from fedens.models.points.model import PointModels

#: Units of the loss: hartree per atom, hartree/bohr.
_ENERGY_UNIT, _FORCE_UNIT = 1e-3, 1e-3


@dataclass(frozen=True)
class EnergyTrainingSettings:
    """How to train an energy model.

    Attributes:
        hidden: units of the hidden layers; empty for a linear model.
        energy_weight, force_weight, field_weight: of the three terms of the loss; zero leaves
            a label out. Fields are learned at the first set of points.
        steps: of the optimiser. max_seconds: end sooner after this processor time.
        batch_points: points of the fields' term per step. learning_rate: highest rate of AdamW.
        ridge: damping of the least-squares start, relative to the mean diagonal; None: chosen by
            leaving out one structure after the other.
        with_stress: whether stresses are learned beside forces.
        seed: of weights and batches.
    """

    hidden: tuple[int, ...] = (64, 64)
    energy_weight: float = 1.0
    force_weight: float = 1.0
    field_weight: float = 0.0
    steps: int = 2000
    max_seconds: float | None = None
    batch_points: int = 4096
    learning_rate: float = 1e-3
    ridge: float | None = 1e-6
    with_stress: bool = False
    seed: int = 0

    @property
    def learns_forces(self) -> bool:
        """Whether forces have a weight."""
        return self.force_weight > 0

    @property
    def learns_fields(self) -> bool:
        """Whether fields have a weight."""
        return self.field_weight > 0


#: A structure, and numbers of the points where its fields are learned, if they are.
Batch: TypeAlias = tuple[StructureData, Tensor | None]


def energy_and_forces_from(
    network: nn.Module, one: StructureData, with_forces: bool = True
) -> tuple[Tensor, Tensor | None]:
    """Energy, hartree, and forces (n_coordinates,), hartree/bohr, from stored features.

    Without those of the ions; differentiable in the weights of the network.
    """
    features = [points.features.detach().requires_grad_(with_forces) for points in one.sets]
    energies = [outputs[:, 0] for outputs in network(features)]
    pairs = list(zip(one.sets, energies, strict=True))
    energy = torch.stack([points.weights @ own for points, own in pairs]).sum()
    if not with_forces:
        return energy, None
    slopes = torch.autograd.grad(torch.cat(energies).sum(), features, create_graph=True)
    forces = [p.forces(own, slope) for (p, own), slope in zip(pairs, slopes, strict=True)]
    return energy, torch.stack(forces).sum(dim=0)


@dataclass(frozen=True, eq=False)
class EnergyObjective:
    """The loss of the module, one structure per step.

    The linear part of the networks is fitted first, by least squares of the same loss.
    """

    structures: Sequence[StructureData]
    settings: EnergyTrainingSettings

    @cached_property
    def field_units(self) -> Tensor:
        """Spread of energy density and density at the first set of points, (2,)."""
        return torch.cat([_prepared(one.sets[0].fields) for one in self.structures]).std(dim=0)

    def start(self, network: nn.Module) -> None:
        """Networks that are linear so far: the least-squares solution."""
        assert isinstance(network, PointModels)
        scalings, ridge = [part.scaling for part in network.parts], self.settings.ridge
        sizes = [scaling.n_features + 1 for scaling in scalings]
        constants = torch.cat([torch.arange(size) == size - 1 for size in sizes])
        if ridge is None:
            ridge = best_ridge([self.rows(one, scalings) for one in self.structures], constants)
        rows = (row for one in self.structures for row in self.rows(one, scalings))
        columns = [[own] for own in least_squares(rows, ridge, free=constants).split(sizes)]
        if self.settings.learns_fields:
            columns[0].append(least_squares(self._density_rows(scalings[0]), ridge))
        for part, own in zip(network.parts, columns, strict=True):
            part.start_linear(torch.stack(own))

    def batch(self, step: int, rng: torch.Generator) -> Batch:
        """One structure after another, in a new order each time round; points by their weight."""
        epoch, place = divmod(step, len(self.structures))
        order = np.random.default_rng([self.settings.seed, epoch]).permutation(len(self.structures))
        one = self.structures[order[place]]
        if not self.settings.learns_fields:
            return one, None
        weights = one.sets[0].weights
        count = min(self.settings.batch_points, len(weights))
        return one, torch.multinomial(weights, count, generator=rng)

    def validation(self) -> None:
        """Nothing is held out."""

    def loss(self, network: nn.Module, batch: Batch) -> Tensor:
        """Of a structure, with its fields at the points of the batch."""
        one, points = batch
        total = torch.zeros((), dtype=torch.float64)
        if self.settings.learns_forces or self.settings.energy_weight > 0:
            total = total + self._of_totals(network, one)
        return total if points is None else total + self._of_fields(network, one, points)

    def _of_totals(self, network: nn.Module, one: StructureData) -> Tensor:
        """Energy and force terms."""
        energy, forces = energy_and_forces_from(network, one, self.settings.learns_forces)
        error = (energy - one.energy) / (len(one.structure) * _ENERGY_UNIT)
        loss = self.settings.energy_weight * error**2
        if forces is not None:
            errors = (forces - _prepared(one.forces, "forces")) / _FORCE_UNIT
            loss = loss + self.settings.force_weight * (errors**2).mean()
        return one.weight * loss

    def _of_fields(self, network: nn.Module, one: StructureData, points: Tensor) -> Tensor:
        """Fields' term, at points drawn by their weight."""
        (predicted,) = network([one.sets[0].features[points]])
        errors = (predicted - _prepared(one.sets[0].fields)[points]) / self.field_units
        return one.weight * self.settings.field_weight * (errors**2).sum(dim=1).mean()

    def rows(
        self, one: StructureData, scalings: Sequence[Standardise]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The loss of a linear model as least squares: rows of its matrix, and their targets.

        One column per scaled feature and a constant, set after set.
        """
        columns = [
            with_constant(scaling(points.features))
            for scaling, points in zip(scalings, one.sets, strict=True)
        ]
        sums = [p.weights @ c for p, c in zip(one.sets, columns, strict=True)]
        weight = math.sqrt(one.weight * self.settings.energy_weight)
        weight = weight / (len(one.structure) * _ENERGY_UNIT)
        yield weight * torch.cat(sums)[None], weight * sums[0].new_tensor([one.energy])
        if self.settings.learns_forces:
            forces = _prepared(one.forces, "forces")
            weight = math.sqrt(one.weight * self.settings.force_weight / len(forces)) / _FORCE_UNIT
            pulls = [
                _force_rows(points, scaling, c)
                for points, scaling, c in zip(one.sets, scalings, columns, strict=True)
            ]
            yield weight * torch.cat(pulls, dim=1), weight * forces
        if self.settings.learns_fields:
            volume = one.sets[0].weights.sum()
            weight = one.weight * self.settings.field_weight
            share = torch.sqrt(weight * one.sets[0].weights / volume)
            share = share / self.field_units[0]
            others = sum(c.shape[1] for c in columns[1:])
            rows = torch.nn.functional.pad(columns[0], (0, others))
            yield share[:, None] * rows, share * _prepared(one.sets[0].fields)[:, 0]

    def _density_rows(self, scaling: Standardise) -> Iterator[tuple[Tensor, Tensor]]:
        for one in self.structures:
            share = torch.sqrt(one.sets[0].weights)
            rows = with_constant(scaling(one.sets[0].features))
            yield share[:, None] * rows, share * _prepared(one.sets[0].fields)[:, 1]


def _prepared(label: Tensor | None, name: str = "fields") -> Tensor:
    if label is None:
        raise ModelError(f"{name} are to be learned, but the structures were prepared without them")
    return label


def _force_rows(points: PointsData, scaling: Standardise, columns: Tensor) -> Tensor:
    """Forces (n_coordinates, n_features + 1) of each column of a linear model."""
    derivatives = _prepared(points.features_by_coordinate, "forces")
    blocks = derivatives.reshape(len(columns), -1, derivatives.shape[1])
    pulls = torch.einsum("p,pfk->kf", points.weights.float(), blocks).double() / scaling.scale
    rows = -torch.cat([pulls, pulls.new_zeros(len(pulls), 1)], dim=1)
    if points.weights_by_coordinate is not None:
        rows = rows - points.weights_by_coordinate.T @ columns
    return rows
