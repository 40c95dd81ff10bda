"""Errors of predictions against closed forms: percent, near nuclei, units, signs, means."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ase.units import Bohr, Debye, Hartree, kcal, mol

from fedens.analysis import crystals, molecules
from fedens.analysis.errors import near_nuclei
from fedens.atoms.spherical import SphericalAtom, pair_energy, superposed_fields
from fedens.data.sample import ENERGY_DENSITIES, Sample
from fedens.fem.tensor import TensorSpace
from fedens.structure import Structure

KCAL_PER_MOL = Hartree * mol / kcal
EDGES = (6.0, 7.0, 8.0)
#: One atom at the corner of its cell: most points near it are near its images.
CORNER = Structure(["Al"], [[0.0, 0.0, 0.0]], cell=EDGES, pbc=True)
SPACE = TensorSpace.for_structure(CORNER, spacing=0.25, order=4)
ELECTRONS = 3.0
UNIFORM = ELECTRONS / np.prod(EDGES)


def distances_to_images(points):
    """From the nucleus at the corner or its nearest image, (n_points,)."""
    box = np.array(EDGES)
    return np.linalg.norm(points - box * np.round(points / box), axis=1)


def crystal_errors(density, raw=None, **energy_densities):
    """Errors against a uniform density and energy densities of 1, 2 and -4 hartree/bohr^3."""
    points, ones = SPACE.points.numpy(), np.ones(SPACE.n_points)
    reference = dict(zip(ENERGY_DENSITIES, (1.0, 2.0, -4.0), strict=True))
    fields = {"density": UNIFORM * ones} | {name: v * ones for name, v in reference.items()}
    sample = Sample(CORNER, points, SPACE.weights.numpy(), fields, 0.0)
    given = reference | energy_densities
    prediction = SimpleNamespace(
        density=SimpleNamespace(values=torch.as_tensor(density)),
        raw_root=torch.as_tensor(density if raw is None else raw).sqrt(),
        electrons=ELECTRONS,
        energy_densities={name: torch.as_tensor(v * ones) for name, v in given.items()},
    )
    return crystals.field_errors(prediction, sample, SPACE)


def test_percent_errors_are_of_the_whole_reference():
    """2 % too much in one half of the cell, 4 % too little in the other: 3 %."""
    density = UNIFORM * np.where(SPACE.points.numpy()[:, 0] < EDGES[0] / 2, 1.02, 0.96)
    errors = crystal_errors(density, kinetic=1.25, xc=1.9, electrostatic=-4.4)
    assert errors["nmape_percent"] == pytest.approx(3, rel=1e-12)
    assert errors["kinetic_energy_density_error_percent"] == pytest.approx(25, rel=1e-12)
    assert errors["xc_energy_density_error_percent"] == pytest.approx(5, rel=1e-12)
    assert errors["electrostatic_energy_density_error_percent"] == pytest.approx(10, rel=1e-12)


def test_near_nuclei_means_within_one_bohr_of_a_nucleus_or_its_image():
    """Errors up to 1 bohr from an image only: 8 % where x lies in the far half, 2 % in the near."""
    points = SPACE.points.numpy()
    near = distances_to_images(points) < 1.0
    wrong = near * np.where(points[:, 0] > EDGES[0] / 2, 0.08, 0.02)
    errors = crystal_errors(UNIFORM * (1 + wrong))
    assert errors["density_error_near_nuclei_percent"] == pytest.approx(5, rel=1e-12)
    ball = 4 / 3 * np.pi
    share = ball / np.prod(EDGES)
    assert errors["nmape_percent"] == pytest.approx(5 * share, rel=0.02)
    volume = SPACE.weights.numpy() @ near_nuclei(CORNER, points)
    assert volume == pytest.approx(ball, rel=0.02)


def test_charge_and_dipole_are_of_the_density_before_it_is_normalised():
    """n (1 + 0.01 + b (y - L/2)): 1 % too much, and a dipole of b N L^2 / 12."""
    slope, length = 0.003, EDGES[1]
    raw = UNIFORM * (1.01 + slope * (SPACE.points[:, 1] - length / 2))
    errors = crystal_errors(UNIFORM * np.ones(SPACE.n_points), raw)
    assert errors["nmape_percent"] == pytest.approx(0, abs=1e-12)
    assert errors["charge_error_before_normalisation_percent"] == pytest.approx(1, rel=1e-10)
    dipole = slope * ELECTRONS * length**2 / 12
    assert errors["dipole_error_before_normalisation_e_bohr"] == pytest.approx(dipole, rel=1e-10)


def test_energies_and_forces_of_crystals_are_in_mev():
    """Of three atoms; an energy that is too low has a negative error."""
    structure = Structure(["Al"] * 3, np.eye(3), cell=EDGES, pbc=True)
    sample = Sample(structure, np.zeros((1, 3)), np.ones(1), {}, energy=-6.0)
    errors = crystals.energy_errors({"functional": -6.03, "energy_density": -5.4}, sample)
    assert errors == {
        "energy_error_functional_mev_per_atom": pytest.approx(-0.01 * Hartree * 1000),
        "energy_error_energy_density_mev_per_atom": pytest.approx(0.2 * Hartree * 1000),
    }
    reference = np.array([[1.0, -1.0, 2.0], [0.0, 0.0, 4.0]])
    wrong = np.array([[0.1, -0.2, 0.3], [-0.4, 0.5, -0.6]])
    errors = crystals.force_errors({"functional": reference + wrong}, reference)
    unit = Hartree / Bohr * 1000
    assert errors == {
        "force_mae_functional_mev_per_angstrom": pytest.approx(0.35 * unit),
        "force_spread_reference_mev_per_angstrom": pytest.approx(np.sqrt(22 / 6 - 1) * unit),
    }


# ---------------------------------------------------------------------- molecules


def exponential_atom(charge):
    """A shell Z a^3 exp(-a r) / (8 pi), a = 2; its other fields are multiples of the density."""
    r = np.geomspace(1e-7, 40.0, 2048)
    density = charge * 8 / (8 * np.pi) * np.exp(-2 * r)
    return SphericalAtom(charge, r, density, 2 * density, -0.5 * density)


HYDROGEN = Structure(["H", "H"], [[0.0, 0.0, -0.9], [0.1, 0.0, 0.9]])
ATOMS = {"H": exponential_atom(1.0)}
LINE = np.linspace(-3.75, 3.75, 16)
POINTS = np.stack(np.meshgrid(LINE, LINE, LINE, indexing="ij"), axis=-1).reshape(-1, 3)
WEIGHTS = np.full(len(POINTS), 0.125)
VOLUME = WEIGHTS.sum()
SUPERPOSED = {
    name: values.numpy()
    for name, values in superposed_fields(HYDROGEN, torch.tensor(POINTS), ATOMS).items()
}
#: Fields of the reference minus superposed atoms: the density's has a dipole along x.
TRUE = {"density": 0.01 + 0.002 * POINTS[:, 0], "kinetic": 0.3, "xc": -0.2}
DIPOLE = np.array([-0.002 * (WEIGHTS @ POINTS[:, 0] ** 2), 0.0, 0.0])
FIELDS = {name: SUPERPOSED[name] + TRUE[name] for name in TRUE}


def molecular_errors(wrong, dipole=DIPOLE, spread=None, electrostatic=0.0):
    """Errors of a prediction that differs from the reference by ``wrong``, by field."""
    ones = np.ones(len(POINTS))
    learned = {name: torch.tensor((TRUE[name] + wrong.get(name, 0.0)) * ones) for name in TRUE}
    prediction = SimpleNamespace(
        atoms=ATOMS,
        differences=lambda _: learned,
        density_uncertainty=lambda _: None if spread is None else torch.tensor(spread * ones),
        dipole=dipole,
        electrostatic=lambda _: torch.tensor(electrostatic * ones),
    )
    sample = Sample(HYDROGEN, POINTS, WEIGHTS, FIELDS, energy=-1.0)
    return molecules.field_errors(prediction, sample)


def test_percent_errors_of_a_molecule():
    errors = molecular_errors({"density": -0.004, "kinetic": 0.06, "xc": -0.05}, spread=0.002)
    share = 100 * VOLUME / (WEIGHTS @ FIELDS["density"])
    assert errors["nmape_percent"] == pytest.approx(0.004 * share, rel=1e-12)
    assert errors["nmape_superposed_atoms_percent"] == pytest.approx(0.01 * share, rel=1e-12)
    assert errors["density_uncertainty_percent"] == pytest.approx(0.002 * share, rel=1e-12)
    assert errors["kinetic_difference_error_percent"] == pytest.approx(20, rel=1e-10)
    assert errors["xc_difference_error_percent"] == pytest.approx(25, rel=1e-10)
    assert errors["charge_error_by_quadrature_e"] == pytest.approx(0.006 * VOLUME, rel=1e-10)


def test_near_nuclei_of_a_molecule_means_within_one_bohr():
    """Wrong by 3 % of the density within 1 bohr of either nucleus, by 1 % elsewhere."""
    distances = np.linalg.norm(POINTS[:, None] - HYDROGEN.positions, axis=-1)
    share = np.where((distances < 1).any(axis=1), 0.03, 0.01)
    errors = molecular_errors({"density": share * FIELDS["density"]})
    assert errors["density_error_near_nuclei_percent"] == pytest.approx(3, rel=1e-12)
    assert 1 < errors["nmape_percent"] < 2.9


def test_dipole_of_a_molecule_is_in_debye_and_of_the_right_sign():
    wrong = np.array([0.3, 0.0, -0.4])
    assert molecular_errors({})["dipole_error_debye"] == pytest.approx(0, abs=1e-10)
    errors = molecular_errors({}, DIPOLE + wrong)
    assert errors["dipole_error_debye"] == pytest.approx(0.5 * Bohr / Debye, rel=1e-10)


def test_energy_of_all_predicted_fields_is_in_kcal_per_mol():
    """Free atoms, their pair energy, and the integral of three learned fields; reference -1."""
    errors = molecular_errors({"kinetic": 0.05}, electrostatic=0.02)
    atoms = 2 * sum(ATOMS["H"].energies.values()) + float(pair_energy(HYDROGEN, ATOMS))
    energy = atoms + (0.35 - 0.2 + 0.02) * VOLUME
    name = "energy_error_all_fields_kcal_per_mol"
    assert errors[name] == pytest.approx((energy + 1.0) * KCAL_PER_MOL, rel=1e-10)


def test_forces_of_a_molecule_are_compared_in_kcal_per_mol_per_angstrom():
    """Means over components; those of Pulay by element, here of oxygen and hydrogen."""
    reference = np.array([[1.0, 2.0, -3.0], [0.5, 0.0, 1.5]])
    feynman = reference + np.array([[1.0, -2.0, 3.0], [0.4, -0.5, 0.6]])
    prediction = SimpleNamespace(hellmann_feynman_forces=feynman - 0.7)
    forces = reference + np.array([[0.1, -0.2, 0.3], [-0.4, 0.5, -0.6]])
    found = molecules.force_errors(prediction, np.array([8, 1]), forces, reference, feynman)
    expected = {
        "force_mae": 0.35,
        "force_rms_reference": np.sqrt((1 + 4 + 9 + 0.25 + 2.25) / 6),
        "force_mae_hellmann_feynman": 0.7,
        "pulay_largest": 3.0,
        "pulay_heavy_atoms": 2.0,
        "pulay_hydrogen": 0.5,
    }
    assert set(found) == {f"{key}_kcal_per_mol_angstrom" for key in expected}
    for key, value in expected.items():
        in_unit = value * KCAL_PER_MOL / Bohr
        assert found[f"{key}_kcal_per_mol_angstrom"] == pytest.approx(in_unit, rel=1e-10), key
    alone = molecules.force_errors(prediction, np.array([8, 1]), forces, reference)
    assert set(alone) == {
        "force_mae_kcal_per_mol_angstrom",
        "force_rms_reference_kcal_per_mol_angstrom",
    }
