"""Labellers: pure functions of a structure that another process can be given."""

import json
import pickle
from dataclasses import asdict, dataclass, fields

import numpy as np
import pytest
import systems

from fedens.data.sample import Sample
from fedens.energy.functional import EnergyFunctional
from fedens.fem.simplex import SimplexSpace
from fedens.fem.tensor import TensorSpace
from fedens.reference.orbital_free import OrbitalFreeLabeller, solve_ground_state
from fedens.reference.pyscf.kohn_sham import PySCFLabeller, kohn_sham
from fedens.structure import Structure

FUNCTIONAL = EnergyFunctional.orbital_free("wt", pseudopotential=systems.GTHFIT)
WATER = Structure(["O", "H", "H"], [[0, 0, 0.2], [0, 1.43, -0.9], [0.1, -1.5, -0.8]])


@dataclass(frozen=True)
class UniformGas:
    """A labeller in one file: the same density everywhere."""

    order: int

    def __call__(self, structure):
        space = TensorSpace.for_structure(structure, 2.0, self.order)
        density = np.full(space.n_points, 1 / structure.volume)
        points, weights = space.points.numpy(), space.weights.numpy()
        return Sample(structure, points, weights, {"density": density}, energy=0.0)

    def describe(self):
        return {"kind": "uniform_gas", **asdict(self)}


CASES = {
    "orbital_free": (OrbitalFreeLabeller(FUNCTIONAL, 0.7, 5, 1e-5, 50), systems.rattled()),
    "pyscf": (PySCFLabeller("lda_pz", "sto-3g", 1, 1e-8, 0.9, 1.0, 8.0, 1), WATER),
    "uniform_gas": (UniformGas(3), systems.fcc()),
}
#: What of a sample's history was chosen, not found.
SETTINGS = (
    *("functional", "space", "residual_tolerance_hartree"),
    *("grid_level", "conv_tol_hartree"),
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
def test_the_description_is_json_and_holds_every_attribute(kind):
    labeller, _ = CASES[kind]
    description = json.loads(json.dumps(labeller.describe()))
    assert description == labeller.describe()
    assert description["kind"] == kind
    assert description.keys() == {"kind"} | {field.name for field in fields(labeller)}


def test_an_orbital_free_label_is_the_ground_state_on_the_space_asked_for():
    labeller, structure = CASES["orbital_free"]
    space = TensorSpace.for_structure(structure, 0.7, 5)
    state = solve_ground_state(structure, space, FUNCTIONAL, residual_tolerance=1e-5)
    sample = labeller(structure)
    assert_same(sample, state.to_sample())


def test_cells_of_a_molecule_are_smaller_at_larger_charges():
    labeller, structure = CASES["pyscf"]
    sizes = {"O": 0.9 / 8, "H": 0.9}
    space = SimplexSpace.for_structure(structure, sizes, growth=1.0, margin=8.0, order=1)
    assert_same(
        labeller(structure),
        kohn_sham(structure, space, "lda_pz", "sto-3g", grid_level=1, conv_tol=1e-8),
    )
