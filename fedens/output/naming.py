"""Units of what stands in files, and atoms as pictures show them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedens.errors import OutputError
from fedens.structure import Structure
from fedens.units import (
    BOHR_IN_ANGSTROM,
    FIELD_UNITS,
    HARTREE_IN_EV,
    HARTREE_PER_BOHR3_IN_EV_PER_ANGSTROM3,
    HARTREE_PER_BOHR_IN_EV_PER_ANGSTROM,
)

#: Unit inside fedens -> factor to multiply with, and unit in files.
FILE_UNITS: dict[str, tuple[float, str]] = {
    "electron/bohr^3": (BOHR_IN_ANGSTROM**-3, "electron/angstrom^3"),
    "electron/bohr^4": (BOHR_IN_ANGSTROM**-4, "electron/angstrom^4"),
    "hartree/bohr^3": (HARTREE_PER_BOHR3_IN_EV_PER_ANGSTROM3, "eV/angstrom^3"),
    "hartree/bohr": (HARTREE_PER_BOHR_IN_EV_PER_ANGSTROM, "eV/angstrom"),
    "hartree": (HARTREE_IN_EV, "eV"),
    "bohr": (BOHR_IN_ANGSTROM, "angstrom"),
    "elementary charge": (1.0, "elementary charge"),
    "1": (1.0, "1"),
}

#: Fields whose unit is known from the name, alone or before ``_``, as in ``density_error``.
NAMED_FIELDS = ("density", "kinetic", "xc", "electrostatic", "total", "forces")


def field_unit(name: str, units: Mapping[str, str] | None = None) -> str:
    """Unit inside fedens of the field ``name``: from ``units``, else from the name's first word.

    Raises:
        OutputError: if neither says, or for a unit that files do not know.
    """
    unit = (units or {}).get(name)
    if unit is None:
        word = _first_word(name)
        unit = FIELD_UNITS[word] if word in NAMED_FIELDS else None
    if unit not in FILE_UNITS:
        raise OutputError(
            f"field {name!r} has unit {unit!r}: start its name with one of "
            f"{', '.join(NAMED_FIELDS)}, or pass units={{{name!r}: ...}} with one of "
            f"{', '.join(FILE_UNITS)}"
        )
    return unit


def is_density(name: str) -> bool:
    """Whether a field's name says that it is an electron density, the square of its root."""
    return _first_word(name) == "density"


def _first_word(name: str) -> str:
    return name.replace(" ", "_").split("_")[0]


def inside_box(structure: Structure, origin: ArrayLike = (0.0, 0.0, 0.0)) -> NDArray[np.float64]:
    """Positions (n_atoms, 3), bohr; those of a periodic cell moved into it by lattice vectors.

    ``origin``: lower corner of the cell, bohr.
    """
    if not structure.periodic or structure.cell is None:
        return structure.positions.copy()
    fractional = (structure.positions - np.asarray(origin)) @ np.linalg.inv(structure.cell)
    return np.asarray(origin) + (fractional % 1.0) @ structure.cell
