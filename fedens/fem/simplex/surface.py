"""Free-space potentials on a mesh with a surface: the charge's multipoles give the values there.

With G0 the inverse of the Laplacian for zero values at the surface, the potential of a charge rho
is G0 rho + sum_m q_m chi_m: q_m are its moments up to the quadrupole, chi_m the harmonic functions
that continue a unit moment's potential from the surface inwards. To make that a symmetric map of
charges, as the derivative of an energy must be,

G = G0 + R chi^T + chi R^T - R A R^T,    q_m = int R_m rho,    A_mn = int C_m chi_n

with C_m charges in the middle that have moment m only. What is added to the potential vanishes
where the multipoles above the quadrupole do, and changes the energy in second order only.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fedens.fem.multipole import moment_functions

#: Width of the charges C_m, share of the shortest edge of the box around the mesh.
_WIDTH = 1 / 8


class SurfaceMultipoles:
    """Multipoles about the middle of a mesh, by the nodes (n_surface, 3) on its surface, bohr.

    Attributes:
        values: potentials of the nine unit moments at these nodes, (9, n_surface), hartree.
    """

    def __init__(self, surface: Tensor):
        low, high = surface.min(dim=0).values, surface.max(dim=0).values
        self._centre, self._width = (low + high) / 2, _WIDTH * float((high - low).min())
        distance = (surface - self._centre).norm(dim=1)
        powers = torch.tensor([1] + 3 * [3] + 5 * [5])[:, None]
        factors = torch.tensor(4 * [1.0] + 5 * [1.5], dtype=torch.float64)[:, None]
        self.values = factors * self.shapes(surface) / distance**powers

    def shapes(self, points: Tensor) -> Tensor:
        """Solid harmonics R_m at points (n, 3), whose integrals with a charge are its moments."""
        return moment_functions(points - self._centre)

    def response(self, points: Tensor, weights: Tensor, harmonics: Tensor) -> Tensor:
        """A (9, 9), from the values (9, n_points) of chi at quadrature points."""
        shapes = self.shapes(points)
        gaussian = torch.exp(-((points - self._centre) ** 2).sum(dim=1) / (2 * self._width**2))
        carriers = shapes * gaussian * weights
        response: Tensor = torch.linalg.solve(carriers @ shapes.T, carriers @ harmonics.T)
        return (response + response.T) / 2
