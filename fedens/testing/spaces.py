"""What every function space must satisfy."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def check_function_space(space: Any, seed: int = 0) -> None:
    """Check that an object behaves as a :class:`fedens.fem.space.FunctionSpace`.

    Shapes and types; integration; that ``evaluate`` and ``test`` are transposes and ``project``
    undoes ``evaluate``; gradients against differences of ``interpolate_at``; that functions of
    the Laplacian, where the space has them, multiply as functions do; that the potential is a
    symmetric, positive, linear function of the charge.
    """
    random = torch.Generator().manual_seed(seed)
    coefficients = torch.randn(space.n_coefficients, generator=random, dtype=torch.float64)
    field = torch.randn(space.n_points, generator=random, dtype=torch.float64)
    coefficients, field = coefficients.to(space.points.device), field.to(space.points.device)
    _check_shapes(space, coefficients, field)
    _check_projection(space, coefficients, field)
    _check_interpolation(space, coefficients)
    if hasattr(space, "apply"):
        _check_laplacian(space, coefficients, field)
    if _has_poisson(space):
        _check_poisson(space, field, field.roll(7) ** 2)


def _close(result: Tensor, expected: Tensor, message: str, tolerance: float = 1e-9) -> None:
    scale = float(expected.abs().max()) + 1e-300
    error = float((result - expected).abs().max()) / scale
    assert error < tolerance, f"{message}: relative error {error:.1e}"


def _check_shapes(space: Any, coefficients: Tensor, field: Tensor) -> None:
    n, m = space.n_points, space.n_coefficients
    assert space.points.shape == (n, 3), f"points have shape {tuple(space.points.shape)}"
    assert space.weights.shape == (n,), f"weights have shape {tuple(space.weights.shape)}"
    assert space.points.dtype == space.weights.dtype == torch.float64, "not in float64"
    assert (space.weights > 0).all(), "weights must be positive"
    assert space.evaluate(coefficients).shape == (n,), "evaluate: wrong shape"
    assert space.evaluate_gradient(coefficients).shape == (n, 3), "evaluate_gradient: wrong shape"
    assert space.test(field).shape == (m,), "test: wrong shape"
    pair = torch.stack([coefficients, 2 * coefficients])
    _close(space.evaluate(pair)[1], 2 * space.evaluate(coefficients), "evaluate on two fields")
    _close(space.integrate(field), field @ space.weights, "integrate is not the weighted sum")


def _check_projection(space: Any, coefficients: Tensor, field: Tensor) -> None:
    values = space.evaluate(coefficients)
    pairing = torch.stack([space.test(field) @ coefficients])
    _close(pairing, torch.stack([space.integrate(field * values)]), "test is no transpose")
    _close(space.project(values), coefficients, "project does not undo evaluate")
    projected = space.evaluate(space.project(field))
    left_over = space.integrate((field - projected) * values)
    scale = (space.integrate(field**2) * space.integrate(values**2)) ** 0.5
    assert float(left_over.abs() / scale) < 1e-10, "the projection's error is not orthogonal"


def _check_interpolation(space: Any, coefficients: Tensor) -> None:
    some = torch.arange(0, space.n_points, max(1, space.n_points // 50))
    points = space.points[some]
    at_points = space.interpolate_at(coefficients, points)
    _close(at_points, space.evaluate(coefficients)[some], "interpolate_at and evaluate differ")
    several = space.interpolate_at(torch.stack([coefficients, 2 * coefficients]), points)
    _close(several[1], 2 * at_points, "interpolate_at mixes up several fields")
    gradient = space.evaluate_gradient(coefficients)[some]
    step = 1e-4 * float(space.weights[some].min()) ** (1 / 3)
    for axis in range(3):
        shift = torch.zeros_like(points)
        shift[:, axis] = step
        ahead = space.interpolate_at(coefficients, points + shift)
        behind = space.interpolate_at(coefficients, points - shift)
        _close((ahead - behind) / (2 * step), gradient[:, axis], "gradient", tolerance=1e-4)


def _check_laplacian(space: Any, coefficients: Tensor, field: Tensor) -> None:
    values = space.evaluate(coefficients)
    slope2 = (space.evaluate_gradient(coefficients) ** 2).sum(dim=1)
    stretched = space.integrate(values * space.apply(lambda x: x, values))
    _close(stretched[None], space.integrate(slope2)[None], "-laplacian is not |gradient|^2")
    twice = space.apply(lambda x: 1 / (1 + x), space.apply(lambda x: torch.exp(-x), field))
    once = space.apply(lambda x: torch.exp(-x) / (1 + x), field)
    _close(twice, once, "functions of the laplacian do not multiply")


def _has_poisson(space: Any) -> bool:
    """Spaces that are periodic along some axes only have no electrostatics yet."""
    flags = getattr(space, "periodic", (False,))
    return all(flags) or not any(flags)


def _check_poisson(space: Any, one: Tensor, two: Tensor) -> None:
    phi_one, phi_two = space.solve_poisson(one), space.solve_poisson(two)
    left, right = space.integrate(one * phi_two), space.integrate(two * phi_one)
    size = (space.integrate(one * phi_one) * space.integrate(two * phi_two)).abs() ** 0.5
    assert float((left - right).abs() / size) < 1e-9, "the potential is not symmetric"
    assert float(space.integrate(one * phi_one)) > 0, "a charge's self energy must be positive"
    _close(space.solve_poisson(one - 3 * two), phi_one - 3 * phi_two, "potential is not linear")
