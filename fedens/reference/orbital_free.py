"""Orbital-free density-functional theory: the ground state of a structure on a space."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedens.atoms.baseline import baseline_of, default_guess
from fedens.data.density import Density
from fedens.data.sample import Sample
from fedens.energy.forces import (
    hellmann_feynman_forces,
    moving_mesh_forces,
    normal_stress,
)
from fedens.energy.functional import BoundFunctional, EnergyFunctional
from fedens.energy.minimise import Minimum, minimise_on_sphere
from fedens.errors import ConvergenceError, FedensError
from fedens.fem.space import FunctionSpace
from fedens.fem.tensor import TensorSpace
from fedens.reference.labeller import StepReport
from fedens.structure import Structure


@dataclass(frozen=True, eq=False)
class GroundState:
    """What :func:`solve_ground_state` found; Hartree atomic units.

    Attributes:
        structure, space, functional: what was solved.
        density: n(r) with its root's coefficients.
        energy: total energy, hartree.
        chemical_potential: mu, hartree; in periodic cells against the mean of the ions' and
            electrons' Coulomb potential, as plane-wave codes have it.
        converged, residual, tolerance: |dE/dc - mu c|/sqrt(N) against its tolerance, hartree.
        evaluations, iterations: energies computed, steps taken. message: the same in words.
    """

    structure: Structure
    space: FunctionSpace
    functional: EnergyFunctional
    density: Density
    energy: float
    chemical_potential: float
    converged: bool
    residual: float
    tolerance: float
    evaluations: int
    iterations: int
    message: str
    bound: BoundFunctional

    @cached_property
    def energies(self) -> dict[str, float]:
        """Parts of the energy by term, and their ``total``, hartree."""
        with torch.no_grad():
            return self.bound.energies(self.density)

    @cached_property
    def forces(self) -> NDArray[np.float64]:
        """Forces (n_atoms, 3), hartree/bohr; first order in the residual.

        The derivative of the energy: by Hellmann and Feynman on a TensorSpace, which stays where
        it is; on a SimplexSpace the mesh follows the nuclei.
        """
        follows = self.space.follows_nuclei
        derivative = moving_mesh_forces if follows else hellmann_feynman_forces
        forces = derivative(self.functional, self.structure, self.density)
        return forces.cpu().numpy()

    @cached_property
    def stress(self) -> NDArray[np.float64]:
        """Normal stresses (3,) along x, y, z, hartree/bohr^3, positive when the cell would shrink.

        Shear stresses need sheared cells, which are not supported yet.
        """
        return normal_stress(self.functional, self.structure, self.density).cpu().numpy()

    def energy_densities(self) -> dict[str, Tensor]:
        """``kinetic``, ``xc``, ``electrostatic`` at the points, (n_points,), hartree/bohr^3."""
        return self.bound.energy_densities(self.density)

    def to_sample(self) -> Sample:
        """Fields, energies, forces and provenance as a :class:`Sample` for a data set."""
        fields = {"density": self.density.values, **self.energy_densities()}
        return Sample(
            structure=self.structure,
            points=self.space.points.cpu().numpy(),
            weights=self.space.weights.cpu().numpy(),
            fields={name: f.detach().cpu().numpy() for name, f in fields.items()},
            energy=self.energy,
            energies=self.energies,
            ion_energy=float(self.bound.ions.ion_energy),
            forces=self.forces,
            stress=self.stress if self.structure.periodic else None,
            converged=self.converged,
            provenance=self._provenance(),
        )

    def _provenance(self) -> dict[str, Any]:
        return {
            "code": "fedens orbital-free",
            "functional": self.functional.describe(),
            "space": self.space.describe(),
            "residual_hartree": self.residual,
            "residual_tolerance_hartree": self.tolerance,
            "evaluations": self.evaluations,
        }


def solve_ground_state(
    structure: Structure,
    space: FunctionSpace,
    functional: EnergyFunctional,
    guess: Density | str | None = None,
    residual_tolerance: float = 1e-6,
    max_evaluations: int = 200,
    require_convergence: bool = True,
    report: StepReport | None = None,
) -> GroundState:
    """Minimise the energy over densities of N electrons on a space.

    Args:
        guess: starting density; ``"superposed_atoms"``; ``"linear_response"`` (periodic cells);
            None chooses linear response for periodic cells, superposed atoms for isolated ones.
        residual_tolerance: stop when |dE/dc - mu c| / sqrt(N) is below it, hartree. The energy
            error is second order in it, the error of forces first order.
        max_evaluations: energies to compute before giving up.
        require_convergence: raise when the tolerance is not met; otherwise the result says so.
        report: called with (evaluations, energy, residual) after each step.

    Raises:
        ConvergenceError: not converged (the unfinished :class:`GroundState` is in ``.result``).
        SpaceError, PseudopotentialError, FunctionalError: what does not fit together.
    """
    space.check_matches(structure)
    bound = functional.bind(structure, space)
    start = _starting_root(guess, structure, space, bound)
    minimum = minimise_on_sphere(
        bound.energy_and_gradient,
        start,
        bound.electrons,
        bound.hessian,
        residual_tolerance,
        max_evaluations,
        report,
        space,
    )
    state = _ground_state(structure, space, functional, bound, minimum, residual_tolerance)
    if require_convergence and not state.converged:
        raise ConvergenceError(f"{structure.formula}: {state.message}", state)
    return state


def _ground_state(
    structure: Structure,
    space: FunctionSpace,
    functional: EnergyFunctional,
    bound: BoundFunctional,
    minimum: Minimum,
    tolerance: float,
) -> GroundState:
    density = Density.from_root(space, minimum.x)
    shift = functional.electrostatics.point_ion_shift(structure)
    return GroundState(
        structure=structure,
        space=space,
        functional=functional,
        density=density,
        energy=minimum.energy,
        chemical_potential=minimum.multiplier / 2 + shift,
        converged=minimum.converged,
        residual=minimum.residual,
        tolerance=tolerance,
        evaluations=minimum.evaluations,
        iterations=minimum.iterations,
        message=minimum.message,
        bound=bound,
    )


def _starting_root(
    guess: Density | str | None, structure: Structure, space: FunctionSpace, bound: BoundFunctional
) -> Tensor:
    """Root-density coefficients to start from."""
    if isinstance(guess, Density):
        if guess.space.n_coefficients != space.n_coefficients:
            raise FedensError(f"the guess lives on another space: {guess.space}, not {space}")
        return guess.root_coefficients.detach()
    baseline = baseline_of(guess or default_guess(structure), bound.functional)
    return baseline.density(structure, space).root_coefficients


@dataclass(frozen=True)
class OrbitalFreeLabeller:
    """Samples of ground states, a :class:`fedens.reference.labeller.Labeller`.

    Attributes:
        functional: the energy. spacing: element length over order, bohr. order: polynomial order.
        residual_tolerance, max_evaluations: see :func:`solve_ground_state`.
    """

    functional: EnergyFunctional
    spacing: float
    order: int
    residual_tolerance: float
    max_evaluations: int

    def __call__(
        self,
        structure: Structure,
        report: StepReport | None = None,
        checkpoint: Path | None = None,
    ) -> Sample:
        """The ground state's sample; errors of :func:`solve_ground_state`."""
        del checkpoint  # done in seconds
        state = solve_ground_state(
            structure,
            TensorSpace.for_structure(structure, self.spacing, self.order),
            self.functional,
            residual_tolerance=self.residual_tolerance,
            max_evaluations=self.max_evaluations,
            report=report,
        )
        return state.to_sample()

    def describe(self) -> dict[str, Any]:
        """Kind and attributes."""
        return {
            "kind": "orbital_free",
            "functional": self.functional.describe(),
            "spacing": self.spacing,
            "order": self.order,
            "residual_tolerance": self.residual_tolerance,
            "max_evaluations": self.max_evaluations,
        }

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> Self:
        """The labeller of :meth:`describe`."""
        functional = EnergyFunctional.from_description(description["functional"])
        return cls(**{**description, "functional": functional})
