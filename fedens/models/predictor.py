"""A trained model: from a structure to fields, energies and forces; saved without pickling."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fedens.baseline import baseline_density
from fedens.density import Density
from fedens.energy.forces import hellmann_feynman_forces
from fedens.energy.functional import BoundFunctional, EnergyFunctional
from fedens.errors import ModelError
from fedens.features.descriptor import Descriptor, descriptor_from_description
from fedens.features.scaling import Standardise
from fedens.fem.tensor import TensorSpace
from fedens.files import write_atomically
from fedens.models.pointwise import FieldNetwork
from fedens.sample import ENERGY_DENSITIES
from fedens.structure import Structure

SCHEMA_VERSION = 1
#: What the networks return, in order: the root density and the energy densities.
OUTPUTS = ("root_density", *ENERGY_DENSITIES)
#: Ways to an energy, and to forces.
ENERGY_ROUTES = ("functional", "energy_density")
ROUTES = (*ENERGY_ROUTES, "hellmann_feynman")

_WEIGHTS_FILE, _DESCRIPTION_FILE = "weights.safetensors", "model.json"


@dataclass(frozen=True, eq=False)
class Prediction:
    """Predicted fields of one structure on a space; differentiable tensors in atomic units.

    Attributes:
        density: exactly N electrons, projected on the space.
        raw_root: root density u at the points before projection and normalisation, (n_points,).
        energy_densities: ``kinetic``, ``xc``, ``electrostatic``, each (n_points,).
        spread: standard deviation of the density over the committee, (n_points,), or None.
        bound: the parent functional for this structure on this space.
    """

    density: Density
    raw_root: Tensor
    energy_densities: dict[str, Tensor]
    spread: Tensor | None
    bound: BoundFunctional

    @property
    def raw_number_of_electrons(self) -> float:
        """Electrons of the prediction before it is normalised."""
        return float(self.density.space.integrate(self.raw_root.detach() ** 2))

    def energy(self, route: str) -> Tensor:
        """Total energy, hartree.

        ``functional``: the parent functional at the predicted density; second order in its
        error. ``energy_density``: the integral of the predicted energy densities plus the ions'
        own energy; first order in their errors.
        """
        if route == "functional":
            return self.bound.energy(self.density)
        if route == "energy_density":
            total = sum(self.energy_densities.values())
            assert isinstance(total, Tensor)
            return self.density.space.integrate(total) + self.bound.ions.energy
        raise ModelError(f"no energy by route {route!r}; expected 'functional' or 'energy_density'")


@dataclass(frozen=True, eq=False)
class Predictor:
    """Predicts density, energy densities, energies and forces of a structure.

    Attributes:
        descriptor: what the networks see. scaling: of its columns.
        networks: one, or a committee whose mean is the prediction.
        target_scales: spread of each output in training, (4,): see :data:`OUTPUTS`.
        functional: the parent functional; energy densities are learned as differences to its own
            at the predicted density. baseline: name of the density whose root the root density is
            learned as a difference to.
        spacing, order: of the spaces used when none is given; spacing in bohr.
        history: training record: ``step``, ``training_loss``, ``validation_loss`` lists.
        provenance: data, seed, options of the training.
    """

    descriptor: Descriptor
    scaling: Standardise
    networks: Sequence[FieldNetwork]
    target_scales: Tensor
    functional: EnergyFunctional
    baseline: str
    spacing: float
    order: int
    hidden: tuple[int, ...]
    history: dict[str, list[float]] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    def space_for(self, structure: Structure) -> TensorSpace:
        """The space of the training's resolution for a structure, on the model's device."""
        return TensorSpace.for_structure(structure, self.spacing, self.order, device=self.device)

    @property
    def device(self) -> torch.device:
        """Device of the networks."""
        return self.target_scales.device

    @cached_property
    def _committee(self) -> nn.ModuleList:
        return nn.ModuleList(self.networks)

    def predict(
        self,
        structure: Structure,
        space: TensorSpace | None = None,
        positions: Tensor | None = None,
    ) -> Prediction:
        """Fields of a structure at the points of a space.

        Args:
            space: default :meth:`space_for`. positions: (n_atoms, 3), bohr; replaces the
                structure's own, to differentiate.

        Raises:
            SpaceError, PseudopotentialError, DescriptorError: what does not fit together.
        """
        space = space or self.space_for(structure)
        bound = self.functional.bind(structure, space, positions)
        base = baseline_density(self.baseline, structure, bound, positions)
        features = self.scaled_features(space, structure, positions)
        roots = torch.stack([n.root_density(features)[:, 0] for n in self.networks]).double()
        roots = base.root + self.target_scales[0] * roots
        raw_root = roots.mean(dim=0)
        density = Density.from_root(space, space.project(raw_root)).normalised(bound.electrons)
        corrections = torch.stack([n.energy_densities(features) for n in self.networks]).double()
        corrections = self.target_scales[1:] * corrections.mean(dim=0)
        known = bound.energy_densities(density)
        energies = {name: known[name] + corrections[:, i] for i, name in enumerate(known)}
        spread = 2 * raw_root.abs() * roots.std(dim=0) if len(roots) > 1 else None
        return Prediction(density, raw_root, energies, spread, bound)

    def scaled_features(
        self, space: TensorSpace, structure: Structure, positions: Tensor | None = None
    ) -> Tensor:
        """What the networks see at the points, (n_points, n_features), in their precision."""
        features = self.scaling(self.descriptor(space, structure, positions))
        return features.to(next(self._committee.parameters()).dtype)

    @torch.no_grad()
    def density(self, structure: Structure, space: TensorSpace | None = None) -> Density:
        """Predicted density of a structure; it holds exactly N electrons."""
        return self.predict(structure, space).density

    @torch.no_grad()
    def energy(self, structure: Structure, route: str = "functional") -> float:
        """Predicted total energy, hartree, by ``functional`` or ``energy_density``."""
        return float(self.predict(structure).energy(route))

    def forces(
        self, structure: Structure, route: str = "functional", space: TensorSpace | None = None
    ) -> NDArray[np.float64]:
        """Forces (n_atoms, 3), hartree/bohr, on a space (default :meth:`space_for`).

        ``functional``, ``energy_density``: exact derivatives of the energy of that route, by one
        backward pass through the model. ``hellmann_feynman``: from the density alone; not the
        derivative of a predicted energy.
        """
        if route == "hellmann_feynman":
            density = self.density(structure, space)
            return hellmann_feynman_forces(self.functional, structure, density).cpu().numpy()
        _check_route(route)
        positions = torch.tensor(structure.positions, device=self.device, requires_grad=True)
        energy = self.predict(structure, space, positions).energy(route)
        (gradient,) = torch.autograd.grad(energy, positions)
        return -gradient.cpu().numpy()

    def to(self, device: torch.device | str) -> Predictor:
        """The same predictor with its networks on another device."""
        self._committee.to(device)
        object.__setattr__(self, "target_scales", self.target_scales.to(device))
        return self

    def save(self, path: str | Path) -> None:
        """Write the folder ``path``: ``weights.safetensors`` and ``model.json``.

        Raises:
            OutputError: when the folder cannot be written.
        """
        path = Path(path)
        tensors = {k: v.cpu().contiguous() for k, v in self._committee.state_dict().items()}
        tensors |= {"scaling.mean": self.scaling.mean, "scaling.scale": self.scaling.scale}
        tensors["target_scales"] = self.target_scales.cpu()
        write_atomically(path / _WEIGHTS_FILE, lambda temporary: save_file(tensors, temporary))
        description = {
            "schema_version": SCHEMA_VERSION,
            "kind": "fedens pointwise predictor",
            "descriptor": self.descriptor.describe(),
            "functional": self.functional.describe(),
            "baseline": self.baseline,
            "spacing_bohr": self.spacing,
            "order": self.order,
            "hidden": list(self.hidden),
            "outputs": list(OUTPUTS),
            "committee": len(self.networks),
            "history": self.history,
            "provenance": self.provenance,
        }
        write_atomically(path / _DESCRIPTION_FILE, json.dumps(description, indent=1))

    @classmethod
    def load(cls, path: str | Path, device: torch.device | str = "cpu") -> Predictor:
        """Read a folder written by :meth:`save`; nothing in it is executed.

        Raises:
            ModelError: missing or broken files, a newer schema, weights of another descriptor.
        """
        path = Path(path)
        description = _read_description(path / _DESCRIPTION_FILE)
        tensors = _read_weights(path / _WEIGHTS_FILE)
        try:
            descriptor = descriptor_from_description(description["descriptor"])
            hidden = tuple(description["hidden"])
            networks = [
                FieldNetwork(descriptor.n_features, hidden, len(ENERGY_DENSITIES))
                for _ in range(description["committee"])
            ]
            scaling = Standardise(tensors.pop("scaling.mean"), tensors.pop("scaling.scale"))
            scales = tensors.pop("target_scales")
            functional = EnergyFunctional.from_description(description["functional"])
            predictor = cls(
                descriptor,
                scaling,
                networks,
                scales,
                functional,
                description["baseline"],
                description["spacing_bohr"],
                description["order"],
                hidden,
                description["history"],
                description["provenance"],
            )
        except KeyError as error:
            raise ModelError(f"{path} lacks {error}: the model folder is not complete") from error
        _check_columns(path, descriptor, scaling)
        _load_weights(path, predictor._committee, tensors)
        return predictor.to(device)


def _check_route(route: str) -> None:
    if route not in ROUTES:
        raise ModelError(f"route is {route!r}; expected one of {', '.join(ROUTES)}")


def _check_columns(path: Path, descriptor: Descriptor, scaling: Standardise) -> None:
    if descriptor.n_features != scaling.n_features:
        raise ModelError(
            f"{path}: the weights expect {scaling.n_features} features, the descriptor in "
            f"{_DESCRIPTION_FILE} makes {descriptor.n_features}: they belong to different models"
        )


def _load_weights(path: Path, committee: nn.ModuleList, tensors: Mapping[str, Tensor]) -> None:
    try:
        committee.load_state_dict(dict(tensors))
    except RuntimeError as error:
        raise ModelError(
            f"{path}: {_WEIGHTS_FILE} does not fit {_DESCRIPTION_FILE}: {error}"
        ) from error


def _read_description(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ModelError(f"no model in {path.parent}: {path.name} is missing")
    try:
        description = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{path} is not JSON ({error}): truncated or not a model") from error
    version = description.get("schema_version") if isinstance(description, dict) else None
    if not isinstance(version, int):
        raise ModelError(f"{path} has no schema version: not a fedens model")
    if version > SCHEMA_VERSION:
        raise ModelError(
            f"{path} has schema version {version}, this fedens reads up to {SCHEMA_VERSION}: "
            "install a newer fedens"
        )
    return description


def _read_weights(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise ModelError(f"no weights in {path.parent}: {path.name} is missing")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ModelError(f"{path} is not a safetensors file ({error}): truncated?") from error
