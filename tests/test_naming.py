"""Units of files against ASE's, names of fields, and atoms moved into their box."""

import numpy as np
import pytest
from ase.units import Bohr, Hartree

from fedens.errors import OutputError
from fedens.output.naming import FILE_UNITS, field_unit, inside_box, is_density
from fedens.structure import Structure

#: Of every word that a unit is made of, in eV and angstrom.
VALUES = {
    "1": 1.0,
    "electron": 1.0,
    "elementary charge": 1.0,
    "eV": 1.0,
    "angstrom": 1.0,
    "hartree": Hartree,
    "bohr": Bohr,
}


def value(unit):
    """A unit such as ``hartree/bohr^3`` in eV and angstrom."""
    above, _, below = unit.partition("/")
    word, _, power = below.partition("^")
    return VALUES[above] / (VALUES[word] ** int(power or 1) if below else 1.0)


@pytest.mark.parametrize("unit", FILE_UNITS)
def test_numbers_in_files_are_the_same_quantities(unit):
    factor, unit_in_files = FILE_UNITS[unit]
    assert not {"bohr", "hartree"} & set(unit_in_files.replace("^", "/").split("/"))
    assert factor * value(unit_in_files) == pytest.approx(value(unit), rel=1e-12)


def test_units_of_fields_by_name():
    assert field_unit("density error") == "electron/bohr^3"
    assert field_unit("kinetic_predicted") == "hartree/bohr^3"
    assert field_unit("forces_functional") == "hartree/bohr"
    assert field_unit("density", {"density": "bohr"}) == "bohr"
    assert [is_density(name) for name in ("density", "density_error", "xc", "dense")] == [
        True,
        True,
        False,
        False,
    ]
    with pytest.raises(OutputError, match="field 'speed' has unit None"):
        field_unit("speed")


def test_atoms_are_moved_into_a_box_that_starts_anywhere():
    cell, origin = np.array([4.0, 5.0, 6.0]), np.array([-1.0, 2.0, 3.0])
    structure = Structure(["Al", "O"], [[-1.5, 2.5, 3.1], [9.0, -4.0, 8.9]], cell=cell, pbc=True)
    moved = inside_box(structure, origin)
    np.testing.assert_allclose(moved, [[2.5, 2.5, 3.1], [1.0, 6.0, 8.9]])
    isolated = Structure(["Al"], [[-1.5, 2.5, 3.1]])
    np.testing.assert_array_equal(inside_box(isolated, origin), isolated.positions)
