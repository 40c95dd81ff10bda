"""Mass and stiffness matrices on a mesh, and their inverses: sparse, assembled by scikit-fem."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from scipy.sparse import csr_matrix
from skfem import Basis, BilinearForm, MeshTet1
from skfem.models.poisson import laplace, mass

from fedens.fem.simplex.cells import Cells, reference_basis
from fedens.fem.simplex.sparse import SymmetricMap, solver, v_cycle


class Matrices:
    """Mass and stiffness matrices of the nodes of a mesh."""

    def __init__(self, cells: Cells):
        self._cells = cells

    @cached_property
    def masses(self) -> csr_matrix:
        """Of all nodes."""
        return _assembled(self._cells, mass, 2 * self._cells.order)

    @cached_property
    def stiffness(self) -> csr_matrix:
        """Of all nodes."""
        return _assembled(self._cells, laplace, 2 * self._cells.order - 2)

    @cached_property
    def inner_masses(self) -> csr_matrix:
        """Of the nodes inside."""
        return self.masses[: self._cells.n_inside, : self._cells.n_inside].tocsr()

    @cached_property
    def inner_stiffness(self) -> csr_matrix:
        """Of the nodes inside."""
        return self.stiffness[: self._cells.n_inside, : self._cells.n_inside].tocsr()

    @cached_property
    def inverse_stiffness(self) -> SymmetricMap:
        return solver(self.inner_stiffness, v_cycle(self.inner_stiffness, self._from_linear))

    def preconditioner(self, stiffness: float, mass: float) -> SymmetricMap:
        """One multigrid cycle for ``stiffness`` times minus the Laplacian plus ``mass``."""
        matrix = stiffness * self.inner_stiffness + mass * self.inner_masses
        return v_cycle(matrix, self._from_linear)

    @cached_property
    def _from_linear(self) -> csr_matrix | None:
        """Values at the nodes inside of linear elements on the same mesh; None if we are those."""
        cells = self._cells
        if cells.order == 1:
            return None
        places = cells.element.doflocs.T
        local = reference_basis(cells.mesh.elem(), places)[0].numpy()
        node, corner = np.nonzero(local)
        rows = np.argsort(cells.order_of_nodes)[cells.basis.element_dofs[node]].ravel()
        columns = cells.mesh.t[corner].ravel()
        # a node belongs to several cells, which agree
        _, first = np.unique(rows * cells.mesh.nvertices + columns, return_index=True)
        values = np.repeat(local[node, corner], cells.mesh.nelements)[first]
        shape = (cells.n_nodes, cells.mesh.nvertices)
        matrix = csr_matrix((values, (rows[first], columns[first])), shape)
        inside = np.setdiff1d(np.arange(cells.mesh.nvertices), cells.corners_at_surface)
        return matrix[: cells.n_inside][:, inside].tocsr()


def _assembled(cells: Cells, form: BilinearForm, degree: int) -> csr_matrix:
    """Matrix of all nodes; ``degree`` is that of the integrand where the cells' maps are linear."""
    if isinstance(cells.mesh, MeshTet1):
        matrix = form.assemble(Basis(cells.mesh, cells.element, intorder=degree))
    else:
        matrix = sum(
            form.assemble(
                Basis(cells.mesh, cells.element, elements=block.cells, quadrature=block.rule)
            )
            for block in cells.blocks
        )
    order = cells.order_of_nodes
    return matrix[order][:, order].tocsr()
