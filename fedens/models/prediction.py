"""What a model predicts for one structure: fields, and the energies they give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fedens.density import Density
from fedens.energy.functional import BoundFunctional
from fedens.errors import ModelError
from fedens.structure import Structure

#: Ways to an energy, and to forces.
ENERGY_ROUTES = ("functional", "energy_density")
ROUTES = (*ENERGY_ROUTES, "hellmann_feynman")


@dataclass(frozen=True, eq=False)
class Prediction:
    """Predicted fields of one structure on a space; differentiable tensors in atomic units.

    Attributes:
        structure: as given; where derivatives are taken, tensors stand for its positions and cell.
        density: exactly N electrons, projected on the space; refined if that was asked for.
        raw_root: root density u at the points before projection and normalisation, (n_points,).
        spread: standard deviation of the density over the committee, (n_points,), or None.
        bound: the parent functional for this structure on this space.
        points_outside: points whose features lie outside the training's range.
        learn_corrections: evaluates :attr:`corrections`, which not every route needs.
    """

    structure: Structure
    density: Density
    raw_root: Tensor
    spread: Tensor | None
    bound: BoundFunctional
    points_outside: int
    learn_corrections: Callable[[], Tensor]

    @cached_property
    def corrections(self) -> Tensor:
        """Learned part of ``kinetic``, ``xc``, ``electrostatic``, (n_points, 3), hartree/bohr^3.

        It is what the functional's own energy densities at the density lack.
        """
        return self.learn_corrections()

    @property
    def raw_number_of_electrons(self) -> float:
        """Electrons of the prediction before it is normalised."""
        return float(self.density.space.integrate(self.raw_root.detach() ** 2))

    @property
    def energy_densities(self) -> dict[str, Tensor]:
        """``kinetic``, ``xc``, ``electrostatic``, each (n_points,), hartree/bohr^3."""
        known = self.bound.energy_densities(self.density)
        return {name: known[name] + self.corrections[:, i] for i, name in enumerate(known)}

    def energy(self, route: str) -> Tensor:
        """Total energy, hartree.

        ``functional``: the parent functional at the predicted density; second order in its
        error. ``energy_density``: the integral of the predicted energy densities plus the ions'
        own energy; first order in their errors.
        """
        if route not in ENERGY_ROUTES:
            raise ModelError(f"no energy by route {route!r}; expected {' or '.join(ENERGY_ROUTES)}")
        energy = self.bound.energy(self.density)
        if route == "energy_density":
            energy = energy + self.density.space.integrate(self.corrections.sum(dim=1))
        return energy


@dataclass(frozen=True, eq=False)
class EnergyAndForces:
    """Numbers of one structure by one route, atomic units.

    Attributes:
        energy: hartree. forces: (n_atoms, 3), hartree/bohr: its exact derivative.
        stress: normal stresses (3,), hartree/bohr^3, or None where not asked for.
    """

    energy: float
    forces: NDArray[np.float64]
    stress: NDArray[np.float64] | None


@dataclass(frozen=True, eq=False)
class Uncertainty:
    """Estimated errors: energy, hartree, None where a route has none; forces (n_atoms, 3)."""

    energy: float | None
    forces: NDArray[np.float64]


def check_route(route: str, allowed: tuple[str, ...] = ROUTES) -> None:
    """Raise unless ``route`` is one of the allowed."""
    if route not in allowed:
        raise ModelError(f"route is {route!r}; expected one of {', '.join(allowed)}")
