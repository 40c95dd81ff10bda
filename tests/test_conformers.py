"""Conformers: modes against PySCF's analysis and energies, widths against closed forms."""

import numpy as np
import pytest

from fedens.errors import ConvergenceError, StructureError
from fedens.reference.pyscf.kohn_sham import solve_with_pyscf
from fedens.sources.conformers import (
    conformers,
    modes_of_hessian,
    normal_modes,
    relaxed,
)
from fedens.structure import Structure

LEVEL = {"xc": "lda_pz", "basis": "sto-3g"}
WATER = Structure(["O", "H", "H"], [[0.1, 0.0, 0.2], [0.0, 1.5, -0.9], [0.2, -1.5, -0.9]])
KELVIN = 3.166811563e-6  # hartree, CODATA 2018


@pytest.fixture(scope="module")
def minimum():
    return relaxed(WATER, **LEVEL)


@pytest.fixture(scope="module")
def modes(minimum):
    return normal_modes(minimum, **LEVEL)


def test_relaxed_structure_has_no_forces(minimum):
    forces = solve_with_pyscf(minimum, **LEVEL).forces
    assert np.linalg.norm(forces, axis=1).max() < 2.5e-4
    assert np.linalg.norm(solve_with_pyscf(WATER, **LEVEL).forces, axis=1).max() > 0.02


def test_wave_numbers_are_those_of_pyscf(minimum, modes):
    from pyscf.hessian.thermo import harmonic_analysis

    mean_field = solve_with_pyscf(minimum, **LEVEL).mean_field
    hessian = mean_field.Hessian().kernel()
    expected = harmonic_analysis(mean_field.mol, hessian)["freq_wavenumber"]
    # the masses and constants of ASE and PySCF differ in the fifth digit
    assert modes.wave_numbers == pytest.approx(expected.real, rel=1e-4)
    assert 1000 < modes.wave_numbers[0] < modes.wave_numbers[1] < modes.wave_numbers[2] < 5000


def test_energy_along_a_mode_curves_as_its_frequency_says(minimum, modes):
    step = 3.0  # bohr m_e^(1/2), 0.05 bohr on hydrogen
    shift = step * modes.displacements[1]
    ahead, middle, behind = (
        solve_with_pyscf(minimum.replace(positions=minimum.positions + s * shift), **LEVEL).energy
        for s in (1, 0, -1)
    )
    curvature = (ahead - 2 * middle + behind) / step**2
    assert curvature == pytest.approx(modes.curvatures[1], rel=0.02)


def test_modes_neither_move_nor_turn_the_molecule(minimum, modes):
    masses = np.array([15.999, 1.008, 1.008])
    weighted = modes.displacements * masses[:, None]
    centred = minimum.positions - masses @ minimum.positions / masses.sum()
    size = np.abs(weighted).max()
    assert np.abs(weighted.sum(axis=1)).max() < 1e-10 * size
    assert np.abs(np.cross(centred, weighted).sum(axis=1)).max() < 1e-10 * size


def spring(stiffness, symbols=("H", "F"), distance=1.8):
    """Two atoms on a spring along (0, 3, 4)."""
    axis = np.array([0.0, 0.6, 0.8])
    structure = Structure(list(symbols), [[0.5, 0.0, 0.0], [0.5, 0.0, 0.0] + distance * axis])
    block = stiffness * np.outer(axis, axis)
    return structure, np.block([[block, -block], [-block, block]])


def test_one_mode_exactly():
    """A spring's frequency is sqrt(k / mu); its width is known at all temperatures."""
    modes = modes_of_hessian(*spring(0.6))
    mass = 1822.888486 * 1.008 * 18.998 / (1.008 + 18.998)
    frequency = np.sqrt(0.6 / mass)
    assert modes.curvatures == pytest.approx([frequency**2], rel=1e-5)
    for temperature in (300.0, 5000.0):
        boltzmann = np.exp(-frequency / (KELVIN * temperature))
        quanta = boltzmann / (1 - boltzmann)
        # <q^2> = (n + 1/2) / w
        expected = np.sqrt((quanta + 0.5) / frequency)
        assert modes.amplitudes(temperature) == pytest.approx([expected], rel=1e-5)
    assert modes.amplitudes(0) == pytest.approx([np.sqrt(0.5 / frequency)], rel=1e-5)
    hot = 1e7
    assert modes.amplitudes(hot) == pytest.approx(np.sqrt([KELVIN * hot]) / frequency, rel=1e-4)
    stretch = np.linalg.norm(modes.displacements[0, 1] - modes.displacements[0, 0])
    assert stretch == pytest.approx(1 / np.sqrt(mass), rel=1e-5)


def test_covariance_of_the_conformers(modes):
    count, temperature = 3000, 500.0
    sampled = modes.sample(count, temperature, seed=5)
    shifts = np.array([s.positions - modes.structure.positions for s in sampled])
    shifts = shifts.reshape(count, -1)
    vectors = modes.displacements.reshape(3, -1)
    expected = (vectors.T * modes.amplitudes(temperature) ** 2) @ vectors
    # an element's standard error is at most sqrt(2 / count) of the largest variance
    tolerance = 4 * np.sqrt(2 / count) * expected.max()
    assert np.cov(shifts.T) == pytest.approx(expected, abs=tolerance)
    error_of_mean = np.sqrt(expected.max() / count)
    assert shifts.mean(axis=0) == pytest.approx(np.zeros(9), abs=4 * error_of_mean)


def test_a_longer_series_begins_with_the_same_structures(modes):
    short, long, other = (
        [s.positions for s in modes.sample(n, 300.0, seed)] for n, seed in ((2, 1), (4, 1), (2, 2))
    )
    assert np.array_equal(short, long[:2])
    assert not np.isclose(short, other).all(axis=(1, 2)).any()


def test_conformers_of_a_relaxed_molecule():
    options = {**LEVEL, "relax": True, "seed": 3}
    molecule = Structure(["H", "H"], [[0.0, 0.0, 0.0], [0.0, 0.0, 1.6]])
    (first,) = conformers(molecule, 1, 500.0, **options)
    assert first.symbols == ["H", "H"]
    minimum = relaxed(molecule, **LEVEL)
    bond, at_rest = (np.ptp(s.positions[:, 2]) for s in (first, minimum))
    assert 0.01 < abs(bond - at_rest) < 0.8


#: Of linear H3+ at this level, where its forces vanish, bohr.
BOND = 1.692


def test_imaginary_modes_are_refused():
    axis = np.array([[0.0, 0.0, 1.0]])
    linear = Structure(["H"] * 3, np.array([[-BOND], [0.0], [BOND]]) * axis, charge=1)
    with pytest.raises(StructureError, match=r"imaginary modes, \d+i, \d+i 1/cm.*saddle point"):
        conformers(linear, 1, 300.0, **LEVEL)
    (first,) = conformers(linear, 1, 300.0, **LEVEL, skip_imaginary=True)
    assert np.abs(first.positions[:, :2]).max() < 1e-6
    assert np.abs(first.positions - linear.positions).max() > 0.01


def test_what_cannot_be_sampled(minimum, modes):
    with pytest.raises(StructureError, match=r"largest force on OH2 is .*relax=True"):
        conformers(WATER, 1, 300.0, **LEVEL)
    with pytest.raises(StructureError, match="single atom"):
        conformers(Structure(["He"], [[0, 0, 0]]), 1, 300.0, **LEVEL)
    with pytest.raises(StructureError, match=r"shape \(3, 3\): expected finite numbers \(9, 9\)"):
        modes_of_hessian(minimum, np.eye(3))
    for temperature in (-1.0, np.nan):
        with pytest.raises(StructureError, match="expected kelvin"):
            modes.amplitudes(temperature)
    with pytest.raises(ConvergenceError, match="after 1 steps") as caught:
        relaxed(WATER, **LEVEL, max_steps=1)
    assert not np.array_equal(caught.value.result.positions, WATER.positions)
    with pytest.raises(StructureError, match="bohr apart"):
        modes.sample(100, 1e5)
