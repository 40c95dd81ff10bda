"""All electrons, orbital-free, on tetrahedra: exact energies, convergence rates, forces."""

import math

import numpy as np
import pytest
import torch
from skfem import MeshHex, MeshTet

from fedens import (
    AllElectron,
    EnergyFunctional,
    GTHLocal,
    SimplexSpace,
    Structure,
    TensorSpace,
    solve_ground_state,
)
from fedens.atoms.baseline import free_atom
from fedens.energy.forces import hellmann_feynman_forces
from fedens.energy.minimise import minimise_on_sphere
from fedens.energy.pseudopotential import pseudopotential_from_description
from fedens.errors import FunctionalError, PseudopotentialError, SpaceError
from fedens.testing import central_difference

#: Spin-unpolarised atoms, hartree, by element, von Weizsaecker weight and xc: spectral radial
#: solver, residual below 1e-12, all digits given are exact.
ATOMS = {
    ("H", 1.0, "lda_x"): -0.2618266,
    ("He", 1.0, "lda_x"): -1.4774506,
    ("Ne", 1.0, "lda_x"): -85.7344465,
    ("H", 0.2, "lda_x"): -0.5666247,
    ("He", 0.2, "lda_x"): -2.8183587,
    ("Ne", 0.2, "lda_x"): -128.8015693,
    ("H", 1.0, "lda_pz"): -0.292663,
    ("He", 1.0, "lda_pz"): -1.559304,
}
#: N2, LDA-PZ, weight 1, by distance in bohr: spectral solver in prolate-spheroidal coordinates.
N2 = {2.0: -71.101613, 2.3177: -71.154123}
N2_SLOPE = -0.39299  # hartree/bohr at 2.0
#: He, LDA-PZ, weight 1: chemical potential, same source.
HE_CHEMICAL_POTENTIAL = -0.139334


def functional_for(symbols, vw_weight=1.0, xc="lda_x"):
    nuclei = AllElectron.by_symbol(symbols)
    return EnergyFunctional.orbital_free(vw_weight=vw_weight, xc=xc, pseudopotential=nuclei)


def single(symbol):
    return Structure([symbol], [[0.0, 0.0, 0.0]])


def nitrogen(distance):
    return Structure(["N", "N"], [[0.0, 0.0, -distance / 2], [0.0, 0.0, distance / 2]])


def halved(space):
    """Every tetrahedron cut into eight."""
    return SimplexSpace(space.mesh.refined(1), space.order, space.nuclei)


def one_electron(space, potential, start):
    """Minimum of int (1/2) |grad u|^2 + v u^2, by the minimiser with the mass matrix."""

    @torch.enable_grad()
    def evaluate(x):
        c = x.detach().requires_grad_(True)
        outside = space.integrate(space.evaluate(c) ** 2 * potential)
        energy = 0.5 * space.gradient_norm2(c) + outside
        (gradient,) = torch.autograd.grad(energy, c)
        return float(energy.detach()), gradient

    preconditioner = space.preconditioner(1.0, 1.0)
    first = space.project(start)
    found = minimise_on_sphere(evaluate, first, 1.0, preconditioner, 1e-6, 100, metric=space)
    assert found.converged
    return found


@pytest.mark.parametrize("case", ATOMS)
def test_radial_atoms_are_exact(case):
    """The starting density comes from the same functional in one dimension."""
    symbol, weight, xc = case
    atom = free_atom(functional_for([symbol], weight, xc), symbol)
    assert atom.energy == pytest.approx(ATOMS[case], abs=6e-7)


#: Case, size at the nucleus and growth, then the error of the energy (mHa) on that mesh, on the
#: one with every cell cut into eight, and of their extrapolation with the fourth power.
CONVERGENCE = {
    ("H", 1.0, "lda_x"): (0.04, 1.2, 18.0, 2.3, 0.26, 0.13),
    ("He", 1.0, "lda_x"): (0.02, 1.2, 12.0, 11.0, 1.25, 0.6),
    ("He", 0.2, "lda_x"): (0.01, 1.2, 14.0, 14.0, 2.0, 1.2),
    ("Ne", 1.0, "lda_x"): (0.005, 1.2, 12.0, 200.0, 20.0, 8.0),
    ("Ne", 0.2, "lda_x"): (0.002, 1.2, 12.0, 60.0, 12.0, 10.0),
    ("He", 1.0, "lda_pz"): (0.02, 1.2, 12.0, 11.0, 1.25, 0.6),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CONVERGENCE)
def test_energies_of_atoms(case):
    """2,000 and 16,000 unknowns; errors of both and of what they extrapolate to."""
    symbol, weight, xc = case
    finest, growth, margin, *limits = CONVERGENCE[case]
    functional, structure = functional_for([symbol], weight, xc), single(symbol)
    space = SimplexSpace.for_structure(structure, finest, growth, margin)
    energies = []
    for mesh in (space, halved(space)):
        state = solve_ground_state(structure, mesh, functional, residual_tolerance=2e-5)
        energies.append(state.energy)
        assert float(state.density.number_of_electrons) == pytest.approx(structure.numbers[0])
        assert np.abs(state.forces).max() < 1e-6, "a free atom in a symmetric mesh"
    extrapolated = energies[1] + (energies[1] - energies[0]) / 15
    for energy, limit in zip([*energies, extrapolated], limits, strict=True):
        assert abs(energy - ATOMS[case]) * 1e3 < limit


@pytest.mark.slow
@pytest.mark.parametrize("kind", [MeshTet, MeshHex])
@pytest.mark.parametrize("order", [1, 2])
def test_energy_of_a_smooth_density_converges_at_twice_the_order(kind, order):
    """One electron in a harmonic trap, von Weizsaecker alone: 1.5; uniform refinement."""
    errors, counts = [], (8, 16)
    for n in counts:
        space = SimplexSpace(kind.init_tensor(*[np.linspace(-5, 5, n + 1)] * 3), order)
        r2 = (space.points**2).sum(dim=1)
        found = one_electron(space, 0.5 * r2, torch.exp(-r2 / 3))
        errors.append(found.energy - 1.5)
    assert min(errors) > 0, "from above"
    assert math.log2(errors[0] / errors[1]) == pytest.approx(2 * order, abs=0.4)


@pytest.mark.slow
@pytest.mark.parametrize(("order", "expected"), [(1, 2.0), (2, 4.0)])
def test_energy_of_an_atom_with_a_cusp_converges_at_twice_the_order(order, expected):
    """Helium. Cut into eight everywhere the cells at the nucleus would leave an error of third
    order; with their size going down by four instead the rate is that of smooth functions."""
    functional, exact = functional_for(["He"]), ATOMS["He", 1.0, "lda_x"]
    first = {1: (0.05, 0.6), 2: (0.1, 1.0)}[order]
    unknowns, errors = [], []
    for k in range(2):
        space = SimplexSpace.for_structure(
            single("He"), first[0] / 4**k, first[1] / 2**k, 14.0, order
        )
        state = solve_ground_state(single("He"), space, functional, residual_tolerance=1e-5)
        unknowns.append(space.n_coefficients)
        errors.append(state.energy - exact)
    rate = 3 * math.log(errors[0] / errors[1]) / math.log(unknowns[1] / unknowns[0])
    assert rate == pytest.approx(expected, abs=0.75)


def test_one_electron_with_von_weizsaecker_alone_is_hydrogen():
    space = SimplexSpace.for_structure(single("H"), 0.05, 0.7, 16.0)
    r = space.points.norm(dim=1)
    found = one_electron(space, -1 / r, torch.exp(-(r**2) / 4))
    assert 0 < found.energy + 0.5 < 1.5e-3
    assert found.multiplier / 2 == pytest.approx(found.energy, abs=1e-10)
    exact = torch.exp(-r) / math.pi**0.5
    overlap = float(space.integrate(space.evaluate(found.x) * exact))
    assert abs(overlap) == pytest.approx(1.0, abs=2e-4)


@pytest.mark.slow
def test_chemical_potential_and_virial():
    """mu is that of the exact atom; 2 T + V + E_x = 0 up to the mesh (exchange only)."""
    structure = single("He")
    space = SimplexSpace.for_structure(structure, 0.05, 0.7, 14.0)
    state = solve_ground_state(structure, space, functional_for(["He"], xc="lda_pz"))
    assert state.chemical_potential == pytest.approx(HE_CHEMICAL_POTENTIAL, abs=1e-3)
    parts = solve_ground_state(structure, space, functional_for(["He"])).energies
    kinetic = parts["thomas_fermi"] + parts["von_weizsaecker"]
    virial = 2 * kinetic + parts["electrostatic"] + parts["xc"]
    assert abs(virial) < 2e-3 * kinetic


@pytest.mark.slow
def test_nitrogen_molecule():
    """Energy and slope of N2 at 2 bohr on 13,000 unknowns."""
    structure = nitrogen(2.0)
    space = SimplexSpace.for_structure(structure, 0.03, 0.8, 12.0)
    functional = functional_for(["N"], xc="lda_pz")
    state = solve_ground_state(structure, space, functional, residual_tolerance=1e-4)
    assert 0 < state.energy - N2[2.0] < 0.1
    forces = state.forces
    assert forces[1, 2] == pytest.approx(-N2_SLOPE, abs=0.012)
    assert np.abs(forces.sum(axis=0)).max() < 2e-3
    assert np.abs(forces[:, :2]).max() < 1e-4


@pytest.mark.slow
def test_forces_are_the_derivative_of_the_energy_on_the_moving_mesh():
    structure = Structure(["H", "He"], [[0.1, 0.0, -0.8], [0.0, 0.2, 0.9]])
    functional = functional_for(["H", "He"])
    space = SimplexSpace.for_structure(structure, 0.2, 1.0, 8.0)
    state = solve_ground_state(structure, space, functional, residual_tolerance=1e-8)
    direction = np.array([[0.3, -0.2, 0.5], [0.0, 0.4, -0.6]])

    def energy(length):
        moved = structure.replace(positions=structure.positions + length * direction)
        there = space.moved(torch.tensor(moved.positions))
        return solve_ground_state(
            moved, there, functional, guess=state.density, residual_tolerance=1e-7
        ).energy

    expected = -central_difference(energy, 0.03)
    assert abs(expected) > 0.05
    assert float((state.forces * direction).sum()) == pytest.approx(expected, abs=3e-7)
    # a fixed mesh is another energy: its force differs by what the mesh leaves out
    fixed = hellmann_feynman_forces(functional, structure, state.density).numpy()
    assert 1e-4 < np.abs(fixed - state.forces).max() < 0.1


def test_same_energy_as_on_a_tensor_space():
    """A soft pseudo-atom off the centre of both meshes."""
    functional = EnergyFunctional.orbital_free(xc="lda_x", pseudopotential=GTHLocal(3, 0.5**0.5))
    structure = Structure(["Al", "Al"], [[0.0, 0.0, -2.5], [0.3, 0.0, 2.5]])
    tensor = TensorSpace.for_structure(structure, 0.5, 8, margin=14.0)
    expected = solve_ground_state(structure, tensor, functional)
    space = SimplexSpace.for_structure(structure, 0.5, 0.5, margin=14.0)
    state = solve_ground_state(structure, space, functional, residual_tolerance=1e-5)
    assert state.energy == pytest.approx(expected.energy, abs=4e-3)
    assert state.forces == pytest.approx(expected.forces, abs=2e-3)
    assert state.chemical_potential == pytest.approx(expected.chemical_potential, abs=2e-3)


def test_sample_and_refinement_steps():
    structure = single("He")
    space = SimplexSpace.for_structure(structure, 0.2, 1.0, 8.0)
    functional = functional_for(["He"])
    state = solve_ground_state(structure, space, functional, residual_tolerance=1e-7)
    sample = state.to_sample()
    assert sample.energy_from_fields() == pytest.approx(state.energy, abs=1e-9)
    assert sample.stress is None
    bound = state.bound
    rough = state.density.from_root(space, state.density.root_coefficients * (1 + 0.1 * 0.5))
    refined = bound.refined(rough.normalised(2.0), 3)
    assert float(bound.energy(refined)) == pytest.approx(state.energy, abs=1e-8)


def test_description_of_the_bare_nucleus():
    nucleus = AllElectron(7)
    assert pseudopotential_from_description(nucleus.describe()) == nucleus
    r = torch.tensor([0.01, 0.5, 3.0], dtype=torch.float64)
    expected = nucleus.potential(r) + 7 * torch.erf(r / (1.2 * 2**0.5)) / r
    assert torch.allclose(nucleus.short_range(r, 1.2), expected, rtol=1e-12, atol=1e-14)
    with pytest.raises(PseudopotentialError, match="must be positive"):
        AllElectron(0)


def test_refusals():
    structure, functional = single("He"), functional_for(["He"])
    with pytest.raises(SpaceError, match="needs a mesh with a corner there"):
        solve_ground_state(structure, TensorSpace.for_structure(structure), functional)
    space = SimplexSpace.for_structure(structure, 0.3, 1.0, 6.0)
    plain = SimplexSpace(space.mesh, 2)
    with pytest.raises(SpaceError, match="needs a mesh with a corner there"):
        solve_ground_state(structure, plain, functional)
    with pytest.raises(SpaceError, match="nuclei at other positions"):
        solve_ground_state(nitrogen(2.0), space, functional_for(["N"]))
    nonlocal_kinetic = EnergyFunctional.orbital_free("wt", pseudopotential=GTHLocal(3, 0.7))
    with pytest.raises(FunctionalError, match="not defined in vacuum"):
        solve_ground_state(structure, space, nonlocal_kinetic)
