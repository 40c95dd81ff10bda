"""Total energy from fields: exact for exact fields, on PySCF's grid and on tetrahedra."""

from copy import copy

import numpy as np
import pytest
import torch

from fedens.atoms.energy_from_fields import electrostatic_potential, energy_from_fields
from fedens.atoms.spherical import pair_energy, superposed_fields
from fedens.errors import FunctionalError
from fedens.fem.simplex import SimplexSpace
from fedens.reference.pyscf.free_atoms import free_atom, free_atoms, solve_atom
from fedens.reference.pyscf.kohn_sham import solve_with_pyscf
from fedens.structure import Structure

#: Edges of the tetrahedra at the nuclei, bohr: short where the core is small.
FINEST = {"O": 0.05, "H": 0.15}


def water():
    return Structure(["O", "H", "H"], [[0.0, 0.0, 0.2], [0.0, 1.43, -0.9], [0.0, -1.43, -0.9]])


def pair(distance, symbols=("O", "H")):
    return Structure(symbols, [[0.0, 0.0, 0.0], [0.0, 0.0, distance]])


@pytest.fixture(autouse=True, scope="module")
def _cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        free_atom.cache_clear()
        yield


@pytest.fixture(scope="module")
def state():
    return solve_with_pyscf(water(), grid_level=5)


@pytest.fixture(scope="module")
def atoms():
    return free_atoms(["O", "H"], "pbe", "def2-svp")


class Grid:
    """PySCF's grid, and the exact potential of the difference to superposed atoms there."""

    def __init__(self, state, atoms):
        grids = state.mean_field.grids
        self.points, self.weights = torch.tensor(grids.coords), torch.tensor(grids.weights)
        self.n_points = len(self.weights)
        self.fields = fields_at(state, self.points, potential=True)
        superposed = superposed_fields(state.structure, self.points, atoms)
        self.potential = self.fields["potential"] - superposed["potential"]

    def integrate(self, field):
        return field @ self.weights

    def coulomb_energy(self, charge):
        return 0.5 * self.integrate(charge * self.potential)


def fields_at(state, points, **options):
    fields = state.fields(points.numpy(), **options)
    return {name: torch.tensor(values) for name, values in fields.items()}


def expected(state):
    """PySCF's energies under the names of ours."""
    parts = state.energies
    electrostatic = sum(
        parts[name] for name in ("nuclear_attraction", "hartree", "nuclear_repulsion")
    )
    return {
        "kinetic": parts["kinetic"],
        "xc": parts["xc"],
        "electrostatic": electrostatic,
        "total": parts["total"],
    }


@pytest.fixture(scope="module")
def grid(state, atoms):
    return Grid(state, atoms)


def numbers(energies):
    return {name: float(energy) for name, energy in energies.items()}


@pytest.mark.parametrize(("symbols", "distance"), [("OH", 1.8), ("OO", 2.5), ("HH", 0.7)])
def test_pair_energy_is_that_of_superposed_density_matrices(symbols, distance):
    """All integrals by Gaussians: energy of both atoms together minus that of each."""
    from pyscf import gto, scf
    from scipy.linalg import block_diag

    structure = pair(distance, list(symbols))
    own = [solve_atom(symbol, "pbe", "def2-svp") for symbol in symbols]
    matrix = block_diag(*(atom.make_rdm1() for atom in own))
    together = gto.M(
        atom=list(zip(symbols, structure.positions.tolist(), strict=True)),
        unit="Bohr",
        basis="def2-svp",
        spin=None,
        verbose=0,
    )

    def electrostatic(molecule, matrix):
        hartree = 0.5 * scf.hf.get_jk(molecule, matrix)[0]
        return ((molecule.intor("int1e_nuc") + hartree) * matrix).sum() + molecule.energy_nuc()

    exact = electrostatic(together, matrix)
    exact -= sum(electrostatic(atom.mol, atom.make_rdm1()) for atom in own)
    found = pair_energy(structure, free_atoms(symbols, "pbe", "def2-svp"))
    assert float(found) == pytest.approx(exact, abs=1e-8)


def test_pair_energy_has_its_derivative_and_ends(atoms):
    structure, step = pair(1.9), 1e-4
    positions = torch.tensor(structure.positions, requires_grad=True)
    (slope,) = torch.autograd.grad(pair_energy(structure, atoms, positions), positions)
    difference = (pair_energy(pair(1.9 + step), atoms) - pair_energy(pair(1.9 - step), atoms)) / (
        2 * step
    )
    assert float(slope[1, 2]) == pytest.approx(float(difference), abs=1e-7)
    assert slope[0].numpy() == pytest.approx(-slope[1].numpy(), abs=1e-12)
    assert abs(float(slope[1, 2])) > 1e-2
    assert abs(float(pair_energy(pair(25.0), atoms))) < 1e-8
    assert abs(float(pair_energy(pair(80.0), atoms))) < 1e-8


def test_exact_fields_give_the_exact_energy(state, atoms, grid):
    """On PySCF's grid, where every part is a sum of its own numbers."""
    energies = energy_from_fields(state.structure, grid, grid.fields, atoms)
    assert numbers(energies) == pytest.approx(expected(state), rel=0, abs=1e-6)


def test_any_neutral_atoms_will_do(state):
    """The atoms are only a reference: those of another basis and functional give the same."""
    others = free_atoms(["O", "H"], "lda_pz", "def2-tzvp")
    grid = Grid(state, others)
    energies = energy_from_fields(state.structure, grid, grid.fields, others)
    # errors of the grid no longer cancel in the cores
    assert numbers(energies) == pytest.approx(expected(state), rel=0, abs=1e-4)


def test_derivative_with_respect_to_the_positions(state, atoms, grid):
    """Fields, points and potential fixed: what is left are the atoms' own parts."""
    grid, step, structure = copy(grid), 1e-4, state.structure
    # away from the nuclei, where no point comes close to one that moves
    distance = (grid.points[:, None] - torch.tensor(structure.positions)).norm(dim=2).min(dim=1)
    grid.weights = grid.weights * (distance.values > 0.05)
    positions = torch.tensor(structure.positions, requires_grad=True)

    def energy(at):
        return energy_from_fields(structure, grid, grid.fields, atoms, at)["total"]

    (slope,) = torch.autograd.grad(energy(positions), positions)
    for atom, axis in ((0, 2), (1, 1)):
        shift = torch.zeros_like(positions)
        shift[atom, axis] = step
        ends = [float(energy(positions.detach() + sign * shift)) for sign in (1, -1)]
        difference = (ends[0] - ends[1]) / (2 * step)
        assert float(slope[atom, axis]) == pytest.approx(difference, abs=1e-5)


@pytest.mark.slow
def test_water_on_tetrahedra(state, atoms):
    space = SimplexSpace.for_structure(water(), finest=FINEST, growth=0.55)
    fields = fields_at(state, space.points)
    energies = energy_from_fields(water(), space, fields, atoms)
    assert numbers(energies) == pytest.approx(expected(state), rel=0, abs=1e-4)
    found = electrostatic_potential(water(), space, fields["density"], atoms)
    there = space.points[::999]
    again = electrostatic_potential(water(), space, fields["density"], atoms, there)
    torch.testing.assert_close(again, found[::999], rtol=0, atol=1e-10)
    distance = (space.points[:, None] - torch.tensor(water().positions)).norm(dim=2).min(dim=1)
    outside = torch.nonzero(distance.values > 0.5)[::500, 0]
    exact = fields_at(state, space.points[outside], potential=True)["potential"]
    error = (found[outside] - exact).abs()
    assert float(error.max()) < 1e-3  # in some large cells; elsewhere much less
    assert float(error.median()) < 1e-4


@pytest.mark.slow
def test_derivative_while_the_mesh_moves(atoms):
    """Fields stay what they are at the points; the fit to their difference is another each time."""
    structure, step = pair(1.8), 1e-3
    space = SimplexSpace.for_structure(structure, finest={"O": 0.2, "H": 0.4}, growth=0.9)
    fields = superposed_fields(pair(1.7), space.points, atoms, names=["density", "kinetic", "xc"])
    start = torch.tensor(structure.positions)

    def energy(positions):
        there = space.moved(positions)
        return energy_from_fields(structure, there, fields, atoms, positions)["electrostatic"]

    positions = start.clone().requires_grad_()
    (slope,) = torch.autograd.grad(energy(positions), positions)
    shift = torch.zeros_like(start)
    shift[1, 2] = step
    difference = (float(energy(start + shift)) - float(energy(start - shift))) / (2 * step)
    assert float(slope[1, 2]) == pytest.approx(difference, abs=1e-5)
    assert abs(difference) > 0.1


def attraction_of_difference(state, atoms):
    """int (n - sum n_A) v_nuclei d^3r by Gaussian integrals and the atoms' tables."""
    structure = state.structure
    total = state.energies["nuclear_attraction"]
    for i, symbol in enumerate(structure.symbols):
        total -= atoms[symbol].energies["nuclear_attraction"]
        others = np.delete(structure.positions, i, axis=0) - structure.positions[i]
        distances = torch.tensor(np.linalg.norm(others, axis=1))
        charges = torch.tensor(np.delete(structure.numbers, i), dtype=torch.float64)
        total += float(charges @ atoms[symbol].hartree_potential(distances))
    return total


@pytest.mark.slow
def test_integrals_of_differences_in_a_triple_zeta_basis():
    """At most 150,000 points: 1e-6 electrons, 0.05, 0.02 and 0.1 mHa."""
    state = solve_with_pyscf(water(), basis="def2-tzvp", grid_level=5)
    atoms = free_atoms(["O", "H"], "pbe", "def2-tzvp")
    space = SimplexSpace.for_structure(water(), finest=FINEST, growth=0.7, margin=9.0)
    assert space.n_points <= 150_000
    fields = fields_at(state, space.points)
    superposed = superposed_fields(water(), space.points, atoms)
    difference = {name: fields[name] - superposed[name] for name in ("density", "kinetic", "xc")}
    assert abs(float(space.integrate(difference["density"]))) < 1e-6
    for name, tolerance in (("kinetic", 5e-5), ("xc", 2e-5)):
        own = sum(atoms[symbol].energies[name] for symbol in water().symbols)
        integral = float(space.integrate(difference[name]))
        assert integral == pytest.approx(state.energies[name] - own, abs=tolerance)
    nuclei = sum(
        -charge / (space.points - torch.tensor(position)).norm(dim=1)
        for charge, position in zip(water().numbers, water().positions, strict=True)
    )
    attraction = float(space.integrate(difference["density"] * nuclei))
    assert attraction == pytest.approx(attraction_of_difference(state, atoms), abs=1e-4)


def test_what_is_missing_is_named(atoms, grid):
    with pytest.raises(FunctionalError, match="no field 'kinetic' among density"):
        energy_from_fields(water(), grid, {"density": grid.fields["density"]}, atoms)
    with pytest.raises(FunctionalError, match=r"'density' has shape \(5,\), expected"):
        energy_from_fields(water(), grid, grid.fields | {"density": torch.zeros(5)}, atoms)
    with pytest.raises(FunctionalError, match="no free atom of H"):
        energy_from_fields(water(), grid, grid.fields, {"O": atoms["O"]})
