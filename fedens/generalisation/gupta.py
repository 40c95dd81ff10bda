"""The second-moment (Gupta) potential of fcc metals.

    E_i = sum_j A exp(-p (r/r0 - 1)) f(r) - sqrt( sum_j xi^2 exp(-2 q (r/r0 - 1)) f(r) )

with a cutoff f that falls smoothly from 1 to 0. Parameters: F. Cleri and V. Rosato, Phys. Rev. B
48, 22 (1993).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fedens.generalisation.embedded import Bonds, EmbeddedPotential, Embedding, Radial
from fedens.units import BOHR_IN_ANGSTROM, HARTREE_IN_EV


@dataclass(frozen=True)
class Gupta(EmbeddedPotential):
    """A second-moment potential; hartree and bohr. Defaults: aluminium.

    Args:
        repulsion, attraction: A and xi, hartree. repulsion_decay, attraction_decay: p and q.
        r0: nearest-neighbour distance the decays refer to, bohr.
        cutoff_start, cutoff: where f begins to fall and where it is zero, bohr.
    """

    repulsion: float = 0.1221 / HARTREE_IN_EV
    attraction: float = 1.316 / HARTREE_IN_EV
    repulsion_decay: float = 8.612
    attraction_decay: float = 2.516
    r0: float = 2.864 / BOHR_IN_ANGSTROM
    cutoff_start: float = 5.0 / BOHR_IN_ANGSTROM
    cutoff: float = 6.2 / BOHR_IN_ANGSTROM

    def radial(self, bonds: Bonds) -> Radial:
        """The repulsion, and the squared hopping integral."""
        del bonds

        def functions(r: Tensor) -> Tensor:
            x, f = r / self.r0 - 1, smooth_cutoff(r, self.cutoff_start, self.cutoff)
            repulsion = self.repulsion * torch.exp(-self.repulsion_decay * x) * f
            hopping = self.attraction**2 * torch.exp(-2 * self.attraction_decay * x) * f
            return torch.stack([repulsion, hopping], dim=-1)

        return functions

    def embedding(self, bonds: Bonds) -> Embedding:
        """Repulsion minus the root of the second moment."""
        del bonds
        return second_moment_energy


def second_moment_energy(densities: Tensor) -> Tensor:
    """Site energies (n_sites,) of repulsion and second moment, (n_sites, 2 or more)."""
    return densities[..., 0] - torch.sqrt(densities[..., 1].clamp_min(1e-300))


def smooth_cutoff(r: Tensor, start: float, end: float) -> Tensor:
    """1 below ``start``, 0 beyond ``end``, with three continuous derivatives."""
    t = ((r - start) / (end - start)).clamp(0.0, 1.0)
    return 1 - t**4 * (35 - t * (84 - t * (70 - 20 * t)))
