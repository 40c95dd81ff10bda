"""Finite differences, for checks of derivatives."""

from __future__ import annotations

from collections.abc import Callable

#: Fourth-order central differences: step, and the weights of f(h), f(-h), f(2h), f(-2h).
_STEPS = (1.0, -1.0, 2.0, -2.0)
_WEIGHTS = (8 / 12, -8 / 12, -1 / 12, 1 / 12)


def central_difference(function: Callable[[float], float], step: float) -> float:
    """Derivative of a function at 0, with an error of fourth order in the step."""
    values = [function(s * step) for s in _STEPS]
    return sum(w * v for w, v in zip(_WEIGHTS, values, strict=True)) / step
