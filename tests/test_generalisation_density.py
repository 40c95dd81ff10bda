"""Errors of densities in a crystal and around a defect, against densities known in closed form."""

import numpy as np
import pytest
import torch

from fedens import TensorSpace
from fedens.errors import SpaceError
from fedens.generalisation.defects import Crystal
from fedens.generalisation.density import density_errors, shell_errors

CELL = Crystal("Al", 7.65).cell()


@pytest.fixture(scope="module")
def space():
    return TensorSpace.for_structure(CELL, spacing=0.6, order=6)


def gaussians(width=1.2, offset=0.02):
    """A density of superposed Gaussians and a constant, nearest images only."""

    def density(structure, space):
        lengths = space.points.new_tensor(space.lengths)
        total = torch.full_like(space.weights, offset)
        for position in torch.tensor(structure.positions):
            vectors = space.points - position
            vectors = vectors - lengths * torch.round(vectors / lengths)
            total = total + torch.exp(-(vectors**2).sum(dim=1) / (2 * width**2))
        return total

    return density


def scaled(density, factor):
    return lambda structure, space: factor * density(structure, space)


def test_errors_of_a_scaled_density(space):
    found = density_errors(gaussians(), scaled(gaussians(), 1.02), CELL, space)
    assert found.at_rest == pytest.approx(0.02)
    assert found.displacement == pytest.approx(0.02)
    assert found.strain == pytest.approx(0.02)


def test_errors_of_a_constant_do_not_touch_responses(space):
    found = density_errors(gaussians(), gaussians(offset=0.03), CELL, space)
    assert found.at_rest > 0.01
    assert found.displacement < 1e-9
    assert found.strain < 1e-9


def test_wrong_response(space):
    """Narrower atoms answer differently to both."""
    found = density_errors(gaussians(), gaussians(width=1.1), CELL, space)
    assert found.displacement > 0.05
    assert found.strain > 0.05


def test_shells(space):
    """An error in the middle only shows in the middle shell, at its share of the density."""
    exact = torch.ones_like(space.weights)
    centre = np.array([1.0, 2.0, 3.0])
    lengths = space.points.new_tensor(space.lengths)
    vectors = space.points - torch.tensor(centre)
    distances = (vectors - lengths * torch.round(vectors / lengths)).norm(dim=1)
    found = exact - 0.3 * (distances < 1.5).double()
    middles, errors = shell_errors(space, exact, found, centre, [0.0, 1.5, 3.0])
    assert errors == pytest.approx([30.0, 0.0], abs=1e-9)
    # the mean distance in a ball is 3/4 of its radius
    assert middles[0] == pytest.approx(0.75 * 1.5, rel=0.05)
    with pytest.raises(SpaceError, match="no point of the mesh lies between 0 and 1e-06 bohr"):
        shell_errors(space, exact, found, centre, [0.0, 1e-6])
    isolated = TensorSpace.for_structure(CELL.replace(cell=None, pbc=False), spacing=2.0, order=4)
    with pytest.raises(SpaceError, match="periodic"):
        shell_errors(isolated, exact, found, centre, [0.0, 1.0])
