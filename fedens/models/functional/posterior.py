"""How sure a learned kinetic energy is: the normal distribution that its fit leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedens.data.density import Density
from fedens.energy.forces import hellmann_feynman_forces
from fedens.energy.functional import BoundFunctional
from fedens.energy.learned_kinetic import LearnedKinetic
from fedens.energy.minimise import minimise_on_sphere
from fedens.reference.orbital_free import GroundState

#: Functionals drawn for what is not linear in the parameters, and energies computed on the way from
#: n* to the minimum of each: what is left is 2 % of the change.
_DRAWS, _EVALUATIONS = 8, 4
#: Relative change of the root density up to which densities answer in proportion.
_LINEAR = 5e-3


@dataclass(frozen=True, eq=False)
class DrawnDensity:
    """The minimum of a functional part of the way to a drawn one, which would answer in proportion.

    Attributes:
        density: there. share: part of the way, above 0, at most 1.
    """

    density: Density
    share: float


@dataclass(frozen=True, eq=False)
class Posterior:
    """Learned term, covariance (n, n) of its parameters, and a factor from spread to errors.

    By the theorem of Hellmann and Feynman dE/dtheta_k at the minimum is the energy of the k-th
    monomial there, which gives the energy's error in closed form. Density and forces come from
    functionals that are drawn, always the same, each brought close to its own minimum, in linear
    response: those that would lead far away are drawn nearer, and their changes multiplied.
    """

    term: LearnedKinetic
    covariance: Tensor
    calibration: float

    @torch.no_grad()
    def energy_error(self, density: Density) -> float:
        """Standard deviation of the energy, hartree: sqrt(e C e), e the monomials' energies."""
        e = self.term.monomial_energies(density)
        return self.calibration * max(float(e @ self.covariance @ e), 0.0) ** 0.5

    def drawn_terms(self) -> list[LearnedKinetic]:
        """The learned term with parameters drawn from the distribution."""
        correction, n0 = self.term.correction, self.term.mean_density
        mean = torch.tensor(correction.parameters, dtype=torch.float64)
        values, vectors = torch.linalg.eigh(self.covariance)
        noise = torch.randn((_DRAWS, len(mean)), generator=_generator(), dtype=torch.float64)
        parameters = mean + (noise * values.clamp(min=0).sqrt()) @ vectors.T
        return [LearnedKinetic(correction.with_parameters(p.tolist()), n0) for p in parameters]

    def densities(self, bound: BoundFunctional, density: Density) -> list[DrawnDensity]:
        """Densities of the drawn functionals, from the minimum of the mean one."""
        result = []
        for drawn in self.drawn_terms():
            share = _LINEAR / max(_LINEAR, _first_step(_with_term(bound, drawn), density))
            near = _with_term(bound, self._towards(drawn, share))
            found = minimise_on_sphere(
                near.energy_and_gradient,
                density.root_coefficients,
                near.electrons,
                near.hessian,
                tolerance=0.0,
                max_evaluations=_EVALUATIONS,
                metric=near.space,
            )
            result.append(DrawnDensity(Density.from_root(near.space, found.x), share))
        return result

    def _towards(self, drawn: LearnedKinetic, share: float) -> LearnedKinetic:
        mean, end = self.term.correction.parameters, drawn.correction.parameters
        between = [(1 - share) * a + share * b for a, b in zip(mean, end, strict=True)]
        return LearnedKinetic(drawn.correction.with_parameters(between), drawn.mean_density)

    def density_errors(self, density: Density, drawn: Sequence[DrawnDensity]) -> Tensor:
        """Standard deviation of the density, (n_points,), from :meth:`densities`."""
        away = torch.stack([(d.density.values - density.values) / d.share for d in drawn])
        return self.calibration * (away**2).mean(dim=0).sqrt()

    def force_errors(
        self, state: GroundState, drawn: Sequence[DrawnDensity]
    ) -> NDArray[np.float64]:
        """Standard deviations of the forces, (n_atoms, 3), hartree/bohr, from :meth:`densities`."""
        away = []
        for one in drawn:
            forces = hellmann_feynman_forces(state.functional, state.structure, one.density)
            away.append((forces.numpy() - state.forces) / one.share)
        return self.calibration * np.sqrt((np.array(away) ** 2).mean(axis=0))


def _with_term(bound: BoundFunctional, term: LearnedKinetic) -> BoundFunctional:
    return replace(bound, terms=[term if isinstance(t, LearnedKinetic) else t for t in bound.terms])


def _first_step(bound: BoundFunctional, density: Density) -> float:
    """Relative length of the root density's first step towards the minimum."""
    c = density.root_coefficients
    _, gradient = bound.energy_and_gradient(c)
    tangent = gradient - torch.dot(gradient, c) / bound.electrons * c
    return float((tangent / bound.hessian_diagonal).norm()) / bound.electrons**0.5


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)
