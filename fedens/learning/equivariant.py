"""Networks on atoms whose outputs turn with the molecule: tensors of order l from moments.

The moments A_lm of an atom's surroundings (:meth:`fedens.features.gmp.GMP.moments`) are mixed into
functions on the unit sphere, f(u) = sum of w_l A_lm Y_lm(u). Products of one, two and three,
expanded in Y_lm again, are again tensors, with the angles between up to three neighbours in them
(Drautz, Phys. Rev. B 99, 014104 (2019)). What does not turn, l = 0, goes through a multilayer
perceptron, which says how much of each tensor enters the outputs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from fedens.fem.harmonics import solid_harmonics

#: Sizes of products of two and three functions against those of one, at the start.
_PRODUCT_SCALES = (1.0, 0.7, 0.5)
#: Directions of the moments with less than such a share of the largest variance are left out.
_NO_VARIANCE = 1e-2
#: Whitened moments come no farther than this, in standard deviations.
_LARGEST = 5.0


def split_orders(components: Tensor, max_order: int) -> list[Tensor]:
    """Components (n_atoms, n_components) as (n_atoms, 2l+1, n_series) for each l."""
    n_series = components.shape[1] // (max_order + 1) ** 2
    parts = components.split([(2 * l + 1) * n_series for l in range(max_order + 1)], dim=1)
    return [part.unflatten(1, (-1, n_series)) for part in parts]


class Whitening(nn.Module):
    """Uncorrelated moments of unit size; directions that hardly vary stay small.

    Args:
        sizes: (number of series, number kept) for each l.
    """

    mean: Tensor

    def __init__(self, sizes: Sequence[tuple[int, int]]):
        super().__init__()
        self.register_buffer("mean", torch.zeros(sizes[0][0], dtype=torch.float64))
        for l, size in enumerate(sizes):
            self.register_buffer(f"transform{l}", torch.zeros(size, dtype=torch.float64))

    @classmethod
    def fit(cls, moments: Sequence[Tensor], floor: float) -> Whitening:
        """From moments (n_atoms, 2l+1, n_series) for each l.

        Args:
            floor: variance, as a share of the largest, below which directions are damped: small
                ones carry noise.
        """
        transforms = []
        mean = moments[0].mean(dim=(0, 1))
        for l, values in enumerate(moments):
            rows = values.flatten(0, 1) - (mean if l == 0 else 0.0)
            variances, directions = torch.linalg.eigh(rows.T @ rows / len(rows))
            largest = variances[-1].clamp(min=torch.finfo(torch.float64).tiny)
            kept = variances > _NO_VARIANCE * floor * largest
            scale = torch.rsqrt(variances[kept] + floor * largest)
            transforms.append(directions[:, kept] * scale)
        result = cls([(t.shape[0], t.shape[1]) for t in transforms])
        result.mean.copy_(mean)
        for l, transform in enumerate(transforms):
            result.transform(l).copy_(transform)
        return result

    def transform(self, l: int) -> Tensor:
        """Matrix (n_series, n_kept) of order l."""
        return self.get_buffer(f"transform{l}")

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """(number of series, number kept) for each l."""
        orders = len(self._buffers) - 1
        return [(t.shape[0], t.shape[1]) for t in map(self.transform, range(orders))]

    def forward(self, moments: Sequence[Tensor]) -> list[Tensor]:
        """Whitened moments (n_atoms, 2l+1, n_kept) for each l, single precision."""
        return [
            ((a - self.mean if l == 0 else a) @ self.transform(l)).float()
            for l, a in enumerate(moments)
        ]


class ElementNetwork(nn.Module):
    """The network of the atoms of one element.

    Args:
        whitening: of their moments. channels: functions on the sphere in each kind of product.
        outputs: number of outputs of each l. hidden: units of the perceptron's two layers.
    """

    up: Tensor
    down: Tensor

    def __init__(self, whitening: Whitening, channels: int, outputs: Sequence[int], hidden: int):
        super().__init__()
        self.whitening, self.outputs = whitening, tuple(outputs)
        self.channels, self.hidden = channels, hidden
        self.in_order, self.out_order = len(whitening.sizes) - 1, len(outputs) - 1
        kinds = len(_PRODUCT_SCALES)
        wide = kinds * channels
        self.mixing = nn.ParameterList(
            torch.randn(kept, wide) / math.sqrt(kept * len(whitening.sizes))
            for _, kept in whitening.sizes
        )
        self.perceptron = nn.Sequential(
            nn.Linear(wide, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU()
        )
        self.gates = nn.Linear(hidden, wide * len(outputs))
        self.scalars = nn.Linear(hidden, outputs[0])
        nn.init.zeros_(self.scalars.weight)
        nn.init.zeros_(self.scalars.bias)
        self.weights = nn.ParameterList(
            0.1 * torch.randn(wide, count) / math.sqrt(wide) for count in outputs
        )
        up, down = _sphere(self.in_order, self.out_order)
        self.register_buffer("up", up, persistent=False)
        self.register_buffer("down", down, persistent=False)

    def forward(self, moments: Sequence[Tensor]) -> list[Tensor]:
        """Outputs (n_atoms, n_outputs, 2l+1) for each l from moments (n_atoms, 2l+1, n_series)."""
        white = [_limited(a) for a in self.whitening(moments)]
        mixed = torch.cat([a @ w for a, w in zip(white, self.mixing, strict=True)], dim=1)
        first, second, third = (self.up @ mixed).chunk(3, dim=2)
        scales = _PRODUCT_SCALES
        powers = (first, first * second, first * second * third)
        products = torch.cat([s * p for s, p in zip(scales, powers, strict=True)], dim=2)
        tensors = self.down @ products
        inside = self.perceptron(tensors[:, 0])
        gates = 1 + self.gates(inside).unflatten(1, (len(self.outputs), 1, -1))
        results = []
        for l, weights in enumerate(self.weights):
            gated = tensors[:, l * l : (l + 1) ** 2] * gates[:, l]
            results.append((gated @ weights).transpose(1, 2))
        results[0] = results[0] + self.scalars(inside)[:, :, None]
        return results


def _limited(moments: Tensor) -> Tensor:
    """Whitened moments (n_atoms, 2l+1, n), cut smoothly where they are far larger than in the
    training: products of three of them would run away."""
    squared = (moments / _LARGEST).pow(2).mean(dim=1, keepdim=True)
    return moments * torch.rsqrt(1 + squared)


class EquivariantNetwork(nn.Module):
    """One :class:`ElementNetwork` per element; outputs in physical units.

    Attributes:
        networks: by element. ``mean.X`` (n_outputs of l = 0,) and ``scale.X.l`` (n_outputs,), by
            element X: outputs are mean + scale * network.
    """

    def __init__(self, networks: Mapping[str, ElementNetwork]):
        super().__init__()
        self.networks = nn.ModuleDict(dict(networks))
        self.units = nn.ModuleDict({s: _Units(n.outputs) for s, n in networks.items()})

    def set_units(self, symbol: str, mean: Tensor, scales: Sequence[Tensor]) -> None:
        """Mean (n_outputs,) of the l = 0 outputs, scales (n_outputs,) of each l."""
        units = self.units[symbol]
        units.get_buffer("mean").copy_(mean)
        for l, scale in enumerate(scales):
            units.get_buffer(f"scale{l}").copy_(scale)

    def by_element(self) -> dict[str, ElementNetwork]:
        """The networks of the elements."""
        return {s: n for s, n in self.networks.items() if isinstance(n, ElementNetwork)}

    def forward(self, components: Tensor, symbols: Sequence[str]) -> list[tuple[Tensor, Tensor]]:
        """Outputs of atoms with components (n_atoms, n_components) of their moments.

        Returns:
            for each element that occurs its atoms (n,) and their outputs (n, n_numbers): by l,
            then output, then m.
        """
        results = []
        for symbol, network in self.by_element().items():
            where = [i for i, s in enumerate(symbols) if s == symbol]
            if not where:
                continue
            atoms = torch.tensor(where, device=components.device)
            outputs = network(split_orders(components[atoms], network.in_order))
            results.append((atoms, self.units[symbol](outputs)))
        return results


class _Units(nn.Module):
    """Outputs in physical units, side by side."""

    def __init__(self, outputs: Sequence[int]):
        super().__init__()
        self.register_buffer("mean", torch.zeros(outputs[0]))
        for l, count in enumerate(outputs):
            self.register_buffer(f"scale{l}", torch.ones(count))

    def forward(self, outputs: Sequence[Tensor]) -> Tensor:
        parts = [self.get_buffer(f"scale{l}")[:, None] * y for l, y in enumerate(outputs)]
        parts[0] = parts[0] + self.get_buffer("mean")[:, None]
        return torch.cat([part.flatten(1) for part in parts], dim=1)


def _sphere(in_order: int, out_order: int) -> tuple[Tensor, Tensor]:
    """From Y_lm to directions and, exactly for products of three functions, back.

    Returns:
        (n_directions, (in_order + 1)^2) and ((out_order + 1)^2, n_directions); functions have the
        mean square that their coefficients' squares sum to.
    """
    degree = 3 * in_order + out_order
    heights, weights = np.polynomial.legendre.leggauss(degree // 2 + 1)
    angles = 2 * math.pi * np.arange(degree + 1) / (degree + 1)
    radius = np.sqrt(1 - heights**2)[:, None]
    directions = np.stack(
        np.broadcast_arrays(radius * np.cos(angles), radius * np.sin(angles), heights[:, None]), -1
    )
    shares = torch.tensor(np.repeat(weights / 2, len(angles)) / len(angles))
    harmonics = solid_harmonics(max(in_order, out_order))(torch.tensor(directions.reshape(-1, 3)))
    harmonics = math.sqrt(4 * math.pi) * harmonics
    down = (harmonics[:, : (out_order + 1) ** 2] * shares[:, None]).T
    return harmonics[:, : (in_order + 1) ** 2].float(), down.float().contiguous()
