"""What a model predicts for one structure: fields, and the energies they give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedens.data.density import Density
from fedens.energy.forces import hellmann_feynman_forces
from fedens.energy.functional import BoundFunctional
from fedens.errors import ModelError
from fedens.fem.space import FunctionSpace
from fedens.fields import ENERGY_DENSITIES
from fedens.models.base import EnergyAndForces, Uncertainty
from fedens.models.crystal.labels import KohnShamLabels
from fedens.structure import Structure

#: Ways to an energy, and to forces.
ENERGY_ROUTES = ("functional", "energy_density")
ROUTES = (*ENERGY_ROUTES, "hellmann_feynman")

NO_FUNCTIONAL = (
    "this model has no parent functional: it predicts the density and energy densities, but "
    "neither total energies nor forces; train one with functional="
)


@dataclass(frozen=True, eq=False)
class Prediction:
    """Predicted fields of one structure on a space; differentiable tensors in atomic units.

    Attributes:
        structure: as given; where derivatives are taken, tensors stand for its positions and cell.
        density: exactly N electrons, projected on the space; refined if that was asked for.
        roots: root density u of every network at the points, before projection and
            normalisation, (n_members, n_points).
        calibration: factor from the committee's spread to its errors.
        electrons: N. parent: the functional for this structure on this space, if there is one.
        points_outside: points whose features lie outside the training's range.
        learn_corrections: evaluates :attr:`member_corrections`, which not every route needs.
        labels: what was learned from, where that is not the functional's own data.
    """

    structure: Structure
    density: Density
    roots: Tensor
    calibration: float
    electrons: float
    parent: BoundFunctional | None
    points_outside: int
    learn_corrections: Callable[[], Tensor]
    labels: KohnShamLabels | None = None

    @property
    def bound(self) -> BoundFunctional:
        """The parent functional for this structure on this space.

        Raises:
            ModelError: a model without one.
        """
        if self.parent is None:
            raise ModelError(NO_FUNCTIONAL)
        return self.parent

    @property
    def raw_root(self) -> Tensor:
        """Root density u at the points before projection and normalisation, (n_points,)."""
        return self.roots.mean(dim=0)

    @cached_property
    @torch.no_grad()
    def density_uncertainty(self) -> Tensor | None:
        """Estimated standard deviation of the density, (n_points,); None without a committee."""
        if len(self.roots) == 1:
            return None
        return self.calibration * 2 * self.raw_root.abs() * self.roots.std(dim=0)

    @property
    def relative_density_uncertainty(self) -> float | None:
        """Integral of :attr:`density_uncertainty` over the electrons, like a relative error."""
        if self.density_uncertainty is None:
            return None
        integral = self.density.space.integrate(self.density_uncertainty)
        return float(integral.detach()) / self.electrons

    @cached_property
    def member_corrections(self) -> Tensor:
        """What every network gives for :attr:`corrections`, (n_members, n_points, 3)."""
        return self.learn_corrections()

    @cached_property
    def corrections(self) -> Tensor:
        """Learned part of ``kinetic``, ``xc``, ``electrostatic``, (n_points, 3), hartree/bohr^3.

        It is what :attr:`known_energy_densities` lack.
        """
        return self.member_corrections.mean(dim=0)

    def members(self, refinement_steps: int = 0) -> list[Prediction]:
        """What every network of the committee predicts alone, from the same features."""
        return [
            replace(
                self,
                density=density_from_root(self.density.space, root, self.electrons),
                roots=root[None],
                learn_corrections=partial(self._correction_of, i),
            ).refined(refinement_steps)
            for i, root in enumerate(self.roots)
        ]

    def _correction_of(self, member: int) -> Tensor:
        return self.member_corrections[member, None]

    def refined(self, steps: int) -> Prediction:
        """The same after minimisation steps of the functional.

        Raises:
            ModelError: a model without a functional, or of data that are not of its functional.
            ConvergenceError: an energy that rises.
        """
        if not steps:
            return self
        self.check("functional")
        return replace(self, density=self.bound.refined(self.density, steps))

    @property
    def known_energy_densities(self) -> dict[str, Tensor]:
        """The functional's own at the density, or zeros where there is none; as the next."""
        if self.parent is None:
            return dict.fromkeys(ENERGY_DENSITIES, torch.zeros_like(self.density.values))
        return self.parent.energy_densities(self.density)

    @cached_property
    def energy_densities(self) -> dict[str, Tensor]:
        """``kinetic``, ``xc``, ``electrostatic``, each (n_points,), hartree/bohr^3."""
        known = self.known_energy_densities
        return {name: known[name] + self.corrections[:, i] for i, name in enumerate(known)}

    @property
    def energy(self) -> float:
        """Total energy by the functional route, hartree."""
        return float(self.energy_of("functional").detach())

    def energy_of(self, route: str) -> Tensor:
        """Total energy, hartree; differentiable.

        ``functional``: the parent functional at the predicted density; second order in its
        error. ``energy_density``: the integral of the predicted energy densities plus the ions'
        own energy; first order in their errors.

        Raises:
            ModelError: a model without a functional, which knows no ions; another route; a route
                that does not give the energy of the data it has learned from.
        """
        check_route(route, ENERGY_ROUTES)
        self.check(route)
        energy = self.bound.energy(self.density)
        if route == "energy_density":
            energy = energy + self.density.space.integrate(self.corrections.sum(dim=1))
        return energy

    def check(self, route: str) -> None:
        """Raise a :class:`ModelError` for a route that the labels do not allow."""
        if self.labels is not None:
            self.labels.check(route)

    @torch.no_grad()
    def energy_uncertainty(self, route: str) -> float | None:
        """Estimated error of :meth:`energy_of`, hartree; None where it needs a committee.

        ``functional``: what one more minimisation step changes, which is most of what is missing.
        ``energy_density``: standard deviation over the committee times its calibration.
        """
        self.check(route)
        if route == "functional":
            refined = self.bound.refined(self.density, 1)
            return abs(float(self.bound.energy(self.density) - self.bound.energy(refined)))
        if len(self.roots) == 1:
            return None
        energies = [float(member.energy_of(route)) for member in self.members()]
        return self.calibration * float(np.std(energies, ddof=1))

    def force_uncertainty(self, refinement_steps: int = 0) -> NDArray[np.float64] | None:
        """Estimated errors of Hellmann-Feynman forces, (n_atoms, 3), hartree/bohr, or None."""
        self.check("hellmann_feynman")
        if len(self.roots) == 1:
            return None
        with torch.no_grad():
            densities = [member.density for member in self.members(refinement_steps)]
        functional = self.bound.functional
        forces = [hellmann_feynman_forces(functional, self.structure, n) for n in densities]
        return self.calibration * torch.stack(forces).std(dim=0).cpu().numpy()


def density_from_root(space: FunctionSpace, root: Tensor, electrons: float) -> Density:
    """The density of a root density (n_points,), projected on the space, with N electrons."""
    return Density.from_root(space, space.project(root)).normalised(electrons)


def change_of_step(here: EnergyAndForces, refined: EnergyAndForces) -> Uncertainty:
    """What one more minimisation step of the functional changes: most of what is missing."""
    return Uncertainty(abs(here.energy - refined.energy), np.abs(here.forces - refined.forces))


def check_route(route: str, allowed: tuple[str, ...] = ROUTES) -> None:
    """Raise unless ``route`` is one of the allowed."""
    if route not in allowed:
        raise ModelError(f"route is {route!r}; expected one of {', '.join(allowed)}")
