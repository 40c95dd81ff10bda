"""Preconditioned limited-memory BFGS on a sphere: minimise E(c) with |c|^2 = N."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fedens.errors import ConvergenceError

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
    """Inverse Hessian from recent steps, on top of a diagonal preconditioner.

    Nothing is changed in place and no number leaves the tensors, so that it can be differentiated.
    """

    def __init__(self, inverse_hessian: Tensor):
        self.inverse_hessian = inverse_hessian
        self.pairs: deque[tuple[Tensor, Tensor, Tensor]] = deque(maxlen=_MEMORY)

    def update(self, step: Tensor, change: Tensor) -> None:
        product = torch.dot(step, change)
        if product.detach() > 1e-12 * (step.norm() * change.norm()).detach():
            self.pairs.append((step, change, product))

    def apply(self, gradient: Tensor) -> Tensor:
        q = gradient
        factors = []
        for step, change, product in reversed(self.pairs):
            factor = torch.dot(step, q) / product
            q = torch.addcmul(q, factor, change, value=-1)
            factors.append(factor)
        q = q * self.inverse_hessian
        if self.pairs:
            step, change, product = self.pairs[-1]
            q = q * (product / torch.dot(change, self.inverse_hessian * change))
        for (step, change, product), factor in zip(self.pairs, reversed(factors), strict=True):
            q = torch.addcmul(q, factor - torch.dot(change, q) / product, step)
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


def descend_on_sphere(
    evaluate: Callable[[Tensor], tuple[Tensor, Tensor]],
    start: Tensor,
    norm2: float,
    hessian_diagonal: Tensor,
    steps: int,
) -> Tensor:
    """The point after a fixed number of quasi-Newton steps of full length.

    The steps of :func:`minimise_on_sphere` without its line search, so that the result is a
    smooth function of the start, and of whatever energy and gradient depend on.

    Args:
        evaluate: x -> (energy, gradient), with their history if derivatives are wanted.

    Raises:
        ConvergenceError: when the energy rises above the start's.
    """
    radius = norm2**0.5
    x = start * (radius / start.norm())
    curvature = _Curvature(1.0 / hessian_diagonal)
    before: tuple[Tensor, Tensor] | None = None
    first = 0.0
    for step in range(steps):
        energy, gradient = evaluate(x)
        tangent = gradient - torch.dot(gradient, x) / norm2 * x
        reached = float(energy.detach())
        if before is None:
            first = reached
        else:
            curvature.update(x - before[0], tangent - before[1])
        if reached > first + 10 * _ROUNDING * abs(first):
            raise ConvergenceError(
                f"after {step} steps of refinement the energy is {reached - first:.2e} "
                "hartree above the start: it is too far from the minimum; use fewer steps, or "
                "solve_ground_state"
            )
        before = (x, tangent)
        direction = curvature.apply(tangent)
        x = x - direction + torch.dot(direction, x) / norm2 * x
        x = x * (radius / x.norm())
    return x


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
