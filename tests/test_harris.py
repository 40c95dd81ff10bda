"""Harris-Foulkes energy: exact for exact densities, second order in errors; starting guesses."""

import numpy as np
import pytest
import torch
from scipy.linalg import block_diag

from fedens.atoms.spherical import superposed_fields
from fedens.data.density import Density
from fedens.errors import FunctionalError, SpaceError, StructureError
from fedens.fem.simplex import SimplexSpace
from fedens.reference.pyscf.free_atoms import free_atoms, solve_atom
from fedens.reference.pyscf.harris import harris
from fedens.reference.pyscf.kohn_sham import solve_with_pyscf
from fedens.structure import Structure

PBE, LDA = ({"xc": xc, "basis": "sto-3g"} for xc in ("pbe", "lda_pz"))
WATER = Structure(["O", "H", "H"], [[0.1, 0.0, 0.2], [0.0, 1.43, -0.9], [0.2, -1.5, -0.8]])
AMMONIA = Structure(
    ["N", "H", "H", "H"],
    [[0.0, 0.1, 0.2], [1.8, 0.0, -0.5], [-0.9, 1.55, -0.5], [-0.9, -1.5, -0.6]],
)
COARSE, FINE = (0.4, 0.9), (0.2, 0.7)


def superposed(structure, level):
    """Density and gradient of superposed atoms as a function of points."""
    atoms = free_atoms(structure.symbols, **level)

    def density_at(points):
        at = torch.tensor(points, requires_grad=True)
        density = superposed_fields(structure, at, atoms)["density"]
        (slope,) = torch.autograd.grad(density.sum(), at)
        named = {f"gradient_{axis}": slope[:, i].numpy() for i, axis in enumerate("xyz")}
        return {"density": density.detach().numpy()} | named

    return density_at


def atomic_density_matrix(structure, level):
    """The same density as a matrix: atoms have the molecule's basis functions."""
    matrices = {s: solve_atom(s, **level).make_rdm1() for s in set(structure.symbols)}
    return block_diag(*(matrices[s] for s in structure.symbols))


def mixed(first, second, share):
    """The fields of the first with a share of the second's."""

    def density_at(points):
        a, b = first(points), second(points)
        return {name: (1 - share) * a[name] + share * b[name] for name in b}

    return density_at


def exact(state):
    return lambda points: state.fields(points, gradient=True)


@pytest.fixture(scope="module")
def water():
    return solve_with_pyscf(WATER, **PBE, grid_level=1)


@pytest.fixture(scope="module")
def coarse():
    return SimplexSpace.for_structure(WATER, *COARSE)


@pytest.mark.parametrize("level", [PBE, LDA], ids=["gga", "lda"])
def test_exact_density_matrix_gives_the_energy(level):
    options = {**level, "grid_level": 1}
    state = solve_with_pyscf(WATER, **options)
    step = harris(WATER, state.density_matrix, **options)
    assert step.energy == pytest.approx(state.energy, abs=1e-8)
    assert step.density_matrix == pytest.approx(state.density_matrix, abs=1e-5)
    assert step.orbital_energies == pytest.approx(state.mean_field.mo_energy, abs=1e-5)
    assert step.dipole == pytest.approx(state.dipole, abs=2e-4)


@pytest.mark.parametrize("level", [PBE, LDA], ids=["gga", "lda"])
def test_superposed_atoms_as_functions_and_as_a_matrix(level, coarse):
    """All of the closed form: potential, overlap of atoms, and their energies."""
    options = {**level, "grid_level": 3}
    expected = harris(WATER, atomic_density_matrix(WATER, level), **options)
    found = harris(WATER, superposed(WATER, level), **options, space=coarse)
    assert found.energy == pytest.approx(expected.energy, abs=1e-6)
    assert found.density_matrix == pytest.approx(expected.density_matrix, abs=1e-5)


def test_error_is_of_second_order_in_a_density_matrix(water):
    atoms = atomic_density_matrix(WATER, PBE)
    errors = [
        harris(
            WATER, (1 - share) * water.density_matrix + share * atoms, **PBE, grid_level=1
        ).energy
        - water.energy
        for share in (0.2, 0.1, 0.05)
    ]
    assert abs(errors[0]) > 1e-4
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.03)
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.02)


def test_a_wrong_function_is_as_wrong_as_its_matrix(water, coarse):
    share, options = 0.5, {**PBE, "grid_level": 1}
    atoms = atomic_density_matrix(WATER, PBE)
    expected = harris(WATER, (1 - share) * water.density_matrix + share * atoms, **options).energy
    fields = mixed(exact(water), superposed(WATER, PBE), share)
    found = harris(WATER, fields, **options, space=coarse).energy
    assert abs(expected - water.energy) > 0.01
    assert found == pytest.approx(expected, abs=2e-3)  # half of the difference is on the mesh


def test_error_of_the_mesh(water, coarse):
    fine = SimplexSpace.for_structure(WATER, *FINE)
    errors = [
        harris(WATER, exact(water), **PBE, space=space, grid_level=1).energy - water.energy
        for space in (coarse, fine)
    ]
    assert 1e-5 < abs(errors[0]) < 3e-4
    assert abs(errors[1]) < 0.5 * abs(errors[0])
    values = torch.tensor(water.fields(coarse.points)["density"])
    density = Density.from_values(coarse, values)
    step = harris(WATER, density, **PBE, grid_level=1)
    assert step.energy == pytest.approx(water.energy, abs=3e-3)


@pytest.mark.parametrize("structure", [WATER, AMMONIA], ids=["water", "ammonia"])
def test_prediction_saves_cycles(structure):
    """A density with a twentieth of the error of superposed atoms."""
    state = solve_with_pyscf(structure, **PBE, grid_level=1)
    mean_field, cycles = state.mean_field, []
    predicted = mixed(exact(state), superposed(structure, PBE), 0.05)
    space = SimplexSpace.for_structure(structure, *COARSE)
    step = harris(structure, predicted, **PBE, space=space, grid_level=1)
    for start in (mean_field.get_init_guess(key="minao"), step.density_matrix):
        mean_field.kernel(dm0=start)
        assert mean_field.converged
        assert mean_field.e_tot == pytest.approx(state.energy, abs=1e-8)
        cycles.append(mean_field.cycles)
    assert cycles[1] <= cycles[0]


@pytest.mark.parametrize("level", [PBE, LDA], ids=["gga", "lda"])
def test_superposed_atoms_whose_difference_has_no_potential(level):
    """The closed form without a space is exact where the difference is nothing."""
    options = {**level, "grid_level": 3}
    fields = superposed(WATER, level)
    found = harris(WATER, lambda p: fields(p) | {"difference_potential": 0 * p[:, 0]}, **options)
    expected = harris(WATER, atomic_density_matrix(WATER, level), **options)
    assert found.energy == pytest.approx(expected.energy, abs=1e-6)


def test_potential_of_a_prediction_in_closed_form_and_by_poissons_equation(
    water_model, water_samples, bounded
):
    sample = water_samples[0]
    prediction = water_model.predict(sample.structure)
    options = {**PBE, "grid_level": 1, "atoms": prediction.atoms}
    closed = harris(sample.structure, prediction.density_at, **options)

    def without_potential(points):
        fields = prediction.density_at(points)
        del fields["difference_potential"]
        return fields

    differences = []
    for sizes in (COARSE, FINE):
        space = SimplexSpace.for_structure(sample.structure, *sizes)
        step = harris(sample.structure, without_potential, **options, space=space)
        differences.append(abs(step.energy - closed.energy))
    assert differences[0] > 1e-5
    bounded("coarse mesh (hartree)", differences[0], 1.3e-4)
    bounded("fine mesh over coarse mesh", differences[1] / differences[0], 0.09)
    # of second order in an error of half a percent
    bounded("energy (hartree)", abs(closed.energy - sample.energy), 1.8e-4)


def test_self_consistency_from_a_prediction(water_model, water_samples, bounded):
    structure = water_samples[0].structure
    prediction = water_model.predict(structure)
    options = {**PBE, "grid_level": 1}
    step = harris(structure, prediction.density_at, **options, atoms=water_model.atoms)
    plain = solve_with_pyscf(structure, **options)
    started = solve_with_pyscf(structure, **options, density_matrix=step.density_matrix)
    assert started.energy == pytest.approx(plain.energy, abs=1e-9)
    bounded("cycles over PySCF's", started.cycles / plain.cycles, 1)


def test_calculations_that_a_density_does_not_define(water):
    matrix = water.density_matrix
    with pytest.raises(FunctionalError, match="'r2scan' is a meta-GGA"):
        harris(WATER, matrix, "r2scan", "sto-3g")
    with pytest.raises(StructureError, match="density for each spin"):
        harris(WATER.replace(spin=2), matrix, **PBE)
    with pytest.raises(StructureError, match="need k-points"):
        harris(WATER.replace(cell=[9.0] * 3, pbc=True), matrix, **PBE)


def test_densities_that_cannot_be_used(water, coarse):
    fields = exact(water)
    options = {**PBE, "grid_level": 0, "space": coarse}
    bad = {
        "no gradient_x, gradient_y": lambda p: {"density": fields(p)["density"]},
        r"density of shape \(3,\)": lambda p: fields(p[:3]),
        "expected finite numbers": lambda p: fields(p) | {"density": np.full(len(p), np.nan)},
        r"difference_potential of shape \(1,\) at": lambda p: (
            fields(p) | {"difference_potential": np.zeros(1)}
        ),
        "integrates to 5.0.* electrons, the molecule has 10": lambda p: {
            name: values / 2 for name, values in fields(p).items()
        },
        r"shape \(3, 3\): expected finite numbers \(7, 7\)": np.eye(3),
    }
    for message, density in bad.items():
        with pytest.raises(FunctionalError, match=message):
            harris(WATER, density, **options)
    elsewhere = WATER.replace(positions=WATER.positions + 0.1)
    with pytest.raises(SpaceError, match="nuclei at other positions"):
        harris(elsewhere, fields, **options)
    with pytest.raises(FunctionalError, match="no free atom of O"):
        harris(WATER, fields, **options, atoms={})
