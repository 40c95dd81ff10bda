"""Bounded variables of a density at a point: what a learned kinetic energy depends on.

The density is smoothed by Lindhard functions of several Fermi wave numbers, which have the kink
at 2 k_F that the response of electrons has. All is in units of a reference density n0, so that
what is learned for one mean density serves another.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import torch
from torch import Tensor

from fedens.data.density import Density
from fedens.energy.nonlocal_kinetic import lindhard
from fedens.errors import FunctionalError
from fedens.fem.space import FunctionSpace

#: s^2 = |grad u|^2 / (_S n^(5/3)) with n = u^2.
_S = (3 * math.pi**2) ** (2 / 3)
#: Keeps s finite where density and gradient vanish, in units of the reference density's n^(5/3).
_EMPTY = 1e-12


def fermi_wave_number(density: float) -> float:
    """k_F = (3 pi^2 n)^(1/3), 1/bohr."""
    return float((3 * math.pi**2 * density) ** (1 / 3))


@dataclass(frozen=True)
class DensityVariables:
    """Dimensionless variables y of a density, bounded where the density is.

    y_0 = s^2/(1 + s^2) of the reduced gradient s; y_1 = tanh ln(n/n0); then the differences
    (n_k - n_(k-1))/(n + n0) of the density smoothed more and more: n itself, by Gaussians, by
    Lindhard functions F(q / 2 k_F). In the uniform gas all but y_1 vanish.

    Attributes:
        gaussian_widths: of the Gaussians, in units of 1/k_F of n0; ascending.
        lindhard_densities: whose k_F the Lindhard functions have, in units of n0; descending.
    """

    gaussian_widths: tuple[float, ...] = (0.65,)
    lindhard_densities: tuple[float, ...] = (1.8, 1.3, 1.0, 0.75, 0.5)

    def __post_init__(self) -> None:
        for name in ("gaussian_widths", "lindhard_densities"):
            values = tuple(float(v) for v in getattr(self, name))
            object.__setattr__(self, name, values)
            if not all(0 < v < math.inf for v in values):
                raise FunctionalError(f"{name} is {values}: expected positive numbers")

    @property
    def n_variables(self) -> int:
        """How many there are."""
        return 2 + len(self.gaussian_widths) + len(self.lindhard_densities)

    @property
    def uniform(self) -> tuple[int, ...]:
        """Indices of those that do not vanish in the uniform gas."""
        return (1,)

    def kernels(self, q2: Tensor, n0: float) -> Tensor:
        """What smooths, (n_kernels, n), at squared wave numbers (n,), bohr^-2; 1 at zero."""
        fermi = fermi_wave_number(n0)
        gaussians = [torch.exp(-0.5 * q2 * (w / fermi) ** 2) for w in self.gaussian_widths]
        # no square root of zero to differentiate
        positive = torch.where(q2 > 0, q2, torch.ones_like(q2))
        q = torch.where(q2 > 0, torch.sqrt(positive), torch.zeros_like(q2))
        waves = [2 * fermi_wave_number(m * n0) for m in self.lindhard_densities]
        return torch.stack([*gaussians, *(lindhard(q / wave) for wave in waves)])

    def smoothed(self, density: Density, kernels: Tensor) -> Tensor:
        """The density smoothed by each of :meth:`kernels`, (n_kernels, n_points)."""
        space: FunctionSpace = density.space
        return space.evaluate(kernels * space.test(density.values))

    def __call__(self, n: Tensor, gradient2: Tensor, smoothed: Tensor, n0: float) -> Tensor:
        """y, (n_points, n_variables).

        Args:
            n: (n_points,), electron/bohr^3. gradient2: |grad u|^2 of its root, (n_points,).
            smoothed: (n_kernels, n_points). n0: reference density, electron/bohr^3.
        """
        scale = _S * n0 ** (5 / 3)
        power = scale * ((n / n0) ** (5 / 3) + _EMPTY)
        gradient = gradient2 / (gradient2 + power)
        filling = (n**2 - n0**2) / (n**2 + n0**2)
        differences = torch.diff(torch.cat([n[None], smoothed]), dim=0) / (n + n0)
        return torch.cat([gradient[None], filling[None], differences]).T

    def describe(self) -> dict[str, Any]:
        """Attributes, as JSON can hold them."""
        return {name: list(values) for name, values in asdict(self).items()}

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> Self:
        """The variables of :meth:`describe`."""
        return cls(**{name: tuple(values) for name, values in description.items()})
