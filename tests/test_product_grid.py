"""The coarser grid for products of orbitals."""

import math

import numpy as np
import pytest
import torch

from fedens import TensorSpace
from fedens.errors import SpaceError
from fedens.fem.modes import ModeBasis
from fedens.fem.product_grid import ProductGrid

LENGTHS = [6.0, 7.0, 8.0]
CUTOFF = 6.0


@pytest.fixture(scope="module")
def space():
    return TensorSpace(LENGTHS, 3, 8)


@pytest.fixture(scope="module")
def grid(space):
    return ProductGrid.holding(space, 1.44 * CUTOFF, CUTOFF)


def random_field(n, seed=0):
    return torch.tensor(np.random.default_rng(seed).normal(size=n))


def grid_weights(grid):
    x, y, z = grid.weights
    return (x[:, None, None] * y[:, None] * z).reshape(-1)


def test_it_is_as_fine_as_asked(grid, space):
    wave = math.sqrt(2 * 1.44 * CUTOFF)
    for points, length in zip(grid.points, LENGTHS, strict=True):
        assert len(points) % 2 == 1
        assert math.pi * len(points) / length >= wave > math.pi * (len(points) - 2) / length
    assert grid.n_points < space.n_points / 2


def test_waves_are_interpolated_exactly(grid, space):
    wave = 2 * math.pi / LENGTHS[1]
    for n in (0, 1, 3):
        on_grid = torch.cartesian_prod(*grid.points)
        found = grid.interpolate(torch.cos(n * wave * on_grid[:, 1] - 0.3))
        expected = torch.cos(n * wave * space.points[:, 1] - 0.3)
        assert (found - expected).abs().max() < 1e-7


def test_integrals_stay(grid, space):
    field = random_field(grid.n_points)
    assert space.integrate(grid.interpolate(field)) == pytest.approx(
        float(grid_weights(grid) @ field), rel=1e-12
    )


def test_restriction_is_the_adjoint(grid, space):
    coarse, fine = random_field(grid.n_points), random_field(space.n_points, 1)
    one = space.integrate(fine * grid.interpolate(coarse))
    other = (grid_weights(grid) * grid.restrict(fine)) @ coarse
    assert float(one) == pytest.approx(float(other), rel=1e-12)


@pytest.mark.parametrize("kpoint", [(0, 0, 0), (0.5, 0, 0.5), (0.25, 0.1, 0.3)])
def test_modes_are_orthonormal_and_densities_keep_their_electrons(grid, space, kpoint):
    basis = ModeBasis.below(space, CUTOFF, kpoint, grid)
    rows = torch.randn(3, basis.n_modes, dtype=basis.dtype, generator=torch.Generator())
    assert (basis.test(basis.evaluate(rows)) - rows).abs().max() < 1e-12
    density = basis.squares(rows, torch.ones(3, dtype=torch.float64))
    assert float(space.integrate(density)) == pytest.approx(float((rows.abs() ** 2).sum()))


def test_densities_of_smooth_orbitals_are_those_at_the_points(grid, space):
    fine, coarse = (ModeBasis.below(space, CUTOFF, (0.25, 0, 0), g) for g in (None, grid))
    rows = torch.zeros(2, fine.n_modes, dtype=fine.dtype)
    lowest = torch.argsort(fine.kinetic)[:6]
    rows[:, lowest] = torch.randn(2, 6, dtype=fine.dtype, generator=torch.Generator())
    one, other = (b.squares(rows, torch.ones(2, dtype=torch.float64)) for b in (fine, coarse))
    assert (one - other).abs().max() < 1e-3 * one.max()


def test_axes_that_end_keep_their_points():
    space = TensorSpace(edges=[np.linspace(-4, 4, 4)] * 3, order=6, periodic=False)
    grid = ProductGrid.holding(space, 6.0, 4.0)
    assert grid.n_points == space.n_points
    field = random_field(space.n_points)
    assert torch.equal(grid.interpolate(field), field)


def test_a_density_cutoff_below_the_orbitals_is_refused(space):
    with pytest.raises(SpaceError, match="density_cutoff is 5 hartree, the orbitals' 6"):
        ProductGrid.holding(space, 5.0, 6.0)
