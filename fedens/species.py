"""Data of the elements: valence densities of the free atoms, hydrogen to uranium.

Made by ``scripts/element_gaussians.py``, which says how. Light atoms (to krypton) are computed with
all electrons; heavier ones with a relativistic pseudopotential, or with all electrons and a
relativistic Hamiltonian. The method of each element is named in ``tables/element_gaussians.json``.
"""

from __future__ import annotations

import json
from functools import lru_cache
from importlib import resources
from typing import Any

from fedens.errors import DescriptorError


@lru_cache(maxsize=1)
def _table() -> dict[str, dict[str, Any]]:
    text = resources.files("fedens").joinpath("tables/element_gaussians.json").read_text("utf-8")
    elements: dict[str, dict[str, Any]] = json.loads(text)["elements"]
    return elements


def element_gaussians(symbol: str) -> list[tuple[float, float]]:
    """Valence density of the free atom as [(B, beta), ...]: sum of B exp(-beta r^2).

    B in electrons/bohr^3, beta in bohr^-2. The integral is the number of electrons in ns for groups
    1 and 2, in (n-1)d and ns for groups 3 to 12, in ns and np for groups 13 to 18, and in f, d and
    s for cerium to ytterbium and actinium to uranium (4f 5d 6s, 5f 6d 7s).

    Raises:
        DescriptorError: for elements without data.
    """
    if symbol not in _table():
        raise DescriptorError(
            f"no valence density for element {symbol!r}; there is one for {', '.join(_table())}: "
            "for others pass Gaussians of your own"
        )
    return [(float(b), float(beta)) for b, beta in _table()[symbol]["gaussians"]]


def all_element_gaussians() -> dict[str, list[tuple[float, float]]]:
    """:func:`element_gaussians` of every element that has some, by symbol."""
    return {symbol: element_gaussians(symbol) for symbol in _table()}
