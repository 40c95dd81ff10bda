"""What every function space must satisfy."""

from __future__ import annotations

import itertools
import json
import math

import torch
from torch import Tensor

from fedens.errors import SpaceError
from fedens.fem.space import FunctionSpace
from fedens.structure import Structure

#: Widths of the Gaussians that must be resolved, in one over the shortest edge of the box.
_WIDTH = 7.0


def check_function_space(space: FunctionSpace, seed: int = 0, resolution: float = 0.05) -> None:
    """Check that an object behaves as a :class:`fedens.fem.space.FunctionSpace`.

    Shapes, types, description; weights and nodes that sum to the volume; that ``evaluate`` and
    ``test`` are transposes, ``project`` undoes ``evaluate``, and products of basis functions are
    integrated exactly; gradients against differences of ``interpolate_at``; sums over atoms
    against sums over images, Fourier series of periodic spaces too; functions of the Laplacian,
    where the space has them, on its modes; that the preconditioner is symmetric and close; that
    the potential is a symmetric, positive, linear function of the charge; a smooth function
    between the points, and a known potential.

    Args:
        resolution: largest relative error of those last two, whose answers are those of an
            infinitely fine mesh: Gaussians, a seventh of the box wide, or a wave.

    Raises:
        AssertionError: with what is wrong.
    """
    random = torch.Generator().manual_seed(seed)
    coefficients = torch.randn(space.n_coefficients, generator=random, dtype=torch.float64)
    field = torch.randn(space.n_points, generator=random, dtype=torch.float64)
    coefficients, field = coefficients.to(space.device), field.to(space.device)
    _check_shapes(space, coefficients, field)
    _check_geometry(space)
    _check_description(space)
    _check_projection(space, coefficients, field)
    _check_interpolation(space, coefficients)
    _check_sums(space)
    _check_fourier_sum(space)
    _check_laplacian(space, coefficients, field)
    _check_preconditioner(space, field)
    _check_smooth_function(space, resolution)
    if len(set(space.periodic)) == 1:  # slabs and wires have no electrostatics yet
        _check_poisson(space, field, field.roll(7) ** 2)
        _check_known_potential(space, resolution)


def _close(result: Tensor, expected: Tensor, message: str, tolerance: float = 1e-9) -> None:
    scale = float(expected.abs().max()) + 1e-300
    error = float((result - expected).abs().max()) / scale
    assert error < tolerance, f"{message}: relative error {error:.1e}"


def _check_shapes(space: FunctionSpace, coefficients: Tensor, field: Tensor) -> None:
    n, m = space.n_points, space.n_coefficients
    assert space.points.shape == (n, 3), f"points have shape {tuple(space.points.shape)}"
    assert space.weights.shape == (n,), f"weights have shape {tuple(space.weights.shape)}"
    assert space.points.dtype == space.weights.dtype == torch.float64, "not in float64"
    assert space.points.device == space.device, "points are on another device"
    assert (space.weights > 0).all(), "weights must be positive"
    assert space.evaluate(coefficients).shape == (n,), "evaluate: wrong shape"
    assert space.evaluate_gradient(coefficients).shape == (n, 3), "evaluate_gradient: wrong shape"
    assert space.test(field).shape == (m,), "test: wrong shape"
    pair = torch.stack([coefficients, 2 * coefficients])
    _close(space.evaluate(pair)[1], 2 * space.evaluate(coefficients), "evaluate on two fields")
    _close(space.integrate(field), field @ space.weights, "integrate is not the weighted sum")


def _check_geometry(space: FunctionSpace) -> None:
    volume = torch.tensor(space.volume, dtype=torch.float64)
    _close(space.weights.sum().cpu(), volume, "weights do not sum to the volume")
    corners, shares = space.nodes
    _close(shares.sum().cpu(), volume, "integrals at the nodes do not sum to the volume")
    assert space.is_periodic == all(space.periodic), "is_periodic is not all of periodic"
    if space.cell is None:
        assert not any(space.periodic), "a periodic space has no cell"
        moments = space.weights @ space.points
        size = space.weights @ space.points.abs()
        error = (shares @ corners - moments).abs() / size
        assert float(error.max()) < 1e-9, "linear functions are not integrated exactly"
    else:
        _close(torch.linalg.det(space.cell).cpu(), volume, "the cell has another volume")
    here = space.spacing_at(space.points[:1])
    assert 0 < here <= space.spacing * (1 + 1e-12), f"spacing {space.spacing}, at a point {here}"
    if space.is_periodic:
        factors = space.weights.new_tensor([1.1, 0.9, 1.2])
        _close(space.scaled(factors).points, factors * space.points, "scaled: other points")


def _check_description(space: FunctionSpace) -> None:
    again = type(space).from_description(json.loads(json.dumps(space.describe())))
    assert again.n_points == space.n_points, "the description makes another number of points"
    _close(again.points, space.points.detach().cpu(), "the description makes other points")
    assert again.n_coefficients == space.n_coefficients, "the description makes other functions"
    cell = None if space.is_periodic else [1.0, 1.0, 1.0]
    other = Structure(["H"], [[0.0] * 3], cell=cell, pbc=not space.is_periodic)
    try:
        space.check_matches(other)
    except SpaceError:
        return
    raise AssertionError("check_matches accepts a structure of the other periodicity")


def _check_projection(space: FunctionSpace, coefficients: Tensor, field: Tensor) -> None:
    values = space.evaluate(coefficients)
    slopes2 = (space.evaluate_gradient(coefficients) ** 2).sum(dim=1)
    _close(space.test(field) @ coefficients, space.integrate(field * values), "test: no transpose")
    _close(space.project(values), coefficients, "project does not undo evaluate")
    _close(space.test(values), space.mass(coefficients), "mass is not that of the quadrature")
    _close(space.inverse_mass(space.mass(coefficients)), coefficients, "inverse_mass is none")
    _close(space.norm2(coefficients), space.integrate(values**2), "norm2 is no integral")
    _close(space.gradient_norm2(coefficients), space.integrate(slopes2), "gradient_norm2: none")
    projected = space.evaluate(space.project(field))
    left_over = space.integrate((field - projected) * values)
    scale = (space.integrate(field**2) * space.integrate(values**2)) ** 0.5
    assert float(left_over.abs() / scale) < 1e-10, "the projection's error is not orthogonal"


def _check_interpolation(space: FunctionSpace, coefficients: Tensor) -> None:
    some = _some(space, 50)
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


def _some(space: FunctionSpace, count: int) -> Tensor:
    """Indices of some points, drawn at random, the same ones each time."""
    drawn = torch.randperm(space.n_points, generator=torch.Generator().manual_seed(1))
    return drawn[:count].to(space.device)


def _box(space: FunctionSpace) -> tuple[Tensor, float]:
    """Middle (3,) of the points and shortest edge of the box around them, bohr."""
    low, high = space.points.detach().aminmax(dim=0)
    return (low + high) / 2, float((high - low).min())


def _squared_distances(space: FunctionSpace, points: Tensor, centres: Tensor) -> Tensor:
    """From points to all images of centres, (n_points, n_centres, n_images), bohr^2."""
    away = points[:, None, None] - centres[:, None]
    if space.cell is not None:
        near = (range(-4, 5) if flag else (0,) for flag in space.periodic)
        away = away - away.new_tensor(list(itertools.product(*near))) @ space.cell
    return (away**2).sum(dim=-1)


def _check_sums(space: FunctionSpace) -> None:
    middle, length = _box(space)
    centres = middle + length * middle.new_tensor([[0.0, 0.1, -0.2], [0.7, 0.3, 0.1]])
    exponents = middle.new_tensor([4.0, 30.0]) / length**2
    amplitudes = middle.new_tensor([[1.0, 0.3, -0.2, 0.1], [-0.6, 0.8, 0.5, 0.0]])
    some = _some(space, 200)
    r2 = _squared_distances(space, space.points[some], centres)
    gaussians = torch.exp(-exponents[:, None] * r2)
    bare = (amplitudes[:, :1] * gaussians).sum(dim=(1, 2))
    found = space.gaussian_sum(centres, exponents, amplitudes[:, 0])[some]
    _close(found, bare, "gaussian_sum is not the sum over images")
    factors = torch.einsum("naip,ap->nai", r2[..., None] ** torch.arange(4), amplitudes)
    found = space.gaussian_sum(centres, exponents, amplitudes)[some]
    _close(found, (factors * gaussians).sum(dim=(1, 2)), "gaussian_sum with powers is not that sum")
    cutoff = 0.8 * length

    def radial(r: Tensor) -> Tensor:
        return torch.cos(r) * (1 - r / cutoff) ** 2

    expected = torch.where(r2 < cutoff**2, radial(torch.sqrt(r2)), 0.0).sum(dim=(1, 2))
    found = space.radial_sum(centres, radial, cutoff)[some]
    _close(found, expected, "radial_sum is not the sum over images")


def _check_fourier_sum(space: FunctionSpace) -> None:
    if not space.is_periodic:
        return
    middle, length = _box(space)
    centres = middle + length * middle.new_tensor([[0.0, 0.1, -0.2], [0.7, 0.3, 0.1]])
    exponent, amplitudes = 30.0 / length**2, middle.new_tensor([1.0, -0.6])
    height, end = (math.pi / exponent) ** 1.5, 12 * math.sqrt(exponent)
    found = space.fourier_sum(
        centres, amplitudes, lambda q: height * torch.exp(-0.25 * q**2 / exponent), end
    )
    expected = space.gaussian_sum(centres, torch.full_like(amplitudes, exponent), amplitudes)
    _close(found, expected, "fourier_sum is not the sum over images")


def _check_laplacian(space: FunctionSpace, coefficients: Tensor, field: Tensor) -> None:
    try:
        eigenvalues = space.laplacian_eigenvalues
    except SpaceError:
        return
    mode = int(eigenvalues.argsort()[min(5, len(eigenvalues) - 1)])
    unit = torch.zeros_like(eigenvalues)
    unit[mode] = 1.0
    eigenvalue, wave = eigenvalues[mode], space.evaluate(unit)
    damped = space.apply(lambda x: torch.exp(-x), wave)
    _close(damped, torch.exp(-eigenvalue) * wave, "apply is no function of the eigenvalue")
    _close(space.gradient_norm2(unit), eigenvalue, "a mode's slope is not its eigenvalue")
    values = space.evaluate(coefficients)
    stretched = space.integrate(values * space.apply(lambda x: x, values))
    _close(stretched, space.gradient_norm2(coefficients), "-laplacian is not |gradient|^2")
    twice = space.apply(lambda x: 1 / (1 + x), space.apply(lambda x: torch.exp(-x), field))
    once = space.apply(lambda x: torch.exp(-x) / (1 + x), field)
    _close(twice, once, "functions of the laplacian do not multiply")


def _check_preconditioner(space: FunctionSpace, field: Tensor) -> None:
    stiffness, mass = 0.5, 0.4
    inverse = space.preconditioner(stiffness, mass)
    one, two = space.test(field), space.test(field.roll(11))
    found = inverse(one)
    _close(found @ two, one @ inverse(two), "the preconditioner is not symmetric")
    # equal for the exact inverse
    product = stiffness * space.gradient_norm2(found) + mass * space.norm2(found)
    ratio = float(product / (one @ found))
    assert 0.3 < ratio < 1.0001, f"the preconditioner is far from the inverse: {ratio:.2f} of it"


def _check_smooth_function(space: FunctionSpace, resolution: float) -> None:
    middle, length = _box(space)
    exponent = middle.new_tensor([0.5 * (_WIDTH / length) ** 2])
    smooth = space.gaussian_sum(middle[None], exponent, torch.ones_like(exponent))
    # between the points, towards the middle
    between = middle + 0.83 * (space.points[_some(space, 100)] - middle)
    found = space.interpolate_at(space.project(smooth), between)
    expected = torch.exp(-exponent * _squared_distances(space, between, middle[None])).sum(dim=2)
    # a share of the function's height, 1, wherever the points happen to lie
    error = float((found - expected[:, 0]).abs().max())
    assert error < resolution, f"a smooth function between points: relative error {error:.1e}"


def _check_poisson(space: FunctionSpace, one: Tensor, two: Tensor) -> None:
    phi_one, phi_two = space.solve_poisson(one), space.solve_poisson(two)
    left, right = space.integrate(one * phi_two), space.integrate(two * phi_one)
    size = (space.integrate(one * phi_one) * space.integrate(two * phi_two)).abs() ** 0.5
    assert float((left - right).abs() / size) < 1e-9, "the potential is not symmetric"
    assert float(space.integrate(one * phi_one)) > 0, "a charge's self energy must be positive"
    _close(space.solve_poisson(one - 3 * two), phi_one - 3 * phi_two, "potential is not linear")
    half = 0.5 * space.integrate(one * phi_one)
    _close(space.coulomb_energy(one), half, "coulomb_energy is not half of charge x potential")


def _check_known_potential(space: FunctionSpace, resolution: float) -> None:
    charge, potential = _wave(space) if space.is_periodic else _gaussian(space)
    found = space.solve_poisson(charge)
    error = (space.integrate((found - potential) ** 2) / space.integrate(potential**2)) ** 0.5
    assert float(error) < resolution, f"the potential of a known charge: error {float(error):.1e}"
    energy = 0.5 * space.integrate(charge * potential)
    _close(space.coulomb_energy(charge), energy, "the energy of a known charge", resolution)


def _wave(space: FunctionSpace) -> tuple[Tensor, Tensor]:
    """A wave along the first cell vector, and its potential 4 pi / k^2."""
    assert space.cell is not None
    k = 2 * math.pi * torch.linalg.inv(space.cell)[:, 0]
    charge = torch.cos(space.points @ k)
    return charge, 4 * math.pi / (k @ k) * charge


def _gaussian(space: FunctionSpace) -> tuple[Tensor, Tensor]:
    """A Gaussian of charge 1 in the middle, and its potential erf(r / (sqrt(2) w)) / r."""
    middle, length = _box(space)
    width = length / _WIDTH
    r = (space.points - middle).norm(dim=1).clamp(min=1e-8)
    charge = torch.exp(-(r**2) / (2 * width**2)) / (2 * math.pi * width**2) ** 1.5
    return charge, torch.erf(r / (math.sqrt(2) * width)) / r
