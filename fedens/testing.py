"""Contracts as callable checks: what every function space and every energy term must satisfy.

Run them on your own class; they raise :class:`AssertionError` with what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fedens.density import Density
from fedens.energy.terms import DensityTerm
from fedens.fem.tensor import TensorSpace

#: Fourth-order central differences: step, and the weights of f(h), f(-h), f(2h), f(-2h).
_STEPS = (1.0, -1.0, 2.0, -2.0)
_WEIGHTS = (8 / 12, -8 / 12, -1 / 12, 1 / 12)


def central_difference(function: Callable[[float], float], step: float) -> float:
    """Derivative of a function at 0, with an error of fourth order in the step."""
    values = [function(s * step) for s in _STEPS]
    return sum(w * v for w, v in zip(_WEIGHTS, values, strict=True)) / step


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


def check_energy_term(term: DensityTerm, density: Density, tolerance: float = 1e-8) -> None:
    """Check a term's energy against its energy density, and its derivatives against differences.

    The density must be made from root coefficients; it is changed along a random direction.
    Second derivatives are checked where the term says that it has them.
    """
    space, root = density.space, density.root_coefficients.detach()
    energy = float(term.energy(density))
    total = float(space.integrate(term.energy_density(density)))
    assert abs(energy - total) <= 1e-10 * abs(energy), f"energy {energy}, its density's {total}"
    random = torch.Generator().manual_seed(1)
    direction = torch.randn(root.shape, generator=random, dtype=torch.float64)
    # smooth, so that the density keeps its sign and its size
    direction = direction / (1 + space.laplacian_eigenvalues) ** 2
    direction *= 0.1 * root.norm() / direction.norm()

    def energy_at(length: float) -> float:
        return float(term.energy(Density.from_root(space, root + length * direction)))

    def slope_at(length: float, create_graph: bool = False) -> tuple[Tensor, Tensor]:
        c = (root + length * direction).requires_grad_(True)
        energy = term.energy(Density.from_root(space, c))
        (gradient,) = torch.autograd.grad(energy, c, create_graph=create_graph)
        return gradient @ direction, c

    slope, expected = float(slope_at(0.0)[0]), central_difference(energy_at, 2e-2)
    assert abs(expected) > 1e-6 * abs(energy), "the direction does not change the energy"
    assert abs(slope - expected) <= tolerance * abs(expected), (
        f"derivative of {term.name} is {slope}, finite differences give {expected}"
    )
    if term.twice_differentiable:
        (row,) = torch.autograd.grad(*slope_at(0.0, create_graph=True))
        bend = float(row @ direction)
        expected = central_difference(lambda t: float(slope_at(t)[0]), 2e-2)
        assert abs(bend - expected) <= 10 * tolerance * abs(expected), (
            f"second derivative of {term.name} is {bend}, finite differences give {expected}"
        )


def check_uniform_response(
    term: DensityTerm, space: TensorSpace, mean_density: float, tolerance: float = 1e-5
) -> None:
    """Check ``uniform_response`` against second differences of the energy on a periodic space."""
    mode = 1 + int(torch.argmin((space.laplacian_eigenvalues[1:] - 1.0).abs()))
    unit = torch.zeros(space.n_coefficients, dtype=torch.float64)
    unit[mode] = 1.0
    wave = space.evaluate(unit)
    q2 = space.laplacian_eigenvalues[mode : mode + 1]

    def energy(amplitude: float) -> float:
        root = torch.sqrt(mean_density + amplitude * wave)
        return float(term.energy(Density.from_root(space, space.project(root))))

    size = 0.005 * mean_density / float(wave.abs().max())
    second = (energy(size) - 2 * energy(0.0) + energy(-size)) / size**2
    expected = float(term.uniform_response(q2, torch.tensor(mean_density, dtype=q2.dtype)))
    assert abs(second - expected) <= tolerance * abs(expected), (
        f"response of {term.name} at q^2 = {float(q2):.3f} is {expected}, "
        f"second differences give {second}"
    )
