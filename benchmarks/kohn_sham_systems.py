"""The crystals of ``kohn_sham.py``: displaced aluminium and silicon with GTH pseudopotentials.

Lengths in bohr, energies in hartree. A system is a plain dict, so that it travels as JSON.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from pyscf.pbc.gto import pseudo

NAMES = ("al4", "si8", "al32")
TITLES = {
    "al4": "Al4, displaced, 4x4x4 k",
    "si8": "Si8, displaced, Gamma",
    "al32": "Al32, displaced, 2x2x2 k",
}
_FCC = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
_DIAMOND = np.concatenate([_FCC, _FCC + 0.25])


def make_system(name: str) -> dict[str, Any]:
    """One system: a cube of displaced atoms, its mesh of k-points, smearing and theory."""
    element, pseudopotential, mesh, smearing = {
        "al4": ("Al", "gth-pade-q3", 4, 0.01),
        "si8": ("Si", "gth-pade-q4", 1, 0.0),
        "al32": ("Al", "gth-pade-q3", 2, 0.01),
    }[name]
    positions, length = {"al4": _al4, "si8": _si8, "al32": _al32}[name]()
    return {
        "name": name,
        "element": element,
        "positions": positions.tolist(),
        "length": length,
        "mesh": [mesh] * 3,
        "smearing": smearing,
        "xc": "lda_teter",
        "pseudopotential": {"name": pseudopotential, **_gth(element, pseudopotential)},
    }


def _al4() -> tuple[np.ndarray, float]:
    return 7.65 * _FCC + np.random.default_rng(13).uniform(-0.2, 0.2, (4, 3)), 7.65


def _si8() -> tuple[np.ndarray, float]:
    return 10.26 * _DIAMOND + np.random.default_rng(15).uniform(-0.2, 0.2, (8, 3)), 10.26


def _al32() -> tuple[np.ndarray, float]:
    corners = np.indices((2, 2, 2)).reshape(3, -1).T
    sites = 7.65 * (corners[:, None] + _FCC).reshape(-1, 3)
    return sites + np.random.default_rng(32).uniform(-0.1, 0.1, sites.shape), 15.3


def _gth(element: str, name: str) -> dict[str, Any]:
    """Parameters of Goedecker, Teter and Hutter, read from the library that PySCF ships."""
    electrons, r_loc, _, coefficients, _, *channels = pseudo.load(name, element)
    return {
        "valence": sum(electrons),
        "r_loc": r_loc,
        "coefficients": coefficients,
        "channels": [{"radius": radius, "h": h} for radius, _, h in channels],
    }
