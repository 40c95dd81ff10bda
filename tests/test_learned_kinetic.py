import math

import pytest
import torch

from fedens.data.density import Density
from fedens.energy.density_variables import DensityVariables
from fedens.energy.kinetic import THOMAS_FERMI
from fedens.energy.learned_kinetic import LearnedKinetic, Polynomial
from fedens.energy.terms import term_from_description
from fedens.errors import FunctionalError
from fedens.fem.tensor import TensorSpace
from fedens.testing.terms import check_energy_term, check_uniform_response

MEAN = 12 / 7.65**3
VARIABLES = DensityVariables((0.65,), (1.5, 0.7))


@pytest.fixture(scope="module")
def space():
    return TensorSpace([7.0, 7.4, 7.8], [2, 2, 2], 7)


@pytest.fixture(scope="module")
def density(space):
    waves = torch.cos(2 * math.pi * space.points / torch.tensor(space.lengths))
    n = MEAN * (1 + 0.4 * waves[:, 0] * waves[:, 1] + 0.3 * waves[:, 2])
    return Density.from_root(space, space.project(torch.sqrt(n)))


@pytest.fixture(scope="module")
def term():
    start = Polynomial(VARIABLES)
    random = torch.Generator().manual_seed(0)
    parameters = 0.1 * torch.randn(len(start.monomials), generator=random, dtype=torch.float64)
    return LearnedKinetic(start.with_parameters(parameters.tolist()), MEAN)


def test_energy_and_its_derivatives(term, density):
    check_energy_term(term, density)


@pytest.mark.parametrize("filling", [0.8, 1.0])
def test_response_of_the_uniform_gas(term, space, filling):
    check_uniform_response(term, space, filling * MEAN)


def test_variables_are_bounded_where_the_density_vanishes(space, term):
    wave = torch.sin(math.pi * space.points[:, 0] / space.lengths[0])
    y = term.variables(Density.from_root(space, space.project(math.sqrt(MEAN) * wave)))
    assert torch.isfinite(y).all()
    assert float(y[:, :2].abs().max()) <= 1
    assert float(y[:, 2:].abs().max()) < 2


def test_uniform_gas_has_no_correction(space, term):
    for filling in (0.5, 1.0, 2.0):
        uniform = torch.full((space.n_points,), math.sqrt(filling * MEAN), dtype=torch.float64)
        gas = Density.from_root(space, space.project(uniform))
        local = THOMAS_FERMI * (filling * MEAN) ** (5 / 3) * space.volume
        assert abs(float(term.energy(gas))) < 1e-10 * local


def test_horners_rule_sums_the_monomials(term, density):
    y = term.variables(density)
    parameters = torch.tensor(term.correction.parameters, dtype=torch.float64)
    summed = term.correction.basis(y) @ parameters
    torch.testing.assert_close(term.correction(y), summed, rtol=1e-12, atol=1e-14)


def test_derivatives_of_the_monomials_sum_to_that_of_the_energy(term, density):
    energies, gradients = term.basis_energies(density)
    c = density.root_coefficients.clone().requires_grad_(True)
    energy = term.energy(Density.from_root(density.space, c))
    (expected,) = torch.autograd.grad(energy, c)
    parameters = torch.tensor(term.correction.parameters, dtype=torch.float64)
    assert float(parameters @ energies) == pytest.approx(float(energy.detach()), rel=1e-12)
    torch.testing.assert_close(parameters @ gradients, expected, rtol=1e-9, atol=1e-12)


def test_it_scales_with_coordinates(term, density):
    factor = 1.3
    space = density.space
    near = TensorSpace([length / factor for length in space.lengths], [2, 2, 2], 7)
    values = factor**3 * density.values
    scaled = Density.from_root(near, near.project(torch.sqrt(values)))
    other = term.scaled_to(factor**3 * MEAN)
    assert float(other.energy(scaled)) == pytest.approx(
        factor**2 * float(term.energy(density)), rel=1e-9
    )


def test_it_is_described_whole(term, density):
    again = term_from_description(term.describe())
    assert float(again.energy(density)) == float(term.energy(density))


def test_what_cannot_be_is_refused():
    with pytest.raises(FunctionalError, match="2 parameters"):
        Polynomial(VARIABLES, 3, [1.0, 2.0])
    with pytest.raises(FunctionalError, match="0 parameters"):
        Polynomial(VARIABLES, 3, [])
    with pytest.raises(FunctionalError, match="all finite"):
        Polynomial(VARIABLES, 1, [math.nan] * 4)
    with pytest.raises(FunctionalError, match="mean_density"):
        LearnedKinetic(Polynomial(VARIABLES), 0.0)
    with pytest.raises(FunctionalError, match="positive numbers"):
        DensityVariables((-1.0,))


def test_vacuum_is_refused(term):
    box = TensorSpace([8.0] * 3, [2] * 3, 4, periodic=False)
    wave = torch.ones(box.n_points, dtype=torch.float64)
    with pytest.raises(FunctionalError, match="not defined in vacuum"):
        term.energy(Density.from_root(box, box.project(wave)))
