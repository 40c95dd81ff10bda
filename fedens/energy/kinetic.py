"""Thomas-Fermi and von Weizsaecker kinetic energies."""

from __future__ import annotations

import math

from torch import Tensor

from fedens.data.density import Density
from fedens.energy.terms import DensityTerm, LocalTerm

#: Thomas-Fermi constant C_F = (3/10) (3 pi^2)^(2/3).
THOMAS_FERMI = 0.3 * (3 * math.pi**2) ** (2 / 3)


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
