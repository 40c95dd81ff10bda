"""Models against the reference around a defect in a large crystal.

Four questions, each a function that gives one row of a table: how the strain decays; what a model
costs that is wrong only far away; whether a model that can be right is; what a fit in a small
domain costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from fedens.errors import ConvergenceError, ModelError, StructureError
from fedens.generalisation.defects import Crystal, Defect, defect_in_ball
from fedens.generalisation.embedded import EmbeddedPotential
from fedens.generalisation.far_field import FarFieldPerturbation, Order
from fedens.generalisation.lattice import (
    ForceConstants,
    GreenOperator,
    force_constants,
    relative_error,
)
from fedens.generalisation.linear_model import DensityPolynomials, LinearPotential
from fedens.generalisation.measures import Strain
from fedens.generalisation.observations import Forces, Observation
from fedens.generalisation.potential import Array, Potential
from fedens.generalisation.relaxation import Relaxation, relax, stability
from fedens.units import HARTREE_IN_EV

#: Smallest ratio of the large crystal's radius to that of a training domain: with less, the strain
#: beyond L is the clamp's and not the defect's.
LEAST_RATIO = 1.5


@dataclass(frozen=True, eq=False)
class LargeCrystal:
    """A defect relaxed by the reference in a large crystal, where models are compared with it.

    Attributes:
        defect: the atoms. constants: of the perfect crystal.
        relaxed: positions, (n_atoms, 3), bohr. formation_energy, relaxation_energy: hartree.
    """

    defect: Defect
    constants: ForceConstants
    relaxed: Array
    formation_energy: float
    relaxation_energy: float

    @property
    def displacement(self) -> Array:
        """By the relaxation, (n_atoms, 3), bohr."""
        return self.relaxed - self.defect.structure.positions

    @property
    def green(self) -> GreenOperator:
        """The perfect crystal's answer to forces."""
        return GreenOperator(self.constants, self.defect)


def check_size(radius: float, size: float) -> None:
    """Refuse a training domain that is too large for a crystal; both in lattice constants.

    Raises:
        StructureError: with the radius that would do.
    """
    needed = LEAST_RATIO * size
    if radius < needed * (1 - 1e-12):
        raise StructureError(
            f"a crystal of radius {radius:g} lattice constants is too small for a training domain "
            f"of {size:g}: the strain beyond it would be the clamp's; expected a radius of "
            f"{needed:g} or more, or smaller domains"
        )


@dataclass(frozen=True)
class DefectError:
    """What a model gets wrong about a defect in the large crystal.

    Attributes:
        geometry: l2 norm of the error's strain. largest: its largest. formation_energy,
            relaxation_energy: errors, eV. message: why there are none (then NaN), or empty.
    """

    geometry: float
    largest: float
    formation_energy: float
    relaxation_energy: float
    message: str = ""


def large_crystal(
    reference: Potential,
    crystal: Crystal,
    kind: str,
    radius: float,
    constants: ForceConstants,
    relaxed: Array | None = None,
) -> LargeCrystal:
    """Relax a defect with the reference in a clamped ball.

    Args:
        radius: of the free atoms, lattice constants. constants: of the perfect crystal.
        relaxed: positions found before, if any; they are relaxed again, which is then quick.

    Raises:
        ConvergenceError: no minimum was found. ModelError: what was found is not a minimum.
    """
    defect = defect_in_ball(crystal, kind, radius * crystal.lattice_constant, reference.cutoff)
    green = GreenOperator(constants, defect)
    result = relax(reference, defect, green, start=relaxed)
    if relaxed is None:
        stability(reference, defect, result.positions, green, what="reference")
    energies = _energies(reference, reference, defect, result)
    return LargeCrystal(defect, constants, result.positions, *energies)


def _energies(
    potential: Potential, crystal_of: Potential, defect: Defect, relaxation: Relaxation
) -> tuple[float, float]:
    """Formation and relaxation energy, hartree."""
    perfect = crystal_of.bind(defect.perfect, defect.perfect_free)
    crystal_energy = perfect.energy_and_forces(defect.perfect.positions)[0]
    cell = defect.crystal.cell()
    cohesion = crystal_of.bind(cell).energy_and_forces(cell.positions)[0] / len(cell)
    start = potential.bind(defect.structure, defect.free)
    unrelaxed = start.energy_and_forces(defect.structure.positions)[0]
    formation = relaxation.energy - crystal_energy + defect.missing * cohesion
    return formation, relaxation.energy - unrelaxed


def compare(
    large: LargeCrystal,
    model: Potential,
    *,
    start: Array | None = None,
    crystal_of: Potential | None = None,
) -> tuple[DefectError, Array]:
    """Relax the defect with a model.

    Args:
        model: what to judge. start: positions, default: the reference's relaxed ones.
        crystal_of: energy of the perfect crystal, where the model itself is for the defect only.

    Returns:
        The errors, and the positions (NaN where no minimum was found).
    """
    defect = large.defect
    start = large.relaxed if start is None else start
    try:
        found = relax(model, defect, large.green, start=start)
        stability(model, defect, found.positions, large.green)
    except (ConvergenceError, ModelError) as error:
        nan = float("nan")
        lost = np.full_like(large.relaxed, np.nan)
        return DefectError(nan, nan, nan, nan, str(error)), lost
    strain, difference = Strain(defect), found.positions - large.relaxed
    formation, relaxation = _energies(model, crystal_of or model, defect, found)
    return (
        DefectError(
            strain.norm(difference),
            strain.largest(difference),
            (formation - large.formation_energy) * HARTREE_IN_EV,
            (relaxation - large.relaxation_energy) * HARTREE_IN_EV,
        ),
        found.positions,
    )


def spring_of_error(
    reference: EmbeddedPotential, constants: ForceConstants, crystal: Crystal, error: float
) -> float:
    """Spring constant k of a far-field perturbation with a relative force-constant error.

    Returns:
        hartree/bohr^2.
    """
    cell = crystal.cell(crystal.repeats_beyond(4 * reference.cutoff))
    everywhere = Defect(
        cell, cell.positions, np.ones(len(cell), dtype=bool), cell, crystal, radius=0.0
    )
    trial = 1e-3
    perturbed = FarFieldPerturbation(reference, everywhere, -1.0, 2, trial)
    return trial * error / relative_error(constants, force_constants(perturbed, crystal))


def far_field_model(
    large: LargeCrystal, reference: EmbeddedPotential, size: float, order: Order, spring: float
) -> FarFieldPerturbation:
    """The model that is wrong beyond L.

    The third-order constant is t = 10 k / d, with d the neighbour distance: anharmonic constants of
    metals are about ten times the force constants per length.

    Args:
        size: L, lattice constants. order: 2 or 3. spring: k, hartree/bohr^2.
    """
    crystal = large.defect.crystal
    check_size(large.defect.radius / crystal.lattice_constant, size)
    strength = spring if order == 2 else 10 * spring / crystal.neighbour_distance
    return FarFieldPerturbation(
        reference, large.defect, size * crystal.lattice_constant, order, strength
    )


def scaled_basis(
    basis: DensityPolynomials, observations: Sequence[Observation]
) -> DensityPolynomials:
    """A basis whose monomials count from the densities of the training sites."""
    densities = []
    for o in observations:
        if isinstance(o, Forces):
            # any coefficients: only the densities are wanted
            bound = LinearPotential(basis, torch.zeros(0)).bind(o.structure, o.free)
            densities.append(bound.expansion(o.structure.positions).densities)
    return basis.scaled_to(torch.cat(densities))
