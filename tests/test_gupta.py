"""The second-moment potential: derivatives against differences, its crystal against others."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.lj import LennardJones

from fedens import Structure
from fedens.errors import StructureError
from fedens.generalisation.defects import Crystal, check_relaxed, relaxed_crystal
from fedens.generalisation.embedded import EmbeddedPotential
from fedens.generalisation.gupta import Gupta, smooth_cutoff
from fedens.generalisation.potential import AsePotential, difference_product
from fedens.testing import central_difference
from fedens.units import BOHR_IN_ANGSTROM, HARTREE_IN_EV

GUPTA = Gupta()


@pytest.fixture(scope="module")
def crystal():
    return relaxed_crystal(GUPTA, "Al", 7.65)


@pytest.fixture(scope="module")
def displaced(crystal):
    """A strained periodic cell of 32 displaced atoms, and a direction."""
    random = np.random.default_rng(3)
    cell = crystal.cell(2)
    shear = np.eye(3) + 0.02 * random.standard_normal((3, 3))
    positions = cell.positions @ shear + 0.15 * random.standard_normal(cell.positions.shape)
    structure = cell.replace(positions=positions, cell=np.array(cell.cell) @ shear)
    return structure, random.standard_normal(cell.positions.shape)


def test_energy_of_a_pair():
    """Two atoms: the formula by hand, in eV."""
    r = 2.7
    x = r / 2.864 - 1
    expected = 2 * (0.1221 * np.exp(-8.612 * x) - 1.316 * np.exp(-2.516 * x))
    pair = Structure(["Al", "Al"], [[0, 0, 0], [r / BOHR_IN_ANGSTROM, 0, 0]])
    energy, forces = GUPTA.bind(pair).energy_and_forces(pair.positions)
    assert energy * HARTREE_IN_EV == pytest.approx(expected, rel=1e-12)
    assert forces[0, 0] == pytest.approx(-forces[1, 0], rel=1e-12)


def test_crystal_is_aluminium(crystal):
    """Cleri and Rosato fitted 4.050 angstrom and 3.339 eV, with neighbours up to the fifth."""
    cell = crystal.cell()
    energy = GUPTA.bind(cell).energy_and_forces(cell.positions)[0] / len(cell)
    assert crystal.lattice_constant * BOHR_IN_ANGSTROM == pytest.approx(4.05, abs=0.005)
    assert energy * HARTREE_IN_EV == pytest.approx(-3.339, abs=0.03)
    check_relaxed(GUPTA, crystal)


def test_forces_are_the_derivative(displaced):
    structure, direction = displaced
    bound = GUPTA.bind(structure)

    def energy(length):
        return bound.energy_and_forces(structure.positions + length * direction)[0]

    forces = bound.energy_and_forces(structure.positions)[1]
    expected = -central_difference(energy, 1e-3)
    assert np.vdot(forces, direction) == pytest.approx(expected, rel=1e-8)


def test_virial_is_the_derivative_by_strain(displaced):
    structure, _ = displaced
    strain = np.random.default_rng(4).standard_normal((3, 3))

    def energy(size):
        change = np.eye(3) + size * strain
        strained = structure.replace(
            positions=structure.positions @ change, cell=np.array(structure.cell) @ change
        )
        return GUPTA.bind(strained).energy_and_forces(strained.positions)[0]

    virial = GUPTA.bind(structure).virial(structure.positions)
    assert np.allclose(virial, virial.T, atol=1e-14)
    expected = central_difference(energy, 1e-4)
    assert (virial * strain).sum() == pytest.approx(expected, rel=1e-7)


def test_hessian_product_is_the_derivative_of_forces(displaced):
    structure, direction = displaced
    bound = GUPTA.bind(structure)
    product = bound.hessian(structure.positions)(direction)
    for atom, axis in ((0, 1), (17, 2)):

        def force(length, atom=atom, axis=axis):
            moved = structure.positions + length * direction
            return bound.energy_and_forces(moved)[1][atom, axis]

        assert product[atom, axis] == pytest.approx(-central_difference(force, 1e-3), rel=1e-7)
    differences = difference_product(bound, structure.positions, 1e-3)(direction)
    assert np.abs(differences - product).max() < 1e-5 * np.abs(product).max()


def test_hessian_is_symmetric(displaced):
    structure, one = displaced
    two = np.random.default_rng(5).standard_normal(one.shape)
    hessian = GUPTA.bind(structure).hessian(structure.positions)
    assert np.vdot(two, hessian(one)) == pytest.approx(np.vdot(one, hessian(two)), rel=1e-12)


def test_fixed_atoms_change_nothing(crystal):
    """Energies and forces with clamped atoms are those of all atoms."""
    ball = crystal.ball(2.5 * crystal.lattice_constant)
    free = np.linalg.norm(ball.positions, axis=1) < 6.0
    moved = (
        ball.positions
        + 0.1 * np.random.default_rng(6).standard_normal(ball.positions.shape) * free[:, None]
    )
    everything, some = GUPTA.bind(ball), GUPTA.bind(ball, free)
    energy, forces = everything.energy_and_forces(moved)
    clamped_energy, clamped_forces = some.energy_and_forces(moved)
    assert clamped_energy == pytest.approx(energy, abs=1e-11)
    assert np.allclose(clamped_forces[free], forces[free], atol=1e-12)
    assert (clamped_forces[~free] == 0).all()
    direction = np.random.default_rng(7).standard_normal(moved.shape) * free[:, None]
    assert np.allclose(
        some.hessian(moved)(direction)[free], everything.hessian(moved)(direction)[free], atol=1e-12
    )


def test_neighbours_are_found_again_when_atoms_move(crystal):
    """A binding made at other positions gives what a new one gives."""
    cell = crystal.cell(2)
    far = cell.positions.copy()
    far[0] += [1.2, 0.7, 0.0]
    old = GUPTA.bind(cell).energy_and_forces(far)
    new = GUPTA.bind(cell.replace(positions=far)).energy_and_forces(far)
    assert old[0] == pytest.approx(new[0], rel=1e-12)
    assert np.allclose(old[1], new[1], atol=1e-12)


def test_cutoff_is_smooth():
    """1 and 0 at its ends, with three vanishing derivatives."""
    inside = torch.tensor([5.0, 6.0], dtype=torch.float64)
    assert smooth_cutoff(inside, 5.0, 6.0).tolist() == pytest.approx([1.0, 0.0], abs=1e-14)
    assert float(smooth_cutoff(torch.tensor(5.5), 5.0, 6.0)) == pytest.approx(0.5)
    for end, distance in ((5.0, 1.0), (6.0, -1.0)):
        near = torch.tensor(end + 1e-2 * distance, dtype=torch.float64)
        limit = smooth_cutoff(torch.tensor(end, dtype=torch.float64), 5.0, 6.0)
        change = abs(float(smooth_cutoff(near, 5.0, 6.0) - limit))
        assert 0 < change < 40 * 1e-2**4


def test_isolated_atom_has_no_energy():
    atom = Structure(["Al"], [[0.0, 0.0, 0.0]])
    energy, forces = GUPTA.bind(atom).energy_and_forces(atom.positions)
    assert abs(energy) < 1e-100
    assert (forces == 0).all()


def test_unrelaxed_crystal_is_refused(crystal):
    wrong = replace(crystal, lattice_constant=1.01 * crystal.lattice_constant)
    with pytest.raises(StructureError, match=r"not relaxed.*stress of [0-9.]+e-02 eV/angstrom\^3"):
        check_relaxed(GUPTA, wrong)
    with pytest.raises(StructureError, match="no equilibrium of Al"):
        relaxed_crystal(GUPTA, "Al", 12.0)
    with pytest.raises(StructureError, match="expected fcc or bcc"):
        Crystal("Al", 7.65, "hcp")


class Linear(EmbeddedPotential):
    """A pair potential r^-6 cut off smoothly: an embedding without second derivatives."""

    cutoff = 9.0

    def radial(self, bonds):  # noqa: ARG002
        return lambda r: (r**-6 * smooth_cutoff(r, 7.0, 9.0))[..., None]

    def embedding(self, bonds):  # noqa: ARG002
        return lambda densities: 500 * densities[..., 0]


def test_linear_embedding_has_a_hessian(displaced):
    structure, direction = displaced
    bound = Linear().bind(structure)
    product = bound.hessian(structure.positions)(direction)
    expected = difference_product(bound, structure.positions, 1e-3)(direction)
    assert np.abs(product - expected).max() < 1e-5 * np.abs(expected).max()


def test_ase_calculators_are_potentials():
    """Energies, forces, virials of ASE's own Lennard-Jones crystal; products of its Hessian."""
    edge = 5.3
    atoms = Atoms(
        "Ar4", positions=edge * np.array([[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0]]) / 2
    )
    atoms.set_cell([edge] * 3)
    atoms.pbc = True
    atoms.rattle(0.05, seed=1)
    calculator = LennardJones(sigma=3.4, epsilon=0.01, rc=6.0, ro=5.0, smooth=True)
    structure = Structure.from_ase(atoms)
    potential = AsePotential(calculator, cutoff=6.0 / BOHR_IN_ANGSTROM)
    bound = potential.bind(structure)
    energy, forces = bound.energy_and_forces(structure.positions)
    atoms.calc = calculator
    assert energy * HARTREE_IN_EV == pytest.approx(atoms.get_potential_energy(), rel=1e-12)
    volume = atoms.get_volume()
    virial = bound.virial(structure.positions) * HARTREE_IN_EV
    assert np.allclose(virial, atoms.get_stress(voigt=False) * volume, atol=1e-12)
    direction = np.random.default_rng(0).standard_normal(forces.shape)
    product = bound.hessian(structure.positions)(direction)

    def work(length):
        moved = structure.positions + length * direction
        return np.vdot(bound.energy_and_forces(moved)[1], direction)

    assert np.vdot(product, direction) == pytest.approx(-central_difference(work, 1e-3), rel=1e-3)
