"""The density: two ways in, the same field out."""

import math

import pytest
import torch

from fedens import Density, TensorSpace
from fedens.errors import FedensError

SPACE = TensorSpace([6.0, 7.0, 8.0], 3, 9)
X = math.tau * SPACE.points / torch.tensor(SPACE.lengths, dtype=torch.float64)
ROOT = 0.2 * (1 + 0.3 * torch.sin(X[:, 0]) * torch.cos(X[:, 2]))


@pytest.mark.parametrize(
    "density",
    [Density.from_root(SPACE, SPACE.project(ROOT)), Density.from_values(SPACE, ROOT**2)],
    ids=["from_root", "from_values"],
)
def test_fields(density):
    k = math.tau / 6.0
    slope = 0.2 * 0.3 * k * torch.cos(X[:, 0]) * torch.cos(X[:, 2])
    assert torch.allclose(density.root, ROOT, rtol=0, atol=1e-8)
    assert torch.allclose(density.values, ROOT**2, rtol=0, atol=1e-8)
    assert torch.allclose(density.root_gradient[:, 0], slope, rtol=0, atol=1e-6)
    assert torch.allclose(density.gradient[:, 0], 2 * ROOT * slope, rtol=0, atol=1e-6)
    assert density.gradient.shape == (SPACE.n_points, 3)
    exact = 0.04 * (1 + 0.09 / 4) * SPACE.volume
    assert float(density.number_of_electrons) == pytest.approx(exact, rel=1e-10)


def test_dipole_of_a_cloud():
    space = TensorSpace([20.0, 22.0, 24.0], 4, 8, False, origin=(-9.0, -11.0, -12.0))
    centre = torch.tensor([1.0, -0.5, 2.0], dtype=torch.float64)
    cloud = torch.exp(-((space.points - centre) ** 2).sum(dim=1) / 4)
    density = Density.from_values(space, cloud).normalised(3.0)
    assert torch.allclose(density.dipole, 3.0 * centre, rtol=0, atol=1e-6)


def test_normalised_counts_exactly():
    density = Density.from_values(SPACE, ROOT**2).normalised(12.0)
    assert float(density.number_of_electrons) == pytest.approx(12.0, rel=1e-12)
    assert float(density.root_coefficients.norm() ** 2) == pytest.approx(12.0, rel=1e-12)


def test_density_is_differentiable_in_its_coefficients():
    c = SPACE.project(ROOT).requires_grad_(True)
    (gradient,) = torch.autograd.grad(Density.from_root(SPACE, c).number_of_electrons, c)
    assert torch.allclose(gradient, 2 * c.detach(), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (-(ROOT**2), "negative"),
        (ROOT * math.nan, "not finite"),
        (ROOT * math.inf, "not finite"),
        (ROOT[:-1], "points"),
    ],
)
def test_impossible_values_are_refused(values, said):
    with pytest.raises(FedensError, match=said):
        Density.from_values(SPACE, values)


def test_wrong_number_of_coefficients_is_refused():
    with pytest.raises(FedensError, match="coefficients for a space with"):
        Density.from_root(SPACE, torch.zeros(3, dtype=torch.float64))
    with pytest.raises(FedensError, match="either root coefficients or values"):
        Density(SPACE)
