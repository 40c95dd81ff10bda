"""Non-local parts of pseudopotentials in a basis of modes.

V = sum_l sum_ij sum_m |p_i^lm> h_ij^l <p_j^lm| (Goedecker, Teter, Hutter, Phys. Rev. B 54, 1703
(1996); Hartwigsen, Goedecker, Hutter, ibid. 58, 3641 (1998)). A projector is a polynomial times a
Gaussian, so that its overlaps with products of modes are sums of products of 1-D integrals.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from torch import Tensor

from fedens.energy.electrostatics import find_pseudopotential
from fedens.energy.projectors import ProjectorChannel
from fedens.energy.pseudopotential import LocalPseudopotential
from fedens.errors import PseudopotentialError
from fedens.fem.harmonics import Powers, harmonic_coefficients, monomials
from fedens.fem.modes import ModeBasis, gaussian_overlaps
from fedens.structure import Structure


@dataclass(frozen=True, eq=False)
class Projectors:
    """All projectors of a structure in a basis of n modes.

    Attributes:
        overlaps: <p|mode>, (n_projectors, n). weighted: the same times the matrices h, hartree.
    """

    overlaps: Tensor
    weighted: Tensor

    def apply(self, coefficients: Tensor) -> Tensor:
        """V applied to orbitals (b, n)."""
        return (coefficients @ self.overlaps.T) @ self.weighted.conj()

    def expectation(self, coefficients: Tensor) -> Tensor:
        """<psi|V|psi> of orbitals (b, n): (b,), hartree; differentiable."""
        left, right = coefficients @ self.overlaps.T, coefficients @ self.weighted.T
        return (left.conj() * right).sum(dim=1).real


def bind_projectors(
    pseudopotentials: Mapping[str, LocalPseudopotential],
    structure: Structure,
    basis: ModeBasis,
    positions: Tensor | None = None,
) -> Projectors | None:
    """The projectors of a structure's atoms in a basis, differentiable; None where all are local.

    Args:
        pseudopotentials: by chemical symbol.
        positions: (n_atoms, 3), bohr, in place of the structure's.

    Raises:
        PseudopotentialError: partly occupied sites.
    """
    device = basis.index.device
    if positions is None:
        positions = torch.tensor(structure.positions, device=device)
    overlaps, weighted = [], []
    for symbol in dict.fromkeys(structure.symbols):
        channels = find_pseudopotential(pseudopotentials, symbol).projectors
        mask = np.array(structure.symbols) == symbol
        if channels and (structure.occupancies[mask] != 1).any():
            raise PseudopotentialError(
                f"{symbol} sites are partly occupied: projectors belong to whole atoms; use a "
                "local pseudopotential"
            )
        centres = positions[torch.as_tensor(mask, device=device)]
        for channel in channels:
            p = _channel_overlaps(basis, centres, channel)
            h = torch.tensor(channel.strengths, dtype=torch.float64, device=device).to(p.dtype)
            overlaps.append(p.flatten(0, 2))
            weighted.append(torch.einsum("ij,jamn->iamn", h, p).flatten(0, 2))
    return Projectors(torch.cat(overlaps), torch.cat(weighted)) if overlaps else None


def _channel_overlaps(basis: ModeBasis, centres: Tensor, channel: ProjectorChannel) -> Tensor:
    """(n_radial, n_centres, 2 l + 1, n_modes)."""
    exponent = 0.5 / channel.radius**2
    n_radial = len(channel.strengths)
    top = channel.order + 2 * (n_radial - 1)
    x, y, z = (
        gaussian_overlaps(axis, centres[:, i], exponent, top)[..., place]
        for i, (axis, place) in enumerate(zip(basis.axes, basis.places, strict=True))
    )
    rows = []
    for i, m in product(range(n_radial), range(2 * channel.order + 1)):
        polynomial = _polynomial(channel.order, m, i, channel.radius)
        rows.append(sum(v * x[a] * y[b] * z[c] for (a, b, c), v in polynomial.items()))
    stacked = torch.stack([torch.as_tensor(row) for row in rows])
    by_harmonic: Tensor = stacked.unflatten(0, (n_radial, -1))
    return by_harmonic.transpose(1, 2)


def _polynomial(order: int, m: int, i: int, radius: float) -> dict[Powers, float]:
    """p_(i+1)^lm without its Gaussian: r^(2i) times a solid harmonic, normalised."""
    power = order + (4 * i + 3) / 2
    norm = math.sqrt(2) / (radius**power * math.sqrt(math.gamma(power)))
    harmonic = harmonic_coefficients(order)[m]
    terms: defaultdict[Powers, float] = defaultdict(float)
    for (a, b, c), value in zip(monomials(order), harmonic.tolist(), strict=True):
        for u, v, w in monomials(i):
            ways = math.factorial(i) / math.prod(math.factorial(k) for k in (u, v, w))
            terms[a + 2 * u, b + 2 * v, c + 2 * w] += norm * value * ways
    return {powers: value for powers, value in terms.items() if value}
