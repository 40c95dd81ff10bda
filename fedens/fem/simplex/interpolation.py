"""Which cell of a mesh holds each of many points, and where in it: for fields at any points.

Among tetrahedra one walks from the cell of the nearest centre through the face beyond which the
point lies farthest, in barycentric coordinates, until it is inside (Devillers, Pion, Teillaud,
Int. J. Found. Comput. Sci. 13, 181 (2002)): a few steps. Where the way is barred, and among
hexahedra, scikit-fem looks at all cells.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from skfem import MeshHex1, MeshTet1

from fedens.errors import SpaceError

Array = NDArray[np.float64]
Cells = NDArray[np.int64]

#: A point is inside a cell when no barycentric coordinate is farther below zero.
_TOLERANCE = 1e-10
#: Steps before one gives up walking: round a concave corner, or in circles.
_MOST_STEPS = 100
#: Points that scikit-fem looks for in all cells at once.
_CHUNK = 256


class CellFinder:
    """Finds the cells of a mesh that hold points; what it needs is made once."""

    def __init__(self, mesh: MeshTet1 | MeshHex1):
        self._mesh = mesh
        self._mapping = mesh.mapping()

    def __call__(self, points: Array) -> tuple[Cells, Array]:
        """Cells (n,) that hold points (n, 3), bohr, and places in the reference cell, (3, n).

        Raises:
            SpaceError: points outside the mesh, or not finite.
        """
        if not np.isfinite(points).all():
            raise _outside()
        tetrahedra = isinstance(self._mesh, MeshTet1)
        cells = self._walk(points) if tetrahedra else self._search(points)
        return cells, self._places(points, cells)

    def _places(self, points: Array, cells: Cells) -> Array:
        return np.asarray(self._mapping.invF(points.T[:, :, None], cells)[..., 0])

    def _walk(self, points: Array) -> Cells:
        cells = self._centres.query(points)[1]
        walking = np.arange(len(points))
        for _ in range(_MOST_STEPS):
            places = self._places(points[walking], cells[walking])
            barycentric = np.vstack([1 - places.sum(axis=0), places])
            outside = barycentric.min(axis=0) < -_TOLERANCE
            walking, face = walking[outside], barycentric.argmin(axis=0)[outside]
            following = self._neighbours[face, cells[walking]]
            barred = following < 0
            if barred.all():
                break
            cells[walking] = np.where(barred, cells[walking], following)
        if len(walking):
            cells[walking] = self._search(points[walking])
        return np.asarray(cells)

    def _search(self, points: Array) -> Cells:
        finder = self._mesh.element_finder()
        cells = np.zeros(len(points), dtype=np.int64)
        for start in range(0, len(points), _CHUNK):
            part = slice(start, start + _CHUNK)
            try:
                cells[part] = finder(*points[part].T)
            except ValueError as error:
                raise _outside() from error
        return cells

    @cached_property
    def _centres(self) -> cKDTree:
        return cKDTree(self._mesh.p[:, self._mesh.t].mean(axis=1).T)

    @cached_property
    def _neighbours(self) -> Cells:
        """The cell across the face opposite each corner, (4, n_cells); -1 at the surface."""
        mesh = self._mesh
        opposite = [6 - sum(face) for face in mesh.refdom.facets]
        first, second = mesh.f2t[:, mesh.t2f]
        across = np.where(first == np.arange(mesh.nelements), second, first)
        return np.asarray(across[np.argsort(opposite)])


def _outside() -> SpaceError:
    return SpaceError(
        "points reach outside the mesh; fields are known only inside: move the points or enlarge "
        "the margin"
    )
