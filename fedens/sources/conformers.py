"""Conformers of a molecule by harmonic sampling at a temperature, from PySCF's Hessian.

Mass-weighted coordinates q = sqrt(m) x are split into translations, rotations and normal modes of
frequencies w (Wilson, Decius and Cross, Molecular Vibrations, 1955). A harmonic oscillator at the
temperature T has a normal distribution of q with the variance (Feynman, Statistical Mechanics,
1972, section 2.6)

<q^2> = coth(w / 2kT) / (2 w)

This is the quantum one: at 0 K it is the zero-point motion, and for kT >> w the classical kT / w^2.
It is always the wider of the two, so that what is fitted to it also knows where classical dynamics
at the same temperature go. Bonds to hydrogen need it most: at 500 K they are twice as wide.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from ase.calculators.calculator import Calculator, all_changes
from ase.data import atomic_masses
from numpy.typing import NDArray

from fedens.errors import ConvergenceError, StructureError
from fedens.reference.pyscf.kohn_sham import solve_with_pyscf
from fedens.structure import Structure
from fedens.units import (
    ATOMIC_MASS_IN_ELECTRON_MASSES,
    HARTREE_IN_EV,
    HARTREE_PER_BOHR_IN_EV_PER_ANGSTROM,
    KELVIN_IN_HARTREE,
    WAVE_NUMBER_IN_HARTREE,
)

Array = NDArray[np.float64]

#: Rotations with a smaller share of the largest are those of a linear molecule about its axis.
_NO_ROTATION = 1e-6
#: Largest force of a structure to sample around, hartree/bohr: it moves a bond by 0.02 bohr.
_LARGEST_FORCE = 0.01


@dataclass(frozen=True, eq=False)
class NormalModes:
    """Vibrations of a structure.

    Attributes:
        structure: where the Hessian was taken.
        curvatures: squared frequencies, hartree^2, ascending, (n_modes,); imaginary modes have
            negative ones.
        directions: orthonormal in mass-weighted coordinates, (n_modes, 3 n_atoms).
    """

    structure: Structure
    curvatures: Array
    directions: Array

    @property
    def wave_numbers(self) -> Array:
        """Frequencies, (n_modes,), 1/cm; negative for imaginary ones."""
        size = np.sqrt(np.abs(self.curvatures)) / WAVE_NUMBER_IN_HARTREE
        return np.asarray(np.sign(self.curvatures) * size)

    @property
    def displacements(self) -> Array:
        """Displacement of atoms per unit of each mode, (n_modes, n_atoms, 3), m_e^(-1/2)."""
        directions = self.directions / np.sqrt(_masses(self.structure))
        return directions.reshape(-1, len(self.structure), 3)

    def amplitudes(self, temperature: float) -> Array:
        """Standard deviation of each mode, (n_modes,), bohr m_e^(1/2); 0 for imaginary ones.

        Args:
            temperature: kelvin, 0 or more.
        """
        if not (np.isfinite(temperature) and temperature >= 0):
            raise StructureError(f"temperature is {temperature}: expected kelvin, 0 or more")
        result = np.zeros_like(self.curvatures)
        real = self.curvatures > 0
        frequency = np.sqrt(self.curvatures[real])
        with np.errstate(divide="ignore"):
            ratio = frequency / (2 * KELVIN_IN_HARTREE * np.float64(temperature))
        result[real] = np.sqrt(1 / (2 * frequency * np.tanh(ratio)))
        return result

    def sample(self, count: int, temperature: float, seed: int = 0) -> list[Structure]:
        """Random structures with all modes displaced; a longer series begins with the same ones.

        Args:
            count: how many. temperature: kelvin.

        Raises:
            StructureError: displacements so large that atoms overlap.
        """
        amplitudes, displacements = self.amplitudes(temperature), self.displacements
        structures = []
        for index in range(count):
            random = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(index,)))
            modes = amplitudes * random.standard_normal(len(amplitudes))
            positions = self.structure.positions + np.tensordot(modes, displacements, 1)
            structures.append(self.structure.replace(positions=positions))
        return structures


def conformers(
    structure: Structure,
    count: int,
    temperature: float,
    xc: str = "pbe",
    basis: str = "def2-svp",
    *,
    seed: int = 0,
    relax: bool = False,
    skip_imaginary: bool = False,
) -> list[Structure]:
    """Random structures around a molecule's minimum, each mode as wide as at a temperature.

    Args:
        count: how many. temperature: kelvin. seed: of the random numbers.
        xc, basis: level of theory of the Hessian and of the minimum.
        relax: go to the nearest minimum first.
        skip_imaginary: leave imaginary modes undisplaced instead of raising.

    Raises:
        StructureError: a structure away from its minimum, imaginary modes, a single atom, or
            displacements so large that atoms overlap.
        ConvergenceError: no minimum or no self-consistent field.
    """
    if relax:
        structure = relaxed(structure, xc, basis)
    modes = normal_modes(structure, xc, basis)
    imaginary = modes.wave_numbers[modes.curvatures <= 0]
    if len(imaginary) and not skip_imaginary:
        numbers = ", ".join(f"{-number:.0f}i" for number in imaginary)
        raise StructureError(
            f"{structure.formula} has imaginary modes, {numbers} 1/cm: it is a saddle point; "
            "displace it along them and relax, or pass skip_imaginary=True to leave them at rest"
        )
    return modes.sample(count, temperature, seed)


def normal_modes(structure: Structure, xc: str = "pbe", basis: str = "def2-svp") -> NormalModes:
    """Vibrations of a molecule in its minimum, all electrons, by PySCF.

    Raises:
        StructureError: forces too large for a minimum, or a single atom.
        ConvergenceError, FunctionalError: see
            :func:`fedens.reference.pyscf.kohn_sham.solve_with_pyscf`.
    """
    state = solve_with_pyscf(structure, xc, basis)
    largest = float(np.abs(state.forces).max())
    if largest > _LARGEST_FORCE:
        raise StructureError(
            f"largest force on {structure.formula} is {largest:.3f} hartree/bohr, at a minimum it "
            f"is below {_LARGEST_FORCE}: relax it at the same level of theory, relax=True or "
            "relaxed(structure, xc, basis)"
        )
    hessian = state.mean_field.Hessian()
    hessian.verbose = 0
    matrix = np.asarray(hessian.kernel()).swapaxes(1, 2)
    return modes_of_hessian(structure, matrix.reshape(structure.positions.size, -1))


def modes_of_hessian(structure: Structure, hessian: Array) -> NormalModes:
    """Vibrations from a Hessian (3 n_atoms, 3 n_atoms), hartree/bohr^2.

    Raises:
        StructureError: a single atom, or a Hessian of wrong shape or that is not finite.
    """
    size = structure.positions.size
    if len(structure) < 2:
        raise StructureError(f"{structure.formula} is a single atom, which does not vibrate")
    if hessian.shape != (size, size) or not np.isfinite(hessian).all():
        raise StructureError(
            f"Hessian has shape {hessian.shape}: expected finite numbers ({size}, {size})"
        )
    roots = np.sqrt(_masses(structure))
    inner = _vibrations(structure)
    matrix = inner @ (hessian / np.outer(roots, roots)) @ inner.T
    curvatures, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    return NormalModes(structure, curvatures, vectors.T @ inner)


def relaxed(
    structure: Structure,
    xc: str = "pbe",
    basis: str = "def2-svp",
    *,
    largest_force: float = 2e-4,
    max_steps: int = 200,
) -> Structure:
    """The nearest minimum of a molecule's energy, by ASE's BFGS with PySCF's forces.

    Args:
        largest_force: on any atom, to stop at, hartree/bohr.

    Raises:
        ConvergenceError: not there after ``max_steps`` (the structure so far is in ``.result``).
    """
    from ase.optimize import BFGS

    atoms = structure.to_ase()
    atoms.calc = _KohnSham(structure, xc, basis)
    with BFGS(atoms, logfile=None) as search:
        found = search.run(largest_force * HARTREE_PER_BOHR_IN_EV_PER_ANGSTROM, max_steps)
    result = structure.replace(positions=Structure.from_ase(atoms).positions)
    if not found:
        raise ConvergenceError(
            f"{structure.formula}: forces above {largest_force:g} hartree/bohr after {max_steps} "
            "steps; try more, or start nearer to the minimum",
            result,
        )
    return result


class _KohnSham(Calculator):
    """PySCF's energy and forces for ASE's optimisers."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012

    def __init__(self, structure: Structure, xc: str, basis: str):
        super().__init__()
        self._structure, self._level = structure, (xc, basis)
        self._start: Array | None = None

    def calculate(
        self, atoms: Any = None, properties: Any = None, system_changes: Any = all_changes
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        assert self.atoms is not None
        positions = Structure.from_ase(self.atoms).positions
        moved = self._structure.replace(positions=positions)
        state = solve_with_pyscf(moved, *self._level, density_matrix=self._start)
        # the next structure is close to this one
        self._start = state.spin_density_matrix
        self.results = {
            "energy": state.energy * HARTREE_IN_EV,
            "forces": state.forces * HARTREE_PER_BOHR_IN_EV_PER_ANGSTROM,
        }


def _masses(structure: Structure) -> Array:
    """Mass of each coordinate, average of the isotopes, (3 n_atoms,), electron masses."""
    return np.repeat(atomic_masses[structure.numbers] * ATOMIC_MASS_IN_ELECTRON_MASSES, 3)


def _vibrations(structure: Structure) -> Array:
    """Orthonormal mass-weighted directions without translations and rotations, (n, 3 n_atoms)."""
    masses = _masses(structure)
    weights = masses[::3] / masses[::3].sum()
    centred = structure.positions - weights @ structure.positions
    axes = np.eye(3)
    shifts = np.tile(axes, len(structure))
    turns = np.array([np.cross(axis, centred).ravel() for axis in axes])
    spans = []
    for kind in (shifts, turns):
        _, sizes, rows = np.linalg.svd(kind * np.sqrt(masses), full_matrices=False)
        spans.append(rows[sizes > _NO_ROTATION * sizes[0]])
    rigid = np.concatenate(spans)
    return np.asarray(np.linalg.svd(rigid)[2][len(rigid) :])
