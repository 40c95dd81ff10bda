"""Symmetric sparse matrices as maps of tensors: products, conjugate gradients, multigrid cycles."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.sparse.linalg import LinearOperator, cg
from torch import Tensor

from fedens.errors import ConvergenceError

#: Conjugate gradients stop when the residual's norm is below this share of the right-hand side's.
_RESIDUAL = 1e-12
_MAX_ITERATIONS = 1000

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
        return solution

    return SymmetricMap(solve)


def jacobi(matrix: csr_matrix) -> SymmetricMap:
    """Division by the diagonal."""
    diagonal = matrix.diagonal()
    return SymmetricMap(lambda vector: vector / diagonal)


def v_cycle(matrix: csr_matrix) -> SymmetricMap:
    """One symmetric V-cycle of algebraic multigrid (Ruge and Stueben, by pyamg)."""
    import pyamg

    levels = pyamg.ruge_stuben_solver(matrix)
    return SymmetricMap(levels.aspreconditioner(cycle="V").matvec)
