"""Coulomb energies and potentials on a mesh: in free space, and confined to the mesh."""

from __future__ import annotations

import math
from functools import cached_property

import torch
from torch import Tensor

from fedens.fem.simplex.cells import Cells
from fedens.fem.simplex.matrices import Matrices
from fedens.fem.simplex.surface import SurfaceMultipoles


class Coulomb:
    """Of charges (n_points,) at the quadrature points of a mesh; see :mod:`.surface`.

    Args:
        response: A (9, 9) where it must not be worked out anew: on a mesh that has moved.
    """

    def __init__(self, cells: Cells, matrices: Matrices, response: Tensor | None = None):
        self._cells, self._matrices = cells, matrices
        self._given_response = response

    def potential(self, charge: Tensor) -> Tensor:
        """In free space, (n_points,), hartree."""
        charges = self._cells.weights * charge
        moments = self._shapes @ charges
        mirrored = self._fields @ charges - self.response @ moments
        confined = self._cells.evaluate(self._cells.with_surface(self.solve_confined(charge)))
        return confined + moments @ self._fields + mirrored @ self._shapes

    def solve_confined(self, charge: Tensor) -> Tensor:
        """Values at the nodes inside of the potential that is zero at the surface, hartree."""
        load = self._cells.test(charge)[..., : self._cells.n_inside]
        return 4 * math.pi * self._matrices.inverse_stiffness(load)

    def confined_energy(self, charge: Tensor) -> Tensor:
        """(1/2) integral of charge x the potential of :meth:`solve_confined`, hartree."""
        if self._cells.moves:
            potential = self._cells.with_surface(self.solve_confined(charge.detach()).detach())
            field = self._cells.gradient_norm2(potential)
            # stationary in the potential, see stationary_energy
            energy = self._cells.integrate(charge * self._cells.evaluate(potential))
            return energy - field / (8 * math.pi)
        potential = self._cells.with_surface(self.solve_confined(charge))
        return 0.5 * self._cells.integrate(charge * self._cells.evaluate(potential))

    def stationary_energy(self, charge: Tensor) -> Tensor:
        """(1/2) integral of charge x potential, differentiable in the corners of the mesh as well.

        int rho phi - |grad phi|^2 / (8 pi) is stationary in phi inside, so that phi may be taken
        as a constant; so is the energy of the harmonic part.
        """
        cells = self._cells
        moments = self._multipoles.shapes(cells.points) @ (cells.weights * charge)
        harmonic = moments @ self._harmonics
        potential = harmonic + self._cells.with_surface(
            self.solve_confined(charge.detach()).detach()
        )
        field = cells.gradient_norm2(potential) - cells.gradient_norm2(harmonic)
        mirrored = 0.5 * moments @ self.response @ moments
        energy = cells.integrate(charge * cells.evaluate(potential))
        return energy - field / (8 * math.pi) - mirrored

    @cached_property
    def _multipoles(self) -> SurfaceMultipoles:
        return SurfaceMultipoles(self._cells.nodes[self._cells.n_inside :])

    @cached_property
    def _harmonics(self) -> Tensor:
        """chi_m at all nodes, (9, n_nodes)."""
        n, values = self._cells.n_inside, self._multipoles.values
        loads = torch.tensor((self._matrices.stiffness[:n, n:] @ values.numpy().T).T)
        inside = [-self._matrices.inverse_stiffness(load) for load in loads]
        return torch.cat([torch.stack(inside), values], dim=1)

    @cached_property
    def _fields(self) -> Tensor:
        """chi_m at the quadrature points, (9, n_points)."""
        return self._cells.evaluate(self._harmonics)

    @cached_property
    def _shapes(self) -> Tensor:
        """R_m there."""
        return self._multipoles.shapes(self._cells.points.detach())

    @cached_property
    def response(self) -> Tensor:
        """A (9, 9) of :mod:`fedens.fem.simplex.surface`."""
        if self._given_response is not None:
            return self._given_response
        points, weights = self._cells.points.detach(), self._cells.weights.detach()
        return self._multipoles.response(points, weights, self._fields)
