r"""Training of energy models on energies, forces and fields.

The loss is a sum of squared errors, each in its own unit:

    w_E mean (E - E_ref)^2 / (n_atoms u_E)^2 + w_F mean (F - F_ref)^2 / u_F^2
        + w_f integral [(e - e_ref)^2 / u_e^2 + (n - n_ref)^2 / u_n^2] / volume

u_E and u_F are 1 mHa per atom and 1 mHa/bohr, u_e and u_n the spreads of the fields. The networks'
linear part is fitted first, by least squares of the same loss; gradient descent then goes on.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from fedens.data.sample import Sample
from fedens.energy.functional import EnergyFunctional
from fedens.errors import ModelError
from fedens.features.descriptor import Descriptor
from fedens.features.points import PointSet
from fedens.learning.pointwise import PointwiseNetwork
from fedens.learning.scaling import Standardise
from fedens.models.points.data import PointsData, StructureData, prepare_structure
from fedens.models.points.model import EnergyModel, PointModel
from fedens.progress import Advance, Report, silent

#: Units of the loss: hartree per atom, hartree/bohr.
_ENERGY_UNIT, _FORCE_UNIT = 1e-3, 1e-3
_LAST_RATE = 1e-3
_REPORT_EVERY = 20
#: Gradients of the loss are cut to this norm: single structures can be far off at first.
_LARGEST_GRADIENT = 10.0


@dataclass(frozen=True)
class EnergyTrainingSettings:
    """How to train an energy model.

    Attributes:
        hidden: units of the hidden layers; empty for a linear model.
        energy_weight, force_weight, field_weight: of the three terms of the loss; zero leaves
            a label out. Fields are learned at the first set of points.
        steps: of the optimiser. max_seconds: end sooner after this processor time.
        batch_points: points of the fields' term per step. learning_rate: highest rate of AdamW.
        ridge: damping of the least-squares start, relative to the mean diagonal.
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
    ridge: float = 1e-6
    seed: int = 0


def train_energy_model(
    samples: Sequence[Sample],
    descriptor: Descriptor,
    sets: Sequence[PointSet],
    settings: EnergyTrainingSettings | None = None,
    functional: EnergyFunctional | None = None,
    report: Report = silent,
) -> EnergyModel:
    """Train E = sum of w e(D) over sets of reference points.

    Args:
        samples: with energies, and with forces and fields where their weights are not zero.
        functional: where given, the model adds the closed energy of its ions: needed for energy
            densities, which do not hold it.
        report: called as training goes on.

    Raises:
        ModelError: no samples, no labels, or labels that a sample lacks.
    """
    settings = settings or EnergyTrainingSettings()
    seen = []
    for i, sample in enumerate(samples):
        seen.append(
            prepare_structure(
                sample,
                descriptor,
                sets,
                functional,
                with_forces=settings.force_weight > 0,
                with_fields=settings.field_weight > 0,
            )
        )
        report(Advance("descriptors", i + 1, len(samples)))
    return fit_energy_model(seen, descriptor, sets, settings, functional, report)


def fit_energy_model(
    seen: Sequence[StructureData],
    descriptor: Descriptor,
    sets: Sequence[PointSet],
    settings: EnergyTrainingSettings,
    functional: EnergyFunctional | None = None,
    report: Report = silent,
) -> EnergyModel:
    """Train on what :func:`fedens.models.points.data.see` made of the samples."""
    if not seen:
        raise ModelError("no samples to train on")
    if max(settings.energy_weight, settings.force_weight, settings.field_weight) <= 0:
        raise ModelError("all weights of the loss are zero: nothing would be learned")
    torch.manual_seed(settings.seed)
    loss = EnergyLoss(seen, settings)
    parts = _linear_start(sets, loss, settings)
    steps = _descend(parts, loss, settings, report) if settings.hidden else 0
    provenance = {"settings": asdict(settings), "n_samples": len(seen), "steps": steps}
    return EnergyModel(descriptor, parts, functional, provenance)


def energy_and_forces(
    parts: Sequence[PointModel], one: StructureData, with_forces: bool = True
) -> tuple[Tensor, Tensor | None]:
    """Energy, hartree, and forces (3 n_atoms,), hartree/bohr, from the features that are stored.

    Without those of the ions; differentiable in the networks' weights.
    """
    energy = torch.zeros((), dtype=torch.float64)
    forces = torch.zeros(3 * one.n_atoms, dtype=torch.float64) if with_forces else None
    for part, points in zip(parts, one.sets, strict=True):
        features = points.features.detach().requires_grad_(with_forces)
        energies = part.outputs(features)[:, 0]
        energy = energy + points.weights @ energies
        if forces is not None:
            (slopes,) = torch.autograd.grad(energies.sum(), features, create_graph=True)
            forces = forces + points.forces(energies, slopes)
    return energy, forces


class EnergyLoss:
    """The loss of the module, structure by structure."""

    def __init__(self, seen: Sequence[StructureData], settings: EnergyTrainingSettings):
        self.seen, self.settings = seen, settings
        self.learns_forces = settings.force_weight > 0
        self.learns_fields = settings.field_weight > 0
        self.learns_totals = self.learns_forces or settings.energy_weight > 0
        self.field_units = torch.ones(0, dtype=torch.float64)
        if self.learns_fields:
            self.field_units = torch.cat([_fields(one) for one in seen]).std(dim=0)

    @property
    def n_outputs(self) -> int:
        """Columns of the first network: the energy, and the density where fields are learned."""
        return 2 if self.learns_fields else 1

    def of_totals(self, one: StructureData, parts: Sequence[PointModel]) -> Tensor:
        """Energy and force terms of one structure."""
        energy, forces = energy_and_forces(parts, one, with_forces=self.learns_forces)
        error = (energy - one.energy) / (one.n_atoms * _ENERGY_UNIT)
        loss = self.settings.energy_weight * error**2
        if forces is not None:
            errors = (forces - _forces(one)) / _FORCE_UNIT
            loss = loss + self.settings.force_weight * (errors**2).mean()
        return loss

    def of_fields(self, one: StructureData, part: PointModel) -> Tensor:
        """Fields' term of one structure, at points drawn by their weight."""
        weights = one.sets[0].weights
        chosen = torch.multinomial(weights, min(self.settings.batch_points, len(weights)))
        predicted = part.outputs(one.sets[0].features[chosen])
        errors = (predicted - _fields(one)[chosen]) / self.field_units
        return self.settings.field_weight * (errors**2).sum(dim=1).mean()

    def rows(
        self, one: StructureData, scalings: Sequence[Standardise]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The loss of a linear model as least squares: rows of its matrix, and their targets.

        One column per scaled feature and a constant, set after set.
        """
        columns = [
            _with_constant(scaling(points.features))
            for scaling, points in zip(scalings, one.sets, strict=True)
        ]
        sums = [p.weights @ c for p, c in zip(one.sets, columns, strict=True)]
        weight = math.sqrt(self.settings.energy_weight) / (one.n_atoms * _ENERGY_UNIT)
        yield weight * torch.cat(sums)[None], weight * sums[0].new_tensor([one.energy])
        if self.learns_forces:
            forces = _forces(one)
            weight = math.sqrt(self.settings.force_weight / len(forces)) / _FORCE_UNIT
            pulls = [
                _force_rows(points, scaling, c)
                for points, scaling, c in zip(one.sets, scalings, columns, strict=True)
            ]
            yield weight * torch.cat(pulls, dim=1), weight * forces
        if self.learns_fields:
            volume = one.sets[0].weights.sum()
            share = torch.sqrt(self.settings.field_weight * one.sets[0].weights / volume)
            share = share / self.field_units[0]
            others = sum(c.shape[1] for c in columns[1:])
            rows = torch.nn.functional.pad(columns[0], (0, others))
            yield share[:, None] * rows, share * _fields(one)[:, 0]


def _forces(one: StructureData) -> Tensor:
    if one.forces is None:
        raise ModelError("forces are to be learned, but the structures were prepared without them")
    return one.forces


def _fields(one: StructureData) -> Tensor:
    fields = one.sets[0].fields
    if fields is None:
        raise ModelError("fields are to be learned, but the structures were prepared without them")
    return fields


def _with_constant(features: Tensor) -> Tensor:
    return torch.cat([features, features.new_ones(len(features), 1)], dim=1)


def _force_rows(points: PointsData, scaling: Standardise, columns: Tensor) -> Tensor:
    """Forces (3 n_atoms, n_features + 1) of each column of a linear model."""
    derivatives = points.features_by_position
    if derivatives is None:
        raise ModelError("forces are to be learned, but the structures were prepared without them")
    blocks = derivatives.reshape(len(columns), -1, derivatives.shape[1])
    pulls = torch.einsum("p,pfk->kf", points.weights.float(), blocks).double() / scaling.scale
    rows = -torch.cat([pulls, pulls.new_zeros(len(pulls), 1)], dim=1)
    if points.weights_by_position is not None:
        rows = rows - points.weights_by_position.T @ columns
    return rows


def _linear_start(
    sets: Sequence[PointSet], loss: EnergyLoss, settings: EnergyTrainingSettings
) -> list[PointModel]:
    """Models whose linear part is the least-squares solution; the perceptrons add nothing yet."""
    scalings = [
        Standardise.fit(one.sets[i].features for one in loss.seen) for i in range(len(sets))
    ]
    solution = _least_squares(
        (row for one in loss.seen for row in loss.rows(one, scalings)), settings.ridge
    )
    parts = []
    for i, (points, scaling) in enumerate(zip(sets, scalings, strict=True)):
        own, solution = solution[: scaling.n_features + 1], solution[scaling.n_features + 1 :]
        weights, means = own[None, :-1], own[-1:]
        if i == 0 and loss.learns_fields:
            density = _least_squares(_density_rows(loss, scaling), settings.ridge)
            weights, means = (
                torch.stack([own[:-1], density[:-1]]),
                torch.stack([own[-1], density[-1]]),
            )
        parts.append(_started(points, scaling, weights, means, settings.hidden))
    return parts


def _density_rows(loss: EnergyLoss, scaling: Standardise) -> Iterator[tuple[Tensor, Tensor]]:
    for one in loss.seen:
        share = torch.sqrt(one.sets[0].weights)
        rows = _with_constant(scaling(one.sets[0].features))
        yield share[:, None] * rows, share * _fields(one)[:, 1]


def _least_squares(rows: Iterable[tuple[Tensor, Tensor]], ridge: float) -> Tensor:
    """Solution (n_columns,) of damped least squares; the rows are read once and not kept."""
    normal, right = torch.zeros(()), torch.zeros(())
    for matrix, targets in rows:
        normal, right = normal + matrix.T @ matrix, right + matrix.T @ targets
    damping = ridge * torch.eye(len(normal), dtype=normal.dtype) * normal.diagonal().mean()
    return torch.linalg.solve(normal + damping, right)


def _started(
    points: PointSet,
    scaling: Standardise,
    weights: Tensor,
    means: Tensor,
    hidden: Sequence[int],
) -> PointModel:
    """A point model that is linear so far, scaled by the spread of its outputs."""
    network = PointwiseNetwork(scaling.n_features, hidden, len(means)).double()
    scale = weights.norm(dim=1).clamp(min=1e-12)
    with torch.no_grad():
        network.linear.weight.copy_(weights / scale[:, None])
        network.linear.bias.zero_()
        if network.perceptron is not None:
            last = network.perceptron[-1]
            assert isinstance(last, torch.nn.Linear)
            last.weight.zero_()
            last.bias.zero_()
    return PointModel(points, scaling, network, means, scale)


def _descend(
    parts: Sequence[PointModel],
    loss: EnergyLoss,
    settings: EnergyTrainingSettings,
    report: Report,
) -> int:
    """Gradient descent on one structure after another, in a new order each time round.

    Returns the number of steps taken.
    """
    parameters = [p for part in parts for p in part.network.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=settings.learning_rate)
    start = time.process_time()
    order: list[int] = []
    for step in range(settings.steps):
        progress = step / settings.steps
        if settings.max_seconds is not None:
            progress = max(progress, (time.process_time() - start) / settings.max_seconds)
        if progress >= 1:
            return step
        rate = settings.learning_rate * max(_LAST_RATE, (1 + math.cos(math.pi * progress)) / 2)
        for group in optimiser.param_groups:
            group["lr"] = rate
        order = order or torch.randperm(len(loss.seen)).tolist()
        one = loss.seen[order.pop()]
        value = torch.zeros((), dtype=torch.float64)
        if loss.learns_totals:
            value = value + loss.of_totals(one, parts)
        if loss.learns_fields:
            value = value + loss.of_fields(one, parts[0])
        optimiser.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(parameters, _LARGEST_GRADIENT)
        optimiser.step()
        if (step + 1) % _REPORT_EVERY == 0:
            report(Advance("training", step + 1, settings.steps))
    return settings.steps
