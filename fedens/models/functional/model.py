"""A model that minimises its own energy functional, part of which is learned.

Density, energy, forces and stress are those of one self-consistent minimum: the forces are the
exact derivative of the energy (Hellmann and Feynman). What a density alone cannot see may be
added on top: E = E[n*] + sum of w de(D), with n* unchanged.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, Self, Unpack

import torch
from torch import Tensor

from fedens.data.density import Density
from fedens.energy.electrostatics import Electrostatics
from fedens.energy.functional import EnergyFunctional
from fedens.energy.learned_kinetic import LearnedKinetic
from fedens.energy.nonlocal_kinetic import NonlocalKinetic
from fedens.energy.pseudopotential import LocalPseudopotential
from fedens.energy.terms import EnergyTerm
from fedens.energy.xc import exchange_correlation
from fedens.errors import ModelError
from fedens.fem.tensor import TensorSpace
from fedens.learning.checkpoints import under
from fedens.learning.domain import TrainingDomain
from fedens.models.base import EnergyAndForces, How, Model, Uncertainty
from fedens.models.functional.posterior import Posterior
from fedens.models.functional.prediction import FunctionalPrediction
from fedens.models.points.model import EnergyModel
from fedens.reference.orbital_free import solve_ground_state
from fedens.structure import Structure
from fedens.units import HARTREE_IN_EV

#: Share of the points that may leave the training's range unmentioned.
_TOLERATED_SHARE = 0.005
_PROPERTIES = ("energy", "free_energy", "forces", "stress", "hellmann_feynman_forces")
_UNCERTAINTIES = ("energy_uncertainty", "forces_uncertainty")


@dataclass(frozen=True, eq=False)
class FunctionalModel(Model):
    """Minimises its functional for every structure; see the module.

    All but :meth:`predict` warn (``ExtrapolationWarning``) of densities that leave the range of
    the training.

    Attributes:
        functional: the whole energy; one term may be a :class:`LearnedKinetic`.
        spacing, order: of the spaces used when none is given; spacing in bohr.
        residual_tolerance: of the minimisation, hartree.
        covariance: of the learned term's parameters, (n, n), or None: no error bars.
        calibration: factor from the covariance's spread to errors of structures not trained on.
        domain: range of the learned term's variables in the training, or None.
        correction: added to the minimum's energy, or None.
        provenance: options of the training and its ``labels``; ``projectors``, if there, are the
            elements whose pseudopotentials in the labels had some: the model belongs to them.

    Raises:
        ModelError: a covariance without a learned term, or of other parameters.
    """

    kind: ClassVar[str] = "functional"

    functional: EnergyFunctional
    spacing: float
    order: int
    residual_tolerance: float = 1e-6
    covariance: Tensor | None = None
    calibration: float = 1.0
    domain: TrainingDomain | None = None
    correction: EnergyModel | None = None
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.covariance is None:
            return
        n = 0 if self.learned is None else len(self.learned.correction.parameters)
        if tuple(self.covariance.shape) != (n, n) or not n:
            raise ModelError(
                f"the covariance is {tuple(self.covariance.shape)}, the functional has {n} learned "
                "parameters: they belong to different models"
            )

    @cached_property
    def learned(self) -> LearnedKinetic | None:
        """The learned term, if there is one."""
        return next((t for t in self.functional.terms if isinstance(t, LearnedKinetic)), None)

    @property
    def posterior(self) -> Posterior | None:
        """What the fit leaves open, if that is known."""
        if self.covariance is None or self.learned is None:
            return None
        return Posterior(self.learned, self.covariance, self.calibration)

    def space_for(self, structure: Structure) -> TensorSpace:
        """The space of the model's resolution for a structure."""
        return TensorSpace.for_structure(structure, self.spacing, self.order)

    def predict(
        self,
        structure: Structure,
        space: TensorSpace | None = None,
        positions: Tensor | None = None,
        guess: Density | str | None = None,
    ) -> FunctionalPrediction:
        """The ground state of a structure and what follows from it.

        Args:
            positions: (n_atoms, 3), bohr; replaces the structure's own.
            guess: where to start; see :func:`solve_ground_state`.

        Raises:
            ConvergenceError: no minimum within the tolerance.
            PseudopotentialError: an element without a pseudopotential.
            FunctionalError: an isolated structure for a functional of crystals.
            SpaceError: a space that does not fit.
        """
        space = space or self.space_for(structure)  # stays where the atoms move
        if positions is not None:
            structure = structure.replace(positions=positions.detach().numpy())
        state = solve_ground_state(
            structure, space, self.functional, guess, self.residual_tolerance
        )
        outside = self._points_outside(state.density)
        return FunctionalPrediction(state, self.correction, self.posterior, outside)

    @torch.no_grad()
    def _points_outside(self, density: Density) -> int:
        if self.domain is None or self.learned is None:
            return 0
        return self.domain.points_outside(self.learned.variables(density))

    def _warn(self, prediction: FunctionalPrediction) -> None:
        """Of points outside the training; which atoms make the density does not matter."""
        total, outside = prediction.density.space.n_points, prediction.points_outside
        if outside <= _TOLERATED_SHARE * total:
            return
        certainty = "there is no covariance to tell the uncertainty"
        if (error := prediction.energy_uncertainty) is not None:
            per_atom = 1e3 * HARTREE_IN_EV * error / len(prediction.structure)
            certainty = f"uncertainty of the energy {per_atom:.2g} meV/atom"
        complaint = f"{outside} of {total} points with densities of their own"
        self.warn_outside(prediction.structure, [complaint], certainty)

    def energy_of(self, structure: Structure, positions: Tensor) -> Tensor:
        """Total energy, hartree; its first derivative in the positions is exact."""
        return self._predict_warned(structure, positions=positions).energy_at(positions)

    def _predict_warned(self, structure: Structure, **options: Any) -> FunctionalPrediction:
        prediction = self.predict(structure, **options)
        self._warn(prediction)
        return prediction

    def energy_and_forces(
        self, structure: Structure, space: TensorSpace | None = None, stress: bool = False
    ) -> EnergyAndForces:
        """Energy, forces and, if wanted, stress; errors of :meth:`predict`.

        Raises:
            ModelError: numbers that are not finite.
        """
        return self._predict_warned(structure, space=space).numbers(stress)

    def uncertainty(self, structure: Structure, space: TensorSpace | None = None) -> Uncertainty:
        """Estimated errors of energy and forces from the posterior of the fit.

        Raises:
            ModelError: a model without a covariance.
        """
        if self.posterior is None:
            raise ModelError("this model has no covariance of its parameters: no error bars")
        return self._predict_warned(structure, space=space).uncertainty

    def density(
        self,
        structure: Structure,
        space: TensorSpace | None = None,
        refinement_steps: int = 0,
    ) -> Density:
        """The density of the minimum; there is nothing to refine."""
        del refinement_steps
        return self._predict_warned(structure, space=space).density

    def properties(self, route: str) -> tuple[str, ...]:
        """No stress where the correction has none."""
        offered = _PROPERTIES if self.covariance is None else (*_PROPERTIES, *_UNCERTAINTIES)
        if self.correction is None or "stress" in self.correction.properties(route):
            return offered
        return tuple(name for name in offered if name != "stress")

    def calculate(
        self, structure: Structure, wanted: Collection[str], **how: Unpack[How]
    ) -> dict[str, Any]:
        """Error bars and stress only where they are wanted."""
        prediction = self._predict_warned(structure, space=how.get("space"))
        results = prediction.numbers("stress" in wanted).by_name
        results["hellmann_feynman_forces"] = prediction.hellmann_feynman_forces
        if "energy_uncertainty" in wanted:
            results["energy_uncertainty"] = prediction.energy_uncertainty
        if "forces_uncertainty" in wanted:
            results["forces_uncertainty"] = prediction.forces_uncertainty
        return results

    @property
    def resolution(self) -> tuple[float, int]:
        return self.spacing, self.order

    def for_material(
        self,
        pseudopotentials: LocalPseudopotential | Mapping[str, LocalPseudopotential],
        xc: str,
        mean_density: float,
    ) -> FunctionalModel:
        """The same kinetic functional with other ions, by coordinate scaling; no correction.

        What is learned and the non-local kernel go along with the mean density; a temperature of
        the electrons stays, and so does the mesh's spacing.

        Args:
            pseudopotentials, xc: as in :meth:`.EnergyFunctional.orbital_free`.
            mean_density: of the bulk, electron/bohr^3.
        """
        new: dict[str, EnergyTerm] = {
            "electrostatic": Electrostatics(pseudopotentials),
            "xc": exchange_correlation(xc),
        }
        terms = [new.get(t.name, _at_density(t, mean_density)) for t in self.functional.terms]
        return replace(self, functional=EnergyFunctional(terms), correction=None)

    @property
    def summary(self) -> dict[str, Any]:
        learned, correction = self.learned, self.correction
        shown: dict[str, Any] = {
            "functional": ", ".join(term.name for term in self.functional.terms),
            "exchange-correlation": self.functional.xc,
            "pseudopotentials": ", ".join(
                f"{s}: {type(p).__name__}" for s, p in self.functional.pseudopotentials.items()
            ),
        }
        if learned is not None:
            shown["learned parameters"] = len(learned.correction.parameters)
            shown["mean density (electron/bohr^3)"] = learned.mean_density
            shown["error bars"] = self.covariance is not None
        if self.provenance.get("projectors"):
            elements = ", ".join(self.provenance["projectors"])
            shown["conditional"] = f"on the pseudopotentials of {elements}: labels had projectors"
        if correction is not None:
            shown |= {f"correction, {k}": v for k, v in correction.summary.items()}
        shown["spacing (bohr), order"] = f"{self.spacing:.4f}, {self.order}"
        if "labels" in self.provenance:
            shown["trained on"] = f"{len(self.provenance['labels'])} labels"
        return shown

    def tensors(self) -> dict[str, Tensor]:
        result = {} if self.covariance is None else {"covariance": self.covariance}
        if self.domain is not None:
            result |= self.domain.tensors
        if self.correction is not None:
            result |= {f"correction.{k}": v for k, v in self.correction.tensors().items()}
        return result

    def describe(self) -> dict[str, Any]:
        return {
            "functional": self.functional.describe(),
            "spacing_bohr": self.spacing,
            "order": self.order,
            "residual_tolerance_hartree": self.residual_tolerance,
            "has_covariance": self.covariance is not None,
            "calibration": self.calibration,
            "domain": None if self.domain is None else self.domain.describe(),
            "correction": None if self.correction is None else self.correction.describe(),
            "provenance": self.provenance,
        }

    @classmethod
    def restore(cls, tensors: dict[str, Tensor], description: Mapping[str, Any]) -> Self:
        domain, correction = description["domain"], description["correction"]
        correction_tensors = under(tensors, "correction.")
        return cls(
            functional=EnergyFunctional.from_description(description["functional"]),
            spacing=description["spacing_bohr"],
            order=description["order"],
            residual_tolerance=description["residual_tolerance_hartree"],
            covariance=tensors["covariance"] if description["has_covariance"] else None,
            calibration=description["calibration"],
            domain=None if domain is None else TrainingDomain.restore(tensors, domain),
            correction=correction and EnergyModel.restore(correction_tensors, correction),
            provenance=description["provenance"],
        )


def _at_density(term: EnergyTerm, mean_density: float) -> EnergyTerm:
    """A term with another fixed mean density; itself, if it has none."""
    if isinstance(term, LearnedKinetic):
        return term.scaled_to(mean_density)
    if isinstance(term, NonlocalKinetic) and term.mean_density is not None:
        return NonlocalKinetic(mean_density, term.alpha, term.beta)
    return term
