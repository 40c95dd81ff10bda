"""Free-space potentials in boxes with zero walls."""

import math

import numpy as np
import pytest
import torch

from fedens import TensorSpace
from fedens.fem.multipole import MultipoleBoundary
from fedens.testing import central_difference


def vector(*values):
    return torch.tensor(values, dtype=torch.float64)


def gaussian(points, centre, width):
    """Gaussian charge of integral 1."""
    r2 = ((points - centre) ** 2).sum(dim=1)
    return torch.exp(-r2 / (2 * width**2)) / (2 * math.pi * width**2) ** 1.5


def gaussian_potential(points, centre, width):
    """Its potential, erf(r / (sqrt(2) width)) / r."""
    r = (points - centre).norm(dim=1).clamp(min=1e-8)
    return torch.erf(r / (math.sqrt(2) * width)) / r


#: Charges with a monopole, a dipole and a quadrupole: centre, width, charge.
CHARGES = [
    (vector(0.7, -0.4, 0.9), 1.0, 1.0),
    (vector(-1.2, 0.8, 0.3), 0.9, -2.0),
    (vector(0.2, 1.1, -1.0), 1.1, 1.6),
]


def box(length, elements=5, centre=0.5, order=8):
    return TensorSpace([length] * 3, elements, order, False, origin=[centre - length / 2] * 3)


def total(space, function, charges=CHARGES):
    return sum(q * function(space.points, centre, width) for centre, width, q in charges)


@pytest.mark.parametrize(
    ("moment", "width"), [("monopole", 1.1), ("dipole", 1.0), ("quadrupole", 1.2)]
)
def test_multipoles_are_carried_to_the_walls(moment, width):
    """Derivatives of one Gaussian at the centre: nothing beyond the quadrupole."""
    space, step = box(16.0), 0.5
    centre = vector(0.5, 0.5, 0.5)
    x, y = vector(step, 0.0, 0.0), vector(0.0, step, 0.0)
    charges = {
        "monopole": [(centre, 1.0)],
        "dipole": [(centre + x, 1.0), (centre - x, -1.0)],
        "quadrupole": [(centre + s * x + t * y, s * t * 1.0) for s in (-1, 1) for t in (-1, 1)],
    }[moment]
    charges = [(c, width, q) for c, q in charges]
    exact = total(space, gaussian_potential, charges)
    error = (space.solve_poisson(total(space, gaussian, charges)) - exact).abs().max()
    # differences of points have small moments of order two higher
    allowed = {"monopole": 1e-5, "dipole": 2e-4, "quadrupole": 2e-5}[moment]
    assert float(error) < allowed
    assert float(exact.abs().max()) > 100 * allowed


def test_charges_off_the_centre_leave_the_octupole_only():
    lengths = (16.0, 20.0, 24.0)
    errors = []
    for length in lengths:
        space = box(length, elements=round(length / 4))
        exact = total(space, gaussian_potential)
        error = (space.solve_poisson(total(space, gaussian)) - exact).abs().max()
        errors.append(float(error))
    # the octupole's potential at the wall falls with the fourth power of the distance
    rate = -np.polyfit(np.log(lengths), np.log(errors), 1)[0]
    assert rate == pytest.approx(4.0, abs=0.4)
    assert errors[-1] < 1e-3


def test_energy_of_a_gaussian_is_its_self_energy():
    space, width = box(20.0, elements=6), 1.2
    charge = 3.0 * gaussian(space.points, vector(0.9, 0.2, 0.4), width)
    exact = 9.0 / (2 * math.sqrt(math.pi) * width)
    assert float(space.coulomb_energy(charge)) == pytest.approx(exact, rel=1e-6)


def test_the_carriers_width_does_not_matter():
    space = box(20.0, elements=6)
    charge = total(space, gaussian)
    one, two = (
        MultipoleBoundary(space.points, space.weights, width).potential(
            charge, space._solve_dirichlet
        )
        for width in (1.5, 1.8)
    )
    assert (one - two).abs().max() < 1e-5 * one.abs().max()


def test_potential_is_symmetric_for_any_charge(generator):
    space = box(9.0, elements=3, order=4)
    one, two = torch.randn(2, space.n_points, generator=generator, dtype=torch.float64)
    left = float(space.integrate(one * space.solve_poisson(two)))
    right = float(space.integrate(two * space.solve_poisson(one)))
    assert left == pytest.approx(right, rel=1e-10)
    assert abs(left) > 1e-3


def test_energy_changes_by_the_potential(generator):
    space = box(9.0, elements=3, order=4)
    charge = total(space, gaussian)
    change = torch.randn(space.n_points, generator=generator, dtype=torch.float64)
    expected = central_difference(lambda h: float(space.coulomb_energy(charge + h * change)), 0.1)
    slope = float(space.integrate(space.solve_poisson(charge) * change))
    assert slope == pytest.approx(expected, rel=1e-9)
