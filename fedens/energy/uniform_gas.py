"""Linear response of the uniform electron gas to the ions, as functions of the Laplacian."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fedens.energy.nonlocal_kinetic import lindhard
from fedens.energy.terms import DensityTerm
from fedens.fem.space import FunctionSpace


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
