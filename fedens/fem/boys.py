"""Boys functions F_l(x) = int_0^1 t^(2l) exp(-x t^2) dt: Coulomb potentials of Gaussians.

Upwards from the error function by F_(l+1) = ((2l+1) F_l - exp(-x)) / (2x), which loses digits
where x is small; there the series of the highest order, and downwards (Helgaker, Jorgensen, Olsen,
Molecular Electronic-Structure Theory, 9.8).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

#: Below, the series of 18 terms is exact to rounding.
_SMALL, _TERMS = 1.0, 18


def boys_functions(x: Tensor, max_order: int) -> list[Tensor]:
    """F_0 to F_max_order at x >= 0, each of its shape; differentiable."""
    small = x < _SMALL
    below = _downwards(x[small], max_order)
    above = _upwards(x.clamp(min=_SMALL), max_order)
    return [a.masked_scatter(small, b) for a, b in zip(above, below, strict=True)]


def _upwards(x: Tensor, max_order: int) -> list[Tensor]:
    root, tail, half = torch.sqrt(x), torch.exp(-x), 0.5 / x
    values = [0.5 * math.sqrt(math.pi) * torch.erf(root) / root]
    for order in range(max_order):
        values.append(((2 * order + 1) * values[-1] - tail) * half)
    return values


def _downwards(x: Tensor, max_order: int) -> list[Tensor]:
    top = torch.zeros_like(x)
    for k in reversed(range(_TERMS)):
        top = 1 / (math.factorial(k) * (2 * max_order + 2 * k + 1)) - x * top
    values, tail = [top], torch.exp(-x)
    for order in reversed(range(max_order)):
        values.insert(0, (2 * x * values[0] + tail) / (2 * order + 1))
    return values
