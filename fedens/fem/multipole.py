"""Free-space potential in a box with zero walls: subtract Gaussians that carry the multipoles.

The charge's monopole, dipole and quadrupole about the box centre are carried by Gaussian
multipoles whose potentials are known in closed form; the rest is solved with zero Dirichlet
values. Written so that the potential is a symmetric linear function of the charge.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from fedens.fem.boys import boys_functions
from fedens.fem.space import FunctionSpace

#: Five orthonormal symmetric traceless matrices: the quadrupole components.
QUADRUPOLES = torch.tensor(
    [
        [[0, 1, 0], [1, 0, 0], [0, 0, 0]],
        [[0, 0, 0], [0, 0, 1], [0, 1, 0]],
        [[0, 0, 1], [0, 0, 0], [1, 0, 0]],
        [[1, 0, 0], [0, -1, 0], [0, 0, 0]],
        [[-(3**-0.5), 0, 0], [0, -(3**-0.5), 0], [0, 0, 2 * 3**-0.5]],
    ],
    dtype=torch.float64,
) / math.sqrt(2)


def moment_functions(r: Tensor) -> Tensor:
    """What moments are integrals of at r (n, 3): 1, x, y, z and the quadrupoles; (9, n)."""
    second = torch.einsum("kij,ni,nj->kn", QUADRUPOLES.to(r.device), r, r)
    return torch.cat([torch.ones_like(r[:, :1]).T, r.T, second])


class MultipoleBoundary:
    """Multipole correction for a charge in an isolated box.

    Args:
        points: (n_points, 3), bohr.
        weights: (n_points,), bohr^3.
        width: Gaussian width of the carrying multipoles, bohr; default 1/12 of the smallest
            box edge (six widths from the centre to the wall).
    """

    def __init__(self, points: Tensor, weights: Tensor, width: float | None = None):
        low, high = points.min(dim=0).values, points.max(dim=0).values
        width = width or float((high - low).min()) / 12.0
        r = points - (low + high) / 2
        moments = moment_functions(r)
        r2 = (r**2).sum(dim=1)
        a2 = 1.0 / (2 * width**2)
        gaussian = (a2 / math.pi) ** 1.5 * torch.exp(-a2 * r2)
        f0, f1, f2 = boys_functions(a2 * r2, 2)
        prefactor = 2 * math.sqrt(a2 / math.pi)
        per_moment = torch.tensor(
            [1.0] + 3 * [1 / width**2] + 5 * [0.5 / width**4],
            dtype=points.dtype,
            device=points.device,
        )
        self._shapes, self._moments = moments, moments * weights
        self._charges = per_moment[:, None] * moments * gaussian
        radial = [f0[None], 2 * a2 * f1.expand(3, -1), 2 * a2**2 * f2.expand(5, -1)]
        self._potentials = prefactor * moments * torch.cat(radial)
        s = width * math.sqrt(math.pi)
        interactions = [1 / s] + 3 * [1 / (6 * s * width**2)] + 5 * [1 / (40 * s * width**4)]
        self._interactions = torch.tensor(interactions, dtype=points.dtype, device=points.device)
        self._weights = weights

    def potential(self, charge: Tensor, solve_dirichlet: Callable[[Tensor], Tensor]) -> Tensor:
        """Potential (n_points,) of a charge density (n_points,)."""
        q = self._moments @ charge
        rest = charge - q @ self._charges
        confined = solve_dirichlet(rest)
        near = confined + q @ self._potentials
        # The transpose of "charge -> moments" makes the whole map symmetric.
        answer: Tensor = self._interactions * q + self._potentials @ (self._weights * rest)
        answer = answer - self._charges @ (self._weights * near)
        return torch.add(near, answer @ self._shapes)


def coulomb_energy(space: FunctionSpace, charge: Tensor) -> Tensor:
    """Half the integral of a charge density (n_points,) x its potential on a space, hartree."""
    energy: Tensor = _CoulombEnergy.apply(charge, space)
    return energy


class _CoulombEnergy(torch.autograd.Function):
    """Half the integral of charge x potential, whose derivative is the potential it has solved."""

    @staticmethod
    def forward(ctx, charge, space):  # type: ignore[no-untyped-def]
        potential = space.solve_poisson(charge)
        ctx.space = space
        ctx.save_for_backward(charge, potential)
        return 0.5 * space.integrate(charge * potential)

    @staticmethod
    def backward(ctx, upstream):  # type: ignore[no-untyped-def]
        charge, potential = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative is wanted: keep its history
            potential = ctx.space.solve_poisson(charge)
        return upstream * ctx.space.weights * potential, None
