"""Rows of the least-squares problem: how far a functional is from a label, linear in parameters.

At the label's density the derivative of A_s less the learned one is a residual r. It is measured
as a minimiser sees it: (1/2) r H^-1 r, with H the second derivative of the uniform gas, is the
energy by which the density would still fall, so that all rows are in the same unit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedens.data.density import Density
from fedens.energy.learned_kinetic import LearnedKinetic
from fedens.energy.terms import DensityTerm
from fedens.energy.xc import exchange_correlation
from fedens.models.functional.labels import KineticLabel
from fedens.units import HARTREE_IN_EV

#: Per electron; the unit of all rows.
UNIT = 1e-3 / HARTREE_IN_EV


@dataclass(frozen=True, eq=False)
class LabelRows:
    """Rows of one label.

    Attributes:
        matrix, targets: (n_modes, n_parameters) and (n_modes,), of the derivative: their squares
            are meV per electron.
        energy_row, energy_target: of the energy, (n_parameters,) and a number, meV per electron.
    """

    matrix: Tensor
    targets: Tensor
    energy_row: Tensor
    energy_target: float


def label_rows(
    label: KineticLabel, base: Sequence[DensityTerm], learned: LearnedKinetic
) -> LabelRows:
    """How a label constrains the parameters of the learned term beside the base's terms."""
    space = label.density.space
    c = label.density.root_coefficients.detach().requires_grad_(True)
    density = Density.from_root(space, c)
    base_energy = torch.stack([term.energy(density) for term in base]).sum()
    (base_gradient,) = torch.autograd.grad(base_energy, c)
    energies, gradients = learned.basis_energies(label.density)
    wanted = 2 * space.test(label.density.root * label.potential)
    metric, kept = _metric(label, base)
    unit = UNIT * label.electrons
    return LabelRows(
        matrix=(metric * gradients).T[kept],
        targets=(metric * (wanted - base_gradient))[kept],
        energy_row=energies / unit,
        energy_target=(label.energy - float(base_energy.detach())) / unit,
    )


def _metric(label: KineticLabel, base: Sequence[DensityTerm]) -> tuple[Tensor, Tensor]:
    """Factors (n_coefficients,) that make residuals dimensionless, and which modes count."""
    space = label.density.space
    q2 = space.laplacian_eigenvalues
    mean = torch.tensor(label.mean_density, dtype=q2.dtype, device=q2.device)
    seen = torch.cat([q2[1:].min()[None], q2[1:]])
    terms = [*base, exchange_correlation("lda_x")]
    response = sum(term.uniform_response(seen, mean) for term in terms) + 4 * math.pi / seen
    hessian = (4 * mean * torch.as_tensor(response)).clamp(min=0.1)
    return 1 / torch.sqrt(2 * hessian * UNIT * label.electrons), q2 <= label.largest_q2
