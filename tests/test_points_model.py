"""Energies as sums over reference points: exact forces, labels recovered, storage, errors."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from systems import GTHFIT

from fedens.data.sample import Sample
from fedens.energy.functional import EnergyFunctional
from fedens.errors import DescriptorError, ExtrapolationWarning, ModelError
from fedens.features.gmp import GMP
from fedens.features.points import PointSet
from fedens.fem.tensor import TensorSpace
from fedens.learning.domain import TrainingDomain
from fedens.learning.scaling import Standardise
from fedens.models.base import Model
from fedens.models.points import training as points_training
from fedens.models.points.data import jacobian, prepare_structure
from fedens.models.points.model import EnergyModel, PointModel, PointModels
from fedens.models.points.objective import EnergyTrainingSettings, energy_and_forces_from
from fedens.models.points.training import train_energy_model
from fedens.structure import Structure

DESCRIPTOR = GMP([1.0, 2.0], 2, form="smooth")
ATOMS = PointSet("atoms")
BONDS = PointSet("bonds", cutoff=6.5)
GRID = PointSet("grid", spacing=2.2)
QUADRATURE = PointSet("quadrature", spacing=2.0, order=2)
NODES = PointSet("nodes", spacing=1.3, order=2)
SETS = {
    "atoms": [ATOMS],
    "bonds": [BONDS],
    "union": [ATOMS, BONDS],
    "grid": [GRID],
    "quadrature": [QUADRATURE],
    "nodes": [NODES],
}
FUNCTIONAL = EnergyFunctional.orbital_free(pseudopotential=GTHFIT)


def cell(seed):
    """Four aluminium atoms, displaced, one of them near a face of the cell."""
    sites = np.array([[0.0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]) * 7.65
    moved = sites + np.random.default_rng(seed).normal(0, 0.2, (4, 3))
    return Structure(["Al"] * 4, moved, cell=[7.65] * 3, pbc=True)


def teacher(sets, hidden=()):
    """A model with random weights and features of random scales."""
    torch.manual_seed(3)
    n = DESCRIPTOR.n_features
    scaling = Standardise(torch.rand(n).double() * 0.01, torch.rand(n).double() * 0.02 + 0.01)
    parts = [PointModel(points, scaling, hidden, 1) for points in sets]
    for part in parts:
        part.mean.fill_(0.01)
        part.scale.fill_(0.3)
    everywhere = torch.full((n,), torch.inf).double()
    domain = TrainingDomain(-everywhere, everywhere, ("Al",), None)
    return EnergyModel(DESCRIPTOR, parts, None, domain)


def labelled(model, structure):
    found = model.energy_and_forces(structure)
    return Sample(structure, np.zeros((0, 3)), np.zeros(0), {}, found.energy, forces=found.forces)


@pytest.mark.parametrize("sets", SETS.values(), ids=SETS)
@pytest.mark.parametrize("ions", [None, FUNCTIONAL], ids=["", "ions"])
def test_forces_are_the_derivative_of_the_energy(sets, ions):
    plain = teacher(sets, (8,))
    model, structure = replace(plain, functional=ions), cell(0)
    forces = model.forces(structure)
    direction = np.random.default_rng(1).normal(size=(4, 3))

    def energy_at(step):
        moved = structure.replace(positions=structure.positions + step * direction)
        return model.energy(moved)

    expected = -(8 * (energy_at(1e-3) - energy_at(-1e-3)) - energy_at(2e-3) + energy_at(-2e-3))
    assert (forces * direction).sum() == pytest.approx(expected / 12e-3, rel=1e-6, abs=1e-8)
    assert np.abs(forces).max() > 1e-4


def test_points_that_move_with_the_atoms_leave_no_net_force():
    for name in ("atoms", "union"):
        forces = teacher(SETS[name], (8,)).forces(cell(0))
        assert np.abs(forces.sum(axis=0)).max() < 1e-10
    forces = teacher(SETS["grid"], (8,)).forces(cell(0))
    assert np.abs(forces.sum(axis=0)).max() > 1e-6


def test_jacobian():
    x = torch.tensor([0.3, -1.2, 2.0], dtype=torch.float64, requires_grad=True)
    matrix = jacobian(torch.stack([x.prod(), x.sum() ** 2, x[0].exp() * x[2], x[1]]), x)
    expected = torch.autograd.functional.jacobian(
        lambda x: torch.stack([x.prod(), x.sum() ** 2, x[0].exp() * x[2], x[1]]), x.detach()
    )
    assert torch.allclose(matrix, expected, rtol=1e-12)


@pytest.mark.parametrize("sets", SETS.values(), ids=SETS)
def test_stored_derivatives_give_the_model_s_forces(sets):
    model, structure = teacher(sets, (8,)), cell(2)
    expected = model.energy_and_forces(structure)
    data = prepare_structure(labelled(model, structure), DESCRIPTOR, sets)
    energy, forces = energy_and_forces_from(PointModels(model.parts), data)
    assert float(energy.detach()) == pytest.approx(expected.energy, rel=1e-12)
    largest = np.abs(expected.forces).max()
    assert forces.detach().numpy() == pytest.approx(expected.forces.ravel(), abs=2e-6 * largest)


@pytest.mark.parametrize("name", ["atoms", "union", "quadrature"])
def test_a_linear_model_is_recovered(name):
    """Energies and forces of a linear model determine one that predicts the same."""
    truth = teacher(SETS[name])
    samples = [labelled(truth, cell(seed)) for seed in range(6)]
    settings = EnergyTrainingSettings(hidden=(), ridge=1e-13)
    learned = train_energy_model(samples, DESCRIPTOR, SETS[name], settings)
    expected, found = truth.energy_and_forces(cell(10)), learned.energy_and_forces(cell(10))
    assert found.energy == pytest.approx(expected.energy, abs=1e-5)
    assert found.forces == pytest.approx(expected.forces, abs=2e-3 * np.abs(expected.forces).max())


@pytest.mark.slow
def test_training_lowers_the_loss_of_the_linear_start(training_seed, bounded):
    truth = teacher([ATOMS], (8,))
    for part in truth.parts:  # a strongly bent function, which no linear model follows
        with torch.no_grad():
            part.network.perceptron[-1].weight *= 10
    samples = [labelled(truth, cell(seed)) for seed in range(6)]

    def error(**changes):
        settings = EnergyTrainingSettings(
            steps=1000, learning_rate=3e-3, seed=training_seed, **changes
        )
        model = train_energy_model(samples, DESCRIPTOR, [ATOMS], settings)
        pairs = [(model.forces(cell(s)), truth.forces(cell(s))) for s in range(6)]
        return np.mean([np.abs(a - b).mean() for a, b in pairs])

    bounded("force error over a linear model's", error(hidden=(16,)) / error(hidden=()), 0.65)


def fields_sample(seed):
    """A smooth density made of Gaussians on the atoms, and an energy density from it."""
    structure = cell(seed)
    space = TensorSpace.for_structure(structure, spacing=0.8, order=5)
    density = DESCRIPTOR(space, structure)[:, 1]
    energy_density = -0.3 * density + 2 * density**2
    nothing = np.zeros(space.n_points)
    fields = {"density": density.numpy(), "kinetic": energy_density.numpy()}
    fields |= {"xc": nothing, "electrostatic": nothing}
    energy = float(space.integrate(energy_density))
    return Sample(
        structure,
        space.points.numpy(),
        space.weights.numpy(),
        fields,
        energy,
        provenance={"space": space.describe()},
    )


@pytest.mark.parametrize(
    "points", [PointSet("grid", spacing=1.3), PointSet("quadrature", spacing=1.0, order=4)]
)
def test_fields_alone_give_the_energy(points, training_seed, bounded):
    settings = EnergyTrainingSettings(
        energy_weight=0,
        force_weight=0,
        field_weight=1,
        hidden=(16,),
        steps=800,
        learning_rate=1e-2,
        seed=training_seed,
    )
    samples = [fields_sample(seed) for seed in range(3)]
    model = train_energy_model(samples, DESCRIPTOR, [points], settings)
    new = fields_sample(7)
    prediction = model.predict(new.structure)
    assert prediction.energy == model.energy(new.structure)
    bounded("relative error of the energy", abs(prediction.energy / new.energy - 1), 3.4e-4)
    fields = prediction.fields
    energy_density = float(fields["weights"] @ fields["energy_density"])
    assert energy_density == pytest.approx(prediction.energy, rel=1e-12)
    electrons = float(fields["weights"] @ fields["density"])
    bounded("of the electrons", abs(electrons / new.number_of_electrons - 1), 3.6e-4)
    where = new.space()
    values = where.interpolate_at(
        where.project(torch.tensor(new.fields["density"])), fields["points"]
    )
    # it learned the density smoothed over the distance of the points
    error = fields["weights"] @ (fields["density"] - values).abs()
    bounded("of the density", float(error) / new.number_of_electrons, 0.057)


@pytest.mark.parametrize("sets", [[GRID], [QUADRATURE], [NODES]], ids=lambda s: s[0].kind)
def test_coarse_points_integrate_the_fields_they_are_taught(sets):
    sample = fields_sample(0)
    sharp = sample.space()
    spike = torch.exp(-8 * ((sharp.points - 3.1) ** 2).sum(dim=1))  # far too sharp for the points
    sample.fields["kinetic"] = spike.numpy()
    points = prepare_structure(sample, DESCRIPTOR, sets, with_forces=False, with_fields=True).sets[
        0
    ]
    exact = sharp.integrate(torch.stack([spike, torch.tensor(sample.fields["density"])]))
    assert torch.allclose(points.weights @ points.fields, exact, rtol=2e-3)


def test_a_model_is_stored_and_read(tmp_path):
    """By any model's load; linear, and with domain and history, as a training makes it."""
    model = teacher(SETS["union"], (8, 4))
    model = replace(model, functional=FUNCTIONAL, provenance={"n_samples": 3})
    model.save(tmp_path / "model")
    again = Model.load(tmp_path / "model")
    assert isinstance(again, EnergyModel)
    before, after = (one.energy_and_forces(cell(0)) for one in (model, again))
    assert after.energy == before.energy
    np.testing.assert_array_equal(after.forces, before.forces)
    assert again.provenance == {"n_samples": 3}
    assert again.summary == model.summary
    assert again.summary["sums over"] == "atoms, bonds"
    assert [part.points for part in again.parts] == [ATOMS, BONDS]


def test_a_trained_model_is_stored_and_read(tmp_path):
    truth = teacher([ATOMS], (8,))
    settings = EnergyTrainingSettings(hidden=(4,), steps=40)
    model = train_energy_model([labelled(truth, cell(0))], DESCRIPTOR, [ATOMS], settings)
    model.save(tmp_path)
    again = Model.load(tmp_path)
    assert again.energy(cell(0)) == model.energy(cell(0))
    assert again.domain.elements == ("Al",)
    assert torch.equal(again.domain.lowest, model.domain.lowest)
    assert again.history["step"] == [20, 40]
    assert again.provenance["steps"] == 40


@pytest.mark.parametrize("key", ["sets", "hidden", "descriptor", "domain"])
def test_a_broken_folder_is_refused(tmp_path, key):
    teacher([ATOMS]).save(tmp_path)
    path = tmp_path / "model.json"
    description = json.loads(path.read_text())
    del description[key]
    path.write_text(json.dumps(description))
    with pytest.raises(ModelError, match="broken"):
        Model.load(tmp_path)


def test_structures_outside_the_training_are_noticed():
    truth = teacher([ATOMS, BONDS])
    samples = [labelled(truth, cell(seed)) for seed in range(4)]
    settings = EnergyTrainingSettings(hidden=())
    model = train_energy_model(samples, DESCRIPTOR, [ATOMS, BONDS], settings)
    model.energy(cell(0))  # no warning: it is an error in these tests
    squeezed = Structure(["Al"] * 4, cell(0).positions * 0.8, cell=[7.65 * 0.8] * 3, pbc=True)
    for ask in (model.predict, model.energy, model.forces):
        with pytest.warns(ExtrapolationWarning, match="atoms per bohr.*features of their own"):
            ask(squeezed)


def test_predictions_that_are_not_finite_are_refused():
    model = teacher([ATOMS])
    model.parts[0].mean.fill_(torch.nan)
    for ask in (model.predict, model.energy_and_forces):
        with pytest.raises(ModelError, match="far outside the training's range"):
            ask(cell(0))


def test_positions_may_be_given():
    model, moved = teacher([ATOMS], (8,)), cell(4)
    prediction = model.predict(cell(3), positions=torch.tensor(moved.positions))
    assert prediction.energy == model.energy(moved)
    assert prediction.energy != model.energy(cell(3))
    assert prediction.fields == {}


class CutOffError(Exception):
    """A training that ends before its time."""


@pytest.mark.parametrize("step", [1, 7, 12])
def test_a_training_that_is_cut_off_goes_on(tmp_path, monkeypatch, step):
    """To the same bits, whatever torch has drawn before."""
    monkeypatch.setattr(points_training, "_CHECKPOINT_EVERY", 3)
    monkeypatch.setattr(points_training, "_RECORD_EVERY", 1)
    samples = [fields_sample(seed) for seed in range(3)]
    settings = EnergyTrainingSettings(
        hidden=(4,), force_weight=0, field_weight=1, steps=12, batch_points=30
    )

    def train(report=lambda _: None, **options):
        return train_energy_model(samples, DESCRIPTOR, [GRID], settings, report=report, **options)

    def report(state):
        if state.loss is not None and state.done == step:
            raise CutOffError

    whole = train()
    with pytest.raises(CutOffError):
        train(report, checkpoints=tmp_path)
    done = []
    model = train(lambda state: done.append(state), checkpoints=tmp_path)
    assert [s.done for s in done if s.loss is not None] == list(range(1 + (step - 1) // 3 * 3, 13))
    for name, tensor in model.tensors().items():
        assert torch.equal(tensor, whole.tensors()[name])
    np.testing.assert_equal(model.history, whole.history)
    done.clear()
    train(lambda state: done.append(state), checkpoints=tmp_path)
    assert all(state.loss is None for state in done)


def test_training_that_diverges_is_stopped():
    sample = labelled(teacher([ATOMS], (8,)), cell(0))
    settings = EnergyTrainingSettings(hidden=(4,), learning_rate=1e200, steps=50)
    with pytest.raises(ModelError, match=r"diverged at step \d+: .*lower the learning rate"):
        train_energy_model([sample], DESCRIPTOR, [ATOMS], settings)


def test_labels_that_are_missing():
    sample = labelled(teacher([ATOMS]), cell(0))
    bare = Sample(sample.structure, sample.points, sample.weights, {}, sample.energy)
    with pytest.raises(ModelError, match="no forces"):
        train_energy_model([bare], DESCRIPTOR, [ATOMS])
    fields = EnergyTrainingSettings(force_weight=0, field_weight=1)
    with pytest.raises(ModelError, match="fill no volume"):
        train_energy_model([sample], DESCRIPTOR, [ATOMS], fields)
    empty = fields_sample(0)
    del empty.fields["density"]
    with pytest.raises(ModelError, match="no field 'density'"):
        train_energy_model([empty], DESCRIPTOR, [GRID], fields)
    with pytest.raises(ModelError, match="no samples"):
        train_energy_model([], DESCRIPTOR, [ATOMS])
    nothing = EnergyTrainingSettings(energy_weight=0, force_weight=0)
    with pytest.raises(ModelError, match="all weights"):
        train_energy_model([sample], DESCRIPTOR, [ATOMS], nothing)


def test_too_many_derivatives(monkeypatch):
    monkeypatch.setattr("fedens.models.points.data.MAX_BYTES", 1000)
    with pytest.raises(ModelError, match="fewer points"):
        prepare_structure(labelled(teacher([ATOMS]), cell(0)), DESCRIPTOR, [GRID])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "stars"}, "expected one of"),
        ({"kind": "bonds"}, "cutoff"),
        ({"kind": "grid"}, "spacing"),
        ({"kind": "nodes", "spacing": 1.0}, "order"),
    ],
)
def test_point_sets_are_checked(arguments, message):
    with pytest.raises(DescriptorError, match=message):
        PointSet(**arguments)


def strained(structure, axis, amount):
    factors = np.ones(3)
    factors[axis] += amount
    return structure.replace(
        positions=structure.positions * factors, cell=structure.cell * factors[:, None]
    )


@pytest.mark.parametrize("name", ["atoms", "union", "grid"])
def test_stress_is_the_derivative_of_the_energy(name):
    """Also that from stored features, and beside a closed energy of ions."""
    plain, structure = teacher(SETS[name], (8,)), strained(cell(2), 2, 0.07)
    model, step = replace(plain, functional=FUNCTIONAL), 1e-4
    stress = model.calculate(structure, ["stress"])["stress"]
    for axis in range(3):
        high, low = (model.energy(strained(structure, axis, s)) for s in (step, -step))
        slope = (high - low) / (2 * step * structure.volume)
        assert slope == pytest.approx(stress[axis], rel=1e-5, abs=1e-10)
    found = model.energy_and_forces(structure, stress=True)
    sample = replace(labelled(model, structure), stress=found.stress)
    data = prepare_structure(sample, DESCRIPTOR, SETS[name], FUNCTIONAL, with_stress=True)
    _, forces = energy_and_forces_from(PointModels(plain.parts), data)
    assert forces.shape == (3 * len(structure) + 3,)
    largest = float(data.forces.abs().max())
    assert float((forces - data.forces).detach().abs().max()) < 1e-5 * largest


def test_stress_on_a_mesh_or_of_a_molecule_is_refused():
    molecule = Structure(["Al", "Al"], [[0.0, 0, 0], [0, 0, 5.0]])
    for model, structure in ((teacher([QUADRATURE]), cell(0)), (teacher([ATOMS]), molecule)):
        with pytest.raises(ModelError, match="periodic cells and points without a mesh"):
            model.energy_and_forces(structure, stress=True)
    assert "stress" not in teacher([QUADRATURE]).properties("")
    sample = labelled(teacher([ATOMS]), cell(0))
    with pytest.raises(ModelError, match="made anew for every cell"):
        prepare_structure(sample, DESCRIPTOR, [QUADRATURE], with_stress=True)
    with pytest.raises(ModelError, match="no stress to learn"):
        prepare_structure(sample, DESCRIPTOR, [ATOMS], with_stress=True)
