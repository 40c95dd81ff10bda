"""Pointwise networks and the least squares that they start from."""

import torch

from fedens.learning.least_squares import least_squares, with_constant
from fedens.learning.pointwise import PointwiseNetwork


def test_ridge_recovers_a_linear_map(generator):
    features = torch.randn(500, 3, generator=generator, dtype=torch.float64)
    weights = torch.tensor([[1.0, -2.0], [0.5, 0.0], [3.0, 1.0]], dtype=torch.float64)
    targets = features @ weights + torch.tensor([0.3, -0.7], dtype=torch.float64)
    batches = zip(with_constant(features).split(90), targets.split(90), strict=True)
    found = least_squares(batches, 1e-8, per_row=True)
    torch.testing.assert_close(found[:-1], weights, atol=1e-6, rtol=0)
    torch.testing.assert_close(found[-1], targets.new_tensor([0.3, -0.7]), atol=1e-6, rtol=0)


def test_linear_model_has_no_perceptron():
    network = PointwiseNetwork(3, (), 2)
    assert network.perceptron is None
    assert network(torch.ones(5, 3)).shape == (5, 2)
