"""The minimiser on the sphere: known minima, honest reports, and ways to fail."""

import itertools
import math

import pytest
import torch

from fedens import Density, TensorSpace
from fedens.energy.kinetic import VonWeizsaecker
from fedens.energy.minimise import _Curvature, minimise_on_sphere


def quadratic(matrix):
    """c . A c and its gradient."""

    def evaluate(c):
        return float(c @ matrix @ c), 2 * matrix @ c

    return evaluate


def quartic(matrix, strength=2.0):
    def evaluate(c):
        energy = float(c @ matrix @ c) + strength * float((c**4).sum())
        return energy, 2 * matrix @ c + 4 * strength * c**3

    return evaluate


@pytest.fixture
def matrix(generator):
    """A symmetric positive matrix with eigenvalues from 1 to 900."""
    random = torch.randn(30, 30, generator=generator, dtype=torch.float64)
    vectors = torch.linalg.qr(random)[0]
    return vectors @ torch.diag(torch.arange(1.0, 31.0, dtype=torch.float64) ** 2) @ vectors.T


def run(evaluate, tolerance=1e-9, start=None, hessian=None, norm2=3.0, **options):
    start = torch.ones(30, dtype=torch.float64) if start is None else start
    hessian = torch.full((30,), 100.0, dtype=torch.float64) if hessian is None else hessian
    return minimise_on_sphere(evaluate, start, norm2, hessian, tolerance, **options)


def test_lowest_eigenvalue(matrix):
    minimum = run(quadratic(matrix))
    assert minimum.converged
    assert minimum.message.startswith("converged: residual")
    assert minimum.energy == pytest.approx(3.0 * 1.0, abs=1e-10)
    assert minimum.multiplier == pytest.approx(2.0, abs=1e-9)
    assert float(minimum.x @ minimum.x) == pytest.approx(3.0, rel=1e-13)
    lowest = torch.linalg.eigh(matrix)[1][:, 0]
    assert abs(float(minimum.x @ lowest)) == pytest.approx(math.sqrt(3.0), rel=1e-9)


def test_residual_is_what_it_says(matrix):
    minimum = run(quartic(matrix), tolerance=1e-3)
    energy, gradient = quartic(matrix)(minimum.x)
    tangent = gradient - minimum.multiplier * minimum.x
    assert minimum.energy == energy
    assert minimum.residual == pytest.approx(float(tangent.norm()) / 3.0**0.5, rel=1e-12)
    assert abs(float(tangent @ minimum.x)) < 1e-10
    assert minimum.residual <= 1e-3


def test_length_of_the_start_does_not_matter(matrix, generator):
    start = torch.randn(30, generator=generator, dtype=torch.float64)
    one, two = (run(quartic(matrix), start=s) for s in (start, 64.0 * start))
    assert one.evaluations == two.evaluations
    assert one.energy == two.energy


def test_energy_never_rises(matrix):
    seen = []
    minimum = run(quartic(matrix), report=lambda *row: seen.append(row))
    evaluations, energies, residuals = zip(*seen, strict=True)
    assert list(evaluations) == sorted(evaluations)
    assert all(b <= a + 1e-11 for a, b in itertools.pairwise(energies))
    assert len(seen) == minimum.iterations + 1
    assert (evaluations[-1], energies[-1], residuals[-1]) == (
        minimum.evaluations,
        minimum.energy,
        minimum.residual,
    )


def test_every_evaluation_is_counted(matrix):
    calls = []

    def counted(c):
        calls.append(float(c @ c))
        return quartic(matrix)(c)

    minimum = run(counted, hessian=torch.full((30,), 0.01, dtype=torch.float64))
    assert len(calls) == minimum.evaluations
    assert calls == pytest.approx([3.0] * len(calls)), "every trial lies on the sphere"
    assert minimum.converged, "a bad preconditioner must only cost evaluations"


def test_good_preconditioner_saves_evaluations():
    diagonal = torch.arange(1.0, 31.0, dtype=torch.float64) ** 2
    evaluate = quartic(torch.diag(diagonal), strength=1e-2)
    rough = run(evaluate)
    good = run(evaluate, hessian=2 * diagonal)
    assert good.converged
    assert rough.converged
    assert good.evaluations < 0.7 * rough.evaluations


def test_giving_up_is_said(matrix):
    minimum = run(quartic(matrix), max_evaluations=5)
    assert not minimum.converged
    assert minimum.evaluations <= 5
    assert minimum.residual > 1e-9
    assert "not converged" in minimum.message
    assert "raise max_evaluations" in minimum.message


def test_tolerance_below_rounding_is_said(matrix):
    minimum = run(quartic(matrix), tolerance=0.0, max_evaluations=400)
    assert not minimum.converged
    assert minimum.residual < 1e-10
    assert "the tolerance" in minimum.message


def test_gradient_that_leads_nowhere_is_said(matrix):
    def wrong(c):
        energy, gradient = quartic(matrix)(c)
        return energy, -gradient

    minimum = run(wrong)
    assert not minimum.converged
    assert "no step lowers the energy" in minimum.message
    assert minimum.iterations == 0


def test_nan_energy_is_not_convergence():
    minimum = run(lambda c: (math.nan, c * math.nan))
    assert not minimum.converged
    assert "not converged" in minimum.message


def test_curvature_remembers_its_latest_step(matrix, generator):
    """The secant equation; and, as an inverse Hessian must be, symmetric and positive."""
    steps = torch.randn(8, 30, generator=generator, dtype=torch.float64)
    curvature = _Curvature(torch.full((30,), 0.01, dtype=torch.float64))
    for step in steps:
        curvature.update(step, matrix @ step)
    assert torch.allclose(curvature.apply(matrix @ steps[-1]), steps[-1], rtol=1e-10, atol=1e-12)
    inverse = torch.stack([curvature.apply(e) for e in torch.eye(30, dtype=torch.float64)])
    assert torch.allclose(inverse, inverse.T, rtol=0, atol=1e-10 * inverse.abs().max())
    assert torch.linalg.eigvalsh(inverse).min() > 0
    curvature.update(steps[0], -steps[0])
    assert len(curvature.pairs) == 8, "a step of negative curvature must be left out"


def test_start_at_the_minimum_needs_one_evaluation():
    evaluate = quadratic(torch.diag(torch.arange(1.0, 31.0, dtype=torch.float64)))
    start = torch.eye(30, dtype=torch.float64)[0]
    minimum = run(evaluate, start=start)
    assert minimum.converged
    assert (minimum.evaluations, minimum.iterations) == (1, 0)


@pytest.mark.parametrize("stiffness", [0.25, 1.0])
def test_one_electron_in_a_harmonic_trap(stiffness):
    """von Weizsaecker only: the energy of k r^2/2 is 1.5 sqrt(k), exactly."""
    length = 14.0 / stiffness**0.25
    space = TensorSpace([length, length + 1, length], 4, 10, False, origin=[-length / 2] * 3)
    trap = 0.5 * stiffness * (space.points**2).sum(dim=1)
    term = VonWeizsaecker()

    def evaluate(c):
        c = c.detach().requires_grad_(True)
        density = Density.from_root(space, c)
        energy = term.energy(density) + space.integrate(trap * density.values)
        return float(energy.detach()), torch.autograd.grad(energy, c)[0]

    start = space.project(torch.exp(-0.3 * (space.points**2).sum(dim=1)))
    hessian = space.laplacian_eigenvalues + 1.0
    minimum = minimise_on_sphere(evaluate, start, 1.0, hessian, 1e-7)
    assert minimum.converged
    assert minimum.energy == pytest.approx(1.5 * math.sqrt(stiffness), abs=1e-6)
    assert minimum.multiplier / 2 == pytest.approx(minimum.energy, abs=1e-9)
    density = Density.from_root(space, minimum.x)
    # virial theorem: half of the energy is kinetic; and the trap's centre is the density's
    assert float(term.energy(density)) == pytest.approx(minimum.energy / 2, rel=1e-5)
    assert density.dipole.abs().max() < 1e-5
