"""What a model is fitted to and judged by: energies, forces, virials, force constants.

An :class:`Observation` holds atoms and the reference's value, and can be asked of any potential:
a reference to label it, a model to find its error, a basis for its row of the normal equations.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from fedens.errors import ModelError
from fedens.generalisation.defects import Crystal, Defect
from fedens.generalisation.linear_model import Basis, LinearPotential
from fedens.generalisation.potential import DIFFERENCE_STEP, Array, Potential
from fedens.structure import Structure
from fedens.units import BOHR_IN_ANGSTROM, HARTREE_IN_EV, HARTREE_PER_BOHR_IN_EV_PER_ANGSTROM

#: Unit of each kind at the borders, and its size in atomic units.
UNITS = {
    "energy": ("eV", 1 / HARTREE_IN_EV),
    "forces": ("eV/angstrom", 1 / HARTREE_PER_BOHR_IN_EV_PER_ANGSTROM),
    "virial": ("eV/atom", 1 / HARTREE_IN_EV),
    "force_constants": ("eV/angstrom^2", BOHR_IN_ANGSTROM**2 / HARTREE_IN_EV),
}


@dataclass(frozen=True, eq=False)
class Observation(ABC):
    """Atoms, and a number or array about them.

    Attributes:
        structure: the atoms. values: the reference's, in atomic units, any shape; once labelled.
    """

    kind: ClassVar[str]
    structure: Structure
    values: Array = field(default_factory=lambda: np.zeros(0), kw_only=True)

    @abstractmethod
    def of(self, potential: Potential | Basis) -> Array:
        """What a potential says; of a basis, with one row per feature along a first axis."""

    def error(self, potential: Potential) -> Array:
        """What a potential says minus the reference."""
        return self.of(potential) - self.values


@dataclass(frozen=True, eq=False)
class Energy(Observation):
    """Energy minus that of other atoms, hartree, so that surfaces and zero cancel.

    Attributes:
        free: which atoms differ from the perfect crystal or could; beyond them nothing changes.
        against, against_free: the other atoms, or None. per: divide by this number of atoms.
    """

    kind: ClassVar[str] = "energy"
    free: NDArray[np.bool_] | None = None
    against: Structure | None = None
    against_free: NDArray[np.bool_] | None = None
    per: int = 1

    def of(self, potential: Potential | Basis) -> Array:
        """The difference, ()."""
        bound = potential.bind(self.structure, self.free)
        energy = np.asarray(bound.energy_and_forces(self.structure.positions)[0])
        if self.against is not None:
            other = potential.bind(self.against, self.against_free)
            energy = energy - other.energy_and_forces(self.against.positions)[0]
        return energy / self.per


@dataclass(frozen=True, eq=False)
class Forces(Observation):
    """Forces on the free atoms, (n_free, 3), hartree/bohr."""

    kind: ClassVar[str] = "forces"
    free: NDArray[np.bool_] | None = None

    def of(self, potential: Potential | Basis) -> Array:
        """The forces, (n_free, 3)."""
        forces = potential.bind(self.structure, self.free).energy_and_forces(
            self.structure.positions
        )[1]
        return forces if self.free is None else forces[..., self.free, :]


@dataclass(frozen=True, eq=False)
class Virial(Observation):
    """Derivative of a periodic cell's energy by a strain, per atom, (6,), hartree."""

    kind: ClassVar[str] = "virial"

    def of(self, potential: Potential | Basis) -> Array:
        """The components xx, yy, zz, yz, xz, xy."""
        virial = potential.bind(self.structure).virial(self.structure.positions)
        rows, columns = [0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]
        return virial[..., rows, columns] / len(self.structure)


@dataclass(frozen=True, eq=False)
class ForceConstantsOf(Observation):
    """Forces on all atoms by the displacement of the first, (n_atoms, 3), hartree/bohr^2.

    By central differences along x; their sign is that of second derivatives.
    """

    kind: ClassVar[str] = "force_constants"

    def of(self, potential: Potential | Basis) -> Array:
        """The central difference."""
        bound, positions = potential.bind(self.structure), self.structure.positions
        shift = np.zeros_like(positions)
        shift[0, 0] = DIFFERENCE_STEP
        ahead = bound.energy_and_forces(positions + shift)[1]
        behind = bound.energy_and_forces(positions - shift)[1]
        return (behind - ahead) / (2 * DIFFERENCE_STEP)


def labelled(observations: Sequence[Observation], reference: Potential) -> list[Observation]:
    """The same observations with the reference's values."""
    return [replace(o, values=o.of(reference)) for o in observations]


def crystal_observations(crystal: Crystal, repeats: int) -> list[Observation]:
    """Energy, virials under strain, and force constants of the perfect crystal, unlabelled.

    Strains of 1 % of an axis, of all three, and of an angle, in both directions.

    Args:
        repeats: cubic cells along an edge of the supercell whose atom is displaced.
    """
    cell = crystal.cell()
    found: list[Observation] = [Energy(cell, per=len(cell)), Virial(cell)]
    for size in (-0.01, 0.01):
        shear = np.array([[0.0, size, 0.0], [size, 0.0, 0.0], [0.0, 0.0, 0.0]])
        for strain in (np.diag([size, 0.0, 0.0]), np.diag([size] * 3), shear):
            change = np.eye(3) + strain
            strained = cell.replace(
                positions=cell.positions @ change, cell=np.array(cell.cell) @ change
            )
            found.append(Virial(strained))
    found.append(ForceConstantsOf(crystal.cell(repeats)))
    return found


def defect_observations(defect: Defect, snapshots: Sequence[Array]) -> list[Observation]:
    """Energy against the perfect crystal, and forces, of each snapshot, unlabelled.

    Args:
        snapshots: positions of the defect's atoms, (n_atoms, 3), bohr.
    """
    found: list[Observation] = []
    for positions in snapshots:
        structure = defect.structure.replace(positions=positions)
        found.append(Energy(structure, defect.free, defect.perfect, defect.perfect_free))
        found.append(Forces(structure, defect.free))
    return found


def rattled(
    defect: Defect, relaxed: Array, count: int, amplitude: float, seed: int = 0
) -> list[Array]:
    """The relaxed positions and copies with Gaussian displacements of the free atoms.

    Args:
        amplitude: standard deviation of each coordinate, bohr.
    """
    random = np.random.default_rng(seed)
    shifts = amplitude * random.standard_normal((count, *relaxed.shape)) * defect.free[:, None]
    return [relaxed, *(relaxed + shift for shift in shifts)]


class Design:
    """Rows of a linear fit: every feature of a basis asked for every observation, once.

    Args:
        basis: the features. observations: labelled.

    Raises:
        ModelError: no observations, or numbers that are not finite.
    """

    def __init__(self, basis: Basis, observations: Sequence[Observation]):
        if not observations:
            raise ModelError("a fit needs at least one observation")
        self.basis = basis
        self._rows: dict[str, list[Array]] = {}
        self._values: dict[str, list[Array]] = {}
        for o in observations:
            rows = o.of(basis)
            self._rows.setdefault(o.kind, []).append(rows.reshape(len(rows), -1).T)
            self._values.setdefault(o.kind, []).append(o.values.ravel())
            if not (np.isfinite(rows).all() and np.isfinite(o.values).all()):
                raise ModelError(f"an observation of {o.kind} or its features is not finite")

    def fit(
        self, kinds: Sequence[str], targets: Mapping[str, float], ridge: float
    ) -> LinearPotential:
        """Coefficients that minimise the sum of (error / target)^2 over all numbers observed.

        Args:
            kinds: of the observations to fit. targets: of each, in the units of :data:`UNITS`.
            ridge: weight of the squared coefficients, where each feature's column has the norm 1.
        """
        rows, values = [], []
        for kind in kinds:
            right = np.concatenate(self._values[kind])
            weight = 1 / (targets[kind] * UNITS[kind][1])
            rows.append(weight * np.concatenate(self._rows[kind]))
            values.append(weight * right)
        matrix = np.concatenate(rows)
        sizes = np.linalg.norm(matrix, axis=0)
        sizes[sizes == 0] = 1.0
        damped = np.concatenate([matrix / sizes, ridge**0.5 * np.eye(len(sizes))])
        right = np.concatenate([*values, np.zeros(len(sizes))])
        solution = np.linalg.lstsq(damped, right)[0]
        return LinearPotential(self.basis, torch.tensor(solution / sizes))

    def errors(self, potential: LinearPotential) -> dict[str, float]:
        """Root mean square errors by kind, in the units of :data:`UNITS`."""
        coefficients = potential.coefficients.numpy()
        result = {}
        for kind, rows in self._rows.items():
            error = np.concatenate(rows) @ coefficients - np.concatenate(self._values[kind])
            result[kind] = float(np.sqrt((error**2).mean())) / UNITS[kind][1]
        return result
