"""Preconditioned limited-memory BFGS on a sphere: minimise E(c) with c.M c = N.

M is the mass matrix of a function space, the identity unless one is given. Gradients are load
vectors: mu = g.c/N, and the residual g - mu M c is measured by the inverse of M, so that it is
that of the field whatever the mesh.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from fedens.errors import ConvergenceError

#: A positive definite estimate of the second derivative: its diagonal, or its inverse as a map.
Hessian = Tensor | Callable[[Tensor], Tensor]
Evaluate = Callable[[Tensor], tuple[float, Tensor]]

_MEMORY = 12
_SUFFICIENT_DECREASE = 1e-4
#: Energy changes below this share of the energy are rounding, not a failed step.
_ROUNDING = 1e-13


class Metric(Protocol):
    """The mass matrix M of a basis and its inverse; function spaces are such."""

    def mass(self, coefficients: Tensor, /) -> Tensor: ...
    def inverse_mass(self, load: Tensor, /) -> Tensor: ...


class Euclidean:
    """M = 1."""

    def mass(self, coefficients: Tensor, /) -> Tensor:
        return coefficients

    def inverse_mass(self, load: Tensor, /) -> Tensor:
        return load


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


@dataclass(frozen=True)
class _Sphere:
    """The vectors with x.M x = N."""

    norm2: float
    metric: Metric

    def reach(self, x: Tensor) -> Tensor:
        """A vector scaled to the sphere."""
        return x * (self.norm2 / torch.dot(x, self.metric.mass(x))) ** 0.5

    def tangent(self, x: Tensor, gradient: Tensor) -> Tensor:
        """What of a gradient at x does not point away from the sphere."""
        return gradient - torch.dot(gradient, x) / self.norm2 * self.metric.mass(x)

    def along(self, x: Tensor, direction: Tensor) -> Tensor:
        """What of a direction at x stays on the sphere."""
        return direction - torch.dot(direction, self.metric.mass(x)) / self.norm2 * x

    def residual(self, tangent: Tensor) -> float:
        """Length of a tangent gradient over that of the sphere's vectors."""
        mean = float(torch.dot(tangent, self.metric.inverse_mass(tangent)) / self.norm2)
        return float(mean**0.5)


def _inverse(hessian: Hessian) -> Callable[[Tensor], Tensor]:
    return (lambda gradient: gradient / hessian) if isinstance(hessian, Tensor) else hessian


class _Curvature:
    """Inverse Hessian from recent steps, on top of a preconditioner.

    Nothing is changed in place and no number leaves the tensors, so that it can be differentiated.
    """

    def __init__(self, hessian: Hessian):
        self.inverse_hessian = _inverse(hessian)
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
        q = self.inverse_hessian(q)
        if self.pairs:
            step, change, product = self.pairs[-1]
            q = q * (product / torch.dot(change, self.inverse_hessian(change)))
        for (step, change, product), factor in zip(self.pairs, reversed(factors), strict=True):
            q = torch.addcmul(q, factor - torch.dot(change, q) / product, step)
        return q


def minimise_on_sphere(
    evaluate: Evaluate,
    start: Tensor,
    norm2: float,
    hessian: Hessian,
    tolerance: float,
    max_evaluations: int = 200,
    report: Callable[[int, float, float], None] | None = None,
    metric: Metric | None = None,
) -> Minimum:
    """Minimise an energy over vectors of fixed length.

    Args:
        evaluate: x -> (energy, gradient).
        start: (n,) starting vector; it is scaled to the sphere. norm2: N = x.M x.
        hessian: estimate of the second derivative: the preconditioner.
        tolerance: stop when the length of g - mu M x over sqrt(N) is below it.
        max_evaluations: give up after so many energies.
        report: called with (evaluations, energy, residual) after each accepted step.
        metric: M; the identity if not given.
    """
    sphere = _Sphere(norm2, metric or Euclidean())
    x = sphere.reach(start)
    curvature = _Curvature(hessian)
    energy, gradient = evaluate(x)
    evaluations, iterations, message = 1, 0, ""
    tangent = sphere.tangent(x, gradient)
    while True:
        residual = sphere.residual(tangent)
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
            evaluate, x, energy, tangent, curvature, sphere, max_evaluations - evaluations
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
        new_tangent = sphere.tangent(found.x, found.gradient)
        curvature.update(found.x - x, new_tangent - tangent)
        x, energy, gradient, tangent = found.x, found.energy, found.gradient, new_tangent
        iterations += 1
    multiplier = float(gradient @ x) / norm2
    return Minimum(
        x, energy, multiplier, residual, residual <= tolerance, evaluations, iterations, message
    )


def descend_on_sphere(
    evaluate: Callable[[Tensor], tuple[Tensor, Tensor]],
    start: Tensor,
    norm2: float,
    hessian: Hessian,
    steps: int,
    metric: Metric | None = None,
) -> Tensor:
    """The point after a fixed number of quasi-Newton steps of full length.

    The steps of :func:`minimise_on_sphere` without its line search, so that the result is a
    smooth function of the start, and of whatever energy and gradient depend on.

    Args:
        evaluate: x -> (energy, gradient), with their history if derivatives are wanted.

    Raises:
        ConvergenceError: when the energy rises above the start's.
    """
    sphere = _Sphere(norm2, metric or Euclidean())
    x = sphere.reach(start)
    curvature = _Curvature(hessian)
    before: tuple[Tensor, Tensor] | None = None
    first = 0.0
    for step in range(steps):
        energy, gradient = evaluate(x)
        tangent = sphere.tangent(x, gradient)
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
        x = sphere.reach(x - sphere.along(x, curvature.apply(tangent)))
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
    sphere: _Sphere,
    budget: int,
) -> _Step:
    """Backtracking along the quasi-Newton direction, with quadratic interpolation."""
    direction = -sphere.along(x, curvature.apply(tangent))
    slope = float(direction @ tangent)
    if slope >= 0:
        curvature.pairs.clear()
        direction = -sphere.along(x, curvature.inverse_hessian(tangent))
        slope = float(direction @ tangent)
    # no step longer than half the radius: beyond it the sphere bends away
    size2 = float(torch.dot(direction, sphere.metric.mass(direction)))
    length = min(1.0, 0.5 * (sphere.norm2 / size2) ** 0.5)
    rounding = _ROUNDING * abs(energy)
    for used in range(1, max(1, min(budget, 12)) + 1):
        candidate = sphere.reach(x + length * direction)
        new_energy, gradient = evaluate(candidate)
        if new_energy <= energy + _SUFFICIENT_DECREASE * length * slope + rounding:
            return _Step(candidate, new_energy, gradient, used)
        bend = new_energy - energy - length * slope
        shorter = -slope * length**2 / (2 * bend) if bend > 0 else 0.3 * length
        length = min(max(shorter, 0.1 * length), 0.5 * length)
    return _Step(None, energy, tangent, used)
