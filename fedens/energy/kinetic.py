"""Local and semilocal kinetic energies: Thomas-Fermi, von Weizsaecker, Luo-Karasiev-Trickey."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fedens.data.density import Density
from fedens.energy.terms import DensityTerm, LocalTerm

#: Thomas-Fermi constant C_F = (3/10) (3 pi^2)^(2/3).
THOMAS_FERMI: float = 0.3 * (3 * math.pi**2) ** (2 / 3)
#: Parameter a of Luo, Karasiev and Trickey.
_LKT = 1.3
#: Smallest |u|^(10/3) that is divided by: nothing is lost.
_SMALLEST = 1e-50


class ThomasFermi(LocalTerm):
    """C_F n^(5/3), the uniform gas (Thomas 1927, Fermi 1927)."""

    kind = name = "thomas_fermi"
    group = "kinetic"

    def energy_density_and_potential(self, n: Tensor, cube_root: Tensor) -> tuple[Tensor, Tensor]:
        power = THOMAS_FERMI * cube_root**2
        return power * n, (5 / 3) * power


class VonWeizsaecker(DensityTerm):
    """(weight/2) |grad u|^2, exact for one orbital at weight 1 (von Weizsaecker 1935)."""

    kind = name = "von_weizsaecker"
    group = "kinetic"
    parameters = ("weight",)

    def __init__(self, weight: float = 1.0):
        self.weight = weight

    def energy_density(self, density: Density) -> Tensor:
        return 0.5 * self.weight * (density.root_gradient**2).sum(dim=1)

    def energy(self, density: Density) -> Tensor:
        return 0.5 * self.weight * density.space.gradient_norm2(density.root_coefficients)

    def uniform_response(self, q2: Tensor, density: Tensor) -> Tensor:
        return self.weight * q2 / (4 * density)


class LuoKarasievTrickey(DensityTerm):
    """C_F n^(5/3) / cosh(a s), a = 1.3: stands beside the whole von Weizsaecker term.

    s = |grad n| / (2 (3 pi^2)^(1/3) n^(4/3)) = |grad u| / ((3 pi^2)^(1/3) |u|^(5/3)).
    Luo, Karasiev and Trickey, Phys. Rev. B 98, 041111(R) (2018).
    """

    kind = name = "luo_karasiev_trickey"
    group = "kinetic"

    def energy_density(self, density: Density) -> Tensor:
        power = (density.root.abs() ** (10 / 3)).clamp(min=_SMALLEST)
        s2 = (density.root_gradient**2).sum(dim=1) / ((3 * math.pi**2) ** (2 / 3) * power)
        return THOMAS_FERMI * power * _inverse_cosh(_LKT**2 * s2)

    def uniform_response(self, q2: Tensor, density: Tensor) -> Tensor:
        # C_F n^(5/3) (1 - a^2 s^2/2) for small waves
        fermi = (3 * math.pi**2 * density) ** (1 / 3)
        return math.pi**2 / fermi - (3 / 40) * _LKT**2 * q2 / density


def _inverse_cosh(x2: Tensor) -> Tensor:
    """1/cosh(x) of x^2 >= 0; its derivatives in x^2 exist at 0, and cosh never overflows."""
    small = x2 < 1e-3
    x = torch.sqrt(torch.where(small, 1.0, x2))
    decay = torch.exp(-x)
    y = torch.where(small, x2, 0.0)
    series = 1 - y / 2 * (1 - 5 * y / 12 * (1 - 61 * y / 150 * (1 - 1385 * y / 3416)))
    return torch.where(small, series, 2 * decay / (1 + decay**2))
