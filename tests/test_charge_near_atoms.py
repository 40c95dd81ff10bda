"""Coulomb energies with most of the charge in closed form: exact answers, any fit, derivatives."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from skfem import MeshTet

from fedens.atoms.charge_near_atoms import (
    FittedCharge,
    coulomb_energy,
    coulomb_potential,
    split_charge,
)
from fedens.errors import FunctionalError, SpaceError
from fedens.fem.simplex import SimplexSpace
from fedens.fem.tensor import TensorSpace
from fedens.structure import Structure
from fedens.testing import central_difference

PAIR = Structure(["O", "H"], [[0.0, 0.1, -0.6], [0.3, 0.0, 1.2]])
#: Of Gaussians: charge, centre, exponent; together neutral, not on the atoms, none of the fit's.
GAUSSIANS = [
    (1.0, [0.1, 0.0, -0.5], 0.9),
    (-1.6, [0.2, 0.1, 0.4], 0.6),
    (0.6, [0.2, 0.0, 1.1], 1.7),
]


def vector(values):
    return torch.tensor(values, dtype=torch.float64)


def density(points):
    return sum(
        q * (a / math.pi) ** 1.5 * torch.exp(-a * ((points - vector(c)) ** 2).sum(dim=1))
        for q, c, a in GAUSSIANS
    )


def potential(points):
    total = 0
    for q, c, a in GAUSSIANS:
        r = (points - vector(c)).norm(dim=1).clamp(min=1e-8)
        total = total + q * torch.erf(math.sqrt(a) * r) / r
    return total


def exact_energy():
    """(1/2) sum_ij q_i q_j erf(sqrt(a_i a_j / (a_i + a_j)) R_ij) / R_ij."""
    total = 0.0
    for q, c, a in GAUSSIANS:
        for p, d, b in GAUSSIANS:
            distance, root = max(math.dist(c, d), 1e-8), math.sqrt(a * b / (a + b))
            total += 0.5 * q * p * math.erf(root * distance) / distance
    return total


@pytest.fixture(scope="module")
def space():
    return SimplexSpace.for_structure(PAIR, finest=0.3, growth=0.6, margin=9.0)


def test_errors_are_far_below_those_of_the_mesh_alone(space):
    charge, exact = density(space.points), potential(space.points)
    split = split_charge(PAIR, space, charge)
    assert float(space.integrate(split.rest**2)) < 0.1**2 * float(space.integrate(charge**2))
    alone = float(space.coulomb_energy(charge)) - exact_energy()
    assert abs(float(split.energy()) - exact_energy()) < 0.02 * abs(alone)
    assert abs(alone) > 1e-4
    of_mesh = float((space.solve_poisson(charge) - exact).abs().max())
    found = float((split.potential() - exact).abs().max())
    assert found < 0.2 * of_mesh
    assert of_mesh > 1e-3


def test_fit_has_the_charge_and_the_dipole(space):
    charge = density(space.points) + 0.1 * torch.exp(-space.points.norm(dim=1))
    fitted = split_charge(PAIR, space, charge).fitted
    integrals = fitted.coefficients @ fitted.basis.integrals(PAIR)
    dipole = fitted.coefficients @ fitted.basis.dipoles(PAIR)
    assert float(integrals) == pytest.approx(float(space.integrate(charge)), abs=1e-10)
    torch.testing.assert_close(dipole, (space.weights * charge) @ space.points)
    assert float(integrals) > 1
    assert float(dipole.norm()) > 0.1


@pytest.mark.parametrize("factor", [0.0, 0.7, 1.5])
def test_any_fit_gives_the_same_but_for_the_error_of_the_mesh(space, factor):
    """Also none, and a bad one."""
    split = split_charge(PAIR, space, density(space.points))
    other = replace(split, fitted=scaled(split.fitted, factor))
    assert float(other.energy()) == pytest.approx(exact_energy(), abs=2e-3)
    assert float((other.energy() - split.energy()).abs()) > 1e-6


def scaled(fitted, factor):
    return FittedCharge(fitted.structure, fitted.basis, factor * fitted.coefficients)


def test_potential_at_other_points_and_outside(space):
    split = split_charge(PAIR, space, density(space.points))
    points = vector([[0.3, 0.2, 0.1], [-2.0, 1.0, 3.0], [15.0, 0.0, 0.0], [30.0, -20.0, 5.0]])
    torch.testing.assert_close(split.potential(points), potential(points), rtol=0, atol=2e-4)
    assert abs(float(split.potential(points)[2])) > 1e-4
    same = coulomb_potential(PAIR, space, split.charge, points)
    assert torch.equal(same, split.potential(points))


def test_potential_is_the_derivative_of_the_energy(space):
    charge = density(space.points).requires_grad_()
    split = split_charge(PAIR, space, charge)
    (slope,) = torch.autograd.grad(split.energy(), charge)
    expected = space.weights * split.potential().detach()
    torch.testing.assert_close(slope, expected, rtol=1e-8, atol=1e-12)


@pytest.mark.slow
def test_derivative_while_the_mesh_moves_past_a_fixed_fit(space):
    charge, start = density(space.points), torch.tensor(PAIR.positions)
    fitted = split_charge(PAIR, space, charge).fitted

    def energy(positions):
        there = space.moved(positions)
        split = split_charge(PAIR, there, density(there.points))
        return replace(split, fitted=fitted).energy()

    positions = start.clone().requires_grad_()
    (slope,) = torch.autograd.grad(energy(positions), positions)
    direction = vector([[0.5, 0.1, 0.0], [0.0, -0.3, 0.8]])
    expected = central_difference(lambda h: float(energy(start + h * direction)), 1e-3)
    assert float((slope * direction).sum()) == pytest.approx(expected, rel=1e-5, abs=1e-9)


def test_no_charge_at_all(space):
    nothing = torch.zeros(space.n_points, dtype=torch.float64)
    assert float(coulomb_energy(PAIR, space, nothing)) == 0
    assert float(coulomb_potential(PAIR, space, nothing).abs().max()) == 0


def test_other_spaces_do_it_themselves():
    space = TensorSpace([14.0] * 3, 6, 4, False, origin=[-7.0] * 3)
    charge = density(space.points)
    assert torch.equal(coulomb_energy(PAIR, space, charge), space.coulomb_energy(charge))
    found = coulomb_potential(PAIR, space, charge)
    assert torch.equal(found, space.solve_poisson(charge))
    inside = torch.nonzero(space.points.abs().amax(dim=1) < 5)[::5000, 0]
    there = coulomb_potential(PAIR, space, charge, space.points[inside])
    torch.testing.assert_close(there, found[inside], rtol=0, atol=1e-3)


@pytest.mark.parametrize("charge", [torch.zeros(5).double(), torch.zeros(()).double()])
def test_charges_that_do_not_fit_are_refused(space, charge):
    with pytest.raises(FunctionalError, match="expected finite numbers"):
        split_charge(PAIR, space, charge)


def test_charges_that_are_not_finite_are_refused(space):
    charge = density(space.points)
    charge[7] = math.nan
    with pytest.raises(FunctionalError, match="expected finite numbers"):
        coulomb_potential(PAIR, space, charge)


def test_coarse_meshes_and_those_too_coarse():
    """16 bohr in cubes, each of six tetrahedra; the atoms anywhere in them."""
    space = cubes(12)
    charge = density(space.points)
    alone = float(space.coulomb_energy(charge)) - exact_energy()
    error = float(coulomb_energy(PAIR, space, charge)) - exact_energy()
    assert abs(error) < 0.1 * abs(alone)
    space = cubes(4)
    with pytest.raises(SpaceError, match=r"are 3\.5 bohr large per order, expected at most 1\.5"):
        coulomb_energy(PAIR, space, density(space.points))


def cubes(n):
    return SimplexSpace(MeshTet.init_tensor(*[np.linspace(-8, 8, n + 1)] * 3))
