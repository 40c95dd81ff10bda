"""Preconditioned limited-memory BFGS on a sphere: minimise E(c) with |c|^2 = N."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

Evaluate = Callable[[Tensor], tuple[float, Tensor]]

_MEMORY = 12
_SUFFICIENT_DECREASE = 1e-4
#: Energy changes below this share of the energy are rounding, not a failed step.
_ROUNDING = 1e-13


@dataclass(frozen=True)
class Minimum:
    """Result of :func:`minimise_on_sphere`.

    Attributes:
        x: the point reached. energy: E(x). multiplier: mu of g = mu x.
        residual: |g - mu x| / sqrt(N). converged: whether it met the tolerance.
        evaluations, iterations: energies computed, steps accepted. message: in words.
    """

    x: Tensor
    energy: float
    multiplier: float
    residual: float
    converged: bool
    evaluations: int
    iterations: int
    message: str


class _Curvature:
    """Inverse Hessian from recent steps, on top of a diagonal preconditioner."""

    def __init__(self, inverse_hessian: Tensor):
        self.inverse_hessian = inverse_hessian
        self.pairs: deque[tuple[Tensor, Tensor, float]] = deque(maxlen=_MEMORY)

    def update(self, step: Tensor, change: Tensor) -> None:
        product = float(step @ change)
        if product > 1e-12 * float(step.norm() * change.norm()):
            self.pairs.append((step, change, product))

    def apply(self, gradient: Tensor) -> Tensor:
        q = gradient.clone()
        factors = []
        for step, change, product in reversed(self.pairs):
            factor = float(step @ q) / product
            q -= factor * change
            factors.append(factor)
        q *= self.inverse_hessian
        if self.pairs:
            step, change, product = self.pairs[-1]
            q *= product / float(change @ (self.inverse_hessian * change))
        for (step, change, product), factor in zip(self.pairs, reversed(factors), strict=True):
            q += (factor - float(change @ q) / product) * step
        return q


def minimise_on_sphere(
    evaluate: Evaluate,
    start: Tensor,
    norm2: float,
    hessian_diagonal: Tensor,
    tolerance: float,
    max_evaluations: int = 200,
    report: Callable[[int, float, float], None] | None = None,
) -> Minimum:
    """Minimise an energy over vectors of fixed length.

    Args:
        evaluate: x -> (energy, gradient).
        start: (n,) starting vector; it is scaled to the sphere. norm2: N = |x|^2.
        hessian_diagonal: (n,) positive estimate of the second derivative: the preconditioner.
        tolerance: stop when |g - mu x| / sqrt(N) is below it.
        max_evaluations: give up after so many energies.
        report: called with (evaluations, energy, residual) after each accepted step.
    """
    radius = norm2**0.5
    x = start * (radius / start.norm())
    curvature = _Curvature(1.0 / hessian_diagonal)
    energy, gradient = evaluate(x)
    evaluations, iterations, message = 1, 0, ""
    while True:
        multiplier = float(gradient @ x) / norm2
        tangent = gradient - multiplier * x
        residual = float(tangent.norm()) / radius
        if report is not None:
            report(evaluations, energy, residual)
        if residual <= tolerance:
            message = f"converged: residual {residual:.2e} after {evaluations} evaluations"
            break
        if evaluations >= max_evaluations:
            message = (
                f"not converged: residual {residual:.2e} (tolerance {tolerance:.1e}) after "
                f"{evaluations} evaluations; raise max_evaluations or the tolerance"
            )
            break
        found = _line_search(
            evaluate, x, energy, tangent, curvature, radius, max_evaluations - evaluations
        )
        evaluations += found.evaluations
        if found.x is None:
            if curvature.pairs:
                curvature.pairs.clear()
                continue
            message = (
                f"not converged: no step lowers the energy at residual {residual:.2e} "
                f"(tolerance {tolerance:.1e}); the tolerance may be below rounding"
            )
            break
        new_multiplier = float(found.gradient @ found.x) / norm2
        curvature.update(found.x - x, found.gradient - new_multiplier * found.x - tangent)
        x, energy, gradient = found.x, found.energy, found.gradient
        iterations += 1
    return Minimum(
        x, energy, multiplier, residual, residual <= tolerance, evaluations, iterations, message
    )


@dataclass(frozen=True)
class _Step:
    x: Tensor | None
    energy: float
    gradient: Tensor
    evaluations: int


def _line_search(
    evaluate: Evaluate,
    x: Tensor,
    energy: float,
    tangent: Tensor,
    curvature: _Curvature,
    radius: float,
    budget: int,
) -> _Step:
    """Backtracking along the quasi-Newton direction, with quadratic interpolation."""
    direction = -curvature.apply(tangent)
    direction -= float(direction @ x) / radius**2 * x
    slope = float(direction @ tangent)
    if slope >= 0:
        curvature.pairs.clear()
        direction = -curvature.inverse_hessian * tangent
        direction -= float(direction @ x) / radius**2 * x
        slope = float(direction @ tangent)
    # no step longer than the radius: beyond it the sphere bends away
    length = min(1.0, 0.5 * radius / float(direction.norm()))
    rounding = _ROUNDING * abs(energy)
    for used in range(1, max(1, min(budget, 12)) + 1):
        candidate = x + length * direction
        candidate *= radius / candidate.norm()
        new_energy, gradient = evaluate(candidate)
        if new_energy <= energy + _SUFFICIENT_DECREASE * length * slope + rounding:
            return _Step(candidate, new_energy, gradient, used)
        bend = new_energy - energy - length * slope
        shorter = -slope * length**2 / (2 * bend) if bend > 0 else 0.3 * length
        length = min(max(shorter, 0.1 * length), 0.5 * length)
    return _Step(None, energy, tangent, used)
