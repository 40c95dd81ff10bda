"""Coulomb energy and potential of a charge near atoms: most in closed form, the rest on a mesh.

A charge rho is g, Gaussians on the atoms, and a rest. With the potential V_g of g, in closed form,

V = V_g + V_rest,    (1/2) (rho|rho) = (1/2) int (rho + rest) V_g + (1/2) (rest|rest)

which hold for any g: it only has to leave little, as the mesh's error is that of the rest. So g is
fitted by least squares, weighted by the squared size of the cells as that error is, to a sample of
the quadrature points. It has the charge and the dipole of rho, so that the potential of the rest
is next to nothing at the surface of the mesh.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from fedens.atoms.gaussian_basis import AtomicBasis
from fedens.errors import FunctionalError, SpaceError
from fedens.fem.simplex import SimplexSpace
from fedens.fem.space import FunctionSpace
from fedens.structure import Structure

#: Exponents of the Gaussians, bohr^-2: each l has a few of them, on hydrogen and helium fewer.
_EXPONENTS = [0.2 * 2.5**k for k in range(6)]
_LIGHT = [_EXPONENTS[:4], _EXPONENTS[1:3], _EXPONENTS[2:3]]
_HEAVY = [_EXPONENTS, _EXPONENTS[:5], _EXPONENTS[:5], _EXPONENTS[1:4]]
#: Sampled points for each Gaussian, and the share of them that are any points of the mesh.
_POINTS, _ANY = 20, 0.2
#: Points whose functions are in memory at once, and the least that a charge sums to.
_BLOCK, _NOTHING = 20_000, 1e-300
#: Largest cells at the atoms, longest edge over order, bohr: a little less than where a mesh no
#: longer sees the Gaussians.
_COARSEST = 1.5
#: Added to the diagonal of the normal equations, whose own is 1.
_RIDGE = 1e-10


@dataclass(frozen=True, eq=False)
class FittedCharge:
    """A charge density of Gaussians on atoms: g of the formulas."""

    structure: Structure
    basis: AtomicBasis
    coefficients: Tensor

    def density(self, points: Tensor) -> Tensor:
        """At points (n, 3), bohr; (n,)."""
        return self.basis.evaluate(self.structure, points, self.coefficients[None])[0]

    def potential(self, points: Tensor) -> Tensor:
        """At points (n, 3), bohr; (n,), hartree."""
        return self.basis.potential(self.structure, points, self.coefficients)


@dataclass(frozen=True, eq=False)
class ChargeNearAtoms:
    """A charge (n_points,) on a space, most of it fitted; made by :func:`split_charge`."""

    space: SimplexSpace
    charge: Tensor
    fitted: FittedCharge

    @cached_property
    def rest(self) -> Tensor:
        """What the fit leaves, (n_points,)."""
        return self.charge - self.fitted.density(self.space.points)

    def energy(self) -> Tensor:
        """Self energy, hartree; differentiable in the charge and the points of the space."""
        potential = self.fitted.potential(self.space.points)
        closed = 0.5 * self.space.integrate((self.charge + self.rest) * potential)
        return closed + self.space.confined_energy(self.rest)

    def potential(self, points: Tensor | None = None) -> Tensor:
        """Potential (n,) at points (n, 3), bohr, by default the space's; hartree.

        Outside the mesh that of the fitted charge alone: the rest's is nothing at its surface.
        """
        if points is None:
            confined = self.space.evaluate(self._confined)
            return self.fitted.potential(self.space.points) + confined
        low, high = self.space.vertices.min(dim=0).values, self.space.vertices.max(dim=0).values
        inside = ((points > low) & (points < high)).all(dim=1)
        confined = points.new_zeros(len(points))
        confined[inside] = self.space.interpolate_at(self._confined, points[inside])
        return self.fitted.potential(points) + confined

    @cached_property
    def _confined(self) -> Tensor:
        return self.space.solve_confined(self.rest)


def split_charge(structure: Structure, space: SimplexSpace, charge: Tensor) -> ChargeNearAtoms:
    """Fit Gaussians on the atoms to a charge (n_points,) that is small far from them.

    Raises:
        FunctionalError: a charge of another shape, or that is not finite.
        SpaceError: cells at the atoms too large for the Gaussians.
    """
    spacing = space.spacing_at(torch.tensor(structure.positions))
    if spacing > _COARSEST:
        raise SpaceError(
            f"cells at the atoms are {spacing:.2g} bohr large per order, expected at most "
            f"{_COARSEST:g}: use SimplexSpace.for_structure(structure)"
        )
    if charge.shape != (space.n_points,) or not bool(charge.isfinite().all()):
        raise FunctionalError(
            f"charge has shape {tuple(charge.shape)}: expected finite numbers ({space.n_points},), "
            "one per point of the space"
        )
    elements = zip(structure.symbols, structure.numbers, strict=True)
    basis = AtomicBasis({s: _LIGHT if number <= 2 else _HEAVY for s, number in elements})
    points, weights = space.points.detach(), space.weights.detach()
    coefficients = _fit(structure, basis, points, weights, charge.detach())
    return ChargeNearAtoms(space, charge, FittedCharge(structure, basis, coefficients))


def coulomb_energy(structure: Structure, space: FunctionSpace, charge: Tensor) -> Tensor:
    """Self energy of a charge (n_points,) near atoms, hartree; differentiable.

    On tetrahedra as above, on other spaces as they do it.
    """
    if isinstance(space, SimplexSpace):
        return split_charge(structure, space, charge).energy()
    return space.coulomb_energy(charge)


def coulomb_potential(
    structure: Structure, space: FunctionSpace, charge: Tensor, points: Tensor | None = None
) -> Tensor:
    """Potential (n,) of a charge (n_points,) near atoms at points (n, 3), bohr; hartree.

    The space's own points by default. On tetrahedra as above, on other spaces as they do it.
    """
    if isinstance(space, SimplexSpace):
        return split_charge(structure, space, charge).potential(points)
    potential = space.solve_poisson(charge)
    if points is None:
        return potential
    return space.interpolate_at(space.project(potential), points)


def _fit(
    structure: Structure, basis: AtomicBasis, points: Tensor, weights: Tensor, charge: Tensor
) -> Tensor:
    """Coefficients (n_functions,) with the charge and dipole of the whole."""
    sizes = weights ** (1 / 3)  # of the cells, but for a factor
    n_functions = basis.offsets(structure)[-1]
    chosen, shares = _draw(weights * sizes * charge.abs(), _POINTS * n_functions)
    gram, load = weights.new_zeros(n_functions, n_functions), weights.new_zeros(n_functions)
    for part, share in zip(chosen.split(_BLOCK), shares.split(_BLOCK), strict=True):
        functions = basis.functions(structure, points[part])
        weighted = (share * weights[part] * sizes[part] ** 2)[:, None] * functions
        gram += functions.T @ weighted
        load += charge[part] @ weighted
    scale = gram.diagonal().rsqrt()
    gram = scale[:, None] * gram * scale + _RIDGE * torch.eye(n_functions, dtype=torch.float64)
    integrals = torch.cat([basis.integrals(structure)[:, None], basis.dipoles(structure)], dim=1)
    moments = torch.cat([weights[None], (weights[:, None] * points).T]) @ charge
    return scale * _constrained(gram, scale * load, scale[:, None] * integrals, moments)


def _draw(chance: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Numbers of n points, evenly in the summed chance, and their weight relative to all points."""
    chance = chance / chance.sum().clamp(min=_NOTHING)
    chance = (1 - _ANY) * chance + _ANY / len(chance)
    reached = chance.cumsum(dim=0)
    places = (torch.arange(n, dtype=torch.float64) + 0.5) / n * reached[-1]
    chosen = torch.searchsorted(reached, places)
    return chosen, 1 / (n * chance[chosen])


def _constrained(gram: Tensor, load: Tensor, constraints: Tensor, values: Tensor) -> Tensor:
    """x where x gram x / 2 - load x is smallest with constraints^T x = values."""
    factor = torch.linalg.cholesky(gram)
    free = torch.cholesky_solve(load[:, None], factor)
    answer = torch.cholesky_solve(constraints, factor)
    missing = values[:, None] - constraints.T @ free
    forces: Tensor = torch.linalg.solve(constraints.T @ answer, missing)
    return (free + answer @ forces)[:, 0]
