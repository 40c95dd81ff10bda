"""Training of models of crystals: what each network learns from, and what it must not."""

import random
from dataclasses import replace

import crystals
import numpy as np
import pytest
import torch
from crystals import DESCRIPTOR, FUNCTIONAL, SETTINGS, cell

from fedens import GMP, Density, TrainingSettings, train
from fedens.atoms.baseline import GaussianAtoms
from fedens.atoms.pseudo import free_atom
from fedens.errors import DatasetError, ModelError
from fedens.learning.fit import FitSettings, fit
from fedens.learning.pointwise import PointwiseNetwork
from fedens.learning.scaling import Standardise
from fedens.models.base import Model
from fedens.models.crystal.data import TrainingData
from fedens.models.crystal.losses import EnergyDensityLoss, RootDensityLoss
from fedens.models.crystal.objective import ElementObjective

#: The handful of cells that these models are trained on leaves most others outside.
pytestmark = pytest.mark.filterwarnings("ignore::fedens.errors.ExtrapolationWarning")

#: What there is to learn in each of three structures; features say nothing.
TARGETS = (1.0, 2.0, 6.0)
THREE = TrainingSettings(committee=3)


@pytest.fixture
def constants():
    """Three structures of 20 elements, each with a constant of its own as target."""
    owners = torch.arange(len(TARGETS)).repeat_interleave(20)
    one = torch.ones(len(owners), 8)
    return TrainingData(
        features=torch.zeros(*one.shape, 1),
        targets=torch.tensor(TARGETS)[owners][:, None, None] * one[..., None],
        weights=one,
        lengths=torch.ones(len(owners), 3),
        owners=owners,
        order=1,
        scaling=Standardise(torch.zeros(1).double(), torch.ones(1).double()),
        target_scales=torch.ones(1).double(),
    )


@pytest.mark.parametrize("member", [0, 1, 2])
def test_members_do_not_train_on_the_structures_they_leave_out(constants, member):
    """A constant can only be the mean of those learned from; the one left out shows its error."""
    objective = ElementObjective(
        constants, RootDensityLoss(1, 0.5), member, replace(THREE, batch_points=400), True
    )
    network = PointwiseNetwork(1, (), 1)
    history = fit(network, objective, FitSettings(400, 0.05), "constants", member=member)
    learned = [target for i, target in enumerate(TARGETS) if i != member]
    mean = sum(learned) / 2
    assert network.linear.bias.item() == pytest.approx(mean, abs=0.05)
    expected = (TARGETS[member] - mean) ** 2
    assert history.validation_loss[-1] == pytest.approx(expected, rel=0.1)
    expected = ((learned[0] - learned[1]) / 2) ** 2
    assert history.training_loss[-1] == pytest.approx(expected, rel=0.1)


def test_members_meet_every_whole_structure_but_those_they_leave_out(constants):
    """In turn, at every second step; their terms are added to the elements' loss."""

    class Whole(list):
        def __call__(self, index, outputs):
            return 100.0 * (index + 1) + outputs.sum() * 0

    network, rng = PointwiseNetwork(1, (), 1), torch.Generator()
    settings = replace(THREE, batch_points=8, structure_every=2)
    common = {"data": constants, "loss_of": RootDensityLoss(1, 0.5), "settings": settings}
    for member, turns in ((0, [1, 2, 1, 2, 1]), (1, [0, 2, 0, 2, 0])):
        elements = ElementObjective(member=member, fresh=True, **common)
        objective = replace(elements, whole=Whole(range(3)))
        for step in range(9):
            batch = objective.batch(step, rng.manual_seed(step))
            expected = None if step % 2 else turns[step // 2]
            assert batch.structure == expected
            extra = objective.loss(network, batch) - elements.loss(network, batch)
            asked = 0.0 if expected is None else 100.0 * (expected + 1)
            assert extra.item() == pytest.approx(asked, abs=1e-3)


@pytest.fixture(scope="module")
def samples():
    return crystals.samples()


@pytest.fixture(scope="module")
def descriptor():
    return DESCRIPTOR


@pytest.fixture(scope="module")
def settings(training_seed):
    return replace(SETTINGS, seed=training_seed)


@pytest.fixture(scope="module")
def predictor(training_seed):
    return crystals.trained(training_seed)


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
    baseline = predictor.baseline.density(held_out.structure, space)
    error = nmape(predictor.density(held_out.structure, space), held_out)
    bounded("NMAPE over the baseline's", error / nmape(baseline, held_out), 0.22)
    bounded("NMAPE (%)", error, 0.061)
    energy = predictor.predict(held_out.structure, space).energy
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
    spread = predictor.predict(samples[1].structure).density_uncertainty
    assert spread is not None
    assert float(spread.detach().max()) > 0
    assert predictor.predict(samples[1].structure).raw_root.shape == spread.shape


def test_prediction_is_as_coarse_as_the_coarsest_training_space(samples, predictor):
    spacings = [sample.space().spacing for sample in samples[:3]]
    assert predictor.spacing == pytest.approx(max(spacings))
    for sample in samples:
        assert predictor.space_for(sample.structure).n_points == len(sample.weights)


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


#: Enough for both stages of two networks, with checkpoints between; energies and forces count.
CUT = TrainingSettings(
    hidden=(8,), committee=2, steps=40, batch_points=500, checkpoint_every=7, structure_every=5
)


@pytest.mark.slow
@pytest.mark.parametrize("stage", [RootDensityLoss, EnergyDensityLoss], ids=["root", "energy"])
@pytest.mark.parametrize("kind", ["fresh", "whole structures", "continued"])
def test_a_training_that_was_cut_off_ends_with_the_same_bits(
    stage, kind, samples, tmp_path, monkeypatch
):
    """In both stages and both members, at a step of no special kind."""
    settings = replace(CUT, energy_density_share=0.5)
    if kind == "whole structures":
        settings = replace(settings, energy_weight=1.0, force_weight=0.5)
    options = {"device": "cpu", "settings": settings}
    if kind == "continued":
        options["start_from"] = train(samples[:2], DESCRIPTOR, replace(CUT, steps=5), device="cpu")
    whole = train(samples[:3], DESCRIPTOR, **options)
    batch = ElementObjective.batch
    rng = random.Random(f"{stage} {kind}")
    for member in (0, 1):
        last = rng.randrange(1, 40 if stage is RootDensityLoss else 20)

        def cut(self, step, rng, member=member, last=last):
            if isinstance(self.loss_of, stage) and (self.member, step) == (member, last):
                raise KeyboardInterrupt
            return batch(self, step, rng)

        monkeypatch.setattr(ElementObjective, "batch", cut)
        with pytest.raises(KeyboardInterrupt):
            train(samples[:3], DESCRIPTOR, checkpoint=tmp_path, **options)
        monkeypatch.setattr(ElementObjective, "batch", batch)
    resumed = train(samples[:3], DESCRIPTOR, checkpoint=tmp_path, **options)
    for name, tensor in whole.tensors().items():
        assert torch.equal(resumed.tensors()[name], tensor), name
    assert resumed.describe() == whole.describe()


@pytest.mark.parametrize("pattern", ["checkpoint.json", "checkpoint-*.safetensors"])
def test_a_training_with_broken_checkpoints_begins_again(pattern, samples, tmp_path):
    settings = replace(CUT, steps=10, committee=1)
    whole = train(samples[:1], DESCRIPTOR, settings, device="cpu", checkpoint=tmp_path)
    broken = list(tmp_path.rglob(pattern))
    assert len(broken) == 2
    for path in broken:
        path.write_bytes(path.read_bytes()[:50])
    again = train(samples[:1], DESCRIPTOR, settings, device="cpu", checkpoint=tmp_path)
    for name, tensor in whole.tensors().items():
        assert torch.equal(again.tensors()[name], tensor), name


@pytest.mark.parametrize(
    ("stage", "label"), [(RootDensityLoss, "root density 1"), (EnergyDensityLoss, "energy dens")]
)
def test_a_loss_that_is_not_a_number_ends_the_training(stage, label, samples, monkeypatch):
    loss = ElementObjective.loss

    def broken(self, network, batch):
        found = loss(self, network, batch)
        wrong = isinstance(self.loss_of, stage) and self.member == 1
        return found * torch.nan if wrong else found

    monkeypatch.setattr(ElementObjective, "loss", broken)
    with pytest.raises(ModelError, match=f"training of {label}.* diverged at step 0"):
        train(samples[:2], DESCRIPTOR, replace(CUT, steps=5), device="cpu")


@pytest.fixture(scope="module")
def without_functional(samples, training_seed):
    """From samples of a code that names no functional; free atoms by their Gaussians."""
    atom = free_atom(FUNCTIONAL, "Al")
    baseline = GaussianAtoms({"Al": (atom.exponents, atom.amplitudes)})
    nameless = [replace(s, provenance={"space": s.provenance["space"]}) for s in samples]
    settings = replace(SETTINGS, hidden=(16,), committee=2, steps=200, energy_density_share=1.0)
    settings = replace(settings, seed=training_seed)
    descriptor = GMP([0.7, 1.0, 1.4, 2.0, 2.8], 3, form="smooth")
    return train(nameless[:3], descriptor, settings, baseline=baseline, device="cpu")


def relative_error(space, found, sample, name):
    expected = torch.tensor(sample.fields[name])
    return float(space.integrate((found - expected).abs()) / space.integrate(expected.abs()))


def test_a_model_without_functional_knows_fields(samples, without_functional, bounded, tmp_path):
    without_functional.save(tmp_path)
    model = Model.load(tmp_path)
    assert model.functional is None
    assert model.properties("functional") == ()
    space = samples[3].tensor_space()
    with torch.no_grad():
        found = model.predict(samples[3].structure, space)
    base = model.baseline.density(samples[3].structure, space).values
    atoms = relative_error(space, base, samples[3], "density")
    learned = relative_error(space, found.density.values, samples[3], "density")
    bounded("density error over that of atoms", learned / atoms, 1)
    limits = {"kinetic": 0.1, "xc": 0.25, "electrostatic": 1}  # the last is of long range
    for name, values in found.energy_densities.items():
        bounded(name, relative_error(space, values, samples[3], name), limits[name])
    assert found.relative_density_uncertainty > 0
    assert model.density(samples[3].structure, space).number_of_electrons == pytest.approx(12.0)


def test_a_model_without_functional_says_what_it_lacks(samples, without_functional):
    model, structure = without_functional, samples[0].structure
    asked = [
        lambda: model.energy(structure),
        lambda: model.energy(structure, "energy_density"),
        lambda: model.energy_and_forces(structure),
        lambda: model.forces(structure, "hellmann_feynman"),
        lambda: model.uncertainty(structure),
        lambda: model.density(structure, refinement_steps=1),
    ]
    for ask in asked:
        with pytest.raises(ModelError, match="no parent functional"):
            ask()
    settings = replace(CUT, energy_weight=1.0)
    nameless = [replace(s, provenance={"space": s.provenance["space"]}) for s in samples]
    with pytest.raises(ModelError, match="no parent functional"):
        train(nameless[:1], GMP([1.0], 1), settings, baseline=model.baseline, device="cpu")
