"""Units of what stands in files, and atoms as pictures show them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedens.errors import OutputError
from fedens.fields import FIELDS, UNITS, Unit, field_of
from fedens.structure import Structure


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


def inside_box(structure: Structure, origin: ArrayLike = (0.0, 0.0, 0.0)) -> NDArray[np.float64]:
    """Positions (n_atoms, 3), bohr; those of a periodic cell moved into it by lattice vectors.

    ``origin``: lower corner of the cell, bohr.
    """
    if not structure.periodic or structure.cell is None:
        return structure.positions.copy()
    fractional = (structure.positions - np.asarray(origin)) @ np.linalg.inv(structure.cell)
    return np.asarray(origin) + (fractional % 1.0) @ structure.cell
