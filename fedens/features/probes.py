"""Gaussians of the elements as the probes of :class:`fedens.features.gmp.GMP` see them.

Moments are c R_nm(v) as there, times the root of (2n-1)!! n! 4 pi/(2n+1), so that their squares
summed over m are F_n^2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

SCALINGS = ("radial", "both")


@dataclass(frozen=True, eq=False)
class ProbedGaussians:
    """Some Gaussians, bare and through the probes.

    Seen through probe w, Gaussian i at d adds strengths[n, w, i] exp(-exponents[w, i] d^2)
    R_nm(d) to the moments of order n. Bare, it is amplitudes[i] exp(-betas[i] d^2).
    """

    amplitudes: Tensor
    betas: Tensor
    exponents: Tensor
    strengths: Tensor

    @property
    def all_exponents(self) -> Tensor:
        """Those through the probes, then the bare ones, (n,)."""
        return torch.cat([self.exponents.flatten(), self.betas])


@dataclass(frozen=True)
class Probes:
    """Probes of all widths and orders, and the Gaussians of the elements.

    Args:
        gaussians: {element: [(B, beta), ...]}, bohr^-3 and bohr^-2.
        widths: sigma = (2 alpha)^(-1/2), bohr.
        max_order: largest order n.
        scaling: "radial" or "both"; see :class:`fedens.features.gmp.GMP`.
    """

    gaussians: Mapping[str, Sequence[tuple[float, float]]]
    widths: tuple[float, ...]
    max_order: int
    scaling: str

    def probed(self, elements: Sequence[str], like: Tensor) -> ProbedGaussians:
        """All Gaussians of some elements, in their order, on the device of a tensor."""
        table = [(b, beta) for s in elements for b, beta in self.gaussians[s]]
        pairs = torch.tensor(table, dtype=torch.float64, device=like.device).reshape(-1, 2)
        amplitudes, betas = pairs.T
        alphas = 0.5 / torch.tensor(self.widths, dtype=torch.float64, device=like.device) ** 2
        joint = alphas[:, None] + betas
        overlap = amplitudes * (alphas[:, None] / joint) ** 1.5  # A B (pi/(alpha+beta))^(3/2)
        strengths = [
            self._scale(alphas, n)[:, None] * overlap * (betas / joint) ** n
            for n in range(self.max_order + 1)
        ]
        exponents = alphas[:, None] * betas / joint
        return ProbedGaussians(amplitudes, betas, exponents, torch.stack(strengths))

    def derivative_factors(self, like: Tensor) -> Tensor:
        """Factors (max_order + 1, n_widths) of R_nm(grad) exp(sigma^2 lap/2) n in the moments."""
        alphas = 0.5 / torch.tensor(self.widths, dtype=torch.float64, device=like.device) ** 2
        orders = range(self.max_order + 1)
        return torch.stack([self._scale(alphas, n) * (0.5 / alphas) ** n for n in orders])

    def _scale(self, alphas: Tensor, n: int) -> Tensor:
        """Root of the factor of the invariant over the norm of the probes, (n_widths,)."""
        norm = _norm(alphas, n) if self.scaling == "both" else torch.ones_like(alphas)
        return math.sqrt(_invariant_factor(n)) / norm


def _double_factorial(n: int) -> int:
    return math.prod(range(n, 0, -2))


def _invariant_factor(n: int) -> float:
    """(2n-1)!! n! 4 pi/(2n+1): from squared harmonics to the published invariant."""
    return _double_factorial(2 * n - 1) * math.factorial(n) * 4 * math.pi / (2 * n + 1)


def _norm(alphas: Tensor, n: int) -> Tensor:
    """Norm of exp(-alpha r^2) S_n, all components together."""
    factor = _invariant_factor(n) * (2 * n + 1) / (4 * math.pi) * _double_factorial(2 * n + 1)
    return torch.sqrt((math.pi / (2 * alphas)) ** 1.5 * alphas**-n * factor / 4**n)
