"""Quadrature rules on reference cells: positive weights, points inside, and one for 1/r.

scikit-fem supplies the rules of squares, cubes and triangles. Its rules on tetrahedra have negative
weights or points on the faces, where gradients jump; the two used here have neither.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import roots_jacobi
from skfem.quadrature import get_quadrature
from skfem.refdom import Refdom, RefHex, RefQuad, RefTri

#: Points (3, n_points) in a reference cell, and their weights (n_points,).
Rule = tuple[NDArray[np.float64], NDArray[np.float64]]

#: Barycentric coordinates and weights of the rule with 14 points, exact to degree 5:
#: N. J. Walkington, Quadrature on simplices of arbitrary dimension (2000).
_VERTEX_ORBITS = (
    (0.31088591926330060980, 0.11268792571801585080),
    (0.092735250310891226402, 0.073493043116361949544),
)
_EDGE_ORBIT = (0.045503704125649649492, 0.042546020777081466438)


def cell_rule(reference_cell: type[Refdom], degree: int) -> Rule:
    """A rule exact for polynomials of that degree on the reference tetrahedron or cube."""
    if reference_cell is RefHex:
        points, weights = get_quadrature(RefHex, degree)
        return points, weights
    return _walkington() if degree <= 5 else _collapsed_tetrahedron(degree)


def vertex_rule(reference_cell: type[Refdom], vertex: int, degree: int, radial_points: int) -> Rule:
    """A rule for functions that are smooth, or smooth over r, with r the distance to a vertex.

    The cell is cut into pyramids from the vertex to the faces opposite to it. Along each ray the
    volume element s^2 ds takes the singularity away: Gauss points in s, a rule of that ``degree``
    on the faces (Duffy 1982).
    """
    corners = np.asarray(reference_cell.p, dtype=np.float64)
    apex = corners[:, vertex]
    s, radial = (np.asarray(a) for a in np.polynomial.legendre.leggauss(radial_points))
    s, radial = (s + 1) / 2, radial / 2 * ((s + 1) / 2) ** 2
    points, weights = [], []
    for facet in reference_cell.facets:
        if vertex in facet:
            continue
        face, area = _face_rule(corners[:, facet], apex, degree)
        points.append(apex[:, None, None] + s[:, None] * (face - apex[:, None])[:, None, :])
        weights.append(radial[:, None] * area)
    flat = np.concatenate([p.reshape(3, -1) for p in points], axis=1)
    return flat, np.concatenate([w.ravel() for w in weights])


def _face_rule(corners: NDArray[np.float64], apex: NDArray[np.float64], degree: int) -> Rule:
    """Points on a flat face, and weights that give three times the pyramid's volume."""
    x, weights = get_quadrature(RefTri if corners.shape[1] == 3 else RefQuad, degree)
    along, across = corners[:, 1] - corners[:, 0], corners[:, -1] - corners[:, 0]
    points = corners[:, :1] + np.outer(along, x[0]) + np.outer(across, x[1])
    height = abs(np.linalg.det(np.stack([along, across, apex - corners[:, 0]])))
    return points, weights * height


def _walkington() -> Rule:
    barycentric, weights = [], []
    for a, weight in _VERTEX_ORBITS:
        barycentric += [np.roll([1 - 3 * a, a, a, a], k) for k in range(4)]
        weights += 4 * [weight]
    b, weight = _EDGE_ORBIT
    for i in range(4):
        for j in range(i):
            point = np.full(4, b)
            point[[i, j]] = 0.5 - b
            barycentric.append(point)
            weights.append(weight)
    return np.array(barycentric)[:, 1:].T.copy(), np.array(weights) / 6


def _collapsed_tetrahedron(degree: int) -> Rule:
    """Gauss-Jacobi points in collapsed coordinates (Stroud 1971)."""
    n = degree // 2 + 1
    (a, wa), (b, wb), (c, wc) = (_jacobi(n, power) for power in (2, 1, 0))
    a, b, c = np.meshgrid(a, b, c, indexing="ij")
    weights = wa[:, None, None] * wb[:, None] * wc
    points = np.stack([a, (1 - a) * b, (1 - a) * (1 - b) * c])
    return points.reshape(3, -1), weights.ravel()


def _jacobi(n: int, power: int) -> Rule:
    """Gauss points on [0, 1] for the weight (1 - x)^power."""
    x, weights = roots_jacobi(n, power, 0)
    return (x + 1) / 2, weights / 2 ** (power + 1)
