"""Training of models of molecules: it learns, repeats itself, resumes, and refuses bad samples."""

import json
from dataclasses import replace
from functools import partial

import molecules
import numpy as np
import pytest
import torch

from fedens.analysis.evaluation import mean_errors
from fedens.analysis.molecules import evaluate_molecule
from fedens.errors import FunctionalError, ModelError
from fedens.learning.fit import History, generator
from fedens.models.molecule import training as molecular_training
from fedens.models.molecule.data import MoleculeData, held_out, prepare_molecule
from fedens.models.molecule.objective import EnergyObjective
from fedens.models.molecule.training import MolecularTrainingSettings, train_molecules

# models of one or two molecules find most others foreign
pytestmark = pytest.mark.filterwarnings("ignore::fedens.errors.ExtrapolationWarning")

QUICK = replace(molecules.SETTINGS, committee=1, steps=5, energy_steps=5, batch=2)


def weights_of(model):
    networks = [*model.field_networks, *model.energy_networks]
    return torch.cat([p.detach().flatten() for network in networks for p in network.parameters()])


@pytest.fixture(scope="module")
def ammonia():
    return molecules.label(molecules.AMMONIA)


@pytest.mark.slow
def test_two_molecules_are_learned_by_heart(water_samples, ammonia, training_seed, bounded):
    """Together, though they share but one element."""
    samples = [water_samples[0], ammonia]
    settings = replace(
        molecules.SETTINGS,
        committee=1,
        steps=200,
        energy_steps=150,
        batch=2,
        seed=training_seed,
    )
    model = train_molecules(samples, molecules.atoms_of("O", "N", "H"), settings)
    assert sorted(model.basis.exponents) == ["H", "N", "O"]
    for sample in samples:
        numbers = evaluate_molecule(model, sample).numbers
        assert numbers["nmape_superposed_atoms_percent"] > 8
        bounded("nmape_percent", numbers["nmape_percent"], 0.91)
        bounded("energy (kcal/mol)", abs(numbers["energy_error_kcal_per_mol"]), 0.34)
        name = "force_mae_kcal_per_mol_angstrom"
        bounded(name, numbers[name], 0.25)
        bounded("dipole_error_debye", numbers["dipole_error_debye"], 0.021)
    for name, losses in model.history.items():
        first, *_, last = losses["training_loss"]
        bounded(f"loss of {name}, last over first", last / first, 0.18)


def test_same_seed_gives_the_same_weights(water_samples):
    first, again, other = (
        weights_of(molecules.train_water(water_samples[:2], replace(QUICK, seed=seed)))
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_networks_of_a_committee_differ(water_model):
    for networks in (water_model.field_networks, water_model.energy_networks):
        first, second = (
            torch.cat([p.detach().flatten() for p in network.parameters()]) for network in networks
        )
        assert not torch.equal(first, second)


class CutOffError(Exception):
    """A training that ends before its time."""


def cut_at(task, step):
    """A report that ends the training there."""

    def report(state):
        if state.loss is not None and (state.task, state.done) == (task, step):
            raise CutOffError

    return report


@pytest.fixture
def often(monkeypatch):
    """Checkpoints and reports every few steps."""
    monkeypatch.setattr(molecular_training, "_CHECKPOINT_EVERY", 3)
    plain = molecular_training.FitSettings
    monkeypatch.setattr(molecular_training, "FitSettings", partial(plain, record_every=1))


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize(("task", "step"), [("fields 2", 8), ("energy 1", 4)])
def test_a_training_that_is_cut_off_goes_on(water_samples, ammonia, tmp_path, task, step):
    """To the same bits and the same history, also where an element is not in every batch."""
    samples = [*water_samples[:2], ammonia, ammonia]
    settings = replace(QUICK, committee=2, steps=10, energy_steps=10, batch=1)
    atoms = molecules.atoms_of("O", "N", "H")
    whole = train_molecules(samples, atoms, settings)
    with pytest.raises(CutOffError):
        train_molecules(samples, atoms, settings, checkpoints=tmp_path, report=cut_at(task, step))
    states = []
    model = train_molecules(samples, atoms, settings, checkpoints=tmp_path, report=states.append)
    assert torch.equal(weights_of(model), weights_of(whole))
    np.testing.assert_equal(model.history, whole.history)
    done = [state.done for state in states if state.task == task]
    assert done == list(range(1 + (step - 1) // 3 * 3, 11))
    kinds = ["fields 1", "fields 2", "energy 1", "energy 2"]
    tasks = dict.fromkeys(s.task for s in states if s.loss is not None)
    assert list(tasks) == kinds[kinds.index(task) :]


def test_finished_networks_are_not_trained_again(water_samples, tmp_path):
    def train(samples=water_samples[:2], settings=QUICK):
        trained = []

        def report(state):
            if state.loss is not None:
                trained.append(state.task)

        model = molecules.train_water(samples, settings, checkpoints=tmp_path, report=report)
        return weights_of(model), trained, model.history

    expected, trained, history = train()
    assert trained == ["fields 1", "energy 1"]
    weights, trained, again = train()
    assert trained == []
    np.testing.assert_equal(again, history)
    assert torch.equal(weights, expected)
    # other settings, other samples, or samples that know less are others
    without_forces = [replace(sample, forces=None) for sample in water_samples[:2]]
    assert train(settings=replace(QUICK, dipole_weight=1.0))[1] == ["fields 1", "energy 1"]
    assert train(samples=water_samples[1:3])[1] == ["fields 1", "energy 1"]
    assert train(samples=without_forces)[1] == ["fields 1", "energy 1"]


def test_a_broken_checkpoint_is_trained_again(water_samples, tmp_path):
    expected = molecules.train_water(water_samples[:1], QUICK, checkpoints=tmp_path)
    (file,) = tmp_path.rglob("fields-1/*.safetensors")
    file.write_bytes(file.read_bytes()[:50])
    trained = []
    model = molecules.train_water(
        water_samples[:1], QUICK, checkpoints=tmp_path, report=trained.append
    )
    assert [state.task for state in trained if state.loss is not None] == ["fields 1"]
    assert torch.equal(weights_of(model), weights_of(expected))


def batches_of(objective, member, steps=8):
    return [objective.batch(step, generator(0, member, step)) for step in range(steps)]


def test_members_learn_different_molecules_in_different_batches(monkeypatch, water_samples):
    """Each leaves out its share, which it is validated on."""
    fits = {}

    def fit(network, objective, settings, label, *, member, **_):
        assert settings.seed == 0
        fits[label] = objective, member, [p.detach().clone() for p in network.parameters()]
        return History()

    monkeypatch.setattr(molecular_training, "fit", fit)
    molecules.train_water(water_samples, replace(QUICK, committee=2))
    assert list(fits) == ["fields 1", "fields 2", "energy 1", "energy 2"]
    for label, (objective, member, _) in fits.items():
        assert member == int(label[-1]) - 1
        learned = {i for batch in batches_of(objective, member) for i in batch}
        assert learned == {0, 1, 2, 3} - {member}
        assert objective.validation() == [member]
    for kind in ("fields", "energy"):
        first, second = (fits[f"{kind} {number}"][2][0] for number in (1, 2))
        assert not torch.equal(first, second)
    molecules.train_water(water_samples, replace(QUICK, committee=1))
    alone, *_ = fits["fields 1"]
    assert alone.validation() is None
    first, second = (batches_of(alone, member) for member in (0, 1))
    assert first != second
    assert batches_of(alone, 0) == first
    assert all(len(set(batch)) == 2 for batch in first)


def test_no_member_lacks_an_element():
    """A molecule whose element is in no other is learned by all."""
    water, ammonia = (
        MoleculeData(s, *(torch.zeros(0),) * 6, 0.0, 0.0, None)
        for s in (molecules.WATER, molecules.AMMONIA)
    )
    assert held_out([water, water, ammonia], 1, 3) == [1]
    assert held_out([water, water, ammonia], 2, 3) == []
    assert held_out([water, water, ammonia], 0, 1) == []
    assert held_out([water] * 13, 0, 3) == [0, 6, 12]


def test_progress_is_reported(water_samples):
    states = []
    settings = replace(QUICK, steps=120)
    molecules.train_water(water_samples[:2], settings, report=states.append)
    seen = [s.done for s in states if s.task == "fields of the samples"]
    assert seen == [1, 2]
    fields = [s for s in states if s.task == "fields 1"]
    assert [s.done for s in fields] == [50, 100, 120]
    assert all(s.total == 120 and np.isfinite(s.loss) for s in fields)


@pytest.mark.slow
def test_energies_without_forces(water_samples):
    """Forces that are not asked for, or not there, do not steer the training."""
    known = water_samples[:2]
    unknown = [replace(sample, forces=None) for sample in known]
    asked, not_asked = (
        replace(QUICK, energy_steps=20),
        replace(QUICK, energy_steps=20, forces=False),
    )
    with_forces = weights_of(molecules.train_water(known, asked))
    ignored = weights_of(molecules.train_water(known, not_asked))
    absent = weights_of(molecules.train_water(unknown, not_asked))
    assert torch.equal(ignored, absent)
    assert not torch.equal(ignored, with_forces)
    model = molecules.train_water(unknown, asked)
    torch.testing.assert_close(weights_of(model), ignored, rtol=1e-4, atol=1e-5)
    numbers = evaluate_molecule(model, unknown[0]).numbers
    assert "force_mae_kcal_per_mol_angstrom" not in numbers
    assert "energy_error_kcal_per_mol" in numbers
    mixed = molecules.train_water([known[0], unknown[1]], asked)
    assert torch.isfinite(weights_of(mixed)).all()


def test_loss_of_energies_is_that_of_the_model(water_model, water_samples):
    """Of its own energies and forces, not of what is stored for the training."""
    bare = water_model.basis.even_tempered(["O", "H"])
    prepared = [
        prepare_molecule(sample, bare, water_model.atoms, water_model.descriptor, 3000, i)
        for i, sample in enumerate(water_samples)
    ]
    model = replace(water_model, energy_networks=water_model.energy_networks[:1])
    chosen = [0, 2]
    energies, forces = [], []
    for i in chosen:
        found = model.energy_and_forces(water_samples[i].structure)
        energies.append((found.energy - water_samples[i].energy) / 2e-3)
        forces.append(((found.forces - water_samples[i].forces) / 2e-3).flatten())
    of_energies, of_forces = (float(np.mean(np.square(x))) for x in (energies, forces))
    for asked, expected in ((True, 0.4 * of_energies + of_forces), (False, 0.4 * of_energies)):
        objective = EnergyObjective(prepared, 2, [], 0.4, forces=asked)
        value = float(objective.loss(model.energy_networks[0], chosen).detach())
        assert value == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda _: [], "no samples to learn from"),
        (
            lambda found: [
                found[0],
                replace(found[1], structure=found[1].structure.replace(charge=-2)),
            ],
            r"charges \[-2.*, 0.*\]: a model is for molecules of one charge",
        ),
        (
            lambda found: [found[0], replace(found[1], fields={})],
            "no field density, kinetic, xc",
        ),
        (
            lambda found: [
                found[0],
                replace(
                    found[1],
                    provenance=found[1].provenance | {"functional": {"method": "Kohn-Sham"}},
                ),
            ],
            "samples are of .*sto-3g.* and of .*Kohn-Sham.*: learn from one theory",
        ),
    ],
    ids=["none", "charges", "fields", "levels"],
)
def test_samples_that_cannot_be_learned_together(water_samples, change, message):
    with pytest.raises(ModelError, match=message):
        molecules.train_water(change(water_samples[:2]), QUICK)


def test_too_large_molecules_are_refused(water_samples, monkeypatch):
    monkeypatch.setattr(molecular_training, "MAX_BYTES", 1000)
    with pytest.raises(ModelError, match="train on fewer or smaller molecules"):
        molecules.train_water(water_samples[:1], QUICK)


def test_too_few_points_are_refused(water_samples):
    with pytest.raises(ModelError, match=r"too few points .*: raise points"):
        molecules.train_water(water_samples[:1], replace(QUICK, points=100))


def test_training_that_diverges_is_stopped(water_samples):
    settings = replace(QUICK, learning_rate=1e30, steps=200)
    with pytest.raises(
        ModelError, match=r"fields 1 diverged at step \d+: .*lower the learning rate"
    ):
        molecules.train_water(water_samples[:1], settings)


def test_atoms_of_elements_that_are_not_there_do_not_matter(water_samples):
    plain = molecules.train_water(water_samples[:1], QUICK)
    model = train_molecules(water_samples[:1], molecules.atoms_of("N", "O", "H"), QUICK)
    assert sorted(model.atoms) == sorted(model.basis.exponents) == ["H", "O"]
    assert torch.equal(weights_of(model), weights_of(plain))


def test_defaults_are_those_of_the_configuration():
    from fedens.configuration.molecules import MolecularTrainingOptions

    assert MolecularTrainingSettings() == MolecularTrainingSettings(
        **MolecularTrainingOptions().model_dump()
    )


def test_errors_are_against_the_sample(water_model, water_samples):
    sample = water_samples[0]
    one = evaluate_molecule(water_model, sample, "water-0000", "water")
    assert (one.name, one.group, one.formula) == ("water-0000", "water", "OH2")
    found = water_model.energy_and_forces(sample.structure)
    energy, forces = found.energy, found.forces
    assert one.energies == {"reference": sample.energy, "predicted": energy}
    kcal = 627.509474
    numbers = one.numbers
    assert numbers["energy_error_kcal_per_mol"] == pytest.approx(kcal * (energy - sample.energy))
    wrong = np.abs(forces - sample.forces).mean() * kcal / 0.529177211
    assert numbers["force_mae_kcal_per_mol_angstrom"] == pytest.approx(wrong, rel=1e-6)
    points, weights = torch.tensor(sample.points), sample.weights
    prediction = water_model.predict(sample.structure)
    density = prediction.fields(points)["density"].numpy()
    share = weights @ np.abs(density - sample.fields["density"]) / 10
    assert numbers["nmape_percent"] == pytest.approx(100 * share, rel=1e-3)
    dipole = np.array(sample.provenance["dipole_electron_bohr"]) - prediction.dipole
    assert numbers["dipole_error_debye"] == pytest.approx(
        2.541746 * np.linalg.norm(dipole), abs=5e-3
    )
    assert abs(numbers["charge_error_by_quadrature_e"]) < 1e-3
    pulay = np.abs(
        np.array(sample.provenance["hellmann_feynman_forces_hartree_per_bohr"]) - sample.forces
    )
    largest = numbers["pulay_largest_kcal_per_mol_angstrom"]
    assert largest == pytest.approx(pulay.max() * kcal / 0.529177211, rel=1e-6)
    stored = json.loads(json.dumps(one.to_json()))
    assert stored["numbers"] == numbers
    np.testing.assert_array_equal(stored["forces"]["reference"], sample.forces)
    np.testing.assert_array_equal(stored["forces"]["predicted"], forces)


def test_means_are_over_those_that_have_the_number(water_model, water_samples):
    first = evaluate_molecule(water_model, water_samples[0])
    second = evaluate_molecule(water_model, replace(water_samples[1], forces=None))
    name = "energy_error_kcal_per_mol"
    means = mean_errors([first.numbers, second.numbers])
    expected = np.mean([abs(first.numbers[name]), abs(second.numbers[name])])
    assert means[name] == pytest.approx(expected)
    forces = "force_mae_kcal_per_mol_angstrom"
    assert means[forces] == pytest.approx(first.numbers[forces])


def test_samples_of_another_theory_are_not_compared(water_model, water_samples):
    sample = water_samples[0]
    other = sample.provenance["functional"] | {"xc": "lda_pz"}
    changed = replace(sample, provenance=sample.provenance | {"functional": other})
    with pytest.raises(ModelError, match=r"sample w is of .*lda_pz.*the model was trained on"):
        evaluate_molecule(water_model, changed, "w")


def test_a_step_that_fails_does_not_end_the_evaluation(water_model, water_samples, monkeypatch):
    def refuses(*_, **__):
        raise FunctionalError("density integrates to 28 electrons")

    monkeypatch.setattr("fedens.analysis.molecules.harris", refuses)
    with pytest.warns(UserWarning, match="w: no step from the prediction: density integrates"):
        one = evaluate_molecule(water_model, water_samples[0], "w", scf=True)
    assert "nmape_percent" in one.numbers
    assert not [name for name in one.numbers if "harris" in name]
