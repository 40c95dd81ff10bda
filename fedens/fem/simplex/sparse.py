"""Symmetric sparse matrices as maps of tensors: products, conjugate gradients, multigrid cycles."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, identity
from scipy.sparse.linalg import LinearOperator, cg
from torch import Tensor

from fedens.errors import ConvergenceError

#: Conjugate gradients stop when the residual's norm is below this share of the right-hand side's.
_RESIDUAL = 1e-12
_MAX_ITERATIONS = 1000
_STRENGTH = ("classical", {"theta": 0.5})
_SMOOTHER = ("gauss_seidel", {"sweep": "symmetric"})

Vector = NDArray[np.float64]


class SymmetricMap:
    """A symmetric linear map of NumPy vectors (n,), applied to tensors (n,); differentiable."""

    def __init__(self, function: Callable[[Vector], Vector]):
        self.function = function

    def __call__(self, vector: Tensor) -> Tensor:
        result: Tensor = _SymmetricProduct.apply(vector, self.function)
        return result


class _SymmetricProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx, vector, function):  # type: ignore[no-untyped-def]
        ctx.function = function
        return torch.from_numpy(np.ascontiguousarray(function(vector.detach().numpy())))

    @staticmethod
    def backward(ctx, upstream):  # type: ignore[no-untyped-def]
        return _SymmetricProduct.apply(upstream, ctx.function), None


def product(matrix: csr_matrix) -> SymmetricMap:
    """The product with a symmetric matrix."""
    return SymmetricMap(lambda vector: matrix @ vector)


def solver(matrix: csr_matrix, preconditioner: SymmetricMap) -> SymmetricMap:
    """Solution of a positive definite system by preconditioned conjugate gradients.

    Raises:
        ConvergenceError: when called, if the residual stays above 1e-12 of the right-hand side.
    """
    operator = LinearOperator(matrix.shape, preconditioner.function, dtype=np.float64)

    def solve(load: Vector) -> Vector:
        solution, failed = cg(matrix, load, rtol=_RESIDUAL, maxiter=_MAX_ITERATIONS, M=operator)
        if failed:
            raise ConvergenceError(
                f"conjugate gradients with {len(load)} unknowns did not reach a residual of "
                f"{_RESIDUAL:.0e} in {_MAX_ITERATIONS} iterations: the mesh has flat or "
                "overlapping cells, or the right-hand side is not finite"
            )
        return np.asarray(solution)

    return SymmetricMap(solve)


def jacobi(matrix: csr_matrix) -> SymmetricMap:
    """Division by the diagonal."""
    diagonal = matrix.diagonal()
    return SymmetricMap(lambda vector: vector / diagonal)


def v_cycle(matrix: csr_matrix, from_linear: csr_matrix | None = None) -> SymmetricMap:
    """One V-cycle of multigrid: a cheap, symmetric approximation of the inverse.

    Args:
        from_linear: map (n_unknowns, n_linear) from linear elements on the same mesh to higher
            ones, which are smoothed here. Linear elements are coarsened by their matrix alone
            (Ruge and Stueben, by pyamg).
    """
    from pyamg import ruge_stuben_solver
    from pyamg.multilevel import MultilevelSolver
    from pyamg.relaxation.smoothing import change_smoothers

    up = identity(matrix.shape[0], format="csr") if from_linear is None else from_linear
    coarse = ruge_stuben_solver((up.T @ matrix @ up).tocsr(), strength=_STRENGTH)
    levels = coarse.levels
    if from_linear is not None:
        finest = MultilevelSolver.Level()
        finest.A, finest.P, finest.R = matrix, up, up.T.tocsr()
        levels = [finest, *levels]
    cycle = MultilevelSolver(levels, coarse_solver="pinv")
    change_smoothers(cycle, _SMOOTHER, _SMOOTHER)
    return SymmetricMap(cycle.aspreconditioner(cycle="V").matvec)
