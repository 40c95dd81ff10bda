"""Energies as functions of positions: what the analysis asks of a reference or a model.

A :class:`Potential` is bound to a structure once, which prepares neighbour lists or meshes, and
then asked at many positions of the same atoms. Everything is in hartree and bohr.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedens.errors import ModelError
from fedens.structure import Structure
from fedens.units import (
    BOHR_IN_ANGSTROM,
    HARTREE_IN_EV,
    HARTREE_PER_BOHR3_IN_EV_PER_ANGSTROM3,
    HARTREE_PER_BOHR_IN_EV_PER_ANGSTROM,
)

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator

Array: TypeAlias = NDArray[np.float64]

#: Displacement of the central differences of forces, bohr: the third-order error is below 1e-4 of
#: a force constant, and forces good to 1e-6 give as much.
DIFFERENCE_STEP = 0.01


class BoundPotential(Protocol):
    """The energy of one set of atoms. Positions and forces are (n_atoms, 3)."""

    def energy_and_forces(self, positions: Array) -> tuple[float, Array]:
        """Energy, hartree, and forces, hartree/bohr."""

    def hessian(self, positions: Array) -> Callable[[Array], Array]:
        """The product of the Hessian at these positions with a displacement."""

    def virial(self, positions: Array) -> Array:
        """Derivative of the energy by a homogeneous strain, (3, 3), hartree."""


class Potential(Protocol):
    """An energy for any structure."""

    @property
    def cutoff(self) -> float:
        """How far the energy of an atom sees, bohr; its forces see twice as far."""

    def bind(self, structure: Structure, free: NDArray[np.bool_] | None = None) -> BoundPotential:
        """The energy of these atoms; only those ``free`` (default: all) will ever move."""


def difference_product(
    bound: BoundPotential, positions: Array, step: float = DIFFERENCE_STEP
) -> Callable[[Array], Array]:
    """The Hessian's product by central differences of forces, for energies without a better one."""

    def product(direction: Array) -> Array:
        size = np.abs(direction).max()
        if size == 0:
            return np.zeros_like(direction)
        shift = step / size * direction
        ahead = bound.energy_and_forces(positions + shift)[1]
        behind = bound.energy_and_forces(positions - shift)[1]
        return (behind - ahead) * (size / (2 * step))

    return product


class AsePotential:
    """Any ASE calculator, such as :class:`fedens.calculator.Calculator` of a model or the solver.

    Args:
        calculator: the calculator. cutoff: how far the energy of an atom sees, bohr. Calculators
            do not tell; for densities it is where the response to a moved atom has decayed.
        step: displacement of the central differences that stand for the Hessian, bohr.
    """

    def __init__(self, calculator: Calculator, cutoff: float, step: float = DIFFERENCE_STEP):
        self.calculator, self.cutoff, self.step = calculator, cutoff, step

    def bind(self, structure: Structure, free: NDArray[np.bool_] | None = None) -> _BoundAse:
        """See :class:`Potential`."""
        del free
        return _BoundAse(self.calculator, structure, self.step)


class _BoundAse:
    def __init__(self, calculator: Calculator, structure: Structure, step: float):
        self._atoms = structure.to_ase()
        self._atoms.calc = calculator
        self._step = step

    def energy_and_forces(self, positions: Array) -> tuple[float, Array]:
        self._atoms.positions = positions * BOHR_IN_ANGSTROM
        forces = self._atoms.get_forces() / HARTREE_PER_BOHR_IN_EV_PER_ANGSTROM
        energy = self._atoms.get_potential_energy() / HARTREE_IN_EV
        if not (np.isfinite(forces).all() and np.isfinite(energy)):
            raise ModelError(
                f"the calculator {type(self._atoms.calc).__name__} gave energy {energy} and forces "
                "that are not all finite: the atoms may have left what it is made for"
            )
        return float(energy), forces

    def hessian(self, positions: Array) -> Callable[[Array], Array]:
        return difference_product(self, positions, self._step)

    def virial(self, positions: Array) -> Array:
        self._atoms.positions = positions * BOHR_IN_ANGSTROM
        stress = self._atoms.get_stress(voigt=False) / HARTREE_PER_BOHR3_IN_EV_PER_ANGSTROM3
        return stress * (self._atoms.get_volume() / BOHR_IN_ANGSTROM**3)
