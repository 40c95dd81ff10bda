"""Cells of a mesh: quadrature, basis functions at its points, fields from values at the nodes.

Basis functions and numbering come from scikit-fem. The corners of the mesh are a tensor, so that
everything can be differentiated while the mesh moves.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from skfem import (
    Basis,
    Element,
    ElementHex1,
    ElementHex2,
    ElementTetP1,
    ElementTetP2,
    MeshHex1,
    MeshTet1,
)
from skfem.io.meshio import from_meshio
from torch import Tensor

from fedens.errors import SpaceError
from fedens.fem.simplex.interpolation import CellFinder
from fedens.fem.simplex.quadrature import Rule, cell_rule, vertex_rule
from fedens.fem.simplex.refinement import cell_sizes

if TYPE_CHECKING:
    import meshio

_ELEMENTS: dict[tuple[type, int], type[Element]] = {
    (MeshTet1, 1): ElementTetP1,
    (MeshTet1, 2): ElementTetP2,
    (MeshHex1, 1): ElementHex1,
    (MeshHex1, 2): ElementHex2,
}
#: Degree of the quadrature, of that around nuclei, and of the rule in the cells that touch one.
_DEGREE, _NEAR_DEGREE, _FACE_DEGREE, _RADIAL_POINTS = 5, 7, 6, 6
#: Around nuclei: centre of the cell no farther than so many times its size.
_NEAR = 1.0
#: A nucleus is a corner of the mesh when it is no farther from one, bohr.
AT_CORNER = 1e-6
#: A cell is flat when the edge of a cube of its volume is such a share of its longest side.
_FLAT = 1e-4


@dataclass(frozen=True, eq=False)
class Block:
    """Cells that share a quadrature rule, and the basis at its points in the reference cell.

    Attributes:
        cells: (n_cells,). rule: points and weights in the reference cell.
        corners, nodes: (n_cells, n_local); nodes on the surface are numbered last.
        values, slopes: (n_points, n_local) and (n_points, n_local, 3).
        shapes, shape_slopes: the same of the map from the reference cell; one slope serves all
            points where the map is linear.
    """

    cells: NDArray[np.int64]
    rule: Rule
    corners: Tensor
    nodes: Tensor
    values: Tensor
    slopes: Tensor
    shapes: Tensor
    shape_slopes: Tensor


class Cells:
    """Tetrahedra or hexahedra with nodes; nodal values (..., n_nodes) are fields.

    Args:
        mesh, order, nuclei: see :class:`fedens.fem.simplex.SimplexSpace`.
        vertices: corners (n, 3) as a tensor that is differentiated, bohr; those of the mesh.
        near_nuclei: which cells have the finer rule, where they must not be chosen anew.

    Attributes:
        n_nodes, n_inside: number of nodes, and of those that are not on the surface.
    """

    def __init__(
        self,
        mesh: MeshTet1 | MeshHex1 | meshio.Mesh,
        order: int,
        nuclei: ArrayLike | None,
        vertices: Tensor | None = None,
        near_nuclei: NDArray[np.bool_] | None = None,
    ):
        self.mesh = _scikit_fem_mesh(mesh)
        if (type(self.mesh), order) not in _ELEMENTS:
            raise SpaceError(f"order is {order}; expected 1 or 2")
        self.order = order
        self.nuclei = np.zeros((0, 3)) if nuclei is None else np.array(nuclei, dtype=np.float64)
        self.vertices = torch.tensor(self.mesh.p.T.copy()) if vertices is None else vertices
        self._corners_at_nuclei = self._find_nuclei()
        self.element = _ELEMENTS[type(self.mesh), order]()
        self._refuse_flat_cells()
        self.basis = Basis(self.mesh, self.element, intorder=1)
        self.near_nuclei = self._cells_near_nuclei() if near_nuclei is None else near_nuclei
        self._fixed = np.asarray(self.basis.get_dofs().all())
        self.n_nodes = self.basis.N
        self.n_inside = self.n_nodes - len(self._fixed)

    def _find_nuclei(self) -> NDArray[np.int64]:
        """The corner of the mesh at each nucleus."""
        if len(self.nuclei) == 0:
            return np.zeros(0, dtype=np.int64)
        distance = np.linalg.norm(self.mesh.p.T[:, None] - self.nuclei, axis=-1)
        nearest = distance.argmin(axis=0)
        away = distance.min(axis=0)
        if away.max() > AT_CORNER:
            worst = int(away.argmax())
            raise SpaceError(
                f"nucleus {worst} is {away[worst]:.2e} bohr from the nearest corner of the mesh; "
                "it must be one: use SimplexSpace.for_structure(structure)"
            )
        return np.asarray(nearest)

    def _refuse_flat_cells(self) -> None:
        extents = np.ptp(self.mesh.p[:, self.mesh.t], axis=1).max(axis=0)
        flat = np.flatnonzero(cell_sizes(self.mesh) < _FLAT * extents)
        if len(flat):
            raise SpaceError(
                f"cell {flat[0]} and {len(flat) - 1} more have no volume: their corners lie in one "
                "plane; make the mesh anew"
            )

    @property
    def moves(self) -> bool:
        """Whether derivatives with respect to the mesh's corners are wanted."""
        return self.vertices.requires_grad

    @cached_property
    def order_of_nodes(self) -> NDArray[np.int64]:
        """scikit-fem's number of each node: those inside first, then those on the surface."""
        inside = np.setdiff1d(np.arange(self.n_nodes), self._fixed)
        return np.concatenate([inside, self._fixed])

    @cached_property
    def nodes(self) -> Tensor:
        """Corners and, in order 2, middles, (n_nodes, 3), bohr; those on the surface last."""
        return torch.tensor(self.basis.doflocs[:, self.order_of_nodes].T.copy())

    @cached_property
    def nodes_of_cells(self) -> Tensor:
        """Indices in :attr:`nodes` of each cell's nodes, (n_cells, n_local)."""
        return torch.tensor(np.argsort(self.order_of_nodes)[self.basis.element_dofs.T])

    @cached_property
    def blocks(self) -> list[Block]:
        """Cells by their quadrature."""
        geometry = self.mesh.elem()
        linear = isinstance(self.mesh, MeshTet1)
        blocks = []
        for cells, rule in self._rules():
            values, slopes = reference_basis(self.element, rule[0])
            shapes, shape_slopes = reference_basis(geometry, rule[0])
            blocks.append(
                Block(
                    cells,
                    rule,
                    torch.tensor(self.mesh.t[:, cells].T.astype(np.int64)),
                    self.nodes_of_cells[cells],
                    values,
                    slopes,
                    shapes,
                    shape_slopes[:1] if linear else shape_slopes,
                )
            )
        return blocks

    def _rules(self) -> Iterator[tuple[NDArray[np.int64], Rule]]:
        """Cells and their quadrature: at nuclei, around nuclei, elsewhere."""
        reference = self.mesh.elem.refdom
        at_nucleus = np.isin(self.mesh.t, self._corners_at_nuclei)
        for corner, here in enumerate(at_nucleus):
            # a cell between two nuclei takes the rule of its first
            first = here & ~at_nucleus[:corner].any(axis=0)
            if first.any():
                rule = vertex_rule(reference, corner, _FACE_DEGREE, _RADIAL_POINTS)
                yield np.flatnonzero(first), rule
        near = self.near_nuclei & ~at_nucleus.any(axis=0)
        far = ~near & ~at_nucleus.any(axis=0)
        for chosen, degree in ((near, _NEAR_DEGREE), (far, _DEGREE)):
            if chosen.any():
                yield np.flatnonzero(chosen), cell_rule(reference, degree)

    def _cells_near_nuclei(self) -> NDArray[np.bool_]:
        if len(self.nuclei) == 0:
            return np.zeros(self.mesh.nelements, dtype=bool)
        corners = self.mesh.p[:, self.mesh.t]
        centres = corners.mean(axis=1).T
        size = np.ptp(corners, axis=1).max(axis=0)
        distance = np.linalg.norm(centres[:, None] - self.nuclei, axis=-1).min(axis=1)
        return np.asarray(distance < _NEAR * size)

    @cached_property
    def _jacobians(self) -> list[Tensor]:
        """Derivative of position (last but one index) in the reference cell's coordinates."""
        return [
            torch.einsum("cvi,qvj->cqij", self.vertices[b.corners], b.shape_slopes)
            for b in self.blocks
        ]

    @cached_property
    def _inverse_jacobians(self) -> list[Tensor]:
        return [torch.linalg.inv(jacobian) for jacobian in self._jacobians]

    @cached_property
    def points(self) -> Tensor:
        parts = [
            torch.einsum("qv,cvi->cqi", b.shapes, self.vertices[b.corners]) for b in self.blocks
        ]
        return torch.cat([part.reshape(-1, 3) for part in parts])

    @cached_property
    def weights(self) -> Tensor:
        parts = [
            torch.linalg.det(jacobian).abs() * torch.tensor(b.rule[1])
            for b, jacobian in zip(self.blocks, self._jacobians, strict=True)
        ]
        return torch.cat([part.reshape(-1) for part in parts])

    def corner_integrals(self) -> Tensor:
        """Integrals (n,), bohr^3, of the functions that are 1 at one corner and linear to 0 at the
        others; they sum to the volume."""
        integrals = self.weights.new_zeros(len(self.vertices))
        for block, weights in zip(self.blocks, self._by_cell(self.weights), strict=True):
            local = weights @ block.shapes
            integrals = integrals.index_add(0, block.corners.reshape(-1), local.reshape(-1))
        return integrals

    def cell_nodes(self, places: ArrayLike) -> NDArray[np.int64]:
        """Indices in :attr:`nodes` of each cell's nodes, (n_cells, n_places).

        ``places`` (n_places, 3) in the reference cell say in which order. Cells that are the
        reference cell's mirror image come mirrored, so that all have the same orientation.
        """
        number = self.nodes_of_cells.numpy()
        places = np.asarray(places, dtype=np.float64)
        straight, swapped = (
            [int(np.abs(self.element.doflocs - place).sum(axis=1).argmin()) for place in chosen]
            for chosen in (places, places[:, [1, 0, 2]])
        )
        return np.where(self.mirrored[:, None], number[:, swapped], number[:, straight])

    @cached_property
    def mirrored(self) -> NDArray[np.bool_]:
        """Which cells are mirror images of the reference cell, (n_cells,)."""
        result = np.zeros(self.mesh.nelements, dtype=bool)
        for block, jacobian in zip(self.blocks, self._jacobians, strict=True):
            result[block.cells] = (torch.linalg.det(jacobian[:, 0].detach()) < 0).numpy()
        return result

    def _by_cell(self, field: Tensor) -> list[Tensor]:
        """A field (..., n_points) as (..., n_cells, points per cell) for each block."""
        shapes = [(len(b.cells), len(b.rule[1])) for b in self.blocks]
        parts = field.split([n * q for n, q in shapes], dim=-1)
        return [p.unflatten(-1, shape) for p, shape in zip(parts, shapes, strict=True)]

    def with_surface(self, inside: Tensor) -> Tensor:
        """Values at all nodes (..., n_nodes) from those inside: zero on the surface."""
        return torch.nn.functional.pad(inside, (0, self.n_nodes - self.n_inside))

    def integrate(self, field: Tensor) -> Tensor:
        """Integral over the mesh of a field (..., n_points)."""
        return field @ self.weights

    def gradient_norm2(self, nodal: Tensor) -> Tensor:
        """Integral of the squared gradient of nodal values."""
        return self.integrate((self.evaluate_gradient(nodal) ** 2).sum(dim=-1))

    def _local(self, nodal: Tensor) -> Iterator[tuple[Block, Tensor]]:
        """Each block with its cells' nodal values (..., n_cells, n_local)."""
        for block in self.blocks:
            chosen = nodal.index_select(-1, block.nodes.reshape(-1))
            yield block, chosen.unflatten(-1, block.nodes.shape)

    def evaluate(self, nodal: Tensor) -> Tensor:
        """Fields (..., n_points) of nodal values."""
        parts = [local @ block.values.T for block, local in self._local(nodal)]
        return torch.cat([part.flatten(-2) for part in parts], dim=-1)

    def evaluate_gradient(self, nodal: Tensor) -> Tensor:
        """Gradients (..., n_points, 3) of nodal values, per bohr."""
        parts = []
        for (block, local), inverse in zip(
            self._local(nodal), self._inverse_jacobians, strict=True
        ):
            reference = torch.einsum("...cl,qlj->...cqj", local, block.slopes)
            gradient = (reference[..., None, :] @ inverse).squeeze(-2)
            parts.append(gradient.flatten(-3, -2))
        return torch.cat(parts, dim=-2)

    def test(self, field: Tensor) -> Tensor:
        """Integrals (..., n_nodes) of fields (..., n_points) with each node's function."""
        load = field.new_zeros(*field.shape[:-1], self.n_nodes)
        for block, part in zip(self.blocks, self._by_cell(field * self.weights), strict=True):
            local = part @ block.values
            load = load.index_add(-1, block.nodes.reshape(-1), local.flatten(-2))
        return load

    @cached_property
    def _finder(self) -> CellFinder:
        return CellFinder(self.mesh)

    def interpolate(self, nodal: Tensor, points: Tensor) -> Tensor:
        """Fields (..., n) of nodal values at any points (n, 3), bohr.

        Raises:
            SpaceError: points outside the mesh.
        """
        cells, places = self._finder(points.double().numpy())
        values, _ = reference_basis(self.element, places)
        nodes = self.nodes_of_cells[cells]
        local = nodal.index_select(-1, nodes.reshape(-1)).unflatten(-1, nodes.shape)
        return torch.sum(local * values, dim=-1)

    @property
    def corners_at_surface(self) -> NDArray[np.int64]:
        """Numbers of the corners on the surface."""
        return np.unique(self.mesh.facets[:, self.mesh.boundary_facets()])


def _scikit_fem_mesh(mesh: Any) -> MeshTet1 | MeshHex1:
    """The mesh as scikit-fem has it, without corners that no cell uses."""
    if hasattr(mesh, "cells_dict"):
        mesh = from_meshio(mesh)
    if type(mesh) not in (MeshTet1, MeshHex1):
        raise SpaceError(
            f"mesh is a {type(mesh).__name__}; expected linear tetrahedra or hexahedra (MeshTet, "
            "MeshHex, or what fedens.fem.mesh.load_mesh gives)"
        )
    return mesh.remove_unused_nodes()


def reference_basis(element: Element, points: NDArray[np.float64]) -> tuple[Tensor, Tensor]:
    """Basis functions (n_points, n_local) and slopes (n_points, n_local, 3), reference cell."""
    functions = [element.lbasis(points, i) for i in range(element.doflocs.shape[0])]
    n_points = points.shape[1]
    values = np.stack([np.broadcast_to(value, n_points) for value, _ in functions], axis=1)
    slopes = np.stack([np.broadcast_to(s, (3, n_points)).T for _, s in functions], axis=1)
    return torch.tensor(values, dtype=torch.float64), torch.tensor(slopes, dtype=torch.float64)
