"""Pointwise models: descriptors at a point in, fields at that point out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

#: Ridge added to the normal equations, relative to the number of points. With less of it, a model
#: of one structure runs away outside what it has seen.
_RIDGE = 1e-4


class PointwiseNetwork(nn.Module):
    """A linear map plus a multilayer perceptron with smooth (SiLU) units.

    Args:
        n_features, n_outputs: columns in and out.
        hidden: units of each hidden layer; empty for a linear model.
    """

    def __init__(self, n_features: int, hidden: Sequence[int], n_outputs: int):
        super().__init__()
        self.hidden = tuple(hidden)
        self.linear = nn.Linear(n_features, n_outputs)
        layers: list[nn.Module] = []
        width = n_features
        for units in hidden:
            layers += [nn.Linear(width, units), nn.SiLU()]
            width = units
        self.perceptron = nn.Sequential(*layers, nn.Linear(width, n_outputs)) if hidden else None

    def forward(self, features: Tensor) -> Tensor:
        """Outputs (..., n_outputs) of scaled features (..., n_features)."""
        result: Tensor = self.linear(features)
        return result if self.perceptron is None else result.add(self.perceptron(features))

    @torch.no_grad()
    def start_from_ridge(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Fit the linear part by ridge regression; the perceptron starts near zero.

        Args:
            batches: (features (n, n_features), targets (n, n_outputs)), read once.
        """
        weights, bias = ridge_regression(batches)
        self.linear.weight.copy_(weights.T)
        self.linear.bias.copy_(bias)
        if self.perceptron is not None:
            last = self.perceptron[-1]
            assert isinstance(last, nn.Linear)
            last.weight.mul_(0.1)
            last.bias.zero_()


class FieldNetwork(nn.Module):
    """Two pointwise networks on the same features: the root density, and the energy densities.

    They share nothing, so that neither is fitted at the other's cost. Args as in
    :class:`PointwiseNetwork`; ``n_energy_densities`` are the outputs of the second.
    """

    def __init__(self, n_features: int, hidden: Sequence[int], n_energy_densities: int):
        super().__init__()
        self.root_density = PointwiseNetwork(n_features, hidden, 1)
        self.energy_densities = PointwiseNetwork(n_features, hidden, n_energy_densities)


def ridge_regression(
    batches: Iterable[tuple[Tensor, Tensor]], ridge: float = _RIDGE
) -> tuple[Tensor, Tensor]:
    """Least-squares weights (n_features, n_outputs) and bias (n_outputs,), float64.

    For features of unit spread; ``ridge`` damps weights that the data hardly determine.

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
    damping = ridge * count * torch.eye(len(normal), dtype=normal.dtype, device=normal.device)
    solution = torch.linalg.solve(normal + damping, right)
    return solution[:-1], solution[-1]
