"""The aluminium systems of the benchmark: displaced crystals, one atom, a 13-atom cluster.

Lengths in bohr, energies in hartree. A system is a plain dict, so that it travels as JSON.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from ase.cluster import Icosahedron

HARTREE_IN_MEV = 27211.386246
BOHR_IN_ANGSTROM = 0.529177210903

#: GTH local form: -(Z/r) erf(r/(sqrt2 r_loc)) + exp(-r^2/(2 r_loc^2)) (c1 + c2 (r/r_loc)^2).
PSEUDOPOTENTIAL = {"valence": 3, "r_loc": 0.7473, "c1": 4.9546, "c2": -0.8993}
LATTICE_CONSTANT = 7.65
DISPLACEMENT = 0.12
#: Thomas-Fermi + von Weizsaecker (lambda = 1), LDA-PZ, radial solution.
EXACT_ATOM_ENERGY = -1.7345054724

NAMES = ("al4", "al32", "al108", "al256", "atom", "cluster13")
TITLES = {
    "al4": "Al4, perfect fcc",
    "al32": "Al32, displaced",
    "al108": "Al108, displaced",
    "al256": "Al256, displaced",
    "atom": "Al atom, isolated",
    "cluster13": "Al13, isolated",
}


def make_system(name: str, kinetic: str) -> dict[str, Any]:
    """One system with its kinetic functional, ``tfvw``, ``wt`` or ``lkt``."""
    system = {"name": name, "kinetic": kinetic, "pseudopotential": PSEUDOPOTENTIAL}
    if name == "atom":
        positions, cell = np.zeros((1, 3)), None
    elif name == "cluster13":
        positions, cell = _cluster(), None
    else:
        positions, cell = _crystal(repeats=round((int(name[2:]) / 4) ** (1 / 3)))
    return {**system, "positions": positions.tolist(), "cell": cell}


def _crystal(repeats: int) -> tuple[np.ndarray, list[float]]:
    """``repeats``^3 fcc cells of 4 atoms; all but the single cell are displaced at random."""
    corners = np.indices((repeats,) * 3).reshape(3, -1).T
    basis = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    positions = LATTICE_CONSTANT * (corners[:, None] + basis).reshape(-1, 3)
    if repeats > 1:
        generator = np.random.default_rng(seed=repeats)
        positions = positions + generator.normal(0.0, DISPLACEMENT, positions.shape)
    return positions, [repeats * LATTICE_CONSTANT] * 3


def _cluster() -> np.ndarray:
    """Icosahedron with the fcc crystal's lattice constant, about the origin."""
    atoms = Icosahedron("Al", 2, latticeconstant=LATTICE_CONSTANT * BOHR_IN_ANGSTROM)
    positions = atoms.get_positions() / BOHR_IN_ANGSTROM
    return positions - positions.mean(axis=0)
