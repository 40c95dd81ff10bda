"""Pointwise models: fitting, training, resuming, predicting, forces, saving."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from systems import GTHFIT, fcc

from fedens import (
    GMP,
    Concatenation,
    Density,
    EnergyFunctional,
    ResponseFields,
    Structure,
    TensorSpace,
    solve_ground_state,
)
from fedens.atoms.baseline import baseline_density
from fedens.errors import DatasetError, DeviceError, ModelError
from fedens.learning.least_squares import least_squares, with_constant
from fedens.learning.pointwise import PointwiseNetwork
from fedens.models.crystal.data import TrainingData
from fedens.models.crystal.losses import EnergyDensityLoss, RootDensityLoss, gauss_differentiation
from fedens.models.crystal.model import Predictor
from fedens.models.crystal.training import (
    TrainingSettings,
    resolve_device,
    train,
)
from fedens.testing import central_difference

#: The handful of cells that these models are trained on leaves most others outside.
pytestmark = pytest.mark.filterwarnings("ignore::fedens.errors.ExtrapolationWarning")

FUNCTIONAL = EnergyFunctional.orbital_free("wt", pseudopotential=GTHFIT)
SETTINGS = TrainingSettings(
    hidden=(32, 32), committee=1, steps=400, batch_points=2000, learning_rate=5e-3
)


def cell(seed: int, edge: float = 7.65) -> Structure:
    """Four displaced atoms; the first ones lie beyond the cell's boundary."""
    shifts = np.random.default_rng(seed).normal(0, 0.12, (4, 3))
    return Structure(["Al"] * 4, fcc(edge).positions + shifts, cell=[edge] * 3, pbc=True)


def label(structure: Structure):
    space = TensorSpace.for_structure(structure, spacing=0.55, order=5)
    return solve_ground_state(structure, space, FUNCTIONAL).to_sample()


@pytest.fixture(scope="module")
def samples():
    return [label(cell(seed, 7.6 + 0.03 * seed)) for seed in range(4)]


@pytest.fixture(scope="module")
def descriptor():
    return Concatenation([GMP([1.0, 2.0], 2, form="smooth"), ResponseFields(FUNCTIONAL)])


@pytest.fixture(scope="module")
def settings(training_seed):
    return replace(SETTINGS, seed=training_seed)


@pytest.fixture(scope="module")
def predictor(samples, descriptor, settings):
    return train(samples[:3], descriptor, settings, device="cpu")


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


@pytest.mark.parametrize("order", [1, 4, 8])
def test_differentiation_is_exact_for_polynomials(order):
    points = (np.polynomial.legendre.leggauss(order + 1)[0] + 1) / 2
    polynomial = np.polynomial.Polynomial(np.arange(1.0, order + 2))
    slopes = gauss_differentiation(order) @ polynomial(points)
    np.testing.assert_allclose(slopes, polynomial.deriv()(points), rtol=1e-9)


def test_loss_is_error_and_gradient_of_error(samples, descriptor):
    """For an error that is one of the space's plane waves the loss is known in closed form."""
    data = TrainingData.from_samples(samples[:1], descriptor, FUNCTIONAL, "linear_response")
    space = samples[0].space()
    wave = 2 * np.pi / space.lengths[1]
    error = space.element_blocks(torch.sin(wave * space.points[:, 1])).float()
    loss = RootDensityLoss(data.order, 0.7)(error[..., None], data.weights, data.lengths)
    assert float(loss) == pytest.approx(0.5 + 0.7 * 0.5 * wave**2, rel=1e-3)


def test_loss_of_integrals_counts_what_does_not_cancel(samples, descriptor):
    data = TrainingData.from_samples(samples[:1], descriptor, FUNCTIONAL, "linear_response")
    constant = torch.zeros(*data.weights.shape, 3)
    constant[..., 0] = 1.0
    data = data.with_targets(torch.randn(*constant.shape, dtype=torch.float64))
    loss_of = EnergyDensityLoss(data.target_scales, 1e4)
    cancelling = constant.clone()
    cancelling[..., 1] = -loss_of.scales[0] / loss_of.scales[1]
    assert loss_of(constant, data.weights, data.lengths) > 1e3
    assert loss_of(cancelling, data.weights, data.lengths) < 100


def nmape(density: Density, sample) -> float:
    """Integral of the density's error over the number of electrons, percent."""
    reference = torch.tensor(sample.fields["density"])
    error = density.space.integrate((density.values - reference).abs())
    return 100 * float(error / density.space.integrate(reference))


def test_training_beats_ridge_and_baseline(samples, descriptor, predictor, bounded):
    """Ridge regression on what both have learned, the baseline on what is new."""
    linear = TrainingSettings(hidden=(), committee=1, steps=1)
    ridge = train(samples[:3], descriptor, linear, device="cpu")
    for sample in samples[:3]:
        one, other = (
            nmape(p.density(sample.structure, sample.space()), sample) for p in (predictor, ridge)
        )
        bounded("NMAPE of learned samples over ridge's", one / other, 1)
    held_out = samples[3]
    space = held_out.space()
    bound = FUNCTIONAL.bind(held_out.structure, space)
    baseline = baseline_density(predictor.baseline, held_out.structure, bound)
    error = nmape(predictor.density(held_out.structure, space), held_out)
    bounded("NMAPE over the baseline's", error / nmape(baseline, held_out), 0.22)
    bounded("NMAPE (%)", error, 0.061)
    energy = predictor.energy(held_out.structure, space=space)
    bounded("energy (hartree/atom)", abs(energy - held_out.energy) / 4, 2.3e-6)


def test_training_is_reproducible(samples, descriptor):
    settings = TrainingSettings(hidden=(8,), committee=1, steps=10, batch_points=500)
    first, second = (train(samples[:1], descriptor, settings, device="cpu") for _ in range(2))
    for a, b in zip(
        first.networks[0].state_dict().values(),
        second.networks[0].state_dict().values(),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_interrupted_training_goes_on_where_it_stopped(samples, descriptor, tmp_path):
    settings = TrainingSettings(
        hidden=(8,), committee=1, steps=100, batch_points=500, checkpoint_every=25
    )

    def interrupt(state):
        if state.loss is not None and state.done == 50:
            raise KeyboardInterrupt

    whole = train(samples[:1], descriptor, settings, device="cpu")
    with pytest.raises(KeyboardInterrupt):
        train(samples[:1], descriptor, settings, checkpoint=tmp_path, report=interrupt)
    record = json.loads((tmp_path / "root-density-0" / "checkpoint.json").read_text())
    assert record["step"] == 25
    resumed = train(samples[:1], descriptor, settings, device="cpu", checkpoint=tmp_path)
    assert resumed.history["step"] == whole.history["step"]
    for a, b in zip(
        whole.networks[0].state_dict().values(),
        resumed.networks[0].state_dict().values(),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_checkpoint_of_other_settings_is_not_used(samples, descriptor, tmp_path):
    short = TrainingSettings(hidden=(8,), committee=1, steps=3, batch_points=500)
    train(samples[:1], descriptor, short, device="cpu", checkpoint=tmp_path)
    other = TrainingSettings(hidden=(8,), committee=1, steps=2, batch_points=500)
    fresh = train(samples[:1], descriptor, other, device="cpu", checkpoint=tmp_path)
    assert fresh.history["step"] == [2]


def test_checkpoint_of_other_samples_is_not_used(samples, descriptor, tmp_path):
    settings = TrainingSettings(hidden=(8,), committee=1, steps=20, batch_points=500)
    train(samples[:1], descriptor, settings, device="cpu", checkpoint=tmp_path)
    other = train(samples[1:2], descriptor, settings, device="cpu", checkpoint=tmp_path)
    expected = train(samples[1:2], descriptor, settings, device="cpu")
    assert other.history["training_loss"] == expected.history["training_loss"]


CONTINUED = replace(SETTINGS, steps=200)
#: Leaves much to be learned by what comes after.
BRIEF = replace(SETTINGS, steps=20)


def test_continued_training_starts_from_what_is_known(samples, descriptor, predictor):
    """A step of almost no length leaves the predictor as it is, whatever the new data."""
    still = replace(CONTINUED, steps=1, learning_rate=1e-12)
    same = train(samples, descriptor, still, device="cpu", start_from=predictor)
    for route in ("functional", "energy_density"):
        expected = predictor.energy(cell(9), route)
        assert same.energy(cell(9), route) == pytest.approx(expected, abs=1e-6)
    fresh = train(samples, descriptor, still, device="cpu")
    assert abs(fresh.energy(cell(9)) - predictor.energy(cell(9))) > 1e-7
    assert same.scaling is predictor.scaling
    assert same.provenance["n_samples"] == 4
    assert float((same.domain.highest - predictor.domain.highest).min()) >= 0


def test_continued_training_learns_and_leaves_the_first_model_alone(
    samples, descriptor, training_seed, bounded
):
    brief, longer = (replace(one, seed=training_seed) for one in (BRIEF, CONTINUED))
    first = train(samples[:1], descriptor, brief, device="cpu")
    before = {k: v.clone() for k, v in first.networks[0].state_dict().items()}
    continued = train(samples, descriptor, longer, device="cpu", start_from=first)
    errors = np.array(
        [
            [p.energy(s.structure, space=s.space()) - s.energy for s in samples]
            for p in (first, continued)
        ]
    )
    assert (errors > 0).all()
    bounded("energy errors of new samples, after over before", (errors[1] / errors[0])[1:].max(), 1)
    for name, tensor in first.networks[0].state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)
    assert continued.history["step"] == [20, 70, 120, 170, 220]
    assert len(continued.history["validation_loss"]) == len(continued.history["step"])


def test_interrupted_continued_training_goes_on_where_it_stopped(
    samples, descriptor, predictor, tmp_path
):
    settings = replace(CONTINUED, steps=100, checkpoint_every=25)
    arguments = {"device": "cpu", "start_from": predictor}

    def interrupt(state):
        if state.loss is not None and state.done == 50:
            raise KeyboardInterrupt

    whole = train(samples, descriptor, settings, **arguments)
    with pytest.raises(KeyboardInterrupt):
        train(samples, descriptor, settings, checkpoint=tmp_path, report=interrupt, **arguments)
    resumed = train(samples, descriptor, settings, checkpoint=tmp_path, **arguments)
    for a, b in zip(
        whole.networks[0].state_dict().values(),
        resumed.networks[0].state_dict().values(),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_start_from_another_kind_of_predictor_is_refused(samples, descriptor, predictor):
    for other, message in (
        (replace(CONTINUED, hidden=(8,)), r"hidden units is \[32, 32\], asked for is \[8\]"),
        (replace(CONTINUED, committee=2), "committee is 1, asked for is 2"),
    ):
        with pytest.raises(ModelError, match=message):
            train(samples, descriptor, other, start_from=predictor)
    with pytest.raises(ModelError, match="descriptor is"):
        train(samples, GMP([1.0], 1), CONTINUED, start_from=predictor)


def test_time_limit_ends_training(samples, descriptor):
    settings = TrainingSettings(
        hidden=(8,), committee=1, steps=10**6, max_seconds=0.3, batch_points=500
    )
    predictor = train(samples[:1], descriptor, settings, device="cpu")
    assert len(predictor.history["step"]) < 10**4


def test_committee_gives_a_spread(samples, descriptor):
    settings = TrainingSettings(hidden=(8,), steps=20, batch_points=500, committee=2)
    predictor = train(samples[:1], descriptor, settings, device="cpu")
    spread = predictor.predict(samples[1].structure).spread
    assert spread is not None
    assert float(spread.detach().max()) > 0
    assert predictor.predict(samples[1].structure).raw_root.shape == spread.shape


def test_prediction_is_as_coarse_as_the_coarsest_training_space(samples, predictor):
    spacings = [sample.space().spacing for sample in samples[:3]]
    assert predictor.spacing == pytest.approx(max(spacings))
    for sample in samples:
        assert predictor.space_for(sample.structure).n_points == len(sample.weights)


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
            assert float(member.energy("energy_density")) == pytest.approx(
                float(expected.energy("energy_density")), abs=1e-9
            )
            torch.testing.assert_close(member.density.values, expected.density.values)
            assert member.spread is None
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
    with pytest.raises(ModelError, match="does not fit"):
        Predictor.load(folder)


def test_samples_must_fit_together(samples, descriptor):
    foreign = replace(samples[1], provenance={**samples[1].provenance, "functional": {}})
    with pytest.raises(ModelError, match="different functionals"):
        train([samples[0], foreign], descriptor)
    placeless = replace(samples[0], provenance={"functional": FUNCTIONAL.describe()})
    with pytest.raises(DatasetError, match="which space"):
        train([placeless], descriptor)
    fields = {"density": samples[0].fields["density"]}
    with pytest.raises(ModelError, match="no field 'kinetic'"):
        train([samples[1], replace(samples[0], fields=fields)], descriptor)
    with pytest.raises(ModelError, match="no samples"):
        train([], descriptor)


def test_devices():
    assert resolve_device("cpu").type == "cpu"
    with pytest.raises(DeviceError, match="auto"):
        resolve_device("tpu")
    if not torch.cuda.is_available():
        assert resolve_device("auto").type == "cpu"
        with pytest.raises(DeviceError, match="no GPU"):
            resolve_device("cuda")
