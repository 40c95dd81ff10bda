"""Pointwise models: descriptors at a point in, fields at that point out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

#: Ridge added to the normal equations, relative to the number of points.
_RIDGE = 1e-8


class PointwiseNetwork(nn.Module):
    """A linear map plus a multilayer perceptron with smooth (SiLU) units.

    Args:
        n_features, n_outputs: columns in and out.
        hidden: units of each hidden layer; empty for a linear model.
    """

    def __init__(self, n_features: int, hidden: Sequence[int], n_outputs: int):
        super().__init__()
        self.linear = nn.Linear(n_features, n_outputs)
        layers: list[nn.Module] = []
        width = n_features
        for units in hidden:
            layers += [nn.Linear(width, units), nn.SiLU()]
            width = units
        self.perceptron = nn.Sequential(*layers, nn.Linear(width, n_outputs)) if hidden else None

    def forward(self, features: Tensor) -> Tensor:
        """Outputs (..., n_outputs) of scaled features (..., n_features)."""
        result = self.linear(features)
        return result if self.perceptron is None else result + self.perceptron(features)

    @torch.no_grad()
    def start_from(self, weights: Tensor, bias: Tensor) -> None:
        """Set the linear part, (n_features, n_outputs) and (n_outputs,); silence the perceptron."""
        self.linear.weight.copy_(weights.T)
        self.linear.bias.copy_(bias)
        if self.perceptron is not None:
            last = self.perceptron[-1]
            assert isinstance(last, nn.Linear)
            last.weight.mul_(0.1)
            last.bias.zero_()


class FieldNetwork(nn.Module):
    """Two pointwise networks on the same features: the root density, and the energy densities.

    They share nothing, so that neither is fitted at the other's cost.

    Args:
        n_features: columns in. hidden: units of each hidden layer of either network.
        n_energy_densities: outputs of the second network.
    """

    def __init__(self, n_features: int, hidden: Sequence[int], n_energy_densities: int):
        super().__init__()
        self.root_density = PointwiseNetwork(n_features, hidden, 1)
        self.energy_densities = PointwiseNetwork(n_features, hidden, n_energy_densities)

    def forward(self, features: Tensor) -> Tensor:
        """(..., 1 + n_energy_densities): root density, then energy densities."""
        return torch.cat([self.root_density(features), self.energy_densities(features)], dim=-1)

    def start_from_ridge(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Fit both linear parts by ridge regression; the perceptrons start near zero."""
        weights, bias = ridge_regression(batches)
        self.root_density.start_from(weights[:, :1], bias[:1])
        self.energy_densities.start_from(weights[:, 1:], bias[1:])


def ridge_regression(batches: Iterable[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Least-squares weights (n_features, n_outputs) and bias (n_outputs,), float64.

    The normal equations are summed over the batches, so no more than one is in memory.
    """
    normal: Tensor | float = 0.0
    right: Tensor | float = 0.0
    count = 0
    for features, targets in batches:
        ones = torch.ones(len(features), 1, dtype=torch.float64, device=features.device)
        rows = torch.cat([features.double(), ones], dim=1)
        normal = normal + rows.T @ rows
        right = right + rows.T @ targets.double()
        count += len(rows)
    assert isinstance(normal, Tensor)
    damping = _RIDGE * count * torch.eye(len(normal), dtype=normal.dtype, device=normal.device)
    solution = torch.linalg.solve(normal + damping, right)
    return solution[:-1], solution[-1]
