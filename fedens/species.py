"""Data of the elements."""

from __future__ import annotations

import json
from functools import lru_cache
from importlib import resources
from typing import Any

from fedens.errors import DescriptorError


@lru_cache(maxsize=1)
def _table() -> dict[str, Any]:
    text = resources.files("fedens").joinpath("data/element_gaussians.json").read_text("utf-8")
    return json.loads(text)["elements"]


def _entry(symbol: str) -> dict[str, Any]:
    if symbol not in _table():
        raise DescriptorError(
            f"no data for element {symbol!r}; there is some for {', '.join(_table())}"
        )
    return _table()[symbol]


def valence_electrons(symbol: str) -> int:
    """Number of electrons outside the noble-gas core, hydrogen to argon.

    Raises:
        DescriptorError: for any other element.

    >>> valence_electrons("Al")
    3
    """
    return int(_entry(symbol)["valence_electrons"])


def element_gaussians(symbol: str) -> list[tuple[float, float]]:
    """Valence density of the free atom as [(B, beta), ...]: sum of B exp(-beta r^2).

    B in electrons/bohr^3, beta in bohr^-2; the integral is :func:`valence_electrons`. Fitted to
    spherical atoms (PBE), see ``data/element_gaussians.json`` and the script that makes it,
    ``scripts/element_gaussians.py``.

    Raises:
        DescriptorError: for elements beyond argon.
    """
    return [(float(b), float(beta)) for b, beta in _entry(symbol)["gaussians"]]


def all_element_gaussians() -> dict[str, list[tuple[float, float]]]:
    """:func:`element_gaussians` of every element that has some, by symbol."""
    return {symbol: element_gaussians(symbol) for symbol in _table()}
