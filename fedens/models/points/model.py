"""Energies as sums over any reference points: E = sum of w e(D), forces their exact derivative.

Reference points may be atoms, bonds, a grid, finite-element points or unions of them (Chemical
Environment Modeling Theory, arXiv:2310.18552). A pointwise network per set of points makes the
energy e, and where the points are those of a mesh also the electron density, from descriptors D.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedens.energy.functional import EnergyFunctional
from fedens.errors import ModelError
from fedens.features.descriptor import Descriptor, descriptor_from_description
from fedens.features.points import PointSet
from fedens.learning.pointwise import PointwiseNetwork
from fedens.learning.scaling import Standardise
from fedens.models.storage import read_model, write_model
from fedens.structure import Structure

_KIND = "points"


@dataclass(frozen=True, eq=False)
class PointModel:
    """One set of reference points with the network that speaks there.

    Attributes:
        points: the set. scaling: of its features. network: scaled features in, energies out, and
            densities as a second column where fields were learned; float64.
        mean, scale: (n_outputs,): outputs are mean + scale * network; hartree for atoms and
            bonds, hartree/bohr^3 and electron/bohr^3 for points of a volume.
    """

    points: PointSet
    scaling: Standardise
    network: PointwiseNetwork
    mean: Tensor
    scale: Tensor

    def outputs(self, features: Tensor) -> Tensor:
        """Energies and densities (n_points, n_outputs) of features (n_points, n_features)."""
        return self.mean + self.scale * self.network(self.scaling(features))


@dataclass(frozen=True, eq=False)
class EnergyModel:
    """E = sum over sets and their points of w e(D), plus the ions' closed energy if asked for.

    Made by :func:`fedens.models.points.training.train_energy_model`.

    Attributes:
        descriptor: what every point sees. parts: the sets with their networks.
        functional: where given, the energy of its Gaussian ions E_ion(R) is added: the part that
            no energy density carries.
        provenance: settings and data of the training.
    """

    descriptor: Descriptor
    parts: Sequence[PointModel]
    functional: EnergyFunctional | None = None
    provenance: dict[str, Any] = field(default_factory=dict)

    def energy(self, structure: Structure, positions: Tensor | None = None) -> Tensor:
        """Total energy, hartree, a scalar; differentiable in positions (n_atoms, 3), bohr."""
        if positions is None:
            positions = torch.tensor(structure.positions)
        total = positions.new_zeros(())
        if self.functional is not None:
            total = self.functional.ion_energy(structure, positions)
        for part in self.parts:
            where, weights = part.points.points_and_weights(structure, positions)
            features = self.descriptor(where, structure, positions)
            total = total + weights @ part.outputs(features)[:, 0]
        return total

    def energy_and_forces(self, structure: Structure) -> tuple[float, NDArray[np.float64]]:
        """Energy, hartree, and forces (n_atoms, 3), hartree/bohr, minus its exact gradient.

        Raises:
            ModelError: a result that is not finite.
        """
        positions = torch.tensor(structure.positions, requires_grad=True)
        energy = self.energy(structure, positions)
        (gradient,) = torch.autograd.grad(energy, positions)
        bad = torch.nonzero(~torch.isfinite(gradient).all(dim=1))[:, 0]
        if len(bad) or not torch.isfinite(energy):
            raise ModelError(
                f"energy {float(energy)} hartree, force on atom {bad[:1].tolist()} not finite: "
                "the structure is far from those of the training"
            )
        return float(energy.detach()), -gradient.numpy()

    @torch.no_grad()
    def fields(self, structure: Structure) -> dict[str, Tensor]:
        """``energy_density`` (hartree/bohr^3), and ``density`` (electron/bohr^3) if learned, at
        the points of the first set of a volume, with their ``points`` and ``weights``.

        Raises:
            ModelError: all sets are atoms or bonds.
        """
        for part in self.parts:
            if part.points.per_volume:
                where, weights = part.points.points_and_weights(structure)
                columns = part.outputs(self.descriptor(where, structure)).T
                found = dict(zip(("energy_density", "density"), columns, strict=False))
                return found | {"points": getattr(where, "points", where), "weights": weights}
        raise ModelError("this model sums over atoms or bonds: it has no fields in space")

    def save(self, path: str | Path) -> None:
        """Write the model's folder: safetensors and JSON.

        Raises:
            OutputError: when it cannot be written.
        """
        tensors: dict[str, Tensor] = {}
        for i, part in enumerate(self.parts):
            own = part.network.state_dict() | part.scaling.to_tensors()
            own |= {"output_mean": part.mean, "output_scale": part.scale}
            tensors |= {f"{i}.{name}": value.clone() for name, value in own.items()}
        write_model(
            Path(path),
            tensors,
            {
                "kind": _KIND,
                "descriptor": self.descriptor.describe(),
                "sets": [part.points.describe() for part in self.parts],
                "hidden": [list(part.network.hidden) for part in self.parts],
                "functional": None if self.functional is None else self.functional.describe(),
                "provenance": self.provenance,
            },
        )

    @classmethod
    def load(cls, path: str | Path) -> EnergyModel:
        """Read a model's folder; nothing in it is executed.

        Raises:
            ModelError: missing or broken files, or another kind of model.
        """
        tensors, description = read_model(Path(path))
        if description.get("kind") != _KIND:
            raise ModelError(f"{path} holds no energy model: read it with Predictor.load")
        try:
            parts = [
                _restored(tensors, f"{i}.", points, hidden)
                for i, (points, hidden) in enumerate(
                    zip(description["sets"], description["hidden"], strict=True)
                )
            ]
            functional = description["functional"]
            return cls(
                descriptor_from_description(description["descriptor"]),
                parts,
                None if functional is None else EnergyFunctional.from_description(functional),
                description["provenance"],
            )
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ModelError(f"the model in {path} is broken: {error}") from error


def _restored(
    tensors: dict[str, Tensor], prefix: str, points: dict[str, Any], hidden: Sequence[int]
) -> PointModel:
    own = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    mean, scale = own.pop("output_mean"), own.pop("output_scale")
    scaling = Standardise(own.pop("mean"), own.pop("scale"))
    network = PointwiseNetwork(scaling.n_features, hidden, len(mean)).double()
    network.load_state_dict(own)
    return PointModel(PointSet.from_description(points), scaling, network, mean, scale)
