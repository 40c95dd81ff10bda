"""What a learned functional says of one structure: its own ground state, and what follows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedens.data.density import Density
from fedens.models.base import EnergyAndForces, Uncertainty, not_finite
from fedens.models.functional.posterior import DrawnDensity, Posterior
from fedens.models.points.model import EnergyModel
from fedens.reference.orbital_free import GroundState
from fedens.structure import Structure

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class FunctionalPrediction:
    """The minimum of a functional, plus a correction of its energy; Hartree atomic units.

    Attributes:
        state: the ground state n*. correction: added to its energy, or None.
        posterior: of the learned parameters, or None.
        points_outside: points whose variables lie outside the training's range.
    """

    state: GroundState
    correction: EnergyModel | None
    posterior: Posterior | None
    points_outside: int

    @property
    def structure(self) -> Structure:
        """The atoms."""
        return self.state.structure

    @property
    def density(self) -> Density:
        """The density of the minimum, n*."""
        return self.state.density

    @cached_property
    @torch.no_grad()
    def energy(self) -> float:
        """Total energy with the correction, hartree."""
        return float(self.energy_at(torch.tensor(self.structure.positions)))

    def energy_at(self, positions: Tensor) -> Tensor:
        """E(n*, R) with the correction, hartree; differentiable in the positions R (n_atoms, 3).

        n* stays as it is: at the minimum that changes the first derivative by nothing. Second
        derivatives would lack the density's answer.

        Raises:
            ModelError: an energy that is not finite.
        """
        bound = self.state.functional.bind(self.structure, self.state.space, positions)
        energy = bound.energy(self.density)
        if self.correction is not None:
            energy = energy + self.correction.energy_of(self.structure, positions)
        if not torch.isfinite(energy):
            raise not_finite(self.structure, f": energy {float(energy.detach())} hartree")
        return energy

    @property
    def hellmann_feynman_forces(self) -> Array:
        """Forces of the functional alone, (n_atoms, 3), hartree/bohr."""
        return self.state.forces

    @property
    def forces(self) -> Array:
        """Minus the derivative of the energy, (n_atoms, 3), hartree/bohr."""
        return self.numbers().forces

    @property
    def stress(self) -> Array:
        """Normal stresses (3,), hartree/bohr^3."""
        stress = self.numbers(stress=True).stress
        assert stress is not None
        return stress

    def numbers(self, stress: bool = False) -> EnergyAndForces:
        """Energy, forces and, if wanted, normal stresses.

        Raises:
            FunctionalError: stress of an isolated structure.
            ModelError: stress of a correction on a mesh; numbers that are not finite.
        """
        state = self.state
        numbers = EnergyAndForces(state.energy, state.forces, state.stress if stress else None)
        if self.correction is not None:
            added = self.correction.energy_and_forces(state.structure, stress)
            numbers = EnergyAndForces(
                numbers.energy + added.energy,
                numbers.forces + added.forces,
                None if added.stress is None else state.stress + added.stress,
            )
        return numbers.checked(state.structure)

    @cached_property
    def energy_uncertainty(self) -> float | None:
        """Estimated error of the energy, hartree; None where the fit has no covariance."""
        if self.posterior is None:
            return None
        return self.posterior.energy_error(self.density)

    @cached_property
    def _drawn_densities(self) -> list[DrawnDensity]:
        assert self.posterior is not None
        return self.posterior.densities(self.state.bound, self.density)

    @cached_property
    def forces_uncertainty(self) -> Array | None:
        """Estimated errors of the forces, (n_atoms, 3), hartree/bohr, or None."""
        if self.posterior is None:
            return None
        return self.posterior.force_errors(self.state, self._drawn_densities)

    @cached_property
    def density_uncertainty(self) -> Tensor | None:
        """Estimated standard deviation of the density, (n_points,), or None."""
        if self.posterior is None:
            return None
        return self.posterior.density_errors(self.density, self._drawn_densities)

    @property
    def uncertainty(self) -> Uncertainty:
        """Estimated errors of energy and forces."""
        return Uncertainty(self.energy_uncertainty, self.forces_uncertainty)

    @property
    @torch.no_grad()
    def fields(self) -> dict[str, Tensor]:
        """``density``, electron/bohr^3, and ``kinetic``, ``xc``, ``electrostatic``, hartree/bohr^3,
        at the points of the space, (n_points,)."""
        return {"density": self.density.values, **self.state.energy_densities()}
