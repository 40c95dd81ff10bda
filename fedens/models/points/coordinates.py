"""Coordinates that energies are differentiated in: those of the atoms and, for stress, the cell's.

Where stresses are learned too, three coordinates follow those of the atoms: elongations u of the
cell along x, y and z that strain it, atoms and all, by u/(N^(2/3) V^(1/3)). The force on them is
minus the normal stress times the area of an atom, (V/N)^(2/3): of the atoms' unit, and of a size
that does not depend on the cell's.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fedens.structure import Structure


def area_of_an_atom(structure: Structure) -> float:
    """(V/N)^(2/3), bohr^2, of a periodic structure."""
    return float((structure.volume / len(structure)) ** (2 / 3))


def moved(structure: Structure, coordinates: Tensor) -> tuple[Tensor, Tensor | None]:
    """Positions and cell (None: the structure's own) at coordinates (3 n_atoms or 3 more,), bohr.

    All coordinates of the structure itself are 0.
    """
    n = len(structure)
    positions = torch.tensor(structure.positions) + coordinates[: 3 * n].reshape(n, 3)
    if len(coordinates) == 3 * n:
        return positions, None
    stretch = 1 + coordinates[3 * n :] * area_of_an_atom(structure) / structure.volume
    return positions * stretch, torch.tensor(structure.cell) * stretch
