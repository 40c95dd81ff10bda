"""Kohn-Sham reference of molecules: fields against integrals, forces against differences."""

import numpy as np
import pytest

from fedens.data.sample_file import read_sample, write_sample
from fedens.errors import (
    ConvergenceError,
    FunctionalError,
    PseudopotentialError,
    SpaceError,
    StructureError,
)
from fedens.fem.tensor import TensorSpace
from fedens.reference.pyscf.kohn_sham import kohn_sham, solve_with_pyscf
from fedens.reference.pyscf.orbital_fields import hartree_potential
from fedens.structure import Structure


def water(stretch=0.0):
    """A molecule off its minimum, without symmetry."""
    return Structure(
        ["O", "H", "H"], [[0.1, 0.0, 0.2 + stretch], [0.0, 1.43, -0.9], [0.2, -1.5, -0.8]]
    )


def hydrogen(distance=1.4):
    return Structure(["H", "H"], [[0.0, 0.0, 0.0], [0.0, 0.6, (distance**2 - 0.36) ** 0.5]])


def imidogen(distance=2.0):
    """NH, whose ground state is a triplet."""
    return Structure(["N", "H"], [[0.0, 0.0, 0.0], [0.0, 0.0, distance]], spin=2)


def oxygen():
    return Structure(["O"], [[0.3, 0.0, 0.0]], spin=2)


GTH = {"basis": "gth-dzvp", "pseudopotential": "gth-pbe"}
CASES = {
    "hydrogen": (hydrogen(), {}),
    "water": (water(), {}),
    "triplet": (oxygen(), {}),
    "meta-gga": (water(), {"xc": "r2scan"}),
    "polarised meta-gga": (imidogen(), {"xc": "tpss"}),
    "lda": (imidogen(), {"xc": "lda_pz"}),
    "gth": (water(), GTH),
}


@pytest.fixture(scope="module")
def states():
    """Converged states by name of the case, made when asked for."""
    made = {}

    def state(name):
        if name not in made:
            structure, options = CASES[name]
            made[name] = solve_with_pyscf(structure, **options)
        return made[name]

    return state


class Grid:
    """PySCF's own integration grid as points and weights."""

    def __init__(self, state):
        self.points = state.mean_field.grids.coords
        self.weights = state.mean_field.grids.weights


@pytest.mark.parametrize("name", CASES)
def test_fields_integrate_to_the_energies(states, name):
    state = states(name)
    sample = state.to_sample(Grid(state))
    integrals = {field: sample.weights @ values for field, values in sample.fields.items()}
    electrons = 8 if name == "gth" else state.structure.numbers.sum()
    assert integrals["density"] == pytest.approx(electrons, abs=2e-6)
    # the kinetic energy is analytic, the xc energy is an integral on this grid
    assert integrals["kinetic"] == pytest.approx(sample.energies["kinetic"], abs=2e-5)
    assert integrals["xc"] == pytest.approx(sample.energies["xc"], abs=1e-10)
    assert all(sample.fields[field].min() > 0 for field in ("density", "kinetic"))
    parts = [part for part_name, part in sample.energies.items() if part_name != "total"]
    assert sum(parts) == pytest.approx(sample.energy, abs=1e-9)
    assert sample.converged


def test_virial_of_a_molecule_and_an_atom(states):
    """-V/T is 2 for an exact atom, and near 2 in a good basis."""
    for name in ("triplet", "water"):
        energies = states(name).energies
        potential = energies["total"] - energies["kinetic"]
        assert -potential / energies["kinetic"] == pytest.approx(2.0, abs=0.01)


def test_two_electrons_have_the_von_weizsaecker_kinetic_energy(states):
    points = 2 * np.random.default_rng(3).standard_normal((50, 3))
    fields = states("hydrogen").fields(points, gradient=True)
    slope2 = sum(fields[f"gradient_{axis}"] ** 2 for axis in "xyz")
    assert fields["kinetic"] == pytest.approx(slope2 / (8 * fields["density"]), rel=1e-9)


def test_gradient_is_that_of_the_density(states):
    state, step = states("triplet"), 1e-4
    points = np.random.default_rng(4).standard_normal((10, 3))
    fields = state.fields(points, gradient=True)
    for i, axis in enumerate("xyz"):
        shift = step * np.eye(3)[i]
        ahead, behind = (state.fields(points + s)["density"] for s in (shift, -shift))
        assert fields[f"gradient_{axis}"] == pytest.approx(
            (ahead - behind) / (2 * step), rel=1e-5, abs=1e-8
        )


@pytest.mark.parametrize("name", ["water", "gth"])
def test_potential_integrates_with_the_density_to_the_energies(states, name):
    state = states(name)
    grid = Grid(state)
    fields = state.fields(grid.points, potential=True)
    expected = 2 * state.energies["hartree"] + state.energies["nuclear_attraction"]
    integral = grid.weights @ (fields["density"] * fields["potential"])
    assert integral == pytest.approx(expected, abs=2e-5)


def test_potential_far_away_is_that_of_the_dipole(states):
    state = states("water")
    direction = np.array([0.3, -0.5, 0.8])
    far = 400.0 * direction / np.linalg.norm(direction)
    (potential,) = state.fields(far[None], potential=True)["potential"]
    # an electron's potential energy has the opposite sign of the charges' potential
    assert potential == pytest.approx(-(state.dipole @ far) / 400.0**3, rel=0.01)


def test_dipole_of_the_density(states):
    state = states("water")
    sample = state.to_sample(Grid(state))
    electrons = (sample.weights * sample.fields["density"]) @ sample.points
    nuclei = state.structure.numbers @ state.structure.positions
    assert sample.provenance["dipole_electron_bohr"] == pytest.approx(nuclei - electrons, abs=1e-5)


@pytest.mark.parametrize(
    ("molecule", "at", "options"),
    [
        (hydrogen, 1.3, {}),
        (water, 0.0, {"xc": "r2scan", "grid_level": 1}),
        (imidogen, 2.0, {"grid_level": 1}),
        (water, 0.0, GTH | {"grid_level": 3}),
    ],
    ids=["hydrogen", "meta-gga", "polarised", "gth"],
)
def test_forces_are_the_derivative_of_the_energy(molecule, at, options):
    step = 2e-3
    ahead, state, behind = (
        solve_with_pyscf(molecule(at + h), conv_tol=1e-12, **options) for h in (step, 0.0, -step)
    )
    slope = (ahead.energy - behind.energy) / (2 * step)
    direction = (molecule(at + step).positions - molecule(at - step).positions) / (2 * step)
    assert abs(slope) > 1e-3
    assert (state.forces * direction).sum() == pytest.approx(-slope, abs=2e-5)
    assert state.forces.sum(axis=0) == pytest.approx(np.zeros(3), abs=2e-6)


def test_hellmann_feynman_force_is_the_slope_of_the_electrons_potential(states):
    state, step = states("water"), 1e-3
    structure = state.structure
    for atom, charge in enumerate(structure.numbers):
        away = structure.positions[atom] - np.delete(structure.positions, atom, axis=0)
        others = np.delete(structure.numbers, atom)[:, None]
        force = (charge * others * away / np.linalg.norm(away, axis=1)[:, None] ** 3).sum(axis=0)
        for i in range(3):
            ends = structure.positions[atom] + step * np.outer([1, -1], np.eye(3)[i])
            ahead, behind = hartree_potential(state.mean_field.mol, state.density_matrix, ends)
            force[i] += charge * (ahead - behind) / (2 * step)
        assert state.hellmann_feynman_forces[atom] == pytest.approx(force, abs=2e-4)


def test_basis_makes_the_two_forces_differ(states):
    """Pulay's part: large on oxygen, small on hydrogen; hartree/bohr."""
    state = states("water")
    difference = np.abs(state.hellmann_feynman_forces - state.forces).max(axis=1)
    assert 0.3 < difference[0] < 0.8
    assert difference[1:].max() < 0.05


def test_sample_tells_everything_and_can_be_stored(states, tmp_path):
    structure = hydrogen()
    space = TensorSpace.for_structure(structure, spacing=0.8, order=4, margin=5.0)
    sample = kohn_sham(structure, space, "pbe", gradient=True, potential=True, conv_tol=1e-9)
    assert sample.provenance["functional"] == {
        "method": "Kohn-Sham",
        "xc": "pbe",
        "basis": "def2-svp",
        "pseudopotential": None,
    }
    assert sample.provenance["code"].startswith("PySCF 2.")
    assert sample.provenance["conv_tol_hartree"] == 1e-9
    assert sample.provenance["grid_level"] == 4
    assert sample.provenance["space"] == space.describe()
    assert sample.energy == pytest.approx(states("hydrogen").energy, abs=1e-8)
    path = tmp_path / "h2.h5"
    write_sample(sample, path)
    stored = read_sample(path)
    assert set(stored.fields) == {
        *("density", "kinetic", "xc", "potential"),
        *("gradient_x", "gradient_y", "gradient_z"),
    }
    assert stored.energies == sample.energies
    forces = stored.provenance["hellmann_feynman_forces_hartree_per_bohr"]
    assert np.array(forces).shape == (2, 3)


def test_bare_points_have_no_weights(states):
    sample = states("triplet").to_sample(np.array([[0.0, 0.0, 1.0], [0.0, 2.0, 0.0]]))
    assert np.isnan(sample.weights).all()
    assert np.isnan(sample.number_of_electrons)
    assert sample.fields["density"].shape == (2,)
    for points in (np.zeros((3, 2)), np.zeros((0, 3)), np.zeros(3), [[0.0, 0.0, np.nan]]):
        with pytest.raises(SpaceError, match="expected a space"):
            kohn_sham(oxygen(), points)


@pytest.mark.parametrize("name", ["water", "polarised meta-gga"])
def test_density_matrix_to_start_from(states, name):
    """From the solution, of both spins where there are two, little is left to do."""
    state = states(name)
    options = CASES[name][1] | {"density_matrix": state.mean_field.make_rdm1()}
    again = solve_with_pyscf(state.structure, **options)
    assert again.cycles < state.cycles / 2
    assert again.energy == pytest.approx(state.energy, abs=1e-9)


def test_unfinished_result_is_kept():
    with pytest.raises(ConvergenceError, match="after 2 cycles") as caught:
        solve_with_pyscf(water(), max_cycles=2)
    assert not caught.value.result.converged
    assert caught.value.result.cycles == 2
    state = solve_with_pyscf(water(), max_cycles=2, require_convergence=False)
    assert state.energy == pytest.approx(caught.value.result.energy)


@pytest.mark.parametrize(
    ("structure", "message"),
    [
        (Structure(["H"], [[0, 0, 0]], cell=[9.0] * 3, pbc=True), "need k-points"),
        (Structure(["H"], [[0, 0, 0]]), "1 electrons, an odd number, and spin = 0"),
        (hydrogen().replace(spin=1), "2 electrons, an even number, and spin = 1"),
        (hydrogen().replace(spin=4), "up to 2"),
        (hydrogen().replace(charge=0.5), "whole number"),
        (hydrogen().replace(charge=2), "at least one"),
        (hydrogen().replace(occupancies=[1.0, 0.5]), "occupancies must be 1"),
    ],
)
def test_structures_without_a_calculation(structure, message):
    with pytest.raises(StructureError, match=message):
        solve_with_pyscf(structure)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"xc": "bananas"}, "'bananas' is not known"),
        ({"xc": "pbe0"}, "exact exchange"),
        ({"xc": "hf"}, "exact exchange"),
        ({"xc": "scan_rvv10"}, "non-local correlation"),
        ({"xc": "pbe-d3bj"}, "a dispersion correction"),
        ({"xc": "mgga_x_br89"}, "the Laplacian"),
        ({"basis": "bananas"}, "'bananas' has nothing for I"),
        ({"basis": "def2-svp"}, "leaves 28 core electrons of I"),
        ({"basis": "gth-dzvp"}, "made for a pseudopotential"),
    ],
)
def test_levels_of_theory_without_fields(options, message):
    iodide = Structure(["I"], [[0, 0, 0]], charge=-1)
    with pytest.raises(FunctionalError, match=message):
        solve_with_pyscf(iodide, **({"basis": "sto-3g"} | options))


def test_pseudopotentials_that_are_missing_or_have_no_forces():
    with pytest.raises(PseudopotentialError, match="'gth-bananas' has nothing for H"):
        solve_with_pyscf(hydrogen(), basis="gth-dzvp", pseudopotential="gth-bananas")
    sample = kohn_sham(hydrogen(), np.ones((1, 3)), **GTH)
    assert sample.forces is None
    assert sample.energies["projectors"] == 0.0
    state = solve_with_pyscf(hydrogen(), **GTH)
    with pytest.raises(PseudopotentialError, match="no projectors"):
        _ = state.forces
    with pytest.raises(PseudopotentialError, match="needs all electrons"):
        _ = state.hellmann_feynman_forces
