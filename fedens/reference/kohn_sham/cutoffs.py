"""Kinetic-energy cutoffs that fit pseudopotentials.

One atom of each element is solved in spherical waves. A cutoff leaves out the waves beyond it: an
orbital psi = a + b, b of these waves, becomes at best a, whose energy is <b|H - eps|b> higher.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fedens.energy.electrostatics import find_pseudopotential
from fedens.energy.kohn_sham import KohnSham
from fedens.energy.pseudopotential import LocalPseudopotential
from fedens.energy.xc import PerdewZunger
from fedens.errors import PseudopotentialError
from fedens.reference.kohn_sham.mixing import AndersonMixer
from fedens.reference.kohn_sham.smearing import Smearing
from fedens.reference.kohn_sham.spherical_waves import SphericalWaves
from fedens.structure import Structure

#: Angular momenta l = 0, 1, ...
_ORDERS = 4
#: Waves of each: up to 1600 hartree.
_WAVES = 90
# Found by comparing with crystals and molecules (tests/test_cutoffs.py): a sphere as narrow as an
# atom's room in a solid, and so warm that electrons get into the levels that bonds use. A cold
# atom of aluminium or silicon, without its d waves, loses a fifth of what the crystal does.
_RADIUS = 5.0  # bohr
_SMEARING = Smearing(0.1)  # hartree
#: Electrons that change place in the last step of self-consistency, and most steps.
_TOLERANCE, _STEPS = 1e-6, 60


def default_cutoff(structure: Structure, functional: KohnSham, accuracy: float = 2e-5) -> float:
    """Kinetic energy up to which orbitals need modes, whole hartree.

    The largest :func:`atomic_cutoff` of the structure's elements. At the accuracy of 2e-5
    hartree/atom energies of crystals and molecules are within 1 meV/atom of their limit.

    Raises:
        PseudopotentialError: an element without a pseudopotential, or a bare nucleus.
    """
    potentials = functional.pseudopotentials
    return max(
        atomic_cutoff(find_pseudopotential(potentials, symbol), accuracy)
        for symbol in set(structure.symbols)
    )


@lru_cache(maxsize=256)
def atomic_cutoff(pseudopotential: LocalPseudopotential, accuracy: float) -> float:
    """Lowest whole cutoff, hartree, that leaves an atom's energy too high by ``accuracy`` at most.

    Raises:
        PseudopotentialError: a bare nucleus.
    """
    cutoffs = np.arange(1.0, float(_waves().q[0, -1]) ** 2 / 2)
    too_low = cutoffs[energy_lost(pseudopotential, cutoffs) > accuracy]
    return float(too_low.max(initial=0.0)) + 1


def energy_lost(pseudopotential: LocalPseudopotential, cutoffs: ArrayLike) -> NDArray[np.float64]:
    """Hartree by which an atom's energy is too high at cutoffs (n,), hartree: (n,).

    Raises:
        PseudopotentialError: a bare nucleus.
    """
    if pseudopotential.singular:
        raise PseudopotentialError(
            f"{pseudopotential!r} is infinite at the nucleus: Kohn-Sham here needs a "
            "pseudopotential, such as GTH.load('Al', 'gth-pade-q3')"
        )
    waves = _waves()
    lost = _solve_atom(waves, pseudopotential).energy_beyond()[:, 1:].clamp(min=1e-16)
    between = (waves.q[:, 1:] + waves.q[:, :-1]) / 2
    q = np.sqrt(2 * np.asarray(cutoffs, dtype=float))
    by_order = [np.interp(q, x, y) for x, y in zip(between, lost.log(), strict=True)]
    return np.asarray(np.exp(by_order).sum(axis=0))


@lru_cache(maxsize=1)
def _waves() -> SphericalWaves:
    return SphericalWaves(_RADIUS, _ORDERS, _WAVES)


@dataclass(frozen=True, eq=False)
class _Atom:
    """Hamiltonian (l, n, n), levels (l, n), orbitals (l, n, n), electrons in each level (l, n)."""

    hamiltonian: Tensor
    levels: Tensor
    orbitals: Tensor
    electrons: Tensor

    @classmethod
    def filled(cls, hamiltonian: Tensor, valence: float) -> _Atom:
        """The levels of a Hamiltonian with so many electrons in them."""
        levels, orbitals = torch.linalg.eigh(hamiltonian)
        degeneracy = 2 * torch.arange(len(levels), dtype=levels.dtype) + 1
        share = degeneracy / degeneracy.sum()
        per_state = float(valence / degeneracy.sum())
        occupations = _SMEARING.occupations(levels, share, per_state).occupations
        return cls(hamiltonian, levels, orbitals, degeneracy[:, None] * occupations)

    def density(self, waves: SphericalWaves) -> Tensor:
        """Averaged over angles, (n_r,), electrons/bohr^3."""
        squares = (waves.values @ self.orbitals) ** 2
        return (squares @ self.electrons[..., None]).sum(0)[:, 0] / (4 * math.pi)

    def energy_beyond(self) -> Tensor:
        """sum f <b|H - eps|b>, b an orbital's waves n, n + 1, ... of its l: (l, n), hartree."""
        filled = self.orbitals * self.electrons[:, None]
        matrix = (filled @ self.orbitals.mT) * self.hamiltonian
        matrix -= torch.diag_embed((filled * self.orbitals * self.levels[:, None]).sum(-1))
        return matrix.flip(1, 2).cumsum(1).cumsum(2).diagonal(dim1=1, dim2=2).flip(1)


def _solve_atom(waves: SphericalWaves, pseudopotential: LocalPseudopotential) -> _Atom:
    """In the local-density approximation, whatever the functional: it moves no cutoff."""
    valence, shell = pseudopotential.valence, 4 * math.pi * waves.weights
    mixer = AndersonMixer(lambda a, b: shell @ (a * b), damping=0.4)
    ion = _ion(waves, pseudopotential)
    density = torch.exp(-waves.r)
    density *= valence / (shell @ density)
    for _ in range(_STEPS):
        potential = waves.coulomb_potential(density) + _xc_potential(density)
        atom = _Atom.filled(ion + waves.local(potential), valence)
        residual = atom.density(waves) - density
        if shell @ residual.abs() < _TOLERANCE:
            break
        density = mixer.next(density, residual)
    return atom  # not settled, it still shows where its waves end


def _ion(waves: SphericalWaves, pseudopotential: LocalPseudopotential) -> Tensor:
    """Kinetic energy and the pseudopotential with its projectors, (l, n, n)."""
    hamiltonian = waves.kinetic + waves.local(pseudopotential.potential(waves.r))
    for channel in pseudopotential.projectors:
        if channel.order < _ORDERS:
            p = waves.overlaps(channel.order, torch.tensor(channel.radial(waves.r.numpy())))
            h = torch.tensor(channel.strengths, dtype=p.dtype)
            hamiltonian[channel.order] += p.mT @ h @ p
    return hamiltonian


def _xc_potential(density: Tensor) -> Tensor:
    density = density.clamp(min=1e-20)  # mixed ones may be negative somewhere
    _, potential = PerdewZunger().energy_density_and_potential(density, density ** (1 / 3))
    return potential
