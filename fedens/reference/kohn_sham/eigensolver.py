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
#: Rows with less than this share of their length beside the others carry nothing new.
_DEPENDENT = 1e-5


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
    count = len(start)
    rows = orthonormal(start)  # else what rows have in common stays in the values as an error
    subspace = _Subspace.spanned(rows, apply(rows))
    applications = count
    for expansion in range(max_expansions + 1):
        values, vectors, images = subspace.lowest(count)
        residual = images - values[:, None] * vectors
        lengths = _lengths(residual)
        open_ = lengths > tolerance
        if wanted is not None:
            open_ = open_ & wanted
        if expansion == max_expansions or not open_.any():
            break
        if len(subspace.rows) + int(open_.sum()) > _LARGEST_SUBSPACE * count:
            subspace = _Subspace.of_eigenvectors(values, vectors, images)
        new = precondition(residual[open_], vectors[open_])
        new = new / _lengths(new)[:, None]
        subspace = subspace.expanded(new, apply(new))
        applications += len(new)
    return Eigenpairs(values, orthonormal(vectors), lengths, applications)


@dataclass(frozen=True, eq=False)
class _Subspace:
    """Independent rows and what the operator makes of them.

    Attributes:
        rows, images: (k, n). overlaps, projected: their products <row|row>, <row|image>, (k, k).
    """

    rows: Tensor
    images: Tensor
    overlaps: Tensor
    projected: Tensor

    @classmethod
    def spanned(cls, rows: Tensor, images: Tensor) -> _Subspace:
        """By independent rows."""
        adjoint = rows.conj()
        return cls(rows, images, adjoint @ rows.T, adjoint @ images.T)

    @classmethod
    def of_eigenvectors(cls, values: Tensor, vectors: Tensor, images: Tensor) -> _Subspace:
        """By the Ritz vectors of another one."""
        identity = torch.eye(len(vectors), dtype=vectors.dtype, device=vectors.device)
        return cls(vectors, images, identity, torch.diag(values).to(vectors.dtype))

    def expanded(self, rows: Tensor, images: Tensor) -> _Subspace:
        """With more rows."""
        adjoint = rows.conj()
        return _Subspace(
            torch.cat([self.rows, rows]),
            torch.cat([self.images, images]),
            _bordered(self.overlaps, adjoint @ self.rows.T, adjoint @ rows.T),
            _bordered(self.projected, adjoint @ self.images.T, adjoint @ images.T),
        )

    def lowest(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Ritz values (count,), vectors and their images (count, n)."""
        if not torch.isfinite(torch.view_as_real(self.projected + 0j)).all():
            raise ConvergenceError(
                "the operator gave numbers that are not finite: the potential has run away; start "
                "from another density or mix less"
            )
        whitened = _whitening(self.overlaps)
        reduced = whitened.mH @ self.projected @ whitened
        values, vectors = torch.linalg.eigh((reduced + reduced.mH) / 2)
        rotation = (whitened @ vectors[:, :count]).T
        return values[:count], rotation @ self.rows, rotation @ self.images


def _bordered(matrix: Tensor, mixed: Tensor, within: Tensor) -> Tensor:
    """A Hermitian matrix (k, k) with more rows, mixed (m, k) and within (m, m), and columns."""
    return torch.cat([torch.cat([matrix, mixed.mH], 1), torch.cat([mixed, within], 1)])


def _whitening(overlaps: Tensor) -> Tensor:
    """Columns that make orthonormal combinations of rows, without what depends on others."""
    factor, failed = torch.linalg.cholesky_ex(overlaps)
    diagonal = factor.diagonal().real
    if not failed and float(diagonal.min()) > _DEPENDENT * float(diagonal.max()):
        identity = torch.eye(len(overlaps), dtype=overlaps.dtype, device=overlaps.device)
        return torch.linalg.solve_triangular(factor, identity, upper=False).mH
    lengths, directions = torch.linalg.eigh(overlaps)
    kept = lengths > _DEPENDENT**2 * lengths[-1]
    return directions[:, kept] / lengths[kept].sqrt()


def _lengths(rows: Tensor) -> Tensor:
    """Euclidean length of each row, (b,)."""
    parts = torch.view_as_real(rows).flatten(1) if rows.is_complex() else rows
    return torch.linalg.vector_norm(parts, dim=1)


def orthonormal(rows: Tensor) -> Tensor:
    """Orthonormal rows that span the same space; (b, n)."""
    rows = rows / _lengths(rows)[:, None]
    factor, failed = torch.linalg.cholesky_ex(rows.conj() @ rows.T)
    # the error grows as rounding over the square of what rows have of their own
    if failed or float(factor.diagonal().real.min()) < 0.1:
        return torch.linalg.qr(rows.T)[0].T.contiguous()
    return torch.linalg.solve_triangular(factor.conj(), rows, upper=False)
