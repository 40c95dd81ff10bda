"""Non-local kinetic energies with the linear response of the uniform electron gas.

Wang and Teter, Phys. Rev. B 45, 13196 (1992); the density-independent kernel of Wang, Govind
and Carter, Phys. Rev. B 58, 13465 (1998). On a finite-element space the kernel is a function of
the Laplacian, q = sqrt(lambda), so no plane waves are needed. Both kernels stand beside the
whole Thomas-Fermi and the whole von Weizsaecker term.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fedens.data.density import Density
from fedens.energy.kinetic import THOMAS_FERMI
from fedens.energy.terms import DensityTerm
from fedens.errors import FunctionalError
from fedens.fem.space import FunctionSpace
from fedens.structure import Structure

_SERIES_TERMS = 9
#: Both exponents of Wang and Teter.
WANG_TETER = 5 / 6


def lindhard(eta: Tensor) -> Tensor:
    """Lindhard function F_L(eta) = 1/2 + (1 - eta^2)/(4 eta) ln|(1 + eta)/(1 - eta)|.

    ``eta`` = q / (2 k_F) >= 0. Series are used where the closed form cancels.
    """
    small, large = eta < 0.2, eta > 5.0
    middle = torch.where(small | large, torch.full_like(eta, 0.5), eta)
    away = torch.where((middle - 1).abs() < 1e-12, torch.full_like(eta, 1 + 1e-12), middle)
    closed = 0.5 + (1 - away**2) / (4 * away) * torch.log(((1 + away) / (1 - away)).abs())
    closed = closed.index_put((small,), 1 - _series(eta[small] ** 2))
    return closed.index_put((large,), _series(eta[large] ** -2))


def _series(x: Tensor) -> Tensor:
    """sum over k >= 1 of x^k / (4 k^2 - 1), for small x."""
    total = torch.zeros_like(x)
    for k in range(_SERIES_TERMS, 0, -1):
        total = (total + 1 / (4 * k * k - 1)) * x
    return total


def screened_response(space: FunctionSpace, mean_density: Tensor, xc_term: DensityTerm) -> Tensor:
    """Density change per external potential at the space's eigenvalues, (n_coefficients,).

    -1 / (pi^2/(k_F F_L(eta)) + K_xc + 4 pi/lambda), eta = sqrt(lambda)/(2 k_F); zero for the
    constant mode. F_L is the Lindhard function, K_xc the derivative of v_xc at the mean density.
    """
    q2 = space.laplacian_eigenvalues[1:]
    fermi = (3 * math.pi**2 * mean_density) ** (1 / 3)
    kinetic = math.pi**2 / (fermi * lindhard(torch.sqrt(q2) / (2 * fermi)))
    xc = xc_term.uniform_response(q2, mean_density)
    return torch.cat([q2.new_zeros(1), -1 / (kinetic + xc + 4 * math.pi / q2)])


def _power(density: Density, exponent: float) -> Tensor:
    """n^exponent = |u|^(2 exponent): its derivative in u exists where n vanishes."""
    if exponent == WANG_TETER:
        power: Tensor = _FiveSixths.apply(density.root, density.cube_root)
        return power
    return density.root.abs() ** (2 * exponent)


class _FiveSixths(torch.autograd.Function):
    """n^(5/6) = |u|^(5/3) from u and the cube root of n, which local terms need anyway."""

    @staticmethod
    def forward(ctx, root, cube_root):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(root, cube_root)
        return cube_root * root.abs()

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        root, cube_root = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative is wanted: keep its history
            cube_root = root.abs() ** (2 / 3)
        return (5 / 3) * gradient * cube_root * torch.sign(root), None


class NonlocalKinetic(DensityTerm):
    """C_F 5/(9 a b) n0^(5/3-a-b) n^a (w * n^b), w(q) = 1/F_L - 3 eta^2 - 1.

    Args:
        mean_density: n0, electron/bohr^3; N/V of the cell by default. A tensor where the cell is
            being strained.
        alpha, beta: exponents a and b; 5/6 and 5/6 for Wang-Teter.
    """

    kind = name = "nonlocal_kinetic"
    group = "kinetic"
    parameters = ("mean_density", "alpha", "beta")

    def __init__(
        self,
        mean_density: Tensor | float | None = None,
        alpha: float = WANG_TETER,
        beta: float = WANG_TETER,
    ):
        self.mean_density, self.alpha, self.beta = mean_density, alpha, beta
        self._kernel: tuple[FunctionSpace, Tensor] | None = None

    def bind(
        self,
        structure: Structure,  # noqa: ARG002
        space: FunctionSpace,
        electrons: float,
        positions: Tensor | None = None,  # noqa: ARG002
    ) -> NonlocalKinetic:
        """The term with the mean density of the cell, if it has none.

        Raises:
            FunctionalError: in vacuum.
        """
        if not space.is_periodic:
            raise FunctionalError(
                "the non-local kinetic energy needs an average density and is not defined in "
                "vacuum; use kinetic='tfvw' for isolated systems"
            )
        mean = self.mean_density or electrons / space.weights.sum()
        return NonlocalKinetic(mean, self.alpha, self.beta)

    def kernel(self, space: FunctionSpace) -> Tensor:
        """Kernel with its prefactor at the space's Laplacian eigenvalues, (n_coefficients,)."""
        if self._kernel is None or self._kernel[0] is not space:
            n0 = torch.as_tensor(self.mean_density, dtype=torch.float64, device=space.device)
            fermi = (3 * math.pi**2 * n0) ** (1 / 3)
            # the constant mode: zero kernel, and no square root of zero to differentiate
            q = torch.sqrt(space.laplacian_eigenvalues[1:]) / (2 * fermi)
            values = 1 / lindhard(q) - 3 * q**2 - 1
            total = self.alpha + self.beta
            prefactor = THOMAS_FERMI * 5 / (9 * self.alpha * self.beta) * n0 ** (5 / 3 - total)
            self._kernel = (space, prefactor * torch.cat([values.new_zeros(1), values]))
        return self._kernel[1]

    def energy_density(self, density: Density) -> Tensor:
        space = density.space
        convolved = space.evaluate(self.kernel(space) * space.test(_power(density, self.beta)))
        return _power(density, self.alpha) * convolved

    def energy(self, density: Density) -> Tensor:
        space = density.space
        first = space.test(_power(density, self.alpha))
        second = first if self.alpha == self.beta else space.test(_power(density, self.beta))
        return torch.dot(self.kernel(space), first * second)

    def uniform_response(self, q2: Tensor, density: Tensor) -> Tensor:
        fermi = (3 * math.pi**2 * density) ** (1 / 3)
        eta = torch.sqrt(q2) / (2 * fermi)
        return math.pi**2 / fermi * (1 / lindhard(eta) - 3 * eta**2 - 1)
