"""The fields of fedens in one table: name, unit inside, unit in files, kind.

A field's own name begins with one of the table, alone or before ``_`` or a space: ``gradient_x``
and ``density_error`` are a gradient and a density. Fields of one spin find their place the same
way, as ``density_up`` beside ``density``, the sum of both. The longest entry counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fedens.errors import OutputError
from fedens.units import (
    BOHR_IN_ANGSTROM,
    HARTREE_IN_EV,
    HARTREE_PER_BOHR3_IN_EV_PER_ANGSTROM3,
    HARTREE_PER_BOHR_IN_EV_PER_ANGSTROM,
)


@dataclass(frozen=True)
class Unit:
    """An atomic unit, by name; in files stand values multiplied by ``factor``, in ``in_files``."""

    name: str
    in_files: str
    factor: float


#: By name; other units have no place in files.
UNITS = {
    unit.name: unit
    for unit in (
        Unit("electron/bohr^3", "electron/angstrom^3", BOHR_IN_ANGSTROM**-3),
        Unit("electron/bohr^4", "electron/angstrom^4", BOHR_IN_ANGSTROM**-4),
        Unit("hartree/bohr^3", "eV/angstrom^3", HARTREE_PER_BOHR3_IN_EV_PER_ANGSTROM3),
        Unit("hartree/bohr", "eV/angstrom", HARTREE_PER_BOHR_IN_EV_PER_ANGSTROM),
        Unit("hartree", "eV", HARTREE_IN_EV),
        Unit("bohr", "angstrom", BOHR_IN_ANGSTROM),
        Unit("elementary charge", "elementary charge", 1.0),
        Unit("1", "1", 1.0),
    )
}


@dataclass(frozen=True)
class Field:
    """A quantity at points, or at atoms.

    Attributes:
        unit: atomic. energy_density: one of those that add up to the total energy.
        local: follows from the orbitals at the point alone.
    """

    unit: Unit
    energy_density: bool = False
    local: bool = False


FIELDS = {
    "density": Field(UNITS["electron/bohr^3"], local=True),
    "gradient": Field(UNITS["electron/bohr^4"]),
    "kinetic": Field(UNITS["hartree/bohr^3"], energy_density=True, local=True),
    "xc": Field(UNITS["hartree/bohr^3"], energy_density=True, local=True),
    "electrostatic": Field(UNITS["hartree/bohr^3"], energy_density=True),
    "total": Field(UNITS["hartree/bohr^3"]),
    "potential": Field(UNITS["hartree"]),
    "effective_potential": Field(UNITS["hartree"]),
    "orbital_density": Field(UNITS["electron/bohr^3"]),
    "forces": Field(UNITS["hartree/bohr"]),
}

#: Names of the energy densities that add up to the total.
ENERGY_DENSITIES = tuple(name for name, field in FIELDS.items() if field.energy_density)
#: What a free atom has, and what molecules learn: the rest of the energy follows from the density.
LOCAL_FIELDS = tuple(name for name, field in FIELDS.items() if field.local)


def field_of(name: str) -> Field | None:
    """The entry of the table that a field's name begins with, if there is one."""
    words = name.replace(" ", "_").split("_")
    beginnings = ("_".join(words[:count]) for count in range(len(words), 0, -1))
    return next((FIELDS[one] for one in beginnings if one in FIELDS), None)


def is_density(name: str) -> bool:
    """Whether a field's name says that it is an electron density, the square of its root."""
    return field_of(name) is FIELDS["density"]


def field_unit(name: str, units: Mapping[str, str] | None = None) -> Unit:
    """Unit of the field ``name``: from ``units``, by its atomic name, else from the field's name.

    Raises:
        OutputError: if neither says, or for a unit that files do not know.
    """
    given, field = (units or {}).get(name), field_of(name)
    if given in UNITS:
        return UNITS[given]
    if given is None and field is not None:
        return field.unit
    raise OutputError(
        f"field {name!r} has unit {given!r}: start its name with one of {', '.join(FIELDS)}, or "
        f"pass units={{{name!r}: ...}} with one of {', '.join(UNITS)}"
    )
