"""Potentials of the embedded-atom form: site energies that depend on sums over neighbours.

    E = sum_i F(rho_i),    rho_ik = sum_j g_k(r_ij),    k = 1 ... K

Pair potentials, second-moment potentials and polynomials of radial densities are all of this form.
With e the unit vector of a bond from i to j and dr = e . (v_j - v_i), the product of the Hessian
with a displacement v is a sum over bonds, as cheap as the forces: with drho_i = sum_j g'(r_ij) dr,

    (F'' drho_i) . g' e + (F' . g'') dr e + (F' . g' / r) (v_j - v_i - e dr).

A subclass gives g and F as torch functions, from which derivatives of both come.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedens.errors import StructureError
from fedens.generalisation.potential import Array
from fedens.structure import Structure

#: Atoms may move by half of this before neighbours are searched again, bohr. With 0.4, a fifth
#: shell of fcc aluminium would come into the list that no energy sees.
SKIN = 0.2

#: A function of bond lengths (n_sites, n_neighbours) -> (n_sites, n_neighbours, K), zero beyond
#: the cutoff; and one of densities (..., K) -> (...).
Radial: TypeAlias = Callable[[Tensor], Tensor]
Embedding: TypeAlias = Callable[[Tensor], Tensor]


class Bonds:
    """Neighbours of the sites whose energy can change, in blocks padded to one length.

    A padding bond leads from a site to itself with a length beyond the cutoff, where every
    function is zero, so that sums need no mask.

    Attributes:
        sites: atom of each block, (n_sites,). neighbours: atoms, (n_sites, n_neighbours).
        offsets: added to the neighbour's position, (n_sites, n_neighbours, 3), bohr.
    """

    def __init__(self, structure: Structure, cutoff: float, free: NDArray[np.bool_]):
        first, second, shifts, _ = structure.neighbours(cutoff)
        active = free.copy()
        np.logical_or.at(active, first, free[second])
        kept = active[first]
        order = np.argsort(first[kept], kind="stable")
        first, second, shifts = (array[kept][order] for array in (first, second, shifts))
        sites = np.flatnonzero(active)
        row = np.searchsorted(sites, first)
        counts = np.bincount(row, minlength=len(sites))
        column = np.arange(len(first)) - np.repeat(np.cumsum(counts) - counts, counts)
        width = max(1, int(counts.max(initial=0)))
        neighbours = np.repeat(sites[:, None], width, axis=1)
        offsets = np.zeros((len(sites), width, 3))
        offsets[:, :, 0] = 2 * cutoff
        neighbours[row, column] = second
        offsets[row, column] = 0.0 if structure.cell is None else shifts @ structure.cell
        self.sites = torch.as_tensor(sites)
        self.neighbours = torch.as_tensor(neighbours)
        self.offsets = torch.as_tensor(offsets)

    def vectors(self, positions: Tensor) -> Tensor:
        """From each site to its neighbours, (n_sites, n_neighbours, 3)."""
        return self.differences(positions) + self.offsets

    def differences(self, values: Tensor) -> Tensor:
        """Values (n_atoms, 3) at the neighbours minus those at the sites."""
        return values[self.neighbours] - values[self.sites, None]

    def gather(self, bond_values: Tensor, n_atoms: int) -> Tensor:
        """The transpose of :meth:`differences`: (n_sites, n_neighbours, 3) -> (n_atoms, 3)."""
        result = bond_values.new_zeros(n_atoms, 3)
        result.index_add_(0, self.neighbours.reshape(-1), bond_values.reshape(-1, 3))
        result.index_add_(0, self.sites, -bond_values.sum(dim=1))
        return result


class EmbeddedPotential(ABC):
    """A potential of the embedded-atom form. Attributes: ``cutoff``, bohr."""

    cutoff: float

    @abstractmethod
    def radial(self, bonds: Bonds) -> Radial:
        """The functions g of the bonds' lengths."""

    @abstractmethod
    def embedding(self, bonds: Bonds) -> Embedding:
        """The site energy F, hartree, of the densities of the bonds' sites."""

    def bind(self, structure: Structure, free: NDArray[np.bool_] | None = None) -> BoundEmbedded:
        """See :class:`fedens.generalisation.potential.Potential`."""
        return BoundEmbedded(self, structure, free)


class BoundEmbedded:
    """The energy of one set of atoms; see :class:`fedens.generalisation.potential.BoundPotential`.

    Sites that no free atom can reach have a constant energy, which is computed once.
    """

    def __init__(
        self,
        potential: EmbeddedPotential,
        structure: Structure,
        free: NDArray[np.bool_] | None = None,
    ):
        self.potential, self.structure = potential, structure
        self._free = np.ones(len(structure), dtype=bool) if free is None else free
        if self._free.shape != (len(structure),):
            raise StructureError(
                f"free has shape {self._free.shape}, expected ({len(structure)},): one flag an atom"
            )
        self._origin = structure.positions
        self._bonds = self._search(structure)

    def _search(self, structure: Structure) -> Bonds:
        return Bonds(structure, self.potential.cutoff + SKIN, self._free)

    def _at(self, positions: Array) -> tuple[Bonds, Tensor]:
        """Bonds that hold at these positions, and the positions as a tensor."""
        if np.abs(positions - self._origin).max() > SKIN / 2 / 3**0.5:
            self._bonds = self._search(self.structure.replace(positions=positions))
            self._origin = positions.copy()
        return self._bonds, torch.tensor(positions)

    def expansion(self, positions: Array) -> Expansion:
        """Densities and bonds at these positions, for energies and their derivatives."""
        bonds, where = self._at(positions)
        return Expansion(bonds, where, self.potential.radial(bonds))

    @cached_property
    def _constant(self) -> float:
        """Energy of the sites that cannot change."""
        if self._free.all():
            return 0.0
        everything = BoundEmbedded(self.potential, self.structure)
        energies = everything.site_energies(self.structure.positions)
        fixed = np.ones(len(energies), dtype=bool)
        fixed[self._bonds.sites.numpy()] = False
        return float(energies[fixed].sum())

    def _expanded(self, positions: Array) -> tuple[Expansion, Tensor, Tensor]:
        """The expansion with F (n_sites,) and F' (n_sites, K)."""
        expansion = self.expansion(positions)
        embedding = self.potential.embedding(expansion.bonds)
        return expansion, *_value_and_slopes(embedding, expansion.densities)

    def site_energies(self, positions: Array) -> Array:
        """Energy of each atom, (n_atoms,), hartree; zero where it cannot change."""
        expansion, energies, _ = self._expanded(positions)
        result = np.zeros(len(positions))
        result[expansion.bonds.sites.numpy()] = energies.numpy()
        return result

    def energy_and_forces(self, positions: Array) -> tuple[float, Array]:
        """Energy, hartree, and forces (n_atoms, 3), hartree/bohr, on the free atoms."""
        expansion, energies, slopes = self._expanded(positions)
        forces = -expansion.gradient(slopes).numpy()
        return float(energies.sum()) + self._constant, np.where(self._free[:, None], forces, 0.0)

    def virial(self, positions: Array) -> Array:
        """Derivative of the energy by a homogeneous strain, (3, 3), hartree."""
        expansion, _, slopes = self._expanded(positions)
        return expansion.virial(slopes).numpy()

    def hessian(self, positions: Array) -> Callable[[Array], Array]:
        """The product of the Hessian with a displacement (n_atoms, 3), on the free atoms."""
        expansion, _, slopes = self._expanded(positions)
        embedding = self.potential.embedding(expansion.bonds)
        product = expansion.hessian(slopes, _second_derivatives(embedding, expansion.densities))
        free = self._free[:, None]

        def restricted(displacement: Array) -> Array:
            moved = torch.as_tensor(np.where(free, displacement, 0.0))
            return np.where(free, product(moved).numpy(), 0.0)

        return restricted


class Expansion:
    """Densities at some positions, with their derivatives as sums over bonds.

    Args:
        bonds: the bonds. positions: (n_atoms, 3), bohr. radial: the functions g.

    Attributes:
        densities: rho, (n_sites, K).
    """

    def __init__(self, bonds: Bonds, positions: Tensor, radial: Radial):
        self.bonds, self._n_atoms, self._radial = bonds, len(positions), radial
        self._vectors = bonds.vectors(positions)
        self._lengths = self._vectors.norm(dim=2)
        values, self._slopes = _derivatives(radial, self._lengths, 1)
        self.densities = values.sum(dim=1)

    @property
    def _units(self) -> Tensor:
        return self._vectors / self._lengths[:, :, None]

    def gradient(self, slopes: Tensor) -> Tensor:
        """Gradient (n_atoms, 3) of the energy with dF/drho = ``slopes`` (n_sites, K)."""
        tension = torch.einsum("sk,sjk->sj", slopes, self._slopes)
        return self.bonds.gather(tension[:, :, None] * self._units, self._n_atoms)

    def virial(self, slopes: Tensor) -> Tensor:
        """Derivative by a homogeneous strain, (3, 3), of the same energy."""
        tension = torch.einsum("sk,sjk->sj", slopes, self._slopes) / self._lengths
        return torch.einsum("sj,sja,sjb->ab", tension, self._vectors, self._vectors)

    def hessian(self, slopes: Tensor, bends: Tensor) -> Callable[[Tensor], Tensor]:
        """Product with displacements (n_atoms, 3); ``bends`` is F'', (n_sites, K, K)."""
        curvatures = _derivatives(self._radial, self._lengths, 2)[2]
        across = torch.einsum("sk,sjk->sj", slopes, self._slopes) / self._lengths
        along = torch.einsum("sk,sjk->sj", slopes, curvatures) - across
        units, g = self._units, self._slopes

        def product(displacement: Tensor) -> Tensor:
            differences = self.bonds.differences(displacement)
            stretch = torch.einsum("sja,sja->sj", units, differences)
            change = torch.einsum("sjk,sj->sk", g, stretch)
            change = torch.einsum("skl,sl->sk", bends, change)
            tension = torch.einsum("sjk,sk->sj", g, change) + along * stretch
            values = tension[:, :, None] * units + across[:, :, None] * differences
            return self.bonds.gather(values, self._n_atoms)

        return product


def _derivatives(radial: Radial, lengths: Tensor, order: int) -> list[Tensor]:
    """The functions and their derivatives up to an order, each (n_sites, n_neighbours, K).

    Every function depends on its own bond's length only, so that one backward pass with weights,
    differentiated by the weights, gives the derivatives of all.
    """
    where = lengths.detach().requires_grad_(True)
    with torch.enable_grad():
        values = radial(where)
        found = [values]
        for _ in range(order):
            weights = torch.zeros_like(values, requires_grad=True)
            (pulled,) = torch.autograd.grad(values, where, weights, create_graph=True)
            ones = torch.ones_like(pulled)
            (values,) = torch.autograd.grad(pulled, weights, ones, create_graph=True)
            found.append(values)
    return [value.detach() for value in found]


def _value_and_slopes(embedding: Embedding, densities: Tensor) -> tuple[Tensor, Tensor]:
    """F (n_sites,) and F' (n_sites, K)."""
    where = densities.detach().requires_grad_(True)
    with torch.enable_grad():
        energies = embedding(where)
        (slopes,) = torch.autograd.grad(energies.sum(), where)
    return energies.detach(), slopes


def _second_derivatives(embedding: Embedding, densities: Tensor) -> Tensor:
    """F'' (n_sites, K, K)."""
    where = densities.detach().requires_grad_(True)
    with torch.enable_grad():
        (slopes,) = torch.autograd.grad(embedding(where).sum(), where, create_graph=True)
        rows = []
        for k in range(densities.shape[1]):
            if not slopes.requires_grad:  # a linear F
                return densities.new_zeros(*densities.shape, densities.shape[1])
            rows.append(torch.autograd.grad(slopes[:, k].sum(), where, retain_graph=True)[0])
    return torch.stack(rows, dim=1)
