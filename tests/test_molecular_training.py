"""Training of models of molecules: it learns, repeats itself, resumes, and refuses bad samples."""

import json
from dataclasses import replace

import molecules
import numpy as np
import pytest
import torch

from fedens.analysis.molecules import (
    LearningPoint,
    evaluate_molecule,
    mean_errors,
)
from fedens.errors import FunctionalError, ModelError
from fedens.models.molecule import training as molecular_training
from fedens.models.molecule.data import see_molecule, whitened_basis
from fedens.models.molecule.training import (
    EnergyLoss,
    FieldLoss,
    MolecularTrainingSettings,
    train_molecules,
)

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
        assert numbers["NMAPE of superposed atoms (%)"] > 8
        bounded("NMAPE (%)", numbers["NMAPE (%)"], 1)
        bounded("energy (kcal/mol)", abs(numbers["energy error (kcal/mol)"]), 1)
        name = "forces (kcal/mol/angstrom)"
        bounded(name, numbers[name], 3)
        bounded("dipole (D)", numbers["dipole (D)"], 0.1)
    for name, losses in model.history.items():
        bounded(f"loss of {name}, last over first", losses[-1][1] / losses[0][1], 1)


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
    assert [len(losses) for losses in history.values()] == [1, 1]
    weights, trained, history = train()
    assert trained == []
    assert history == {"fields 1": [], "energy 1": []}
    assert torch.equal(weights, expected)
    (file,) = tmp_path.rglob("energy-1.safetensors")
    file.unlink()
    weights, trained, _ = train()
    assert trained == ["energy 1"]
    assert torch.equal(weights, expected)
    # other settings, other samples, or samples that know less are others
    without_forces = [replace(sample, forces=None) for sample in water_samples[:2]]
    assert train(settings=replace(QUICK, dipole_weight=1.0))[1] == ["fields 1", "energy 1"]
    assert train(samples=water_samples[1:3])[1] == ["fields 1", "energy 1"]
    assert train(samples=without_forces)[1] == ["fields 1", "energy 1"]


def test_a_broken_checkpoint_is_refused(water_samples, tmp_path):
    molecules.train_water(water_samples[:1], QUICK, checkpoints=tmp_path)
    (file,) = tmp_path.rglob("fields-1.safetensors")
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(ModelError, match=r"fields-1\.safetensors is broken .*: delete it"):
        molecules.train_water(water_samples[:1], QUICK, checkpoints=tmp_path)


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
    assert "forces (kcal/mol/angstrom)" not in numbers
    assert "energy error (kcal/mol)" in numbers
    mixed = molecules.train_water([known[0], unknown[1]], asked)
    assert torch.isfinite(weights_of(mixed)).all()


@pytest.fixture(scope="module")
def seen(water_model, water_samples):
    """What the training saw, in the model's own functions."""
    bare = water_model.basis.even_tempered(["O", "H"])
    found = [
        see_molecule(sample, bare, water_model.atoms, water_model.descriptor, 3000, i)
        for i, sample in enumerate(water_samples)
    ]
    basis, contraction = whitened_basis(bare, found)
    return [one.contracted(contraction(one.structure)) for one in found], basis


def test_loss_of_fields_is_the_relative_error_of_what_is_predicted(water_model, seen, bounded):
    molecules_seen, basis = seen
    loss = FieldLoss(molecules_seen, basis, dipole_weight=0.3)
    network = water_model.field_networks[0]
    sizes = torch.stack([one.squares for one in molecules_seen]).mean(dim=0)
    expected = []
    for one in molecules_seen[:2]:
        prediction = replace(water_model, field_networks=[network]).predict(one.structure)
        c = prediction.coefficients[0]
        squared = (c * (c @ one.gram.double() - 2 * one.loads)).sum(dim=1) + one.squares
        wrong = torch.tensor(prediction.dipole) - one.dipole
        expected.append((squared / sizes).mean() + 0.3 * (wrong**2).mean())
    found = loss(network, [0, 1])
    # what is beyond is the charge before it is put right
    beyond = float(found.detach()) - float(sum(expected)) / 2
    assert beyond > -1e-5
    bounded("share of the charge", beyond / float(found.detach()), 0.05)
    bounded("loss", float(found.detach()), 0.1)


def test_loss_of_energies_is_that_of_energies_and_forces(water_model, seen, water_samples):
    molecules_seen, _ = seen
    model = replace(water_model, energy_networks=water_model.energy_networks[:1])
    chosen = [0, 2]
    energies, forces = [], []
    for i in chosen:
        energy, found = model.energy_and_forces(water_samples[i].structure)
        energies.append((energy - water_samples[i].energy) / 2e-3)
        forces.append(((found - water_samples[i].forces) / 2e-3).flatten())
    of_energies, of_forces = (float(np.mean(np.square(x))) for x in (energies, forces))
    for asked, expected in ((True, 0.4 * of_energies + of_forces), (False, 0.4 * of_energies)):
        loss = EnergyLoss(molecules_seen, 0.4, forces=asked)
        value = float(loss(model.energy_networks[0], chosen).detach())
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


def test_training_that_runs_away_is_stopped(water_samples):
    settings = replace(QUICK, learning_rate=1e30, steps=200)
    with pytest.raises(ModelError, match=r"ran away at step .*: lower learning_rate"):
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
    energy, forces = water_model.energy_and_forces(sample.structure)
    assert (one.energy, one.predicted_energy) == (sample.energy, energy)
    kcal = 627.509474
    numbers = one.numbers
    assert numbers["energy error (kcal/mol)"] == pytest.approx(kcal * (energy - sample.energy))
    wrong = np.abs(forces - sample.forces).mean() * kcal / 0.529177211
    assert numbers["forces (kcal/mol/angstrom)"] == pytest.approx(wrong, rel=1e-6)
    points, weights = torch.tensor(sample.points), sample.weights
    prediction = water_model.predict(sample.structure)
    density = prediction.fields(points)["density"].numpy()
    share = weights @ np.abs(density - sample.fields["density"]) / 10
    assert numbers["NMAPE (%)"] == pytest.approx(100 * share, rel=1e-3)
    dipole = np.array(sample.provenance["dipole_electron_bohr"]) - prediction.dipole
    assert numbers["dipole (D)"] == pytest.approx(2.541746 * np.linalg.norm(dipole), abs=5e-3)
    assert abs(numbers["charge by quadrature, error (e)"]) < 1e-3
    pulay = np.abs(
        np.array(sample.provenance["hellmann_feynman_forces_hartree_per_bohr"]) - sample.forces
    )
    largest = numbers["Pulay difference of the reference, largest (kcal/mol/angstrom)"]
    assert largest == pytest.approx(pulay.max() * kcal / 0.529177211, rel=1e-6)
    stored = json.loads(json.dumps(one.to_json()))
    assert stored["numbers"] == numbers
    np.testing.assert_array_equal(stored["forces"]["reference"], sample.forces)
    np.testing.assert_array_equal(stored["forces"]["predicted"], forces)


def test_means_are_over_those_that_have_the_number(water_model, water_samples):
    first = evaluate_molecule(water_model, water_samples[0])
    second = evaluate_molecule(water_model, replace(water_samples[1], forces=None))
    name = "energy error (kcal/mol)"
    means = mean_errors([first, second])
    expected = np.mean([abs(first.numbers[name]), abs(second.numbers[name])])
    assert means[name] == pytest.approx(expected)
    forces = "forces (kcal/mol/angstrom)"
    assert means[forces] == pytest.approx(first.numbers[forces])
    point = LearningPoint.of(2, 1, [first, second])
    assert (point.size, point.members, point.errors) == (2, 1, means)


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
    assert "NMAPE (%)" in one.numbers
    assert not [name for name in one.numbers if "Harris" in name]
