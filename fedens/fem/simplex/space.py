"""Tetrahedra or hexahedra of order 1 or 2 on any mesh, small at the nuclei: for molecules.

Basis functions, numbering and sparse matrices come from scikit-fem, multigrid from pyamg. The
corners of the mesh are a tensor, so that energies can be differentiated while the mesh moves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from skfem import MeshHex1, MeshTet1
from torch import Tensor

from fedens.errors import SpaceError
from fedens.fem.multipole import coulomb_energy
from fedens.fem.simplex.cells import AT_CORNER, Cells
from fedens.fem.simplex.coulomb import Coulomb
from fedens.fem.simplex.matrices import Matrices
from fedens.fem.simplex.refinement import following_weights, graded_tetrahedra
from fedens.fem.simplex.sparse import SymmetricMap, jacobi, product, solver

if TYPE_CHECKING:
    import meshio

    from fedens.structure import Structure

#: Default size of the cells at a nucleus of charge 1, bohr, and how it grows with the distance:
#: 146,000 points for water, where integrals of differences to superposed atoms (PBE, def2-TZVP)
#: are within 1e-6 electrons and 0.05 mHa of the exact ones.
DEFAULT_FINEST, DEFAULT_GROWTH = 0.25, 0.7
#: Default distance from the outermost nuclei to the walls, bohr.
DEFAULT_MARGIN = 10.0


class SimplexSpace:
    """Linear or quadratic finite elements on tetrahedra or hexahedra; isolated systems.

    Args:
        mesh: of scikit-fem (``MeshTet``, ``MeshHex``) or meshio (see
            :func:`fedens.fem.mesh.load_mesh`); lengths in bohr.
        order: polynomial order, 1 or 2.
        nuclei: positions (n, 3) of nuclei that are corners of the mesh, bohr: the cells that
            touch one are integrated by a rule that knows 1/r and cusps.
        cells_near_nuclei: which cells around those have a finer rule, (n_cells,); by default
            they are chosen by their distance.

    A :class:`fedens.fem.space.FunctionSpace`, which says what its methods give. Functions vanish
    on the mesh's surface. Coefficients are values at the nodes inside; their mass matrix is not
    the identity.

    Raises:
        SpaceError: for another kind of mesh or order, cells without volume, or a nucleus that
            is no corner.
    """

    periodic = (False, False, False)
    is_periodic = False
    cell = None
    device = torch.device("cpu")

    def __init__(
        self,
        mesh: MeshTet1 | MeshHex1 | meshio.Mesh,
        order: int = 2,
        nuclei: ArrayLike | None = None,
        cells_near_nuclei: NDArray[np.bool_] | None = None,
    ):
        self._set_cells(Cells(mesh, order, nuclei, near_nuclei=cells_near_nuclei))

    def _set_cells(self, cells: Cells, response: Tensor | None = None) -> None:
        self._cells, self._matrices = cells, Matrices(cells)
        self._coulomb = Coulomb(cells, self._matrices, response)
        self.mesh, self.order, self.nuclei = cells.mesh, cells.order, cells.nuclei
        self.vertices, self.n_coefficients = cells.vertices, cells.n_inside
        self._recipe: dict[str, Any] | None = None

    @classmethod
    def _graded(
        cls, nuclei: NDArray[np.float64], order: int, recipe: Mapping[str, Any]
    ) -> SimplexSpace:
        """On the mesh that a recipe makes, which its description will name."""
        sizes = np.array(recipe["sizes_bohr"])
        mesh = graded_tetrahedra(nuclei, sizes, recipe["growth"], recipe["margin_bohr"])
        space = cls(mesh, order, nuclei)
        space._recipe = dict(recipe)
        return space

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
        recipe = {"sizes_bohr": sizes.tolist(), "growth": growth, "margin_bohr": margin}
        return cls._graded(structure.positions, order, recipe)

    def __repr__(self) -> str:
        kind = "tetrahedra" if isinstance(self.mesh, MeshTet1) else "hexahedra"
        return (
            f"SimplexSpace({self.mesh.nelements} {kind} of order {self.order}, "
            f"{self.n_coefficients} unknowns, {self.n_points} points)"
        )

    @property
    def follows_nuclei(self) -> bool:
        return len(self.nuclei) > 0

    @property
    def points(self) -> Tensor:
        return self._cells.points

    @property
    def weights(self) -> Tensor:
        return self._cells.weights

    @property
    def n_points(self) -> int:
        return len(self.weights)

    @property
    def volume(self) -> float:
        return float(self.weights.detach().sum())

    @property
    def nodes(self) -> tuple[Tensor, Tensor]:
        return self.vertices, self._cells.corner_integrals()

    @property
    def all_nodes(self) -> Tensor:
        """Corners and, in order 2, middles, (n_nodes, 3), bohr; those on the surface last."""
        return self._cells.nodes

    def cell_nodes(self, places: ArrayLike) -> NDArray[np.int64]:
        return self._cells.cell_nodes(places)

    def evaluate(self, coefficients: Tensor) -> Tensor:
        return self._cells.evaluate(self._cells.with_surface(coefficients))

    def evaluate_gradient(self, coefficients: Tensor) -> Tensor:
        return self._cells.evaluate_gradient(self._cells.with_surface(coefficients))

    def test(self, field: Tensor) -> Tensor:
        return self._cells.test(field)[..., : self.n_coefficients]

    def project(self, field: Tensor) -> Tensor:
        return self.inverse_mass(self.test(field))

    def nodal_values(self, field: Tensor) -> Tensor:
        """A field (n_points,) at all nodes, the surface's too: its least-squares projection.

        In the order of :attr:`all_nodes`.
        """
        masses = self._matrices.masses
        return solver(masses, jacobi(masses))(self._cells.test(field))

    def integrate(self, field: Tensor) -> Tensor:
        return self._cells.integrate(field)

    @cached_property
    def mass(self) -> SymmetricMap:
        return product(self._matrices.inner_masses)

    @cached_property
    def inverse_mass(self) -> SymmetricMap:
        masses = self._matrices.inner_masses
        return solver(masses, jacobi(masses))

    def norm2(self, coefficients: Tensor) -> Tensor:
        if self._cells.moves:
            return self.integrate(self.evaluate(coefficients) ** 2)
        return torch.dot(coefficients, self.mass(coefficients))

    def gradient_norm2(self, coefficients: Tensor) -> Tensor:
        if self._cells.moves:
            return self._cells.gradient_norm2(self._cells.with_surface(coefficients))
        return torch.dot(coefficients, product(self._matrices.inner_stiffness)(coefficients))

    @property
    def laplacian_eigenvalues(self) -> Tensor:
        raise SpaceError(
            "functions of the Laplacian need its eigenmodes, which a mesh of tetrahedra or "
            "hexahedra does not have: use a TensorSpace"
        )

    def apply(self, function: Callable[[Tensor], Tensor], field: Tensor) -> Tensor:  # noqa: ARG002
        return self.laplacian_eigenvalues

    def preconditioner(self, stiffness: float, mass: float) -> SymmetricMap:
        return self._matrices.preconditioner(stiffness, mass)

    def gaussian_sum(self, centres: Tensor, exponents: Tensor, amplitudes: Tensor) -> Tensor:
        amplitudes = amplitudes[:, None] if amplitudes.ndim == 1 else amplitudes
        total = self.points.new_zeros(self.n_points)
        for centre, exponent, factors in zip(centres, exponents, amplitudes, strict=True):
            r2 = ((self.points - centre) ** 2).sum(dim=1)
            polynomial = sum(factor * r2**power for power, factor in enumerate(factors))
            total = total + polynomial * torch.exp(-exponent * r2)
        return total

    def radial_sum(
        self, centres: Tensor, function: Callable[[Tensor], Tensor], cutoff: float
    ) -> Tensor:
        total = centres.new_zeros(self.n_points)
        for centre in centres:
            r2 = ((self.points - centre) ** 2).sum(dim=1)
            inside = torch.nonzero(r2.detach() < cutoff**2)[:, 0]
            total = total.index_add(0, inside, function(torch.sqrt(r2[inside])))
        return total

    def fourier_sum(
        self,
        centres: Tensor,  # noqa: ARG002
        amplitudes: Tensor,  # noqa: ARG002
        transform: Callable[[Tensor], Tensor],  # noqa: ARG002
        largest: float,  # noqa: ARG002
    ) -> Tensor:
        raise SpaceError("only periodic cells have Fourier series: use radial_sum")

    def solve_poisson(self, charge: Tensor) -> Tensor:
        return self._coulomb.potential(charge)

    def solve_confined(self, charge: Tensor) -> Tensor:
        """Coefficients of the potential of a charge (n_points,) that is zero at the surface.

        Close to that in free space of a charge without monopole and dipole; with them see
        :meth:`solve_poisson`, which costs ten times as much the first time.
        """
        return self._coulomb.solve_confined(charge)

    def confined_energy(self, charge: Tensor) -> Tensor:
        """(1/2) integral of charge x potential of :meth:`solve_confined`, hartree."""
        return self._coulomb.confined_energy(charge)

    def coulomb_energy(self, charge: Tensor) -> Tensor:
        if self._cells.moves:
            return self._coulomb.stationary_energy(charge)
        return coulomb_energy(self, charge)

    def interpolate_at(self, coefficients: Tensor, points: Tensor, chunk: int = 65536) -> Tensor:
        nodal = self._cells.with_surface(coefficients.detach())
        parts = [self._cells.interpolate(nodal, part.detach()) for part in points.split(chunk)]
        return torch.cat(parts, dim=-1)

    def moved(self, positions: Tensor) -> SimplexSpace:
        """The space with its mesh following the nuclei; cells and coefficients stay the same.

        Raises:
            SpaceError: when a cell would lose its volume.
        """
        cells = self._cells
        share = following_weights(self.mesh.p.T, self.nuclei, cells.corners_at_surface)
        start = torch.tensor(self.mesh.p.T.copy())
        vertices = start + share @ (positions - torch.tensor(self.nuclei))
        mesh = type(self.mesh)(vertices.detach().numpy().T.copy(), self.mesh.t)
        nuclei = positions.detach().numpy()
        # the choice of rules must not change, so that the energy is smooth
        moved = Cells(mesh, self.order, nuclei, vertices, cells.near_nuclei)
        if (moved.mirrored != cells.mirrored).any():
            raise SpaceError(
                "the nuclei have moved so far that cells of the mesh are turned inside out: make "
                "a new one with SimplexSpace.for_structure"
            )
        space = object.__new__(SimplexSpace)
        space._set_cells(moved, self._coulomb.response)
        return space

    def scaled(self, factors: Tensor) -> SimplexSpace:  # noqa: ARG002
        raise SpaceError("a SimplexSpace is isolated and has no cell to be stretched")

    @cached_property
    def _longest_edges(self) -> NDArray[np.float64]:
        """Of each cell, bohr."""
        corners = self.mesh.p[:, self.mesh.t]
        edges = corners[:, :, None] - corners[:, None]
        return np.asarray(np.linalg.norm(edges, axis=0).max(axis=(0, 1)))

    @property
    def spacing(self) -> float:
        return float(self._longest_edges.max()) / self.order

    def spacing_at(self, points: Tensor) -> float:
        given = points.detach().numpy()
        nearest = [int(((self.mesh.p.T - x) ** 2).sum(axis=1).argmin()) for x in given]
        touching = np.isin(self.mesh.t, nearest).any(axis=0)
        return float(self._longest_edges[touching].max()) / self.order

    def describe(self) -> dict[str, Any]:
        common = {
            "cells": "tetrahedra" if isinstance(self.mesh, MeshTet1) else "hexahedra",
            "order": self.order,
            "nuclei_bohr": self.nuclei.tolist(),
        }
        if self._recipe is not None:
            return common | self._recipe | {"n_cells": self.mesh.nelements}
        return common | {
            "vertices_bohr": self.mesh.p.T.tolist(),
            "corners": self.mesh.t.T.tolist(),
            "cells_near_nuclei": np.flatnonzero(self._cells.near_nuclei).tolist(),
        }

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> SimplexSpace:
        """The space of :meth:`describe`.

        Raises:
            SpaceError: a mesh that is not made as it was by another version of fedens.
        """
        order = description["order"]
        if "sizes_bohr" in description:
            recipe = {key: description[key] for key in ("sizes_bohr", "growth", "margin_bohr")}
            space = cls._graded(np.array(description["nuclei_bohr"]), order, recipe)
            if space.mesh.nelements != description["n_cells"]:
                raise SpaceError(
                    f"the mesh had {description['n_cells']} cells, made again it has "
                    f"{space.mesh.nelements}: it is of another version of fedens; make the data "
                    "again"
                )
            return space
        kind = {"tetrahedra": MeshTet1, "hexahedra": MeshHex1}[description["cells"]]
        vertices = np.ascontiguousarray(np.array(description["vertices_bohr"]).T)
        corners = np.ascontiguousarray(np.array(description["corners"]).T)
        near = np.zeros(corners.shape[1], dtype=bool)
        near[description["cells_near_nuclei"]] = True
        return cls(kind(vertices, corners), order, description["nuclei_bohr"], near)

    def check_matches(self, structure: Structure) -> None:
        """Raise unless the structure is isolated and its atoms are where the mesh expects them."""
        if structure.pbc.any():
            raise SpaceError("structure is periodic, the space isolated: use a TensorSpace")
        if len(self.nuclei):
            shape = self.nuclei.shape
            same = structure.positions.shape == shape and np.allclose(
                structure.positions, self.nuclei, rtol=0, atol=AT_CORNER
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
