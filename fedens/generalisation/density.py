"""Errors of a learned density that matter for defects: at rest, under strain, around a moved atom.

Far from a defect, at distance r, a model's density errs by about

    |dn| <= e_n + e_n1 r^-3 + O(r^-6),

e_n of the perfect crystal's density and e_n1 of its response to displacements, of which strain is
the slow limit. Responses are central differences of densities on one mesh (for strains: one that
is stretched with the cell), so that errors of both densities that do not change cancel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from fedens.errors import SpaceError
from fedens.fem.tensor import TensorSpace
from fedens.generalisation.potential import Array
from fedens.structure import Structure

#: Density at ``space.points``, electrons/bohr^3, of a structure: a model's or the solver's.
DensityOf = Callable[[Structure, TensorSpace], Tensor]

#: Displacement of an atom, bohr, and strain of an axis, of the central differences.
DISPLACEMENT, STRAIN = 0.1, 0.01


@dataclass(frozen=True)
class DensityErrors:
    """Relative errors, each an l2 norm over that of the reference.

    Attributes:
        at_rest: e_n, of the perfect crystal's density. displacement: e_n1, of its change when one
            atom moves. strain: of its change when an axis is stretched.
    """

    at_rest: float
    displacement: float
    strain: float


def density_errors(
    reference: DensityOf, model: DensityOf, crystal: Structure, space: TensorSpace
) -> DensityErrors:
    """Errors of a model's density in a perfect crystal.

    Args:
        crystal: an orthorhombic supercell; its first atom is moved along x, its first axis is
            stretched. space: for it.
    """
    moved = []
    for sign in (1, -1):
        positions = crystal.positions.copy()
        positions[0, 0] += sign * DISPLACEMENT
        moved.append((crystal.replace(positions=positions), space))
    stretched = []
    for sign in (1, -1):
        change = np.array([1 + sign * STRAIN, 1.0, 1.0])
        structure = crystal.replace(
            positions=crystal.positions * change, cell=np.asarray(crystal.cell) * change
        )
        stretched.append((structure, space.scaled(space.points.new_tensor(change))))

    def response(density: DensityOf, ends: list[tuple[Structure, TensorSpace]]) -> Tensor:
        ahead, behind = (density(*end) for end in ends)
        return ahead - behind

    pairs = [(reference(crystal, space), model(crystal, space))]
    pairs += [(response(reference, e), response(model, e)) for e in (moved, stretched)]
    return DensityErrors(*(_relative(space, exact, found) for exact, found in pairs))


def _relative(space: TensorSpace, exact: Tensor, found: Tensor) -> float:
    error, size = (float(space.integrate(f**2)) for f in (found - exact, exact))
    return (error / size) ** 0.5


def shell_errors(
    space: TensorSpace, exact: Tensor, found: Tensor, centre: ArrayLike, limits: ArrayLike
) -> tuple[Array, Array]:
    """Error of a density in shells around a point of a periodic cell.

    Args:
        exact, found: (n_points,), electrons/bohr^3. centre: (3,), bohr. limits: of the shells,
            ascending, bohr.

    Returns:
        the mean distance of each shell, bohr, and the integral of |found - exact| over that of
        ``exact``, percent.

    Raises:
        SpaceError: a shell without a point, or a space that is not periodic.
    """
    if not space.is_periodic:
        raise SpaceError("shells around a defect need a periodic space")
    lengths = space.points.new_tensor(space.lengths)
    vectors = space.points - space.points.new_tensor(np.asarray(centre, dtype=np.float64))
    distances = (vectors - lengths * torch.round(vectors / lengths)).norm(dim=1)
    edges = torch.tensor(np.asarray(limits, dtype=np.float64), device=distances.device)
    shell = torch.bucketize(distances, edges, right=True) - 1
    middles, errors = [], []
    for i in range(len(edges) - 1):
        weights = space.weights * (shell == i)
        volume = float(weights.sum())
        if volume == 0:
            raise SpaceError(
                f"no point of the mesh lies between {float(edges[i]):g} and "
                f"{float(edges[i + 1]):g} bohr: take wider shells"
            )
        middles.append(float((weights * distances).sum()) / volume)
        error = float((weights * (found - exact).abs()).sum())
        errors.append(100 * error / float((weights * exact).sum()))
    return np.array(middles), np.array(errors)
