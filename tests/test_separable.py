"""Sums of Gaussians and of radial functions on a TensorSpace, against plain sums over images."""

import itertools
import math

import pytest
import torch

from fedens import TensorSpace
from fedens.errors import SpaceError
from fedens.fem import separable
from fedens.fem.separable import gaussian_factors


def vector(*values):
    return torch.tensor(values, dtype=torch.float64)


LENGTHS = (4.0, 5.0, 6.0)
PERIODIC = TensorSpace(LENGTHS, (2, 3, 2), 3, True)
ISOLATED = TensorSpace(LENGTHS, (2, 3, 2), 3, False, origin=(-2.0, -2.0, -2.0))
SPACES = {"periodic": PERIODIC, "isolated": ISOLATED}

#: One centre inside, one on the far side of the boundary, one on top of a quadrature point.
CENTRES = torch.stack([vector(0.3, 1.0, 2.0), vector(-0.9, 5.3, 12.5), PERIODIC.points[100]])
EXPONENTS = vector(0.15, 0.9, 2.5)  # the first is wider than the cell
#: Factors of r^0, r^2, r^4 and r^6.
AMPLITUDES = torch.stack(
    [vector(1.0, 0.3, -0.2, 0.05), vector(-2.0, 0.5, 0.4, -0.6), vector(0.7, -1.0, 0.0, 0.9)]
)


def sum_over_images(space, function, reach=6):
    """sum_A function(r^2, A) over every image of every centre within ``reach`` cells."""
    total = torch.zeros(space.n_points, dtype=torch.float64)
    cells = range(-reach, reach + 1) if space.is_periodic else (0,)
    for a, centre in enumerate(CENTRES):
        for shift in itertools.product(cells, repeat=3):
            d = space.points - centre - vector(*shift) * vector(*LENGTHS)
            total += function((d**2).sum(dim=1), a)
    return total


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_gaussian_sum(name, k):
    def one(r2, a):
        polynomial = sum(AMPLITUDES[a, power] * r2**power for power in range(k))
        return polynomial * torch.exp(-EXPONENTS[a] * r2)

    result = SPACES[name].gaussian_sum(CENTRES, EXPONENTS, AMPLITUDES[:, :k])
    expected = sum_over_images(SPACES[name], one)
    assert torch.allclose(result, expected, rtol=1e-11, atol=1e-13)


def test_amplitudes_may_leave_the_powers_out():
    bare = PERIODIC.gaussian_sum(CENTRES, EXPONENTS, AMPLITUDES[:, 0])
    assert torch.equal(bare, PERIODIC.gaussian_sum(CENTRES, EXPONENTS, AMPLITUDES[:, :1]))
    assert bare.abs().max() > 1.0


def test_gaussian_sum_in_parts(monkeypatch):
    whole = PERIODIC.gaussian_sum(CENTRES, EXPONENTS, AMPLITUDES)
    monkeypatch.setattr(separable, "_CHUNK_ENTRIES", 1)
    parts = PERIODIC.gaussian_sum(CENTRES, EXPONENTS, AMPLITUDES)
    assert torch.allclose(parts, whole, rtol=1e-13, atol=1e-15)


def test_gaussian_sum_of_nothing_is_zero():
    nothing = PERIODIC.gaussian_sum(CENTRES[:0], EXPONENTS[:0], AMPLITUDES[:0])
    assert nothing.shape == (PERIODIC.n_points,)
    assert not nothing.any()


@pytest.mark.parametrize("amplitudes", [AMPLITUDES[:, 0], AMPLITUDES])
@pytest.mark.parametrize("name", SPACES)
def test_gaussian_sum_is_differentiable_in_everything(name, amplitudes):
    space = TensorSpace(LENGTHS, 1, 2, SPACES[name].periodic)
    arguments = [t.clone().requires_grad_(True) for t in (CENTRES, EXPONENTS, amplitudes)]
    assert torch.autograd.gradcheck(space.gaussian_sum, arguments, atol=1e-7, rtol=1e-5)


def test_factors_with_powers():
    axis = ISOLATED.axes[1]
    factors = gaussian_factors(axis, CENTRES[:, 1], EXPONENTS, max_power=3)
    assert factors.shape == (4, len(axis.points), 3)
    d = axis.points[:, None] - CENTRES[:, 1]
    for k in range(4):
        assert torch.allclose(factors[k], d**k * torch.exp(-EXPONENTS * d**2), rtol=1e-13)


@pytest.mark.parametrize("name", SPACES)
def test_radial_sum(name):
    cutoff = 7.3  # longer than every edge of the cell

    def function(r):
        return torch.cos(r) * (1 - r / cutoff) ** 3

    def one(r2, a):  # noqa: ARG001
        r = torch.sqrt(r2)
        return torch.where(r < cutoff, function(r), torch.zeros_like(r))

    result = SPACES[name].radial_sum(CENTRES, function, cutoff)
    expected = sum_over_images(SPACES[name], one, reach=4)
    assert torch.allclose(result, expected, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("name", SPACES)
def test_radial_sum_is_differentiable_in_the_centres(name):
    space = TensorSpace(LENGTHS, 1, 2, SPACES[name].periodic)
    centres = CENTRES[:2].clone().requires_grad_(True)

    def smooth(r):
        return torch.exp(-0.8 * r**2) * (1 + r**2)

    assert torch.autograd.gradcheck(
        lambda c: space.radial_sum(c, smooth, 6.0), (centres,), atol=1e-7, rtol=1e-5
    )


def test_radial_sum_has_no_slope_on_top_of_a_point():
    centres = PERIODIC.points[100:101].clone().requires_grad_(True)
    total = PERIODIC.radial_sum(centres, lambda r: torch.exp(-(r**2)), 5.0)
    (gradient,) = torch.autograd.grad(total[100], centres)
    assert torch.isfinite(gradient).all()
    assert gradient.abs().max() < 1e-10


def test_sums_follow_a_stretched_space():
    """The same Gaussians through all three sums on a space scaled by a tensor."""
    factors = torch.tensor([1.02, 0.97, 1.05], dtype=torch.float64, requires_grad=True)
    space = PERIODIC.scaled(factors)
    centres = CENTRES * factors
    ones = torch.ones(3, dtype=torch.float64)
    one = space.gaussian_sum(centres, 0.8 * ones, ones)
    two = space.radial_sum(centres, lambda r: torch.exp(-0.8 * r**2), 7.0)
    three = space.fourier_sum(
        centres, ones, lambda q: (math.pi / 0.8) ** 1.5 * torch.exp(-(q**2) / 3.2), 12.0
    )
    assert torch.allclose(one, two, rtol=0, atol=1e-12)
    assert torch.allclose(one, three, rtol=0, atol=1e-12)
    change = space.points[:, 0] * space.weights
    slopes = [
        torch.autograd.grad(f @ change, factors, retain_graph=True)[0] for f in (one, two, three)
    ]
    assert torch.allclose(slopes[0], slopes[1], rtol=1e-9)
    assert torch.allclose(slopes[0], slopes[2], rtol=1e-9)
    assert slopes[0].abs().max() > 1.0


#: Heights of what has a Fourier series.
HEIGHTS = AMPLITUDES[:, 0]


def wave(q):
    """Fourier transform of exp(-r^2), which ends at 12 / bohr."""
    return math.pi**1.5 * torch.exp(-0.25 * q**2)


def test_fourier_sum():
    result = PERIODIC.fourier_sum(CENTRES, HEIGHTS, wave, 12.0)
    expected = sum_over_images(PERIODIC, lambda r2, a: HEIGHTS[a] * torch.exp(-r2))
    assert torch.allclose(result, expected, rtol=0, atol=1e-12)


def test_fourier_sum_in_parts(monkeypatch):
    whole = PERIODIC.fourier_sum(CENTRES, HEIGHTS, wave, 6.0)
    monkeypatch.setattr(separable, "_CHUNK_ENTRIES", 1)
    parts = PERIODIC.fourier_sum(CENTRES, HEIGHTS, wave, 6.0)
    assert torch.allclose(parts, whole, rtol=1e-13, atol=1e-15)


def test_fourier_sum_ends_at_the_largest_wave():
    """Between the first and the second shell of wave numbers, 2 pi/6 and 2 pi/5, one is left."""
    result = PERIODIC.fourier_sum(CENTRES[:1], HEIGHTS[:1], lambda q: 0 * q + 1.0, 1.1)
    phase = 2 * math.pi / 6.0 * (PERIODIC.points[:, 2] - CENTRES[0, 2])
    assert torch.allclose(result, (1 + 2 * torch.cos(phase)) / 120.0, rtol=1e-12)


def test_fourier_sum_is_differentiable_in_centres_and_amplitudes():
    space = TensorSpace(LENGTHS, 1, 2, True)
    arguments = [t.clone().requires_grad_(True) for t in (CENTRES, HEIGHTS)]
    assert torch.autograd.gradcheck(
        lambda c, a: space.fourier_sum(c, a, wave, 4.0), arguments, atol=1e-7, rtol=1e-5
    )


def test_only_periodic_cells_have_fourier_series():
    with pytest.raises(SpaceError, match="only periodic cells have Fourier series"):
        ISOLATED.fourier_sum(CENTRES, HEIGHTS, wave, 6.0)
