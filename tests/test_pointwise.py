"""Pointwise networks and the least squares that they start from."""

import torch

from fedens.learning.least_squares import least_squares, with_constant
from fedens.learning.pointwise import PointwiseNetwork, committee_outputs


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


def test_committees_give_the_same_block_by_block(monkeypatch, generator):
    """Outputs and derivatives; 17 rows in blocks of 5."""
    networks = [PointwiseNetwork(3, (4,), 2) for _ in range(2)]
    features = torch.randn(17, 3, generator=generator, requires_grad=True)

    def outputs_and_slopes():
        outputs = committee_outputs(networks, features)
        return outputs.detach(), *torch.autograd.grad((outputs**2).sum(), features)

    whole = outputs_and_slopes()
    for found, network in zip(whole[0], networks, strict=True):
        torch.testing.assert_close(found.float(), network(features))
    monkeypatch.setattr("fedens.learning.pointwise._BLOCK", 5)
    for found, expected in zip(outputs_and_slopes(), whole, strict=True):
        torch.testing.assert_close(found, expected)
    with torch.no_grad():
        torch.testing.assert_close(committee_outputs(networks, features), whole[0])
