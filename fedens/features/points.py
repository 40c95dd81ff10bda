"""Reference points of a structure: where descriptors look and energies are summed.

A quantity of the whole structure is a sum of w e over reference points: w = 1 for atoms, a smooth
function of the length for bonds, quadrature weights (bohr^3) for grids and finite-element points.
Points and weights that follow the atoms carry their derivatives.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedens.errors import DescriptorError
from fedens.features.surroundings import Points, atom_tensors, point_tensor
from fedens.fem.space import FunctionSpace
from fedens.fem.tensor import TensorSpace
from fedens.structure import Structure

KINDS = ("atoms", "bonds", "grid", "quadrature", "nodes")

#: Bonds count fully up to this share of the cutoff; beyond, their weight falls to zero.
_FULL_WEIGHT = 0.6

#: One kind of points, or points (n, 3) of one's own, bohr.
Kind: TypeAlias = str | Tensor | NDArray[np.float64]


def reference_points(
    structure: Structure,
    kind: Kind | Sequence[str] = "atoms",
    *,
    cutoff: float | None = None,
    spacing: float | None = None,
    space: FunctionSpace | None = None,
    positions: Tensor | None = None,
    cell: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Points of one kind and their weights w in a sum over points, sum of w e.

    Args:
        structure: the atoms.
        kind: "atoms" for the nuclei, with weights 1; "bonds" for the midpoints of all pairs of
            atoms, images included, closer than the cutoff, with the weight :func:`bond_weight`;
            "grid" for a uniform grid in a periodic cell of any shape, with weights
            volume / n_points (bohr^3); "quadrature" for the points and weights of a space
            (bohr^3); "nodes" for the vertices of its elements, with the integrals of the linear
            hat functions there (bohr^3); an array of points (n, 3), bohr, with weights 1; a list
            of names for the union, one after the other.
        cutoff: for "bonds", the length at which a bond's weight has fallen to zero, bohr.
        spacing: for "grid", the largest distance of neighbouring points along a cell vector,
            bohr.
        space: for "quadrature" and "nodes", the space.
        positions: (n_atoms, 3), bohr; replaces the structure's own, to differentiate atoms and
            bonds, which move with it. Pairs of atoms are those of the structure.
        cell: (3, 3), bohr; replaces the structure's own, to differentiate.

    Returns:
        points (n_points, 3), bohr, and weights (n_points,), both float64.

    Raises:
        DescriptorError: for an unknown kind, or an argument that is missing or out of range.
        SpaceError: for a space that does not fit the structure.

    Source: Chemical Environment Modeling Theory, arXiv:2310.18552.
    """
    if not isinstance(kind, str | Tensor | np.ndarray):
        if not kind:
            raise DescriptorError("a union needs at least one kind of points")
        how = {"cutoff": cutoff, "spacing": spacing, "space": space}
        parts = [
            reference_points(structure, one, **how, positions=positions, cell=cell)  # type: ignore[arg-type]
            for one in kind
        ]
        return torch.cat([p for p, _ in parts]), torch.cat([w for _, w in parts])
    if not isinstance(kind, str):
        points = point_tensor(kind)
        return points, points.new_ones(len(points))
    atoms, vectors, _ = atom_tensors(structure, positions, cell)
    if kind == "atoms":
        return atoms, atoms.new_ones(len(atoms))
    if kind == "bonds":
        return _bonds(structure, cutoff, atoms, vectors)
    if kind == "grid":
        return _grid(structure, spacing, vectors)
    if kind not in KINDS:
        raise DescriptorError(f"kind is {kind!r}: expected one of {', '.join(KINDS)}")
    if space is None:
        raise DescriptorError(f"kind {kind!r} needs space=, whose points are meant")
    space.check_matches(structure)
    return (space.points, space.weights) if kind == "quadrature" else space.nodes


@dataclass(frozen=True)
class PointSet:
    """Reference points of one kind for any structure, as a model stores it.

    Attributes:
        kind: "atoms", "bonds", "grid", "quadrature" or "nodes"; see :func:`reference_points`.
        cutoff: of bonds, bohr. spacing: of a grid, or of the TensorSpace made for each structure
            whose points or nodes are meant, bohr. order: of that space.
        element: chemical symbol of the atoms meant; those of other elements have the weight 0.

    Raises:
        DescriptorError: an unknown kind, a length or order that it needs and lacks, or an element
            of points that are no atoms.
    """

    kind: str
    cutoff: float | None = None
    spacing: float | None = None
    order: int | None = None
    element: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise DescriptorError(f"kind is {self.kind!r}: expected one of {', '.join(KINDS)}")
        if self.kind == "bonds":
            _checked_length(self.kind, "cutoff", self.cutoff)
        elif self.kind != "atoms":
            _checked_length(self.kind, "spacing", self.spacing)
        if self.on_space and self.order is None:
            raise DescriptorError(f"kind {self.kind!r} needs the order of its space")
        if self.element is not None and self.kind != "atoms":
            raise DescriptorError(
                f"element is {self.element!r}, but {self.kind} have none: leave it out"
            )

    @property
    def per_volume(self) -> bool:
        """Whether sums over the points are integrals, so that fields can be learned there."""
        return self.kind not in ("atoms", "bonds")

    @property
    def on_space(self) -> bool:
        """Whether they belong to a mesh that is made for each structure."""
        return self.kind in ("quadrature", "nodes")

    def points_and_weights(
        self, structure: Structure, positions: Tensor | None = None, cell: Tensor | None = None
    ) -> tuple[Points, Tensor]:
        """Where a descriptor looks, and the weights (n_points,) there.

        Points (n_points, 3), or for "quadrature" the space, where descriptors are faster.
        """
        space = None
        if self.on_space:
            assert self.spacing is not None
            assert self.order is not None
            space = TensorSpace.for_structure(structure, self.spacing, self.order)
            if cell is not None:
                space = space.scaled(cell.diagonal() / torch.tensor(space.lengths).to(cell))
            if self.kind == "quadrature":
                return space, space.weights
        points, weights = reference_points(
            structure,
            self.kind,
            cutoff=self.cutoff,
            spacing=self.spacing,
            space=space,
            positions=positions,
            cell=cell,
        )
        if self.element is not None:
            meant = [symbol == self.element for symbol in structure.symbols]
            weights = torch.tensor(meant).to(weights)
        return points, weights

    def describe(self) -> dict[str, Any]:
        """What is stored with a model."""
        return asdict(self)

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> PointSet:
        """The set that :meth:`describe` described."""
        return cls(**description)


def bond_weight(length: Tensor, cutoff: float) -> Tensor:
    """Weight of a bond: 1 up to 0.6 of the cutoff, falling smoothly to 0 at the cutoff.

    Twice continuously differentiable in the length (bohr), so that energies, forces and force
    constants stay continuous when a bond appears.
    """
    share = (length / cutoff - _FULL_WEIGHT) / (1 - _FULL_WEIGHT)
    t = share.clamp(0, 1)
    return 1 - t**3 * (10 - 15 * t + 6 * t**2)


def _bonds(
    structure: Structure, cutoff: float | None, atoms: Tensor, cell: Tensor | None
) -> tuple[Tensor, Tensor]:
    cutoff = _checked_length("bonds", "cutoff", cutoff)
    first, second, shifts, _ = structure.neighbours(cutoff)
    # each pair comes both ways round: keep one of them
    way = np.column_stack([second - first, shifts])
    leading = way[np.arange(len(way)), (way != 0).argmax(axis=1)] if len(way) else np.zeros(0)
    kept = leading > 0
    starts, ends = atoms[torch.as_tensor(first[kept])], atoms[torch.as_tensor(second[kept])]
    if cell is not None:
        ends = ends + torch.as_tensor(shifts[kept], dtype=ends.dtype) @ cell
    return (starts + ends) / 2, bond_weight((ends - starts).norm(dim=1), cutoff)


def _grid(
    structure: Structure, spacing: float | None, cell: Tensor | None
) -> tuple[Tensor, Tensor]:
    spacing = _checked_length("grid", "spacing", spacing)
    if cell is None:
        raise DescriptorError(
            'kind "grid" needs a periodic structure; for isolated atoms use "quadrature" with a '
            "space made for the structure"
        )
    lengths = np.linalg.norm(structure.cell, axis=1)  # type: ignore[arg-type]
    # a spacing that divides the cell but for rounding is taken as it is
    counts = [max(1, math.ceil(length / spacing - 1e-9)) for length in lengths]
    axes = [torch.arange(n, dtype=cell.dtype) / n for n in counts]
    points = torch.cartesian_prod(*axes) @ cell
    volume = torch.linalg.det(cell).abs()
    return points, (volume / len(points)).expand(len(points))


def _checked_length(kind: str, name: str, length: float | None) -> float:
    if length is None or not (math.isfinite(length) and length > 0):
        raise DescriptorError(f"{name} is {length}: kind {kind!r} needs a positive one, in bohr")
    return length
