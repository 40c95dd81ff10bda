"""Relaxation by Newton's method with conjugate gradients and Hessian-vector products.

Each step solves H p = F with conjugate gradients, preconditioned with the perfect crystal's
Hessian, to a tolerance that shrinks with the forces. J. Nocedal and S. J. Wright, Numerical
Optimization (2006), algorithm 7.1.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator, lobpcg

from fedens.errors import ConvergenceError, ModelError
from fedens.generalisation.defects import Defect
from fedens.generalisation.lattice import unstable_message
from fedens.generalisation.potential import Array, BoundPotential, Potential
from fedens.units import HARTREE_PER_BOHR_IN_EV_PER_ANGSTROM

#: Largest force component left, hartree/bohr: 1e-9 eV/angstrom for cheap potentials, 1e-3 for
#: orbital-free ones.
TIGHT = 1e-9 / HARTREE_PER_BOHR_IN_EV_PER_ANGSTROM
LOOSE = 1e-3 / HARTREE_PER_BOHR_IN_EV_PER_ANGSTROM
#: No atom moves further than this in one step, bohr.
_LONGEST_STEP = 0.3

Operator = Callable[[Array], Array]


@dataclass(frozen=True, eq=False)
class Relaxation:
    """A relaxed defect.

    Attributes:
        positions: (n_atoms, 3), bohr. energy: hartree. forces: those left, hartree/bohr.
        steps: Newton steps. products: of the Hessian with a displacement, all steps together.
    """

    positions: Array
    energy: float
    forces: Array
    steps: int
    products: int

    @property
    def largest_force(self) -> float:
        """Largest component, hartree/bohr."""
        return float(np.abs(self.forces).max())


def relax(
    potential: Potential,
    defect: Defect,
    preconditioner: Operator,
    *,
    start: Array | None = None,
    tolerance: float = TIGHT,
    max_steps: int = 50,
    report: Callable[[int, float], None] | None = None,
) -> Relaxation:
    """Relax the free atoms of a defect.

    Args:
        preconditioner: forces to displacements, such as a
            :class:`fedens.generalisation.lattice.GreenOperator`.
        start: positions to start from, (n_atoms, 3), bohr; default: those of the defect.
        tolerance: of the largest force component, hartree/bohr.
        report: is given the number of steps and the largest force component after each.

    Raises:
        ConvergenceError: forces above the tolerance after ``max_steps``, or no way down.
    """
    bound = potential.bind(defect.structure, defect.free)
    free = defect.free[:, None]
    positions = (defect.structure.positions if start is None else start).copy()
    energy, forces = bound.energy_and_forces(positions)
    forces = forces * free
    products, steps, message = 0, 0, "it is not finite"
    first = np.abs(forces).max()
    while np.abs(forces).max() > tolerance:
        if steps == max_steps:
            message = f"still above {tolerance:.1e} hartree/bohr after {max_steps} steps"
            break
        target = min(0.1, (np.abs(forces).max() / first) ** 0.5) if steps else 0.1
        direction, used = _newton_direction(
            bound.hessian(positions), forces, preconditioner, max(target, 1e-4)
        )
        products += used
        found = _line_search(bound, positions, energy, forces, direction, free)
        if found is None:
            message = "no step lowers energy or forces"
            break
        positions, energy, forces = found
        steps += 1
        if report is not None:
            report(steps, float(np.abs(forces).max()))
    result = Relaxation(positions, energy, forces, steps, products)
    if not result.largest_force <= tolerance:  # so that NaN is refused too
        left = result.largest_force * HARTREE_PER_BOHR_IN_EV_PER_ANGSTROM
        raise ConvergenceError(
            f"relaxation ended with a force of {left:.2e} eV/angstrom: {message}; start nearer to "
            "the minimum, or ask for less",
            result,
        )
    return result


def _newton_direction(
    hessian: Operator, forces: Array, preconditioner: Operator, tolerance: float
) -> tuple[Array, int]:
    """p with |F - H p| <= tolerance |F|, and how many products it took.

    Where the energy curves downwards, what has been found so far, or the preconditioned force.
    """
    solution = np.zeros_like(forces)
    residual = forces.copy()
    answer = preconditioner(residual)
    search, power = answer.copy(), float(np.vdot(residual, answer))
    goal = tolerance * float(np.linalg.norm(forces))
    for used in range(1, 201):
        curved = hessian(search)
        curvature = float(np.vdot(search, curved))
        if curvature <= 0:
            return (search if used == 1 else solution), used
        length = power / curvature
        solution += length * search
        residual -= length * curved
        if np.linalg.norm(residual) <= goal:
            break
        answer = preconditioner(residual)
        power, before = float(np.vdot(residual, answer)), power
        search = answer + power / before * search
    return solution, used


def _line_search(
    bound: BoundPotential,
    positions: Array,
    energy: float,
    forces: Array,
    direction: Array,
    free: NDArray[np.bool_],
) -> tuple[Array, float, Array] | None:
    """Positions, energy, forces after a step that lowers the energy, or the forces near the end.

    Energies of thousands of atoms are rounded long before the forces are.
    """
    length = min(1.0, _LONGEST_STEP / np.abs(direction).max())
    descent = float(np.vdot(forces, direction))
    rounding = 1e-13 * abs(energy)
    for _ in range(12):
        trial = positions + length * direction
        new_energy, new_forces = bound.energy_and_forces(trial)
        new_forces = new_forces * free
        lower = new_energy <= energy - 1e-4 * length * descent
        level = new_energy <= energy + rounding
        if lower or (level and np.linalg.norm(new_forces) < np.linalg.norm(forces)):
            return trial, new_energy, new_forces
        length /= 2
    return None


def stability(
    potential: Potential,
    defect: Defect,
    positions: Array,
    preconditioner: Operator,
    what: str = "model",
) -> float:
    """Smallest eigenvalue of the Hessian over the free atoms, hartree/bohr^2.

    Args:
        positions: relaxed ones. what: name of the energy, for the message.

    Raises:
        ModelError: it is negative, with its value.
    """
    shape, n = positions.shape, positions.size
    free = np.flatnonzero(np.repeat(defect.free, 3))
    hessian = potential.bind(defect.structure, defect.free).hessian(positions)

    def on_free(operator: Operator) -> LinearOperator:
        def column(values: Array) -> Array:
            full = np.zeros(n)
            full[free] = values.ravel()
            return operator(full.reshape(shape)).ravel()[free]

        return LinearOperator((len(free), len(free)), matvec=column, dtype=np.float64)

    start = np.random.default_rng(0).standard_normal((len(free), 1))
    start = on_free(preconditioner).matvec(start[:, 0])[:, None]
    with warnings.catch_warnings():
        # it says so when it stops before its tolerance; two digits and the sign are enough here
        warnings.simplefilter("ignore", UserWarning)
        values, _ = lobpcg(
            on_free(hessian),
            start,
            M=on_free(preconditioner),
            maxiter=15,
            largest=False,
        )
    smallest = float(values.min())
    if smallest < 0:
        raise ModelError(unstable_message(what, smallest))
    return smallest
