"""Tetrahedra or hexahedra of order 1 or 2 on any mesh, small at the nuclei: for molecules.

Basis functions, numbering and sparse matrices come from scikit-fem, multigrid from pyamg. The
corners of the mesh are a tensor, so that energies can be differentiated while the mesh moves.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_matrix
from skfem import (
    Basis,
    BilinearForm,
    Element,
    ElementHex1,
    ElementHex2,
    ElementTetP1,
    ElementTetP2,
    MeshHex1,
    MeshTet1,
)
from skfem.io.meshio import from_meshio
from skfem.models.poisson import laplace, mass
from torch import Tensor

from fedens.errors import SpaceError
from fedens.fem.multipole import CoulombEnergy
from fedens.fem.simplex.interpolation import CellFinder
from fedens.fem.simplex.quadrature import Rule, cell_rule, vertex_rule
from fedens.fem.simplex.refinement import cell_sizes, following_weights, graded_tetrahedra
from fedens.fem.simplex.sparse import SymmetricMap, jacobi, product, solver, v_cycle
from fedens.fem.simplex.surface import SurfaceMultipoles

if TYPE_CHECKING:
    import meshio

    from fedens.structure import Structure

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
_AT_CORNER = 1e-6
#: A cell is flat when the edge of a cube of its volume is such a share of its longest side.
_FLAT = 1e-4
#: Default size of the cells at a nucleus of charge 1, bohr, and how it grows with the distance:
#: 146,000 points for water, where integrals of differences to superposed atoms (PBE, def2-TZVP)
#: are within 1e-6 electrons and 0.05 mHa of the exact ones.
DEFAULT_FINEST, DEFAULT_GROWTH = 0.25, 0.7
#: Default distance from the outermost nuclei to the walls, bohr.
DEFAULT_MARGIN = 10.0


@dataclass(frozen=True, eq=False)
class _Block:
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


@dataclass(frozen=True, eq=False)
class _Surface:
    """The multipoles at the surface; harmonic functions at nodes and points, R_m at points."""

    multipoles: SurfaceMultipoles
    nodal: Tensor
    fields: Tensor
    shapes: Tensor


class SimplexSpace:
    """Linear or quadratic finite elements on tetrahedra or hexahedra; isolated systems.

    Args:
        mesh: of scikit-fem (``MeshTet``, ``MeshHex``) or meshio (see
            :func:`fedens.fem.mesh.load_mesh`); lengths in bohr.
        order: polynomial order, 1 or 2.
        nuclei: positions (n, 3) of nuclei that are corners of the mesh, bohr: the cells that
            touch one are integrated by a rule that knows 1/r and cusps.

    Functions vanish on the mesh's surface. Coefficients are values at the nodes inside; their
    mass matrix is not the identity, see :meth:`mass`.

    Raises:
        SpaceError: for another kind of mesh or order, cells without volume, or a nucleus that
            is no corner.
    """

    periodic = (False, False, False)
    is_periodic = False
    device = torch.device("cpu")

    def __init__(
        self,
        mesh: MeshTet1 | MeshHex1 | meshio.Mesh,
        order: int = 2,
        nuclei: ArrayLike | None = None,
        *,
        _vertices: Tensor | None = None,
        _recipe: dict[str, Any] | None = None,
    ):
        self.mesh = _scikit_fem_mesh(mesh)
        self.order = order
        if (type(self.mesh), order) not in _ELEMENTS:
            raise SpaceError(f"order is {order}; expected 1 or 2")
        self.nuclei = np.zeros((0, 3)) if nuclei is None else np.array(nuclei, dtype=np.float64)
        self.vertices = torch.tensor(self.mesh.p.T.copy()) if _vertices is None else _vertices
        self._corners_at_nuclei = self._find_nuclei()
        self._element = _ELEMENTS[type(self.mesh), order]()
        self._refuse_flat_cells()
        self._basis = Basis(self.mesh, self._element, intorder=1)
        self._recipe = _recipe

    @classmethod
    def for_structure(
        cls,
        structure: Structure,
        finest: float | Mapping[str, float] | None = None,
        growth: float = DEFAULT_GROWTH,
        margin: float = DEFAULT_MARGIN,
        order: int = 2,
    ) -> SimplexSpace:
        """Tetrahedra no larger than ``finest + growth * distance`` to the nearest nucleus.

        Args:
            finest: size of the cells at the nuclei, bohr, or ``{symbol: size}``; default 0.25 / Z.
            growth: size per distance. margin: from the outermost nuclei to the walls, bohr.

        Raises:
            SpaceError: for periodic structures, lengths that are not positive, an element without
                its length.
        """
        if structure.pbc.any():
            raise SpaceError(
                f"pbc is {structure.pbc.tolist()}: a SimplexSpace is for isolated systems; use "
                "TensorSpace.for_structure(structure)"
            )
        sizes = _sizes_at_nuclei(structure, finest)
        mesh = graded_tetrahedra(structure.positions, sizes, growth, margin)
        recipe = {"sizes_bohr": sizes.tolist(), "growth": growth, "margin_bohr": margin}
        return cls(mesh, order, structure.positions, _recipe=recipe)

    def __repr__(self) -> str:
        kind = "tetrahedra" if isinstance(self.mesh, MeshTet1) else "hexahedra"
        return (
            f"SimplexSpace({self.mesh.nelements} {kind} of order {self.order}, "
            f"{self.n_coefficients} unknowns, {self.n_points} points)"
        )

    def _find_nuclei(self) -> NDArray[np.int64]:
        """The corner of the mesh at each nucleus."""
        if len(self.nuclei) == 0:
            return np.zeros(0, dtype=np.int64)
        distance = np.linalg.norm(self.mesh.p.T[:, None] - self.nuclei, axis=-1)
        nearest = distance.argmin(axis=0)
        away = distance.min(axis=0)
        if away.max() > _AT_CORNER:
            worst = int(away.argmax())
            raise SpaceError(
                f"nucleus {worst} is {away[worst]:.2e} bohr from the nearest corner of the mesh; "
                "it must be one: use SimplexSpace.for_structure(structure)"
            )
        return nearest

    def _refuse_flat_cells(self) -> None:
        extents = np.ptp(self.mesh.p[:, self.mesh.t], axis=1).max(axis=0)
        flat = np.flatnonzero(cell_sizes(self.mesh) < _FLAT * extents)
        if len(flat):
            raise SpaceError(
                f"cell {flat[0]} and {len(flat) - 1} more have no volume: their corners lie in one "
                "plane; make the mesh anew"
            )

    @property
    def n_points(self) -> int:
        """Number of quadrature points."""
        return len(self.weights)

    @cached_property
    def n_coefficients(self) -> int:
        """Number of degrees of freedom: nodes that are not on the surface."""
        return self._basis.N - len(self._basis.get_dofs().all())

    @property
    def volume(self) -> float:
        """Volume of the mesh, bohr^3."""
        return float(self.weights.detach().sum())

    @cached_property
    def _order_of_nodes(self) -> NDArray[np.int64]:
        """scikit-fem's number of each node: those inside first, then those on the surface."""
        fixed = np.asarray(self._basis.get_dofs().all())
        inside = np.setdiff1d(np.arange(self._basis.N), fixed)
        return np.concatenate([inside, fixed])

    @cached_property
    def all_nodes(self) -> Tensor:
        """Corners and, in order 2, middles, (n_nodes, 3), bohr; those on the surface last."""
        return torch.tensor(self._basis.doflocs[:, self._order_of_nodes].T.copy())

    @cached_property
    def _nodes_of_cells(self) -> Tensor:
        """Indices in :attr:`all_nodes` of each cell's nodes, (n_cells, n_local)."""
        return torch.tensor(np.argsort(self._order_of_nodes)[self._basis.element_dofs.T])

    @cached_property
    def _blocks(self) -> list[_Block]:
        geometry = self.mesh.elem()
        linear = isinstance(self.mesh, MeshTet1)
        blocks = []
        for cells, rule in self._rules():
            values, slopes = _reference_basis(self._element, rule[0])
            shapes, shape_slopes = _reference_basis(geometry, rule[0])
            blocks.append(
                _Block(
                    cells,
                    rule,
                    torch.tensor(self.mesh.t[:, cells].T.astype(np.int64)),
                    self._nodes_of_cells[cells],
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
        near = self._near_nuclei & ~at_nucleus.any(axis=0)
        far = ~near & ~at_nucleus.any(axis=0)
        for chosen, degree in ((near, _NEAR_DEGREE), (far, _DEGREE)):
            if chosen.any():
                yield np.flatnonzero(chosen), cell_rule(reference, degree)

    @cached_property
    def _near_nuclei(self) -> NDArray[np.bool_]:
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
            for b in self._blocks
        ]

    @cached_property
    def _inverse_jacobians(self) -> list[Tensor]:
        return [torch.linalg.inv(jacobian) for jacobian in self._jacobians]

    @cached_property
    def points(self) -> Tensor:
        """Quadrature points, (n_points, 3), bohr."""
        parts = [
            torch.einsum("qv,cvi->cqi", b.shapes, self.vertices[b.corners]) for b in self._blocks
        ]
        return torch.cat([part.reshape(-1, 3) for part in parts])

    @cached_property
    def weights(self) -> Tensor:
        """Quadrature weights, (n_points,), bohr^3; they sum to the volume."""
        parts = [
            torch.linalg.det(jacobian).abs() * torch.tensor(b.rule[1])
            for b, jacobian in zip(self._blocks, self._jacobians, strict=True)
        ]
        return torch.cat([part.reshape(-1) for part in parts])

    @property
    def nodes(self) -> tuple[Tensor, Tensor]:
        """Corners of the mesh (n, 3), bohr, and the integrals of the functions that are 1 there and
        linear to 0 at the others (n,), bohr^3, which sum to the volume."""
        integrals = self.weights.new_zeros(len(self.vertices))
        for block, weights in zip(self._blocks, self._by_cell(self.weights), strict=True):
            local = weights @ block.shapes
            integrals = integrals.index_add(0, block.corners.reshape(-1), local.reshape(-1))
        return self.vertices, integrals

    def cell_nodes(self, places: ArrayLike) -> NDArray[np.int64]:
        """Indices in :attr:`all_nodes` of each cell's nodes, (n_cells, n_places).

        ``places`` (n_places, 3) in the reference cell say in which order. Cells that are the
        reference cell's mirror image come mirrored, so that all have the same orientation.
        """
        number = self._nodes_of_cells.numpy()
        places = np.asarray(places, dtype=np.float64)
        straight, swapped = (
            [int(np.abs(self._element.doflocs - place).sum(axis=1).argmin()) for place in chosen]
            for chosen in (places, places[:, [1, 0, 2]])
        )
        return np.where(self._mirrored[:, None], number[:, swapped], number[:, straight])

    @cached_property
    def _mirrored(self) -> NDArray[np.bool_]:
        """Which cells are mirror images of the reference cell, (n_cells,)."""
        result = np.zeros(self.mesh.nelements, dtype=bool)
        for block, jacobian in zip(self._blocks, self._jacobians, strict=True):
            result[block.cells] = (torch.linalg.det(jacobian[:, 0].detach()) < 0).numpy()
        return result

    def _by_cell(self, field: Tensor) -> list[Tensor]:
        """A field (..., n_points) as (..., n_cells, points per cell) for each block."""
        shapes = [(len(b.cells), len(b.rule[1])) for b in self._blocks]
        parts = field.split([n * q for n, q in shapes], dim=-1)
        return [p.unflatten(-1, shape) for p, shape in zip(parts, shapes, strict=True)]

    def _with_surface(self, coefficients: Tensor) -> Tensor:
        """Values at all nodes (..., n_nodes): zero on the surface."""
        n_surface = self._basis.N - self.n_coefficients
        return torch.nn.functional.pad(coefficients, (0, n_surface))

    def _local(self, nodal: Tensor) -> Iterator[tuple[_Block, Tensor]]:
        """Each block with its cells' nodal values (..., n_cells, n_local)."""
        for block in self._blocks:
            chosen = nodal.index_select(-1, block.nodes.reshape(-1))
            yield block, chosen.unflatten(-1, block.nodes.shape)

    def _evaluate(self, nodal: Tensor) -> Tensor:
        parts = [local @ block.values.T for block, local in self._local(nodal)]
        return torch.cat([part.flatten(-2) for part in parts], dim=-1)

    def _evaluate_gradient(self, nodal: Tensor) -> Tensor:
        parts = []
        for (block, local), inverse in zip(
            self._local(nodal), self._inverse_jacobians, strict=True
        ):
            reference = torch.einsum("...cl,qlj->...cqj", local, block.slopes)
            gradient = (reference[..., None, :] @ inverse).squeeze(-2)
            parts.append(gradient.flatten(-3, -2))
        return torch.cat(parts, dim=-2)

    def evaluate(self, coefficients: Tensor) -> Tensor:
        """Field (..., n_points) of coefficients (..., n_coefficients)."""
        return self._evaluate(self._with_surface(coefficients))

    def evaluate_gradient(self, coefficients: Tensor) -> Tensor:
        """Gradient (..., n_points, 3) of coefficients (..., n_coefficients), per bohr."""
        return self._evaluate_gradient(self._with_surface(coefficients))

    def test(self, field: Tensor) -> Tensor:
        """Load vector: integrals of a field (..., n_points) with each basis function."""
        return self._test(field)[..., : self.n_coefficients]

    def _test(self, field: Tensor) -> Tensor:
        load = field.new_zeros(*field.shape[:-1], self._basis.N)
        for block, part in zip(self._blocks, self._by_cell(field * self.weights), strict=True):
            local = part @ block.values
            load = load.index_add(-1, block.nodes.reshape(-1), local.flatten(-2))
        return load

    def project(self, field: Tensor) -> Tensor:
        """Coefficients (n_coefficients,) of the least-squares projection of a field (n_points,)."""
        return self.inverse_mass(self.test(field))

    def nodal_values(self, field: Tensor) -> Tensor:
        """A field (n_points,) at all nodes, the surface's too: its least-squares projection.

        In the order of :attr:`all_nodes`.
        """
        return solver(self._masses, jacobi(self._masses))(self._test(field))

    def integrate(self, field: Tensor) -> Tensor:
        """Integral over the mesh of a field (..., n_points)."""
        return field @ self.weights

    @cached_property
    def _masses(self) -> csr_matrix:
        """Of all nodes."""
        return self._assembled(mass, 2 * self.order)

    @cached_property
    def _stiffness(self) -> csr_matrix:
        """Of all nodes."""
        return self._assembled(laplace, 2 * self.order - 2)

    def _assembled(self, form: BilinearForm, degree: int) -> csr_matrix:
        """Of all nodes; ``degree`` is that of the integrand where the cells' maps are linear."""
        if isinstance(self.mesh, MeshTet1):
            matrix = form.assemble(Basis(self.mesh, self._element, intorder=degree))
        else:
            matrix = sum(
                form.assemble(
                    Basis(self.mesh, self._element, elements=block.cells, quadrature=block.rule)
                )
                for block in self._blocks
            )
        order = self._order_of_nodes
        return matrix[order][:, order].tocsr()

    @cached_property
    def _inner_masses(self) -> csr_matrix:
        """Of the nodes inside."""
        return self._masses[: self.n_coefficients, : self.n_coefficients].tocsr()

    @cached_property
    def _inner_stiffness(self) -> csr_matrix:
        """Of the nodes inside."""
        return self._stiffness[: self.n_coefficients, : self.n_coefficients].tocsr()

    @cached_property
    def mass(self) -> SymmetricMap:
        """Coefficients (n_coefficients,) to the load vector of their field."""
        return product(self._inner_masses)

    @cached_property
    def inverse_mass(self) -> SymmetricMap:
        """Load vector (n_coefficients,) to the coefficients of its projection."""
        return solver(self._inner_masses, jacobi(self._inner_masses))

    @cached_property
    def _inverse_stiffness(self) -> SymmetricMap:
        return solver(self._inner_stiffness, v_cycle(self._inner_stiffness, self._from_linear))

    @cached_property
    def _from_linear(self) -> csr_matrix | None:
        """Values at the nodes inside of linear elements on the same mesh; None if we are those."""
        if self.order == 1:
            return None
        places = self._element.doflocs.T
        local = _reference_basis(self.mesh.elem(), places)[0].numpy()
        node, corner = np.nonzero(local)
        rows = np.argsort(self._order_of_nodes)[self._basis.element_dofs[node]].ravel()
        columns = self.mesh.t[corner].ravel()
        # a node belongs to several cells, which agree
        _, first = np.unique(rows * self.mesh.nvertices + columns, return_index=True)
        values = np.repeat(local[node, corner], self.mesh.nelements)[first]
        shape = (self._basis.N, self.mesh.nvertices)
        matrix = csr_matrix((values, (rows[first], columns[first])), shape)
        inside = np.setdiff1d(np.arange(self.mesh.nvertices), self._corners_at_surface)
        return matrix[: self.n_coefficients][:, inside].tocsr()

    @property
    def _corners_at_surface(self) -> NDArray[np.int64]:
        return np.unique(self.mesh.facets[:, self.mesh.boundary_facets()])

    def helmholtz_preconditioner(self, stiffness: float, mass: float) -> SymmetricMap:
        """Approximate inverse of ``stiffness`` times minus the Laplacian plus ``mass``.

        A symmetric map of load vectors to coefficients (n_coefficients,): one multigrid cycle.
        """
        matrix = stiffness * self._inner_stiffness + mass * self._inner_masses
        return v_cycle(matrix, self._from_linear)

    @property
    def _moves(self) -> bool:
        """Whether derivatives with respect to the mesh's corners are wanted."""
        return self.vertices.requires_grad

    def norm2(self, coefficients: Tensor) -> Tensor:
        """Integral of the squared field of coefficients (n_coefficients,)."""
        if self._moves:
            return self.integrate(self.evaluate(coefficients) ** 2)
        return torch.dot(coefficients, self.mass(coefficients))

    def gradient_norm2(self, coefficients: Tensor) -> Tensor:
        """Integral of the squared gradient of the field of coefficients (n_coefficients,)."""
        if self._moves:
            return self._gradient_norm2(self._with_surface(coefficients))
        return torch.dot(coefficients, product(self._inner_stiffness)(coefficients))

    def _gradient_norm2(self, nodal: Tensor) -> Tensor:
        return self.integrate((self._evaluate_gradient(nodal) ** 2).sum(dim=-1))

    def solve_poisson(self, charge: Tensor) -> Tensor:
        """Potential (n_points,) of a charge density (n_points,), -lap phi = 4 pi charge; hartree.

        That in free space, with values at the surface from the charge's monopole, dipole and
        quadrupole; a symmetric linear function of the charge, so that it is the exact derivative
        of :meth:`coulomb_energy`. See :mod:`fedens.fem.simplex.surface`.
        """
        surface = self._surface
        moments = surface.shapes @ (self.weights * charge)
        mirrored = surface.fields @ (self.weights * charge) - self._response @ moments
        confined = self.evaluate(self.solve_confined(charge))
        return confined + moments @ surface.fields + mirrored @ surface.shapes

    def solve_confined(self, charge: Tensor) -> Tensor:
        """Coefficients of the potential of a charge (n_points,) that is zero at the surface.

        Close to that in free space of a charge without monopole and dipole; with them see
        :meth:`solve_poisson`, which costs ten times as much the first time.
        """
        return 4 * math.pi * self._inverse_stiffness(self.test(charge))

    def confined_energy(self, charge: Tensor) -> Tensor:
        """(1/2) integral of charge x potential of :meth:`solve_confined`, hartree."""
        if self._moves:
            potential = self.solve_confined(charge.detach()).detach()
            field = self.gradient_norm2(potential)
            # stationary in the potential, see _stationary_coulomb_energy
            return self.integrate(charge * self.evaluate(potential)) - field / (8 * math.pi)
        return 0.5 * self.integrate(charge * self.evaluate(self.solve_confined(charge)))

    def coulomb_energy(self, charge: Tensor) -> Tensor:
        """Self energy (1/2) integral of charge x potential, hartree."""
        if self._moves:
            return self._stationary_coulomb_energy(charge)
        energy: Tensor = CoulombEnergy.apply(charge, self)
        return energy

    def _stationary_coulomb_energy(self, charge: Tensor) -> Tensor:
        """The same, differentiable in the corners of the mesh as well.

        int rho phi - |grad phi|^2 / (8 pi) is stationary in phi inside, so that phi may be taken
        as a constant; so is the energy of the harmonic part.
        """
        surface = self._surface
        moments = surface.multipoles.shapes(self.points) @ (self.weights * charge)
        harmonic = moments @ surface.nodal
        potential = harmonic + self._with_surface(self.solve_confined(charge.detach()).detach())
        field = self._gradient_norm2(potential) - self._gradient_norm2(harmonic)
        mirrored = 0.5 * moments @ self._response @ moments
        energy = self.integrate(charge * self._evaluate(potential))
        return energy - field / (8 * math.pi) - mirrored

    @cached_property
    def _surface(self) -> _Surface:
        multipoles = SurfaceMultipoles(self.all_nodes[self.n_coefficients :])
        coupling = self._stiffness[: self.n_coefficients, self.n_coefficients :]
        loads = torch.tensor((coupling @ multipoles.values.numpy().T).T)
        inside = [-self._inverse_stiffness(load) for load in loads]
        nodal = torch.cat([torch.stack(inside), multipoles.values], dim=1)
        shapes = multipoles.shapes(self.points.detach())
        return _Surface(multipoles, nodal, self._evaluate(nodal), shapes)

    @cached_property
    def _response(self) -> Tensor:
        """A (9, 9) of :mod:`fedens.fem.simplex.surface`."""
        surface = self._surface
        points, weights = self.points.detach(), self.weights.detach()
        return surface.multipoles.response(points, weights, surface.fields)

    @cached_property
    def _finder(self) -> CellFinder:
        return CellFinder(self.mesh)

    def interpolate_at(self, coefficients: Tensor, points: Tensor, chunk: int = 65536) -> Tensor:
        """Fields (..., n) of coefficients (..., n_coefficients) at any points (n, 3), bohr.

        Raises:
            SpaceError: points outside the mesh.
        """
        nodal = self._with_surface(coefficients.detach())
        parts = [self._interpolate(nodal, part.detach()) for part in points.split(chunk)]
        return torch.cat(parts, dim=-1)

    def _interpolate(self, nodal: Tensor, points: Tensor) -> Tensor:
        cells, places = self._finder(points.double().numpy())
        values, _ = _reference_basis(self._element, places)
        nodes = self._nodes_of_cells[cells]
        local = nodal.index_select(-1, nodes.reshape(-1)).unflatten(-1, nodes.shape)
        return (local * values).sum(dim=-1)

    def moved(self, positions: Tensor) -> SimplexSpace:
        """The space with its nuclei at other positions (n, 3), bohr, and the mesh following.

        Differentiable in the positions; cells and coefficients stay what they are. See
        :func:`fedens.fem.simplex.refinement.following_weights`.

        Raises:
            SpaceError: when a cell would lose its volume.
        """
        share = following_weights(self.mesh.p.T, self.nuclei, self._corners_at_surface)
        start = torch.tensor(self.mesh.p.T.copy())
        vertices = start + share @ (positions - torch.tensor(self.nuclei))
        mesh = type(self.mesh)(vertices.detach().numpy().T.copy(), self.mesh.t)
        space = SimplexSpace(mesh, self.order, positions.detach().numpy(), _vertices=vertices)
        # what must not change, so that the energy is smooth, nor be differentiated
        space._near_nuclei, space._response = self._near_nuclei, self._response
        if (space._mirrored != self._mirrored).any():
            raise SpaceError(
                "the nuclei have moved so far that cells of the mesh are turned inside out: make "
                "a new one with SimplexSpace.for_structure"
            )
        return space

    def spacing_at(self, points: Tensor) -> float:
        """Longest edge over order among the cells at the corners next to points (n, 3), bohr."""
        corners = self.mesh.p[:, self.mesh.t]
        edges = corners[:, :, None] - corners[:, None]
        longest = np.linalg.norm(edges, axis=0).max(axis=(0, 1))
        given = points.detach().numpy()
        nearest = [int(((self.mesh.p.T - x) ** 2).sum(axis=1).argmin()) for x in given]
        touching = np.isin(self.mesh.t, nearest).any(axis=0)
        return float(longest[touching].max()) / self.order

    def describe(self) -> dict[str, Any]:
        """All that defines the space: order, nuclei, and how the mesh was made or what it is."""
        common = {
            "cells": "tetrahedra" if isinstance(self.mesh, MeshTet1) else "hexahedra",
            "order": self.order,
            "nuclei_bohr": self.nuclei.tolist(),
        }
        if self._recipe is not None:
            return common | self._recipe | {"n_cells": self.mesh.nelements}
        vertices, corners = self.mesh.p.T.tolist(), self.mesh.t.T.tolist()
        return common | {"vertices_bohr": vertices, "corners": corners}

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> SimplexSpace:
        """The space of :meth:`describe`.

        Raises:
            SpaceError: a mesh that is not made as it was by another version of fedens.
        """
        if "sizes_bohr" in description:
            return cls._remade(description)
        kind = {"tetrahedra": MeshTet1, "hexahedra": MeshHex1}[description["cells"]]
        vertices = np.ascontiguousarray(np.array(description["vertices_bohr"]).T)
        corners = np.ascontiguousarray(np.array(description["corners"]).T)
        return cls(kind(vertices, corners), description["order"], description["nuclei_bohr"])

    @classmethod
    def _remade(cls, description: Mapping[str, Any]) -> SimplexSpace:
        nuclei = np.array(description["nuclei_bohr"])
        recipe = {key: description[key] for key in ("sizes_bohr", "growth", "margin_bohr")}
        sizes = np.array(recipe["sizes_bohr"])
        mesh = graded_tetrahedra(nuclei, sizes, recipe["growth"], recipe["margin_bohr"])
        if mesh.nelements != description["n_cells"]:
            raise SpaceError(
                f"the mesh had {description['n_cells']} cells, made again it has "
                f"{mesh.nelements}: it is of another version of fedens; make the data again"
            )
        return cls(mesh, description["order"], nuclei, _recipe=recipe)

    def check_matches(self, structure: Structure) -> None:
        """Raise unless the structure is isolated and its atoms are where the mesh expects them."""
        if structure.pbc.any():
            raise SpaceError("structure is periodic, the space isolated: use a TensorSpace")
        if len(self.nuclei):
            shape = self.nuclei.shape
            same = structure.positions.shape == shape and np.allclose(
                structure.positions, self.nuclei, rtol=0, atol=_AT_CORNER
            )
            if not same:
                raise SpaceError(
                    "the mesh was made for nuclei at other positions: build the space with "
                    "SimplexSpace.for_structure(structure)"
                )
            return
        low, high = self.mesh.p.min(axis=1), self.mesh.p.max(axis=1)
        outside = ((structure.positions <= low) | (structure.positions >= high)).any(axis=1)
        if outside.any():
            raise SpaceError(
                f"atom {int(np.flatnonzero(outside)[0])} lies outside the mesh, which reaches from "
                f"{np.round(low, 3).tolist()} to {np.round(high, 3).tolist()} bohr"
            )


def _sizes_at_nuclei(
    structure: Structure, finest: float | Mapping[str, float] | None
) -> NDArray[np.float64]:
    if finest is None:
        return DEFAULT_FINEST / structure.numbers
    if not isinstance(finest, Mapping):
        return np.full(len(structure), finest)
    missing = set(structure.symbols) - set(finest)
    if missing:
        raise SpaceError(
            f"finest has no length for {', '.join(sorted(missing))}; give one per element, bohr"
        )
    return np.array([finest[symbol] for symbol in structure.symbols])


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


def _reference_basis(element: Element, points: NDArray[np.float64]) -> tuple[Tensor, Tensor]:
    """Basis functions (n_points, n_local) and slopes (n_points, n_local, 3), reference cell."""
    functions = [element.lbasis(points, i) for i in range(element.doflocs.shape[0])]
    n_points = points.shape[1]
    values = np.stack([np.broadcast_to(value, n_points) for value, _ in functions], axis=1)
    slopes = np.stack([np.broadcast_to(s, (3, n_points)).T for _, s in functions], axis=1)
    return torch.tensor(values, dtype=torch.float64), torch.tensor(slopes, dtype=torch.float64)
