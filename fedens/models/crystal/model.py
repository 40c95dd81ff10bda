"""A trained model: from a structure to fields, energies, forces and stress."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fedens.atoms.baseline import baseline_density
from fedens.data.density import Density
from fedens.energy.forces import hellmann_feynman_forces
from fedens.energy.functional import EnergyFunctional
from fedens.errors import ExtrapolationWarning, ModelError
from fedens.features.descriptor import Descriptor, descriptor_from_description
from fedens.fem.tensor import TensorSpace
from fedens.fields import ENERGY_DENSITIES
from fedens.learning.domain import TrainingDomain
from fedens.learning.pointwise import FieldNetwork
from fedens.learning.scaling import Standardise
from fedens.models.crystal.prediction import (
    ENERGY_ROUTES,
    EnergyAndForces,
    Prediction,
    Uncertainty,
    check_route,
    density_from_root,
)
from fedens.models.storage import DESCRIPTION_FILE, WEIGHTS_FILE, read_model, write_model
from fedens.structure import Structure

#: What the networks return, in order: the root density and the energy densities.
OUTPUTS = ("root_density", *ENERGY_DENSITIES)
#: Points per block of the networks; with more of them, each block is computed again for
#: derivatives instead of being kept.
_BLOCK_POINTS = 50_000
#: Share of the points that may leave the training's range unmentioned.
_TOLERATED_SHARE = 0.005


@dataclass(frozen=True, eq=False)
class Predictor:
    """Predicts density, energy densities, energies, forces and stress of a structure.

    All but :meth:`predict` warn (``ExtrapolationWarning``) of structures that leave the range of
    the training.

    Attributes:
        descriptor: what the networks see. scaling: of its columns.
        networks: one, or a committee whose mean is the prediction.
        target_scales: spread of each output in training, (4,): see :data:`OUTPUTS`.
        functional: the parent functional; energy densities are learned as differences to its own
            at the predicted density. baseline: name of the density whose root the root density is
            learned as a difference to.
        spacing, order: of the spaces used when none is given; spacing in bohr.
        domain: what training has seen, to notice structures that leave it.
        calibration: factor from the committee's spread to errors of structures that a member was
            not trained on, 1 where there were none.
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
    domain: TrainingDomain
    calibration: float = 1.0
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

    def member(self, index: int) -> Predictor:
        """The predictor of one member of the committee alone."""
        return replace(self, networks=[self.networks[index]])

    def predict(
        self,
        structure: Structure,
        space: TensorSpace | None = None,
        positions: Tensor | None = None,
        refinement_steps: int = 0,
    ) -> Prediction:
        """Fields of a structure at the points of a space.

        Args:
            space: default :meth:`space_for`; a scaled one to differentiate in the cell.
            positions: (n_atoms, 3), bohr; replaces the structure's own, to differentiate.
            refinement_steps: minimisation steps of the functional from the predicted density.

        Raises:
            SpaceError, PseudopotentialError, DescriptorError: what does not fit together.
            ConvergenceError: a refinement that moves away from the minimum.
        """
        space = space or self.space_for(structure)
        bound = self.functional.bind(structure, space, positions)
        base = baseline_density(self.baseline, structure, bound, positions)
        features = self.scaled_features(space, structure, positions)
        roots = self._committee_of(lambda network, x: network.root_density(x), features)
        roots = base.root + self.target_scales[0] * roots[:, :, 0]
        density = bound.refined(density_from_root(bound, roots.mean(dim=0)), refinement_steps)
        recorded = torch.is_grad_enabled()

        def corrections() -> Tensor:
            if not self.target_scales[1:].any():
                raise ModelError(
                    "this model has learned densities alone: it has no energy densities; use the "
                    "route 'functional' or 'hellmann_feynman' where its functional may be trusted"
                )
            with torch.set_grad_enabled(recorded):
                outputs = self._committee_of(lambda net, x: net.energy_densities(x), features)
                return self.target_scales[1:] * outputs

        points_outside = self.domain.points_outside(features)
        return Prediction(
            structure, density, roots, self.calibration, bound, points_outside, corrections
        )

    def scaled_features(
        self, space: TensorSpace, structure: Structure, positions: Tensor | None = None
    ) -> Tensor:
        """What the networks see at the points, (n_points, n_features), in their precision."""
        features = self.scaling(self.descriptor(space, structure, positions))
        return features.to(next(self._committee.parameters()).dtype)

    def _committee_of(
        self, evaluate: Callable[[FieldNetwork, Tensor], Tensor], features: Tensor
    ) -> Tensor:
        """Every network's outputs, (n_members, n_points, n_outputs), float64."""

        def outputs(block: Tensor) -> Tensor:
            return torch.stack([evaluate(network, block) for network in self.networks]).double()

        blocks = features.split(_BLOCK_POINTS)
        if len(blocks) == 1 or not torch.is_grad_enabled():
            return torch.cat([outputs(block) for block in blocks], dim=1)
        parts = [checkpoint(outputs, block, use_reentrant=False) for block in blocks]
        return torch.cat(parts, dim=1)

    @torch.no_grad()
    def _warn_outside(self, prediction: Prediction) -> None:
        structure = prediction.structure
        complaints = self.domain.complaints(structure)
        total = prediction.bound.space.n_points
        if prediction.points_outside > _TOLERATED_SHARE * total:
            complaints.append(
                f"{prediction.points_outside} of {total} points with features of their own"
            )
        if not complaints:
            return
        certainty = "there is no committee to tell the uncertainty"
        if prediction.density_uncertainty is not None:
            share = prediction.density_uncertainty
            certainty = f"uncertainty of the density {100 * share:.2g} % (NMAPE)"
        warnings.warn(
            f"{structure.formula} leaves the range of the training: {'; '.join(complaints)}; "
            f"{certainty}",
            ExtrapolationWarning,
            stacklevel=3,
        )

    @torch.no_grad()
    def density(
        self, structure: Structure, space: TensorSpace | None = None, refinement_steps: int = 0
    ) -> Density:
        """Predicted density of a structure; it holds exactly N electrons."""
        prediction = self.predict(structure, space, refinement_steps=refinement_steps)
        self._warn_outside(prediction)
        return prediction.density

    @torch.no_grad()
    def energy(
        self,
        structure: Structure,
        route: str = "functional",
        space: TensorSpace | None = None,
        refinement_steps: int = 0,
    ) -> float:
        """Predicted total energy, hartree, by ``functional`` or ``energy_density``."""
        prediction = self.predict(structure, space, refinement_steps=refinement_steps)
        self._warn_outside(prediction)
        return float(prediction.energy(route))

    def forces(
        self,
        structure: Structure,
        route: str = "functional",
        space: TensorSpace | None = None,
        refinement_steps: int = 0,
    ) -> NDArray[np.float64]:
        """Forces (n_atoms, 3), hartree/bohr, on a space (default :meth:`space_for`).

        ``functional``, ``energy_density``: exact derivatives of the energy of that route, by one
        backward pass through the model. ``hellmann_feynman``: from the density alone; not the
        derivative of a predicted energy.
        """
        check_route(route)
        if route == "hellmann_feynman":
            density = self.density(structure, space, refinement_steps)
            return hellmann_feynman_forces(self.functional, structure, density).cpu().numpy()
        return self.energy_and_forces(structure, route, space, refinement_steps).forces

    def energy_and_forces(
        self,
        structure: Structure,
        route: str = "functional",
        space: TensorSpace | None = None,
        refinement_steps: int = 0,
        stress: bool = False,
    ) -> EnergyAndForces:
        """Energy, forces and, if wanted, stress by one backward pass through everything.

        The stress stretches space, ions and features together, at a fixed number of elements.

        Raises:
            ModelError: a route without an energy; stress of a structure that is not periodic;
                energies or forces that are not finite.
        """
        check_route(route, ENERGY_ROUTES)
        if stress and not structure.periodic:
            raise ModelError("stress is defined for periodic cells only")
        space = space or self.space_for(structure)
        positions = torch.tensor(structure.positions, device=space.device, requires_grad=True)
        stretch = torch.ones(3, dtype=torch.float64, device=space.device, requires_grad=stress)
        moved, stretched = positions, space
        if stress:
            moved, stretched = positions * stretch, space.scaled(stretch)
        prediction = self.predict(structure, stretched, moved, refinement_steps)
        energy = prediction.energy(route)
        wanted = [positions, stretch] if stress else [positions]
        gradients = torch.autograd.grad(energy, wanted)
        result = EnergyAndForces(
            float(energy.detach()),
            -gradients[0].cpu().numpy(),
            gradients[1].cpu().numpy() / structure.volume if stress else None,
        )
        _check_finite(structure, result)
        self._warn_outside(prediction)
        return result

    def refinement(
        self, structure: Structure, steps: Sequence[int], space: TensorSpace | None = None
    ) -> list[EnergyAndForces]:
        """The functional route after some numbers of minimisation steps, from one prediction.

        Raises:
            ModelError: energies or forces that are not finite.
            FunctionalError: steps where a term of the functional has no second derivative.
        """
        space = space or self.space_for(structure)
        positions = torch.tensor(structure.positions, device=space.device, requires_grad=True)
        prediction = self.predict(structure, space, positions)
        bound, results = prediction.bound, []
        for count in steps:
            energy = bound.energy(bound.refined(prediction.density, count))
            (gradient,) = torch.autograd.grad(energy, positions, retain_graph=True)
            numbers = EnergyAndForces(float(energy.detach()), -gradient.cpu().numpy(), None)
            _check_finite(structure, numbers)
            results.append(numbers)
        self._warn_outside(prediction)
        return results

    def uncertainty(
        self,
        structure: Structure,
        route: str = "functional",
        space: TensorSpace | None = None,
        refinement_steps: int = 0,
    ) -> Uncertainty:
        """Estimated errors of a route's energy and forces.

        ``functional``: what one more minimisation step of the functional changes; no committee is
        needed. Other routes: the committee's standard deviation times :attr:`calibration`.

        Raises:
            ModelError: a route that needs a committee, and none is there.
        """
        check_route(route)
        space = space or self.space_for(structure)
        if route == "functional":
            steps = (refinement_steps, refinement_steps + 1)
            return Uncertainty.of_step(*self.refinement(structure, steps, space))
        if len(self.networks) == 1:
            raise ModelError(
                f"route {route!r} takes its uncertainty from a committee, and this model has one "
                "network; train with a committee of 2 or more"
            )
        if route == "hellmann_feynman":
            with torch.no_grad():
                prediction = self.predict(structure, space)
            spread = prediction.force_uncertainty(refinement_steps)
            assert spread is not None
            return Uncertainty(None, spread)
        members = [self.member(i) for i in range(len(self.networks))]
        numbers = [m.energy_and_forces(structure, route, space, refinement_steps) for m in members]
        energies, forces = [n.energy for n in numbers], [n.forces for n in numbers]
        return Uncertainty(
            self.calibration * float(np.std(energies, ddof=1)),
            self.calibration * np.std(forces, axis=0, ddof=1),
        )

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
        tensors = dict(self._committee.state_dict())
        tensors |= {"scaling.mean": self.scaling.mean, "scaling.scale": self.scaling.scale}
        tensors |= {"target_scales": self.target_scales, **self.domain.tensors}
        description = {
            "kind": "crystal",
            "descriptor": self.descriptor.describe(),
            "functional": self.functional.describe(),
            "baseline": self.baseline,
            "spacing_bohr": self.spacing,
            "order": self.order,
            "hidden": list(self.hidden),
            "outputs": list(OUTPUTS),
            "committee": len(self.networks),
            "domain": self.domain.describe(),
            "calibration": self.calibration,
            "history": self.history,
            "provenance": self.provenance,
        }
        write_model(Path(path), tensors, description)

    @classmethod
    def load(cls, path: str | Path, device: torch.device | str = "cpu") -> Predictor:
        """Read a folder written by :meth:`save`; nothing in it is executed.

        Raises:
            ModelError: missing or broken files, another schema, weights of another descriptor.
        """
        path = Path(path)
        tensors, description = read_model(path)
        try:
            predictor = cls._restore(tensors, description)
        except KeyError as error:
            raise ModelError(f"{path} lacks {error}: the model folder is not complete") from error
        _check_columns(path, predictor.descriptor, predictor.scaling)
        _load_weights(path, predictor._committee, tensors)
        return predictor.to(device)

    @classmethod
    def _restore(cls, tensors: dict[str, Tensor], description: Mapping[str, Any]) -> Predictor:
        """The predictor without its networks' weights, which are left over in ``tensors``."""
        descriptor = descriptor_from_description(description["descriptor"])
        hidden = tuple(description["hidden"])
        return cls(
            descriptor=descriptor,
            scaling=Standardise(tensors.pop("scaling.mean"), tensors.pop("scaling.scale")),
            networks=[
                FieldNetwork(descriptor.n_features, hidden, len(ENERGY_DENSITIES))
                for _ in range(description["committee"])
            ],
            target_scales=tensors.pop("target_scales"),
            functional=EnergyFunctional.from_description(description["functional"]),
            baseline=description["baseline"],
            spacing=description["spacing_bohr"],
            order=description["order"],
            hidden=hidden,
            domain=TrainingDomain.restore(tensors, description["domain"]),
            calibration=description["calibration"],
            history=description["history"],
            provenance=description["provenance"],
        )


def _check_finite(structure: Structure, result: EnergyAndForces) -> None:
    broken = np.flatnonzero(~np.isfinite(result.forces).all(axis=1))
    if len(broken) or not np.isfinite(result.energy):
        atoms = ", ".join(f"{structure.symbols[i]} {i}" for i in broken[:5]) or "no single atom"
        raise ModelError(
            f"prediction for {structure.formula} is not finite: energy {result.energy} hartree, "
            f"forces on {atoms}; the structure may be far outside the training's range"
        )


def _check_columns(path: Path, descriptor: Descriptor, scaling: Standardise) -> None:
    if descriptor.n_features != scaling.n_features:
        raise ModelError(
            f"{path}: the weights expect {scaling.n_features} features, the descriptor in "
            f"{DESCRIPTION_FILE} makes {descriptor.n_features}: they belong to different models"
        )


def _load_weights(path: Path, committee: nn.ModuleList, tensors: Mapping[str, Tensor]) -> None:
    try:
        committee.load_state_dict(dict(tensors))
    except RuntimeError as error:
        raise ModelError(f"{path}: {WEIGHTS_FILE} does not fit {DESCRIPTION_FILE}: {error}") from (
            error
        )
