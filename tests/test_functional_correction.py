"""Corrections of a functional: what they learn from, what they learn, and their derivatives."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from systems import GTHFIT, fcc, rattled

from fedens import EnergyFunctional, EnergyTrainingSettings, FunctionalModel, PointSet, TensorSpace
from fedens.data.sample import Sample
from fedens.errors import ModelError
from fedens.features.gmp import GMP
from fedens.learning.domain import TrainingDomain
from fedens.learning.scaling import Standardise
from fedens.models.base import Model
from fedens.models.functional.correction import (
    CorrectionSettings,
    Fitting,
    fit_correction,
    train_correction,
    weighted,
    what_is_left,
)
from fedens.models.points.data import StructureData
from fedens.models.points.model import EnergyModel, PointModel
from fedens.reference.orbital_free import solve_ground_state
from fedens.structure import Structure
from fedens.testing import check_model

pytestmark = pytest.mark.filterwarnings("ignore::fedens.errors.ExtrapolationWarning")

SPACING, ORDER = 0.7, 5
BASE = EnergyFunctional.orbital_free("wt", pseudopotential=GTHFIT, mean_density=12 / 7.65**3)
DESCRIPTOR = GMP([0.8, 1.2], 2, form="squared")
SETTINGS = CorrectionSettings(
    DESCRIPTOR, EnergyTrainingSettings(hidden=(), ridge=1e-12, with_stress=True)
)


def crystal(seed, symbols=("Al",) * 4, edge=7.6):
    """A strained fcc cell whose atoms are displaced."""
    random = np.random.default_rng(seed)
    edges = edge * (1 + random.uniform(-0.03, 0.03, 3))
    positions = fcc(1.0).positions * edges + random.normal(0, 0.2, (4, 3))
    return Structure(list(symbols), positions, cell=edges, pbc=True)


def teacher(hidden=(), elements=("Al",)):
    """Energies as sums over atoms, of each element by itself, with offsets of 1, 2, ... hartree."""
    torch.manual_seed(5)
    n = DESCRIPTOR.n_features
    features = torch.cat([DESCRIPTOR(torch.tensor(s.positions), s) for s in map(crystal, range(4))])
    parts = []
    for i, element in enumerate(elements):
        part = PointModel(
            PointSet("atoms", element=element), Standardise.fit([features]), hidden, 1
        )
        part.mean.fill_(1.0 + i)
        part.scale.fill_(1e-3)
        parts.append(part)
    everywhere = torch.full((n,), torch.inf).double()
    return EnergyModel(
        DESCRIPTOR, parts, None, TrainingDomain(-everywhere, everywhere, elements, None)
    )


def labelled(model, structure):
    """What a model says of a structure, without a functional below."""
    found = model.energy_and_forces(structure, stress=True)
    numbers = {"energy": found.energy, "forces": found.forces, "stress": found.stress}
    return Sample(structure, np.zeros((0, 3)), np.zeros(0), {}, **numbers)


def with_functional(model, structure):
    """The ground state's sample, and what a model adds to its numbers."""
    space = TensorSpace.for_structure(structure, SPACING, ORDER)
    below, above = (
        solve_ground_state(structure, space, BASE).to_sample(),
        labelled(model, structure),
    )
    return replace(
        below,
        energy=below.energy + above.energy,
        forces=below.forces + above.forces,
        stress=below.stress + above.stress,
    )


def same(found, expected, rel):
    """Whether energies, forces and stresses agree, relative to the largest."""
    for name in ("energy", "forces", "stress"):
        one, other = (np.atleast_1d(getattr(numbers, name)) for numbers in (found, expected))
        np.testing.assert_allclose(one, other, rtol=0, atol=rel * np.abs(other).max())


@pytest.fixture(scope="module")
def samples():
    return [with_functional(teacher(), crystal(seed)) for seed in range(4)]


@pytest.fixture(scope="module")
def model(samples):
    correction = train_correction(samples, BASE, SETTINGS)
    return FunctionalModel(BASE, SPACING, ORDER, 1e-7, correction=correction)


def test_a_known_rest_is_learned(model):
    """By a functional and its correction together, for a structure that was not there."""
    found = model.correction.energy_and_forces(crystal(9), stress=True)
    expected = teacher().energy_and_forces(crystal(9), stress=True)
    assert np.abs(expected.forces).max() > 1e-4
    same(found, expected, 2e-3)
    assert found.energy == pytest.approx(expected.energy, abs=1e-5)
    whole = with_functional(teacher(), crystal(9))
    assert model.energy(crystal(9)) == pytest.approx(whole.energy, abs=1e-5)


def test_keeps_the_contract(model, tmp_path):
    """Exact forces and storage of the whole model."""
    check_model(model, rattled(), tmp_path, tolerance=2e-5)
    model.save(tmp_path / "again")
    again = Model.load(tmp_path / "again")
    assert again.correction.provenance["functional"] == BASE.describe()
    assert again.correction.energy(rattled()) == model.correction.energy(rattled())


def test_nothing_is_left_of_the_functional_s_own_labels():
    space = TensorSpace.for_structure(crystal(0), SPACING, ORDER)
    sample = solve_ground_state(crystal(0), space, BASE).to_sample()
    left = what_is_left(sample, BASE)
    assert abs(left.energy) < 1e-9
    assert np.abs(left.forces).max() < 1e-5 < np.abs(sample.forces).max()
    assert np.abs(left.stress).max() < 1e-8 < np.abs(sample.stress).max()
    coarser = what_is_left(sample, BASE, spacing=0.8, order=4)
    assert abs(coarser.energy) > 1e-6


def test_without_a_functional_everything_is_left():
    sample = labelled(teacher(), crystal(0))
    same(what_is_left(sample, None), sample, 0.0)
    model = train_correction([labelled(teacher(), crystal(s)) for s in range(4)], None, SETTINGS)
    same(
        model.energy_and_forces(crystal(9), stress=True),
        teacher().energy_and_forces(crystal(9), stress=True),
        2e-3,
    )
    assert model.provenance["functional"] is None


def test_every_element_has_energies_of_its_own():
    alloys = [("Al", "Al", "Al", "Mg"), ("Mg", "Al", "Mg", "Al"), ("Mg",) * 4, ("Al",) * 4]
    truth = teacher(elements=("Al", "Mg"))
    samples = [labelled(truth, crystal(i, alloys[i % 4])) for i in range(8)]
    model = fit_correction(samples, None, SETTINGS)
    new = crystal(11, ("Mg", "Mg", "Mg", "Al"))
    assert model.energy(new) == pytest.approx(truth.energy(new), abs=1e-5)
    assert truth.energy(new) == pytest.approx(3 * 2 + 1, abs=0.5)
    assert model.summary["sums over"] == "atoms of Al, atoms of Mg"


def test_offsets_are_not_damped():
    """All else is, so that only the offset of 1 hartree per atom is left."""
    training = EnergyTrainingSettings(hidden=(), ridge=1e3)
    samples = [labelled(teacher(), crystal(seed)) for seed in range(4)]
    model = fit_correction(samples, None, CorrectionSettings(DESCRIPTOR, training))
    assert model.energy(crystal(9)) == pytest.approx(4.0, abs=0.02)
    largest = np.abs(teacher().forces(crystal(9))).max()
    assert np.abs(model.forces(crystal(9))).max() < 1e-2 * largest


def test_stresses_are_learned_where_all_samples_have_them():
    samples = [labelled(teacher(), crystal(seed)) for seed in range(3)]
    wrong = [replace(s, stress=s.stress + 1e-3) for s in samples]
    for chosen, differs in ((wrong, True), ([*wrong[:2], replace(wrong[2], stress=None)], False)):
        model = fit_correction(chosen, None, SETTINGS)
        error = abs(model.energy(crystal(9)) - teacher().energy(crystal(9)))
        assert (error > 1e-5) == differs


def with_network(truth):
    training = EnergyTrainingSettings(hidden=(4,), ridge=1e-12, steps=20)
    samples = [labelled(truth, crystal(seed)) for seed in range(6)]
    return fit_correction(samples, None, CorrectionSettings(DESCRIPTOR, training))


def test_a_network_that_does_not_gain_is_dropped():
    """Linear energies, which the start has already."""
    model = with_network(teacher())
    errors = model.provenance["errors_left_out"]
    assert errors["linear"] < 1e-6 < errors["network"]
    assert model.parts[0].network.hidden == ()


def test_a_network_that_gains_stays(monkeypatch):
    errors = {(): 2.0, (4,): 1.0}
    monkeypatch.setattr(Fitting, "error", lambda _, training: errors[training.hidden])
    model = with_network(teacher())
    assert model.provenance["errors_left_out"] == {"linear": 2.0, "network": 1.0}
    assert model.parts[0].network.hidden == (4,)


def test_wild_structures_count_less():
    quiet = [StructureData(fcc(), [], 0.0, torch.full((12,), f)) for f in (0.0, 0.01, 0.01)]
    weights = [one.weight for one in weighted([*quiet, replace(quiet[0], forces=torch.ones(12))])]
    assert weights[:3] == pytest.approx([1, 0.5, 0.5])
    assert weights[3] == pytest.approx(1e-4, rel=1e-3)
    assert [one.weight for one in weighted(quiet[:1])] == [1]


def test_no_samples_are_refused():
    with pytest.raises(ModelError, match="no samples"):
        train_correction([], BASE)
