"""Kernels of inverse powers: against exact functions, quadrature and each other."""

import math

import mpmath
import pytest
import torch
from scipy.integrate import quad

from fedens.features.power_law import (
    boys_functions,
    exponential_integral,
    fourier_at_zero,
    fourier_kernel,
    harmonic_kernels,
    integral_of_difference,
)

X = [0.0, 1e-12, 1e-3, 1 / 32, 0.5, 1.7, 5.123, 12.345, 29.99, 38.7, 60.3, 150.0, 1e4, 1e8]
Y = [1e-3, 1e-2, 0.3, 1.0, 3.0, 10.0, 40.0]


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


def kernel(exponent, smearing, r, order=0):
    return harmonic_kernels(exponent, smearing, order, tensor(r) ** 2)[order]


def exact_boys(a, x):
    with mpmath.workdps(30):
        return float(1 / mpmath.mpf(a) if x == 0 else mpmath.gammainc(a, 0, x) / mpmath.mpf(x) ** a)


@pytest.mark.parametrize("order", [0.05, 0.5, 1.0, 1.5, 3.0, 3.7, 9.0, 14.0])
def test_boys_functions(order):
    """From zero past the end of the expansions; three orders at once."""
    found = boys_functions(order, tensor(X), 3)
    for i in range(3):
        expected = [exact_boys(order + i, x) for x in X]
        assert found[i].tolist() == pytest.approx(expected, rel=1e-13)


def test_derivatives_of_boys_functions():
    x = tensor([0.0, 0.03, 2.2, 17.0, 44.0, 300.0]).requires_grad_()
    (slope,) = torch.autograd.grad(boys_functions(0.5, x)[0].sum(), x, create_graph=True)
    assert torch.allclose(slope, -boys_functions(1.5, x)[0], rtol=1e-14, atol=0)
    (bend,) = torch.autograd.grad(slope.sum(), x, create_graph=True)
    assert torch.allclose(bend, boys_functions(2.5, x)[0], rtol=1e-14, atol=0)
    (third,) = torch.autograd.grad(bend.sum(), x)
    assert torch.allclose(third, -boys_functions(3.5, x)[0], rtol=1e-14, atol=0)
    inside = tensor([0.3, 2.2, 17.0]).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda t: boys_functions(1.3, t, 3), [inside])


def test_single_precision():
    x = tensor(X[:10])
    single = boys_functions(1.5, x.float(), 3)
    assert single.dtype == torch.float32
    assert torch.allclose(single.double(), boys_functions(1.5, x, 3), rtol=1e-5)


@pytest.mark.parametrize("nu", [-1.5, -0.25, 0.0, 0.5, 1 - 1e-9, 1.0, 2.0, 2.5, 4.5])
def test_exponential_integral(nu):
    y = tensor(Y).requires_grad_()
    found = exponential_integral(nu, y)
    with mpmath.workdps(30):
        expected, slopes = ([float(mpmath.expint(n, t)) for t in Y] for n in (nu, nu - 1))
    assert found.tolist() == pytest.approx(expected, rel=2e-13)
    (slope,) = torch.autograd.grad(found.sum(), y)
    assert slope.tolist() == pytest.approx([-s for s in slopes], rel=2e-13)


def test_kernel_is_the_power_law_far_away_and_finite_at_zero():
    for p in (0.5, 1.0, 3.0, 4.7, 6.0):
        far = kernel(p, 0.4, [4.0, 30.0])
        assert far.tolist() == pytest.approx([4.0**-p, 30.0**-p], rel=1e-12)
        at_zero = 1 / (math.gamma(p / 2 + 1) * (2 * 0.4**2) ** (p / 2))
        assert float(kernel(p, 0.4, [0.0])[0]) == pytest.approx(at_zero, rel=1e-13)


def test_known_kernels():
    """Potential of a Gaussian charge (p = 1); (1 - exp(-r^2/(2 s^2)))/r^2 (p = 2)."""
    r, s = tensor([0.1, 0.9, 2.0, 5.0]), 0.7
    coulomb = torch.erf(r / (math.sqrt(2) * s)) / r
    assert torch.allclose(kernel(1.0, s, r.tolist()), coulomb, rtol=1e-13)
    square = -torch.expm1(-(r**2) / (2 * s**2)) / r**2
    assert torch.allclose(kernel(2.0, s, r.tolist()), square, rtol=1e-13)


@pytest.mark.parametrize("exponent", [0.5, 1.0, 3.0, 6.0])
def test_each_harmonic_kernel_is_the_derivative_of_the_one_before(exponent):
    """K_{l+1} = -(1/r) dK_l/dr, and 2^l (p/2)_l times the kernel of exponent p + 2 l."""
    r2 = tensor([0.01, 0.5, 4.0, 90.0]).requires_grad_()
    kernels = harmonic_kernels(exponent, 0.8, 6, r2)
    pochhammer = 1.0
    for order in range(6):
        (slope,) = torch.autograd.grad(kernels[order].sum(), r2, retain_graph=True)
        assert torch.allclose(kernels[order + 1], -2 * slope, rtol=1e-12)
        pochhammer *= 2 * (exponent / 2 + order)
        higher = kernel(exponent + 2 * order + 2, 0.8, r2.detach().sqrt().tolist())
        assert torch.allclose(kernels[order + 1], pochhammer * higher, rtol=1e-12)


def test_fourier_transform_of_the_coulomb_kernel():
    k2 = tensor([0.01, 0.5, 8.0])
    expected = 4 * math.pi / k2 * torch.exp(-0.5 * 0.6**2 * k2)
    assert torch.allclose(fourier_kernel(1.0, 0.6, k2), expected, rtol=1e-13)


@pytest.mark.parametrize("exponent", [2.0, 3.0, 4.5, 6.0])
@pytest.mark.parametrize("k", [0.4, 2.0])
def test_fourier_transform(exponent, k):
    """Against (4 pi/k) times the integral of r v(r) sin(k r)."""
    integral = quad(
        lambda r: r * float(kernel(exponent, 0.8, [r])[0]), 0, math.inf, weight="sin", wvar=k
    )[0]
    found = float(fourier_kernel(exponent, 0.8, tensor([k * k]))[0])
    assert found == pytest.approx(4 * math.pi / k * integral, rel=1e-7)


@pytest.mark.parametrize("exponent", [1.0, 2.5, 3.0, 4.2])
def test_integral_of_a_difference(exponent):
    def shell(r):
        difference = kernel(exponent, 0.8, [r]) - kernel(exponent, 1.3, [r])
        return 4 * math.pi * r * r * float(difference[0])

    expected = quad(shell, 0, 15, epsabs=1e-12)[0]
    assert integral_of_difference(exponent, 0.8, 1.3) == pytest.approx(expected, rel=1e-9)


def test_integral_of_the_kernel():
    """p > 3: the limit of the transform, and differences of two widths."""
    limit = float(fourier_kernel(4.5, 0.8, tensor([1e-12]))[0])
    assert fourier_at_zero(4.5, 0.8) == pytest.approx(limit, rel=1e-5)
    difference = fourier_at_zero(4.5, 0.8) - fourier_at_zero(4.5, 1.3)
    assert integral_of_difference(4.5, 0.8, 1.3) == pytest.approx(difference, rel=1e-12)
