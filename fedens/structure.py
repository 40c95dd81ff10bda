"""Atoms: what a calculation is about, in bohr, validated and frozen."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.data import atomic_numbers, chemical_symbols
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from fedens.errors import StructureError
from fedens.units import BOHR_IN_ANGSTROM

if TYPE_CHECKING:
    from ase import Atoms

#: Two nuclei closer than this (bohr) are taken for a mistake in the input.
MINIMUM_DISTANCE = 0.5

#: Atoms closer than this (bohr) share one site.
SAME_SITE = 1e-6

#: Coordinates beyond this (bohr) lose the digits that distances need.
MAXIMUM_COORDINATE = 1e9

#: Largest ratio of a periodic cell's heights; the neighbour search breaks beyond 300.
MAXIMUM_ASPECT = 200.0


@dataclass(frozen=True, eq=False)
class Structure:
    """Atoms in an isolated or periodic arrangement. Arrays are float64, lengths in bohr.

    Args:
        numbers: atomic numbers or chemical symbols, (n_atoms,); none at all where there is a
            periodic cell, for electrons in a model potential.
        positions: (n_atoms, 3), bohr.
        cell: rows are lattice vectors, (3, 3), or three lengths of an orthorhombic cell; bohr.
            ``None`` for isolated atoms.
        pbc: one flag or three, whether each axis is periodic.
        charge: total charge in elementary charges (positive: electrons missing).
        spin: number of unpaired electrons, 2S.
        occupancies: share of each site that is filled, (n_atoms,), in [0, 1]; default 1. Atoms
            may share a site, each a fraction of it: entries at the same position whose
            occupancies add up to at most 1, such as 0.3 silicon and 0.7 aluminium.

    Raises:
        StructureError: for anything that is not a structure: NaN, wrong shapes, unknown
            elements, overlapping atoms, a periodic axis without a cell vector.
    """

    numbers: NDArray[np.int64]
    positions: NDArray[np.float64]
    cell: NDArray[np.float64] | None
    pbc: NDArray[np.bool_]
    charge: float
    spin: int
    occupancies: NDArray[np.float64]

    def __init__(
        self,
        numbers: ArrayLike,
        positions: ArrayLike,
        cell: ArrayLike | None = None,
        pbc: bool | ArrayLike = False,
        charge: float = 0.0,
        spin: int = 0,
        occupancies: ArrayLike | None = None,
    ):
        values: dict[str, Any] = {
            "numbers": _atomic_numbers(numbers),
            "positions": _floats("positions", positions),
            "cell": _cell(cell),
            "pbc": _pbc(pbc),
            "charge": float(_floats("charge", charge)),
            "spin": _spin(spin),
        }
        n_atoms = len(values["numbers"])
        values["occupancies"] = (
            np.ones(n_atoms) if occupancies is None else _floats("occupancies", occupancies)
        )
        for name, value in values.items():
            if isinstance(value, np.ndarray):
                value.setflags(write=False)
            object.__setattr__(self, name, value)
        self._validate()

    @property
    def digest(self) -> str:
        """SHA-256 of everything the structure holds: equal for the same structure, to the bit."""
        content = hashlib.sha256()
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            if value is not None:
                content.update(name.encode() + np.asarray(value).tobytes())
        return content.hexdigest()

    def _validate(self) -> None:
        n_atoms = len(self.numbers)
        if self.positions.shape != (n_atoms, 3):
            raise StructureError(
                f"positions have shape {self.positions.shape}, expected ({n_atoms}, 3) "
                f"for {n_atoms} atomic numbers"
            )
        bad = np.flatnonzero(~(np.abs(self.positions) < MAXIMUM_COORDINATE).all(axis=1))
        if len(bad):
            raise StructureError(
                f"position of atom {bad[0]} is {self.positions[bad[0]]}: not a finite length "
                "in bohr; check the file or the step that made it"
            )
        occupancies = self.occupancies
        if occupancies.shape != (n_atoms,) or not ((occupancies >= 0) & (occupancies <= 1)).all():
            raise StructureError(f"occupancies must be ({n_atoms},) numbers between 0 and 1")
        if not np.isfinite(self.charge):
            raise StructureError(f"charge is {self.charge}: not a finite number")
        if self.pbc.all():
            self._refuse_flat_cell()
        elif not n_atoms:
            raise StructureError("a structure needs at least one atom, or a periodic cell")
        self._refuse_overlaps()

    def _refuse_flat_cell(self) -> None:
        if self.cell is None:
            raise StructureError("a periodic structure needs a cell (bohr); none was given")
        if abs(np.linalg.det(self.cell)) < 1e-6:
            raise StructureError(f"cell vectors span no volume: {self.cell.tolist()} bohr")
        heights = 1.0 / np.linalg.norm(np.linalg.inv(self.cell), axis=0)
        if heights.min() < MINIMUM_DISTANCE or heights.max() > MAXIMUM_ASPECT * heights.min():
            raise StructureError(
                f"cell {self.cell.tolist()} bohr is only {heights.min():.3g} bohr high in one "
                f"direction and {heights.max():.3g} bohr in another; expected at least "
                f"{MINIMUM_DISTANCE} bohr and a ratio below {MAXIMUM_ASPECT:g}: check the units"
            )

    def _refuse_overlaps(self) -> None:
        if not len(self) or self._has_no_close_pair():
            return
        first, second, _, distances = self.neighbours(MINIMUM_DISTANCE)
        shared = distances < SAME_SITE
        self._refuse_crowded_sites(first[shared], second[shared])
        first, second, distances = first[~shared], second[~shared], distances[~shared]
        if len(distances):
            i = int(np.argmin(distances))
            raise StructureError(
                f"atoms {first[i]} and {second[i]} are {distances[i]:.3f} bohr apart, closer than "
                f"{MINIMUM_DISTANCE} bohr: check positions, cell and units (bohr expected)"
            )

    def _refuse_crowded_sites(self, first: NDArray[np.int64], second: NDArray[np.int64]) -> None:
        """Refuse atoms (ordered pairs of indices) that fill the site they share more than once."""
        others = np.bincount(first, weights=self.occupancies[second], minlength=len(self))
        filled = self.occupancies + others
        crowded = np.flatnonzero(filled[first] > 1 + 1e-9)
        if len(crowded):
            i, j = first[crowded[0]], second[crowded[0]]
            raise StructureError(
                f"atoms {i} and {j} share a site, which is filled {filled[i]:g} times: occupancies "
                "of a shared site must add up to at most 1; if it should not be shared, check "
                "positions, cell and units (bohr expected)"
            )

    def _has_no_close_pair(self) -> bool:
        """A quick look at orthorhombic cells, which most are; False leaves it to the full one."""
        if not self.periodic or self.cell is None or np.count_nonzero(self.cell) > 3:
            return False
        edges = np.diag(self.cell)
        if edges.min() <= 2 * MINIMUM_DISTANCE:
            return False
        tree = cKDTree(self.positions % edges % edges, boxsize=edges)
        return not tree.query_pairs(MINIMUM_DISTANCE)

    def neighbours(self, cutoff: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """All ordered pairs of atoms (periodic images included) closer than ``cutoff`` bohr.

        Returns:
            first, second: (n_pairs,) atom indices; shifts: (n_pairs, 3) whole cells added to
            the second atom; distances: (n_pairs,) bohr.
        """
        if not self.pbc.any():
            pairs = cKDTree(self.positions).query_pairs(cutoff, output_type="ndarray")
            first, second = np.concatenate([pairs, pairs[:, ::-1]]).astype(np.int64).T
            distances = np.linalg.norm(self.positions[first] - self.positions[second], axis=1)
            return first, second, np.zeros((len(first), 3), dtype=np.int64), distances
        if not self.pbc.all():
            raise StructureError(
                f"pbc is {self.pbc.tolist()}: only fully periodic or fully isolated structures "
                "are supported so far (slabs and wires are not)"
            )
        from vesin import NeighborList

        calculator = NeighborList(cutoff=cutoff, full_list=True)
        first, second, shifts, distances = calculator.compute(
            points=self.positions, box=self.cell, periodic=True, quantities="ijSd"
        )
        return first.astype(np.int64), second.astype(np.int64), shifts.astype(np.int64), distances

    def __len__(self) -> int:
        return len(self.numbers)

    def __repr__(self) -> str:
        cell = "no cell" if self.cell is None else f"cell {np.round(self.cell, 3).tolist()} bohr"
        return f"Structure({self.formula}, {cell}, pbc={self.pbc.tolist()})"

    @property
    def symbols(self) -> list[str]:
        """Chemical symbols, one per atom."""
        return [chemical_symbols[z] for z in self.numbers]

    @property
    def formula(self) -> str:
        """Chemical formula such as ``Al31``; ``no-atoms`` of a cell without any."""
        counts = {s: self.symbols.count(s) for s in dict.fromkeys(self.symbols)}
        return "".join(f"{s}{n if n > 1 else ''}" for s, n in counts.items()) or "no-atoms"

    @property
    def periodic(self) -> bool:
        """Whether all three axes are periodic."""
        return bool(self.pbc.all())

    @property
    def volume(self) -> float:
        """Cell volume in bohr^3; raises when there is no cell."""
        if self.cell is None:
            raise StructureError("an isolated structure without a cell has no volume")
        return float(abs(np.linalg.det(self.cell)))

    def orthorhombic_lengths(self) -> NDArray[np.float64]:
        """Edge lengths (3,) of an orthorhombic cell, in bohr; sheared cells raise."""
        if self.cell is None:
            raise StructureError("this needs a cell, but the structure has none")
        off_diagonal = self.cell - np.diag(np.diag(self.cell))
        if np.abs(off_diagonal).max() > 1e-10 or (np.diag(self.cell) <= 0).any():
            raise StructureError(
                f"cell {self.cell.tolist()} bohr is not orthorhombic along x, y, z: sheared cells "
                "are not supported yet; use an orthorhombic supercell"
            )
        return np.diag(self.cell).copy()

    def positions_in_box(self, origin: ArrayLike = (0.0, 0.0, 0.0)) -> NDArray[np.float64]:
        """Positions (n_atoms, 3), bohr; those of a periodic cell moved into it.

        ``origin``: lower corner of the cell, bohr.
        """
        if not self.periodic or self.cell is None:
            return self.positions.copy()
        corner = np.asarray(origin, dtype=np.float64)
        fractional = (self.positions - corner) @ np.linalg.inv(self.cell)
        return np.asarray(corner + (fractional % 1.0) @ self.cell)

    def replace(self, **changes: Any) -> Structure:
        """A copy with some of the constructor's arguments changed."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return Structure(**(values | changes))

    @classmethod
    def from_ase(cls, atoms: Atoms) -> Structure:
        """From ASE atoms (angstrom); charge and spin come from ``atoms.info`` if there."""
        cell = None if atoms.cell.rank == 0 else np.asarray(atoms.cell) / BOHR_IN_ANGSTROM
        return cls(
            atoms.numbers,
            atoms.positions / BOHR_IN_ANGSTROM,
            cell=cell,
            pbc=atoms.pbc,
            charge=atoms.info.get("charge", 0.0),
            spin=atoms.info.get("spin", 0),
        )

    def to_ase(self) -> Atoms:
        """ASE atoms, in angstrom. Partial occupancies have no place there and raise."""
        from ase import Atoms

        if (self.occupancies != 1).any():
            raise StructureError("ASE atoms cannot carry partial occupancies")
        atoms = Atoms(
            numbers=self.numbers,
            positions=self.positions * BOHR_IN_ANGSTROM,
            cell=None if self.cell is None else self.cell * BOHR_IN_ANGSTROM,
            pbc=self.pbc,
        )
        if self.charge:
            atoms.info["charge"] = self.charge
        if self.spin:
            atoms.info["spin"] = self.spin
        return atoms


def check_is_structure(value: object) -> None:
    """Raise a :class:`StructureError` for anything else, such as ASE's atoms."""
    if not isinstance(value, Structure):
        raise StructureError(
            f"expected a Structure, but this is {type(value).__name__}: "
            "Structure.from_ase(atoms) makes one of ASE's atoms"
        )


def _atomic_numbers(numbers: ArrayLike) -> NDArray[np.int64]:
    given = np.atleast_1d(np.asarray(numbers))
    if given.ndim != 1:
        raise StructureError(f"numbers have shape {given.shape}, expected (n_atoms,)")
    result = []
    for index, entry in enumerate(given.tolist()):
        number = atomic_numbers.get(entry) if isinstance(entry, str) else entry
        if number is None or not 1 <= number < len(chemical_symbols) or int(number) != number:
            raise StructureError(
                f"atom {index} is {entry!r}: not a known element; expected a chemical symbol "
                f"or an atomic number from 1 to {len(chemical_symbols) - 1}"
            )
        result.append(int(number))
    return np.array(result, dtype=np.int64)


def _floats(name: str, values: ArrayLike) -> NDArray[np.float64]:
    try:
        return np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise StructureError(f"{name} must be an array of numbers: {error}") from error


def _pbc(pbc: bool | ArrayLike) -> NDArray[np.bool_]:
    flags = np.asarray(pbc, dtype=bool)
    if flags.shape not in ((), (1,), (3,)):
        raise StructureError(f"pbc has shape {flags.shape}, expected one flag or three")
    return np.array(np.broadcast_to(flags, (3,)))


def _spin(spin: int) -> int:
    unpaired = float(_floats("spin", spin))
    if not unpaired.is_integer() or unpaired < 0:
        raise StructureError(f"spin is {spin}: expected the number of unpaired electrons (0, 1, 2)")
    return int(unpaired)


def _cell(cell: ArrayLike | None) -> NDArray[np.float64] | None:
    if cell is None:
        return None
    array = _floats("cell", cell)
    if array.shape == (3,):
        array = np.diag(array)
    if array.shape != (3, 3):
        raise StructureError(f"cell has shape {array.shape}, expected (3,) or (3, 3) in bohr")
    if not np.isfinite(array).all():
        raise StructureError(f"cell contains numbers that are not finite: {array.tolist()}")
    return array
