"""What electrons do in a model potential, as a sample to learn from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from fedens.data.sample import Sample
from fedens.errors import FunctionalError, SamplingError, SpaceError
from fedens.fem.modes import largest_cutoff
from fedens.fem.tensor import TensorSpace
from fedens.reference.kohn_sham.smearing import Smearing
from fedens.reference.model_potentials.axis import AxisPotential
from fedens.structure import Structure

#: What all samples of model potentials have in the place of a functional.
FUNCTIONAL = {"kind": "model_potentials"}


@dataclass(frozen=True, eq=False)
class ModelState:
    """Electrons without interaction in a potential; Hartree atomic units.

    Attributes:
        space: periodic, orthorhombic. potential: v, (n_points,), hartree.
        density: n(r), (n_points,). kinetic_energy_density: tau, positive, (n_points,).
        energies: ``kinetic`` T_s, ``entropy`` -T S, ``external`` int n v and their ``total``, the
            free energy, hartree, per cell.
        chemical_potential: mu, hartree, with the zero of v: mu - v is the derivative of
            A_s = T_s - T S in the density.
        provenance: all that is needed to make it again.
    """

    space: TensorSpace
    potential: Tensor
    density: Tensor
    kinetic_energy_density: Tensor
    energies: dict[str, float]
    chemical_potential: float
    provenance: dict[str, Any]

    @property
    def structure(self) -> Structure:
        """The periodic cell, without atoms."""
        return Structure([], np.zeros((0, 3)), cell=self.space.lengths, pbc=True)

    def to_sample(self) -> Sample:
        """Fields ``density``, ``kinetic`` and ``effective_potential``, energies and history."""
        fields = {
            "density": self.density,
            "kinetic": self.kinetic_energy_density,
            "effective_potential": self.potential,
        }
        return Sample(
            structure=self.structure,
            points=self.space.points.numpy(),
            weights=self.space.weights.numpy(),
            fields={name: field.numpy() for name, field in fields.items()},
            energy=self.energies["total"],
            energies=self.energies,
            provenance=self.provenance,
            chemical_potential=self.chemical_potential,
        )


def check_electrons(space: TensorSpace, electrons: float) -> None:
    """Raise unless there is a periodic box of elements, and electrons in it."""
    if not isinstance(space, TensorSpace) or not space.is_periodic:
        raise SpaceError(f"model potentials repeat: expected a periodic TensorSpace, not {space}")
    if not 0 < electrons < math.inf:
        raise SamplingError(f"{electrons} electrons per cell, expected a positive number")


def check_axis(space: TensorSpace, axis: int, potential: AxisPotential, kpoints: int) -> None:
    """Raise unless a potential and a number of k-points go with an axis of the space."""
    length = space.lengths[axis]
    if not math.isclose(potential.length, length, rel_tol=1e-9):
        raise FunctionalError(
            f"the potential along {'xyz'[axis]} repeats after {potential.length} bohr, the space "
            f"after {length}: they must be the same"
        )
    if kpoints < 1:
        raise SamplingError(f"{kpoints} k-points along {'xyz'[axis]}, expected 1 or more")


def chosen_cutoff(space: TensorSpace, cutoff: float | None) -> float:
    """Largest kinetic energy of the orbitals' plane waves, hartree: as fine as the mesh."""
    if cutoff is not None and not 0 < cutoff < math.inf:
        raise SpaceError(f"the cutoff is {cutoff} hartree, expected a positive number")
    return largest_cutoff(space) if cutoff is None else cutoff


def provenance(
    space: TensorSpace,
    model: dict[str, Any],
    kspacing: float,
    kpoints: int,
    smearing: Smearing,
    cutoff: float,
) -> dict[str, Any]:
    """History of a sample. ``kspacing``: 1/bohr. ``model``: kind, potentials, electrons."""
    return {
        "code": "fedens model potentials",
        "functional": FUNCTIONAL,
        "model": model,
        "space": space.describe(),
        "cutoff_hartree": cutoff,
        "sampling": {
            "kspacing_per_bohr": kspacing,
            "kpoints": kpoints,
            "smearing": smearing.kind,
            "width_hartree": smearing.width,
        },
    }
