"""Structures: what is accepted, what is refused and how, neighbours, ASE."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from fedens.errors import FedensError, StructureError
from fedens.structure import Structure, check_is_structure
from fedens.units import BOHR_IN_ANGSTROM

CELL = [10.0, 11.0, 12.0]


def pair(separation, **options):
    """Two aluminium atoms a distance apart along x, bohr."""
    return Structure(["Al", "Al"], [[0.0, 0.0, 0.0], [separation, 0.0, 0.0]], **options)


def test_symbols_and_numbers_are_the_same():
    by_symbol = Structure(["Al", "O", "Al"], np.diag([1.0, 5.0, 9.0]))
    by_number = Structure([13, 8, 13], np.diag([1.0, 5.0, 9.0]))
    assert by_symbol.numbers.tolist() == by_number.numbers.tolist() == [13, 8, 13]
    assert by_number.symbols == ["Al", "O", "Al"]
    assert by_number.formula == "Al2O"


def test_lengths_make_an_orthorhombic_cell():
    structure = pair(4.0, cell=CELL, pbc=True)
    assert np.array_equal(structure.cell, np.diag(CELL))
    assert structure.orthorhombic_lengths().tolist() == CELL
    assert structure.volume == pytest.approx(1320.0)


def test_arrays_are_copies_and_cannot_be_written():
    positions = np.array([[0.0, 0.0, 0.0], [4.0, 0.0, 0.0]])
    structure = Structure([13, 13], positions)
    positions[1, 0] = 0.1
    assert structure.positions[1, 0] == 4.0
    with pytest.raises(ValueError, match="read-only"):
        structure.positions[0, 0] = 1.0
    with pytest.raises(AttributeError):
        structure.charge = 1.0


def test_replace_changes_only_what_is_named_and_validates():
    structure = pair(4.0, cell=CELL, pbc=True, charge=1.0, spin=1)
    moved = structure.replace(positions=[[0, 0, 0], [5, 0, 0]])
    assert moved.positions[1, 0] == 5.0
    assert (moved.charge, moved.spin, moved.periodic) == (1.0, 1, True)
    with pytest.raises(StructureError):
        structure.replace(positions=[[0, 0, 0], [0, 0, 0.1]])


def test_a_periodic_cell_may_have_no_atoms():
    cell = Structure([], np.zeros((0, 3)), cell=CELL, pbc=True)
    assert (len(cell), cell.formula, cell.volume) == (0, "no-atoms", pytest.approx(1320.0))
    assert cell.digest != cell.replace(cell=[10, 11, 13]).digest
    assert [len(found) for found in cell.neighbours(6.0)] == [0, 0, 0, 0]
    assert len(Structure.from_ase(cell.to_ase())) == 0


def test_the_digest_is_that_of_everything_in_a_structure():
    cell = Structure(["Al", "Al"], [[0, 0, 0], [4, 0, 0]], cell=[8, 9, 10], pbc=True)
    assert cell.replace().digest == cell.digest
    changes = [
        {"numbers": ["Al", "Si"]},
        {"positions": np.nextafter(cell.positions, 1)},
        {"cell": [8, 9, 11]},
        {"pbc": False},
        {"cell": None, "pbc": False},
        {"charge": 1},
        {"spin": 1},
        {"occupancies": [1.0, 0.5]},
    ]
    digests = {cell.replace(**change).digest for change in changes}
    assert len(digests | {cell.digest}) == len(changes) + 1


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_unusable_position_is_named(value):
    with pytest.raises(StructureError, match="atom 1"):
        pair(value)


@pytest.mark.parametrize(
    ("numbers", "named"),
    [(["Al", "Xx"], "'Xx'"), ([13, 0], "atom 1"), ([13, 119], "119"), ([13, np.nan], "nan")],
)
def test_unknown_element_is_named(numbers, named):
    with pytest.raises(StructureError, match=named):
        Structure(numbers, np.eye(2, 3) * 5)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"positions": [[0.0, 0.0]]}, "shape"),
        ({"positions": [["a", 0.0, 0.0]]}, "positions must be"),
        ({"numbers": [], "positions": np.zeros((0, 3))}, "at least one atom, or a periodic cell"),
        ({"pbc": True}, "needs a cell"),
        ({"pbc": [True, False]}, "pbc"),
        ({"cell": [9.0, 9.0], "pbc": True}, "cell has shape"),
        ({"cell": [9.0, np.nan, 9.0], "pbc": True}, "finite"),
        ({"cell": np.ones((3, 3)), "pbc": True}, "volume"),
        ({"cell": [1e-3, 1e3, 1e3], "pbc": True}, "0.001 bohr high"),
        ({"cell": CELL, "pbc": [True, True, False]}, "slabs and wires"),
        ({"charge": np.nan}, "charge"),
        ({"spin": 0.5}, "spin"),
        ({"spin": -1}, "spin"),
        ({"occupancies": [1.5]}, "occupancies"),
        ({"occupancies": [1.0, 1.0]}, "occupancies"),
    ],
)
def test_bad_argument_is_named(arguments, named):
    with pytest.raises(StructureError, match=named):
        Structure(**({"numbers": ["Al"], "positions": [[0.0, 0.0, 0.0]]} | arguments))


def test_errors_can_be_caught_as_fedens_errors_and_as_value_errors():
    with pytest.raises(FedensError):
        pair(0.1)
    with pytest.raises(ValueError, match="closer"):
        pair(0.1)


@pytest.mark.parametrize("separation", [0.0, 0.3, 0.499])
def test_overlap_is_refused(separation):
    with pytest.raises(StructureError, match="atoms 0 and 1"):
        pair(separation)


def test_atoms_may_share_a_site():
    """Fractions of at most one atom together; isolated, and across a cell's boundary."""
    for cell in (None, [8.0, 9.0, 10.0]):
        options = {"cell": cell, "pbc": cell is not None}
        positions = [[0.0, 1.0, 2.0], [0.0 if cell is None else 8.0, 1.0, 2.0], [4.0, 4.0, 4.0]]
        alloy = ["Si", "Al", "O"]
        Structure(alloy, positions, occupancies=[0.3, 0.7, 1.0], **options)
        with pytest.raises(StructureError, match=r"atoms 0 and 1 share a site.*1\.1 times"):
            Structure(alloy, positions, occupancies=[0.4, 0.7, 1.0], **options)
        near = [[0.0, 1.0, 2.1], *positions[1:]]
        with pytest.raises(StructureError, match=r"0\.100 bohr apart"):
            Structure(alloy, near, occupancies=[0.3, 0.7, 1.0], **options)


def test_atoms_just_apart_are_accepted():
    assert len(pair(0.501)) == 2


@pytest.mark.parametrize("position", [9.8, -10.2, 109.8])
def test_overlap_through_the_periodic_boundary_is_refused(position):
    with pytest.raises(StructureError, match=r"0\.200 bohr apart"):
        pair(position, cell=CELL, pbc=True)
    assert len(pair(position, cell=CELL, pbc=False)) == 2


def test_atoms_may_be_very_far_apart():
    assert len(Structure(["Al", "Al"], [[0, 0, 0], [1e6, 1e6, 0]])) == 2


def test_periodic_neighbours_of_fcc():
    cubic = Structure.from_ase(bulk("Al", "fcc", a=4.05, cubic=True))
    nearest = 4.05 / np.sqrt(2) / BOHR_IN_ANGSTROM
    first, second, shifts, distances = cubic.neighbours(1.01 * nearest)
    assert np.bincount(first).tolist() == [12, 12, 12, 12]
    vectors = cubic.positions[second] + shifts @ cubic.cell - cubic.positions[first]
    assert np.allclose(np.linalg.norm(vectors, axis=1), distances)
    assert np.allclose(distances, nearest)


def test_isolated_neighbours_come_in_both_orders():
    structure = Structure(["H", "H", "H"], [[0, 0, 0], [1.4, 0, 0], [9, 0, 0]])
    first, second, shifts, distances = structure.neighbours(2.0)
    assert sorted(zip(first.tolist(), second.tolist(), strict=True)) == [(0, 1), (1, 0)]
    assert not shifts.any()
    assert np.allclose(distances, 1.4)


@pytest.mark.parametrize(
    "cell", [[[9, 0, 0], [0.1, 9, 0], [0, 0, 9]], np.diag([9.0, 9.0, 9.0])[[1, 0, 2]]]
)
def test_sheared_or_permuted_cell_has_no_orthorhombic_lengths(cell):
    structure = Structure(["Al"], [[0, 0, 0]], cell=cell, pbc=True)
    with pytest.raises(StructureError, match="not orthorhombic"):
        structure.orthorhombic_lengths()


def test_isolated_structure_has_no_cell_lengths_and_no_volume():
    with pytest.raises(StructureError, match="needs a cell"):
        pair(4.0).orthorhombic_lengths()
    with pytest.raises(StructureError, match="no volume"):
        _ = pair(4.0).volume


def test_ase_round_trip_of_a_strained_crystal():
    atoms = bulk("Al", "fcc", a=4.05, cubic=True) * (2, 1, 1)
    atoms.set_cell(atoms.cell * [1.01, 0.99, 1.02], scale_atoms=True)
    atoms.rattle(0.1, seed=1)
    back = Structure.from_ase(atoms).to_ase()
    assert back.get_chemical_symbols() == atoms.get_chemical_symbols()
    assert np.allclose(back.positions, atoms.positions, rtol=0, atol=1e-12)
    assert np.allclose(back.cell, atoms.cell, rtol=0, atol=1e-12)
    assert back.pbc.all()


def test_ase_lengths_become_bohr():
    water = molecule("H2O")
    structure = Structure.from_ase(water)
    assert structure.cell is None
    assert not structure.periodic
    assert np.allclose(structure.positions * 0.529177, water.positions, atol=1e-6)


def test_ase_carries_charge_and_spin():
    atoms = Structure(["O", "H"], [[0, 0, 0], [1.8, 0, 0]], charge=-1, spin=0).to_ase()
    assert Structure.from_ase(atoms).charge == -1.0
    radical = Structure(["O", "H"], [[0, 0, 0], [1.8, 0, 0]], spin=1).to_ase()
    assert Structure.from_ase(radical).spin == 1


def test_partial_occupancies_cannot_go_to_ase():
    structure = Structure(["Al"], [[0, 0, 0]], occupancies=[0.5])
    with pytest.raises(StructureError, match="occupancies"):
        structure.to_ase()


def test_bad_atoms_from_ase_are_refused():
    overlapping = Atoms("Al2", positions=[[0, 0, 0], [0, 0, 0.1]])
    with pytest.raises(StructureError, match="closer"):
        Structure.from_ase(overlapping)
    with pytest.raises(StructureError, match="not a known element"):
        Structure.from_ase(Atoms("X", positions=[[0, 0, 0]]))


def test_atoms_are_moved_into_a_box_that_starts_anywhere():
    cell, origin = np.array([4.0, 5.0, 6.0]), np.array([-1.0, 2.0, 3.0])
    structure = Structure(["Al", "O"], [[-1.5, 2.5, 3.1], [9.0, -4.0, 8.9]], cell=cell, pbc=True)
    moved = structure.positions_in_box(origin)
    np.testing.assert_allclose(moved, [[2.5, 2.5, 3.1], [1.0, 6.0, 8.9]])
    isolated = Structure(["Al"], [[-1.5, 2.5, 3.1]])
    np.testing.assert_array_equal(isolated.positions_in_box(origin), isolated.positions)


def test_ases_atoms_are_no_structure():
    check_is_structure(Structure(["Al"], [[0, 0, 0]]))
    with pytest.raises(StructureError, match=r"this is Atoms: Structure.from_ase\(atoms\)"):
        check_is_structure(Structure(["Al"], [[0, 0, 0]]).to_ase())
