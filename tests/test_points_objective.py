"""The loss of energy models and its linear start, in closed form on data made up for it."""

import numpy as np
import pytest
import torch

from fedens.features.gmp import GMP
from fedens.features.points import PointSet
from fedens.learning.pointwise import PointwiseNetwork
from fedens.learning.scaling import Standardise
from fedens.models.points.data import PointsData, StructureData
from fedens.models.points.model import PointModel
from fedens.models.points.training import EnergyLoss, EnergyTrainingSettings, fit_energy_model

N_POINTS, N_FEATURES, N_ATOMS = 40, 3, 2
GRID = PointSet("grid", spacing=1.0)
ALL = EnergyTrainingSettings(
    hidden=(), energy_weight=0.3, force_weight=0.7, field_weight=1.9, ridge=1e-12
)


def random(*shape, seed=0):
    return torch.tensor(np.random.default_rng([seed, *shape]).standard_normal(shape))


def structure(seed=0):
    """Points of random features on atoms that pull them, with random labels; uniform weights."""
    points = PointsData(
        features=random(N_POINTS, N_FEATURES, seed=seed),
        weights=torch.full((N_POINTS,), 0.8, dtype=torch.float64),
        fields=random(N_POINTS, 2, seed=seed) * torch.tensor([0.3, 5.0]),
        features_by_position=random(N_POINTS * N_FEATURES, 3 * N_ATOMS, seed=seed).float(),
        weights_by_position=random(N_POINTS, 3 * N_ATOMS, seed=seed),
    )
    return StructureData([points], 4.0 + seed, random(3 * N_ATOMS, seed=seed), N_ATOMS)


def linear_model(n_outputs=2):
    """Outputs scale (W s + b) + mean of the scaled features s."""
    torch.manual_seed(1)
    network = PointwiseNetwork(N_FEATURES, (), n_outputs).double()
    scaling = Standardise(random(N_FEATURES, seed=3), 1 + random(N_FEATURES, seed=4).abs())
    mean, scale = random(n_outputs, seed=5), 1 + random(n_outputs, seed=6).abs()
    return PointModel(GRID, scaling, network, mean, scale)


def energies_and_slopes(part, features):
    """Energies (n_points,) and their derivatives (n_features,), written out."""
    weights, bias = part.network.linear.weight[0], part.network.linear.bias[0]
    scaled = (features - part.scaling.mean) / part.scaling.scale
    energies = part.mean[0] + part.scale[0] * (scaled @ weights + bias)
    return energies.detach(), (part.scale[0] * weights / part.scaling.scale).detach()


def test_totals_are_in_units_of_millihartree():
    """Energies per atom, and forces, which are minus the derivative of the energy."""
    one, part = structure(), linear_model()
    points = one.sets[0]
    energies, slopes = energies_and_slopes(part, points.features)
    moved = points.features_by_position.double().reshape(N_POINTS, N_FEATURES, -1)
    forces = -0.8 * torch.einsum("f,pfx->x", slopes, moved)
    forces = forces - energies @ points.weights_by_position
    of_energy = float((0.8 * energies.sum() - one.energy) / (N_ATOMS * 1e-3)) ** 2
    of_forces = float(((forces - one.forces) / 1e-3).pow(2).mean())
    assert min(of_energy, of_forces) > 1
    found = float(EnergyLoss([one], ALL).of_totals(one, [part]).detach())
    assert found == pytest.approx(0.3 * of_energy + 0.7 * of_forces, rel=1e-5)


def test_fields_are_in_units_of_their_spread():
    """Of all structures; each column in its own."""
    first, second = structure(0), structure(1)
    part, points = linear_model(), first.sets[0]
    spreads = torch.cat([first.sets[0].fields, second.sets[0].fields]).std(dim=0)
    assert spreads[1] > 5 * spreads[0]
    wrong = (part.outputs(points.features) - points.fields) / spreads
    found = EnergyLoss([first, second], ALL).of_fields(first, part)
    expected = 1.9 * (wrong**2).sum(dim=1).mean()
    torch.testing.assert_close(found, expected)


def test_squares_of_the_linear_start_are_the_loss():
    """For a linear model of energies; its least squares know nothing of densities."""
    one, part = structure(), linear_model()
    loss = EnergyLoss([one], ALL)
    weights, bias = part.network.linear.weight[0], part.network.linear.bias[0]
    solution = torch.cat([part.scale[0] * weights, (part.mean[0] + part.scale[0] * bias)[None]])
    squares = sum(
        float(((matrix @ solution - targets) ** 2).sum().detach())
        for matrix, targets in loss.rows(one, [part.scaling])
    )
    points = one.sets[0]
    wrong = (part.outputs(points.features)[:, 0] - points.fields[:, 0]) / loss.field_units[0]
    expected = loss.of_totals(one, [part]) + 1.9 * (wrong**2).mean()
    assert squares == pytest.approx(float(expected.detach()), rel=1e-5)


def test_linear_start_finds_linear_fields():
    """Energy densities in the first column, densities in the second."""
    settings = EnergyTrainingSettings(
        hidden=(), energy_weight=0, force_weight=0, field_weight=1, ridge=1e-12
    )
    slopes = torch.tensor([[1.0, -2.0], [0.5, 3.0], [0.0, 1.0]], dtype=torch.float64)
    features = random(N_POINTS, N_FEATURES)
    fields = features @ slopes + torch.tensor([0.7, -4.0])
    points = PointsData(features, 0.5 + random(N_POINTS).abs(), fields)
    one = StructureData([points], 0.0, None, N_ATOMS)
    model = fit_energy_model([one], GMP([1.0], 1), [GRID], settings)
    new = random(5, N_FEATURES, seed=9)
    expected = new @ slopes + torch.tensor([0.7, -4.0])
    torch.testing.assert_close(model.parts[0].outputs(new).detach(), expected, rtol=1e-6, atol=1e-6)
