"""Anderson mixing of linear maps with known fixed points, and Kerker's preconditioner."""

import numpy as np
import pytest
import torch

from fedens import TensorSpace
from fedens.reference.kohn_sham.mixing import AndersonMixer, kerker


class LinearMap:
    """x to A x + b; A's eigenvalues below 1, so that one fixed point exists."""

    def __init__(self, eigenvalues, seed=0):
        generator = torch.Generator().manual_seed(seed)
        count = len(eigenvalues)
        noise = torch.randn(count, count, dtype=torch.float64, generator=generator)
        rotation = torch.linalg.qr(noise)[0]
        self.matrix = (rotation * torch.as_tensor(eigenvalues)) @ rotation.T
        self.shift = torch.randn(count, dtype=torch.float64, generator=generator)
        self.fixed_point = torch.linalg.solve(torch.eye(count) - self.matrix, self.shift)

    def residuals(self, mixer, steps):
        """Lengths of the residual, before the first step and after each."""
        x = torch.zeros_like(self.shift)
        found = []
        for _ in range(steps + 1):
            residual = self.matrix @ x + self.shift - x
            found.append(float(residual.norm()))
            x = mixer.next(x, residual)
        return found


@pytest.mark.parametrize("dimension", [1, 3, 6])
@pytest.mark.parametrize("damping", [0.3, 1.0])
def test_a_linear_map_is_solved_in_its_dimension_plus_one(dimension, damping):
    problem = LinearMap(np.linspace(-4, 0.5, dimension))
    residuals = problem.residuals(AndersonMixer(torch.dot, damping=damping), dimension + 1)
    assert residuals[-1] < 1e-8 * residuals[0]
    assert residuals[dimension - 1] > 1e-4 * residuals[0]


def test_the_next_input_is_the_fixed_point():
    problem = LinearMap([-2.0, 0.3])
    mixer = AndersonMixer(torch.dot)
    x = torch.zeros(2, dtype=torch.float64)
    for _ in range(3):
        x = mixer.next(x, problem.matrix @ x + problem.shift - x)
    torch.testing.assert_close(x, problem.fixed_point, rtol=1e-10, atol=1e-12)


def test_a_stiff_map_runs_away_without_memory():
    """Eigenvalues as of a density in a long cell: from -20 to 0.5."""
    problem = LinearMap(-20 + 20.5 * np.linspace(0, 1, 40) ** 0.3)
    anderson = problem.residuals(AndersonMixer(torch.dot, damping=0.1), 60)
    plain = problem.residuals(_Plain(0.09), 60)
    assert plain[-1] < plain[0]  # the largest damping that does not run away is about 2 / 21
    assert anderson[-1] < 1e-4 * plain[-1]
    assert anderson[-1] < 1e-5 * anderson[0]


class _Plain:
    def __init__(self, damping):
        self.damping = damping

    def next(self, given, residual):
        return given + self.damping * residual


def test_the_first_step_is_damped_and_preconditioned():
    mixer = AndersonMixer(torch.dot, precondition=lambda r: 2 * r, damping=0.25)
    given, residual = torch.tensor([1.0, 2.0]), torch.tensor([4.0, -8.0])
    torch.testing.assert_close(mixer.next(given, residual), torch.tensor([3.0, -2.0]))


def test_a_good_preconditioner_is_used():
    problem = LinearMap(np.linspace(-9, 0.5, 30))
    exact = torch.linalg.inv(torch.eye(30) - problem.matrix)
    mixer = AndersonMixer(torch.dot, precondition=lambda r: exact @ r, damping=1.0)
    assert problem.residuals(mixer, 1)[-1] < 1e-12


def test_the_norm_is_the_one_given():
    """Where the norm counts one component only, that one is solved for in two steps."""
    matrix = torch.tensor([[-1.0, 0.0], [0.0, 0.9]], dtype=torch.float64)
    mixer = AndersonMixer(lambda a, b: a[0] * b[0], damping=0.2)
    x = torch.zeros(2, dtype=torch.float64)
    for _ in range(3):
        residual = matrix @ x + 1 - x
        x = mixer.next(x, residual)
    assert float(x[0]) == pytest.approx(0.5, abs=1e-12)
    assert float(x[1]) != pytest.approx(10.0, abs=1.0)


def test_a_residual_that_stays_the_same_does_no_harm():
    mixer = AndersonMixer(torch.dot)
    x, residual = torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    for _ in range(3):
        x = mixer.next(x, residual)
    assert torch.isfinite(x).all()


# Kerker


SPACE = TensorSpace([20.0, 6.0, 6.0], (6, 2, 2), 8)


@pytest.mark.parametrize("waves", [1, 2, 6])
def test_long_waves_are_damped(waves):
    q = 2 * np.pi * waves / 20.0
    wave = torch.cos(q * SPACE.points[:, 0])
    expected = q**2 / (q**2 + 0.64) * wave
    torch.testing.assert_close(kerker(SPACE)(wave), expected, rtol=0, atol=1e-4)
    assert float((kerker(SPACE)(wave) - wave).abs().max()) > 0.1


def test_the_number_of_electrons_stays_out_of_it(generator):
    field = torch.rand(SPACE.n_points, dtype=torch.float64, generator=generator)
    assert float(SPACE.integrate(field)) > 100
    assert abs(float(SPACE.integrate(kerker(SPACE)(field)))) < 1e-9


def test_what_no_mode_holds_passes(generator):
    field = torch.rand(SPACE.n_points, dtype=torch.float64, generator=generator)
    outside = field - SPACE.apply(torch.ones_like, field)
    assert float(outside.abs().max()) > 0.1
    torch.testing.assert_close(kerker(SPACE)(outside), outside, rtol=0, atol=1e-12)
