"""Point defects in a crystal: a large ball with clamped surroundings, or a periodic supercell.

Crystals are cubic lattices with one atom per lattice point (fcc, bcc), whose sites have integer
coordinates in units of half a lattice constant; the defect sits at the origin.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from ase.build import bulk
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from fedens.errors import StructureError
from fedens.generalisation.potential import Array, Potential
from fedens.structure import Structure
from fedens.units import BOHR_IN_ANGSTROM, HARTREE_PER_BOHR3_IN_EV_PER_ANGSTROM3

#: Stress of a crystal that counts as relaxed, hartree/bohr^3 (3e-5 GPa).
STRESS_TOLERANCE = 1e-9
#: Distance of a dumbbell's atoms from their site, in lattice constants.
_DUMBBELL = 0.3


@dataclass(frozen=True)
class Crystal:
    """A cubic crystal with one atom per lattice point.

    Args:
        element: chemical symbol. lattice_constant: bohr. lattice: ``fcc`` or ``bcc``.
    """

    element: str
    lattice_constant: float
    lattice: str = "fcc"

    def __post_init__(self) -> None:
        if self.lattice not in ("fcc", "bcc"):
            raise StructureError(f"lattice is {self.lattice!r}; expected fcc or bcc")
        if not self.lattice_constant > 0:
            raise StructureError(f"lattice constant is {self.lattice_constant} bohr")

    def cell(self, repeats: int = 1) -> Structure:
        """A cubic supercell of so many cubic cells along each axis, an atom at the origin."""
        edge = self.lattice_constant * BOHR_IN_ANGSTROM
        return Structure.from_ase(
            bulk(self.element, self.lattice, a=edge, cubic=True) * (repeats, repeats, repeats)
        )

    def repeats_beyond(self, length: float) -> int:
        """Cubic cells along an edge of the smallest supercell longer than ``length`` bohr."""
        return int(np.floor(length / self.lattice_constant)) + 1

    @property
    def atomic_volume(self) -> float:
        """Volume of an atom, bohr^3."""
        return self.lattice_constant**3 / len(self.cell())

    @property
    def neighbour_distance(self) -> float:
        """Distance of nearest neighbours, bohr."""
        return self.lattice_constant * (0.5**0.5 if self.lattice == "fcc" else 0.75**0.5)

    def ball(self, radius: float) -> Structure:
        """All sites within ``radius`` bohr of the site at the origin, nearest first."""
        n = int(np.ceil(radius / self.lattice_constant))
        cells = np.stack(np.meshgrid(*[np.arange(-n, n + 1)] * 3, indexing="ij"), axis=-1)
        basis = self.cell().positions
        sites = (cells.reshape(-1, 1, 3) * self.lattice_constant + basis).reshape(-1, 3)
        distances = np.linalg.norm(sites, axis=1)
        kept = np.flatnonzero(distances <= radius * (1 + 1e-12))
        kept = kept[np.argsort(distances[kept].round(9), kind="stable")]
        return Structure([self.element] * len(kept), sites[kept])


@dataclass(frozen=True, eq=False)
class Defect:
    """Atoms of a defect before relaxation, and the crystal they came from.

    Attributes:
        structure: the atoms. sites: the lattice site each belongs to, (n_atoms, 3), bohr.
        free: which may move. perfect: the same region of the perfect crystal.
        crystal: the crystal. radius: of the free ball, bohr; of a supercell, half its edge.
    """

    structure: Structure
    sites: Array
    free: NDArray[np.bool_]
    perfect: Structure
    crystal: Crystal
    radius: float

    @property
    def missing(self) -> int:
        """Atoms of the perfect region that are not here; negative for interstitials."""
        return len(self.perfect) - len(self.structure)

    @property
    def perfect_free(self) -> NDArray[np.bool_] | None:
        """Which atoms of the perfect region may move; None for all, in a supercell."""
        if self.structure.periodic:
            return None
        return np.linalg.norm(self.perfect.positions, axis=1) <= self.radius * (1 + 1e-12)

    @property
    def distances(self) -> Array:
        """Distance of each atom's site from the defect, (n_atoms,), bohr."""
        return np.linalg.norm(minimum_image(self.sites, self.structure), axis=1)


#: Changes a perfect region into one with a defect: (positions, lattice constant) -> positions and
#: sites, nearest the origin first.
DefectMaker = Callable[[Array, float], tuple[Array, Array]]


def vacancy(sites: Array, lattice_constant: float) -> tuple[Array, Array]:
    """Without the atom at the origin."""
    del lattice_constant
    kept = np.delete(sites, _nearest_the_origin(sites), axis=0)
    return kept, kept


def divacancy(sites: Array, lattice_constant: float) -> tuple[Array, Array]:
    """Without two neighbours, of fcc or bcc: the origin and a site nearest to it."""
    del lattice_constant
    kept = np.delete(sites, cKDTree(sites).query(np.zeros(3), k=2)[1], axis=0)
    return kept, kept


def dumbbell(sites: Array, lattice_constant: float) -> tuple[Array, Array]:
    """A self-interstitial: two atoms along <100> that share the site at the origin."""
    at = _nearest_the_origin(sites)
    shift = np.array([_DUMBBELL * lattice_constant, 0.0, 0.0])
    rest = np.delete(sites, at, axis=0)
    pair = np.stack([sites[at] + shift, sites[at] - shift])
    return np.concatenate([pair, rest]), np.concatenate([sites[[at, at]], rest])


DEFECTS: dict[str, DefectMaker] = {
    "vacancy": vacancy,
    "divacancy": divacancy,
    "dumbbell": dumbbell,
}


def defect_in_ball(crystal: Crystal, kind: str, radius: float, cutoff: float) -> Defect:
    """A defect in the middle of a ball of free atoms, clamped outside of it.

    Args:
        kind: one of :data:`DEFECTS`. radius: of the free ball, bohr.
        cutoff: of the potential, bohr: the clamped atoms reach twice as far beyond the ball, so
            that no free atom feels the surface.

    Raises:
        StructureError: for an unknown kind, or a ball without free atoms.
    """
    perfect = crystal.ball(radius + 2 * cutoff)
    positions, sites = _maker(kind)(perfect.positions, crystal.lattice_constant)
    free = np.linalg.norm(sites, axis=1) <= radius
    if not free.any():
        raise StructureError(f"a ball of radius {radius:.3g} bohr around a {kind} has no free atom")
    structure = Structure([crystal.element] * len(positions), positions)
    return Defect(structure, sites, free, perfect, crystal, radius)


def defect_in_supercell(crystal: Crystal, kind: str, repeats: int) -> Defect:
    """A defect at the origin of a periodic cubic supercell; every atom is free."""
    perfect = crystal.cell(repeats)
    positions, sites = _maker(kind)(
        minimum_image(perfect.positions, perfect), crystal.lattice_constant
    )
    structure = Structure([crystal.element] * len(positions), positions, perfect.cell, pbc=True)
    free = np.ones(len(positions), dtype=bool)
    radius = repeats * crystal.lattice_constant / 2
    return Defect(structure, sites, free, perfect, crystal, radius)


def minimum_image(vectors: Array, structure: Structure) -> Array:
    """Vectors moved by cell vectors to be shortest, for periodic orthorhombic structures."""
    if not structure.periodic:
        return vectors
    edges = structure.orthorhombic_lengths()
    return vectors - edges * np.round(vectors / edges - 1e-9)


def check_relaxed(
    potential: Potential, crystal: Crystal, tolerance: float = STRESS_TOLERANCE
) -> None:
    """Refuse a crystal that is not in equilibrium.

    Args:
        tolerance: of the stress, hartree/bohr^3.

    Raises:
        StructureError: with the stress, and which way the lattice constant should change.
    """
    stress = crystal_stress(potential, crystal)
    if abs(stress) > tolerance:
        value = stress * HARTREE_PER_BOHR3_IN_EV_PER_ANGSTROM3
        raise StructureError(
            f"the crystal is not relaxed: the reference has a stress of {value:.3e} eV/angstrom^3 "
            f"at the lattice constant {crystal.lattice_constant * BOHR_IN_ANGSTROM:.6f} angstrom, "
            f"which is too {'large' if stress > 0 else 'small'}; take relaxed_crystal's"
        )


def crystal_stress(potential: Potential, crystal: Crystal) -> float:
    """A third of the trace of the stress, hartree/bohr^3; positive when stretched."""
    cell = crystal.cell()
    virial = potential.bind(cell).virial(cell.positions)
    return float(np.trace(virial)) / (3 * cell.volume)


def relaxed_crystal(potential: Potential, element: str, guess: float) -> Crystal:
    """The crystal of vanishing stress, within 10 % of a guessed lattice constant (bohr).

    Raises:
        StructureError: no change of sign of the stress within these 10 %.
    """
    from scipy.optimize import brentq

    def stress(length: float) -> float:
        return crystal_stress(potential, Crystal(element, length))

    low, high = 0.9 * guess, 1.1 * guess
    if stress(low) * stress(high) > 0:
        raise StructureError(
            f"no equilibrium of {element} within 10 % of the lattice constant "
            f"{guess * BOHR_IN_ANGSTROM:.4f} angstrom: the stress has the same sign at both ends; "
            "give a better guess"
        )
    return Crystal(element, brentq(stress, low, high, xtol=1e-13, rtol=1e-15))


def _maker(kind: str) -> DefectMaker:
    if kind not in DEFECTS:
        raise StructureError(f"defect {kind!r} is not known; expected one of {sorted(DEFECTS)}")
    return DEFECTS[kind]


def _nearest_the_origin(sites: Array) -> int:
    return int(np.argmin(np.linalg.norm(sites, axis=1)))
