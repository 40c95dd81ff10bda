import itertools
import warnings

import numpy as np
import pytest
import spglib
import torch
from systems import fcc, rattled

from fedens import KPoints, Structure, TensorSpace, monkhorst_pack
from fedens.errors import SamplingError
from fedens.reference.kohn_sham.symmetry import Symmetry

EDGE = 7.65
#: A crystal with a glide plane and a screw axis and no symmetry beyond: (x, y, z) and
#: (1/2 - x, y + 1/2, -z) for two kinds of atoms.
SITES = np.array([[0.1, 0.13, 0.21], [0.4, 0.63, -0.21], [0.31, 0.4, 0.45], [0.19, 0.9, -0.45]])


def cube(elements=4, order=4, edge=EDGE):
    return TensorSpace([edge] * 3, elements, order)


def screw(lengths=(8.0, 9.0, 10.0)):
    return Structure(["Al", "Al", "Mg", "Mg"], SITES * lengths, cell=lengths, pbc=True)


def tetragonal():
    """Two atoms on a square prism that is long along y."""
    lengths = np.array([6.0, 9.0, 6.0])
    positions = np.array([[0, 0.1, 0], [0.5, 0.6, 0.5]]) * lengths
    return Structure(["Al", "Al"], positions, cell=lengths, pbc=True)


def diamond(edge=10.2):
    sites = np.concatenate([fcc(1.0).positions, fcc(1.0).positions + 0.25])
    return Structure(["Si"] * 8, sites * edge, cell=[edge] * 3, pbc=True)


#: Structure, space, order of its group on the mesh.
CASES = {
    "fcc": (fcc(EDGE), cube(), 192),
    "fcc, odd mesh": (fcc(EDGE), cube(3), 48),
    "diamond": (diamond(), cube(4, 4, 10.2), 192),
    "diamond, no glides": (diamond(), cube(2, 4, 10.2), 96),
    "screw": (screw(), TensorSpace([8.0, 9.0, 10.0], [2, 2, 3], 4), 2),
    "square": (tetragonal(), TensorSpace([6.0, 9.0, 6.0], [4, 6, 4], 3), 16),
    "rattled": (rattled(), TensorSpace([7.65, 7.5, 7.8], 2, 4), 1),
}


@pytest.fixture(params=CASES, scope="module")
def case(request):
    structure, space, order = CASES[request.param]
    return structure, space, order, Symmetry.of(structure, space)


def gaussians(structure, space):
    """A field with the symmetry of the structure, from sums over its atoms."""
    centres = torch.tensor(structure.positions)
    exponents = torch.tensor(0.1 + 0.02 * structure.numbers)
    return space.gaussian_sum(centres, exponents, exponents)


def random_field(space, *lead, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*lead, space.n_points, generator=generator, dtype=torch.float64)


def test_order_of_the_group(case):
    assert case[3].order == case[2]


def test_densities_of_atoms_are_invariant(case):
    structure, space, _, symmetry = case
    field = gaussians(structure, space)
    np.testing.assert_allclose(symmetry.symmetrised_field(field), field, rtol=1e-12)
    for operation in (*symmetry.translations, *symmetry.rotations):
        np.testing.assert_allclose(operation.move_field(field), field, rtol=1e-11)


def test_random_fields_become_invariant(case):
    _, space, order, symmetry = case
    field = random_field(space, 2)
    average = symmetry.symmetrised_field(field)
    np.testing.assert_allclose(space.integrate(average), space.integrate(field), rtol=1e-12)
    for operation in (*symmetry.translations, *symmetry.rotations):
        np.testing.assert_allclose(operation.move_field(average), average, rtol=1e-12)
    assert float((average - field).abs().max()) > 0.1 or order == 1


def test_forces_and_stress_turn_with_the_structure(case):
    """Derivatives of an energy of the density in positions and strain have the symmetry."""
    structure, space, _, symmetry = case
    positions = torch.tensor(structure.positions, requires_grad=True)
    exponents = torch.tensor(0.1 + 0.02 * structure.numbers)
    factors = torch.ones(3, dtype=torch.float64, requires_grad=True)
    stretched = space.scaled(factors)
    density = stretched.gaussian_sum(positions * factors, exponents, exponents)
    energy = stretched.integrate(density ** (5 / 3))
    forces, stress = torch.autograd.grad(energy, (positions, factors))
    np.testing.assert_allclose(symmetry.symmetrised_forces(forces), forces, atol=1e-11)
    np.testing.assert_allclose(symmetry.symmetrised_stress(stress), stress, rtol=1e-11)


@pytest.mark.parametrize("name", ["fcc, odd mesh", "diamond", "screw", "square"])
def test_every_operation_takes_fields_forces_and_stress_along(name):
    """Of atoms in a potential without symmetry."""
    structure, space, _ = CASES[name]
    positions = torch.tensor(structure.positions, requires_grad=True)
    exponents = torch.tensor(0.1 + 0.02 * structure.numbers)
    outside = gaussians(rattled(), space)
    slopes = space.evaluate_gradient(space.project(outside))

    def forces_and_stress(field, stress_field):
        energy = space.integrate(field * space.gaussian_sum(positions, exponents, exponents))
        return *torch.autograd.grad(energy, positions), space.integrate(stress_field)

    forces, stress = forces_and_stress(outside, slopes.T**2)
    symmetry = Symmetry.of(structure, space)
    for operation in (*symmetry.translations, *symmetry.rotations):
        moved = operation.move_field(outside)
        slopes = space.evaluate_gradient(space.project(moved))
        moved_forces, moved_stress = forces_and_stress(moved, slopes.T**2)
        np.testing.assert_allclose(operation.move_forces(forces), moved_forces, atol=1e-11)
        np.testing.assert_allclose(operation.move_stress(stress), moved_stress, atol=1e-11)


@pytest.mark.parametrize("name", ["fcc, odd mesh", "diamond", "screw", "square"])
def test_every_rotation_takes_the_states_of_one_k_point_to_those_of_another(name):
    structure, space, _ = CASES[name]
    k = np.array([0.11, 0.23, 0.37])
    states = lowest_states(structure, space, k)
    for operation in Symmetry.of(structure, space).rotations:
        turned = operation.rotation.numpy() @ k
        expected = lowest_states(structure, space, turned)
        np.testing.assert_allclose(operation.move_field(states), expected, atol=1e-9)


def test_forces_of_one_half_belong_to_the_other():
    """Screw axis along y: forces keep their y and change the sign of x and z."""
    structure, space, _ = CASES["screw"]
    forces = torch.tensor([[1.0, 2, 3], [0, 0, 0], [0, 0, 0], [4, 6, 8]], dtype=torch.float64)
    expected = [[0.5, 1, 1.5], [-0.5, 1, -1.5], [-2, 3, -4], [2, 3, 4]]
    average = Symmetry.of(structure, space).symmetrised_forces(forces)
    np.testing.assert_allclose(average, expected, atol=1e-14)


def test_stress_of_equal_axes_is_shared():
    structure, space, _ = CASES["square"]
    average = Symmetry.of(structure, space).symmetrised_stress(torch.tensor([1.0, 5.0, 2.0]))
    np.testing.assert_allclose(average, [1.5, 5.0, 1.5])


def irreducible_by_spglib(structure, size, shifts):
    """How many points of the mesh each irreducible one stands for."""
    lengths = structure.orthorhombic_lengths()
    cell = (np.diag(lengths), structure.positions / lengths, structure.numbers)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        mapping, _ = spglib.get_ir_reciprocal_mesh(size, cell, is_shift=np.array(shifts, int))
    return np.unique(mapping, return_counts=True)[1]


@pytest.mark.parametrize(
    ("name", "size"),
    [
        *itertools.product(CASES, [(2, 2, 2), (3, 3, 3), (4, 4, 4)]),
        ("square", (4, 2, 4)),
        ("screw", (2, 4, 6)),
        ("rattled", (3, 4, 2)),
    ],
)
@pytest.mark.parametrize("shifted", [True, False])
def test_irreducible_points_are_those_of_spglib(name, size, shifted):
    structure, space, _ = CASES[name]
    kpoints = monkhorst_pack(size, gamma_centred=not shifted)
    symmetry = Symmetry.of(structure, space)
    assert symmetry.keeping(kpoints).order == symmetry.order
    counts = irreducible_by_spglib(structure, size, [shifted and q % 2 == 0 for q in size])
    weights = symmetry.reduced(kpoints).weights
    np.testing.assert_allclose(sorted(weights), np.sort(counts) / len(kpoints), rtol=1e-12)


def test_fcc_with_a_shifted_mesh_has_four_points():
    """Of 64: (1,1,1), (3,1,1), (3,3,1) and (3,3,3) eighths."""
    kpoints = monkhorst_pack((4, 4, 4))
    reduced = Symmetry.of(*CASES["fcc"][:2]).reduced(kpoints)
    np.testing.assert_allclose(sorted(np.abs(reduced.points).sum(axis=1) * 8), [3, 5, 7, 9])
    np.testing.assert_allclose(sorted(reduced.weights), [1 / 8, 1 / 8, 3 / 8, 3 / 8])


@pytest.mark.parametrize("name", ["fcc", "fcc, odd mesh", "diamond", "screw", "square", "rattled"])
@pytest.mark.parametrize("size", [(2, 2, 2), (4, 2, 4), (1, 2, 3), (3, 1, 1)])
def test_irreducible_points_give_the_sum_over_all(name, size):
    """With eigenstates of (k + G)^2/2 + v in a few waves, v having the symmetry."""
    structure, space, _ = CASES[name]
    kpoints = monkhorst_pack(size)
    symmetry = Symmetry.of(structure, space).keeping(kpoints)
    reduced = symmetry.reduced(kpoints)

    def density(kpoints):
        total = torch.zeros(space.n_points, dtype=torch.float64)
        for k, weight in zip(kpoints.points, kpoints.weights, strict=True):
            total += weight * lowest_states(structure, space, k)
        return total

    expected = density(kpoints)
    assert len(reduced) < len(kpoints) or size == (3, 1, 1)
    np.testing.assert_allclose(symmetry.symmetrised_field(density(reduced)), expected, atol=1e-9)
    if len(reduced) < len(kpoints) / 2:
        assert float((density(reduced) - expected).abs().max()) > 1e-4


def lowest_states(structure, space, k):
    """exp(-H) between plane waves, at the points: a density that needs no counting of states."""
    lengths = np.array(space.lengths)
    waves = np.stack(np.meshgrid(*[np.arange(-1, 2)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    inside = np.linalg.norm((waves + k) / lengths, axis=1) < 1.2 / lengths.min()
    q = 2 * np.pi * (waves[inside] + k) / lengths
    phases = torch.tensor(np.exp(1j * space.points.numpy() @ q.T))
    weighted = (space.weights * gaussians(structure, space))[:, None] * phases
    potential = phases.conj().T @ weighted / space.volume
    kinetic = torch.tensor(np.diag((q**2).sum(axis=1) / 2))
    filled = torch.linalg.matrix_exp(-(kinetic - 4 * potential))
    return torch.einsum("pi,ij,pj->p", phases, filled, phases.conj()).real


def test_a_mesh_that_lacks_the_symmetry_keeps_less_of_it():
    symmetry = Symmetry.of(*CASES["fcc"][:2])
    kpoints = monkhorst_pack((4, 4, 2))
    with pytest.raises(SamplingError, match="use symmetry"):
        symmetry.reduced(kpoints)
    kept = symmetry.keeping(kpoints)
    assert kept.order == symmetry.order / 3
    assert symmetry.keeping(monkhorst_pack((2, 3, 4))).order == symmetry.order / 6
    assert symmetry.keeping(monkhorst_pack((3, 3, 3))) == symmetry


def test_one_general_point_leaves_translations_and_inversion():
    symmetry = Symmetry.of(*CASES["fcc"][:2]).keeping(KPoints([[0.1, 0.2, 0.3]], [1.0]))
    assert symmetry.order == 2 * 4


def test_unequal_weights_are_not_mixed():
    kpoints = KPoints([[0.25, 0, 0], [0, 0.25, 0]], [0.4, 0.6])
    symmetry = Symmetry.of(*CASES["fcc"][:2]).keeping(kpoints)
    np.testing.assert_allclose(symmetry.reduced(kpoints).weights, [0.4, 0.6])


def test_time_reversal_alone_halves_the_points_of_a_structure_without_symmetry():
    symmetry = Symmetry.of(*CASES["rattled"][:2])
    assert len(symmetry.reduced(monkhorst_pack((2, 2, 2)))) == 4
    assert len(Symmetry().reduced(monkhorst_pack((2, 2, 2)))) == 4


def test_without_symmetry_nothing_is_done():
    structure, space, _ = CASES["rattled"]
    field, forces = random_field(space), torch.rand(4, 3, dtype=torch.float64)
    for symmetry in (Symmetry.of(structure, space), Symmetry()):
        assert symmetry.symmetrised_field(field) is field
        assert symmetry.symmetrised_forces(forces) is forces


@pytest.mark.parametrize(("shift", "order"), [(5e-9, 192), (4e-8, 6)])
def test_a_displacement_beyond_rounding_breaks_the_symmetry(shift, order):
    """Along the diagonal: what is left turns about it, and mirrors."""
    positions = fcc(EDGE).positions.copy()
    positions[0] += shift * EDGE / np.sqrt(3)
    assert Symmetry.of(fcc(EDGE).replace(positions=positions), cube()).order == order


def test_atoms_of_another_kind_do_not_change_places():
    numbers = [13, 13, 13, 12]
    occupied = fcc(EDGE).replace(occupancies=[1, 1, 1, 0.5])
    assert Symmetry.of(fcc(EDGE).replace(numbers=numbers), cube()).order == 48
    assert Symmetry.of(occupied, cube()).order == 48


def test_atoms_that_share_their_sites_move_together():
    sites = np.repeat(fcc(EDGE).positions, 2, axis=0)
    alloy = Structure([13, 12] * 4, sites, [EDGE] * 3, True, occupancies=[0.3, 0.7] * 4)
    symmetry = Symmetry.of(alloy, cube())
    assert symmetry.order == 192
    field = gaussians(alloy, cube())
    np.testing.assert_allclose(symmetry.symmetrised_field(field), field, rtol=1e-12)


@pytest.mark.parametrize("old_handling", ["true", "false"])
def test_entries_of_one_kind_at_one_site_have_the_identity(monkeypatch, old_handling):
    """Which spglib refuses, in either of its ways."""
    monkeypatch.setenv("SPGLIB_OLD_ERROR_HANDLING", old_handling)
    sites = np.repeat(fcc(EDGE).positions, 2, axis=0)
    halves = Structure([13] * 8, sites, [EDGE] * 3, True, occupancies=[0.5] * 8)
    assert Symmetry.of(halves, cube()).order == 1


def test_a_graded_mesh_keeps_its_own_symmetry():
    """Fine elements in the middle of x; y and z as before."""
    edges = [EDGE * np.array([0, 0.2, 0.5, 0.8, 1]), *[EDGE * np.linspace(0, 1, 5)] * 2]
    space = TensorSpace(edges=edges, order=4)
    assert Symmetry.of(fcc(EDGE), space).order == 2 * 8 * 2
    lopsided = [EDGE * np.array([0, 0.2, 0.5, 0.7, 0.85, 1]), *edges[1:]]
    assert Symmetry.of(fcc(EDGE), TensorSpace(edges=lopsided, order=4)).order == 8 * 2


def test_a_mesh_that_is_coarser_along_one_axis():
    assert Symmetry.of(fcc(EDGE), TensorSpace([EDGE] * 3, [4, 4, 2], 4)).order == 192 / 3


def test_a_cell_that_is_a_little_longer_along_one_axis():
    lengths = EDGE * np.array([1, 1, 1 + 1e-7])
    strained = Structure(["Al"] * 4, fcc(1.0).positions * lengths, lengths, True)
    assert Symmetry.of(strained, TensorSpace(lengths, 4, 4)).order == 192 / 3


def test_a_mesh_with_an_origin_of_its_own():
    space = TensorSpace([EDGE] * 3, 4, 4, origin=[0.3 * EDGE] * 3)
    assert Symmetry.of(fcc(EDGE), space).order < 192
    moved = fcc(EDGE).replace(positions=fcc(EDGE).positions + 0.3 * EDGE)
    symmetry = Symmetry.of(moved, space)
    assert symmetry.order == 192
    field = gaussians(moved, space)
    np.testing.assert_allclose(symmetry.symmetrised_field(field), field, rtol=1e-12)


def test_isolated_boxes_have_the_identity():
    space = TensorSpace([EDGE] * 3, 4, 4, periodic=False)
    structure = Structure(["Al"], [[EDGE / 2] * 3])
    assert Symmetry.of(structure, space).order == 1
