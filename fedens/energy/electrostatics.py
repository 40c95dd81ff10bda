"""All-local electrostatics: ions as Gaussian charges plus short-range potentials.

With rho = n - sum_A b_A, b_A a Gaussian of width sigma_A and integral Z_A,

E_es = (1/2) int rho phi + int n sum_A v_sr,A - sum_A Z_A^2/(2 sqrt(pi) sigma_A)
       + (1/2) sum_{A != B} Z_A Z_B erfc(r_AB / sqrt(2 (sigma_A^2 + sigma_B^2))) / r_AB

where the last sum runs over periodic images too, an ion's own included. No Ewald sum is left.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedens.data.density import Density
from fedens.energy.elements import by_symbol
from fedens.energy.pseudopotential import LocalPseudopotential, pseudopotential_from_description
from fedens.energy.terms import DensityTerm, EnergyTerm
from fedens.errors import FunctionalError, PseudopotentialError, SpaceError
from fedens.fem.space import FunctionSpace
from fedens.structure import Structure

#: Default width of the ions' Gaussian charges, bohr. Wider than the cores of the usual
#: pseudopotentials, so that charge and potential are smooth on the mesh.
DEFAULT_GAUSSIAN_WIDTH = 1.2
#: erfc(x)/r is dropped beyond x = 6 (2e-17).
_ERFC_REACH = 6.0


class Electrostatics(EnergyTerm):
    """Electrons and ions in the field of each other.

    Args:
        pseudopotentials: by chemical symbol; a single object serves every element.
        widths: of the ions' Gaussian charges by symbol, bohr, or one for all.

    Raises:
        FunctionalError: a width that is not positive.
    """

    kind = "electrostatics"
    name = group = "electrostatic"

    def __init__(
        self,
        pseudopotentials: LocalPseudopotential | Mapping[str, LocalPseudopotential],
        widths: float | Mapping[str, float] = DEFAULT_GAUSSIAN_WIDTH,
    ):
        self.pseudopotentials = by_symbol(pseudopotentials)
        for one in self.pseudopotentials.values():
            if not isinstance(one, LocalPseudopotential):
                raise PseudopotentialError(
                    f"{one!r} is no pseudopotential: expected one such as "
                    "GTH.load('Al', 'gth-pade-q3'), or a dictionary of them by element"
                )
        self.widths = by_symbol(widths)
        for symbol, width in self.widths.items():
            if not 0 < width < math.inf:
                element = "every element" if symbol == "*" else symbol
                raise FunctionalError(
                    f"the Gaussian width of {element} is {width} bohr, expected a positive number"
                )

    def describe(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "pseudopotentials": {s: p.describe() for s, p in self.pseudopotentials.items()},
            "gaussian_widths_bohr": dict(self.widths),
        }

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> Electrostatics:
        pseudopotentials = {
            symbol: pseudopotential_from_description(p)
            for symbol, p in description["pseudopotentials"].items()
        }
        return cls(pseudopotentials, description["gaussian_widths_bohr"])

    def number_of_electrons(self, structure: Structure) -> float:
        """Valence electrons of a structure: valences times occupancies, minus the charge."""
        return float(self._valences(structure).sum() - structure.charge)

    def ion_energy(
        self, structure: Structure, positions: Tensor | None = None, cell: Tensor | None = None
    ) -> Tensor:
        """Self and short-range pair energy of the Gaussian ions, E_ion(R), hartree.

        Differentiable in positions (n_atoms, 3) and cell vectors (3, 3), bohr, which replace the
        structure's own. No energy density has it.
        """
        if positions is None:
            positions = torch.tensor(structure.positions)
        valences = self._valences(structure)
        widths = np.array([self.widths[s] for s in structure.symbols])
        self_energy = float((valences**2 / (2 * math.sqrt(math.pi) * widths)).sum())
        first, second, shifts, _ = structure.neighbours(_ERFC_REACH * 2 * float(widths.max()))
        if len(first) == 0:
            return positions.sum() * 0.0 - self_energy
        device = positions.device
        vectors = positions[torch.as_tensor(second)] - positions[torch.as_tensor(first)]
        if structure.periodic:
            cell = positions.new_tensor(structure.cell) if cell is None else cell
            cells = torch.as_tensor(shifts, dtype=positions.dtype, device=device)
            vectors = vectors + (cells[:, :, None] * cell).sum(dim=1)
        r = vectors.norm(dim=1)
        products = torch.as_tensor(valences[first] * valences[second], device=device)
        mixed = np.sqrt(2 * (widths[first] ** 2 + widths[second] ** 2))
        mixed = torch.as_tensor(mixed, device=device)
        return torch.sum(products * torch.erfc(r / mixed) / r) * 0.5 - self_energy

    def point_ion_shift(self, structure: Structure) -> float:
        """What takes potentials to those of point ions of zero mean, hartree.

        On a space the Gaussian ions' potential has zero mean, in periodic cells; isolated
        structures have their own zero.
        """
        if not structure.periodic:
            return 0.0
        widths = np.array([self.widths[s] for s in structure.symbols])
        return 2 * math.pi * float(self._valences(structure) @ widths**2) / structure.volume

    def _valences(self, structure: Structure) -> NDArray[np.float64]:
        found = [find_pseudopotential(self.pseudopotentials, s) for s in structure.symbols]
        return np.array([p.valence for p in found]) * structure.occupancies

    def bind(
        self,
        structure: Structure,
        space: FunctionSpace,
        electrons: float = 0.0,  # noqa: ARG002
        positions: Tensor | None = None,
    ) -> Ions:
        """The ions of a structure on a space.

        Raises:
            PseudopotentialError: an element has no pseudopotential.
            FunctionalError: an element has no Gaussian width.
            SpaceError: the mesh is too coarse for a pseudopotential, or has no corner at a nucleus.
        """
        if positions is None:
            positions = torch.tensor(structure.positions, device=space.device)
        charge = short_range = positions.new_zeros(space.n_points)
        numbers = np.array(structure.symbols)
        for symbol in dict.fromkeys(structure.symbols):
            pseudopotential = find_pseudopotential(self.pseudopotentials, symbol)
            if symbol not in self.widths:
                raise FunctionalError(
                    f"no Gaussian width for {symbol}; there is one for "
                    f"{', '.join(sorted(self.widths))}: pass one for every element, or a number"
                )
            width = self.widths[symbol]
            mask = torch.as_tensor(numbers == symbol, device=space.device)
            share = torch.tensor(structure.occupancies, device=space.device)[mask]
            centres = positions[mask]
            _refuse_coarse(space, centres, pseudopotential, width, symbol)
            charges = share * pseudopotential.valence
            heights = charges / (2 * math.pi * width**2) ** 1.5
            exponents = torch.full_like(charges, 0.5 / width**2)
            charge = charge + space.gaussian_sum(centres, exponents, heights)
            short_range = short_range + _short_range(space, centres, share, pseudopotential, width)
        return Ions(space, charge, short_range, self.ion_energy(structure, positions, space.cell))


@dataclass(frozen=True, eq=False)
class Ions(DensityTerm):
    """What the electrons see of the ions, at the points of a space.

    Attributes:
        charge: summed Gaussian charge density, (n_points,), bohr^-3, positive.
        short_range: summed short-range potential, (n_points,), hartree.
        ion_energy: self and pair energy of the ions, E_ion(R), hartree; no energy density has it.
    """

    space: FunctionSpace
    charge: Tensor
    short_range: Tensor
    ion_energy: Tensor

    name = group = "electrostatic"

    def energy(self, density: Density) -> Tensor:
        hartree = self.space.coulomb_energy(density.values - self.charge)
        return hartree + self.space.integrate(density.values * self.short_range) + self.ion_energy

    def potential(self, density: Density) -> Tensor:
        """Electrostatic potential phi of electrons minus ions, (n_points,), hartree."""
        return self.space.solve_poisson(density.values - self.charge)

    def energy_density(self, density: Density) -> Tensor:
        """(1/2) rho phi + n v_sr, (n_points,), hartree/bohr^3."""
        rho = density.values - self.charge
        return 0.5 * rho * self.potential(density) + density.values * self.short_range

    def uniform_response(self, q2: Tensor, density: Tensor) -> Tensor:  # noqa: ARG002
        """4 pi / q^2, the Coulomb interaction of the electrons."""
        return 4 * math.pi / q2


def find_pseudopotential(
    pseudopotentials: Mapping[str, LocalPseudopotential], symbol: str
) -> LocalPseudopotential:
    """The pseudopotential of an element, or an error that says what to pass."""
    if symbol not in pseudopotentials:
        raise PseudopotentialError(
            f"no pseudopotential for {symbol}; there is one for "
            f"{', '.join(sorted(pseudopotentials)) or 'no element'}: pass "
            f"pseudopotential={{'{symbol}': GTHLocal(...), ...}}"
        )
    found = pseudopotentials[symbol]
    if found.element not in (None, symbol):
        raise PseudopotentialError(
            f"no pseudopotential for {symbol}: the one given is that of {found.element}; pass "
            f"pseudopotential={{'{found.element}': ..., '{symbol}': GTH.load('{symbol}', ...)}}"
        )
    return found


def _refuse_coarse(
    space: FunctionSpace,
    centres: Tensor,
    pseudopotential: LocalPseudopotential,
    width: float,
    symbol: str,
) -> None:
    if pseudopotential.singular and not space.follows_nuclei:
        raise SpaceError(
            f"the potential -Z/r of {symbol} is infinite at the nucleus and needs a mesh with a "
            "corner there: use SimplexSpace.for_structure(structure), or a pseudopotential"
        )
    limit = pseudopotential.coarsest_spacing(width)
    spacing = space.spacing_at(centres)
    if spacing > limit * 1.0001:
        raise SpaceError(
            f"mesh spacing {spacing:.3f} bohr is too coarse for the pseudopotential of {symbol}: "
            f"{limit:.3f} bohr is the largest usable, about {0.4 * limit:.2f} bohr gives 1 meV/atom"
            "; take a finer mesh, or where it follows a cutoff of orbitals a higher one"
        )


def _short_range(
    space: FunctionSpace,
    centres: Tensor,
    share: Tensor,
    pseudopotential: LocalPseudopotential,
    width: float,
) -> Tensor:
    waves = pseudopotential.form_factor(width) if space.is_periodic else None
    if waves is not None:
        return space.fourier_sum(centres, share, *waves)
    expansion = pseudopotential.gaussians(width)
    if expansion is None:
        if (share != 1).any():
            raise PseudopotentialError(
                f"partial occupancies need a pseudopotential made of Gaussians (GTHLocal), "
                f"not {pseudopotential!r}"
            )
        return space.radial_sum(
            centres,
            lambda r: pseudopotential.short_range(r, width),
            pseudopotential.cutoff(width),
        )
    exponents, amplitudes = (e.to(space.device) for e in expansion)

    def gaussians(exponents: Tensor, amplitudes: Tensor) -> Tensor:
        return space.gaussian_sum(
            centres.repeat_interleave(len(exponents), dim=0),
            exponents.repeat(len(centres)),
            (share[:, None, None] * amplitudes).flatten(0, 1),
        )

    bare = (amplitudes[:, 1:] == 0).all(dim=1)  # most are, and powers of r cost more
    total = gaussians(exponents[bare], amplitudes[bare, :1])
    return total + gaussians(exponents[~bare], amplitudes[~bare])
