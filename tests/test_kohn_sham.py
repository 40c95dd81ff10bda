"""Kohn-Sham crystals and molecules: against ABINIT, exact answers, and finite differences."""

import math

import numpy as np
import pytest
import torch
from systems import FCC, GTHFIT, fcc

from fedens import (
    GTH,
    Density,
    EnergyFunctional,
    EvanescentCore,
    GTHLocal,
    KohnSham,
    SimplexSpace,
    Structure,
    TensorSpace,
    monkhorst_pack,
    solve_kohn_sham,
)
from fedens.errors import (
    ConvergenceError,
    DatasetError,
    FunctionalError,
    SamplingError,
    SpaceError,
)
from fedens.fem.modes import space_for_cutoff
from fedens.reference.kohn_sham.smearing import HIGHEST_TOP_OCCUPATION, Smearing
from fedens.testing.differences import central_difference

EDGE = 7.65
#: One point of low symmetry, its kinetic energies in steps of 0.17 hartree in this cell.
GENERAL = ([[0.25, 0.25, 0.25]], [1.0])
BALDERESCHI = (
    [[0.25, 0.25, 0.25], [0.25, 0.25, -0.25], [0.25, -0.25, 0.25], [0.25, -0.25, -0.25]],
    [0.25] * 4,
)

# ABINIT 9.6.2, no symmetry, Fermi-Dirac with kT = 0.01 hartree; plane waves up to 24 hartree.
# Four aluminium atoms, the local potential GTHFIT, LDA of Perdew and Zunger.
LOCAL = {
    "positions": [
        [-0.148571918892, -0.000288855024, 0.040599343049],
        [-0.188524396651, 3.684170433831, 3.996284409184],
        [3.653168230462, -0.14809042024, 4.004331381317],
        [3.873753437119, 3.772597249492, 0.004556008721],
    ],
    "free_energy": -8.4893326828,
    "entropy_energy": -0.037595,
    "forces": [
        [0.005689111, -0.00192365, 0.00808396],
        [0.006236557, 0.001612825, -0.008553106],
        [-0.004996171, -0.000622272, -0.008177934],
        [-0.006929497, 0.000933097, 0.008647081],
    ],
    "stress": [-2.3408809e-05, -3.2700952e-05, -6.877473e-06],
}
# GTH-PADE of aluminium with its projectors, LDA of Teter, 44 hartree.
PADE = {
    "positions": [
        [0.145919034807, 0.142121005973, 0.124409359514],
        [-0.095421455433, 3.655879783087, 4.003586312178],
        [3.870516676419, -0.198947698549, 3.989162871226],
        [4.018921390095, 3.739518641666, 0.125464449216],
    ],
    "free_energy": -8.3946431265,
    "forces": [
        [0.003262005, -0.007715202, 0.002540947],
        [0.00661241, 0.005699712, -0.00279902],
        [-0.003774223, -0.002489301, -0.002273919],
        [-0.006100192, 0.004504791, 0.002531991],
    ],
    "stress": [4.324955e-05, 3.9361946e-05, 3.9883186e-05],
    "nonlocal": 1.5675571502,
    "kinetic": 3.5650018127,
}


def displaced(shift=(0.0, 0.0, 0.0)):
    positions = np.array(LOCAL["positions"]) + np.array(shift)
    return Structure(["Al"] * 4, positions, cell=[EDGE] * 3, pbc=True)


def local_aluminium():
    return KohnSham("lda_pz", GTHFIT)


def pade_aluminium():
    return KohnSham("lda_teter", GTH.load("Al", "gth-pade-q3"))


def pbe_aluminium():
    return KohnSham("pbe", GTH.load("Al", "gth-pbe-q3"))


def quick(structure=None, functional=None, **options):
    """A small, coarse calculation that is exact all the same for its basis."""
    structure = structure or displaced()
    space = TensorSpace(np.diag(structure.cell).tolist(), 2, 8)
    defaults = {"kpoints": GENERAL, "smearing": 0.02, "cutoff": 6.0}
    functional = functional or local_aluminium()
    return solve_kohn_sham(structure, space, functional, **(defaults | options))


@pytest.fixture(scope="module")
def state():
    return quick()


def test_local_aluminium_against_abinit():
    structure = displaced()
    state = solve_kohn_sham(
        structure, space_for_cutoff(structure, 24), local_aluminium(), BALDERESCHI, 0.01, 24
    )
    assert abs(state.free_energy - LOCAL["free_energy"]) / 4 < 1e-6
    assert abs(state.entropy_energy - LOCAL["entropy_energy"]) < 1e-6
    forces = state.forces - state.forces.mean(axis=0)  # ABINIT takes the mean off
    assert np.abs(forces - LOCAL["forces"]).max() < 2e-6
    assert np.abs(state.stress - LOCAL["stress"]).max() < 3e-8


@pytest.mark.slow
def test_aluminium_with_projectors_against_abinit():
    structure = Structure(["Al"] * 4, PADE["positions"], cell=[EDGE] * 3, pbc=True)
    state = solve_kohn_sham(
        structure, space_for_cutoff(structure, 44), pade_aluminium(), BALDERESCHI, 0.01, 44
    )
    assert abs(state.free_energy - PADE["free_energy"]) / 4 < 1e-6
    assert abs(state.energies["nonlocal"] - PADE["nonlocal"]) < 1e-5
    assert abs(state.energies["kinetic"] - PADE["kinetic"]) < 1e-5
    forces = state.forces - state.forces.mean(axis=0)
    assert np.abs(forces - PADE["forces"]).max() < 2e-6
    assert np.abs(state.stress - PADE["stress"]).max() < 3e-8


@pytest.mark.slow
def test_energy_converges_with_the_cutoff_from_above():
    energies = [quick(cutoff=cutoff).free_energy for cutoff in (4, 6, 8, 10)]
    steps = -np.diff(energies)
    assert (steps > 0).all()
    assert (steps[1:] < 0.5 * steps[:-1]).all()


@pytest.mark.slow
def test_rigid_crystal_may_move_through_the_mesh():
    """Below 0.02 meV/atom, and no net force to speak of."""
    space = space_for_cutoff(displaced(), 16)
    element = EDGE / (len(space.axes[0].edges) - 1)
    states = [
        solve_kohn_sham(displaced(t * element * np.array([1, 0.7, 0.4])), space, local_aluminium(),
                        GENERAL, 0.01, 16)
        for t in (0, 0.25, 0.5)
    ]  # fmt: skip
    assert np.ptp([s.free_energy for s in states]) / 4 < 0.02 / 27211.4
    assert max(np.abs(s.forces.sum(axis=0)).max() for s in states) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("functional", "smearing", "density_cutoff"),
    [
        (local_aluminium(), Smearing(0.02), None),
        (local_aluminium(), Smearing(0.02), 9.0),
        (local_aluminium(), Smearing(0.03, "gaussian"), None),
        (local_aluminium(), Smearing(0.03, "methfessel_paxton"), None),
        (local_aluminium(), Smearing(0.03, "cold"), None),
        (pade_aluminium(), Smearing(0.02), None),
        (pbe_aluminium(), Smearing(0.02), None),
    ],
    ids=["local", "coarse_grid", "gaussian", "methfessel_paxton", "cold", "projectors", "pbe"],
)
def test_forces_are_the_derivative_of_the_free_energy(functional, smearing, density_cutoff):
    structure = displaced()
    options = {"smearing": smearing, "density_cutoff": density_cutoff}
    direction = np.random.default_rng(3).normal(size=(4, 3))

    def free_energy(t):
        moved = Structure(["Al"] * 4, structure.positions + t * direction, cell=structure.cell,
                          pbc=True)  # fmt: skip
        return quick(moved, functional, residual_tolerance=1e-8, **options).free_energy

    state = quick(structure, functional, residual_tolerance=1e-9, **options)
    expected = -central_difference(free_energy, 0.01)
    assert abs((state.forces * direction).sum() - expected) < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("functional", [local_aluminium(), pade_aluminium(), pbe_aluminium()])
def test_stress_is_the_derivative_of_the_free_energy(functional):
    structure = displaced()
    direction = np.array([1.0, -0.6, 0.3])
    gap = 4.03  # hartree: no mode is near, so that all cells have the same
    modes = set()

    def free_energy(t):
        stretch = 1 + t * direction
        cell = structure.cell * stretch
        moved = Structure(["Al"] * 4, structure.positions * stretch, cell=cell, pbc=True)
        state = quick(moved, functional, cutoff=gap, residual_tolerance=1e-8)
        modes.add(state.orbitals[0].basis.n_modes)
        return state.free_energy

    expected = central_difference(free_energy, 2e-3) / structure.volume
    assert len(modes) == 1
    state = quick(structure, functional, cutoff=gap, residual_tolerance=1e-9)
    assert abs(state.stress @ direction - expected) < 1e-7


def test_a_state_says_in_a_line_what_it_is(state):
    energy = f"{state.free_energy:.8f}"
    assert repr(state) == f"KohnShamState(Al4, F = {energy} hartree, {state.message})"
    assert "'lda_pz', {'*': GTHLocal(" in repr(state.functional)


def test_parts_add_up(state):
    parts = {name: e for name, e in state.energies.items() if name != "total"}
    assert set(parts) == {"kinetic", "nonlocal", "xc", "electrostatic", "entropy"}
    assert abs(sum(parts.values()) - state.free_energy) < 1e-7
    assert state.energy == pytest.approx(state.free_energy - parts["entropy"], abs=1e-12)
    assert abs(state.energy_at_zero_width - (state.energy + state.free_energy) / 2) < 1e-12


def test_electrons_and_occupations(state):
    assert abs(float(state.density.number_of_electrons) - 12) < 1e-9
    assert abs(state.kpoints.weights @ state.occupations.sum(axis=1) - 12) < 1e-9
    fermi = 2 / (1 + np.exp((state.eigenvalues - state.chemical_potential) / 0.02))
    assert np.abs(state.occupations - fermi).max() < 1e-5


def test_one_electron_in_a_harmonic_well_of_a_dirichlet_box():
    """Levels 1.5, 2.5 (three times) and 3.5 (six times) omega, by the solver's own orbitals."""
    omega = 0.5
    from fedens.fem.modes import ModeBasis
    from fedens.reference.kohn_sham.hamiltonian import Orbitals

    space = TensorSpace(edges=[np.linspace(-9, 9, 5)] * 3, order=10, periodic=False)
    potential = 0.5 * omega**2 * (space.points**2).sum(dim=1)
    orbitals = Orbitals.free(ModeBasis.below(space, 10.0), None, 14)
    wanted = torch.arange(14) < 10
    levels = orbitals.solve(potential, 1e-5, 60, wanted).values[:10].numpy()
    assert np.abs(levels / omega - ([1.5] + [2.5] * 3 + [3.5] * 6)).max() < 1e-6


def test_a_uniform_gas_has_the_levels_of_plane_waves():
    """Without ions' potentials in reach of a constant density nothing is left but (k + G)^2/2."""
    from fedens.fem.modes import ModeBasis
    from fedens.reference.kohn_sham.hamiltonian import Orbitals

    space = TensorSpace([6.0, 7.0, 8.0], 3, 8)
    kpoint = np.array([0.3, -0.1, 0.2])
    orbitals = Orbitals.free(ModeBasis.below(space, 6.0, kpoint), None, 9)
    wanted = torch.arange(9) < 7
    found = orbitals.solve(torch.full((space.n_points,), 0.5), 1e-8, 10, wanted).values[:7]
    g = np.stack(np.meshgrid(*[np.arange(-3, 4)] * 3, indexing="ij"), -1).reshape(-1, 3)
    waves = 2 * np.pi * (g + kpoint) / [6.0, 7.0, 8.0]
    expected = np.sort(0.5 * (waves**2).sum(axis=1))[:7] + 0.5
    assert np.abs(found.numpy() - expected).max() < 1e-9


@pytest.mark.slow
def test_a_supercell_with_the_folded_mesh_is_the_same_crystal():
    small = displaced()
    copies = np.vstack([small.positions, small.positions + np.array([EDGE, 0, 0])])
    large = Structure(["Al"] * 8, copies, cell=[2 * EDGE, EDGE, EDGE], pbc=True)
    mesh = monkhorst_pack((4, 1, 1))
    folded = monkhorst_pack((2, 1, 1))
    one = quick(small, kpoints=mesh)
    two = solve_kohn_sham(
        large, TensorSpace([2 * EDGE, EDGE, EDGE], [4, 2, 2], 8), local_aluminium(), folded,
        0.02, 6.0,
    )  # fmt: skip
    # the cutoff keeps other modes at the folded points: the same energy as far as it is converged
    assert abs(two.free_energy / 2 - one.free_energy) < 2e-3
    assert np.abs(two.forces[:4] - one.forces).max() < 2e-4
    assert np.abs(two.forces[:4] - two.forces[4:]).max() < 1e-6


def test_symmetry_changes_nothing():
    options = {"kpoints": monkhorst_pack((2, 2, 2)), "residual_tolerance": 1e-8}
    structure = Structure(["Al"] * 4, FCC * [7.65, 7.65, 7.4], cell=[7.65, 7.65, 7.4], pbc=True)
    with_it, without = (quick(structure, symmetry=s, **options) for s in (True, False))
    assert len(with_it.kpoints) < len(without.kpoints) == 4
    assert abs(with_it.free_energy - without.free_energy) < 1e-8
    assert (with_it.density.values - without.density.values).abs().max() < 1e-7
    difference = with_it.kinetic_energy_density - without.kinetic_energy_density
    assert difference.abs().max() < 1e-6
    assert np.abs(with_it.forces - without.forces).max() < 1e-6
    assert np.abs(with_it.stress - without.stress).max() < 1e-8


def test_time_reversal_changes_nothing():
    pair = ([[0.25, 0.1, 0.3], [-0.25, -0.1, -0.3]], [0.5, 0.5])
    both = quick(kpoints=pair)
    assert len(both.kpoints) == 1
    assert abs(both.free_energy - quick(kpoints=(pair[0][:1], [1.0])).free_energy) < 1e-9


def test_real_phases_give_real_orbitals():
    state = quick(kpoints=([[0, 0.5, 0.5]], [1.0]), residual_tolerance=1e-4)
    assert state.orbitals[0].coefficients.dtype == torch.float64


def test_potential_is_that_of_the_orbitals(state):
    """mu - v_eff: the orbitals' energies are their kinetic ones plus the potential's mean."""
    orbitals = state.orbitals[0]
    for band in (0, 3):
        n = torch.tensor(state.orbital_density(0, band))
        kinetic = float(orbitals.kinetic_energies()[band])
        potential = float(state.space.integrate(n * state.effective_potential))
        assert abs(kinetic + potential - state.eigenvalues[0, band]) < 1e-6
        assert abs(float(state.space.integrate(n)) - 1) < 1e-10


def test_levels_do_not_depend_on_the_width_of_the_ions_gaussians(state):
    other = quick(functional=KohnSham("lda_pz", GTHFIT, gaussian_width=1.3))
    assert abs(other.chemical_potential - state.chemical_potential) < 1e-3
    difference = other.effective_potential - state.effective_potential
    assert float(state.space.integrate(difference.abs())) / state.structure.volume < 1e-3


def test_sample_holds_fields_that_add_up(state):
    sample = state.to_sample()
    assert set(sample.fields) == {
        "density",
        "kinetic",
        "xc",
        "electrostatic",
        "effective_potential",
    }
    assert sample.energy == state.free_energy
    assert (sample.fields["kinetic"] >= 0).all()
    kinetic = float(sample.weights @ sample.fields["kinetic"])
    assert abs(kinetic - state.energies["kinetic"]) < 1e-6
    assert abs(sample.energy_from_fields() - state.free_energy) < 1e-6
    sampling = sample.provenance["sampling"]
    assert sampling["smearing"] == "fermi_dirac"
    assert sampling["width_hartree"] == 0.02
    assert sampling["kspacing_per_bohr"] == pytest.approx(2 * np.pi / EDGE)


def test_density_of_states_integrates_to_the_levels(state):
    energies = np.linspace(-1, 2, 3001)
    total = np.trapezoid(state.density_of_states(energies, 0.02), energies)
    assert abs(total - 2 * state.eigenvalues.shape[1]) < 1e-3


@pytest.mark.slow
def test_isolated_hydrogen_molecule_in_a_dirichlet_box():
    """PySCF, uncontracted Gaussians: -1.13643813 hartree; 60 hartree cost 2.9e-4 per atom, which
    plane waves in a box of 10 bohr lose too."""
    structure = Structure(["H", "H"], [[0, 0, -0.7], [0, 0, 0.7]])
    functional = KohnSham("lda_teter", GTH.load("H", "gth-pade-q1"))
    space = space_for_cutoff(structure, 60, margin=8)
    state = solve_kohn_sham(structure, space, functional, cutoff=60)
    lost = -1.1376845696 + 1.1382730349  # ABINIT, 60 against 240 hartree
    assert abs(state.free_energy - lost + 1.13643813) < 2e-5
    assert abs(state.eigenvalues[0, 0] + 0.376929) < 3e-4
    assert np.abs(state.forces.sum(axis=0)).max() < 1e-5
    assert float(state.density.dipole.abs().max()) < 1e-4
    with pytest.raises(FunctionalError, match="periodic"):
        _ = state.stress


def test_the_start_makes_no_difference(state):
    """Nor does going on from the answer, which takes one step."""
    flat = torch.ones_like(state.density.values)
    space = state.space
    other = quick(guess=Density.from_values(space, flat))
    assert abs(other.free_energy - state.free_energy) < 1e-8
    again = quick(guess=state.density)
    assert again.iterations < state.iterations
    assert abs(again.free_energy - state.free_energy) < 1e-8


def test_a_stopped_calculation_goes_on_from_its_last_density(tmp_path, state):
    file = tmp_path / "density.npz"
    with pytest.raises(ConvergenceError, match="not converged: residual"):
        quick(max_iterations=4, checkpoint=file)
    assert file.exists()
    steps = []
    goes_on = quick(checkpoint=file, report=lambda *step: steps.append(step))
    assert goes_on.iterations < state.iterations
    assert steps[0][2] < 1e-3
    assert not file.exists()
    assert abs(goes_on.free_energy - state.free_energy) < 1e-8


def test_a_restart_from_another_structure_is_refused(tmp_path):
    file = tmp_path / "density.npz"
    with pytest.raises(ConvergenceError):
        quick(max_iterations=2, checkpoint=file)
    with pytest.raises(DatasetError, match="another structure"):
        quick(displaced((0.1, 0, 0)), checkpoint=file)


def test_a_coarser_grid_for_products_changes_little(state):
    coarse = quick(density_cutoff=2 * 6.0)
    assert coarse.orbitals[0].basis.grid.n_points < state.space.n_points / 2
    assert abs(coarse.free_energy - state.free_energy) / 4 < 1e-4
    assert abs(float(coarse.density.number_of_electrons) - 12) < 1e-9
    assert coarse.to_sample().provenance["density_cutoff_hartree"] == 12.0


def test_an_unconverged_state_is_marked():
    state = quick(max_iterations=2, require_convergence=False)
    assert not state.converged
    assert not state.to_sample().converged
    assert "not converged" in state.message
    with pytest.raises(ConvergenceError) as caught:
        quick(max_iterations=2)
    assert caught.value.result.iterations == 2


def test_bands_are_added_where_there_are_too_few(state, monkeypatch):
    monkeypatch.setattr(Smearing, "empty_bands", lambda *_: 1)
    more = quick(residual_tolerance=1e-5)
    assert more.occupation.top < HIGHEST_TOP_OCCUPATION
    assert more.free_energy == pytest.approx(state.free_energy, abs=1e-6)
    with pytest.raises(SamplingError, match="bands are too few"):
        quick(smearing=0.1, bands=9)


def test_a_last_step_with_too_few_bands_leaves_numbers_that_belong_together(monkeypatch):
    monkeypatch.setattr(Smearing, "empty_bands", lambda *_: 1)
    last = quick(max_iterations=1, require_convergence=False)
    assert last.occupation.top > HIGHEST_TOP_OCCUPATION
    assert last.energies["total"] == pytest.approx(last.free_energy, abs=1e-8)
    assert last.eigenvalues.shape == last.occupations.shape


def test_insulators_need_no_smearing():
    edge = 10.26
    sites = np.vstack([FCC, FCC + 0.25])
    silicon = Structure(["Si"] * 8, sites * edge, cell=[edge] * 3, pbc=True)
    functional = KohnSham("lda_pw", GTH.load("Si", "gth-pade-q4"))
    space = TensorSpace([edge] * 3, 3, 8)
    state = solve_kohn_sham(
        silicon, space, functional, GENERAL, cutoff=4.0, residual_tolerance=1e-4
    )
    assert state.entropy_energy == 0
    assert state.occupation.gap > 0.01
    assert set(np.unique(state.occupations)) == {0.0, 2.0}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"kpoints": ([[0.1, 0, 0]], [0.5])}, SamplingError, "add up to 0.5"),
        ({"kpoints": (2, 2, 2)}, SamplingError, "kpoints are .2, 2, 2.: expected a mesh"),
        ({"kpoints": 0.1}, SamplingError, "kpoints are 0.1: expected a mesh"),
        ({"smearing": -0.01}, SamplingError, "smearing width is -0.01"),
        ({"smearing": "cold"}, SamplingError, "smearing width is 'cold'"),
        ({"smearing": 0.5}, SamplingError, "smear less .hartree, not eV"),
        ({"cutoff": -6.0}, SpaceError, "cutoff is -6.0 hartree, expected a positive number"),
        ({"cutoff": "6"}, SpaceError, "cutoff is '6' hartree, expected a positive number"),
        ({"max_iterations": 0}, ConvergenceError, "max_iterations 0: expected"),
        ({"residual_tolerance": 0.0}, ConvergenceError, "residual_tolerance is 0.0"),
        ({"bands": 8.5}, SamplingError, "8.5 bands cannot hold"),
        ({"cutoff": 30.0}, SpaceError, "the cutoff is 30 hartree"),
        ({"bands": 0}, SamplingError, "0 bands cannot hold 12 electrons"),
        ({"bands": 3}, SamplingError, "3 bands cannot hold 12 electrons: give bands=6"),
        ({"density_cutoff": 0.0}, SpaceError, "density_cutoff is 0 hartree"),
        ({"density_cutoff": math.inf}, SpaceError, "density_cutoff is inf hartree"),
        ({"residual_tolerance": math.nan}, ConvergenceError, "residual_tolerance is nan"),
        ({"smearing": 0.0}, ConvergenceError, "give a smearing"),
    ],
)
def test_requests_that_make_no_sense(options, error, message):
    with pytest.raises(error, match=message):
        quick(**options)


def test_a_cutoff_that_the_mesh_cannot_hold_says_which_mesh_would():
    with pytest.raises(SpaceError, match=r"spacing of 0\.207 bohr or less"):
        quick(cutoff=30.0)


def test_odd_electron_numbers_without_smearing_are_refused():
    structure = Structure(["Al"], [[0, 0, 0]], cell=[5.0] * 3, pbc=True)
    space = TensorSpace([5.0] * 3, 2, 8)
    with pytest.raises(SamplingError, match="must be even"):
        solve_kohn_sham(structure, space, local_aluminium(), cutoff=6.0)


def test_kpoints_along_an_isolated_axis_are_refused():
    structure = Structure(["Al"], [[0, 0, 0]])
    space = TensorSpace(edges=[np.linspace(-6, 6, 5)] * 3, order=6, periodic=False)
    with pytest.raises(SamplingError, match="nothing repeats along x"):
        solve_kohn_sham(structure, space, local_aluminium(), GENERAL, 0.01, 4.0)


def test_an_element_without_a_gaussian_width_is_named():
    functional = KohnSham("lda_pz", {"Al": GTHFIT}, {"Si": 1.2})
    with pytest.raises(FunctionalError, match="no Gaussian width for Al; there is one for Si"):
        quick(functional=functional)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_same_on_cuda(state):
    space = TensorSpace([EDGE] * 3, 2, 8, device="cuda")
    there = solve_kohn_sham(
        displaced(), space, local_aluminium(), GENERAL, 0.02, 6.0, guess=state.density
    )
    assert there.density.values.is_cuda
    assert there.free_energy == pytest.approx(state.free_energy, abs=1e-7)
    np.testing.assert_allclose(there.to_sample().forces, state.forces, rtol=0, atol=1e-5)


def test_orbitals_on_tetrahedra_are_refused():
    molecule = Structure(["He"], [[0, 0, 0]])
    tetrahedra = SimplexSpace.for_structure(molecule, order=2)
    with pytest.raises(SpaceError, match="give space_for_cutoff"):
        solve_kohn_sham(molecule, tetrahedra, local_aluminium(), cutoff=4.0)


def test_magnetic_and_charged_requests_are_refused():
    magnetic = Structure(["Al"] * 4, FCC * EDGE, cell=[EDGE] * 3, pbc=True, spin=2)
    with pytest.raises(FunctionalError, match="spin-unpolarised"):
        quick(magnetic)
    charged = Structure(["Al"] * 4, FCC * EDGE, cell=[EDGE] * 3, pbc=True, charge=1)
    with pytest.raises(FunctionalError, match="charged periodic cells"):
        quick(charged)


def test_another_kind_of_functional_is_refused():
    with pytest.raises(FunctionalError, match="functional is EnergyFunctional, expected KohnSham"):
        quick(functional=EnergyFunctional.orbital_free("wt", pseudopotential=GTHFIT))


def test_projectors_sharper_than_the_mesh_are_refused():
    functional = KohnSham("lda_pw", GTH.load("O", "gth-pade-q6"))
    oxygen = Structure(["O"], [[0, 0, 0]], cell=[7.0] * 3, pbc=True)
    with pytest.raises(SpaceError, match="too coarse for the pseudopotential of O"):
        solve_kohn_sham(oxygen, TensorSpace([7.0] * 3, 2, 8), functional, cutoff=6.0)


def test_a_guess_on_another_space_is_refused(state):
    with pytest.raises(SpaceError, match="the starting density lives on"):
        solve_kohn_sham(
            displaced(), TensorSpace([EDGE] * 3, 2, 9), local_aluminium(), GENERAL, 0.02, 6.0,
            guess=state.density,
        )  # fmt: skip


def test_orbitals_that_do_not_exist(state):
    with pytest.raises(SamplingError, match="band 99 of k-point 0"):
        state.orbital_density(0, 99)


def test_any_local_potential_serves():
    state = quick(fcc(), KohnSham("lda_pw", EvanescentCore(3, 0.32, 3.6)), residual_tolerance=1e-4)
    assert state.converged
    again = KohnSham.from_description(state.functional.describe())
    assert again.describe() == state.functional.describe()
    assert isinstance(KohnSham("pbe", GTHLocal(3, 0.8)).pseudopotentials["Al"], GTHLocal)
