"""What networks of molecules learn: coefficients of the fields, or energies and forces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from fedens.atoms.gaussian_basis import AtomicBasis
from fedens.learning.equivariant import EquivariantNetwork
from fedens.models.molecule.data import MoleculeData
from fedens.models.molecule.model import assembled, with_charge

#: Units of the fields' outputs come from fits of the samples, stiffened by this.
_STIFFNESS = 3e-3
#: Smallest unit of an output against the largest of its field and l.
_SMALLEST_UNIT = 0.03
#: Size of an atom's learned energy and aims of energies and forces, hartree (per bohr).
_ENERGY_UNIT, _ENERGY_AIM, _FORCE_AIM = 0.02, 2e-3, 2e-3


@dataclass(frozen=True, eq=False)
class _Molecules:
    """Molecules, of which some are learned and some held out; batches are numbers of them.

    Attributes:
        molecules: all of them. batch_size: at most so many per step. held_out: numbers of those
            that the network does not learn from.
    """

    molecules: Sequence[MoleculeData]
    batch_size: int
    held_out: Sequence[int]

    @cached_property
    def learned(self) -> list[int]:
        """Numbers of those that the network learns from."""
        return [i for i in range(len(self.molecules)) if i not in self.held_out]

    def batch(self, step: int, rng: torch.Generator) -> list[int]:
        """Molecules of a step, each once."""
        del step
        order = torch.randperm(len(self.learned), generator=rng)[: self.batch_size]
        return [self.learned[i] for i in order.tolist()]

    def validation(self) -> list[int] | None:
        """Molecules that are held out; None without any."""
        return list(self.held_out) or None

    def start(self, network: nn.Module) -> None:
        """Mean and size of each element's outputs, from what is learned of its atoms."""
        assert isinstance(network, EquivariantNetwork)
        for symbol, (mean, scales) in self._units(
            [self.molecules[i] for i in self.learned]
        ).items():
            network.set_units(symbol, mean, scales)

    def _units(self, learned: Sequence[MoleculeData]) -> dict[str, tuple[Tensor, list[Tensor]]]:
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class FieldObjective(_Molecules):
    """Mean relative squared error of the fields, plus those of charge and dipole moment.

    Attributes:
        basis: of the coefficients. dipole_weight: of (e bohr)^2 against the fields' relative
            squared error.
    """

    basis: AtomicBasis
    dipole_weight: float

    @cached_property
    def _sizes(self) -> Tensor:
        """Mean square of each field, (3,)."""
        return torch.stack([one.squares for one in self.molecules]).mean(dim=0)

    @cached_property
    def _charges(self) -> list[Tensor]:
        return [self.basis.integrals(one.structure) for one in self.molecules]

    @cached_property
    def _dipoles(self) -> list[Tensor]:
        return [self.basis.dipoles(one.structure) for one in self.molecules]

    def loss(self, network: nn.Module, batch: Sequence[int]) -> Tensor:
        """Mean over the molecules of a batch."""
        molecules = [self.molecules[i] for i in batch]
        symbols = [s for one in molecules for s in one.structure.symbols]
        outputs = network(torch.cat([one.moments for one in molecules]), symbols)
        atoms = iter(assembled(outputs, self.basis, symbols))
        total = torch.zeros(())
        for i, one in zip(batch, molecules, strict=True):
            own = torch.cat([next(atoms) for _ in one.structure.symbols], dim=1)
            total = total + self._of_molecule(i, own.double())
        return total / len(batch)

    def _of_molecule(self, i: int, coefficients: Tensor) -> Tensor:
        one = self.molecules[i]
        missing = one.excess - coefficients[0] @ self._charges[i]
        coefficients = with_charge(coefficients, self._charges[i], one.excess)
        dipole = -(coefficients[0] @ self._dipoles[i]) - one.dipole
        wrong = (dipole**2).mean()
        relative = one.squared_errors(coefficients) / self._sizes
        return relative.mean() + missing**2 + self.dipole_weight * wrong

    def _units(self, learned: Sequence[MoleculeData]) -> dict[str, tuple[Tensor, list[Tensor]]]:
        """Mean and spread of fitted coefficients, by element."""
        by_element: dict[str, list[list[Tensor]]] = {}
        for one in learned:
            for symbol, parts in _fitted(one, self.basis):
                by_element.setdefault(symbol, []).append(parts)
        return {symbol: _mean_and_spread(atoms) for symbol, atoms in by_element.items()}


def _fitted(one: MoleculeData, basis: AtomicBasis) -> list[tuple[str, list[Tensor]]]:
    """Symbol and coefficients of each atom, (3, n_radial, 2l+1) for each l."""
    stiff = one.gram.double() + _STIFFNESS * torch.eye(len(one.gram))
    found = torch.linalg.solve(stiff, one.loads.T).T
    parts: list[list[Tensor]] = [[] for _ in one.structure.symbols]
    for atom, l, where in basis.shells(one.structure):
        parts[atom].append(found[:, where].unflatten(1, (-1, 2 * l + 1)))
    return list(zip(one.structure.symbols, parts, strict=True))


def _mean_and_spread(atoms: Sequence[Sequence[Tensor]]) -> tuple[Tensor, list[Tensor]]:
    """Units of coefficients (3, n_radial, 2l+1) for each l of some atoms: of l = 0 the mean
    (3 n_radial,), and of each l the spread, not too small."""
    stacked = [torch.stack(parts) for parts in zip(*atoms, strict=True)]
    mean = stacked[0].mean(dim=0)
    stacked[0] = stacked[0] - mean
    spreads = [values.pow(2).mean(dim=(0, 3)).sqrt() for values in stacked]
    scales = [s + _SMALLEST_UNIT * s.amax(dim=1, keepdim=True) for s in spreads]
    return mean.flatten(), [scale.flatten() for scale in scales]


@dataclass(frozen=True, eq=False)
class EnergyObjective(_Molecules):
    """Mean squared errors of energies and forces, in units of their aims.

    Attributes:
        weight: of energies against forces. forces: learn them where they are known.
    """

    weight: float
    forces: bool

    def loss(self, network: nn.Module, batch: Sequence[int]) -> Tensor:
        """Mean over the molecules of a batch."""
        molecules = [self.molecules[i] for i in batch]
        symbols = [s for one in molecules for s in one.structure.symbols]
        moments = torch.cat([one.moments for one in molecules])
        moments.requires_grad_(self.forces)
        energies = torch.zeros(len(symbols), dtype=torch.float64)
        for atoms, numbers in network(moments, symbols):
            energies = energies.index_copy(0, atoms, numbers[:, 0].double())
        counts = [len(one.structure) for one in molecules]
        wrong = torch.stack([part.sum() for part in energies.split(counts)])
        wrong = wrong - torch.tensor([one.energy for one in molecules], dtype=torch.float64)
        total = self.weight * ((wrong / _ENERGY_AIM) ** 2).mean()
        if not self.forces:
            return total
        (slopes,) = torch.autograd.grad(energies.sum(), moments, create_graph=True)
        parts = zip(molecules, slopes.split(counts), strict=True)
        return total + sum(_force_error(one, slope) for one, slope in parts) / len(molecules)

    def _units(self, learned: Sequence[MoleculeData]) -> dict[str, tuple[Tensor, list[Tensor]]]:
        """Energy per atom of each element, by least squares; all elements in the same unit."""
        symbols = sorted({s for one in learned for s in one.structure.symbols})
        counts = [[one.structure.symbols.count(s) for s in symbols] for one in learned]
        energies = [one.energy for one in learned]
        found = np.linalg.lstsq(np.array(counts, dtype=float), np.array(energies), rcond=None)[0]
        unit = [torch.tensor([_ENERGY_UNIT])]
        return {s: (torch.tensor([e]), unit) for s, e in zip(symbols, found, strict=True)}


def _force_error(one: MoleculeData, slopes: Tensor) -> Tensor:
    """Mean squared error of the forces of energies with slopes in the moments; zero if unknown."""
    if one.forces is None:
        return slopes.new_zeros(())
    forces = -torch.einsum("af,afx->x", slopes, one.moments_by_position)
    return ((forces - one.forces) / _FORCE_AIM).pow(2).mean()
