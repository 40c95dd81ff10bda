"""What an energy term is: an energy, an energy density, and a uniform-gas response."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from fedens.density import Density


class DensityTerm(ABC):
    """A functional of the density alone.

    Attributes:
        name: key of the term among the parts of an energy.
        group: stored energy density it belongs to, ``kinetic`` or ``xc``.
    """

    name: str
    group: str

    @abstractmethod
    def energy_density(self, density: Density) -> Tensor:
        """Energy per volume at the space's points, (n_points,), hartree/bohr^3."""

    def energy(self, density: Density) -> Tensor:
        """Energy, hartree; differentiable in whatever the density depends on."""
        return density.space.integrate(self.energy_density(density))

    @abstractmethod
    def uniform_response(self, q2: Tensor, density: float) -> Tensor:
        """Second derivative of the energy in the density of the uniform gas at wave numbers q.

        Args:
            q2: squared wave numbers, bohr^-2. density: electron/bohr^3.
        """


class LocalTerm(DensityTerm):
    """A functional whose energy density depends on n at the same point only."""

    @abstractmethod
    def energy_density_and_potential(self, n: Tensor, cube_root: Tensor) -> tuple[Tensor, Tensor]:
        """e(n) and de/dn in closed form, from n (n_points,) > 0 and its cube root."""

    def energy_density(self, density: Density) -> Tensor:
        return local_energy_density([self], density.values, density.cube_root)

    def uniform_response(self, q2: Tensor, density: float) -> Tensor:
        step = 1e-4 * density
        n = torch.tensor([density - step, density + step], dtype=torch.float64)
        _, potential = self.energy_density_and_potential(n, n ** (1 / 3))
        return torch.full_like(q2, float(potential[1] - potential[0]) / (2 * step))


def local_energy_density(
    terms: list[LocalTerm], n: Tensor, cube_root: Tensor | None = None
) -> Tensor:
    """Summed energy density (n_points,) of local terms; one cube root serves all of them."""
    return _LocalEnergyDensity.apply(n, cube_root, terms)


#: Below this density (electron/bohr^3) local functionals are evaluated at it: nothing is lost.
_FLOOR = 1e-30


class _LocalEnergyDensity(torch.autograd.Function):
    """Energy density with its closed-form derivative, so that no cube root is taken twice."""

    @staticmethod
    def forward(ctx, n, cube_root, terms):  # type: ignore[no-untyped-def]
        n = n.clamp(min=_FLOOR)
        cube_root = n ** (1 / 3) if cube_root is None else cube_root.clamp(min=_FLOOR ** (1 / 3))
        pairs = [term.energy_density_and_potential(n, cube_root) for term in terms]
        ctx.save_for_backward(sum(v for _, v in pairs))
        return sum(e for e, _ in pairs)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        (potential,) = ctx.saved_tensors
        return gradient * potential, None, None
