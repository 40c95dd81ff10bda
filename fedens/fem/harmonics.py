"""Real solid harmonics r^l Y_lm: values, polynomials in x, y and z, and those of a sum."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

#: Powers (a, b, c) of a monomial x^a y^b z^c.
Powers = tuple[int, int, int]
_Polynomial = dict[Powers, float]


@lru_cache(maxsize=64)
def monomials(order: int) -> tuple[Powers, ...]:
    """Powers (a, b, c) of all monomials with a + b + c = ``order``."""
    return tuple((a, b, order - a - b) for a in range(order + 1) for b in range(order - a + 1))


@lru_cache(maxsize=64)
def harmonic_coefficients(order: int) -> Tensor:
    """Coefficients of the orthonormal real solid harmonics in :func:`monomials`.

    Returns:
        (2 order + 1, n_monomials), float64; rows m = -order to order, the signs those of
        sphericart (no Condon-Shortley phase): R_11 is sqrt(3/(4 pi)) x.

    From R_lm = sqrt(2 (2l+1)/(4 pi) (l-m)!/(l+m)!) Re or Im (x + iy)^m times
    sum_k (-1)^k 2^-l C(l,k) C(2l-2k,l) (l-2k)!/(l-2k-m)! r^(2k) z^(l-2k-m), without the
    factor 2 at m = 0 (Helgaker, Jorgensen, Olsen, Molecular Electronic-Structure Theory, 6.4).
    """
    index = {powers: i for i, powers in enumerate(monomials(order))}
    result = torch.zeros(2 * order + 1, len(index), dtype=torch.float64)
    for m in range(-order, order + 1):
        for powers, value in _harmonic(order, m).items():
            result[order + m, index[powers]] = value
    return result


@lru_cache(maxsize=16)
def solid_harmonics(max_order: int) -> Callable[[Tensor], Tensor]:
    """Function (n, 3) -> (n, (max_order + 1)^2): all orders, those of l from l^2 on."""
    from sphericart.torch import SolidHarmonics

    function: Callable[[Tensor], Tensor] = SolidHarmonics(max_order)
    return function


@lru_cache(maxsize=512)
def addition_coefficients(first: int, second: int) -> Tensor:
    """C such that R_lm(x + y) = sum over l', m', m'' of C[m', m'', m] R_l'm'(x) R_l''m''(y).

    The sum runs over l' = ``first`` = 0 to l with l'' = ``second`` = l - l'.

    Returns:
        (2 first + 1, 2 second + 1, 2 (first + second) + 1), float64.

    Expanding R_lm(x + y) in monomials and projecting on R_l'(x) R_l''(y) with the inner product
    <x^i, x^j> = i! delta_ij, in which harmonics of one order are orthogonal and of one length.
    """
    total = {powers: i for i, powers in enumerate(monomials(first + second))}
    places, factors = [], []
    for one in monomials(first):
        sums = [
            tuple(p + q for p, q in zip(one, other, strict=True)) for other in monomials(second)
        ]
        places.append([total[powers] for powers in sums])  # type: ignore[index]
        factors.append([math.prod(math.factorial(p) for p in powers) for powers in sums])
    both = harmonic_coefficients(first + second)[:, torch.tensor(places)]
    both = both * torch.tensor(factors, dtype=torch.float64)
    left, right = harmonic_coefficients(first), harmonic_coefficients(second)
    result = torch.einsum("mij,ai,bj->abm", both, left, right)
    return result / (_length(first) * _length(second))


def _length(order: int) -> float:
    """<R_l0, R_l0> in the inner product <x^i, x^j> = i! delta_ij."""
    squares = harmonic_coefficients(order)[order] ** 2
    powers = (math.prod(math.factorial(p) for p in exponents) for exponents in monomials(order))
    return float(sum(float(s) * f for s, f in zip(squares, powers, strict=True)))


def _harmonic(order: int, m: int) -> _Polynomial:
    size = abs(m)
    norm = (2 * order + 1) / (4 * math.pi) * math.factorial(order - size)
    norm *= (2 if m else 1) / math.factorial(order + size)
    planar = _planar(size, 1 if m < 0 else 0)
    total: _Polynomial = {}
    for k in range((order - size) // 2 + 1):
        factor = (-1) ** k * math.comb(order, k) * math.comb(2 * order - 2 * k, order) / 2**order
        factor *= math.factorial(order - 2 * k) / math.factorial(order - 2 * k - size)
        axial = {(0, 0, order - 2 * k - size): factor * math.sqrt(norm)}
        term = _times(_times(planar, axial), _radius_squared(k))
        total = {p: total.get(p, 0.0) + term.get(p, 0.0) for p in total | term}
    return total


def _planar(m: int, part: int) -> _Polynomial:
    """Real (part 0) or imaginary (part 1) part of (x + iy)^m."""
    return {
        (m - j, j, 0): float((-1) ** ((j - part) // 2) * math.comb(m, j))
        for j in range(part, m + 1, 2)
    }


def _radius_squared(power: int) -> _Polynomial:
    """(x^2 + y^2 + z^2)^power."""
    result: _Polynomial = {(0, 0, 0): 1.0}
    for _ in range(power):
        result = _times(result, {(2, 0, 0): 1.0, (0, 2, 0): 1.0, (0, 0, 2): 1.0})
    return result


def _times(first: _Polynomial, second: _Polynomial) -> _Polynomial:
    result: _Polynomial = {}
    for (a, b, c), u in first.items():
        for (d, e, f), v in second.items():
            powers = (a + d, b + e, c + f)
            result[powers] = result.get(powers, 0.0) + u * v
    return result
