"""What an energy term is: an energy, an energy density, and a uniform-gas response."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from fedens.data.density import Density


class DensityTerm(ABC):
    """A functional of the density alone.

    Attributes:
        name: key of the term among the parts of an energy.
        group: stored energy density it belongs to, ``kinetic`` or ``xc``.
        twice_differentiable: whether the derivative of its energy has a derivative itself.
    """

    name: str
    group: str
    twice_differentiable: bool = True

    @abstractmethod
    def energy_density(self, density: Density) -> Tensor:
        """Energy per volume at the space's points, (n_points,), hartree/bohr^3."""

    def energy(self, density: Density) -> Tensor:
        """Energy, hartree; differentiable in whatever the density depends on."""
        return density.space.integrate(self.energy_density(density))

    @abstractmethod
    def uniform_response(self, q2: Tensor, density: Tensor) -> Tensor:
        """Second derivative of the energy in the density of the uniform gas at wave numbers q.

        Args:
            q2: squared wave numbers, bohr^-2. density: scalar, electron/bohr^3. The result is
                differentiable in both, for the stress.
        """


class LocalTerm(DensityTerm):
    """A functional whose energy density depends on n at the same point only."""

    @abstractmethod
    def energy_density_and_potential(self, n: Tensor, cube_root: Tensor) -> tuple[Tensor, Tensor]:
        """e(n) and de/dn in closed form, from n (n_points,) > 0 and its cube root.

        de/dn is differentiable in n and the cube root.
        """

    def energy_density(self, density: Density) -> Tensor:
        return local_energy_density([self], density.values, density.cube_root)

    def uniform_response(self, q2: Tensor, density: Tensor) -> Tensor:
        step = 1e-4
        n = density * torch.tensor([1 - step, 1 + step], dtype=q2.dtype, device=q2.device)
        _, potential = self.energy_density_and_potential(n, n ** (1 / 3))
        return torch.zeros_like(q2) + (potential[1] - potential[0]) / (2 * step * density)


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
        floored = n.clamp(min=_FLOOR)
        cube_root = (
            floored ** (1 / 3) if cube_root is None else cube_root.clamp(min=_FLOOR ** (1 / 3))
        )
        pairs = [term.energy_density_and_potential(floored, cube_root) for term in terms]
        ctx.terms = terms
        ctx.save_for_backward(n, sum(v for _, v in pairs))
        return sum(e for e, _ in pairs)

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        n, potential = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative is wanted: keep its history
            n = n.clamp(min=_FLOOR)
            pairs = [term.energy_density_and_potential(n, n ** (1 / 3)) for term in ctx.terms]
            potential = sum(v for _, v in pairs)
        return gradient * potential, None, None
