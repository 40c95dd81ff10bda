"""Labellers: pure functions of a structure that another process can be given, found by kind."""

import json
import pickle
import sys
from dataclasses import asdict, dataclass, replace

import numpy as np
import pytest
import systems

from fedens.data.sample import Sample
from fedens.energy.functional import EnergyFunctional
from fedens.energy.gth import GTHLocal
from fedens.energy.kohn_sham import KohnSham
from fedens.errors import ConfigurationError
from fedens.fem.modes import spacing_for_cutoff
from fedens.fem.simplex import SimplexSpace
from fedens.fem.tensor import TensorSpace
from fedens.reference.kohn_sham.cutoffs import default_cutoff
from fedens.reference.kohn_sham.kpoints import KPoints
from fedens.reference.kohn_sham.labeller import KohnShamLabeller
from fedens.reference.kohn_sham.smearing import Smearing
from fedens.reference.kohn_sham.solver import solve_kohn_sham
from fedens.reference.labeller import LABELLERS, labeller_from_description
from fedens.reference.orbital_free import OrbitalFreeLabeller, solve_ground_state
from fedens.reference.pyscf.kohn_sham import PySCFLabeller, kohn_sham
from fedens.structure import Structure

FUNCTIONAL = EnergyFunctional.orbital_free("wt", pseudopotential=systems.GTHFIT)
KOHN_SHAM = KohnSham("lda_pz", systems.GTHFIT)
SOFT = GTHLocal(3, 1.2, 2.0)
WATER = Structure(["O", "H", "H"], [[0, 0, 0.2], [0, 1.43, -0.9], [0.1, -1.5, -0.8]])
CASES = {
    "kohn_sham": (
        KohnShamLabeller(KOHN_SHAM, None, 5, 4.0, 0.8, Smearing(0.05, "cold"), 1e-4, 30),
        systems.rattled(),
    ),
    "orbital_free": (OrbitalFreeLabeller(FUNCTIONAL, 0.7, 5, 1e-5, 50), systems.rattled()),
    "pyscf": (PySCFLabeller("lda_pz", "sto-3g", 1, 1e-8, 0.9, 1.0, 8.0, 1), WATER),
}
#: What of a sample's history was chosen, not found.
SETTINGS = (
    *("functional", "space", "residual_tolerance_hartree"),
    *("grid_level", "conv_tol_hartree", "cutoff_hartree", "sampling", "residual_tolerance"),
)


def assert_same(one, other):
    assert one.energy == pytest.approx(other.energy, rel=1e-12)
    assert one.fields.keys() == other.fields.keys()
    np.testing.assert_array_equal(one.points, other.points)
    for name, values in one.fields.items():
        np.testing.assert_allclose(values, other.fields[name], rtol=0, atol=1e-10)
    for key in SETTINGS:
        assert one.provenance.get(key) == other.provenance.get(key), key


@pytest.mark.parametrize("kind", CASES)
def test_a_pickled_labeller_gives_the_same_sample(kind):
    labeller, structure = CASES[kind]
    assert_same(pickle.loads(pickle.dumps(labeller))(structure), labeller(structure))


@pytest.mark.parametrize("kind", CASES)
def test_the_description_is_json_and_makes_the_labeller_again(kind):
    labeller, _ = CASES[kind]
    description = json.loads(json.dumps(labeller.describe()))
    again = labeller_from_description(description)
    assert type(again) is type(labeller)
    assert again.describe() == labeller.describe() == description
    assert description["kind"] == kind


def test_an_orbital_free_label_is_the_ground_state_on_the_space_asked_for():
    labeller, structure = CASES["orbital_free"]
    space = TensorSpace.for_structure(structure, 0.7, 5)
    state = solve_ground_state(structure, space, FUNCTIONAL, residual_tolerance=1e-5)
    sample = labeller(structure)
    assert_same(sample, state.to_sample())


def test_a_kohn_sham_label_is_the_state_on_the_mesh_that_the_cutoff_needs():
    labeller, structure = CASES["kohn_sham"]
    space = TensorSpace.for_structure(structure, spacing_for_cutoff(4.0), 5)
    kpoints, smearing = KPoints.from_spacing(structure, 0.8), Smearing(0.05, "cold")
    state = solve_kohn_sham(
        structure, space, KOHN_SHAM, kpoints, smearing, 4.0, residual_tolerance=1e-4
    )
    sample = labeller(structure)
    assert_same(sample, state.to_sample())
    assert sample.energy == pytest.approx(state.free_energy, rel=1e-12)
    np.testing.assert_array_equal(sample.bands.eigenvalues, state.eigenvalues)
    assert sample.energy_from_fields() == pytest.approx(sample.energy, abs=1e-6)


def test_a_kohn_sham_label_chooses_a_cutoff_and_reports_its_steps():
    labeller, structure = CASES["kohn_sham"]
    steps = []
    free = replace(labeller, cutoff=None, kspacing=None, functional=KohnSham("lda_pz", SOFT))
    sample = free(structure, lambda *step: steps.append(step))
    cutoff = default_cutoff(structure, free.functional)
    assert sample.provenance["cutoff_hartree"] == cutoff
    assert sample.provenance["sampling"]["kpoints"] == 1
    assert [number for number, _, _ in steps] == list(range(1, len(steps) + 1))
    assert steps[-1][2] < labeller.residual_tolerance <= steps[0][2]


def test_cells_of_a_molecule_are_smaller_at_larger_charges():
    labeller, structure = CASES["pyscf"]
    sizes = {"O": 0.9 / 8, "H": 0.9}
    space = SimplexSpace.for_structure(structure, sizes, growth=1.0, margin=8.0, order=1)
    assert_same(
        labeller(structure),
        kohn_sham(structure, space, "lda_pz", "sto-3g", grid_level=1, conv_tol=1e-8),
    )


@dataclass(frozen=True)
class UniformGas:
    """A labeller in one file: the same density everywhere."""

    order: int

    def __call__(self, structure):
        space = TensorSpace.for_structure(structure, 2.0, self.order)
        density = np.full(space.n_points, 1 / structure.volume)
        points, weights = space.points.numpy(), space.weights.numpy()
        return Sample(structure, points, weights, {"density": density}, energy=None)

    def describe(self):
        return {"kind": "uniform_gas", **asdict(self)}

    @classmethod
    def from_description(cls, description):
        return cls(**description)


def test_a_new_labeller_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "uniform_gas", sys.modules[__name__])
    monkeypatch.setitem(LABELLERS, "uniform_gas", "uniform_gas:UniformGas")
    labeller = labeller_from_description(UniformGas(3).describe())
    assert labeller == UniformGas(3)
    assert labeller(systems.fcc()).number_of_electrons == pytest.approx(1.0, rel=1e-12)


@pytest.mark.parametrize("description", [{"kind": "bananas"}, {}, {"kind": None}])
def test_an_unknown_kind_is_refused(description):
    with pytest.raises(ConfigurationError, match=r"no labeller of kind .* orbital_free, pyscf"):
        labeller_from_description(description)
