"""Block Davidson against dense diagonalisation."""

import numpy as np
import pytest
import torch

from fedens.errors import ConvergenceError
from fedens.reference.kohn_sham import eigensolver
from fedens.reference.kohn_sham.eigensolver import davidson, orthonormal

SIZE, BANDS = 200, 8
DTYPES = [torch.float64, torch.complex128]


class Problem:
    """A Hermitian matrix with a large diagonal, and what a solver asks of it."""

    def __init__(self, dtype, levels=None, coupling=0.15, size=SIZE, seed=1):
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(size, size, dtype=dtype, generator=generator)
        if levels is None:
            matrix = torch.diag(torch.linspace(0, 40, size, dtype=torch.float64)).to(dtype)
            self.matrix = matrix + coupling * (noise + noise.mH)
        else:
            rotation = torch.linalg.qr(torch.eye(size) + coupling * noise)[0]
            self.matrix = (rotation * levels) @ rotation.mH
        self.diagonal = self.matrix.diagonal().real
        self.start = torch.randn(BANDS, size, dtype=dtype, generator=generator)
        self.exact = np.linalg.eigvalsh(self.matrix.numpy())[:BANDS]
        self.applied = 0

    def apply(self, rows):
        self.applied += len(rows)
        return rows @ self.matrix.T

    def precondition(self, residuals, vectors):
        values = ((vectors.conj() * self.apply(vectors)).sum(dim=1)).real
        self.applied -= len(vectors)
        return residuals / (1.0 + (self.diagonal - values[:, None]).abs())

    def solve(self, tolerance=1e-8, start=None, **options):
        given = self.start if start is None else start
        return davidson(self.apply, self.precondition, given, tolerance, **options)


def overlaps(rows):
    return (rows.conj() @ rows.T).numpy()


def assert_consistent(problem, found):
    """Orthonormal vectors with the values and residuals that are said."""
    np.testing.assert_allclose(overlaps(found.vectors), np.eye(BANDS), atol=1e-12)
    residuals = problem.apply(found.vectors) - found.values[:, None] * found.vectors
    np.testing.assert_allclose(found.residuals, torch.linalg.norm(residuals, dim=1), atol=1e-11)
    assert (found.values[1:] >= found.values[:-1]).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_lowest_eigenpairs(dtype):
    problem = Problem(dtype)
    found = problem.solve(max_expansions=60)
    assert found.applications == problem.applied
    assert found.residuals.max() < 1e-8
    np.testing.assert_allclose(found.values, problem.exact, rtol=0, atol=1e-10)
    assert_consistent(problem, found)


@pytest.mark.parametrize("dtype", DTYPES)
def test_degenerate_levels(dtype):
    levels = torch.cat([torch.tensor([-3.0] * 3 + [-2.0] * 4), torch.linspace(0, 40, SIZE - 7)])
    problem = Problem(dtype, levels.to(torch.float64), coupling=0.01)
    found = problem.solve(max_expansions=60)
    np.testing.assert_allclose(found.values, problem.exact, rtol=0, atol=1e-10)
    np.testing.assert_allclose(found.values[:7], [-3.0] * 3 + [-2.0] * 4, rtol=0, atol=1e-10)
    assert_consistent(problem, found)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("difference", [1e-2, 1e-4, 1e-5, 1e-9, 0.0])
def test_start_vectors_that_almost_depend_on_each_other(dtype, difference):
    problem = Problem(dtype)
    start = problem.start.clone()
    start[3] = start[2] + difference * start[3]
    start[5] = 1e3 * (start[0] - start[1]) + difference * start[5]
    found = problem.solve(start=start, max_expansions=60)
    np.testing.assert_allclose(found.values, problem.exact, rtol=0, atol=1e-10)
    assert_consistent(problem, found)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("difference", [1.0, 0.3, 3e-2, 3e-3, 3e-4, 1e-6])
def test_orthonormal_rows_span_the_same_space(dtype, difference):
    rows = Problem(dtype).start.clone()
    rows[1:] = rows[:1] + difference * rows[1:]
    found = orthonormal(rows)
    np.testing.assert_allclose(overlaps(found), np.eye(BANDS), atol=1e-12)
    inside = (rows @ found.mH) @ found
    np.testing.assert_allclose(inside, rows, atol=1e-12 * float(rows.abs().max()))


def test_only_the_wanted_need_converge():
    wanted = torch.arange(BANDS) < 3
    some, every = Problem(torch.float64), Problem(torch.float64)
    found = some.solve(wanted=wanted, max_expansions=60)
    assert found.residuals[wanted].max() < 1e-8
    assert found.residuals[~wanted].max() > 1e-6
    every.solve(max_expansions=60)
    assert some.applied < every.applied


@pytest.mark.parametrize("expansions", [0, 1, 4])
def test_expansions_are_limited(expansions):
    problem = Problem(torch.complex128, coupling=0.5)
    found = problem.solve(max_expansions=expansions)
    assert found.applications == problem.applied <= (1 + expansions) * BANDS
    assert found.residuals.min() > 1e-8
    assert (found.values.numpy() > problem.exact).all()  # from above
    assert_consistent(problem, found)


def test_a_larger_subspace_needs_fewer_applications(monkeypatch):
    problem = Problem(torch.float64)
    counts = []
    for size in (2, 4, 20):
        monkeypatch.setattr(eigensolver, "_LARGEST_SUBSPACE", size)
        counts.append(problem.solve(max_expansions=100).applications)
    assert counts[0] > 1.1 * counts[1] > 1.1 * counts[2]


def test_a_solution_costs_one_application():
    problem = Problem(torch.float64)
    found = problem.solve(max_expansions=60)
    again = problem.solve(tolerance=1e-7, start=found.vectors)
    assert again.applications == BANDS
    np.testing.assert_allclose(again.values, found.values, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
def test_many_restarts(dtype):
    problem = Problem(dtype, coupling=1.0)
    found = problem.solve(tolerance=1e-10, max_expansions=300)
    assert found.applications > 5 * 4 * BANDS  # more than five subspaces
    np.testing.assert_allclose(found.values, problem.exact, rtol=0, atol=1e-10)
    assert_consistent(problem, found)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_tolerance_that_rounding_does_not_let_be_met(dtype):
    problem = Problem(dtype)
    found = problem.solve(tolerance=1e-16, max_expansions=200)
    assert found.residuals.max() < 1e-9
    np.testing.assert_allclose(found.values, problem.exact, rtol=0, atol=1e-11)
    assert_consistent(problem, found)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_space_smaller_than_the_subspace(dtype):
    problem = Problem(dtype, size=2 * BANDS + 3)
    found = problem.solve(max_expansions=20)
    assert found.residuals.max() < 1e-8
    np.testing.assert_allclose(found.values, problem.exact, rtol=0, atol=1e-10)
    assert_consistent(problem, found)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_an_operator_that_is_not_finite(dtype, bad):
    problem = Problem(dtype)
    with pytest.raises(ConvergenceError, match="not finite"):
        davidson(lambda rows: rows * bad, problem.precondition, problem.start, 1e-8)
