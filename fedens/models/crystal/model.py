"""A trained model: from a structure to fields, energies, forces and stress."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, ClassVar, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedens.atoms.baseline import Baseline
from fedens.data.density import Density
from fedens.energy.forces import hellmann_feynman_forces
from fedens.energy.functional import EnergyFunctional
from fedens.errors import ModelError
from fedens.features.descriptor import Descriptor, descriptor_from_description
from fedens.fem.tensor import TensorSpace
from fedens.fields import ENERGY_DENSITIES
from fedens.learning.domain import TrainingDomain
from fedens.learning.pointwise import FieldNetwork, committee_outputs
from fedens.learning.scaling import Standardise
from fedens.models.base import EnergyAndForces, How, Model, Uncertainty
from fedens.models.crystal.labels import KohnShamLabels
from fedens.models.crystal.prediction import (
    ENERGY_ROUTES,
    NO_FUNCTIONAL,
    ROUTES,
    Prediction,
    change_of_step,
    check_route,
    density_from_root,
)
from fedens.models.storage import DESCRIPTION_FILE
from fedens.reference.baseline import any_baseline_from_description
from fedens.structure import Structure

#: What the networks return, in order: the root density and the energy densities.
OUTPUTS = ("root_density", *ENERGY_DENSITIES)
#: Share of the points that may leave the training's range unmentioned.
_TOLERATED_SHARE = 0.005

_CONSERVATIVE = ("energy", "free_energy", "forces", "stress")
_UNCERTAINTIES = ("energy_uncertainty", "forces_uncertainty")


@dataclass(frozen=True, eq=False)
class Predictor(Model):
    """Predicts density, energy densities, energies, forces and stress of a structure.

    All but :meth:`predict` warn (``ExtrapolationWarning``) of structures that leave the range of
    the training. The methods know three ways to an energy and forces: ``functional``, the parent
    functional at the predicted density; ``energy_density``, the sum of the predicted ones; and
    ``hellmann_feynman``, forces of the density alone, which are no derivative of an energy. They
    work on a ``space``, by default :meth:`space_for`, and with ``refinement_steps`` take steps of
    the functional's minimisation from the predicted density.

    Attributes:
        descriptor: of the networks' features. scaling: of its columns.
        networks: one, or a committee whose mean is the prediction.
        target_scales: spread of each output in training, (4,): see :data:`OUTPUTS`.
        baseline: the density whose root the root density is learned as a difference to.
        functional: the parent functional; energy densities are learned as differences to its own
            at the predicted density. None: they are learned as they are, and there are neither
            total energies nor forces.
        spacing, order: of the spaces used when none is given; spacing in bohr.
        domain: range of the training, to notice structures that leave it.
        calibration: factor from the committee's spread to errors of structures that a member was
            not trained on, 1 where there were none.
        history: training record: ``step``, ``training_loss``, ``validation_loss`` lists.
        provenance: data, seed, options of the training.
        labels: what was learned from, where that is not the functional's own data but Kohn-Sham
            theory. The functional is then only where the learned differences begin, and
            :attr:`routes` are few.
    """

    kind: ClassVar[str] = "crystal"

    descriptor: Descriptor
    scaling: Standardise
    networks: Sequence[FieldNetwork]
    target_scales: Tensor
    functional: EnergyFunctional | None
    baseline: Baseline
    spacing: float
    order: int
    hidden: tuple[int, ...]
    domain: TrainingDomain
    calibration: float = 1.0
    history: dict[str, list[float]] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    labels: KohnShamLabels | None = None

    def space_for(self, structure: Structure) -> TensorSpace:
        """The space of the training's resolution for a structure, on the model's device."""
        return TensorSpace.for_structure(structure, self.spacing, self.order, device=self.device)

    @property
    def device(self) -> torch.device:
        return self.target_scales.device

    @property
    def parent(self) -> EnergyFunctional:
        """The functional.

        Raises:
            ModelError: there is none.
        """
        if self.functional is None:
            raise ModelError(NO_FUNCTIONAL)
        return self.functional

    @property
    def theory(self) -> dict[str, Any]:
        """Description of the functional that the training data are of.

        Raises:
            ModelError: nobody has said.
        """
        return self.parent.describe() if self.labels is None else dict(self.labels.theory)

    @property
    def routes(self) -> tuple[str, ...]:
        """Ways to energies or forces of the training data's theory."""
        if self.functional is None:
            return ()
        labels = self.labels
        return tuple(r for r in ROUTES if labels is None or not labels.missing(r))

    def _check(self, route: str, allowed: tuple[str, ...] = ROUTES) -> None:
        check_route(route, allowed)
        if self.functional is not None and self.labels is not None:
            self.labels.check(route)

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
        """Fields of a structure at the points of a space; see the class.

        Raises:
            SpaceError, PseudopotentialError, DescriptorError: what does not fit together.
            ConvergenceError: a refinement that moves away from the minimum.
        """
        space = space or self.space_for(structure)
        base = self.baseline.density(structure, space, positions)
        features = self.scaled_features(space, structure, positions)
        learned = committee_outputs([net.root_density for net in self.networks], features)
        roots = base.root + self.target_scales[0] * learned[:, :, 0]
        electrons = (self.functional or self.baseline).number_of_electrons(structure)
        return Prediction(
            structure,
            density_from_root(space, roots.mean(dim=0), electrons),
            roots,
            self.calibration,
            electrons,
            self.functional.bind(structure, space, positions) if self.functional else None,
            self.domain.points_outside(features),
            partial(self._corrections, features, torch.is_grad_enabled()),
            self.labels,
        ).refined(refinement_steps)

    def _corrections(self, features: Tensor, recorded: bool) -> Tensor:
        """:attr:`Prediction.member_corrections`."""
        if not self.target_scales[1:].any():
            raise ModelError(
                "this model has learned densities alone: it has no energy densities; use the "
                "route 'functional' or 'hellmann_feynman' where its functional may be trusted"
            )
        with torch.set_grad_enabled(recorded):
            outputs = committee_outputs([net.energy_densities for net in self.networks], features)
            return self.target_scales[1:] * outputs

    def scaled_features(
        self, space: TensorSpace, structure: Structure, positions: Tensor | None = None
    ) -> Tensor:
        """Features at the points, (n_points, n_features), in the networks' precision."""
        features = self.scaling(self.descriptor(space, structure, positions))
        return features.to(next(self._committee.parameters()).dtype)

    def _warning(self, prediction: Prediction) -> tuple[Structure, list[str], str]:
        """What :meth:`warn_outside` needs."""
        structure, share = prediction.structure, prediction.relative_density_uncertainty
        complaints = self.domain.complaints(structure)
        total, outside = prediction.density.space.n_points, prediction.points_outside
        if outside > _TOLERATED_SHARE * total:
            complaints.append(f"{outside} of {total} points with features of their own")
        certainty = "there is no committee to tell the uncertainty"
        if share is not None:
            certainty = f"uncertainty of the density {100 * share:.2g} % (NMAPE)"
        return structure, complaints, certainty

    def energy_of(self, structure: Structure, positions: Tensor) -> Tensor:
        """Total energy by the functional route."""
        return self.predict(structure, positions=positions).energy_of("functional")

    @torch.no_grad()
    def density(
        self, structure: Structure, space: TensorSpace | None = None, refinement_steps: int = 0
    ) -> Density:
        """It holds exactly N electrons."""
        prediction = self.predict(structure, space, refinement_steps=refinement_steps)
        self.warn_outside(*self._warning(prediction))
        return prediction.density

    @torch.no_grad()
    def energy(
        self,
        structure: Structure,
        route: str = "functional",
        space: TensorSpace | None = None,
        refinement_steps: int = 0,
    ) -> float:
        """Total energy, hartree, by ``functional`` or ``energy_density``."""
        prediction = self.predict(structure, space, refinement_steps=refinement_steps)
        self.warn_outside(*self._warning(prediction))
        return float(prediction.energy_of(route))

    def forces(
        self,
        structure: Structure,
        route: str = "functional",
        space: TensorSpace | None = None,
        refinement_steps: int = 0,
    ) -> NDArray[np.float64]:
        """Forces (n_atoms, 3), hartree/bohr: minus the energy's derivative, or Hellmann-Feynman."""
        self._check(route)
        if route == "hellmann_feynman":
            density = self.density(structure, space, refinement_steps)
            return hellmann_feynman_forces(self.parent, structure, density).cpu().numpy()
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
        self._check(route, ENERGY_ROUTES)
        if stress and not structure.periodic:
            raise ModelError("stress is defined for periodic cells only")
        space = space or self.space_for(structure)
        positions = torch.tensor(structure.positions, device=space.device, requires_grad=True)
        stretch = torch.ones(3, dtype=torch.float64, device=space.device, requires_grad=stress)
        moved, stretched = positions, space
        if stress:
            moved, stretched = positions * stretch, space.scaled(stretch)
        prediction = self.predict(structure, stretched, moved, refinement_steps)
        energy = prediction.energy_of(route)
        wanted = [positions, stretch] if stress else [positions]
        gradients = torch.autograd.grad(energy, wanted)
        result = EnergyAndForces(
            float(energy.detach()),
            -gradients[0].cpu().numpy(),
            gradients[1].cpu().numpy() / structure.volume if stress else None,
        ).checked(structure)
        self.warn_outside(*self._warning(prediction))
        return result

    def refinement(
        self, structure: Structure, steps: Sequence[int], space: TensorSpace | None = None
    ) -> list[EnergyAndForces]:
        """The functional route after some numbers of minimisation steps, from one prediction.

        Raises:
            ModelError: energies or forces that are not finite.
            FunctionalError: steps where a term of the functional has no second derivative.
        """
        self._check("functional")
        space = space or self.space_for(structure)
        positions = torch.tensor(structure.positions, device=space.device, requires_grad=True)
        prediction = self.predict(structure, space, positions)
        bound, results = prediction.bound, []
        for count in steps:
            energy = bound.energy(bound.refined(prediction.density, count))
            (gradient,) = torch.autograd.grad(energy, positions, retain_graph=True)
            numbers = EnergyAndForces(float(energy.detach()), -gradient.cpu().numpy())
            results.append(numbers.checked(structure))
        self.warn_outside(*self._warning(prediction))
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
        self._check(route)
        space = space or self.space_for(structure)
        if route == "functional":
            steps = (refinement_steps, refinement_steps + 1)
            return change_of_step(*self.refinement(structure, steps, space))
        if len(self.networks) == 1:
            raise ModelError(
                f"route {route!r} takes its uncertainty from a committee, and this model has one "
                "network; train with a committee of 2 or more"
            )
        if route == "hellmann_feynman":
            with torch.no_grad():
                prediction = self.predict(structure, space)
            return Uncertainty(None, prediction.force_uncertainty(refinement_steps))
        members = [self.member(i) for i in range(len(self.networks))]
        numbers = [m.energy_and_forces(structure, route, space, refinement_steps) for m in members]
        energies, forces = [n.energy for n in numbers], [n.forces for n in numbers]
        return Uncertainty(
            self.calibration * float(np.std(energies, ddof=1)),
            self.calibration * np.std(forces, axis=0, ddof=1),
        )

    def properties(self, route: str) -> tuple[str, ...]:
        self._check(route)
        if self.functional is None:
            return ()
        if route == "hellmann_feynman":
            return ("hellmann_feynman_forces", "forces_uncertainty")
        return (*_CONSERVATIVE, "hellmann_feynman_forces", *_UNCERTAINTIES)

    def calculate(
        self, structure: Structure, wanted: Collection[str], **how: Unpack[How]
    ) -> dict[str, Any]:
        """What is not wanted and costs a pass of its own is left out."""
        results: dict[str, Any] = {}
        if not set(wanted).isdisjoint(_CONSERVATIVE):
            stress = "stress" in wanted
            results |= self.energy_and_forces(structure, stress=stress, **how).by_name
        if "hellmann_feynman_forces" in wanted:
            feynman: How = {**how, "route": "hellmann_feynman"}
            results["hellmann_feynman_forces"] = self.forces(structure, **feynman)
        if not set(wanted).isdisjoint(_UNCERTAINTIES):
            results |= self.uncertainty(structure, **how).by_name
        return results

    @property
    def resolution(self) -> tuple[float, int]:
        return self.spacing, self.order

    def to(self, device: torch.device | str) -> Predictor:
        """The same predictor with its networks on another device."""
        self._committee.to(device)
        object.__setattr__(self, "target_scales", self.target_scales.to(device))
        return self

    @property
    def summary(self) -> dict[str, Any]:
        return {
            "functional": None if self.functional is None else self.functional.describe(),
            **({} if self.labels is None else {"learned from": self.labels.theory}),
            "differences to": self.baseline.kind,
            "features": self.descriptor.n_features,
            "hidden units": list(self.hidden),
            "committee": len(self.networks),
            "spacing (bohr), order": f"{self.spacing:.4f}, {self.order}",
            "trained on": f"{self.provenance['n_samples']} structures",
        }

    def tensors(self) -> dict[str, Tensor]:
        return {
            **self._committee.state_dict(),
            "scaling.mean": self.scaling.mean,
            "scaling.scale": self.scaling.scale,
            "target_scales": self.target_scales,
            **self.domain.tensors,
        }

    def describe(self) -> dict[str, Any]:
        return {
            "descriptor": self.descriptor.describe(),
            "functional": None if self.functional is None else self.functional.describe(),
            "baseline": self.baseline.describe(),
            "spacing_bohr": self.spacing,
            "order": self.order,
            "hidden": list(self.hidden),
            "outputs": list(OUTPUTS),
            "committee": len(self.networks),
            "domain": self.domain.describe(),
            "calibration": self.calibration,
            "history": self.history,
            "provenance": self.provenance,
            "labels": None if self.labels is None else self.labels.describe(),
        }

    @classmethod
    def restore(cls, tensors: dict[str, Tensor], description: Mapping[str, Any]) -> Predictor:
        descriptor = descriptor_from_description(description["descriptor"])
        scaling = Standardise(tensors.pop("scaling.mean"), tensors.pop("scaling.scale"))
        if descriptor.n_features != scaling.n_features:
            raise ModelError(
                f"the weights expect {scaling.n_features} features, the descriptor in "
                f"{DESCRIPTION_FILE} makes {descriptor.n_features}: they belong to different models"
            )
        hidden, functional = tuple(description["hidden"]), description["functional"]
        predictor = cls(
            descriptor=descriptor,
            scaling=scaling,
            networks=[
                FieldNetwork(descriptor.n_features, hidden, len(ENERGY_DENSITIES))
                for _ in range(description["committee"])
            ],
            target_scales=tensors.pop("target_scales"),
            functional=EnergyFunctional.from_description(functional) if functional else None,
            baseline=any_baseline_from_description(description["baseline"]),
            spacing=description["spacing_bohr"],
            order=description["order"],
            hidden=hidden,
            domain=TrainingDomain.restore(tensors, description["domain"]),
            calibration=description["calibration"],
            history=description["history"],
            provenance=description["provenance"],
            labels=KohnShamLabels.from_description(description.get("labels")),
        )
        predictor._committee.load_state_dict(tensors)
        return predictor
