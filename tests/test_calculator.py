"""The ASE calculator: units, exact derivatives, meshes that stay, and what it refuses."""

import copy
import warnings
from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import PropertyNotImplementedError
from ase.filters import UnitCellFilter
from ase.optimize import BFGS
from systems import GTHFIT

from fedens import (
    GMP,
    Calculator,
    Concatenation,
    EnergyFunctional,
    ResponseFields,
    Structure,
    TensorSpace,
    TrainingSettings,
    solve_ground_state,
    train,
)
from fedens.energy.kohn_sham import KohnSham
from fedens.errors import (
    ExtrapolationWarning,
    FedensError,
    FunctionalError,
    ModelError,
    StructureError,
)
from fedens.reference.kohn_sham import solver
from fedens.reference.kohn_sham.kpoints import monkhorst_pack
from fedens.reference.kohn_sham.smearing import Smearing
from fedens.testing import central_difference
from fedens.units import BOHR_IN_ANGSTROM, HARTREE_IN_EV

FUNCTIONAL = EnergyFunctional.orbital_free("wt", pseudopotential=GTHFIT)
EDGE = 7.65 * BOHR_IN_ANGSTROM
#: Finite differences: steps that rounding of single-precision networks does not drown, angstrom
#: and strain.
STEP, STRAIN = 0.005, 5e-4

# a model trained on three small cells finds most others foreign
pytestmark = pytest.mark.filterwarnings("ignore::fedens.errors.ExtrapolationWarning")


def crystal(seed: int | None = None, scale: float = 1.0) -> Atoms:
    """Four atoms; displaced ones, the first beyond the cell's boundary."""
    atoms = bulk("Al", "fcc", a=EDGE * scale, cubic=True)
    if seed is not None:
        atoms.rattle(0.1, seed=seed)
        atoms.positions[0] -= [0.07, 0.03, 0.0]
    return atoms


@pytest.fixture(scope="module")
def predictor():
    samples = []
    for seed, scale in enumerate((0.98, 1.0, 1.02, 1.01)):
        structure = Structure.from_ase(crystal(seed, scale))
        space = TensorSpace.for_structure(structure, spacing=0.5, order=5)
        samples.append(solve_ground_state(structure, space, FUNCTIONAL).to_sample())
    descriptor = Concatenation([GMP([1.0, 2.0], 2, form="smooth"), ResponseFields(FUNCTIONAL)])
    settings = TrainingSettings(hidden=(16,), committee=2, steps=150, batch_points=2000)
    return train(samples, descriptor, settings, device="cpu")


def in_double_precision(predictor):
    """A copy, for differences of energies that the density does not make stationary."""
    precise = copy.deepcopy(predictor)
    for network in precise.networks:
        network.double()
    return precise


def calculators(predictor):
    return {
        "functional": Calculator(predictor),
        "refined once": Calculator(predictor, refinement_steps=1),
        "refined ten times": Calculator(predictor, refinement_steps=10),
        "energy_density": Calculator(in_double_precision(predictor), "energy_density"),
        "solver": Calculator(functional=FUNCTIONAL, spacing=0.5, order=5, residual_tolerance=1e-8),
    }


KINDS = ["functional", "refined once", "refined ten times", "energy_density", "solver"]


@pytest.mark.parametrize("kind", KINDS)
def test_forces_are_the_derivative_of_the_calculators_energy(predictor, kind):
    atoms = crystal(7)
    atoms.calc = calculators(predictor)[kind]
    forces = atoms.get_forces()
    start = atoms.positions.copy()
    assert (start < 0).any()
    for atom, axis in ((0, 0), (2, 1)):

        def energy(shift: float, atom=atom, axis=axis) -> float:
            atoms.positions[:] = start
            atoms.positions[atom, axis] += shift
            return atoms.get_potential_energy()

        expected = -central_difference(energy, STEP)
        assert forces[atom, axis] == pytest.approx(expected, abs=1e-4 * forces.std())


@pytest.mark.parametrize("kind", KINDS)
def test_stress_is_the_derivative_under_uniaxial_and_volumetric_strain(predictor, kind):
    atoms = crystal(8)
    atoms.calc = calculators(predictor)[kind]
    stress = atoms.get_stress()
    assert stress.shape == (6,)
    assert (stress[3:] == 0).all()
    cell = atoms.cell[:].copy()
    for strain in (np.array([0.0, 1.0, 0.0]), np.ones(3)):

        def energy(size: float, strain=strain) -> float:
            atoms.set_cell(cell * (1 + size * strain), scale_atoms=True)
            return atoms.get_potential_energy()

        expected = central_difference(energy, STRAIN) / abs(np.linalg.det(cell))
        assert stress[:3] @ strain == pytest.approx(expected, rel=2e-4, abs=1e-7)


def test_an_atom_crosses_the_boundary_without_a_jump(predictor):
    atoms = crystal(7)
    atoms.calc = Calculator(predictor)
    energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    atoms.wrap()
    assert (atoms.positions >= 0).all()
    assert atoms.get_potential_energy() == pytest.approx(energy, abs=1e-9)
    np.testing.assert_allclose(atoms.get_forces(), forces, atol=1e-7)


def test_numbers_are_the_predictors_in_other_units(predictor):
    atoms = crystal(4)
    atoms.calc = Calculator(predictor)
    structure = Structure.from_ase(atoms)
    energy = predictor.energy(structure) * HARTREE_IN_EV
    assert atoms.get_potential_energy() == pytest.approx(energy, rel=1e-12)
    assert atoms.get_potential_energy(force_consistent=True) == atoms.get_potential_energy()
    uncertainty = atoms.calc.get_property("energy_uncertainty", atoms)
    expected = predictor.uncertainty(structure)
    assert uncertainty == pytest.approx(expected.energy * HARTREE_IN_EV)
    assert atoms.calc.get_property("forces_uncertainty").shape == (4, 3)
    density = atoms.calc.density(atoms)
    assert float(density.number_of_electrons) == pytest.approx(12.0, abs=1e-10)


def test_solver_agrees_with_a_direct_solution():
    atoms = crystal(5)
    atoms.calc = Calculator(functional=FUNCTIONAL)
    structure = Structure.from_ase(atoms)
    state = solve_ground_state(structure, TensorSpace.for_structure(structure), FUNCTIONAL)
    assert atoms.get_potential_energy() == pytest.approx(state.energy * HARTREE_IN_EV, abs=1e-9)
    same = atoms.calc.get_property("hellmann_feynman_forces", atoms)
    np.testing.assert_allclose(atoms.get_forces(), same)


def test_rigid_crystal_feels_no_mesh():
    """The egg-box: 0.05 meV/atom at the default resolution."""
    atoms = bulk("Al", "fcc", a=EDGE, cubic=True) * (2, 2, 2)
    energies = []
    for share in (0.0, 0.2, 0.35, 0.5):
        moved = atoms.copy()
        moved.positions += share * 15.3 / 5 * BOHR_IN_ANGSTROM * np.array([1.0, 0.7, 0.4])
        moved.calc = Calculator(functional=FUNCTIONAL)
        energies.append(1000 * moved.get_potential_energy() / len(moved))
    assert np.ptp(energies) < 0.05


def test_mesh_keeps_its_elements_while_the_cell_breathes(predictor):
    """Else the energy would jump; far away the mesh is made anew."""
    calculator = Calculator(predictor)
    atoms = crystal()
    first = calculator.density(atoms).space
    for factor, same in ((0.93, True), (1.07, True), (1.2, False)):
        scaled = crystal()
        scaled.set_cell(atoms.cell * factor, scale_atoms=True)
        space = calculator.density(scaled).space
        assert space.lengths == pytest.approx([factor * length for length in first.lengths])
        assert (space.shape == first.shape) is same


def test_isolated_atoms_keep_their_box():
    functional = EnergyFunctional.orbital_free("tfvw", pseudopotential=GTHFIT)
    calculator = Calculator(functional=functional, spacing=0.8, order=6)
    dimer = Atoms("Al2", [[0, 0, 0], [0, 0, 2.7]])
    space = calculator.density(dimer).space
    dimer.positions[1, 2] += 0.05
    assert calculator.density(dimer).space is space
    dimer.positions[1, 2] += 6.0
    assert calculator.density(dimer).space is not space
    dimer.calc = calculator
    with pytest.raises(PropertyNotImplementedError, match="periodic cells only"):
        dimer.get_stress()


def test_cell_relaxation_runs_in_ase(predictor):
    atoms = crystal()
    atoms.set_cell(atoms.cell * 1.01, scale_atoms=True)
    atoms.calc = Calculator(predictor, refinement_steps=1)
    before = atoms.get_potential_energy()
    BFGS(UnitCellFilter(atoms), logfile=None).run(fmax=0.05, steps=3)
    assert atoms.get_potential_energy() < before
    assert atoms.cell.angles() == pytest.approx([90.0] * 3)


def test_hellmann_feynman_is_no_conservative_force(predictor):
    atoms = crystal(3)
    atoms.calc = Calculator(predictor, "hellmann_feynman")
    for ask in (atoms.get_forces, atoms.get_potential_energy, atoms.get_stress):
        with pytest.raises(PropertyNotImplementedError, match="not the derivative of an energy"):
            ask()
    forces = atoms.calc.get_property("hellmann_feynman_forces", atoms)
    other = Calculator(predictor).get_property("hellmann_feynman_forces", atoms)
    np.testing.assert_allclose(forces, other)
    assert atoms.calc.get_property("forces_uncertainty", atoms).shape == (4, 3)


def test_what_is_not_there_says_what_is(predictor):
    atoms = crystal()
    for calculator in (Calculator(predictor), Calculator(functional=FUNCTIONAL)):
        with pytest.raises(PropertyNotImplementedError, match="offers energy"):
            calculator.get_property("dipole", atoms)
    with pytest.raises(PropertyNotImplementedError):
        Calculator(functional=FUNCTIONAL).get_property("energy_uncertainty", atoms)


def test_bad_input_is_refused(predictor):
    with pytest.raises(FedensError, match="not both"):
        Calculator()
    with pytest.raises(FedensError, match="not both"):
        Calculator(predictor, functional=FUNCTIONAL)
    with pytest.raises(ModelError, match="functional, energy_density, hellmann_feynman"):
        Calculator(predictor, "magic")
    sheared = bulk("Al", "fcc", a=EDGE)
    sheared.calc = Calculator(predictor)
    with pytest.raises(StructureError, match="sheared"):
        sheared.get_potential_energy()
    broken = crystal()
    broken.positions[2, 1] = np.nan
    broken.calc = Calculator(predictor)
    with pytest.raises(StructureError, match="atom 2"):
        broken.get_forces()


def test_foreign_structures_are_noticed(predictor):
    compressed = crystal()
    compressed.set_cell(0.9 * compressed.cell, scale_atoms=True)
    compressed.calc = Calculator(predictor)
    with pytest.warns(ExtrapolationWarning, match=r"atoms per bohr\^3.*points.*uncertainty"):
        compressed.get_potential_energy()
    compressed.rattle(0.01)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # once is enough in a run of many steps
        compressed.get_potential_energy()


def test_a_model_folder_will_do(predictor, tmp_path):
    predictor.save(tmp_path)
    atoms = crystal(4)
    energy = Calculator(predictor).get_property("energy", atoms)
    assert Calculator(tmp_path).get_property("energy", atoms) == energy


def test_a_model_of_molecules_in_ases_units(water_model, water_samples):
    structure = water_samples[0].structure
    atoms = structure.to_ase()
    atoms.calc = Calculator(water_model)
    found = water_model.energy_and_forces(structure)
    energy, forces = found.energy, found.forces
    assert atoms.get_potential_energy() == pytest.approx(energy * HARTREE_IN_EV, rel=1e-12)
    expected = forces * HARTREE_IN_EV / BOHR_IN_ANGSTROM
    np.testing.assert_allclose(atoms.get_forces(), expected, rtol=1e-9, atol=1e-12)
    prediction = water_model.predict(structure)
    dipole = prediction.dipole * BOHR_IN_ANGSTROM
    np.testing.assert_allclose(atoms.get_dipole_moment(), dipole, rtol=1e-9)
    uncertainty = atoms.calc.get_property("energy_uncertainty", atoms)
    assert uncertainty == pytest.approx(prediction.energy_uncertainty * HARTREE_IN_EV)
    feynman = atoms.calc.get_property("hellmann_feynman_forces", atoms)
    expected = prediction.hellmann_feynman_forces * HARTREE_IN_EV / BOHR_IN_ANGSTROM
    np.testing.assert_allclose(feynman, expected, rtol=1e-9)


def test_a_molecules_forces_are_the_derivative_of_its_energy(water_model, water_samples):
    atoms = water_samples[1].structure.to_ase()
    atoms.calc = Calculator(water_model)
    forces, start = atoms.get_forces(), atoms.positions.copy()

    def energy(shift: float) -> float:
        atoms.positions[:] = start
        atoms.positions[0, 2] += shift
        return atoms.get_potential_energy()

    assert forces[0, 2] == pytest.approx(-central_difference(energy, 0.003), abs=1e-3)


def test_what_a_model_of_molecules_lacks(water_model, water_samples, tmp_path):
    atoms = water_samples[0].structure.to_ase()
    water_model.save(tmp_path)
    atoms.calc = Calculator(tmp_path)
    for ask in (atoms.get_stress, lambda: atoms.calc.get_property("magmom", atoms)):
        with pytest.raises(PropertyNotImplementedError, match=r"offers energy, .*dipole"):
            ask()
    with pytest.raises(FedensError, match=r"no mesh: .*predict\(structure\)"):
        atoms.calc.density(atoms)
    single = replace(water_model, energy_networks=water_model.energy_networks[:1])
    with pytest.raises(PropertyNotImplementedError, match="energy_uncertainty is not available"):
        Calculator(single).get_property("energy_uncertainty", atoms)
    crystal_of_water = atoms.copy()
    crystal_of_water.cell, crystal_of_water.pbc = [9.0] * 3, True
    crystal_of_water.calc = Calculator(water_model)
    with pytest.raises(ModelError, match="isolated molecules"):
        crystal_of_water.get_potential_energy()


KOHN_SHAM = KohnSham("lda_pz", GTHFIT)


def kohn_sham_calculator(smearing=0.05, **options):
    """Coarse: the derivatives are exact all the same."""
    how = {"kpoints": monkhorst_pack((2, 1, 1)), "smearing": smearing, "cutoff": 3.0}
    return Calculator(functional=KOHN_SHAM, order=5, **(how | options))


def test_kohn_sham_forces_and_stress_are_derivatives_of_the_free_energy():
    atoms = crystal(3)
    atoms.calc = kohn_sham_calculator(residual_tolerance=1e-8)
    forces, stress = atoms.get_forces(), atoms.get_stress()

    def free_energy(shift):
        moved = atoms.copy()
        moved.positions[1, 2] += shift
        moved.calc = atoms.calc
        return moved.get_potential_energy(force_consistent=True)

    assert forces[1, 2] == pytest.approx(-central_difference(free_energy, 0.01), abs=2e-4)
    assert np.abs(stress[:3]).max() > 1e-4


@pytest.mark.parametrize(("kind", "share"), [("fermi_dirac", 0.5), ("cold", 1.0)])
def test_the_energy_is_that_at_zero_width(kind, share):
    atoms = crystal(3)
    atoms.calc = kohn_sham_calculator(Smearing(0.05, kind), residual_tolerance=1e-4)
    free, energy = atoms.get_potential_energy(force_consistent=True), atoms.get_potential_energy()
    state = atoms.calc._source._last
    expected = share * state.free_energy + (1 - share) * state.energy
    assert energy == pytest.approx(expected * HARTREE_IN_EV, rel=1e-12)
    assert free == pytest.approx(state.free_energy * HARTREE_IN_EV, rel=1e-12)
    assert (abs(energy - free) > 0.1) == (kind == "fermi_dirac")


def test_a_kohn_sham_calculation_starts_from_the_density_before(monkeypatch):
    guesses, start = [], solver.starting_density

    def noted(structure, space, functional, guess=None):
        guesses.append(guess)
        return start(structure, space, functional, guess)

    monkeypatch.setattr(solver, "starting_density", noted)
    atoms, states = crystal(3), []
    atoms.calc = kohn_sham_calculator(residual_tolerance=1e-4)
    for shift, scale in ((0.0, 1.0), (0.01, 1.0), (0.0, 1.02)):
        atoms.positions[0, 0] += shift
        atoms.set_cell(atoms.cell * scale, scale_atoms=True)
        atoms.get_forces()
        states.append(atoms.calc._source._last)
    assert guesses == [None, states[0].density, None]


def test_k_points_are_of_calculations_with_orbitals(predictor):
    for options in ({"kpoints": monkhorst_pack((2, 2, 2))}, {"smearing": 0.01}, {"cutoff": 8.0}):
        with pytest.raises(FedensError, match="functional=KohnSham"):
            Calculator(functional=FUNCTIONAL, **options)
        with pytest.raises(FedensError, match="functional=KohnSham"):
            Calculator(predictor, **options)


def test_the_mesh_of_a_kohn_sham_calculator_is_as_fine_as_the_cutoff_needs():
    structure = Structure.from_ase(crystal())
    coarse, fine = (
        Calculator(functional=KOHN_SHAM, cutoff=cutoff)._space_for(structure)
        for cutoff in (4.0, 20.0)
    )
    assert fine.finest_spacing < coarse.finest_spacing


def test_parameters_of_other_calculators_are_refused():
    with pytest.raises(FedensError, match="a Calculator has no kpts: "):
        Calculator(functional=KOHN_SHAM, cutoff=4.0, kpts=(4, 4, 4))
    assert Calculator(functional=KOHN_SHAM, label="al").label == "al"


def test_what_is_no_functional_is_refused():
    with pytest.raises(FedensError, match="functional is 'pbe': expected an EnergyFunctional"):
        Calculator(functional="pbe")
    with pytest.raises(FedensError, match="the predictor is a KohnSham: give it by name"):
        Calculator(KOHN_SHAM)


def test_moments_and_charges_of_atoms_are_no_request_that_kohn_sham_passes_over():
    magnetic, charged = crystal(), crystal()
    magnetic.set_initial_magnetic_moments([1, -1, 1, -1])
    charged.set_initial_charges([1, 0, 0, 0])
    for atoms, message in ((magnetic, "initial magnetic moments"), (charged, "add up to 1")):
        atoms.calc = kohn_sham_calculator()
        with pytest.raises(FunctionalError, match=message):
            atoms.get_potential_energy()
