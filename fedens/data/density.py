"""The electron density as a field on a function space."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from fedens.errors import FedensError
from fedens.fem.space import FunctionSpace


class Density:
    """Positive electron number density n = u^2 on a space; integrates to the electron count.

    Make one with :meth:`from_root` (coefficients of the root density u; what solvers and models
    work with) or :meth:`from_values` (n at the space's points). Everything is a float64 tensor
    and differentiable.
    """

    def __init__(
        self, space: FunctionSpace, *, root: Tensor | None = None, values: Tensor | None = None
    ):
        if (root is None) == (values is None):
            raise FedensError("give a Density either root coefficients or values, not both")
        self.space = space
        self._root_coefficients = root
        self._values = values

    @classmethod
    def from_root(cls, space: FunctionSpace, coefficients: Tensor) -> Density:
        """From coefficients (n_coefficients,) of the root density u."""
        if coefficients.shape[-1] != space.n_coefficients:
            raise FedensError(
                f"{coefficients.shape[-1]} coefficients for a space with {space.n_coefficients}"
            )
        return cls(space, root=coefficients)

    @classmethod
    def from_values(cls, space: FunctionSpace, values: Tensor) -> Density:
        """From n (n_points,) at the space's points, electron/bohr^3; must not be negative."""
        values = torch.as_tensor(values, dtype=torch.float64, device=space.device)
        if values.shape != (space.n_points,):
            raise FedensError(
                f"density values have shape {tuple(values.shape)}, the space has "
                f"{space.n_points} points"
            )
        if not torch.isfinite(values).all() or (values < 0).any():
            raise FedensError(
                f"density has values that are negative or not finite (lowest "
                f"{float(values.min()):.3e} electron/bohr^3); a density must be positive"
            )
        return cls(space, values=values)

    @property
    def root_coefficients(self) -> Tensor:
        """Coefficients (n_coefficients,) of the root density u = sqrt(n)."""
        if self._root_coefficients is None:
            assert self._values is not None
            self._root_coefficients = self.space.project(torch.sqrt(self._values))
        return self._root_coefficients

    @cached_property
    def root(self) -> Tensor:
        """Root density u at the points, (n_points,)."""
        if self._values is not None:
            return torch.sqrt(self._values)
        return self.space.evaluate(self.root_coefficients)

    @cached_property
    def root_gradient(self) -> Tensor:
        """Gradient of u at the points, (n_points, 3)."""
        return self.space.evaluate_gradient(self.root_coefficients)

    @cached_property
    def values(self) -> Tensor:
        """n at the points, (n_points,), electron/bohr^3."""
        return self._values if self._values is not None else self.root**2

    @cached_property
    def cube_root(self) -> Tensor:
        """n^(1/3) at the points, (n_points,), without history: an ingredient of closed forms."""
        return self.root.detach().abs() ** (2 / 3)

    @property
    def gradient(self) -> Tensor:
        """Gradient of n at the points, (n_points, 3).

        2 u grad u of a root density; that of the projection on the space of values, so that it
        is linear in them.
        """
        if self._values is not None:
            return self.space.evaluate_gradient(self.space.project(self._values))
        return 2 * self.root[:, None] * self.root_gradient

    @property
    def number_of_electrons(self) -> Tensor:
        """Integral of n."""
        return self.space.integrate(self.values)

    @property
    def dipole(self) -> Tensor:
        """First moment of the electron density, integral of r n, (3,), electron bohr.

        Origin of coordinates as in the space; in periodic cells it depends on the cell's choice.
        """
        return (self.space.weights * self.values) @ self.space.points

    def normalised(self, number_of_electrons: float) -> Density:
        """The density projected on the space and scaled to exactly that many electrons."""
        c = self.root_coefficients
        return Density.from_root(self.space, c * (number_of_electrons / self.space.norm2(c)) ** 0.5)
