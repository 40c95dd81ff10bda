"""Finite differences, for checks of derivatives."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

#: Fourth-order central differences: step, and the weights of f(h), f(-h), f(2h), f(-2h).
_STEPS = (1.0, -1.0, 2.0, -2.0)
_WEIGHTS = (8 / 12, -8 / 12, -1 / 12, 1 / 12)


def central_difference(function: Callable[[float], float], step: float) -> float:
    """Derivative of a function at 0, with an error of fourth order in the step."""
    values = [function(s * step) for s in _STEPS]
    return sum(w * v for w, v in zip(_WEIGHTS, values, strict=True)) / step


def check_derivatives(
    function: Callable[[Tensor], Tensor],
    x: Tensor,
    direction: Tensor,
    step: float,
    tolerances: tuple[float, ...],
    name: str,
    smallest: float = 0.0,
) -> float:
    """Check derivatives of a scalar function along a direction from x; returns the first.

    Args:
        tolerances: relative error of the first and, where it is given, the second derivative.
        smallest: derivatives below this may be wrong by so much of it.
    """

    def slope(length: float, create_graph: bool = False) -> tuple[Tensor, Tensor]:
        moved = (x + length * direction).requires_grad_(True)
        (gradient,) = torch.autograd.grad(function(moved), moved, create_graph=create_graph)
        return (gradient * direction).sum(), moved

    def compare(found: float, expected: float, tolerance: float, what: str) -> None:
        assert abs(found - expected) <= tolerance * max(abs(expected), smallest), (
            f"{what} {name} is {found}, finite differences give {expected}"
        )

    first = float(slope(0.0)[0])
    expected = central_difference(lambda t: float(function(x + t * direction)), step)
    compare(first, expected, tolerances[0], "derivative")
    if len(tolerances) > 1:
        (row,) = torch.autograd.grad(*slope(0.0, create_graph=True))
        expected = central_difference(lambda t: float(slope(t)[0]), step)
        compare(float((row * direction).sum()), expected, tolerances[1], "second derivative")
    return first
