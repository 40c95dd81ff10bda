"""An atom confined to a sphere, in waves j_l(q r) Y_lm that vanish at its wall.

Arrays have an axis for the angular momenta l = 0, 1, ... and one for the n waves of each.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.polynomial.legendre import leggauss
from numpy.typing import NDArray
from scipy.special import spherical_jn
from torch import Tensor

from fedens.energy.pseudopotential import LocalPseudopotential
from fedens.energy.xc import PerdewZunger
from fedens.reference.kohn_sham.mixing import AndersonMixer
from fedens.reference.kohn_sham.smearing import Smearing

#: Electrons that change place in the last step of self-consistency, and most steps.
_TOLERANCE, _STEPS = 1e-6, 60


class SphericalWaves:
    """The lowest waves of each angular momentum in a sphere, orthonormal.

    Args:
        radius: of the sphere, bohr.
        n_orders: angular momenta l = 0, 1, ...
        n_waves: of each of them, n.

    Attributes:
        q: wave numbers, (n_orders, n), 1/bohr.
        r, weights: n_r radii, bohr, and int f r^2 dr = weights @ f.
        values: radial parts at the radii, (n_orders, n_r, n).
    """

    def __init__(self, radius: float, n_orders: int, n_waves: int):
        self.radius = radius
        # so many Gauss points integrate products of two waves, and smooth potentials, exactly
        nodes, weights = leggauss(3 * n_waves + 20)
        r = radius * (nodes + 1) / 2
        q = [_zeros(order, n_waves) / radius for order in range(n_orders)]
        values = [_normalised(order, q[order], r, radius) for order in range(n_orders)]
        self.q = torch.tensor(np.stack(q))
        self.r, self.weights = torch.tensor(r), torch.tensor(weights * r**2 * radius / 2)
        self.values = torch.tensor(np.stack(values))

    @cached_property
    def kinetic(self) -> Tensor:
        """Kinetic energy, (n_orders, n, n), hartree."""
        return torch.diag_embed(self.q**2 / 2)

    def overlaps(self, order: int, functions: Tensor) -> Tensor:
        """int f j r^2 dr of radial functions (k, n_r) with the waves of one l: (k, n)."""
        return (functions * self.weights) @ self.values[order]

    def local(self, potential: Tensor) -> Tensor:
        """Matrices (n_orders, n, n) of a potential v(r) at the radii, (n_r,)."""
        return self.values.mT @ ((self.weights * potential)[:, None] * self.values)

    def coulomb_potential(self, density: Tensor) -> Tensor:
        """Potential (n_r,), hartree, of a spherical density (n_r,) that ends at the wall."""
        spheres = self.values[0]
        inside = spheres @ (4 * math.pi / self.q[0] ** 2 * self.overlaps(0, density[None])[0])
        return inside + 4 * math.pi * self.weights @ density / self.radius


@dataclass(frozen=True, eq=False)
class ConfinedAtom:
    """An atom's Hamiltonian and filled levels.

    Levels of one l hold 2 (2 l + 1) electrons, spread evenly over spin and angles.

    Attributes:
        hamiltonian: (n_orders, n, n), hartree. levels: its eigenvalues, (n_orders, n).
        orbitals: coefficients of the waves, (n_orders, n, n), a column for each level.
        electrons: in each level, (n_orders, n).
    """

    hamiltonian: Tensor
    levels: Tensor
    orbitals: Tensor
    electrons: Tensor

    @classmethod
    def filled(cls, hamiltonian: Tensor, electrons: float, smearing: Smearing) -> ConfinedAtom:
        """The levels of a Hamiltonian with electrons in them."""
        levels, orbitals = torch.linalg.eigh(hamiltonian)
        states = 2 * torch.arange(len(levels), dtype=levels.dtype) + 1
        total = float(states.sum())
        filled = smearing.occupations(levels, states / total, electrons / total)
        return cls(hamiltonian, levels, orbitals, states[:, None] * filled.occupations)

    def density(self, waves: SphericalWaves) -> Tensor:
        """Averaged over angles, (n_r,), electron/bohr^3."""
        squares = (waves.values @ self.orbitals) ** 2
        return (squares @ self.electrons[..., None]).sum(0)[:, 0] / (4 * math.pi)

    def energy_beyond(self) -> Tensor:
        """sum f <b|H - eps|b>, b an orbital's waves i, i + 1, ... of its l: (n_orders, n)."""
        filled = self.orbitals * self.electrons[:, None]
        matrix = (filled @ self.orbitals.mT) * self.hamiltonian
        matrix -= torch.diag_embed((filled * self.orbitals * self.levels[:, None]).sum(-1))
        return matrix.flip(1, 2).cumsum(1).cumsum(2).diagonal(dim1=1, dim2=2).flip(1)


def solve_atom(
    waves: SphericalWaves, pseudopotential: LocalPseudopotential, smearing: Smearing
) -> ConfinedAtom:
    """The neutral atom in the local-density approximation of Perdew and Zunger.

    Projectors of angular momenta that the waves lack are left out.
    """
    valence, shell = pseudopotential.valence, 4 * math.pi * waves.weights
    mixer = AndersonMixer(lambda a, b: shell @ (a * b), damping=0.4)
    ion = _ion(waves, pseudopotential)
    density = torch.exp(-waves.r)
    density *= valence / (shell @ density)
    for _ in range(_STEPS):
        potential = waves.coulomb_potential(density) + _xc_potential(density)
        atom = ConfinedAtom.filled(ion + waves.local(potential), valence, smearing)
        residual = atom.density(waves) - density
        if shell @ residual.abs() < _TOLERANCE:
            break
        density = mixer.next(density, residual)
    return atom  # unsettled it still shows where its waves end


def _ion(waves: SphericalWaves, pseudopotential: LocalPseudopotential) -> Tensor:
    """Kinetic energy and the pseudopotential with its projectors, (l, n, n)."""
    hamiltonian = waves.kinetic + waves.local(pseudopotential.potential(waves.r))
    for channel in pseudopotential.projectors:
        if channel.order < len(hamiltonian):
            p = waves.overlaps(channel.order, torch.tensor(channel.radial(waves.r.numpy())))
            h = torch.tensor(channel.strengths, dtype=p.dtype)
            hamiltonian[channel.order] += p.mT @ h @ p
    return hamiltonian


def _xc_potential(density: Tensor) -> Tensor:
    density = density.clamp(min=1e-20)  # mixed ones may be negative somewhere
    _, potential = PerdewZunger().energy_density_and_potential(density, density ** (1 / 3))
    return potential


def _zeros(order: int, count: int) -> NDArray[np.float64]:
    """The first positive zeros of j_l, by Newton's method from their asymptotes."""
    asymptote = (np.arange(1, count + 1) + order / 2) * math.pi
    x = asymptote - order * (order + 1) / (2 * asymptote)
    for _ in range(6):
        x = x - spherical_jn(order, x) / spherical_jn(order, x, derivative=True)
    return x


def _normalised(
    order: int, q: NDArray[np.float64], r: NDArray[np.float64], radius: float
) -> NDArray[np.float64]:
    # int_0^R j_l(q r)^2 r^2 dr = R^3 j_(l+1)(q R)^2 / 2 where j_l(q R) = 0
    norm = math.sqrt(radius**3 / 2) * np.abs(spherical_jn(order + 1, q * radius))
    return spherical_jn(order, np.outer(r, q)) / norm
