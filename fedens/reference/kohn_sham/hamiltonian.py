"""The Kohn-Sham operator of one k-point and what orbitals say: densities, energies."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fedens.energy.nonlocal_potential import Projectors
from fedens.fem.modes import ModeBasis, absolute_square
from fedens.reference.kohn_sham.eigensolver import Eigenpairs, davidson, orthonormal

#: Bands at the top that need not converge: the slowest ones, wanted by nobody.
SPARE = 2
#: Random share of the orbitals at the start, so that none is missed for its symmetry.
_NOISE = 0.02


@dataclass(eq=False)
class Orbitals:
    """The orbitals of one k-point.

    Attributes:
        basis, projectors: what they are made of and the non-local potential in it, if any.
        coefficients: orthonormal rows, (n_bands, n_modes).
    """

    basis: ModeBasis
    projectors: Projectors | None
    coefficients: Tensor

    @classmethod
    def free(
        cls, basis: ModeBasis, projectors: Projectors | None, n_bands: int, seed: int = 0
    ) -> Orbitals:
        """The lowest modes, with a little noise that is the same every time."""
        orbitals = cls(basis, projectors, basis.kinetic.new_zeros(0, basis.n_modes).to(basis.dtype))
        orbitals.add_bands(n_bands, seed)
        return orbitals

    def add_bands(self, n_bands: int, seed: int = 0) -> None:
        """More orbitals, the lowest modes not taken so far; orthonormal to all."""
        first, count = len(self.coefficients), self.basis.n_modes
        generator = torch.Generator().manual_seed(seed + first)
        new = torch.randn(n_bands, count, dtype=self.basis.dtype, generator=generator)
        new = _NOISE * new.to(self.basis.index.device) / (1 + self.basis.kinetic)
        lowest = torch.argsort(self.basis.kinetic)[first : first + n_bands]
        new[torch.arange(len(lowest)), lowest] += 1
        self.coefficients = orthonormal(torch.cat([self.coefficients, new]))

    def solve(
        self, potential: Tensor, tolerance: float, max_expansions: int, wanted: Tensor
    ) -> Eigenpairs:
        """Orbitals of a local potential (n_points,), hartree, from those at hand."""

        on_grid = self.basis.on_grid(potential)

        def apply(rows: Tensor) -> Tensor:
            result = self.basis.kinetic * rows + self.basis.multiply(on_grid, rows)
            return result if self.projectors is None else result + self.projectors.apply(rows)

        found = davidson(
            apply, self._precondition, self.coefficients, tolerance, max_expansions, wanted
        )
        self.coefficients = found.vectors
        return found

    def _precondition(self, residuals: Tensor, vectors: Tensor) -> Tensor:
        """Teter, Payne and Allan, Phys. Rev. B 40, 12255 (1989), eq. 5.16."""
        kinetic = self.kinetic_energies(vectors)[:, None]
        x = self.basis.kinetic / (1.5 * kinetic)
        cubic = 27 + x * (18 + x * (12 + x * 8))
        return residuals * (cubic / (cubic + (4 * x * x) ** 2))

    def kinetic_energies(self, coefficients: Tensor | None = None) -> Tensor:
        """Kinetic energy of each orbital, (n_bands,), hartree."""
        rows = self.coefficients if coefficients is None else coefficients
        return absolute_square(rows) @ self.basis.kinetic

    def density(self, occupations: Tensor) -> Tensor:
        """sum_i f_i |psi_i|^2 at the points, (n_points,), electron/bohr^3."""
        kept = occupations != 0
        return self.basis.squares(self.coefficients[kept], occupations[kept])

    def kinetic_energy_density(self, occupations: Tensor) -> Tensor:
        """(1/2) sum_i f_i |grad psi_i|^2 at the points, (n_points,), hartree/bohr^3."""
        kept = occupations != 0
        blocks = self.basis.blocks(self.coefficients[kept]), self.basis.blocks(occupations[kept])
        total: Tensor | float = 0.0
        for rows, shares in zip(*blocks, strict=True):
            for component in self.basis.gradient(rows):
                total = total + 0.5 * (shares @ absolute_square(component))
        return torch.as_tensor(total)
