"""What every function space offers.

See :class:`fedens.fem.tensor.TensorSpace` and :class:`fedens.fem.simplex.SimplexSpace`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

if TYPE_CHECKING:
    from fedens.structure import Structure


class FunctionSpace(Protocol):
    """Finite-element space with reference points and exact integration weights.

    Fields are (n_points,) tensors at :attr:`points`; coefficients are (n_coefficients,) in a
    basis with the mass matrix :meth:`mass`. What only some spaces can do raises a SpaceError on
    the others. :func:`fedens.testing.check_function_space` tests all of it.
    """

    @property
    def points(self) -> Tensor:
        """Quadrature points, (n_points, 3), bohr."""

    @property
    def weights(self) -> Tensor:
        """Quadrature weights, (n_points,), bohr^3; they sum to the volume."""

    @property
    def nodes(self) -> tuple[Tensor, Tensor]:
        """Corners of the cells (n, 3), bohr, and the integrals of the linear hat functions there
        (n,), bohr^3, which sum to the volume."""

    @property
    def n_points(self) -> int: ...
    @property
    def n_coefficients(self) -> int: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def periodic(self) -> tuple[bool, bool, bool]:
        """Along which axes everything repeats."""

    @property
    def is_periodic(self) -> bool:
        """Whether along all three."""

    @property
    def follows_nuclei(self) -> bool:
        """Whether nuclei are corners of the mesh, which goes along with them."""

    @property
    def cell(self) -> Tensor | None:
        """Vectors (3, 3) of the box, bohr; None where nothing repeats."""

    @property
    def volume(self) -> float:
        """bohr^3."""

    @property
    def spacing(self) -> float:
        """Longest edge of a cell over order, bohr."""

    def spacing_at(self, points: Tensor) -> float:
        """The same among the cells at points (n, 3), bohr."""

    def evaluate(self, coefficients: Tensor) -> Tensor:
        """Field (..., n_points) of coefficients (..., n_coefficients)."""

    def evaluate_gradient(self, coefficients: Tensor) -> Tensor:
        """Gradient (..., n_points, 3) of coefficients (..., n_coefficients), per bohr."""

    def interpolate_at(self, coefficients: Tensor, points: Tensor) -> Tensor:
        """Fields (..., n) of coefficients (..., n_coefficients) at points (n, 3), bohr, inside."""

    def test(self, field: Tensor) -> Tensor:
        """Load vector: integrals of a field (..., n_points) with each basis function."""

    def project(self, field: Tensor) -> Tensor:
        """Coefficients (n_coefficients,) of the least-squares projection of a field."""

    def integrate(self, field: Tensor) -> Tensor:
        """Integral of a field (..., n_points)."""

    def mass(self, coefficients: Tensor, /) -> Tensor:
        """Coefficients to the load vector of their field."""

    def inverse_mass(self, load: Tensor, /) -> Tensor:
        """Load vector to the coefficients of its projection."""

    def norm2(self, coefficients: Tensor) -> Tensor:
        """Integral of the squared field of coefficients (n_coefficients,)."""

    def gradient_norm2(self, coefficients: Tensor) -> Tensor:
        """Integral of the squared gradient of the field of coefficients (n_coefficients,)."""

    @property
    def laplacian_eigenvalues(self) -> Tensor:
        """Of minus the Laplacian, by coefficient, bohr^-2; where the coefficients are modes."""

    def apply(self, function: Callable[[Tensor], Tensor], field: Tensor) -> Tensor:
        """``function(-Laplacian)`` applied to a field (..., n_points), in that case."""

    def preconditioner(self, stiffness: float, mass: float) -> Callable[[Tensor], Tensor]:
        """Approximate inverse of ``stiffness`` times minus the Laplacian plus ``mass``.

        A symmetric positive map of load vectors to coefficients (n_coefficients,).
        """

    def solve_poisson(self, charge: Tensor) -> Tensor:
        """Potential (n_points,) of a charge density (n_points,), -lap phi = 4 pi charge; hartree.

        In free space, up to quadrupoles at the walls; in periodic cells of zero mean, beside a
        neutralising background. A symmetric linear function of the charge, so that it is the
        exact derivative of :meth:`coulomb_energy`.
        """

    def coulomb_energy(self, charge: Tensor) -> Tensor:
        """(1/2) integral of charge x potential, hartree."""

    def gaussian_sum(self, centres: Tensor, exponents: Tensor, amplitudes: Tensor) -> Tensor:
        """sum_i (a_i0 + a_i1 r_i^2 + a_i2 r_i^4 + ...) exp(-exponent_i r_i^2), images included.

        Args:
            centres: (n, 3), bohr. exponents: (n,), bohr^-2.
            amplitudes: a, (n, k), factors of r^0, r^2, ..., r^(2k-2); or (n,) of r^0 alone.

        Returns:
            (n_points,), differentiable in everything.
        """

    def radial_sum(
        self, centres: Tensor, function: Callable[[Tensor], Tensor], cutoff: float
    ) -> Tensor:
        """sum_A function(|r - R_A|), images included.

        Args:
            centres: (n_atoms, 3), bohr. function: of distances (n,) in bohr, any shape.
            cutoff: distance beyond which the function is taken as zero, bohr.

        Returns:
            (n_points,), differentiable in the centres and in the space's geometry.
        """

    def fourier_sum(
        self,
        centres: Tensor,
        amplitudes: Tensor,
        transform: Callable[[Tensor], Tensor],
        largest: float,
    ) -> Tensor:
        """sum_i amplitude_i f(|r - R_i|), images included, by the Fourier series of periodic cells.

        Args:
            centres: (n, 3), bohr. amplitudes: (n,).
            transform: of wave numbers of any shape, 1/bohr: integral of f(r) exp(-i q r).
            largest: wave number where the series ends, 1/bohr.

        Returns:
            (n_points,), differentiable in centres, amplitudes and the space's geometry.

        Raises:
            SpaceError: the space is not periodic.
        """

    def moved(self, positions: Tensor) -> FunctionSpace:
        """The space for nuclei at other positions (n, 3), bohr, differentiable in them."""

    def scaled(self, factors: Tensor) -> FunctionSpace:
        """The space stretched by three factors (3,), differentiable in them; periodic cells."""

    def describe(self) -> dict[str, Any]:
        """All that defines the space, as JSON can hold it; for ``from_description``."""

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> FunctionSpace:
        """The space of :meth:`describe`."""

    def check_matches(self, structure: Structure) -> None:
        """Raise a SpaceError unless the space fits the structure."""
