"""What a Kohn-Sham calculation found."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedens.data.bands import Bands
from fedens.data.density import Density
from fedens.data.sample import Sample
from fedens.energy.kohn_sham import BoundKohnSham, KohnSham
from fedens.errors import SamplingError
from fedens.fem.tensor import TensorSpace
from fedens.reference.kohn_sham import derivatives
from fedens.reference.kohn_sham.hamiltonian import SPARE, Orbitals
from fedens.reference.kohn_sham.kpoints import KPoints
from fedens.reference.kohn_sham.smearing import Occupation, Smearing
from fedens.reference.kohn_sham.symmetry import Symmetry
from fedens.structure import Structure

Array = NDArray[np.float64]

#: Residuals of empty orbitals, hartree; their energies' errors are of second order. Expansions
#: of the subspace for them.
_EMPTY_TOLERANCE, _EXPANSIONS = 1e-3, 8


@dataclass(frozen=True, eq=False, repr=False)
class KohnShamState:
    """What :func:`solve_kohn_sham` found; Hartree atomic units.

    Attributes:
        structure, space, functional, smearing: what was solved. bound: the functional's energy of
            the density alone, for these ions.
        sampled_kpoints, kpoints: the mesh asked for, and its irreducible points.
        symmetry: the operations used. cutoff: largest kinetic energy of a mode, hartree.
        density_cutoff: the same of the waves in products of orbitals; None: all the mesh has.
        density: n(r). free_energy: F = E - T S, which is minimal and whose derivatives the forces
            and the stress are, hartree.
        occupation: of the levels, with -T S; its chemical potential has the zero of
            ``local_potential``. orbitals: of every irreducible k-point.
        local_potential: as the solver has it: (n_points,), hartree, with a Coulomb potential of
            Gaussian ions of zero mean.
        converged, residual, tolerance: relative change of the density in the last step.
        iterations: steps. message: the same in words.
    """

    structure: Structure
    space: TensorSpace
    functional: KohnSham
    bound: BoundKohnSham
    sampled_kpoints: KPoints
    kpoints: KPoints
    smearing: Smearing
    symmetry: Symmetry
    cutoff: float
    density_cutoff: float | None
    density: Density
    free_energy: float
    occupation: Occupation
    local_potential: Tensor
    orbitals: tuple[Orbitals, ...]
    converged: bool
    residual: float
    tolerance: float
    iterations: int
    message: str

    def __repr__(self) -> str:
        found = f"F = {self.free_energy:.8f} hartree"
        return f"KohnShamState({self.structure.formula}, {found}, {self.message})"

    @property
    def energy(self) -> float:
        """Internal energy E = F + T S, hartree; without smearing the total energy."""
        return self.free_energy - self.entropy_energy

    @property
    def entropy_energy(self) -> float:
        """-T S, hartree."""
        return self.occupation.entropy_energy

    @property
    def energy_at_zero_width(self) -> float:
        """Estimate of the energy without smearing, hartree."""
        return self.smearing.energy_at_zero_width(self.free_energy, self.entropy_energy)

    @cached_property
    def _zero(self) -> float:
        """What makes energies of levels those in the field of point ions of zero mean, hartree."""
        return self.functional.electrostatics.point_ion_shift(self.structure)

    @property
    def chemical_potential(self) -> float:
        """mu, hartree; in periodic cells against the mean of the electrons' and (point) ions'
        Coulomb potential."""
        return self.occupation.chemical_potential + self._zero

    @cached_property
    def _levels(self) -> list[tuple[Orbitals, Tensor]]:
        """Orbitals and eigenvalues with the empty bands converged too, which F does not need."""
        n_bands = self.occupation.occupations.shape[1]
        wanted = torch.ones(n_bands, dtype=torch.bool, device=self.space.device)
        wanted[max(1, n_bands - SPARE) :] = False
        found = []
        for given in self.orbitals:
            orbitals = replace(given)
            pairs = orbitals.solve(self.local_potential, _EMPTY_TOLERANCE, _EXPANSIONS, wanted)
            found.append((orbitals, pairs.values))
        return found

    @property
    def eigenvalues(self) -> Array:
        """(n_k, n_bands), hartree, against the same zero; the two highest bands are rough."""
        levels = torch.stack([values for _, values in self._levels])
        return levels.cpu().numpy() + self._zero

    @property
    def occupations(self) -> Array:
        """Electrons of each level, (n_k, n_bands); see :class:`Occupation`."""
        return self.occupation.occupations.cpu().numpy()

    @property
    def effective_potential(self) -> Tensor:
        """Local potential of the orbitals, (n_points,), hartree, against the same zero.

        mu minus it is the derivative of the electrons' non-interacting free energy T_s - T S in
        the density, where the pseudopotentials are local.
        """
        return self.local_potential + self._zero

    @property
    def _shares(self) -> list[Tensor]:
        """Electrons of each band, weighted with its k-point: (n_bands,) for each."""
        weights = torch.tensor(self.kpoints.weights, device=self.space.device)
        return list(weights[:, None] * self.occupation.occupations)

    @cached_property
    def energies(self) -> dict[str, float]:
        """Parts of F: ``kinetic``, ``nonlocal``, ``xc``, ``electrostatic`` (ions included),
        ``entropy`` (-T S), and ``total`` = F; hartree."""
        with torch.no_grad():
            pairs = list(zip(self.orbitals, self._shares, strict=True))
            parts = {
                "kinetic": sum(float(f @ o.kinetic_energies()) for o, f in pairs),
                "nonlocal": sum(
                    float(f @ o.projectors.expectation(o.coefficients))
                    for o, f in pairs
                    if o.projectors is not None
                ),
                "xc": float(self.bound.xc.energy(self.density)),
                "electrostatic": float(self.bound.ions.energy(self.density)),
                "entropy": self.entropy_energy,
            }
        return parts | {"total": sum(parts.values())}

    @cached_property
    def kinetic_energy_density(self) -> Tensor:
        """tau = (1/2) sum f |grad psi|^2, (n_points,), hartree/bohr^3, nowhere negative."""
        pairs = zip(self.orbitals, self._shares, strict=True)
        total = sum(o.kinetic_energy_density(f) for o, f in pairs)
        return self.symmetry.symmetrised_field(torch.as_tensor(total))

    def energy_densities(self) -> dict[str, Tensor]:
        """``kinetic``, ``xc``, ``electrostatic`` at the points, (n_points,), hartree/bohr^3.

        The energy has beside their integrals the ions' own, the non-local and the entropy's part.
        """
        with torch.no_grad():
            return {
                "kinetic": self.kinetic_energy_density,
                "xc": self.bound.xc.energy_density(self.density),
                "electrostatic": self.bound.ions.energy_density(self.density),
            }

    @cached_property
    def forces(self) -> Array:
        """-dF/dR, (n_atoms, 3), hartree/bohr; first order in the residual.

        By Hellmann and Feynman: the mesh stays, so that nothing else moves with the ions.
        """
        total = derivatives.local_forces(self.functional, self.structure, self.density)
        for orbitals, share in zip(self.orbitals, self._shares, strict=True):
            total = total + derivatives.nonlocal_forces(
                self.functional, self.structure, orbitals, share
            )
        return self.symmetry.symmetrised_forces(total).cpu().numpy()

    @cached_property
    def stress(self) -> Array:
        """Normal stresses (3,): (1/V) dF/d strain along x, y, z, hartree/bohr^3.

        Positive where the cell would shrink. With the modes as they are: a cutoff that is too low
        shows as in plane-wave codes.

        Raises:
            FunctionalError: for isolated systems.
        """
        total = derivatives.local_stress(self.functional, self.structure, self.density)
        for orbitals, share in zip(self.orbitals, self._shares, strict=True):
            total = total + derivatives.orbital_stress(
                self.functional, self.structure, orbitals, share
            )
        return self.symmetry.symmetrised_stress(total).cpu().numpy()

    def orbital_density(self, kpoint: int, band: int) -> Array:
        """|psi|^2 of one band at one irreducible k-point, (n_points,), 1/bohr^3.

        Raises:
            SamplingError: no such k-point or band.
        """
        n_k, n_bands = self.occupation.occupations.shape
        if not (0 <= kpoint < n_k and 0 <= band < n_bands):
            raise SamplingError(
                f"band {band} of k-point {kpoint}: expected k-points 0 to {n_k - 1}, bands 0 to "
                f"{n_bands - 1}"
            )
        alone = torch.zeros(n_bands, dtype=torch.float64, device=self.space.device)
        alone[band] = 1
        return self._levels[kpoint][0].density(alone).cpu().numpy()

    @property
    def bands(self) -> Bands:
        """All levels and their occupations, at the irreducible k-points."""
        return Bands(
            kpoints=self.kpoints.points,
            weights=self.kpoints.weights,
            eigenvalues=self.eigenvalues,
            occupations=self.occupations,
            chemical_potential=self.chemical_potential,
        )

    def density_of_states(self, energies: Array, width: float = 0.01) -> Array:
        """States per hartree and cell, both spins, at some energies (n,), hartree.

        Every level is a Gaussian of standard deviation ``width`` (hartree).

        Raises:
            SamplingError: a width that is not positive.
        """
        return self.bands.density_of_states(energies, width)

    def fields(self, orbitals: Iterable[tuple[int, int]] = ()) -> dict[str, Tensor]:
        """All fields at the points by name, (n_points,), for :func:`fedens.write_vtu`.

        ``density``, ``kinetic`` (tau), ``xc``, ``electrostatic``, ``effective_potential``, and
        for every (k-point, band) of ``orbitals`` one such as ``orbital_density_k0_band3``.

        Raises:
            SamplingError: no such k-point or band.
        """
        asked_for = {
            f"orbital_density_k{k}_band{band}": torch.as_tensor(
                self.orbital_density(k, band), device=self.space.device
            )
            for k, band in orbitals
        }
        return {
            "density": self.density.values,
            **self.energy_densities(),
            "effective_potential": self.effective_potential,
            **asked_for,
        }

    def to_sample(self) -> Sample:
        """Fields, energies, forces and provenance as a :class:`Sample` for a data set.

        Its energy is F, which the forces belong to.
        """
        fields = self.fields()
        return Sample(
            structure=self.structure,
            points=self.space.points.cpu().numpy(),
            weights=self.space.weights.cpu().numpy(),
            fields={name: f.detach().cpu().numpy() for name, f in fields.items()},
            energy=self.free_energy,
            energies=self.energies,
            ion_energy=float(self.bound.ions.ion_energy),
            forces=self.forces,
            stress=self.stress if self.structure.periodic else None,
            converged=self.converged,
            provenance=self._provenance(),
            bands=self.bands,
            chemical_potential=self.chemical_potential,
        )

    def _provenance(self) -> dict[str, Any]:
        cell = self.structure.cell if self.structure.periodic else None
        return {
            "code": "fedens Kohn-Sham",
            "functional": self.functional.describe(),
            "space": self.space.describe(),
            "cutoff_hartree": self.cutoff,
            "density_cutoff_hartree": self.density_cutoff,
            "sampling": {
                "kspacing_per_bohr": self.sampled_kpoints.spacing(cell),
                "kpoints": len(self.sampled_kpoints),
                "smearing": self.smearing.kind,
                "width_hartree": self.smearing.width,
            },
            "residual": self.residual,
            "residual_tolerance": self.tolerance,
            "iterations": self.iterations,
        }
