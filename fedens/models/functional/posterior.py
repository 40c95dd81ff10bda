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
from fedens.energy.kinetic import THOMAS_FERMI
from fedens.energy.learned_kinetic import LearnedKinetic
from fedens.energy.minimise import minimise_on_sphere
from fedens.reference.orbital_free import GroundState

#: Functionals drawn for what is not linear in the parameters, and energies computed on the way from
#: n* to the minimum of each: what is left is 2 % of the change.
_DRAWS, _EVALUATIONS = 8, 4
#: Points at once: bounds the memory for the monomials.
_BLOCK = 20000


@dataclass(frozen=True, eq=False)
class Posterior:
    """Learned term, covariance (n, n) of its parameters, and a factor from spread to errors.

    By the theorem of Hellmann and Feynman dE/dtheta_k at the minimum is the energy of the k-th
    monomial there, which gives the energy's error in closed form. Density and forces come from
    functionals that are drawn, always the same, each brought close to its own minimum.
    """

    term: LearnedKinetic
    covariance: Tensor
    calibration: float

    @torch.no_grad()
    def energy_error(self, density: Density) -> float:
        """Standard deviation of the energy, hartree: sqrt(e C e), e the monomials' energies."""
        y = self.term.variables(density)
        weights = THOMAS_FERMI * density.space.weights * density.root.abs() ** (10 / 3)
        blocks = zip(y.split(_BLOCK), weights.split(_BLOCK), strict=True)
        e = torch.stack([w @ self.term.correction.basis(part) for part, w in blocks]).sum(dim=0)
        return self.calibration * max(float(e @ self.covariance @ e), 0.0) ** 0.5

    def drawn_terms(self) -> list[LearnedKinetic]:
        """The learned term with parameters drawn from the distribution."""
        correction, n0 = self.term.correction, self.term.mean_density
        mean = torch.tensor(correction.parameters, dtype=torch.float64)
        values, vectors = torch.linalg.eigh(self.covariance)
        noise = torch.randn((_DRAWS, len(mean)), generator=_generator(), dtype=torch.float64)
        parameters = mean + (noise * values.clamp(min=0).sqrt()) @ vectors.T
        return [LearnedKinetic(correction.with_parameters(p.tolist()), n0) for p in parameters]

    def densities(self, bound: BoundFunctional, density: Density) -> list[Density]:
        """Densities of the drawn functionals, from the minimum of the mean one."""
        result = []
        for drawn in self.drawn_terms():
            terms = [drawn if isinstance(t, LearnedKinetic) else t for t in bound.terms]
            near = replace(bound, terms=terms)
            found = minimise_on_sphere(
                near.energy_and_gradient,
                density.root_coefficients,
                near.electrons,
                near.hessian,
                tolerance=0.0,
                max_evaluations=_EVALUATIONS,
                metric=near.space,
            )
            result.append(Density.from_root(near.space, found.x))
        return result

    def density_errors(self, density: Density, drawn: Sequence[Density]) -> Tensor:
        """Standard deviation of the density, (n_points,), from :meth:`densities`."""
        away = torch.stack([d.values - density.values for d in drawn])
        return self.calibration * (away**2).mean(dim=0).sqrt()

    def force_errors(self, state: GroundState, drawn: Sequence[Density]) -> NDArray[np.float64]:
        """Standard deviations of the forces, (n_atoms, 3), hartree/bohr, from :meth:`densities`."""
        forces = [hellmann_feynman_forces(state.functional, state.structure, d) for d in drawn]
        away = torch.stack(forces).numpy() - state.forces
        return self.calibration * np.sqrt((away**2).mean(axis=0))


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)
