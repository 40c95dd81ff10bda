"""A coarser grid for products of orbitals than the points of a space.

Products of modes up to q have waves up to 2 q, of which the highest hardly matter: plane-wave
codes leave some out to save time. On the uniform grid of a periodic axis the modes stay exactly
orthonormal, and densities are carried to the space's points by trigonometric interpolation. The
potential comes back by its adjoint, so that energies stay variational and forces exact.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fedens.errors import SpaceError
from fedens.fem.axis import Axis
from fedens.fem.tensor import TensorSpace, kronecker_product


@dataclass(frozen=True, eq=False)
class ProductGrid:
    """Uniform points along the periodic axes of a space, its own points along the others.

    Attributes:
        points, weights: along each axis, (n_i,), bohr.
        interpolation: from them to the space's points along each axis, (n_points_i, n_i).
        space_weights: quadrature weights of the space, (n_points,).
    """

    points: tuple[Tensor, Tensor, Tensor]
    weights: tuple[Tensor, Tensor, Tensor]
    interpolation: tuple[Tensor, Tensor, Tensor]
    space_weights: Tensor

    @classmethod
    def holding(cls, space: TensorSpace, density_cutoff: float, cutoff: float) -> ProductGrid:
        """The grid for waves up to q = sqrt(2 density_cutoff) in the density.

        Args:
            density_cutoff: hartree; 4 ``cutoff`` keeps all waves of products.
            cutoff: of the orbitals, hartree.

        Raises:
            SpaceError: a density cutoff below the orbitals', or infinite.
        """
        if not cutoff <= density_cutoff < math.inf:
            raise SpaceError(
                f"density_cutoff is {density_cutoff:g} hartree, the orbitals' {cutoff:g}: it must "
                f"be at least as high, {1.44 * cutoff:g} for a quick calculation, {4 * cutoff:g} "
                "to keep every wave"
            )
        parts = [_axis_grid(axis, math.sqrt(2 * density_cutoff)) for axis in space.axes]
        points, weights, interpolation = zip(*parts, strict=True)
        return cls(points, weights, interpolation, space.weights)

    @property
    def n_points(self) -> int:
        return math.prod(len(x) for x in self.points)

    def interpolate(self, field: Tensor) -> Tensor:
        """A field on the grid (..., n) at the space's points; integrals stay as they are."""
        return kronecker_product(field, *self.interpolation)

    def restrict(self, field: Tensor) -> Tensor:
        """The adjoint: (n,) such that its integral with any g is that of field with g there."""
        x, y, z = (j.T / w[:, None] for j, w in zip(self.interpolation, self.weights, strict=True))
        restricted: Tensor = kronecker_product(field * self.space_weights, x, y, z)
        return restricted

    def modes(self, i: int, axis: Axis) -> Tensor:
        """The modes of axis ``i`` on the grid, (n_i, n_modes), orthonormal by its weights."""
        if len(self.points[i]) == len(axis.points):
            return axis.values
        root = self.weights[i].sqrt()[:, None]
        left, _, right = torch.linalg.svd(root * axis.modes_at(self.points[i]), full_matrices=False)
        orthonormal: Tensor = (left @ right) / root
        return orthonormal


def _axis_grid(axis: Axis, wave: float) -> tuple[Tensor, Tensor, Tensor]:
    """Points, weights and interpolation of one axis; the axis' own where that is no coarser."""
    count = 2 * math.ceil(0.5 * (wave * axis.length / math.pi - 1)) + 1
    if not axis.periodic or count >= len(axis.points):
        return axis.points, axis.weights, torch.eye(len(axis.points)).to(axis.points)
    steps = torch.arange(count).to(axis.points)
    points = axis.edges[0] + axis.length / count * steps
    weights = torch.full_like(points, axis.length / count)
    turn = 2 * math.pi / axis.length * (axis.points[:, None] - points)
    waves = torch.arange(1, count // 2 + 1).to(points)
    kernel = (1 + 2 * torch.cos(turn[..., None] * waves).sum(dim=-1)) / count
    # what the space's quadrature misses of the highest waves' integrals, which are zero
    return points, weights, kernel + (weights - axis.weights @ kernel) / axis.length
