"""Meshes for output, and meshes from files.

A :class:`TensorSpace` is shown as linear hexahedra: every finite element is cut into equal parts
along each axis. Values at the new nodes come from the polynomials inside each element, see
:func:`grid_values`. A :class:`SimplexSpace` is shown as it is, cells of order 2 as quadratic ones.
"""

from __future__ import annotations

import sysconfig
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.polynomial.legendre import legvander
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fedens.errors import SpaceError
from fedens.fem.axis import Axis
from fedens.fem.simplex import SimplexSpace
from fedens.fem.space import FunctionSpace
from fedens.fem.tensor import TensorSpace, kronecker_product
from fedens.units import BOHR_IN_ANGSTROM

if TYPE_CHECKING:
    import meshio

#: Suffixes of mesh files that the library may hold.
LIBRARY_SUFFIXES = (".vtu", ".msh")
#: VTK's corners, edges and faces of the reference cells.
_TETRAHEDRON = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
_TETRAHEDRON_EDGES = [(0, 1), (1, 2), (0, 2), (0, 3), (1, 3), (2, 3)]
_SQUARE = [(0, 0), (1, 0), (1, 1), (0, 1)]
_HEXAHEDRON = [(x, y, z) for z in (0, 1) for x, y in _SQUARE]
_HEXAHEDRON_EDGES = [(0, 1), (1, 2), (2, 3), (3, 0), (4, 5), (5, 6), (6, 7), (7, 4)]
_HEXAHEDRON_EDGES += [(0, 4), (1, 5), (2, 6), (3, 7)]
_HEXAHEDRON_FACES = [(0, 3, 4, 7), (1, 2, 5, 6), (0, 1, 4, 5), (2, 3, 6, 7)]
_HEXAHEDRON_FACES += [(0, 1, 2, 3), (4, 5, 6, 7)]


def node_coordinates(space: TensorSpace, subdivisions: int) -> list[NDArray[np.float64]]:
    """Where the nodes of elements cut into ``subdivisions``^3 hexahedra lie along x, y, z, bohr.

    Raises:
        SpaceError: if ``subdivisions`` is less than 1.
    """
    if subdivisions < 1:
        raise SpaceError(f"subdivisions is {subdivisions}; expected 1 or more")
    return [_cut(_numpy(axis.edges), subdivisions) for axis in space.axes]


def hexahedral_mesh(
    coordinates: Sequence[ArrayLike],
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Corners (n_nodes, 3) and cells (n_cells, 8) of the grid of three coordinate lists x, y, z.

    z runs fastest; the corners of a cell are in VTK's order.
    """
    grids = np.meshgrid(*coordinates, indexing="ij")
    nodes = np.arange(grids[0].size).reshape(grids[0].shape)
    low, high = slice(None, -1), slice(1, None)
    square = [(low, low), (high, low), (high, high), (low, high)]
    corners = [nodes[x, y, z].ravel() for z in (low, high) for x, y in square]
    return np.stack([grid.ravel() for grid in grids], axis=1), np.stack(corners, axis=1)


def grid_values(
    space: TensorSpace,
    field: Tensor | ArrayLike,
    coordinates: Sequence[ArrayLike],
    root: bool = False,
) -> NDArray[np.float64]:
    """A field on the grid of three coordinate lists, (len x, len y, len z).

    Inside each element it is the polynomial through the element's quadrature points: the
    least-squares projection on the polynomials of that element. It needs nothing at the walls,
    so a potential that does not vanish there is shown as it is. Between elements, the mean of
    the two sides is taken. Where a field that is nowhere negative at the quadrature points
    swings below zero between them, it is set to zero.

    Args:
        field: (n_points,), at ``space.points``.
        coordinates: three lists x, y, z, bohr; a periodic axis takes any numbers, others only
            those in the box.
        root: interpolate the square root and square it: exact for the density u^2 of a root
            density u of the space, where the density itself is off by up to some percent of
            its maximum at single points. Not for fields with zeros, whose root has a kink, such
            as |grad u|^2; without effect on a field with negative values.

    Raises:
        SpaceError: for a field of the wrong shape, or coordinates outside an isolated box.
    """
    values = _checked_field(space, field)
    matrices = [
        torch.as_tensor(interpolation_matrix(axis, np.asarray(c, dtype=np.float64)))
        for axis, c in zip(space.axes, coordinates, strict=True)
    ]
    shape = [len(matrix) for matrix in matrices]
    found = _shown(values, lambda given: kronecker_product(given, *matrices), root)
    return found.reshape(shape)


def interpolation_matrix(axis: Axis, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, n_points) map from values at an axis' quadrature points to ``x`` (n,), bohr.

    On an element boundary it is the mean of the polynomials on both sides.
    """
    below, above = (_one_sided(axis, x, side) for side in (-1.0, 1.0))
    return (below + above) / 2


def vtk_cells(space: SimplexSpace) -> tuple[str, NDArray[np.int64]]:
    """VTK's name of a space's cells, and their nodes in VTK's order, (n_cells, n_local).

    Nodes are those of ``space.all_nodes``.
    """
    tetrahedra = space.mesh.t.shape[0] == 4
    corners = _TETRAHEDRON if tetrahedra else _HEXAHEDRON
    places = np.array(corners, dtype=np.float64)
    if space.order == 1:
        return "TETRA" if tetrahedra else "HEXAHEDRON", space.cell_nodes(places)
    groups = _TETRAHEDRON_EDGES if tetrahedra else _HEXAHEDRON_EDGES + _HEXAHEDRON_FACES
    middles = [places[list(group)].mean(axis=0) for group in groups]
    if tetrahedra:
        return "QUADRATIC_TETRA", space.cell_nodes([*places, *middles])
    centre = places.mean(axis=0)
    return "TRIQUADRATIC_HEXAHEDRON", space.cell_nodes([*places, *middles, centre])


def vtk_values(
    space: SimplexSpace, field: Tensor | ArrayLike, root: bool = False
) -> NDArray[np.float64]:
    """A field (n_points,) at the nodes of a space, (n_nodes,): its least-squares projection.

    ``root``: as in :func:`grid_values`; where a field that is nowhere negative at the points
    comes out below zero it is set to zero.

    Raises:
        SpaceError: for a field of the wrong shape.
    """
    return _shown(_checked_field(space, field), space.nodal_values, root)


def _shown(values: Tensor, at_nodes: Callable[[Tensor], Tensor], root: bool) -> NDArray[np.float64]:
    if (values < 0).any():
        return at_nodes(values).numpy()
    if root:
        return at_nodes(values.sqrt()).numpy() ** 2
    return at_nodes(values).numpy().clip(min=0.0)


def _checked_field(space: FunctionSpace, field: Tensor | ArrayLike) -> Tensor:
    given = field.detach().cpu() if isinstance(field, Tensor) else np.array(field)
    values = torch.as_tensor(given, dtype=torch.float64)
    if values.shape != (space.n_points,):
        raise SpaceError(
            f"field has shape {tuple(values.shape)}, expected ({space.n_points},): one value for "
            "each quadrature point of the space"
        )
    return values


def load_mesh(name_or_path: str | Path, unit: str = "angstrom") -> meshio.Mesh:
    """A mesh of the library by name, or of any file that meshio reads; points in bohr.

    Args:
        name_or_path: a name from :func:`library_meshes`, or a path.
        unit: unit of length in the file, ``"angstrom"`` (fedens' own files) or ``"bohr"``.

    Raises:
        SpaceError: for an unknown name or unit, a missing or unreadable file, or a mesh that
            holds no tetrahedra or hexahedra.
    """
    import meshio

    factors = {"angstrom": 1 / BOHR_IN_ANGSTROM, "bohr": 1.0}
    if unit not in factors:
        raise SpaceError(f"unit is {unit!r}; expected one of {', '.join(factors)}")
    path = _find(name_or_path)
    try:
        mesh = meshio.read(path)
    except (Exception, SystemExit) as error:  # meshio's readers raise whatever they meet
        raise SpaceError(f"{path} cannot be read as a mesh: {error or type(error)}") from error
    kinds = {block.type for block in mesh.cells}
    if not any(kind.startswith(("tetra", "hexahedron")) for kind in kinds):
        raise SpaceError(
            f"{path} holds {', '.join(sorted(kinds)) or 'no cells'}; expected tetrahedra or "
            "hexahedra"
        )
    mesh.points = mesh.points * factors[unit]
    return mesh


def library_meshes() -> dict[str, Path]:
    """Name and file of every mesh in the library, sorted by name."""
    folder = _library_folder()
    if folder is None:
        return {}
    files = sorted(path for path in folder.iterdir() if path.suffix in LIBRARY_SUFFIXES)
    return {path.stem: path for path in files}


def _library_folder() -> Path | None:
    """The folder ``meshes`` of the clone, or of the installation."""
    clone = Path(__file__).resolve().parents[2] / "meshes"
    installed = Path(sysconfig.get_path("data")) / "share" / "fedens" / "meshes"
    return next((folder for folder in (clone, installed) if folder.is_dir()), None)


def _find(name_or_path: str | Path) -> Path:
    path = Path(name_or_path)
    if path.is_file():
        return path
    library = library_meshes()
    if str(name_or_path) in library:
        return library[str(name_or_path)]
    known = ", ".join(library) or "none: the folder meshes/ of the clone was not found"
    raise SpaceError(
        f"no mesh {str(name_or_path)!r}: neither a file nor a name of the library ({known})"
    )


def _numpy(tensor: Tensor) -> NDArray[np.float64]:
    return tensor.detach().cpu().numpy()


def _cut(edges: NDArray[np.float64], parts: int) -> NDArray[np.float64]:
    """Each interval cut into equal parts; the given edges stay exactly what they are."""
    low, high = edges[:-1, None], edges[1:, None]
    share = np.linspace(0.0, 1.0, parts, endpoint=False)
    return np.append((low + (high - low) * share).ravel(), edges[-1])


def _one_sided(axis: Axis, x: NDArray[np.float64], side: float) -> NDArray[np.float64]:
    """Interpolation matrix that takes the element below or above at element boundaries."""
    edges, points = _numpy(axis.edges), _numpy(axis.points)
    lengths = np.diff(edges)
    offset = side * 1e-9 * axis.length
    shifted = x + offset
    if axis.periodic:
        shifted = edges[0] + (shifted - edges[0]) % axis.length
    elif (x < edges[0] + 2 * min(offset, 0)).any() or (x > edges[-1] + abs(offset)).any():
        raise SpaceError(
            f"coordinates reach outside the box [{edges[0]:.3f}, {edges[-1]:.3f}] bohr; fields "
            "are known only inside"
        )
    element = np.clip(np.searchsorted(edges, shifted) - 1, 0, len(lengths) - 1)
    local = (shifted - edges[element] - offset) / lengths[element]
    rows = legvander(2 * local - 1, axis.order) @ _from_gauss_values(axis, points)
    matrix = np.zeros((len(x), len(points)))
    columns = element[:, None] * (axis.order + 1) + np.arange(axis.order + 1)
    np.put_along_axis(matrix, columns, rows, axis=1)
    return matrix


def _from_gauss_values(axis: Axis, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Legendre coefficients from values at an element's Gauss points; the same in all."""
    first = points[: axis.order + 1]
    low, high = (float(edge) for edge in axis.edges[:2])
    values = legvander(2 * (first - low) / (high - low) - 1, axis.order)
    return np.asarray(np.linalg.inv(values), dtype=np.float64)
