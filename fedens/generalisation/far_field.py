"""A model that equals the reference inside a radius L and is wrong outside of it.

Sites beyond L get the further energy

    (k / 2) sum_j (r_ij - R_ij)^2      wrong force constants,
    (t / 6) sum_j (r_ij - R_ij)^3      right force constants, wrong third order,

summed over nearest neighbours, with R_ij their distance in the perfect crystal. Both vanish with
their first derivatives there, bond by bond: lattice constant, cohesive energy and stress stay those
of the reference, no force appears where the two regions meet, and a rotation costs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fedens.errors import StructureError
from fedens.generalisation.defects import Defect
from fedens.generalisation.embedded import Bonds, EmbeddedPotential, Embedding, Radial

Order = Literal[2, 3]
_FACTORIAL = {2: 2.0, 3: 6.0}


@dataclass(frozen=True, eq=False)
class FarFieldPerturbation(EmbeddedPotential):
    """A reference whose sites beyond a radius are perturbed; for the atoms of one defect.

    Args:
        reference: the potential. defect: whose sites are meant.
        radius: L, bohr: sites further than this from the defect are perturbed.
        order: 2: the force constants are wrong; 3: the third order.
        strength: k or t, hartree/bohr^order.
    """

    reference: EmbeddedPotential
    defect: Defect
    radius: float
    order: Order
    strength: float

    @property
    def cutoff(self) -> float:  # type: ignore[override]
        """That of the reference, bohr."""
        return self.reference.cutoff

    def radial(self, bonds: Bonds) -> Radial:
        """The reference's functions, and the power of the bond's change."""
        sites = torch.tensor(self.defect.sites)
        if int(bonds.neighbours.max()) >= len(sites):
            raise StructureError(f"this perturbation is for a defect of {len(sites)} atoms")
        vectors = bonds.differences(sites) + bonds.offsets
        rest = vectors.norm(dim=2)
        nearest = rest < 1.05 * self.defect.crystal.neighbour_distance
        weight = nearest * (self.strength / _FACTORIAL[self.order])
        functions = self.reference.radial(bonds)

        def extended(r: Tensor) -> Tensor:
            change = weight * (r - rest) ** self.order
            return torch.cat([functions(r), change[:, :, None]], dim=2)

        return extended

    def embedding(self, bonds: Bonds) -> Embedding:
        """The reference's energy, and beyond the radius the perturbation."""
        distance = torch.tensor(self.defect.distances)[bonds.sites]
        outside = (distance > self.radius * (1 + 1e-9)).double()
        energy = self.reference.embedding(bonds)

        def extended(densities: Tensor) -> Tensor:
            return energy(densities[:, :-1]) + outside * densities[:, -1]

        return extended
