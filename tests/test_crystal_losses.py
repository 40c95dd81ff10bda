"""Losses of whole elements against closed forms."""

import math

import numpy as np
import pytest
import torch

from fedens import TensorSpace
from fedens.models.crystal.losses import EnergyDensityLoss, RootDensityLoss, gauss_differentiation

#: Three different edges, so that no direction can stand for another.
SPACE = TensorSpace([5.0, 6.5, 8.0], (3, 4, 5), 7)


def blocks(values):
    return SPACE.element_blocks(values).float()


def relative_weights():
    weights = SPACE.element_blocks(SPACE.weights)
    return (weights / weights.mean()).float()


@pytest.mark.parametrize("order", [1, 4, 8])
def test_differentiation_is_exact_for_polynomials(order):
    points = (np.polynomial.legendre.leggauss(order + 1)[0] + 1) / 2
    polynomial = np.polynomial.Polynomial(np.arange(1.0, order + 2))
    slopes = gauss_differentiation(order) @ polynomial(points)
    np.testing.assert_allclose(slopes, polynomial.deriv()(points), rtol=1e-9)


@pytest.mark.parametrize("axis", [0, 1, 2], ids="xyz")
def test_gradient_loss_counts_every_direction(axis):
    """Of a plane wave along an axis: <sin^2> + weight q^2 <cos^2>, q by that axis' edge."""
    q = 2 * math.pi / SPACE.lengths[axis]
    error = blocks(torch.sin(q * SPACE.points[:, axis]))[..., None]
    lengths = SPACE.element_lengths.float()
    for weight in (0.0, 0.7):
        loss = float(RootDensityLoss(SPACE.order, weight)(error, relative_weights(), lengths))
        assert loss == pytest.approx(0.5 + weight * 0.5 * q**2, rel=1e-4)


def test_energy_density_loss_of_constant_errors():
    """Constants c_i cost their mean square, and weight times (sum of c_i s_i / mean s)^2."""
    scales = torch.tensor([1.0, 2.0, 6.0], dtype=torch.float64)
    constants = torch.tensor([0.3, -0.5, 0.2])
    error = constants.expand(*relative_weights().shape, 3)
    lengths = SPACE.element_lengths.float()
    integral = float(constants.double() @ scales) / 3.0
    for weight in (0.0, 1.0, 10.0):
        loss = float(EnergyDensityLoss(scales, weight)(error, relative_weights(), lengths))
        expected = float((constants**2).mean()) + weight * integral**2
        assert loss == pytest.approx(expected, rel=1e-5)
    assert integral > 0.1


def test_energy_density_loss_integrates_over_single_elements():
    """Errors that cancel only between elements are not forgiven; within one they are."""
    scales = torch.ones(3, dtype=torch.float64)
    lengths, weights = SPACE.element_lengths.float(), relative_weights()
    signs = torch.ones(len(weights), 1, 3)
    signs[::2] = -1.0
    between = signs.expand(*weights.shape, 3)
    x = SPACE.points[:, 0] / float(lengths[0, 0])
    within = blocks(math.sqrt(2) * torch.sin(2 * math.pi * x))[..., None].expand_as(between)
    loss = EnergyDensityLoss(scales, 5.0)
    assert float(loss(between, weights, lengths)) == pytest.approx(1 + 5.0 * 3**2, rel=1e-4)
    assert float(loss(within, weights, lengths)) == pytest.approx(1.0, rel=1e-3)
