r"""Kernels of long-range descriptors: inverse powers of the distance, smeared at short range.

With x = r^2/(2 s^2), gamma and Gamma the incomplete gamma functions,

    v_{p,s}(r) = gamma(p/2, x)/(Gamma(p/2) r^p) = (2 s^2)^(-p/2)/Gamma(p/2) B_{p/2}(x),
    B_a(x) = gamma(a, x)/x^a = integral of t^(a-1) exp(-x t) over 0 < t < 1,

which is 1/r^p far away and finite at r = 0, for any p > 0. Because dB_a/dx = -B_{a+1}, harmonic
derivatives of the kernel are kernels again. The Fourier transform, with y = s^2 k^2/2,

    pi^(3/2) (2 s^2)^((3-p)/2)/Gamma(p/2) E_nu(y),   nu = (p-1)/2,

holds the exponential integral E_nu(y) = integral of t^(-nu) exp(-y t) over t > 1. After
Huguenin-Dumittan, Loche, Haoran and Ceriotti, J. Phys. Chem. Lett. 14, 9612 (2023).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from scipy.special import gammainccinv
from torch import Tensor

#: B_a is expanded about points of this distance with this many terms: error below 1e-16.
_STEP = 1 / 16
_TERMS = 8
#: Beyond where Gamma(a, x) is this share of Gamma(a), B_a(x) = Gamma(a)/x^a.
_NEGLIGIBLE = 1e-17
#: Gauss points for the exponential integral: relative error of about 1e-13 for y > 1e-4.
_GAUSS_POINTS = 48
#: Share of a kernel and its derivatives that both parts of a lattice sum may leave out.
_ACCURACY = 1e-14


@dataclass(frozen=True)
class PowerLaws:
    """Kernels v_{p,s} of some exponents p with one smearing s (bohr), and the largest l wanted."""

    exponents: tuple[float, ...]
    smearing: float
    max_angular: int

    @property
    def n_harmonics(self) -> int:
        """Number of l and m together."""
        return (self.max_angular + 1) ** 2

    def kernels(self, r2: Tensor, width: float | None = None) -> Tensor:
        """K_l of each exponent, (n_exponents, max_angular + 1, ...); less those of a width."""

        def of(smearing: float) -> Tensor:
            kernels = (harmonic_kernels(p, smearing, self.max_angular, r2) for p in self.exponents)
            return torch.stack(list(kernels))

        return of(self.smearing) if width is None else of(self.smearing) - of(width)

    def constant(self, exponent: float, width: float) -> float:
        """Term k = 0 of the transform of v_{p,eta}; p <= 3: what makes it zero for v_{p,s}."""
        if exponent > 3:
            return fourier_at_zero(exponent, width)
        return -integral_of_difference(exponent, self.smearing, width)

    @property
    def pair_reach(self) -> float:
        """Distance at which v_{p,s} - v_{p,eta} has died out, in units of eta."""
        order = max(self.exponents) / 2 + self.max_angular
        return math.sqrt(2 * gammainccinv(order, _ACCURACY))

    @property
    def wave_reach(self) -> float:
        """Wave vector at which the transform of v_{p,eta} has died out, in units of 1/eta."""
        return math.sqrt(2 * gammainccinv((self.max_angular + 3) / 2, _ACCURACY))


def boys_functions(order: float, x: Tensor, count: int = 1) -> Tensor:
    """B_a(x) for a = order > 0, order + 1, ..., (count, ...), at x >= 0 of any shape.

    Differentiable in x to any order.
    """
    values: Tensor = _Boys.apply(x, order, count)
    return values


class _Boys(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, order, count):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(x)
        ctx.order, ctx.count = order, count
        return _boys_values(order, x, count)

    @staticmethod
    def backward(ctx, upstream):  # type: ignore[no-untyped-def]
        (x,) = ctx.saved_tensors
        slopes = _Boys.apply(x, ctx.order + 1, ctx.count)
        return -(upstream * slopes).sum(dim=0), None, None


def _boys_values(order: float, x: Tensor, count: int) -> Tensor:
    """The highest from its expansion, the others by B_a = (x B_{a+1} + exp(-x))/a, stable."""
    values = x.new_empty(count, *x.shape)
    top = order + count - 1
    table = _expansions(top).to(x)
    end = (len(table) - 1) * _STEP
    inside = x.clamp(max=end)
    nearest = torch.round(inside / _STEP)
    step = inside - nearest * _STEP
    rows = table[nearest.to(torch.int64)]
    value = rows[..., -1]
    for k in range(_TERMS - 2, -1, -1):
        value = value * step + rows[..., k]
    far = torch.exp(math.lgamma(top) - top * torch.log(x.clamp(min=end)))
    values[-1] = torch.where(x < end, value, far)
    decay = torch.exp(-x)
    for i in range(count - 2, -1, -1):
        values[i] = (x * values[i + 1] + decay) / (order + i)
    return values


@lru_cache(maxsize=64)
def _expansions(order: float) -> Tensor:
    """Taylor coefficients (-1)^k B_{a+k}(x)/k! at x = 0, _STEP, ..., (n, _TERMS)."""
    end = gammainccinv(order, _NEGLIGIBLE)
    x = _STEP * np.arange(math.ceil(end / _STEP) + 1)
    column = _boys_series(order + _TERMS - 1, x)
    columns = [column]
    for k in range(_TERMS - 2, -1, -1):
        column = (x * column + np.exp(-x)) / (order + k)
        columns.append(column)
    factors = [(-1) ** k / math.factorial(k) for k in range(_TERMS)]
    return torch.tensor(np.stack(columns[::-1], axis=1) * factors)


def _boys_series(order: float, x: np.ndarray) -> np.ndarray:
    """exp(-x) times the sum of x^k/(a (a+1) ... (a+k)): all terms positive, for any x."""
    term = np.full_like(x, 1 / order)
    total, k = term, 0
    while (term > 1e-17 * total).any():
        k += 1
        term = term * x / (order + k)
        total = total + term
    return np.asarray(np.exp(-x) * total)


def exponential_integral(nu: float, y: Tensor) -> Tensor:
    """E_nu(y), integral of t^(-nu) exp(-y t) over t > 1; any real nu, y > 0; differentiable."""
    values: Tensor = _ExponentialIntegral.apply(y, nu)
    return values


class _ExponentialIntegral(torch.autograd.Function):
    @staticmethod
    def forward(ctx, y, nu):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(y)
        ctx.nu = nu
        return _integral_values(nu, y)

    @staticmethod
    def backward(ctx, upstream):  # type: ignore[no-untyped-def]
        (y,) = ctx.saved_tensors
        return -upstream * _ExponentialIntegral.apply(y, ctx.nu - 1), None


def _integral_values(nu: float, y: Tensor) -> Tensor:
    """By Gauss quadrature in log t, up to where exp(-y t) has died out."""
    # where t^(1 - nu) exp(-y (t - 1)) is negligible
    end = torch.log1p((40.0 + 6.0 * max(0.0, 1 - nu)) / y)
    total = torch.zeros_like(y)
    for node, weight in zip(*_gauss(), strict=True):
        u = node * end
        total += weight * torch.exp((1 - nu) * u - y * torch.expm1(u))
    return torch.exp(-y) * end * total


@lru_cache(maxsize=1)
def _gauss() -> tuple[list[float], list[float]]:
    """Nodes and weights on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(_GAUSS_POINTS)
    return ((nodes + 1) / 2).tolist(), (weights / 2).tolist()


def harmonic_kernels(exponent: float, smearing: float, max_angular: int, r2: Tensor) -> Tensor:
    """K_l(r^2) with S_lm(grad) v_{p,s} = K_l S_lm(-r), (max_angular + 1, ...).

    K_l = 2^l (p/2)_l v_{p+2l,s}(r), where S_lm = r^l Y_lm and (a)_l = a (a+1) ... (a+l-1);
    -r points from where the derivative is taken to the source. Exponent p > 0, smearing s > 0
    (bohr), squared distances r2 of any shape (bohr^2).
    """
    half = exponent / 2
    values = boys_functions(half, r2 / (2 * smearing**2), max_angular + 1)
    factors = [_strength(exponent, smearing) * smearing ** (-2 * n) for n in range(max_angular + 1)]
    return values * values.new_tensor(factors).reshape(-1, *[1] * r2.ndim)


def log_of_kernel_at_zero(exponent: float, smearing: float, order: int) -> float:
    """Logarithm of K_l(0), l = ``order``."""
    half = exponent / 2
    log = -half * math.log(2 * smearing**2) if smearing**2 > 0 else math.inf
    return log - 2 * order * math.log(smearing) - math.lgamma(half) - math.log(half + order)


def _strength(exponent: float, smearing: float) -> float:
    """(2 s^2)^(-p/2)/Gamma(p/2)."""
    return math.exp(-exponent / 2 * math.log(2 * smearing**2) - math.lgamma(exponent / 2))


def fourier_kernel(exponent: float, smearing: float, k2: Tensor) -> Tensor:
    """Fourier transform of v_{p,s} at squared wave vectors k2 > 0 (bohr^-2), bohr^(3-p)."""
    y = smearing**2 / 2 * k2
    return _fourier_strength(exponent, smearing) * exponential_integral((exponent - 1) / 2, y)


def fourier_at_zero(exponent: float, smearing: float) -> float:
    """Integral of v_{p,s} over all space, p > 3, bohr^(3-p)."""
    return _fourier_strength(exponent, smearing) * 2 / (exponent - 3)


def integral_of_difference(exponent: float, smearing: float, width: float) -> float:
    """Integral over all space of v_{p,s} - v_{p,width}, for any p."""
    b = (3 - exponent) / 2
    ratio = 2 * math.log(width / smearing)
    # ((2 width^2)^b - (2 s^2)^b)/b, also where b is 0
    growth = ratio if b == 0 else math.expm1(b * ratio) / b
    return _fourier_strength(exponent, smearing) * growth


def _fourier_strength(exponent: float, smearing: float) -> float:
    """pi^(3/2) (2 s^2)^((3-p)/2)/Gamma(p/2)."""
    return float((2 * math.pi * smearing**2) ** 1.5) * _strength(exponent, smearing)
