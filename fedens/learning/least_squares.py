"""Linear least squares with damping, for more rows than fit into memory."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

#: Dampings to choose from, relative to the mean diagonal of the normal matrix.
RIDGES = tuple(10.0**k for k in range(-10, 1))
#: Share of the damping that is left to columns which are free.
_UNDAMPED = 1e-9
#: Damping where there is but one group of rows, none to leave out.
_RIDGE_OF_ONE = 1e-3

Rows = Iterable[tuple[Tensor, Tensor]]


def least_squares(
    rows: Rows, ridge: float, *, per_row: bool = False, free: Tensor | None = None
) -> Tensor:
    """Solution (n_columns,) or (n_columns, n_outputs) of damped least squares, float64.

    The normal equations are summed over the batches, so no more than one is in memory.

    Args:
        rows: matrices (n, n_columns) and targets (n,) or (n, n_outputs), read once.
        ridge: damping of what the rows hardly determine, relative to the mean diagonal of the
            normal matrix; with ``per_row`` relative to the number of rows, which is the same for
            columns of unit mean square.
        free: (n_columns,), whether a column is a constant, which the damping leaves alone.
    """
    normal, right, count = torch.zeros(()), torch.zeros(()), 0
    for matrix, targets in rows:
        matrix, targets = matrix.double(), targets.double()
        normal, right = normal + matrix.T @ matrix, right + matrix.T @ targets
        count += len(matrix)
    size = count if per_row else normal.diagonal().mean()
    solution: Tensor = torch.linalg.solve(normal + ridge * size * _damping(normal, free), right)
    return solution


def _damping(normal: Tensor, free: Tensor | None) -> Tensor:
    """Diagonal matrix: 1, and for free columns so little that it only decides between equals."""
    damping = torch.ones_like(normal.diagonal(dim1=-2, dim2=-1))
    if free is not None:
        damping[..., free] = _UNDAMPED
    return torch.diag_embed(damping)


def best_ridge(groups: Sequence[Rows], free: Tensor | None = None) -> float:
    """Of :data:`RIDGES` the largest that predicts groups left out of the fit as well as any.

    Groups are left out one at a time; as well means within one standard error of the least mean
    misfit, since what follows may differ more from the groups than they from each other
    (Breiman, Friedman, Olshen and Stone, Classification and Regression Trees, section 3.4.3).

    Args:
        groups: of matrices (n, n_columns) and targets (n,), read once. A single group is damped by
            a fixed amount. free: see :func:`least_squares`.
    """
    if len(groups) < 2:
        return _RIDGE_OF_ONE
    blocks = [[torch.cat(parts) for parts in zip(*group, strict=True)] for group in groups]
    normals = torch.stack([a.T @ a for a, _ in blocks])
    rights = torch.stack([a.T @ b for a, b in blocks])
    rest, rights = normals.sum(dim=0) - normals, rights.sum(dim=0) - rights
    damping = rest.diagonal(dim1=1, dim2=2).mean(dim=1)[:, None, None] * _damping(rest, free)

    def misfits(ridge: float) -> Tensor:
        solutions = torch.linalg.solve(rest + ridge * damping, rights)
        pairs = zip(blocks, solutions, strict=True)
        return torch.stack([((a @ one - b) ** 2).sum() for (a, b), one in pairs])

    found = torch.stack([misfits(ridge) for ridge in RIDGES])
    least = found[found.mean(dim=1).argmin()]
    limit = least.mean() + least.std() / math.sqrt(len(groups))
    return max(r for r, one in zip(RIDGES, found, strict=True) if one.mean() <= limit)


def with_constant(features: Tensor) -> Tensor:
    """Features (n, n_features) and a last column of ones."""
    return torch.cat([features, features.new_ones(len(features), 1)], dim=1)
