"""The contract kit on our function spaces, and on some that break it."""

import numpy as np
import pytest
import torch
from skfem import MeshHex, MeshTet
from systems import dimer

from fedens import SimplexSpace, TensorSpace
from fedens.testing import check_function_space

GRADED = [0.0, 0.3, 0.9, 2.0, 4.0]
TWO_SIDED = [-4.0, -2.0, -1.0, -0.4, 0.4, 1.0, 2.0, 4.0]


def cube(n, kind=MeshTet):
    return kind.init_tensor(*[np.linspace(-3.0, 3.0, n + 1)] * 3)


#: Spaces, and how well they resolve Gaussians of a seventh of their box.
SPACES = {
    "periodic": (lambda: TensorSpace([4.0, 5.0, 6.0], (2, 3, 2), 4, True), 0.1),
    "isolated": (
        lambda: TensorSpace([8.0, 9.0, 10.0], 4, 4, False, origin=(-4.0, -4.0, 3.0)),
        0.05,
    ),
    "linear": (lambda: TensorSpace([4.0, 5.0, 6.0], (9, 8, 10), 1, True), 0.25),
    "highest order": (lambda: TensorSpace([4.0, 5.0, 6.0], (1, 1, 2), 10, True), 0.05),
    "graded periodic": (lambda: TensorSpace(edges=[GRADED] * 3, order=3, periodic=True), 0.2),
    "graded isolated": (lambda: TensorSpace(edges=[TWO_SIDED] * 3, order=3, periodic=False), 0.01),
    "slab": (lambda: TensorSpace([4.0, 5.0, 6.0], 3, 3, (True, True, False)), 0.25),
    "tetrahedra 1": (lambda: SimplexSpace(cube(8), 1), 0.15),
    "tetrahedra 2": (lambda: SimplexSpace(cube(6), 2), 0.05),
    "hexahedra 1": (lambda: SimplexSpace(cube(7, MeshHex), 1), 0.15),
    "hexahedra 2": (lambda: SimplexSpace(cube(6, MeshHex), 2, [[0.0] * 3]), 0.1),
    "molecule": (lambda: SimplexSpace.for_structure(dimer(), 0.4, 0.8, 8.0), 0.02),
}


@pytest.mark.parametrize("name", SPACES)
def test_contract(name):
    make, resolution = SPACES[name]
    check_function_space(make(), resolution=resolution)


@pytest.mark.parametrize("name", ["periodic", "isolated", "tetrahedra 2"])
def test_the_kit_notices_a_space_that_is_coarser_than_it_should_be(name):
    make, resolution = SPACES[name]
    with pytest.raises(AssertionError, match="a smooth function between points"):
        check_function_space(make(), resolution=resolution / 100)


def broken(space, name, change):
    """The space with one method or attribute changed: by ``change(right, *arguments)``."""
    right = getattr(space, name)
    method = callable(getattr(type(space), name))
    value = (
        (lambda _, *given: change(right, *given)) if method else property(lambda _: change(right))
    )
    space.__class__ = type("Broken", (type(space),), {name: value})
    return space


def noisy(right, *given):
    return right(*given) * (1 + 1e-3 * torch.rand(1, dtype=torch.float64))


METHODS = [
    "evaluate",
    "evaluate_gradient",
    "interpolate_at",
    "test",
    "project",
    "integrate",
    "norm2",
    "gradient_norm2",
    "solve_poisson",
    "coulomb_energy",
    "gaussian_sum",
    "radial_sum",
]
OTHERS = {
    "weights": lambda right: 1.001 * right,
    "nodes": lambda right: (right[0], 1.001 * right[1]),
    "cell": lambda right: torch.eye(3).double() if right is None else None,
    "volume": lambda right: 1.001 * right,
    "spacing": lambda right: 0.5 * right,
    "is_periodic": lambda right: not right,
    "describe": lambda right: right() | {"order": right()["order"] % 2 + 1},
    "check_matches": lambda *_: None,
    "preconditioner": lambda right, *given: lambda load: right(*given)(load) * load.sign(),
}
DAMAGES = dict.fromkeys(METHODS, noisy) | OTHERS
FACTORS = {
    "apply": noisy,
    "fourier_sum": noisy,
    "scaled": lambda right, factors: right(1.001 * factors),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["periodic", "isolated", "tetrahedra 2"])
def test_the_kit_notices(name, damage):
    make, resolution = SPACES[name]
    with pytest.raises(AssertionError):
        check_function_space(broken(make(), damage, DAMAGES[damage]), resolution=resolution)


@pytest.mark.parametrize("damage", ["mass", "inverse_mass"])
def test_the_kit_notices_wrong_masses(damage):
    make, resolution = SPACES["periodic"]
    with pytest.raises(AssertionError, match=damage):
        check_function_space(broken(make(), damage, noisy), resolution=resolution)


@pytest.mark.parametrize("damage", FACTORS)
def test_the_kit_notices_what_only_a_box_can_do(damage):
    make, resolution = SPACES["periodic"]
    with pytest.raises(AssertionError, match=damage):
        check_function_space(broken(make(), damage, FACTORS[damage]), resolution=resolution)


@pytest.mark.parametrize("name", ["periodic", "isolated", "tetrahedra 2"])
def test_the_kit_notices_another_unit_of_the_potential(name):
    """Symmetric, linear, in keeping with the energy: only a known charge tells."""
    make, resolution = SPACES[name]
    space = broken(make(), "solve_poisson", lambda right, charge: 1.3 * right(charge))
    if name == "periodic":  # elsewhere the energy is that of the potential
        space = broken(space, "coulomb_energy", lambda right, charge: 1.3 * right(charge))
    with pytest.raises(AssertionError, match="known charge"):
        check_function_space(space, resolution=resolution)


def test_the_kit_notices_forgotten_images():
    space = SPACES["periodic"][0]()
    cell = space.cell

    def alone(right, centres, exponents, amplitudes):
        away = (space.points - centres[0] + 0.5 * cell.diagonal()) % cell.diagonal()
        r2 = ((away - 0.5 * cell.diagonal()) ** 2).sum(dim=1)
        rest = right(centres[1:], exponents[1:], amplitudes[1:])
        return rest + amplitudes[0] * torch.exp(-exponents[0] * r2)

    with pytest.raises(AssertionError, match="gaussian_sum is not the sum over images"):
        check_function_space(broken(space, "gaussian_sum", alone))
