"""Boys functions and their derivatives."""

from itertools import pairwise

import pytest
import torch
from scipy.special import gamma, gammainc

from fedens.fem.boys import boys_functions


def vector(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_values_are_those_of_incomplete_gamma_functions():
    x = torch.cat([vector(0.0, 1e-14, 1e-6), torch.logspace(-3, 3, 400, dtype=torch.float64)])
    x = torch.cat([x, vector(1 - 1e-7, 1.0, 1 + 1e-7)])
    safe = x.clamp(min=1e-13).numpy()
    for n, values in enumerate(boys_functions(x, 5)):
        exact = gamma(n + 0.5) * gammainc(n + 0.5, safe) / (2 * safe ** (n + 0.5))
        assert values.numpy() == pytest.approx(exact, rel=1e-11)
        assert float(values[0]) == pytest.approx(1 / (2 * n + 1), rel=1e-14)


def test_derivative_is_minus_the_next():
    x = vector(0.0, 0.3, 0.999, 1.001, 7.0, 50.0).requires_grad_()
    values = boys_functions(x, 4)
    for value, following in pairwise(values):
        (slope,) = torch.autograd.grad(value.sum(), x, retain_graph=True)
        torch.testing.assert_close(slope, -following.detach(), rtol=1e-10, atol=1e-14)
