"""Energies as sums over any reference points: E = sum of w e(D), forces their exact derivative.

Reference points may be atoms, bonds, a grid, finite-element points or unions of them (Chemical
Environment Modeling Theory, arXiv:2310.18552). A pointwise network per set of points makes the
energy e, and where the points are those of a mesh also the electron density, from descriptors D.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self, Unpack

import torch
from torch import Tensor, nn

from fedens.energy.functional import EnergyFunctional
from fedens.errors import ModelError
from fedens.features.descriptor import Descriptor, descriptor_from_description
from fedens.features.points import PointSet
from fedens.features.surroundings import Points
from fedens.fem.tensor import TensorSpace
from fedens.learning.checkpoints import under
from fedens.learning.domain import TrainingDomain
from fedens.learning.pointwise import PointwiseNetwork
from fedens.learning.scaling import Standardise
from fedens.models.base import EnergyAndForces, How, Model, not_finite
from fedens.models.points.coordinates import area_of_an_atom, moved
from fedens.structure import Structure

#: Share of a feature's range by which a point may lie outside before it counts: a few atoms do not
#: fill the range of their kind. Share of the points that may leave it unmentioned.
_SLACK, _TOLERATED_SHARE = 1.0, 0.05


class PointModel(nn.Module):
    """Energies, and densities where fields are learned, at one set of reference points; float64.

    Outputs are mean + scale * network: hartree for atoms and bonds, hartree/bohr^3 and
    electron/bohr^3 for points of a volume.

    Args:
        points: the set. scaling: of its features. hidden: units of the network's hidden layers.
        n_outputs: 1, or 2 with densities.
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self, points: PointSet, scaling: Standardise, hidden: Sequence[int], n_outputs: int
    ):
        super().__init__()
        self.points, self.scaling = points, scaling
        self.network = PointwiseNetwork(scaling.n_features, hidden, n_outputs).double()
        self.register_buffer("mean", torch.zeros(n_outputs, dtype=torch.float64))
        self.register_buffer("scale", torch.ones(n_outputs, dtype=torch.float64))

    def forward(self, features: Tensor) -> Tensor:
        """Energies and densities (n_points, n_outputs) of features (n_points, n_features)."""
        return self.mean + self.scale * self.network(self.scaling(features))

    @torch.no_grad()
    def start_linear(self, weights: Tensor) -> None:
        """Outputs of weights (n_outputs, n_features + 1), the last that of a constant.

        The perceptron adds nothing yet; outputs are scaled by the spread of the linear ones.
        """
        self.scale.copy_(weights[:, :-1].norm(dim=1).clamp(min=1e-12))
        self.mean.copy_(weights[:, -1])
        self.network.linear.weight.copy_(weights[:, :-1] / self.scale[:, None])
        nn.init.zeros_(self.network.linear.bias)
        if self.network.perceptron is not None:
            for parameter in self.network.perceptron[-1].parameters():
                nn.init.zeros_(parameter)

    def tensors(self) -> dict[str, Tensor]:
        """Weights, and scales of features and outputs, by name."""
        scaling = {"features.mean": self.scaling.mean, "features.scale": self.scaling.scale}
        return self.state_dict() | scaling

    @classmethod
    def restore(cls, tensors: dict[str, Tensor], points: PointSet, hidden: Sequence[int]) -> Self:
        """The model of :meth:`tensors`."""
        scaling = Standardise(tensors.pop("features.mean"), tensors.pop("features.scale"))
        model = cls(points, scaling, hidden, len(tensors["mean"]))
        model.load_state_dict(tensors)
        return model


class PointModels(nn.Module):
    """Several sets as one network."""

    def __init__(self, parts: Sequence[PointModel]):
        super().__init__()
        self.parts = tuple(parts)
        self.registered = nn.ModuleList(parts)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Outputs of all sets, or of the first ones where no more features are given."""
        return [part(own) for part, own in zip(self.parts, features, strict=False)]


@dataclass(frozen=True, eq=False)
class PointsPrediction:
    """What an energy model says of one structure.

    Attributes:
        structure: the atoms. energy: hartree.
        fields: at the points of the first set of a volume, with their ``points`` (n_points, 3),
            bohr, and ``weights`` (n_points,), bohr^3: ``energy_density``, hartree/bohr^3, and
            ``density``, electron/bohr^3, if it was learned; empty where all are atoms or bonds.
    """

    structure: Structure
    energy: float
    fields: dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class EnergyModel(Model):
    """E = sum over sets and their points of w e(D), plus the ions' closed energy if asked for.

    Made by :func:`fedens.models.points.training.train_energy_model`.

    Attributes:
        descriptor: of every point. parts: the sets with their networks.
        functional: where given, the energy of its Gaussian ions E_ion(R) is added: the part that
            no energy density carries.
        domain: of the features and structures of the training.
        history: losses of the training. provenance: its settings and data.
    """

    kind: ClassVar[str] = "points"

    descriptor: Descriptor
    parts: Sequence[PointModel]
    functional: EnergyFunctional | None
    domain: TrainingDomain
    history: dict[str, list[float]] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    @torch.no_grad()
    def predict(
        self, structure: Structure, space: Any = None, positions: Tensor | None = None
    ) -> PointsPrediction:
        """Energy, and fields at the points where they fill a volume; it needs no space.

        Raises:
            ModelError: an energy that is not finite.
        """
        del space
        positions = torch.tensor(structure.positions) if positions is None else positions
        found = self._outputs(structure, positions)
        energy = float(self._sum(structure, positions, found))
        if not math.isfinite(energy):
            raise not_finite(structure, f": energy {energy} hartree")
        fields: dict[str, Tensor] = {}
        for part, (where, weights, outputs) in zip(self.parts, found, strict=True):
            if part.points.per_volume and not fields:
                points = where.points if isinstance(where, TensorSpace) else torch.as_tensor(where)
                fields = {"points": points, "weights": weights}
                fields |= dict(zip(("energy_density", "density"), outputs.T, strict=False))
        return PointsPrediction(structure, energy, fields)

    def energy_of(
        self, structure: Structure, positions: Tensor, cell: Tensor | None = None
    ) -> Tensor:
        """Total energy, hartree; differentiable in positions and, without a mesh, in the cell."""
        return self._sum(structure, positions, self._outputs(structure, positions, cell), cell)

    def energy_and_forces(self, structure: Structure, stress: bool = False) -> EnergyAndForces:
        """Energy, forces and, if wanted, normal stress by one backward pass.

        Raises:
            ModelError: stress of a structure that is not periodic or of a sum over points of a
                mesh; numbers that are not finite.
        """
        if stress and not (structure.periodic and "stress" in self.properties("")):
            raise ModelError("stress is defined for periodic cells and points without a mesh only")
        n = len(structure)
        coordinates = torch.zeros(3 * n + 3 * stress, dtype=torch.float64, requires_grad=True)
        energy = self.energy_of(structure, *moved(structure, coordinates))
        (gradient,) = torch.autograd.grad(energy, coordinates)
        return EnergyAndForces(
            float(energy.detach()),
            -gradient[: 3 * n].reshape(n, 3).numpy(),
            gradient[3 * n :].numpy() / area_of_an_atom(structure) if stress else None,
        ).checked(structure)

    def properties(self, route: str) -> tuple[str, ...]:
        on_space = any(part.points.on_space for part in self.parts)
        return (*super().properties(route), *([] if on_space else ["stress"]))

    def calculate(
        self, structure: Structure, wanted: Collection[str], **how: Unpack[How]
    ) -> dict[str, Any]:
        del how
        return self.energy_and_forces(structure, "stress" in wanted).by_name

    def _outputs(
        self, structure: Structure, positions: Tensor, cell: Tensor | None = None
    ) -> list[tuple[Points, Tensor, Tensor]]:
        """Points, weights and outputs of each set; a warning where the training had no such."""
        found, outside = [], 0
        for part in self.parts:
            where, weights = part.points.points_and_weights(structure, positions, cell)
            features = self.descriptor(where, structure, positions, cell)
            found.append((where, weights, part(features)))
            outside += self.domain.points_outside(features, _SLACK)
        total = sum(len(weights) for _, weights, _ in found)
        complaints = self.domain.complaints(structure)
        if outside > _TOLERATED_SHARE * total:
            complaints.append(f"{outside} of {total} points with features of their own")
        self.warn_outside(structure, complaints)
        return found

    def _sum(
        self,
        structure: Structure,
        positions: Tensor,
        outputs: Sequence[tuple[Points, Tensor, Tensor]],
        cell: Tensor | None = None,
    ) -> Tensor:
        total = positions.new_zeros(())
        if self.functional is not None:
            total = self.functional.electrostatics.ion_energy(structure, positions, cell)
        return total + torch.stack([w @ columns[:, 0] for _, w, columns in outputs]).sum()

    def tensors(self) -> dict[str, Tensor]:
        parts = enumerate(self.parts)
        result = {f"{i}.{k}": v.clone() for i, part in parts for k, v in part.tensors().items()}
        return result | self.domain.tensors

    def describe(self) -> dict[str, Any]:
        return {
            "descriptor": self.descriptor.describe(),
            "sets": [part.points.describe() for part in self.parts],
            "hidden": [list(part.network.hidden) for part in self.parts],
            "functional": None if self.functional is None else self.functional.describe(),
            "domain": self.domain.describe(),
            "history": self.history,
            "provenance": self.provenance,
        }

    @classmethod
    def restore(cls, tensors: dict[str, Tensor], description: Mapping[str, Any]) -> Self:
        functional = description["functional"]
        shapes = zip(description["sets"], description["hidden"], strict=True)
        parts = []
        for i, (points, hidden) in enumerate(shapes):
            own = under(tensors, f"{i}.")
            parts.append(PointModel.restore(own, PointSet.from_description(points), hidden))
        return cls(
            descriptor_from_description(description["descriptor"]),
            parts,
            None if functional is None else EnergyFunctional.from_description(functional),
            TrainingDomain.restore(tensors, description["domain"]),
            description["history"],
            description["provenance"],
        )

    @property
    def summary(self) -> dict[str, Any]:
        return {
            "sums over": ", ".join(map(_in_words, (part.points for part in self.parts))),
            "features": self.descriptor.n_features,
            "hidden units": list(self.parts[0].network.hidden),
            "adds the energy of ions": self.functional is not None,
            "trained on": f"{self.provenance['n_samples']} structures",
        }


def _in_words(points: PointSet) -> str:
    return points.kind if points.element is None else f"{points.kind} of {points.element}"
