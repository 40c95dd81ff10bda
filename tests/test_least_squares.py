"""Least squares: damping, columns that it leaves alone, and its choice."""

import pytest
import torch

from fedens.learning.least_squares import RIDGES, best_ridge, least_squares

TRUTH = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)


def groups(noise, n_groups=6, n_rows=4, seed=0):
    """Rows of a linear law in three columns and a constant, with noise."""
    random = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(n_groups):
        matrix = torch.randn(n_rows, 3, generator=random, dtype=torch.float64)
        matrix = torch.cat([matrix, torch.ones(n_rows, 1)], dim=1)
        targets = matrix @ TRUTH + noise * torch.randn(n_rows, generator=random)
        # in two pieces, as objectives yield them
        made.append([(matrix[:1], targets[:1]), (matrix[1:], targets[1:])])
    return made


def all_rows(made):
    return [row for group in made for row in group]


def test_a_free_column_is_not_damped():
    free = torch.tensor([False, False, False, True])
    rows = all_rows(groups(0.0))
    strong = least_squares(rows, 1e6, free=free)
    assert strong[:3].abs().max() < 1e-5
    mean = torch.cat([targets for _, targets in rows]).mean()
    assert float(strong[3]) == pytest.approx(float(mean), abs=0.01)
    assert abs(float(least_squares(rows, 1e6)[3])) < 1e-5


def test_columns_that_are_free_and_equal_share():
    """No unique solution without the little damping that is left to them."""
    rows = [(matrix[:, [3, 3]], targets) for matrix, targets in all_rows(groups(0.0))]
    first, second = least_squares(rows, 1e-3, free=torch.tensor([True, True]))
    assert float(first) == pytest.approx(float(second), rel=1e-3)


def test_noise_wants_more_damping():
    free = torch.tensor([False, False, False, True])
    clean, noisy = (best_ridge(groups(noise), free) for noise in (1e-6, 10.0))
    assert clean <= 1e-6
    assert noisy >= 0.1


def test_the_largest_of_the_dampings_that_are_as_good():
    """Within a standard error of the best one."""
    made, free = groups(1.0, n_groups=8), torch.tensor([False, False, False, True])

    def misfits(ridge):
        found = []
        for i, out in enumerate(made):
            solution = least_squares(all_rows(made[:i] + made[i + 1 :]), ridge, free=free)
            found.append(sum(float(((a @ solution - b) ** 2).sum()) for a, b in out))
        return torch.tensor(found)

    best = min((misfits(ridge) for ridge in RIDGES), key=lambda m: float(m.mean()))
    limit = best.mean() + best.std() / 8**0.5
    expected = max(ridge for ridge in RIDGES if misfits(ridge).mean() <= limit)
    assert best_ridge(made, free) == expected
    assert float(misfits(expected).mean()) > float(best.mean())


def test_a_single_group_leaves_nothing_out():
    assert 0 < best_ridge(groups(1.0, n_groups=1)) < 1
