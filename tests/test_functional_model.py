"""Models that minimise their own functional: self-consistent numbers, error bars, storage."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from systems import GTHFIT, fcc, rattled

from fedens import (
    GMP,
    EnergyFunctional,
    EnergyTrainingSettings,
    FunctionalModel,
    LearnedKinetic,
    PointSet,
    TensorSpace,
    solve_ground_state,
    train_energy_model,
)
from fedens.energy.density_variables import DensityVariables
from fedens.energy.learned_kinetic import Polynomial
from fedens.testing import check_model

#: The cells here are not those of any training.
pytestmark = pytest.mark.filterwarnings("ignore::fedens.errors.ExtrapolationWarning")

SPACING, ORDER = 0.64, 6
N0 = 12 / 7.65**3
BASE = EnergyFunctional.orbital_free("wt", pseudopotential=GTHFIT, mean_density=N0)
VARIABLES = DensityVariables((0.65,), (1.3, 0.75))


def learned_term(size=0.02, seed=0):
    blank = Polynomial(VARIABLES, 2)
    random = np.random.default_rng(seed)
    return LearnedKinetic(blank.with_parameters(random.normal(0, size, len(blank.parameters))), N0)


def random_covariance(n, size=0.01, seed=1):
    factor = torch.tensor(np.random.default_rng(seed).normal(0, size / n**0.5, (n, n)))
    return factor @ factor.T


@pytest.fixture(scope="module")
def model():
    term = learned_term()
    functional = EnergyFunctional([*BASE.terms, term])
    covariance = random_covariance(len(term.correction.parameters))
    return FunctionalModel(functional, SPACING, ORDER, 1e-7, covariance)


@pytest.fixture(scope="module")
def correction():
    cells = [fcc(7.5).replace(positions=fcc(7.5).positions + shift) for shift in SHIFTS]
    spaces = [TensorSpace.for_structure(s, 0.7, 5) for s in cells]
    samples = [
        solve_ground_state(s, x, BASE).to_sample() for s, x in zip(cells, spaces, strict=True)
    ]
    settings = EnergyTrainingSettings(hidden=(8,), steps=10)
    return train_energy_model(samples, GMP([1.0, 2.0], 2), [PointSet("atoms")], settings)


SHIFTS = np.random.default_rng(0).normal(0, 0.1, (2, 4, 3))


def test_keeps_the_contract(model, tmp_path):
    check_model(model, rattled(), tmp_path, tolerance=2e-5)


def test_keeps_the_contract_with_a_correction(model, correction, tmp_path):
    check_model(replace(model, correction=correction), rattled(), tmp_path, tolerance=2e-5)


def test_a_correction_alone_is_delta_on_wang_teter(correction, tmp_path):
    delta = FunctionalModel(BASE, SPACING, ORDER, correction=correction)
    check_model(delta, rattled(), tmp_path, tolerance=2e-5)
    numbers, plain = delta.energy_and_forces(rattled()), replace(delta, correction=None)
    added = correction.energy_and_forces(rattled())
    below = plain.energy_and_forces(rattled())
    assert numbers.energy == below.energy + added.energy
    np.testing.assert_array_equal(numbers.forces, below.forces + added.forces)
    feynman = delta.calculate(rattled(), ["hellmann_feynman_forces"])["hellmann_feynman_forces"]
    np.testing.assert_array_equal(feynman, below.forces)


def strained(structure, axis, amount):
    factors = np.ones(3)
    factors[axis] += amount
    return structure.replace(
        positions=structure.positions * factors, cell=structure.cell * factors[:, None]
    )


@pytest.mark.parametrize("corrected", [False, True])
def test_stress_is_the_derivative_of_the_energy(model, correction, corrected):
    model = replace(model, correction=correction if corrected else None)
    structure, step = rattled(), 3e-4
    stress = model.calculate(structure, ["stress"])["stress"]
    for axis in range(3):
        high, low = (model.energy(strained(structure, axis, s)) for s in (step, -step))
        slope = (high - low) / (2 * step * structure.volume)
        assert slope == pytest.approx(stress[axis], rel=1e-4, abs=1e-8)
