"""Strains of displacements around a defect: their norms and their decay.

The strain of an atom is the gradient of a displacement u as the differences to its nearest
neighbours give it,

    |Du(i)|^2 = (3 / n) sum_j |u_j - u_i|^2 / d^2,

over its n neighbours at distance d in the perfect crystal: for a homogeneous u = G x it is the
Frobenius norm of G.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from fedens.generalisation.defects import Defect, minimum_image
from fedens.generalisation.potential import Array

_NEIGHBOURS = {"fcc": 12, "bcc": 8}


class Strain:
    """Strains of displacements of a defect's atoms, by the neighbours of their sites.

    Where a neighbour is missing, its term is.
    """

    def __init__(self, defect: Defect):
        distance = defect.crystal.neighbour_distance
        self._first, self._second = _neighbours(defect, distance)
        self._n_atoms = len(defect.structure)
        self._factor = 3 / (_NEIGHBOURS[defect.crystal.lattice] * distance**2)

    def squared(self, displacement: Array) -> Array:
        """|Du|^2 of each atom, (n_atoms,), for a displacement (n_atoms, 3), bohr."""
        differences = displacement[self._second] - displacement[self._first]
        lengths = np.einsum("pa,pa->p", differences, differences)
        return self._factor * np.bincount(self._first, lengths, self._n_atoms).astype(np.float64)

    def norm(self, displacement: Array) -> float:
        """The l2 norm over all atoms."""
        return float(np.sqrt(self.squared(displacement).sum()))

    def largest(self, displacement: Array) -> float:
        """The largest strain of an atom."""
        return float(np.sqrt(self.squared(displacement).max()))


def _neighbours(defect: Defect, distance: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ordered pairs of atoms whose sites are nearest neighbours."""
    structure, sites = defect.structure, defect.sites
    edges = structure.orthorhombic_lengths() if structure.periodic else None
    points = sites if edges is None else sites % edges % edges
    pairs = cKDTree(points, boxsize=edges).query_pairs(1.01 * distance, output_type="ndarray")
    apart = np.linalg.norm(
        minimum_image(sites[pairs[:, 1]] - sites[pairs[:, 0]], structure), axis=1
    )
    pairs = pairs[apart > 0.99 * distance]  # two atoms of a dumbbell share a site
    first, second = np.concatenate([pairs, pairs[:, ::-1]]).T
    return first, second


def decay(defect: Defect, displacement: Array, shells: ArrayLike) -> tuple[Array, Array]:
    """r^3 times the root mean square strain, in shells around the defect.

    Args:
        displacement: (n_atoms, 3), bohr. shells: their limits, ascending, lattice constants.

    Returns:
        the mean distance and the value of each shell that holds an atom, (n_shells,).
    """
    r = defect.distances / defect.crystal.lattice_constant
    weighted = r**6.0 * Strain(defect).squared(displacement)
    found = []
    for low, high in pairwise(np.asarray(shells, dtype=np.float64)):
        inside = (r >= low) & (r < high)
        if inside.any():
            found.append((r[inside].mean(), np.sqrt(weighted[inside].mean())))
    distances, values = np.array(found).T
    return distances, values
