"""Pseudopotentials of Goedecker, Teter and Hutter, Phys. Rev. B 54, 1703 (1996)."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from fedens.energy.pseudopotential import LocalPseudopotential, erf_over_r
from fedens.errors import PseudopotentialError


class GTHLocal(LocalPseudopotential):
    """Local part of Goedecker, Teter and Hutter, Phys. Rev. B 54, 1703 (1996).

    v(r) = -(Z/r) erf(r/(sqrt2 r_loc)) + exp(-r^2/(2 r_loc^2)) [c1 + c2 (r/r_loc)^2]
    """

    kind = "gth_local"
    parameters = ("valence", "r_loc", "c1", "c2")

    def __init__(self, valence: float, r_loc: float, c1: float = 0.0, c2: float = 0.0):
        if r_loc <= 0 or valence <= 0:
            raise PseudopotentialError(f"valence {valence} and r_loc {r_loc} bohr must be positive")
        self.valence, self.r_loc, self.c1, self.c2 = map(float, (valence, r_loc, c1, c2))

    def potential(self, r: Tensor) -> Tensor:
        x2 = (r / self.r_loc) ** 2
        core = torch.exp(-0.5 * x2) * (self.c1 + self.c2 * x2)
        return core - self.valence * erf_over_r(r, 1 / (math.sqrt(2) * self.r_loc))

    def gaussians(self, width: float) -> tuple[Tensor, Tensor, Tensor]:
        # erf(a r)/r = (2/sqrt(pi)) int_0^a exp(-t^2 r^2) dt, by Gauss-Legendre nodes
        low, high = 1 / (math.sqrt(2) * width), 1 / (math.sqrt(2) * self.r_loc)
        # so many nodes leave an error below 1e-10 hartree for ratios of the widths up to 12
        ratio = max(width / self.r_loc, self.r_loc / width)
        nodes, weights = np.polynomial.legendre.leggauss(math.ceil(3 + 2.7 * ratio))
        t = low + (high - low) * (nodes + 1) / 2
        amplitudes = -self.valence * (high - low) / math.sqrt(math.pi) * weights
        exponents = np.append(t**2, 0.5 / self.r_loc**2)
        amplitudes = np.append(amplitudes, self.c1)
        quadratic = np.append(np.zeros_like(t), self.c2 / self.r_loc**2)
        return torch.tensor(exponents), torch.tensor(amplitudes), torch.tensor(quadratic)
