"""Random thermal cells of a crystal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from fedens.structure import Structure
from fedens.units import BOHR_IN_ANGSTROM

if TYPE_CHECKING:
    from ase import Atoms

_GOLDEN_RATIO = (5**0.5 - 1) / 2


@dataclass(frozen=True)
class ThermalCells:
    """A series of fcc supercells with random displacements, strains and vacancies.

    A structure depends on nothing but the seed, its place in the series and the parameters other
    than ``count``: a longer series begins with the same structures.

    Attributes:
        element: chemical symbol. lattice_constant: of the cubic cell, bohr.
        cell: ``cubic``, 4 sites in a cube of the lattice constant a; ``tetragonal``, 2 sites in
            a/sqrt(2), a/sqrt(2), a: the smallest cell of the crystal with right angles.
        supercell: such cells along x, y, z. count: structures in the series.
        displacement: smallest and largest standard deviation of a coordinate, bohr.
        strain: largest relative change of an axis, each its own; angles stay right.
        vacancy_fraction: share of the structures with one atom missing.
    """

    element: str = "Al"
    lattice_constant: float = 7.65
    cell: Literal["cubic", "tetragonal"] = "cubic"
    supercell: tuple[int, int, int] = (2, 2, 2)
    count: int = 24
    displacement: tuple[float, float] = (0.05, 0.4)
    strain: float = 0.02
    vacancy_fraction: float = 0.5

    def structures(self, seed: int = 0) -> list[Structure]:
        """The series; errors of :meth:`structure`."""
        return [self.structure(index, seed) for index in range(self.count)]

    def further(self, count: int, seed: int = 0) -> dict[int, Structure]:
        """Those that go on where the series ends; errors of :meth:`structure`."""
        places = range(self.count, self.count + count)
        return {index: self.structure(index, seed) for index in places}

    def structure(self, index: int, seed: int = 0) -> Structure:
        """One of the series, from 0.

        Raises:
            StructureError: displacements so large that atoms overlap.
        """
        sites = Structure.from_ase(self._unit_cell() * self.supercell)
        assert sites.cell is not None
        random = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(index,)))
        stretch = 1 + random.uniform(-self.strain, self.strain, 3)
        shifts = self.displacement_amplitude(index) * random.standard_normal((len(sites), 3))
        missing = [random.integers(len(sites))] if self.has_vacancy(index) else []
        return Structure(
            np.delete(sites.numbers, missing),
            np.delete(sites.positions * stretch + shifts, missing, axis=0),
            cell=sites.cell * stretch,
            pbc=True,
        )

    def _unit_cell(self) -> Atoms:
        from ase import Atoms
        from ase.build import bulk

        a = self.lattice_constant * BOHR_IN_ANGSTROM
        if self.cell == "cubic":
            return bulk(self.element, "fcc", a=a, cubic=True)
        edges = (a / 2**0.5, a / 2**0.5, a)
        sites = [(0, 0, 0), (0.5, 0.5, 0.5)]
        return Atoms([self.element] * 2, scaled_positions=sites, cell=edges, pbc=True)

    def displacement_amplitude(self, index: int) -> float:
        """Standard deviation of each coordinate of structure ``index``, bohr.

        Multiples of the golden ratio cover the range evenly in every stretch of the series, with
        and without vacancies, however long the series is.
        """
        low, high = self.displacement
        return low + (high - low) * ((0.5 + index * _GOLDEN_RATIO) % 1)

    def has_vacancy(self, index: int) -> bool:
        """Whether structure ``index`` misses an atom; at a share of 0.5, every second one."""
        share, rounding = self.vacancy_fraction, 1e-9
        return int((index + 1) * share + rounding) > int(index * share + rounding)
