"""Tetrahedra that are small at the nuclei, by bisection, and how a mesh follows its nuclei.

Longest-edge bisection (scikit-fem's) of a box keeps the quality of the cells whatever the ratio of
largest to smallest, and gives the same mesh everywhere. Once the cells around a nucleus are smaller
than the room it has, the nearest corner moves to the nucleus and stays there.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from skfem import MeshTet
from torch import Tensor

from fedens.errors import SpaceError

Array = NDArray[np.float64]

#: Cells at a nucleus are not larger than this share of the distance to the next nucleus.
_ROOM = 0.3
#: A corner that moves to a nucleus takes its surroundings along, so many cells far.
_REACH = 4.0
_MOST_CELLS = 3_000_000


def graded_tetrahedra(nuclei: Array, finest: Array, growth: float, margin: float) -> MeshTet:
    """A box of tetrahedra no larger than min_A (finest_A + growth |r - R_A|).

    The size of a cell is the edge of a regular tetrahedron of the same volume; r is its corner
    closest to a nucleus. The nuclei are corners; the box ends ``margin`` from the outermost.

    Args:
        nuclei: (n, 3), bohr. finest: (n,), size at each nucleus, bohr; at most 0.3 of the
            distance to the next nucleus is used. growth: size per distance. margin: bohr.

    Raises:
        SpaceError: for lengths that are not positive, or a mesh of millions of cells.
    """
    if not all(0 < length < math.inf for length in [*finest, growth, margin]):
        raise SpaceError(
            f"finest is {list(finest)} bohr, growth {growth}, margin {margin} bohr: all must be "
            "positive numbers"
        )
    apart = np.linalg.norm(nuclei[:, None] - nuclei, axis=-1)
    np.fill_diagonal(apart, margin)
    room = _ROOM * apart.min(axis=1)
    finest = np.minimum(finest, room)
    mesh = _box(nuclei, margin)
    waiting = list(range(len(nuclei)))
    while True:
        sizes, distances = cell_sizes(mesh), _distances(mesh, nuclei)
        wanted = (finest + growth * distances).min(axis=1)[mesh.t].min(axis=0)
        for nucleus in waiting.copy():
            corner = int(distances[:, nucleus].argmin())
            around = (mesh.t == corner).any(axis=0)
            if sizes[around].max() <= room[nucleus]:
                others = np.delete(distances[corner], nucleus)
                reach = min([_REACH * sizes[around].max(), *others])
                mesh = _pulled(mesh, corner, nuclei[nucleus], reach)
                distances = _distances(mesh, nuclei)
                waiting.remove(nucleus)
            wanted[around] = np.minimum(wanted[around], room[nucleus])
        too_large = np.flatnonzero(sizes > wanted)
        if not len(too_large) and not waiting:
            return mesh
        if mesh.nelements > _MOST_CELLS:
            raise SpaceError(
                f"finest {list(finest)} bohr and growth {growth} need more than "
                f"{mesh.nelements} cells: choose larger ones"
            )
        mesh = mesh.refined(too_large)


def _box(nuclei: Array, margin: float) -> MeshTet:
    """A box of even numbers of cubes, so that a single atom is a corner from the start."""
    low, high = nuclei.min(axis=0) - margin, nuclei.max(axis=0) + margin
    counts = 2 * np.round((high - low) / (2 * margin)).astype(int)
    axes = [np.linspace(a, b, n + 1) for a, b, n in zip(low, high, counts, strict=True)]
    return MeshTet.init_tensor(*axes)


def _distances(mesh: MeshTet, nuclei: Array) -> Array:
    """From each corner to each nucleus, (n_vertices, n_nuclei)."""
    return np.stack([np.linalg.norm(mesh.p.T - nucleus, axis=1) for nucleus in nuclei], axis=1)


def cell_sizes(mesh: MeshTet) -> Array:
    """Edges of regular tetrahedra of the same volume, (n_cells,), bohr.

    Of other cells the tetrahedron of the first four corners counts.
    """
    corners = mesh.p[:, mesh.t]
    edges = (corners[:, 1:4] - corners[:, :1]).transpose(2, 1, 0)
    return np.asarray(np.cbrt(math.sqrt(2) * np.abs(np.linalg.det(edges))))


def _pulled(mesh: MeshTet, corner: int, position: Array, reach: float) -> MeshTet:
    """The mesh with a corner at a new position, and what is within reach smoothly following."""
    start = mesh.p[:, corner]
    away = np.linalg.norm(mesh.p.T - start, axis=1) / reach
    share = (1 - np.minimum(away, 1.0) ** 2) ** 2
    vertices = mesh.p + np.outer(position - start, share)
    vertices[:, corner] = position
    return MeshTet(vertices, mesh.t)


#: Vertices farther than this from every nucleus hardly move with one, bohr.
_FOLLOWING_REACH = 3.0


def following_weights(
    vertices: NDArray[np.float64], nuclei: NDArray[np.float64], fixed: NDArray[np.int64]
) -> Tensor:
    """How far each vertex goes along with each nucleus, (n_vertices, n_nuclei).

    w_A = d_A^-4 / (sum_B d_B^-4 + reach^-4) with d the distance to a nucleus: 1 at the nucleus
    itself, 0 at the others, smooth on the scale of the elements; 0 for the ``fixed`` vertices.
    """
    distance = np.linalg.norm(vertices[:, None] - nuclei, axis=-1)
    nearest = np.minimum(distance.min(axis=1, keepdims=True), _FOLLOWING_REACH)
    share = (nearest / distance.clip(min=1e-300)) ** 4
    share[distance == nearest] = 1.0
    weights = share / (share.sum(axis=1, keepdims=True) + (nearest / _FOLLOWING_REACH) ** 4)
    weights[fixed] = 0.0
    return torch.tensor(weights)
