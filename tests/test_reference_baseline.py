"""The ground state as a baseline: of a model that learns what its density lacks."""

import json
from dataclasses import replace

import pytest
import torch
from systems import GTHFIT, rattled

from fedens import GMP, EnergyFunctional, TensorSpace
from fedens.errors import FedensError
from fedens.models.base import Model
from fedens.models.crystal.objective import TrainingSettings
from fedens.models.crystal.training import train
from fedens.reference.baseline import GroundStateBaseline, any_baseline_from_description
from fedens.reference.orbital_free import solve_ground_state


@pytest.fixture(scope="module")
def baseline(functional):
    return GroundStateBaseline(functional, 1e-7)


@pytest.fixture(scope="module")
def functional():
    return EnergyFunctional.orbital_free("wt", pseudopotential=GTHFIT)


def test_is_the_ground_state(baseline, functional):
    space = TensorSpace.for_structure(rattled(), 0.7, 5)
    state = solve_ground_state(rattled(), space, functional)
    density = baseline.density(rattled(), space)
    assert baseline.number_of_electrons(rattled()) == pytest.approx(12)
    torch.testing.assert_close(density.values, state.density.values, rtol=0, atol=1e-6)
    moved = rattled().replace(positions=rattled().positions + 0.3)
    where = torch.tensor(moved.positions)
    given, own = baseline.density(rattled(), space, where), baseline.density(moved, space)
    torch.testing.assert_close(given.values, own.values)
    assert float((own.values - density.values).abs().max()) > 1e-3


def test_is_not_differentiated(baseline):
    positions = torch.tensor(rattled().positions, requires_grad=True)
    space = TensorSpace.for_structure(rattled(), 0.8, 4)
    with pytest.raises(FedensError, match="not differentiated"):
        baseline.density(rattled(), space, positions)


def test_is_stored(baseline):
    again = any_baseline_from_description(json.loads(json.dumps(baseline.describe())))
    assert isinstance(again, GroundStateBaseline)
    assert again.describe() == baseline.describe()


def test_a_model_adds_to_it(baseline, functional, tmp_path):
    """Densities of another functional, and the model that was stored says the same."""
    space = TensorSpace.for_structure(rattled(), 0.8, 4)
    truth = solve_ground_state(
        rattled(),
        space,
        EnergyFunctional.orbital_free("tfvw", pseudopotential=functional.pseudopotentials),
    )
    sample = truth.to_sample()
    sample = replace(sample, fields={"density": sample.fields["density"]})
    settings = TrainingSettings(hidden=(16,), committee=1, steps=150, learning_rate=1e-2)
    model = train([sample], GMP([0.7, 1.4, 2.0], 2), settings, functional, baseline)
    model.save(tmp_path)
    learned = Model.load(tmp_path).density(rattled(), space)

    def error(density):
        return float((density.values - truth.density.values).square().mean())

    assert error(learned) < 0.3 * error(baseline.density(rattled(), space))
    torch.testing.assert_close(learned.values, model.density(rattled(), space).values)
    with pytest.raises(FedensError, match="not differentiated"):
        model.energy_and_forces(rattled(), space=space)
