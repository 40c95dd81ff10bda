"""A sample: one structure with reference fields at points, its energy, forces and history."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedens.data.bands import Bands
from fedens.errors import DatasetError
from fedens.fem.simplex import SimplexSpace
from fedens.fem.tensor import TensorSpace
from fedens.fields import ENERGY_DENSITIES
from fedens.structure import Structure

#: Parts of an energy that are integrals of no field.
WITHOUT_DENSITY = ("nonlocal", "entropy")


@dataclass(frozen=True, eq=False)
class Sample:
    """Reference data of one structure, in Hartree atomic units.

    Attributes:
        structure: the atoms.
        points: (n_points, 3), bohr. weights: (n_points,), bohr^3.
        fields: name -> (n_points,); ``density`` and the energy densities ``kinetic``, ``xc``,
            ``electrostatic``; of Kohn-Sham calculations also ``effective_potential``.
        energy: total energy, hartree; None where it is not known. That which forces and stress
            are derivatives of: with smeared occupations the free energy.
        energies: its parts by name, hartree.
        ion_energy: the part of the energy no field carries: self and pair terms of the ions.
        forces: (n_atoms, 3), hartree/bohr, or None.
        stress: normal stresses along x, y, z, (3,), hartree/bohr^3, or None.
        converged: whether the calculation behind it converged.
        provenance: code, functional, pseudopotential, space, tolerances, Gaussian widths.
        bands: eigenvalues and occupations of a Kohn-Sham calculation, or None.
        chemical_potential: mu, hartree, against the zero of the field ``effective_potential``, or
            None. Where nothing is non-local, mu less that field is the derivative in the density of
            the non-interacting free energy, ``energies["kinetic"] + energies["entropy"]``.
    """

    structure: Structure
    points: NDArray[np.float64]
    weights: NDArray[np.float64]
    fields: dict[str, NDArray[np.float64]]
    energy: float | None
    energies: dict[str, float] = field(default_factory=dict)
    ion_energy: float = 0.0
    forces: NDArray[np.float64] | None = None
    stress: NDArray[np.float64] | None = None
    converged: bool = True
    provenance: dict[str, Any] = field(default_factory=dict)
    bands: Bands | None = None
    chemical_potential: float | None = None

    def __post_init__(self) -> None:
        n_points, n_atoms = len(self.weights), len(self.structure)
        if self.weights.shape != (n_points,):
            raise DatasetError(f"weights have shape {self.weights.shape}, expected ({n_points},)")
        if self.points.shape != (n_points, 3):
            raise DatasetError(
                f"points have shape {self.points.shape}, expected ({n_points}, 3) for "
                f"{n_points} weights"
            )
        for name, values in self.fields.items():
            _check(f"field {name!r}", values, (n_points,))
        if self.forces is not None:
            _check("forces", self.forces, (n_atoms, 3))
        if self.stress is not None:
            _check("stress", self.stress, (3,))
        if self.energy is not None and not np.isfinite(self.energy):
            raise DatasetError(f"the energy is {self.energy}: not a finite number")
        mu = self.chemical_potential
        if mu is not None and not np.isfinite(mu):
            raise DatasetError(f"the chemical potential is {mu}: not a finite number")

    @property
    def total_energy(self) -> float:
        """The total energy, hartree; a sample without one raises."""
        if self.energy is None:
            raise DatasetError(
                f"sample {self.structure.formula} has no total energy: import it with one "
                "(fedens import --energies), or leave out what asks for energies"
            )
        return self.energy

    @property
    def number_of_electrons(self) -> float:
        """Integral of the density; a sample without a density raises."""
        if "density" not in self.fields:
            raise DatasetError("sample has no field 'density': no number of electrons")
        return float(self.weights @ self.fields["density"])

    def space(self, device: torch.device | str = "cpu") -> TensorSpace | SimplexSpace:
        """The function space the fields live on; tetrahedra and hexahedra stay on the CPU.

        Raises:
            DatasetError: when the provenance does not say, or does not fit the points.
        """
        description = self.provenance.get("space") or {}
        if "edges_bohr" in description:
            space: TensorSpace | SimplexSpace = TensorSpace.from_description(description, device)
        elif "nuclei_bohr" in description:
            space = SimplexSpace.from_description(description)
        else:
            raise DatasetError(
                f"sample {self.structure.formula} does not say which space its points belong to: "
                "make it with a space, not with bare points"
            )
        if space.n_points != len(self.weights):
            raise DatasetError(
                f"sample has {len(self.weights)} points, its space {space.n_points}: they differ"
            )
        return space

    def tensor_space(self, device: torch.device | str = "cpu") -> TensorSpace:
        """The same, for what works on boxes of elements only; DatasetError for other meshes."""
        space = self.space(device)
        if not isinstance(space, TensorSpace):
            raise DatasetError(
                f"sample {self.structure.formula} lives on {space}: this needs one on a "
                "TensorSpace, as the orbital-free solver and fedens import make it"
            )
        return space

    def energy_from_fields(self) -> float:
        """Total energy (hartree) from the energy densities by quadrature, plus the ions'.

        And what no density of points carries, where there is any: the energy of non-local
        projectors and minus the temperature times the entropy.
        """
        missing = [name for name in ENERGY_DENSITIES if name not in self.fields]
        if missing:
            raise DatasetError(f"sample has no field {', '.join(missing)}: no energy from fields")
        total = sum(float(self.weights @ self.fields[name]) for name in ENERGY_DENSITIES)
        beside = sum(self.energies.get(name, 0.0) for name in WITHOUT_DENSITY)
        return total + beside + self.ion_energy


def _check(name: str, values: NDArray[np.float64], shape: tuple[int, ...]) -> None:
    if values.shape != shape:
        raise DatasetError(f"{name}: shape is {values.shape}, expected {shape}")
    if not np.isfinite(values).all():
        raise DatasetError(f"{name}: holds numbers that are not finite")
