"""Lowest eigenpairs of a Hermitian operator: block Davidson with a restarted subspace.

Davidson, J. Comput. Phys. 17, 87 (1975), in blocks: each expansion adds the preconditioned
residuals of the bands that are not converged, and diagonalises the operator among all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fedens.errors import ConvergenceError

#: The subspace holds at most so many times the wanted vectors.
_LARGEST_SUBSPACE = 4
#: New directions that lose this much of their length to those at hand carry nothing.
_DEPENDENT = 1e-7


@dataclass(frozen=True, eq=False)
class Eigenpairs:
    """Ritz pairs, ascending.

    Attributes:
        values: (b,). vectors: orthonormal rows, (b, n). residuals: lengths of A v - v value, (b,).
        applications: vectors the operator was applied to.
    """

    values: Tensor
    vectors: Tensor
    residuals: Tensor
    applications: int


def davidson(
    apply: Callable[[Tensor], Tensor],
    precondition: Callable[[Tensor, Tensor], Tensor],
    start: Tensor,
    tolerance: float,
    max_expansions: int = 20,
    wanted: Tensor | None = None,
) -> Eigenpairs:
    """Lowest eigenpairs of a Hermitian operator.

    Args:
        apply: rows (b, n) to A times them.
        precondition: (residuals (b, n), vectors (b, n)) to approximate corrections (b, n).
        start: (b, n) independent rows, real or complex.
        tolerance: residuals of the wanted vectors end below it.
        max_expansions: how often the subspace is expanded at most.
        wanted: (b,), which of the vectors must converge; default all.

    Raises:
        ConvergenceError: numbers that are not finite.
    """
    basis = orthonormal(start)
    images = apply(basis)
    applications = len(basis)
    count = len(start)
    for expansion in range(max_expansions + 1):
        values, rotation = _ritz(basis, images, count)
        vectors, image = rotation @ basis, rotation @ images
        residual = image - values[:, None] * vectors
        lengths = torch.linalg.vector_norm(residual, dim=1)
        open_ = lengths > tolerance
        if wanted is not None:
            open_ = open_ & wanted
        if expansion == max_expansions or not open_.any():
            break
        if len(basis) + int(open_.sum()) > _LARGEST_SUBSPACE * count:
            basis, images = vectors, image
        new = _independent(precondition(residual[open_], vectors[open_]), basis)
        if not len(new):
            break
        basis, images = torch.cat([basis, new]), torch.cat([images, apply(new)])
        applications += len(new)
    return Eigenpairs(values, vectors, lengths, applications)


def _ritz(basis: Tensor, images: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Lowest Ritz values (count,) and their coefficients (count, rows of the basis)."""
    projected = basis.conj() @ images.T
    if not torch.isfinite(projected.real).all():
        raise ConvergenceError(
            "the operator gave numbers that are not finite: the potential has run away; start "
            "from another density or mix less"
        )
    values, vectors = torch.linalg.eigh((projected + projected.mH) / 2)
    return values[:count], vectors[:, :count].T


def orthonormal(rows: Tensor) -> Tensor:
    """Orthonormal rows that span the same space; (b, n)."""
    lengths = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    factor, failed = torch.linalg.cholesky_ex((rows / lengths).conj() @ (rows / lengths).T)
    # the error grows as rounding over the square of what rows have of their own
    if failed or float(factor.diagonal().real.min()) < 0.1:
        return torch.linalg.qr(rows.T)[0].T.contiguous()
    return torch.linalg.solve_triangular(factor.conj(), rows / lengths, upper=False)


def _independent(rows: Tensor, basis: Tensor) -> Tensor:
    """Orthonormal rows for what some rows add to an orthonormal basis."""
    rows = rows / torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    for _ in range(2):  # once leaves rounding errors over the length that is left
        rows = rows - (rows @ basis.mH) @ basis
        lengths = torch.linalg.vector_norm(rows, dim=1)
        rows = rows[lengths > _DEPENDENT] / lengths[lengths > _DEPENDENT, None]
        gram, directions = torch.linalg.eigh(rows.conj() @ rows.T)
        kept = gram > _DEPENDENT**2 * len(rows)
        rows = (directions[:, kept].T @ rows) / gram[kept, None] ** 0.5
    return rows
