"""Models of crystals: predictions, forces, stress, uncertainty, saving."""

import json
from dataclasses import replace

import crystals
import numpy as np
import pytest
import torch
from crystals import DESCRIPTOR, FUNCTIONAL, cell

from fedens import GMP, Concatenation, ResponseFields, TrainingSettings, train
from fedens.errors import ModelError
from fedens.models.crystal.model import Predictor
from fedens.models.crystal.training import left_out_calibration
from fedens.testing import central_difference

#: The handful of cells that these models are trained on leaves most others outside.
pytestmark = pytest.mark.filterwarnings("ignore::fedens.errors.ExtrapolationWarning")


@pytest.fixture(scope="module")
def samples():
    return crystals.samples()


@pytest.fixture(scope="module")
def descriptor():
    return DESCRIPTOR


@pytest.fixture(scope="module")
def predictor(training_seed):
    return crystals.trained(training_seed)


def test_density_holds_exactly_n_electrons(predictor):
    density = predictor.density(cell(9))
    assert float(density.number_of_electrons) == pytest.approx(12, abs=1e-10)


@pytest.fixture(scope="module")
def precise(samples, descriptor):
    """In double precision, so that only a difference quotient's own error is left."""
    settings = TrainingSettings(hidden=(8,), committee=2, steps=30, batch_points=500)
    predictor = train(samples[:2], descriptor, settings, device="cpu")
    for network in predictor.networks:
        network.double()
    return predictor


ROUTES_AND_STEPS = [("functional", 0), ("functional", 1), ("functional", 10), ("energy_density", 0)]


@pytest.mark.parametrize(("route", "steps"), ROUTES_AND_STEPS)
def test_forces_are_the_derivative_of_the_energy(precise, route, steps):
    structure = cell(5)
    forces = precise.forces(structure, route, refinement_steps=steps)
    for atom, axis in ((0, 0), (2, 1), (3, 2)):

        def energy(shift: float, atom=atom, axis=axis) -> float:
            positions = structure.positions.copy()
            positions[atom, axis] += shift
            moved = structure.replace(positions=positions)
            return precise.energy(moved, route, refinement_steps=steps)

        expected = -central_difference(energy, 4e-3)
        assert forces[atom, axis] == pytest.approx(expected, abs=1e-4 * forces.std())
    assert np.abs(forces).max() > 1e-3


@pytest.mark.parametrize(("route", "steps"), ROUTES_AND_STEPS)
def test_stress_is_the_derivative_of_the_energy(precise, route, steps):
    """Uniaxial strains along each axis, and all three together."""
    structure = cell(5)
    space = precise.space_for(structure)
    stress = precise.energy_and_forces(structure, route, space, steps, stress=True).stress
    for strain in (*np.eye(3), np.ones(3)):

        def energy(size: float, strain=strain) -> float:
            stretch = 1 + size * strain
            stretched = structure.replace(
                positions=structure.positions * stretch, cell=structure.cell * stretch
            )
            return precise.energy(stretched, route, space.scaled(torch.tensor(stretch)), steps)

        expected = central_difference(energy, 2e-3) / structure.volume
        assert stress @ strain == pytest.approx(expected, rel=1e-5, abs=1e-9)
    assert np.abs(stress).max() > 1e-5


def test_members_of_a_prediction_are_the_predictors_alone(precise):
    structure = cell(6)
    with torch.no_grad():
        members = precise.predict(structure).members()
        alone = [precise.member(i).predict(structure) for i in range(2)]
        for member, expected in zip(members, alone, strict=True):
            assert float(member.energy_of("energy_density")) == pytest.approx(
                float(expected.energy_of("energy_density")), abs=1e-9
            )
            torch.testing.assert_close(member.density.values, expected.density.values)
            assert member.density_uncertainty is None
    assert float((members[0].density.values - members[1].density.values).abs().max()) > 1e-7


def test_refinement_is_what_each_number_of_steps_gives_alone(precise):
    structure = cell(6)
    steps = (0, 1, 3)
    for count, numbers in zip(steps, precise.refinement(structure, steps), strict=True):
        expected = precise.energy_and_forces(structure, refinement_steps=count)
        assert numbers.energy == pytest.approx(expected.energy, abs=1e-9)
        np.testing.assert_allclose(numbers.forces, expected.forces, atol=1e-8)


def test_functional_uncertainty_is_close_to_the_error(samples, predictor, bounded):
    """Of a model with a single network, on a structure it has not seen."""
    held_out = samples[3]
    space = held_out.space()
    uncertainty = predictor.uncertainty(held_out.structure, "functional", space)
    numbers = predictor.energy_and_forces(held_out.structure, "functional", space)
    energy_error = numbers.energy - held_out.energy
    bounded("relative error of the energy's", abs(uncertainty.energy / energy_error - 1), 0.057)
    error = np.abs(numbers.forces - held_out.forces)
    correlation = np.corrcoef(uncertainty.forces.ravel(), error.ravel())[0, 1]
    bounded("1 - correlation of the forces'", 1 - correlation, 0.019)
    mean = uncertainty.forces.mean() / error.mean()
    bounded("relative error of the forces'", abs(mean - 1), 0.19)
    prediction = predictor.predict(held_out.structure, space)
    assert prediction.energy_uncertainty("functional") == pytest.approx(uncertainty.energy)
    assert prediction.energy_uncertainty("energy_density") is None
    assert prediction.force_uncertainty() is None
    with pytest.raises(ModelError, match="committee of 2 or more"):
        predictor.uncertainty(held_out.structure, "energy_density", space)


def test_committee_uncertainty_is_the_calibrated_spread_of_its_members(precise):
    structure = cell(6)
    members = [precise.member(i) for i in range(2)]
    for route in ("energy_density", "hellmann_feynman"):
        uncertainty = precise.uncertainty(structure, route)
        one, other = (member.forces(structure, route) for member in members)
        expected = precise.calibration * np.abs(one - other) / np.sqrt(2)
        np.testing.assert_allclose(uncertainty.forces, expected, atol=1e-8)
        assert expected.max() > 1e-5
    one, other = (member.energy(structure, "energy_density") for member in members)
    expected = precise.calibration * abs(one - other) / np.sqrt(2)
    prediction = precise.predict(structure)
    assert prediction.energy_uncertainty("energy_density") == pytest.approx(expected, rel=1e-5)
    assert precise.calibration != 1


def test_calibration_is_the_error_of_members_where_they_did_not_learn(samples, precise):
    """Over the committee's spread there; the root of the ratio of integrated squares."""
    error = spread = 0.0
    for index, sample in enumerate(samples[:2]):
        space, reference = sample.space(), torch.tensor(sample.fields["density"])
        with torch.no_grad():
            roots = precise.predict(sample.structure, space).roots
            alone = precise.member(index).predict(sample.structure, space).density
        error += float(space.integrate((alone.values - reference) ** 2))
        standard = (roots[0] - roots[1]).abs() / 2**0.5
        spread += float(space.integrate((2 * roots.mean(dim=0) * standard) ** 2))
    again = left_out_calibration(replace(precise, calibration=1.0), samples[:2])
    assert again == pytest.approx((error / spread) ** 0.5, rel=1e-9)
    assert again > 1.1
    one = precise.member(0)
    assert left_out_calibration(one, samples[:2]) == 1.0


def test_functional_forces_beat_hellmann_feynman(samples, predictor, bounded):
    held_out = samples[3]
    space = held_out.space()
    exact, feynman = (
        np.abs(predictor.forces(held_out.structure, route, space) - held_out.forces).mean()
        for route in ("functional", "hellmann_feynman")
    )
    bounded("mean error over Hellmann-Feynman's", exact / feynman, 0.07)


def test_unknown_route(predictor):
    with pytest.raises(ModelError, match="functional, energy_density, hellmann_feynman"):
        predictor.forces(cell(5), "magic")
    with pytest.raises(ModelError, match="energy_density"):
        predictor.energy(cell(5), "hellmann_feynman")


def test_saved_model_predicts_the_same(predictor, tmp_path):
    predictor.save(tmp_path / "model")
    loaded = Predictor.load(tmp_path / "model")
    assert loaded.energy(cell(5)) == predictor.energy(cell(5))
    assert loaded.history == predictor.history
    assert sorted(p.name for p in (tmp_path / "model").iterdir()) == [
        "model.json",
        "weights.safetensors",
    ]


@pytest.fixture
def folder(predictor, tmp_path):
    predictor.save(tmp_path)
    return tmp_path


def edit(folder, **changes):
    path = folder / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_missing_or_broken_models_are_refused(folder):
    with pytest.raises(ModelError, match=r"model\.json is missing"):
        Predictor.load(folder / "nowhere")
    weights = folder / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match="truncated"):
        Predictor.load(folder)
    weights.unlink()
    with pytest.raises(ModelError, match=r"weights\.safetensors is missing"):
        Predictor.load(folder)
    (folder / "model.json").write_text('{"schema_version": 1,')
    with pytest.raises(ModelError, match="not JSON"):
        Predictor.load(folder)


def test_newer_schema_is_refused(folder):
    edit(folder, schema_version=99)
    with pytest.raises(ModelError, match="newer fedens"):
        Predictor.load(folder)


def test_model_of_another_descriptor_is_refused(folder, descriptor):
    other = Concatenation([GMP([1.0], 2), ResponseFields(FUNCTIONAL)])
    edit(folder, descriptor=other.describe())
    with pytest.raises(ModelError, match=f"expect {descriptor.n_features} features"):
        Predictor.load(folder)


def test_weights_of_another_network_are_refused(folder):
    edit(folder, hidden=[7])
    with pytest.raises(ModelError, match=r"broken.*size mismatch"):
        Predictor.load(folder)
