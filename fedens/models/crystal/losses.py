"""Losses of whole elements, where the gradient of the error and its integral are known."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


class RootDensityLoss:
    """Squared error and squared gradient of the error: :mod:`fedens.models.crystal.training`."""

    def __init__(self, order: int, gradient_weight: float, device: torch.device | str = "cpu"):
        self.gradient_weight = gradient_weight
        self.size = order + 1
        matrix = torch.tensor(gauss_differentiation(order), dtype=torch.float32)
        self.differentiation = matrix.to(device)

    def __call__(self, error: Tensor, weights: Tensor, lengths: Tensor) -> Tensor:
        """Scalar loss of errors (n_elements, n_quadrature, 1)."""
        values = error[..., 0]
        gradient = self._squared_gradient(values, lengths)
        return (weights * (values**2 + self.gradient_weight * gradient)).mean()

    def _squared_gradient(self, values: Tensor, lengths: Tensor) -> Tensor:
        """|gradient|^2 (n_elements, n_quadrature) of the elements' interpolating polynomials."""
        grid = values.reshape(-1, self.size, self.size, self.size)
        parts = [
            torch.einsum("ai,bijk->bajk", self.differentiation, grid),
            torch.einsum("aj,bijk->biak", self.differentiation, grid),
            torch.einsum("ak,bijk->bija", self.differentiation, grid),
        ]
        squares = [(p.flatten(1) / lengths[:, i : i + 1]) ** 2 for i, p in enumerate(parts)]
        return squares[0] + squares[1] + squares[2]


class EnergyDensityLoss:
    """Squared errors at points, and of the summed energy densities' mean over each element."""

    def __init__(self, target_scales: Tensor, integral_weight: float):
        self.integral_weight = integral_weight
        self.scales = (target_scales / target_scales.mean()).float()

    def __call__(self, error: Tensor, weights: Tensor, lengths: Tensor) -> Tensor:  # noqa: ARG002
        """Scalar loss of errors (n_elements, n_quadrature, 3)."""
        integrals = (weights * (error @ self.scales)).mean(dim=1)
        points = (weights[..., None] * error**2).mean()
        return points + self.integral_weight * (integrals**2).mean()


def gauss_differentiation(order: int) -> np.ndarray:
    """Derivatives at the Gauss points of [0, 1] of the polynomial through values there.

    (order + 1, order + 1); Berrut and Trefethen, SIAM Rev. 46, 501 (2004), section 9.3.
    """
    points = (np.polynomial.legendre.leggauss(order + 1)[0] + 1) / 2
    distances = points[:, None] - points + np.eye(len(points))
    barycentric = 1 / distances.prod(axis=1)
    matrix = barycentric / barycentric[:, None] / distances
    np.fill_diagonal(matrix, 0.0)
    np.fill_diagonal(matrix, -matrix.sum(axis=1))
    return matrix
