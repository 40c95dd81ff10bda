"""Ground states against plane waves, finite differences, exact orders and honest failures."""

import numpy as np
import pytest
import torch
from systems import (
    DFTPY_CASES,
    ERF,
    GTHFIT,
    KINETIC_CASES,
    atom,
    dftpy_case,
    dimer,
    fcc,
    kinetic_case,
    rattled,
)

from fedens import Density, EnergyFunctional, Structure, TensorSpace, solve_ground_state
from fedens.energy.forces import hellmann_feynman_forces, normal_stress
from fedens.errors import ConvergenceError, FedensError, FunctionalError, SpaceError
from fedens.testing import central_difference

#: Elements per axis and order, just fine enough for the tolerances of each case.
RESOLUTION = {
    "disp32_erf_tfvw1": (5, 8),
    "disp32_gthfit_tfvw1": (6, 8),
    "disp32_gthfit_wt": (6, 8),
    "fcc4_erf_tfvw1": (2, 8),
    "fcc4_evan_tfvw1": (4, 8),
    "fcc4_gthfit_tfvw1": (3, 8),
    "fcc4_gthfit_tfvw19": (3, 10),
    "fcc4_gthfit_wt": (3, 8),
    "vac31_gthfit_tfvw1": (6, 8),
}


def thomas_fermi_von_weizsaecker(pseudopotential=GTHFIT, **options):
    return EnergyFunctional.orbital_free("tfvw", pseudopotential=pseudopotential, **options)


@pytest.fixture(scope="module")
def solved_cases():
    """Cases and their ground states, each solved once."""
    solved = {}

    def solve(name):
        if name not in solved:
            case = dftpy_case(name)
            elements, order = RESOLUTION[name]
            space = TensorSpace(case.structure.orthorhombic_lengths(), elements, order)
            solved[name] = case, solve_ground_state(case.structure, space, case.functional)
        return solved[name]

    return solve


@pytest.mark.parametrize("name", DFTPY_CASES)
def test_energy_against_plane_waves(name, solved_cases):
    case, state = solved_cases(name)
    # the evanescent core's plane-wave reference converges slowly
    tolerance = 1e-5 if "evan" in name else 1e-6
    assert state.energy / len(case.structure) == pytest.approx(
        case.energy / len(case.structure), abs=tolerance
    )


@pytest.mark.parametrize("name", DFTPY_CASES)
def test_forces_against_plane_waves(name, solved_cases):
    case, state = solved_cases(name)
    assert state.forces == pytest.approx(case.forces, abs=1e-5)
    if not name.startswith("fcc"):
        assert np.abs(case.forces).max() > 1e-3


@pytest.mark.parametrize("name", DFTPY_CASES)
def test_parts_and_chemical_potential_against_plane_waves(name, solved_cases):
    case, state = solved_cases(name)
    parts, n_atoms = case.parts, len(case.structure)
    electrostatic = parts["HARTREE"] + parts["PSEUDO"] + parts["II"]
    ours = {"KEDF-TF": "thomas_fermi", "KEDF-VW": "von_weizsaecker", "XC": "xc"}
    if "wt" in name:
        ours["KEDF-NL"] = "nonlocal_kinetic"
    # parts are first order in what is left of the density's error
    for theirs, mine in ours.items():
        assert state.energies[mine] == pytest.approx(parts[theirs], abs=2e-5 * n_atoms), theirs
    assert state.energies["electrostatic"] == pytest.approx(electrostatic, abs=2e-5 * n_atoms)
    assert state.energies["total"] == pytest.approx(state.energy, abs=1e-10)
    assert state.chemical_potential == pytest.approx(case.chemical_potential, abs=1e-5)


@pytest.mark.parametrize("name", KINETIC_CASES)
def test_kinetic_functionals_against_plane_waves(name):
    case = kinetic_case(name)
    space = TensorSpace(case.structure.orthorhombic_lengths(), 4, 10)
    state = solve_ground_state(case.structure, space, case.functional, residual_tolerance=1e-8)
    assert state.energy / 4 == pytest.approx(case.energy / 4, abs=3e-8)
    # their line search gives up on lkt at a residual that still shows in forces and stress
    early = name.endswith("lkt")
    assert state.forces == pytest.approx(case.forces, abs=6e-6 if early else 3e-7)
    normal = normal_stress(case.functional, case.structure, state.density)
    assert normal.numpy() == pytest.approx(case.stress, abs=4e-8 if early else 4e-9)


@pytest.mark.parametrize("temperature", [0.0, 0.02])
def test_luo_karasiev_trickey_in_vacuum(temperature):
    """An isolated dimer: converges, and its force is its energy's derivative."""
    functional = EnergyFunctional.orbital_free(
        "lkt", pseudopotential=GTHFIT, temperature=temperature
    )
    space = TensorSpace.for_structure(dimer(), spacing=0.8, order=6, margin=6.0)
    state = solve_ground_state(dimer(), space, functional, residual_tolerance=1e-8)
    assert state.density.values.min() < 1e-6, "there is no vacuum"
    assert moved_slope(state, 1, 1) == pytest.approx(-state.forces[1, 1], abs=1e-6)
    assert abs(state.forces[1, 1]) > 1e-3


def test_force_is_the_energys_derivative_in_a_crystal(rattled_state):
    state = rattled_state
    for pick in ((0, 0), (2, 1)):
        assert moved_slope(state, *pick) == pytest.approx(-state.forces[pick], abs=1e-7)
    assert np.abs(state.forces).max() > 1e-3


def test_force_is_the_energys_derivative_in_vacuum(dimer_state):
    state = dimer_state
    assert moved_slope(state, 1, 1) == pytest.approx(-state.forces[1, 1], abs=1e-7)
    assert abs(state.forces[1, 1]) > 1e-3


def moved_slope(state, number, axis, step=2e-3):
    """dE/dR of one coordinate by differences of whole minimisations on the same space."""

    def energy(shift):
        positions = state.structure.positions.copy()
        positions[number, axis] += shift
        return solve_ground_state(
            state.structure.replace(positions=positions),
            state.space,
            state.functional,
            guess=state.density,
            residual_tolerance=state.tolerance,
        ).energy

    return central_difference(energy, step)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_stress_is_the_energys_derivative(rattled_state, axis):
    state = rattled_state
    structure = state.structure

    def energy(strain):
        stretch = np.ones(3)
        stretch[axis] += strain
        strained = structure.replace(
            positions=structure.positions * stretch, cell=np.diag(structure.cell) * stretch
        )
        return solve_ground_state(
            strained,
            state.space.scaled(torch.tensor(stretch)),
            state.functional,
            guess=state.density,
            residual_tolerance=state.tolerance,
        ).energy

    slope = central_difference(energy, 1e-3) / structure.volume
    normal = normal_stress(state.functional, structure, state.density)
    assert float(normal[axis]) == pytest.approx(slope, abs=1e-9)
    assert normal.abs().max() > 1e-5


@pytest.mark.parametrize("kinetic", ["tfvw", "wgc", "lkt"])
@pytest.mark.parametrize(("xc", "temperature"), [("lda_pz", 0.0), ("lda_pz", 0.04), ("pbe", 0.0)])
def test_stress_of_every_functional_at_a_fixed_density(kinetic, xc, temperature):
    """Stretching everything together with the root's coefficients held, without minimising."""
    structure = rattled()
    functional = EnergyFunctional.orbital_free(
        kinetic, xc=xc, pseudopotential=GTHFIT, temperature=temperature
    )
    space = TensorSpace.for_structure(structure, 0.6, 6)
    state = solve_ground_state(structure, space, functional, residual_tolerance=1e-4)

    def energy(strain):
        stretch = torch.tensor([1.0, 1.0 + strain, 1.0], dtype=torch.float64)
        box = space.scaled(stretch)
        moved = structure.replace(
            positions=structure.positions * stretch.numpy(),
            cell=np.diag(structure.cell) * stretch.numpy(),
        )
        density = Density.from_root(box, state.density.root_coefficients)
        return float(functional.bind(moved, box).energy(density))

    slope = central_difference(energy, 1e-3) / structure.volume
    normal = normal_stress(functional, structure, state.density)
    assert float(normal[1]) == pytest.approx(slope, rel=1e-7)


def test_stress_of_isolated_atoms_is_refused(dimer_state):
    with pytest.raises(FunctionalError, match="stress is defined for periodic cells only"):
        _ = dimer_state.stress


def test_forces_on_all_atoms_add_up_to_little(rattled_state, dimer_state):
    """Not to zero: the space stays where it is. To the size of the space's own error."""
    for state in (rattled_state, dimer_state):
        total = np.abs(state.forces.sum(axis=0)).max()
        assert total < 0.1 * np.abs(state.forces).max()


def test_symmetry_of_the_dimer(dimer_state):
    assert dimer_state.forces[0] == pytest.approx(-dimer_state.forces[1], abs=2e-4)


def test_forces_are_linear_in_the_density_and_differentiable(dimer_state):
    state = dimer_state
    root = state.density.root_coefficients.clone().requires_grad_(True)
    density = Density.from_root(state.space, root)
    forces = hellmann_feynman_forces(state.functional, state.structure, density, create_graph=True)
    assert forces.detach().numpy() == pytest.approx(state.forces, abs=1e-12)
    (slope,) = torch.autograd.grad(forces[1, 0], root)
    direction = torch.cos(torch.arange(len(root), dtype=torch.float64))
    direction *= 1e-2 / (1 + state.space.laplacian_eigenvalues)

    def force(h):
        changed = Density.from_root(state.space, root.detach() + h * direction)
        return float(hellmann_feynman_forces(state.functional, state.structure, changed)[1, 0])

    assert float(slope @ direction) == pytest.approx(central_difference(force, 0.1), rel=1e-7)


def test_result_tells_everything(rattled_state):
    state = rattled_state
    assert state.converged
    assert state.residual <= state.tolerance == 1e-9
    assert state.message.startswith("converged")
    assert 20 > state.evaluations > state.iterations > 3
    assert float(state.density.number_of_electrons) == pytest.approx(12.0, rel=1e-12)
    assert state.density.values.min() > 0
    energy, gradient = state.bound.energy_and_gradient(state.density.root_coefficients)
    assert energy == state.energy
    tangent = gradient - float(gradient @ state.density.root_coefficients) / 12.0 * (
        state.density.root_coefficients
    )
    assert float(tangent.norm()) / 12.0**0.5 == pytest.approx(state.residual, rel=1e-3)


@pytest.mark.parametrize("name", ["rattled_state", "dimer_state"])
def test_energy_densities_add_up_to_the_energy(name, request):
    state = request.getfixturevalue(name)
    densities = state.energy_densities()
    assert set(densities) == {"kinetic", "xc", "electrostatic"}
    integrals = {key: float(state.space.integrate(f)) for key, f in densities.items()}
    total = sum(integrals.values()) + float(state.bound.ions.ion_energy)
    assert total == pytest.approx(state.energy, abs=1e-9)
    kinetic = sum(v for k, v in state.energies.items() if k not in ("xc", "electrostatic", "total"))
    assert integrals["kinetic"] == pytest.approx(kinetic, rel=1e-11)
    assert integrals["xc"] == pytest.approx(state.energies["xc"], rel=1e-11)


@pytest.mark.parametrize("name", ["rattled_state", "dimer_state"])
def test_sample_carries_the_energy(name, request):
    state = request.getfixturevalue(name)
    sample = state.to_sample()
    assert sample.energy_from_fields() == pytest.approx(state.energy, abs=1e-9)
    assert sample.number_of_electrons == pytest.approx(3.0 * len(state.structure), rel=1e-12)
    assert sample.converged
    assert np.array_equal(sample.forces, state.forces)
    assert sample.provenance["functional"] == state.functional.describe()
    assert (sample.stress is None) == (name == "dimer_state")


def test_chemical_potential_is_the_price_of_an_electron():
    functional = thomas_fermi_von_weizsaecker(ERF)
    space = TensorSpace.for_structure(atom(), spacing=0.8, order=6, margin=10.0)

    def energy(extra):
        ion = atom().replace(charge=-extra)
        return solve_ground_state(ion, space, functional, residual_tolerance=1e-7).energy

    state = solve_ground_state(atom(), space, functional, residual_tolerance=1e-7)
    assert state.chemical_potential == pytest.approx(central_difference(energy, 0.02), abs=1e-6)


@pytest.mark.parametrize("name", ["superposed_atoms", "linear_response"])
def test_guesses_agree(name, rattled_state):
    state = rattled_state
    again = solve_ground_state(
        state.structure, state.space, state.functional, guess=name, residual_tolerance=1e-7
    )
    assert again.energy == pytest.approx(state.energy, abs=1e-11)
    assert torch.allclose(again.density.values, state.density.values, rtol=0, atol=1e-7)


def test_good_guess_needs_few_evaluations(rattled_state):
    state = rattled_state
    again = solve_ground_state(
        state.structure, state.space, state.functional, guess=state.density, residual_tolerance=1e-6
    )
    assert again.evaluations == 1
    from_values = Density.from_values(state.space, state.density.values)
    assert (
        solve_ground_state(
            state.structure, state.space, state.functional, guess=from_values
        ).evaluations
        <= 2
    )


def test_any_positive_guess_will_do():
    space = TensorSpace.for_structure(rattled(), 0.6, 6)
    functional = thomas_fermi_von_weizsaecker()
    uniform = Density.from_values(space, torch.full((space.n_points,), 0.5, dtype=torch.float64))
    states = [solve_ground_state(rattled(), space, functional, guess=g) for g in (uniform, None)]
    assert states[0].energy == pytest.approx(states[1].energy, abs=1e-9)


@pytest.mark.parametrize("guess", ["bananas", 3.0])
def test_unknown_guess_is_named(guess):
    with pytest.raises(FedensError, match=f"is {guess!r}; expected 'superposed_atoms'"):
        solve_ground_state(
            fcc(), TensorSpace([7.65] * 3, 2, 6), thomas_fermi_von_weizsaecker(), guess=guess
        )


def test_guess_that_does_not_fit_is_named(rattled_state):
    functional = thomas_fermi_von_weizsaecker()
    with pytest.raises(FedensError, match="the guess lives on another space"):
        solve_ground_state(
            fcc(), TensorSpace([7.65] * 3, 2, 6), functional, guess=rattled_state.density
        )
    space = TensorSpace.for_structure(atom(), 0.8, 6, margin=8.0)
    with pytest.raises(FedensError, match="for periodic cells"):
        solve_ground_state(atom(), space, functional, guess="linear_response")


def test_failure_to_converge_raises_and_carries_the_result():
    space = TensorSpace.for_structure(rattled(), 0.6, 6)
    with pytest.raises(
        ConvergenceError, match=r"Al4: not converged: residual .* after 3"
    ) as caught:
        solve_ground_state(rattled(), space, thomas_fermi_von_weizsaecker(), max_evaluations=3)
    state = caught.value.result
    assert not state.converged
    assert state.evaluations == 3
    assert state.residual > state.tolerance
    assert state.forces.shape == (4, 3)


def test_unconverged_result_on_request_is_marked():
    space = TensorSpace.for_structure(rattled(), 0.6, 6)
    state = solve_ground_state(
        rattled(),
        space,
        thomas_fermi_von_weizsaecker(),
        max_evaluations=3,
        require_convergence=False,
    )
    assert not state.converged
    assert state.message.startswith("not converged")
    assert not state.to_sample().converged


def test_everything_works_inside_no_grad():
    space = TensorSpace.for_structure(rattled(), 0.6, 6)
    with torch.no_grad():
        state = solve_ground_state(
            rattled(), space, thomas_fermi_von_weizsaecker(), guess="superposed_atoms"
        )
        assert np.isfinite(state.forces).all()
        assert np.isfinite(state.stress).all()


def test_report_is_called_after_each_step():
    rows = []
    space = TensorSpace.for_structure(fcc(), 0.6, 6)
    state = solve_ground_state(
        fcc(), space, thomas_fermi_von_weizsaecker(), report=lambda *row: rows.append(row)
    )
    assert len(rows) == state.iterations + 1
    assert rows[-1] == (state.evaluations, state.energy, state.residual)


def test_space_must_fit_the_structure():
    functional = thomas_fermi_von_weizsaecker()
    with pytest.raises(SpaceError, match="the space is periodic"):
        solve_ground_state(atom(), TensorSpace([7.65] * 3, 2, 6), functional)
    with pytest.raises(SpaceError, match="structure's cell"):
        solve_ground_state(fcc(7.8), TensorSpace([7.65] * 3, 2, 6), functional)
    mixed = TensorSpace([16.0] * 3, 4, 6, (True, True, False), origin=[-8.0] * 3)
    with pytest.raises(SpaceError, match="slabs and wires"):
        solve_ground_state(atom(), mixed, functional)


#: Elements per axis by order, between too coarse to count and too fine to tell from rounding.
ORDER_COUNTS = {1: (8, 10, 12), 2: (5, 6, 8), 3: (4, 5, 6), 4: (3, 4, 5)}


@pytest.mark.parametrize("order", ORDER_COUNTS)
def test_energy_converges_at_twice_the_order(order):
    """Exchange only: the Perdew-Zunger correlation jumps at r_s = 1 and spoils the order."""
    functional = thomas_fermi_von_weizsaecker(ERF, xc="lda_x")
    structure = Structure(["Al"], [[0.4, 0.3, 0.1]], cell=[5.0] * 3, pbc=True)

    def energy(elements, order):
        space = TensorSpace([5.0] * 3, elements, order)
        return solve_ground_state(structure, space, functional, residual_tolerance=1e-8).energy

    exact = energy(4, 10)
    counts = ORDER_COUNTS[order]
    errors = [abs(energy(n, order) - exact) for n in counts]
    rate = -np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert errors[-1] < errors[0] < 1e-2
    assert rate == pytest.approx(2 * order, abs=0.3 * order), errors


def test_translation_of_everything_changes_little():
    """The space is no lattice of special points: the energy follows the atoms anywhere."""
    functional = thomas_fermi_von_weizsaecker()
    space = TensorSpace.for_structure(rattled(), 0.32, 8)
    energies = [
        solve_ground_state(
            rattled().replace(positions=rattled().positions + shift), space, functional
        ).energy
        for shift in (np.zeros(3), np.array([0.31, -0.17, 0.23]))
    ]
    assert energies[0] == pytest.approx(energies[1], abs=4 * 1e-5)


def test_larger_cell_holds_more_of_the_same():
    """Two cells of fcc side by side have twice the energy of one."""
    functional = EnergyFunctional.orbital_free("wt", pseudopotential=GTHFIT)
    one, cell = fcc(), fcc().positions
    two = Structure(
        ["Al"] * 8, np.concatenate([cell, cell + np.array([0, 0, 7.65])]), [7.65, 7.65, 15.3], True
    )
    single = solve_ground_state(one, TensorSpace([7.65] * 3, 2, 8), functional)
    double = solve_ground_state(two, TensorSpace([7.65, 7.65, 15.3], (2, 2, 4), 8), functional)
    assert double.energy == pytest.approx(2 * single.energy, abs=1e-8)
    assert double.chemical_potential == pytest.approx(single.chemical_potential, abs=1e-7)


def test_every_xc_functional_solves():
    space = TensorSpace([7.65] * 3, 2, 8)
    energies = {
        xc: solve_ground_state(fcc(), space, thomas_fermi_von_weizsaecker(xc=xc)).energy / 4
        for xc in ("lda_pz", "lda_pw", "pbe", "lda_x")
    }
    assert energies["lda_pw"] == pytest.approx(energies["lda_pz"], abs=2e-3)
    assert energies["lda_pw"] != pytest.approx(energies["lda_pz"], abs=1e-6)
    assert energies["pbe"] == pytest.approx(energies["lda_pw"], abs=5e-2)
    assert energies["lda_x"] > energies["lda_pz"] + 0.05


def test_isolated_ion_does_not_know_its_box():
    """Off the centre of a lopsided box: the multipoles carry the potential to the walls."""
    ion = atom().replace(charge=2)
    functional = thomas_fermi_von_weizsaecker(ERF)
    centred = TensorSpace([20.0] * 3, 5, 8, False, origin=[-10.0] * 3)
    lopsided = TensorSpace([24.0, 20.0, 20.0], (6, 5, 5), 8, False, origin=[-14.0, -10.0, -10.0])
    energies = [solve_ground_state(ion, space, functional).energy for space in (centred, lopsided)]
    assert energies[0] == pytest.approx(energies[1], abs=1e-5)
