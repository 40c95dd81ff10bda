"""What Kohn-Sham samples say of the kinetic functional: its value and its derivative at a density.

At self-consistency mu - v_eff is the derivative of A_s = T_s - T S in the density, at every point.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fedens.data.density import Density
from fedens.data.sample import Sample
from fedens.errors import DatasetError
from fedens.fem.tensor import TensorSpace


@dataclass(frozen=True, eq=False)
class KineticLabel:
    """Non-interacting free energy A_s and its derivative at one density.

    Attributes:
        density: made from root coefficients. electrons: their number.
        potential: mu - v_eff at the points, (n_points,), hartree.
        energy: A_s, hartree.
        largest_q2: squared wave number of the shortest waves that the label is right for, bohr^-2.
    """

    density: Density
    electrons: float
    potential: Tensor
    energy: float
    largest_q2: float

    @property
    def mean_density(self) -> float:
        """Electrons over the volume, electron/bohr^3."""
        return self.electrons / self.density.space.volume


def kinetic_label(sample: Sample) -> KineticLabel:
    """The label of a sample with local pseudopotentials.

    Raises:
        DatasetError: a sample that is not converged, has no effective potential, or has
            projectors, for which mu - v_eff is no derivative.
    """
    if not sample.converged:
        raise DatasetError(f"{sample.structure.formula} is not converged: it cannot be a label")
    mu = sample.chemical_potential
    if "effective_potential" not in sample.fields or mu is None:
        raise DatasetError(
            f"{sample.structure.formula} has no effective potential with its chemical potential: "
            "kinetic functionals are learned from Kohn-Sham samples"
        )
    if sample.energies.get("nonlocal"):
        raise DatasetError(
            f"the pseudopotential of {sample.structure.formula} has projectors, which a density "
            "cannot see: use a local one, such as GTHLocal or Recpot"
        )
    space = TensorSpace.from_description(sample.provenance["space"])
    n = torch.tensor(sample.fields["density"])
    cutoff = sample.provenance["cutoff_hartree"]
    return KineticLabel(
        # Methfessel-Paxton occupations may leave a vanishing density below zero
        density=Density.from_root(space, space.project(torch.sqrt(n.clamp(min=0)))),
        electrons=float(space.integrate(n)),
        potential=mu - torch.tensor(sample.fields["effective_potential"]),
        energy=sample.energies["kinetic"] + sample.energies.get("entropy", 0.0),
        largest_q2=cutoff,  # beyond, the label is the truncation of the orbitals
    )
