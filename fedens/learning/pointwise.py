"""Pointwise models: descriptors at a point in, fields at that point out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from fedens.learning.least_squares import least_squares, with_constant

#: Damping of the least squares, relative to the number of points. With less of it, a model of one
#: structure runs away outside its range.
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
        rows = ((with_constant(features.double()), targets) for features, targets in batches)
        solution = least_squares(rows, _RIDGE, per_row=True)
        self.linear.weight.copy_(solution[:-1].T)
        self.linear.bias.copy_(solution[-1])
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
