"""The table of fields: its factors against ASE's units, and names that begin with an entry."""

import pytest
from ase import units as ase_units

from fedens.errors import OutputError
from fedens.fields import (
    ENERGY_DENSITIES,
    FIELDS,
    LOCAL_FIELDS,
    UNITS,
    Field,
    field_of,
    field_unit,
    is_density,
)

SIZES = {
    "electron": 1.0,
    "elementary charge": 1.0,
    "1": 1.0,
    "hartree": ase_units.Hartree,
    "eV": ase_units.eV,
    "bohr": ase_units.Bohr,
    "angstrom": ase_units.Angstrom,
}


def size(unit):
    """Value of a unit such as ``hartree/bohr^3`` in ASE's units."""
    above, _, below = unit.partition("/")
    base, _, power = below.partition("^")
    return SIZES[above] / (SIZES[base] ** int(power or 1) if base else 1.0)


@pytest.mark.parametrize("unit", UNITS.values(), ids=UNITS)
def test_factors_lead_from_the_unit_inside_to_the_unit_in_files(unit):
    assert unit.factor == pytest.approx(size(unit.name) / size(unit.in_files), rel=1e-14)
    assert not {"hartree", "bohr"} & set(unit.in_files.replace("^", "/").split("/"))


def test_energy_densities_have_the_unit_of_one():
    for name in ENERGY_DENSITIES:
        assert FIELDS[name].unit.name == "hartree/bohr^3"
    assert ENERGY_DENSITIES == ("kinetic", "xc", "electrostatic")
    assert LOCAL_FIELDS == ("density", "kinetic", "xc")


@pytest.mark.parametrize("name", ["density", "density_error", "density of water", "density_up"])
def test_the_first_word_tells_the_field(name):
    assert field_of(name) is FIELDS["density"]
    assert is_density(name)


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("effective_potential", "effective_potential"),
        ("effective potential error", "effective_potential"),
        ("potential_error", "potential"),
        ("orbital_density_k0_band3", "orbital_density"),
        ("effective", None),
    ],
)
def test_names_of_several_words_tell_the_field(name, entry):
    assert field_of(name) is FIELDS.get(entry)


def test_the_longest_entry_tells_the_field(monkeypatch):
    curvature = Field(UNITS["1"])
    monkeypatch.setitem(FIELDS, "density_curvature", curvature)
    assert field_of("density_curvature_x") is curvature
    assert field_of("density_error") is FIELDS["density"]


@pytest.mark.parametrize("name", ["densityerror", "root_density", "", "points"])
def test_other_names_tell_nothing(name):
    assert field_of(name) is None
    assert not is_density(name)
    with pytest.raises(OutputError, match="start its name with one of density"):
        field_unit(name)


def test_a_unit_that_is_given_goes_before_the_name():
    assert field_unit("density", {"density": "1"}) is UNITS["1"]
    assert field_unit("density", {"other": "1"}) is UNITS["electron/bohr^3"]
    with pytest.raises(OutputError, match="has unit 'bananas'"):
        field_unit("density", {"density": "bananas"})
