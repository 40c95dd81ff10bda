"""The loss of energy models and its linear start, in closed form on data made up for it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fedens.features.gmp import GMP
from fedens.features.points import PointSet
from fedens.learning.fit import generator
from fedens.learning.scaling import Standardise
from fedens.models.points.data import PointsData, StructureData
from fedens.models.points.model import PointModel, PointModels
from fedens.models.points.objective import EnergyObjective, EnergyTrainingSettings
from fedens.models.points.training import fit_energy_model
from fedens.structure import Structure

N_POINTS, N_FEATURES = 40, 3
GRID = PointSet("grid", spacing=1.0)
PAIR = Structure(["Al", "Al"], [[0.0, 0, 0], [0, 0, 5.0]])
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
        features_by_coordinate=random(N_POINTS * N_FEATURES, 3 * len(PAIR), seed=seed).float(),
        weights_by_coordinate=random(N_POINTS, 3 * len(PAIR), seed=seed),
    )
    return StructureData(PAIR, [points], 4.0 + seed, random(3 * len(PAIR), seed=seed))


def linear_model(n_outputs=2):
    """Outputs scale (W s + b) + mean of the scaled features s."""
    torch.manual_seed(1)
    scaling = Standardise(random(N_FEATURES, seed=3), 1 + random(N_FEATURES, seed=4).abs())
    part = PointModel(GRID, scaling, (), n_outputs)
    part.mean.copy_(random(n_outputs, seed=5))
    part.scale.copy_(1 + random(n_outputs, seed=6).abs())
    return part


def energies_and_slopes(part, features):
    """Energies (n_points,) and their derivatives (n_features,), written out."""
    weights, bias = part.network.linear.weight[0], part.network.linear.bias[0]
    scaled = (features - part.scaling.mean) / part.scaling.scale
    energies = part.mean[0] + part.scale[0] * (scaled @ weights + bias)
    return energies.detach(), (part.scale[0] * weights / part.scaling.scale).detach()


def test_totals_are_in_units_of_millihartree():
    """Energies per atom, and forces, which are minus the derivative of the energy."""
    one, part = replace(structure(), weight=0.6), linear_model()
    points = one.sets[0]
    energies, slopes = energies_and_slopes(part, points.features)
    moved = points.features_by_coordinate.double().reshape(N_POINTS, N_FEATURES, -1)
    forces = -0.8 * torch.einsum("f,pfx->x", slopes, moved)
    forces = forces - energies @ points.weights_by_coordinate
    of_energy = float((0.8 * energies.sum() - one.energy) / (len(PAIR) * 1e-3)) ** 2
    of_forces = float(((forces - one.forces) / 1e-3).pow(2).mean())
    assert min(of_energy, of_forces) > 1
    found = float(EnergyObjective([one], ALL).loss(PointModels([part]), (one, None)).detach())
    assert found == pytest.approx(0.6 * (0.3 * of_energy + 0.7 * of_forces), rel=1e-5)


def test_fields_are_in_units_of_their_spread():
    """Of all structures; each column in its own."""
    first, second = replace(structure(0), weight=0.6), structure(1)
    part, points = linear_model(), first.sets[0]
    spreads = torch.cat([first.sets[0].fields, second.sets[0].fields]).std(dim=0)
    assert spreads[1] > 5 * spreads[0]
    chosen = torch.tensor([3, 17, 20])
    wrong = (part(points.features[chosen]) - points.fields[chosen]) / spreads
    objective = EnergyObjective([first, second], replace(ALL, energy_weight=0, force_weight=0))
    found = objective.loss(PointModels([part]), (first, chosen))
    torch.testing.assert_close(found, 0.6 * 1.9 * (wrong**2).sum(dim=1).mean())


def test_squares_of_the_linear_start_are_the_loss():
    """For a linear model of energies; its least squares know nothing of densities."""
    one, part = replace(structure(), weight=0.6), linear_model()
    settings = replace(ALL, energy_weight=3e-7, force_weight=7e-7)  # all terms of one size
    objective = EnergyObjective([one], settings)
    weights, bias = part.network.linear.weight[0], part.network.linear.bias[0]
    solution = torch.cat([part.scale[0] * weights, (part.mean[0] + part.scale[0] * bias)[None]])
    squares = [
        float(((matrix @ solution - targets) ** 2).sum().detach())
        for matrix, targets in objective.rows(one, [part.scaling])
    ]
    assert min(squares) > 0.1
    points = one.sets[0]
    wrong = (part(points.features)[:, 0] - points.fields[:, 0]) / objective.field_units[0]
    totals = objective.loss(PointModels([part]), (one, None))
    expected = float((totals + 0.6 * 1.9 * (wrong**2).mean()).detach())
    assert sum(squares) == pytest.approx(expected, rel=1e-5)


def test_least_squares_start_is_the_best_linear_model():
    """No other weights have a smaller loss."""
    structures = [structure(seed) for seed in range(3)]
    settings = replace(ALL, field_weight=0.0)
    objective = EnergyObjective(structures, settings)
    scaling = Standardise.fit(one.sets[0].features for one in structures)
    network = PointModels([PointModel(GRID, scaling, (), 1)])
    objective.start(network)

    def loss():
        parts = [objective.loss(network, (one, None)) for one in structures]
        return float(torch.stack(parts).sum().detach())

    least = loss()
    for column, sign in np.ndindex(N_FEATURES, 2):
        with torch.no_grad():
            network.parts[0].network.linear.weight[0, column] += [1e-3, -2e-3][sign]
        assert loss() > least


def test_every_epoch_has_every_structure_in_its_own_order():
    """Whatever was drawn before."""
    structures = [structure(seed) for seed in range(5)]
    objective = EnergyObjective(structures, replace(ALL, batch_points=10, seed=3))
    batches = [objective.batch(step, generator(3, 0, step)) for step in range(15)]
    order = [structures.index(one) for one, _ in batches]
    epochs = [order[:5], order[5:10], order[10:]]
    assert all(sorted(epoch) == list(range(5)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    torch.rand(7)
    again, points = objective.batch(12, generator(3, 0, 12))
    assert again is batches[12][0]
    assert torch.equal(points, batches[12][1])
    assert len(set(points.tolist())) == 10
    assert not torch.equal(points, batches[11][1])


def test_linear_start_finds_linear_fields():
    """Energy densities in the first column, densities in the second."""
    settings = EnergyTrainingSettings(
        hidden=(), energy_weight=0, force_weight=0, field_weight=1, ridge=1e-12
    )
    slopes = torch.tensor([[1.0, -2.0], [0.5, 3.0], [0.0, 1.0]], dtype=torch.float64)
    features = random(N_POINTS, N_FEATURES)
    fields = features @ slopes + torch.tensor([0.7, -4.0])
    points = PointsData(features, 0.5 + random(N_POINTS).abs(), fields)
    one = StructureData(PAIR, [points], 0.0, None)
    model = fit_energy_model([one], GMP([1.0], 1), [GRID], settings)
    new = random(5, N_FEATURES, seed=9)
    expected = new @ slopes + torch.tensor([0.7, -4.0])
    torch.testing.assert_close(model.parts[0](new).detach(), expected, rtol=1e-6, atol=1e-6)
