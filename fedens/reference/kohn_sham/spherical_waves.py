"""Waves j_l(q r) Y_lm that vanish at the wall of a sphere, a basis for one atom."""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np
import torch
from numpy.polynomial.legendre import leggauss
from numpy.typing import NDArray
from scipy.special import spherical_jn
from torch import Tensor


class SphericalWaves:
    """The lowest waves of each angular momentum in a sphere, orthonormal.

    Args:
        radius: of the sphere, bohr.
        n_orders: angular momenta l = 0, 1, ...
        n_waves: of each of them, n.

    Attributes:
        q: wave numbers, (n_orders, n), 1/bohr.
        r, weights: n_r radii, bohr, and int f r^2 dr = weights @ f.
        values: radial parts at the radii, (n_orders, n_r, n).
    """

    def __init__(self, radius: float, n_orders: int, n_waves: int):
        self.radius = radius
        # so many Gauss points integrate products of two waves, and smooth potentials, exactly
        nodes, weights = leggauss(3 * n_waves + 20)
        r = radius * (nodes + 1) / 2
        q = [_zeros(order, n_waves) / radius for order in range(n_orders)]
        values = [_normalised(order, q[order], r, radius) for order in range(n_orders)]
        self.q = torch.tensor(np.stack(q))
        self.r, self.weights = torch.tensor(r), torch.tensor(weights * r**2 * radius / 2)
        self.values = torch.tensor(np.stack(values))

    @cached_property
    def kinetic(self) -> Tensor:
        """Kinetic energy, (n_orders, n, n), hartree."""
        return torch.diag_embed(self.q**2 / 2)

    def overlaps(self, order: int, functions: Tensor) -> Tensor:
        """int f j r^2 dr of radial functions (k, n_r) with the waves of one l: (k, n)."""
        return (functions * self.weights) @ self.values[order]

    def local(self, potential: Tensor) -> Tensor:
        """Matrices (n_orders, n, n) of a potential v(r) at the radii, (n_r,)."""
        return self.values.mT @ ((self.weights * potential)[:, None] * self.values)

    def coulomb_potential(self, density: Tensor) -> Tensor:
        """Potential (n_r,), hartree, of a spherical density (n_r,) that ends at the wall."""
        spheres = self.values[0]
        inside = spheres @ (4 * math.pi / self.q[0] ** 2 * self.overlaps(0, density[None])[0])
        return inside + 4 * math.pi * self.weights @ density / self.radius


def _zeros(order: int, count: int) -> NDArray[np.float64]:
    """The first positive zeros of j_l, by Newton's method from their asymptotes."""
    asymptote = (np.arange(1, count + 1) + order / 2) * math.pi
    x = asymptote - order * (order + 1) / (2 * asymptote)
    for _ in range(6):
        x = x - spherical_jn(order, x) / spherical_jn(order, x, derivative=True)
    return x


def _normalised(
    order: int, q: NDArray[np.float64], r: NDArray[np.float64], radius: float
) -> NDArray[np.float64]:
    # int_0^R j_l(q r)^2 r^2 dr = R^3 j_(l+1)(q R)^2 / 2 where j_l(q R) = 0
    norm = math.sqrt(radius**3 / 2) * np.abs(spherical_jn(order + 1, q * radius))
    return spherical_jn(order, np.outer(r, q)) / norm
