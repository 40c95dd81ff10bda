"""A learned part of the non-interacting kinetic energy: a functional of the density alone.

It stands beside the Thomas-Fermi, von Weizsaecker and Wang-Teter terms and knows no atoms, so
that it holds for any crystal whose densities look like those of the training.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor

from fedens.data.density import Density
from fedens.energy.density_variables import DensityVariables
from fedens.energy.kinetic import THOMAS_FERMI
from fedens.energy.terms import DensityTerm
from fedens.errors import FunctionalError
from fedens.fem.space import FunctionSpace

#: Backward passes at once: what fits into the cache.
_CHUNK = 8
#: Points at once where there are many: bounds the memory for the monomials.
_BLOCK = 20000


class Polynomial:
    """f(y) = sum of theta_k times monomials of y, zero in the uniform gas.

    Args:
        variables: what y is. degree: the highest of the monomials. parameters: theta, (n,), in
            the order of :attr:`monomials`; zeros if not given.

    Raises:
        FunctionalError: another number of parameters, or one that is not finite.
    """

    def __init__(
        self,
        variables: DensityVariables,
        degree: int = 3,
        parameters: Sequence[float] | None = None,
    ):
        self.variables, self.degree = variables, degree
        self.monomials = [
            m
            for d in range(1, degree + 1)
            for m in itertools.combinations_with_replacement(range(variables.n_variables), d)
            if not set(m) <= set(variables.uniform)
        ]
        given = [0.0] * len(self.monomials) if parameters is None else parameters
        self.parameters = tuple(float(p) for p in given)
        if len(self.parameters) != len(self.monomials) or not all(
            math.isfinite(p) for p in self.parameters
        ):
            raise FunctionalError(
                f"{len(self.parameters)} parameters: a polynomial of degree {degree} in "
                f"{variables.n_variables} variables has {len(self.monomials)}, all finite"
            )
        self._tensors = self._coefficients()

    def __call__(self, y: Tensor) -> Tensor:
        """f, (n_points,), of y (n_points, n_variables); by Horner's rule."""
        n = y.shape[1]
        *lower, highest = (t.to(y.device) for t in self._tensors)
        result = y @ highest.reshape(-1, n).T
        for tensor in reversed(lower):
            result = result + tensor.reshape(-1)
            result = (result.reshape(len(y), -1, n) * y[:, None, :]).sum(dim=-1)
        return result.squeeze(-1)

    def _coefficients(self) -> list[Tensor]:
        """Coefficients of each degree d from 1, of shape (n_variables,)^d, upper triangular."""
        n = self.variables.n_variables
        tensors = [torch.zeros((n,) * d, dtype=torch.float64) for d in range(1, self.degree + 1)]
        for monomial, value in zip(self.monomials, self.parameters, strict=True):
            tensors[len(monomial) - 1][monomial] = value
        return tensors

    def basis(self, y: Tensor) -> Tensor:
        """The monomials themselves, (n_points, n_parameters)."""
        return torch.stack([y[:, list(m)].prod(dim=1) for m in self.monomials], dim=1)

    def basis_gradient(self, y: Tensor, which: int) -> Tensor:
        """Derivative of one monomial in y, (n_points, n_variables)."""
        gradient = torch.zeros_like(y)
        monomial = self.monomials[which]
        for place, variable in enumerate(monomial):
            others = monomial[:place] + monomial[place + 1 :]
            gradient[:, variable] += y[:, list(others)].prod(dim=1)
        return gradient

    def with_parameters(self, parameters: Sequence[float]) -> Polynomial:
        """The same monomials with other coefficients."""
        return Polynomial(self.variables, self.degree, parameters)

    def describe(self) -> dict[str, Any]:
        """All that defines it, as JSON can hold it."""
        return {
            "variables": self.variables.describe(),
            "degree": self.degree,
            "parameters": list(self.parameters),
        }

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> Self:
        """The polynomial of :meth:`describe`."""
        variables = DensityVariables.from_description(description["variables"])
        return cls(variables, description["degree"], description["parameters"])


class LearnedKinetic(DensityTerm):
    """C_F int n^(5/3) f(y), with f learned and y the :class:`DensityVariables` of n.

    Zero in the uniform gas. In units of n0 it scales as a non-interacting kinetic energy does
    under n(r) -> g^3 n(g r) when n0 goes along: :meth:`scaled_to`.

    Args:
        correction: f.
        mean_density: n0, electron/bohr^3: that of the bulk, whatever the cell.

    Raises:
        FunctionalError: a density that is not positive.
    """

    kind = name = "learned_kinetic"
    group = "kinetic"

    def __init__(self, correction: Polynomial, mean_density: float):
        if not 0 < mean_density < math.inf:
            raise FunctionalError(
                f"mean_density is {mean_density}: expected that of the bulk, in electron/bohr^3"
            )
        self.correction, self.mean_density = correction, float(mean_density)
        self._kernels: tuple[FunctionSpace, Tensor] | None = None

    def scaled_to(self, mean_density: float) -> LearnedKinetic:
        """The same functional for a material of another mean density, by coordinate scaling."""
        return LearnedKinetic(self.correction, mean_density)

    def variables(self, density: Density) -> Tensor:
        """y at the points, (n_points, n_variables).

        Raises:
            FunctionalError: not a periodic cell.
        """
        made = self.correction.variables
        gradient2 = (density.root_gradient**2).sum(dim=1)
        smoothed = made.smoothed(density, self._kernels_on(density.space))
        return made(density.values, gradient2, smoothed, self.mean_density)

    def _kernels_on(self, space: FunctionSpace) -> Tensor:
        if self._kernels is None or self._kernels[0] is not space:
            if not space.is_periodic:
                raise FunctionalError(
                    "the learned kinetic energy was made for crystals and is not defined in "
                    "vacuum: use kinetic='tfvw' for isolated systems"
                )
            kernels = self.correction.variables.kernels(
                space.laplacian_eigenvalues, self.mean_density
            )
            self._kernels = (space, kernels)
        return self._kernels[1]

    def energy_density(self, density: Density) -> Tensor:
        return _thomas_fermi(density) * self.correction(self.variables(density))

    @torch.no_grad()
    def monomial_energies(self, density: Density) -> Tensor:
        """Energies of the single monomials with a coefficient of one, (n_parameters,), hartree."""
        weights = density.space.weights * _thomas_fermi(density)
        blocks = zip(self.variables(density).split(_BLOCK), weights.split(_BLOCK), strict=True)
        return torch.stack([w @ self.correction.basis(y) for y, w in blocks]).sum(dim=0)

    def basis_energies(self, density: Density) -> tuple[Tensor, Tensor]:
        """Energies of the single monomials, and their derivatives in the root density.

        Returns:
            (n_parameters,), hartree; (n_parameters, n_coefficients).
        """
        c = density.root_coefficients.detach().requires_grad_(True)
        density = Density.from_root(density.space, c)
        y = self.variables(density)
        weighted = density.space.weights * _thomas_fermi(density)
        fixed_y, fixed_weights = y.detach(), weighted.detach()
        basis = self.correction.basis(fixed_y)
        derivatives: list[Tensor] = []
        for chosen in torch.arange(basis.shape[1]).split(_CHUNK):
            slopes = torch.stack([self.correction.basis_gradient(fixed_y, int(k)) for k in chosen])
            upstream = (fixed_weights[:, None] * slopes, basis[:, chosen].T)
            derivatives += torch.autograd.grad(
                (y, weighted), c, upstream, retain_graph=True, is_grads_batched=True
            )
        return fixed_weights @ basis, torch.cat(derivatives)

    def uniform_response(self, q2: Tensor, density: Tensor) -> Tensor:
        second, slope = self._uniform_derivatives(density)
        made = self.correction.variables
        waves = torch.cat([torch.ones_like(q2)[None], made.kernels(q2, self.mean_density)])
        return torch.einsum("ab,aq,bq->q", second, waves, waves) + slope * q2 / (2 * density)

    @torch.enable_grad()
    def _uniform_derivatives(self, density: Tensor) -> tuple[Tensor, Tensor]:
        """Of the uniform gas' energy density: second ones in n and the smoothed densities,
        (1 + n_kernels, 1 + n_kernels); the first in |grad u|^2, a scalar."""
        made = self.correction.variables
        changes = density.new_zeros(made.n_variables - 1, requires_grad=True)
        gradient2 = density.new_zeros(1, requires_grad=True)
        n = (density + changes).unsqueeze(1)  # at the point, and smoothed
        y = made(n[0], gradient2, n[1:], self.mean_density)
        energy = (THOMAS_FERMI * n[0] ** (5 / 3) * self.correction(y)).sum()
        first, slope = torch.autograd.grad(energy, (changes, gradient2), create_graph=True)
        rows = [torch.autograd.grad(f, changes, create_graph=True)[0] for f in first]
        second, slope = torch.stack(rows), slope.squeeze()
        return (second, slope) if density.requires_grad else (second.detach(), slope.detach())

    def describe(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "mean_density": self.mean_density,
            "correction": self.correction.describe(),
        }

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> LearnedKinetic:
        correction = Polynomial.from_description(description["correction"])
        return cls(correction, description["mean_density"])


def _thomas_fermi(density: Density) -> Tensor:
    """C_F n^(5/3) at the points, (n_points,), with derivatives where n vanishes."""
    return THOMAS_FERMI * density.root.abs() ** (10 / 3)
