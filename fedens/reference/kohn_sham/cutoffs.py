"""What one atom of an element tells: its density, and the cutoff that its orbitals need.

A cutoff leaves out the waves beyond it. Of an orbital a + b, b these waves, a remains, and its
energy is <b|H - eps|b> higher.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedens.energy.electrostatics import find_pseudopotential
from fedens.energy.kohn_sham import KohnSham
from fedens.energy.pseudopotential import LocalPseudopotential
from fedens.errors import PseudopotentialError
from fedens.reference.kohn_sham.confined_atom import ConfinedAtom, SphericalWaves, solve_atom
from fedens.reference.kohn_sham.smearing import Smearing
from fedens.structure import Structure, check_is_structure

#: Angular momenta, and waves of each: up to 1600 hartree.
_N_ORDERS, _N_WAVES = 4, 90
# Found by comparing with crystals and molecules (tests/test_cutoffs.py): a sphere as narrow as an
# atom's room in a solid, and so warm that electrons get into the levels that bonds use. Without
# them, above all d in aluminium and silicon, an atom loses a fifth of what the crystal does.
_RADIUS = 5.0  # bohr
_SMEARING = Smearing(0.1)  # hartree


def default_cutoff(structure: Structure, functional: KohnSham, accuracy: float = 2e-5) -> float:
    """Kinetic energy up to which orbitals need modes, whole hartree.

    The largest :func:`atomic_cutoff` of the structure's elements. At the accuracy of 2e-5
    hartree/atom energies of crystals and molecules are within 1 meV/atom of their limit. Alkali
    metals and Ca get more than they need, metallic hydrogen a little less (1.5 meV/atom).

    Raises:
        PseudopotentialError: an element without a pseudopotential, or a bare nucleus.
    """
    check_is_structure(structure)
    potentials = functional.pseudopotentials
    return max(
        atomic_cutoff(find_pseudopotential(potentials, symbol), accuracy)
        for symbol in set(structure.symbols)
    )


@lru_cache(maxsize=256)
def atomic_cutoff(pseudopotential: LocalPseudopotential, accuracy: float) -> float:
    """Lowest whole cutoff, hartree, that leaves an atom's energy too high by ``accuracy`` at most.

    Never above 1600 hartree, where the atom's own waves end.

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
    lost = _atom(pseudopotential).energy_beyond()[:, 1:].clamp(min=1e-16)
    between = (waves.q[:, 1:] + waves.q[:, :-1]) / 2
    q = np.sqrt(2 * np.asarray(cutoffs, dtype=float))
    by_order = [np.interp(q, x, y) for x, y in zip(between, lost.log(), strict=True)]
    return np.asarray(np.exp(by_order).sum(axis=0))


def atomic_density(
    pseudopotential: LocalPseudopotential,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Radii up to the atom's room in a solid (n,), bohr, and its density there, electron/bohr^3."""
    waves = _waves()
    return waves.r.numpy(), _atom(pseudopotential).density(waves).numpy()


@lru_cache(maxsize=64)
def _atom(pseudopotential: LocalPseudopotential) -> ConfinedAtom:
    return solve_atom(_waves(), pseudopotential, _SMEARING)


@lru_cache(maxsize=1)
def _waves() -> SphericalWaves:
    return SphericalWaves(_RADIUS, _N_ORDERS, _N_WAVES)
