"""What a model says of one molecule: fields at any points, energies, dipole, forces on nuclei."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fedens.atoms.gaussian_basis import AtomicBasis
from fedens.atoms.spherical import SphericalAtom, superposed_fields
from fedens.fields import LOCAL_FIELDS
from fedens.structure import Structure

Array = NDArray[np.float64]

#: Displacement of the central differences of a potential at a nucleus, bohr.
_STEP = 1e-3


@dataclass(frozen=True)
class Calibration:
    """Factors from a committee's spread to errors of molecules that a member was not trained on.

    Attributes:
        density, energy: 1 where too few molecules were left out.
    """

    density: float = 1.0
    energy: float = 1.0


@dataclass(frozen=True, eq=False)
class MolecularPrediction:
    """Fields and energies of one molecule; Hartree atomic units.

    Attributes:
        structure: the molecule. basis, atoms, calibration: of the model.
        coefficients: of each network of the committee, (n_members, 3, n_functions).
        energies_of_members: total energies, (n_members,).
    """

    structure: Structure
    basis: AtomicBasis
    atoms: Mapping[str, SphericalAtom]
    coefficients: Tensor
    energies_of_members: Tensor
    calibration: Calibration = field(default_factory=Calibration)

    @property
    def energy(self) -> float:
        """Total energy."""
        return float(self.energies_of_members.mean())

    @property
    def energy_uncertainty(self) -> float | None:
        """Estimated standard deviation, from the committee's spread; None for a single network."""
        if len(self.energies_of_members) == 1:
            return None
        return self.calibration.energy * float(self.energies_of_members.std())

    @cached_property
    def energies(self) -> dict[str, float]:
        """``kinetic``, ``xc``, ``electrostatic`` (with the nuclei's), ``total``.

        The first two are the integrals of their fields; electrostatic is the rest of the total.
        """
        of_fields = self.coefficients.mean(dim=0) @ self.basis.integrals(self.structure)
        symbols = self.structure.symbols
        result = {
            name: sum(self.atoms[s].energies[name] for s in symbols) + float(of_fields[row])
            for row, name in enumerate(LOCAL_FIELDS)
            if name != "density"
        }
        result["electrostatic"] = self.energy - sum(result.values())
        return result | {"total": self.energy}

    @property
    def dipole(self) -> Array:
        """Dipole moment about the origin, (3,), elementary charge x bohr."""
        density = self.coefficients.mean(dim=0)[0]
        return (-(density @ self.basis.dipoles(self.structure))).numpy()

    def differences(self, points: Tensor) -> dict[str, Tensor]:
        """``density``, ``kinetic``, ``xc`` minus those of superposed atoms, (n_points,) each.

        Args:
            points: (n_points, 3), bohr.
        """
        fields = self.basis.evaluate(self.structure, points, self.coefficients.mean(dim=0))
        return dict(zip(LOCAL_FIELDS, fields, strict=True))

    def fields(self, points: Tensor) -> dict[str, Tensor]:
        """``density``, ``kinetic``, ``xc`` at points (n_points, 3) in bohr, (n_points,) each."""
        superposed = superposed_fields(self.structure, points, self.atoms, names=LOCAL_FIELDS)
        return {name: superposed[name] + d for name, d in self.differences(points).items()}

    def density_uncertainty(self, points: Tensor) -> Tensor | None:
        """Estimated standard deviation of the density at points (n_points, 3), (n_points,).

        From the committee's spread; None for a single network.
        """
        if len(self.coefficients) == 1:
            return None
        densities = self.basis.evaluate(self.structure, points, self.coefficients[:, 0])
        return self.calibration.density * densities.std(dim=0)

    def density_at(self, points: ArrayLike) -> dict[str, Array]:
        """What :func:`fedens.reference.pyscf.harris.harris` takes: density, its gradient, and the
        potential of its difference to superposed atoms at points (n_points, 3), bohr."""
        where = torch.tensor(np.asarray(points), requires_grad=True)
        with torch.enable_grad():
            density = self.fields(where)["density"]
            (slope,) = torch.autograd.grad(density.sum(), where)
        names = ("gradient_x", "gradient_y", "gradient_z")
        result = {"density": density.detach().numpy()}
        result["difference_potential"] = self.difference_potential(where.detach()).numpy()
        return result | dict(zip(names, slope.numpy().T, strict=True))

    def difference_potential(self, points: Tensor) -> Tensor:
        """Coulomb potential of the density minus superposed atoms, (n_points,), hartree."""
        density = self.coefficients.mean(dim=0)[0]
        return self.basis.potential(self.structure, points, density)

    def electrostatic(self, points: Tensor) -> Tensor:
        """Electrostatic energy density minus that of superposed atoms, (n_points,).

        d (phi_atoms + phi_d / 2) of the predicted difference d; unlike :attr:`energies` it knows
        of no learned total energy.
        """
        superposed = superposed_fields(self.structure, points, self.atoms, names=["potential"])
        own = self.difference_potential(points)
        return self.differences(points)["density"] * (superposed["potential"] + 0.5 * own)

    @property
    def hellmann_feynman_forces(self) -> Array:
        """Force of the predicted density and the other nuclei on each nucleus, (n_atoms, 3)."""
        charges = [self.atoms[s].charge for s in self.structure.symbols]
        forces = np.zeros_like(self.structure.positions)
        for atom, axis in np.ndindex(forces.shape):
            there = torch.tensor(self.structure.positions[atom]).repeat(2, 1)
            there[:, axis] += torch.tensor([_STEP, -_STEP], dtype=torch.float64)
            ahead, behind = self._potential_of_others(atom, there)
            forces[atom, axis] = charges[atom] * float(ahead - behind) / (2 * _STEP)
        return forces

    def _potential_of_others(self, atom: int, points: Tensor) -> Tensor:
        """As an electron feels it, without one nucleus and its spherical atom, which exert no
        force on themselves."""
        total = self.difference_potential(points)
        for other, symbol in enumerate(self.structure.symbols):
            if other != atom:
                away = points - torch.tensor(self.structure.positions[other])
                total = total + self.atoms[symbol].potential(away.norm(dim=1))
        return total
