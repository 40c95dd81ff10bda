"""Models of Kohn-Sham data: which energies and forces they know, and which they refuse.

The data are orbital-free ones under the name of Kohn-Sham theory: what counts here is what the
theory says of its labels, not how they came about.
"""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import systems
from crystals import DESCRIPTOR, FUNCTIONAL, SETTINGS, samples

from fedens import GMP, GTH, EnergyFunctional, Predictor
from fedens.analysis.crystals import evaluate_sample, quick_errors
from fedens.atoms.baseline import GaussianAtoms
from fedens.calculator import Calculator
from fedens.energy.forces import hellmann_feynman_forces
from fedens.energy.kohn_sham import KohnSham
from fedens.errors import ModelError, PseudopotentialError
from fedens.models.crystal.labels import KohnShamLabels
from fedens.models.crystal.training import train

SHORT = replace(SETTINGS, hidden=(8,), steps=20, committee=2)
LOCAL = KohnSham("lda_pz", systems.GTHFIT)
NONLOCAL = KohnSham("lda_pz", GTH.load("Al", "gth-pade-q3"))
pytestmark = pytest.mark.filterwarnings("ignore::fedens.errors.ExtrapolationWarning")
PARTS = {
    "insulator": (LOCAL, {"nonlocal": 0.0, "entropy": 0.0}),
    "metal": (LOCAL, {"nonlocal": 0.0, "entropy": -0.01}),
    "projectors": (NONLOCAL, {"nonlocal": 0.5, "entropy": -0.01}),
}


def labelled(kind):
    """Three samples as Kohn-Sham theory of a kind would give them."""
    theory, parts = PARTS[kind]
    return [
        replace(
            sample,
            energy=sample.energy + sum(parts.values()),
            energies=sample.energies | parts,
            provenance=sample.provenance | {"functional": theory.describe()},
        )
        for sample in samples()[:3]
    ]


@cache
def model(kind, functional=True):
    descriptor = DESCRIPTOR if functional else GMP([1.0, 2.0], 2, form="smooth")
    given = FUNCTIONAL if functional else None
    return train(labelled(kind)[:2], descriptor, SHORT, given, device="cpu")


@pytest.mark.parametrize(
    ("kind", "functional", "routes"),
    [
        ("insulator", True, ("energy_density", "hellmann_feynman")),
        ("metal", True, ("hellmann_feynman",)),
        ("projectors", True, ()),
        ("insulator", False, ()),
    ],
)
def test_routes_are_those_whose_parts_are_known(kind, functional, routes):
    assert model(kind, functional).routes == routes


@pytest.mark.parametrize(
    ("kind", "route", "named"),
    [
        ("insulator", "functional", "the energy of the functional is not that of Kohn-Sham"),
        ("metal", "functional", "energy densities, or route hellmann_feynman"),
        ("metal", "energy_density", "the entropy of the smeared occupations"),
        ("projectors", "energy_density", "the energy of the non-local projectors"),
        ("projectors", "hellmann_feynman", "the pseudopotentials of the data"),
    ],
)
def test_what_is_not_known_is_refused_and_named(kind, route, named):
    predictor, structure = model(kind), labelled(kind)[2].structure
    calls = [
        lambda: predictor.forces(structure, route),
        lambda: predictor.uncertainty(structure, route),
        lambda: predictor.properties(route),
        lambda: Calculator(predictor, route),
    ]
    if route != "hellmann_feynman":
        calls.append(lambda: predictor.energy(structure, route))
        calls.append(lambda: predictor.predict(structure).energy_uncertainty(route))
    for call in calls:
        with pytest.raises(ModelError, match=named):
            call()


def test_steps_of_the_functional_are_refused():
    predictor, sample = model("metal"), labelled("metal")[2]
    with pytest.raises(ModelError, match="the energy of the functional is not"):
        predictor.density(sample.structure, refinement_steps=1)
    with pytest.raises(ModelError, match="the energy of the functional is not"):
        predictor.refinement(sample.structure, [0])


def test_sums_of_energy_densities_are_energies_where_nothing_else_is_part_of_them():
    predictor, sample = model("insulator"), labelled("insulator")[2]
    space = sample.tensor_space()
    prediction = predictor.predict(sample.structure, space)
    parts = sum(float(space.integrate(e.detach())) for e in prediction.energy_densities.values())
    energy = predictor.energy(sample.structure, "energy_density", space)
    assert energy == pytest.approx(parts + sample.ion_energy, abs=1e-9)


def test_forces_of_local_ions_are_those_of_the_density():
    predictor, sample = model("metal"), labelled("metal")[2]
    space = sample.tensor_space()
    density = predictor.density(sample.structure, space)
    expected = hellmann_feynman_forces(FUNCTIONAL, sample.structure, density)
    forces = predictor.forces(sample.structure, "hellmann_feynman", space)
    np.testing.assert_allclose(forces, expected, atol=1e-12)
    assert np.abs(forces).max() > 1e-3


@pytest.mark.parametrize(
    ("kind", "functional", "energies", "forces"),
    [
        ("insulator", True, {"energy_density"}, {"hellmann_feynman"}),
        ("metal", True, set(), {"hellmann_feynman"}),
        ("projectors", True, set(), set()),
        ("projectors", False, set(), set()),
    ],
)
def test_what_is_known_is_compared(kind, functional, energies, forces):
    predictor, sample = model(kind, functional), labelled(kind)[2]
    evaluation, _ = evaluate_sample(predictor, sample)
    assert set(evaluation.energies) == {"reference"} | energies
    assert set(evaluation.forces) == {"reference"} | forces
    assert 0 < evaluation.numbers["nmape_percent"] < 20
    assert evaluation.numbers["kinetic_energy_density_error_percent"] > 0
    assert quick_errors(predictor, sample).keys() == {"nmape_percent"}


def test_samples_of_another_theory_are_not_compared():
    with pytest.raises(ModelError, match="the model was trained on"):
        evaluate_sample(model("metal"), labelled("projectors")[2])


@pytest.mark.parametrize("functional", [True, False])
def test_a_saved_model_keeps_what_it_knows(functional, tmp_path):
    predictor = model("metal", functional)
    predictor.save(tmp_path)
    loaded = Predictor.load(tmp_path)
    assert loaded.labels == predictor.labels
    assert loaded.routes == predictor.routes
    assert loaded.theory == LOCAL.describe()


def test_without_a_functional_differences_begin_at_superposed_atoms():
    predictor, sample = model("projectors", False), labelled("projectors")[2]
    assert predictor.functional is None
    assert predictor.baseline.kind == GaussianAtoms.kind
    density = predictor.baseline.density(sample.structure, sample.tensor_space())
    assert float(density.number_of_electrons) == pytest.approx(12, abs=0.05)
    expected = sample.fields["density"]
    error = sample.weights @ np.abs(density.values.numpy() - expected)
    assert error / (sample.weights @ expected) < 0.15
    with pytest.raises(ModelError, match="comes from an orbital-free functional"):
        train(labelled("metal"), GMP([1.0], 1), SHORT, baseline="relaxed_response", device="cpu")


@pytest.mark.parametrize(
    ("kind", "weight", "named"),
    [
        ("metal", "energy_weight", "the energy of the functional"),
        ("projectors", "force_weight", "non-local projectors"),
    ],
)
def test_terms_of_whole_structures_need_what_they_weigh(kind, weight, named):
    settings = replace(SHORT, **{weight: 1.0})
    with pytest.raises(ModelError, match=named):
        train(labelled(kind), DESCRIPTOR, settings, FUNCTIONAL, device="cpu")


def test_a_functional_without_an_element_of_the_data_says_so():
    functional = EnergyFunctional.orbital_free(pseudopotential={"Mg": systems.GTHFIT})
    with pytest.raises(PseudopotentialError, match="no pseudopotential for Al"):
        KohnShamLabels.of(labelled("insulator"), functional)
