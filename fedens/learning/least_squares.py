"""Linear least squares with damping, for more rows than fit into memory."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def least_squares(
    rows: Iterable[tuple[Tensor, Tensor]], ridge: float, *, per_row: bool = False
) -> Tensor:
    """Solution (n_columns,) or (n_columns, n_outputs) of damped least squares, float64.

    The normal equations are summed over the batches, so no more than one is in memory.

    Args:
        rows: matrices (n, n_columns) and targets (n,) or (n, n_outputs), read once.
        ridge: damping of what the rows hardly determine, relative to the mean diagonal of the
            normal matrix; with ``per_row`` relative to the number of rows, which is the same for
            columns of unit mean square.
    """
    normal, right, count = torch.zeros(()), torch.zeros(()), 0
    for matrix, targets in rows:
        matrix, targets = matrix.double(), targets.double()
        normal, right = normal + matrix.T @ matrix, right + matrix.T @ targets
        count += len(matrix)
    size = count if per_row else normal.diagonal().mean()
    damping = ridge * size * torch.eye(len(normal), dtype=normal.dtype, device=normal.device)
    solution: Tensor = torch.linalg.solve(normal + damping, right)
    return solution


def with_constant(features: Tensor) -> Tensor:
    """Features (n, n_features) and a last column of ones."""
    return torch.cat([features, features.new_ones(len(features), 1)], dim=1)
