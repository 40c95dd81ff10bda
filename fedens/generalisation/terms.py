"""What a model's errors mean for a defect: the terms of the theory, and which is largest.

For a point defect in three dimensions whose training domain has the radius L, with strains that
decay as b (a / r)^3 beyond it (a: lattice constant; C. Ortner and Y. Wang, Multiscale Model. Simul.
21, 1053 (2023)):

    geometry:  |D(u - u_ml)| <= e_F + e_FC |Du|_{r > L} + e_3 | |Du|^2 |_{r > L}
    energy:    |E - E_ml| <= e_E + e_V dV + e_FC W + e_3 W_3 + k/2 |D(u - u_ml)|^2

e_F is the strain that the forces' error on the relaxed defect causes in the perfect crystal, e_FC
the largest relative error of a wave's energy there, e_3 the relative error of the third order; e_V
the error of the crystal's stress and dV the defect's relaxation volume; W and W_3 the energies of
second and third order stored beyond L; k the stiffness, twice the stored energy over the squared
strain norm. The norms over r > L are sums of b^2 (a / r)^6 and b^4 (a / r)^12, so that the terms
fall as L^(-3/2), L^(-9/2) and L^-3, L^-6. Terms are estimates of size with the theory's constants
left at 1, not bounds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from fedens.generalisation.defects import STRESS_TOLERANCE, Defect, check_relaxed, crystal_stress
from fedens.generalisation.lattice import (
    ForceConstants,
    GreenOperator,
    force_constants,
    relative_error,
)
from fedens.generalisation.measures import Strain
from fedens.generalisation.observations import (
    Observation,
    crystal_observations,
    defect_observations,
    labelled,
    rattled,
)
from fedens.generalisation.potential import Array, Potential
from fedens.generalisation.relaxation import TIGHT, relax
from fedens.structure import Structure
from fedens.units import HARTREE_IN_EV, HARTREE_IN_MEV

#: Displacement of the second differences of forces, bohr: a tenth of thermal ones.
THIRD_ORDER_STEP = 0.05

#: What a term's observation is called, and what to add to the training data when it dominates.
ADVICE = {
    "forces": "forces of more snapshots of the defect, or a larger basis if these are fitted",
    "force_constants": (
        "force constants of the perfect crystal (forces on all atoms when one is displaced), or a "
        "larger training domain"
    ),
    "third_order": (
        "force constants of strained crystals or snapshots with larger displacements, or a larger "
        "training domain"
    ),
    "energy": "energies of the defect in the training domain",
    "virial": "virials (stresses) of the perfect crystal near its equilibrium",
    "geometry": "whatever dominates the geometry, whose error enters squared",
}


@dataclass(frozen=True)
class Errors:
    """Errors of a model's observations.

    Attributes:
        energy: e_E, hartree. forces: e_F, a strain. force_constants: e_FC. third_order: e_3, both
            relative. virial: e_V, hartree/bohr^3.
    """

    energy: float
    forces: float
    force_constants: float
    third_order: float
    virial: float


@dataclass(frozen=True)
class Terms:
    """Terms of the theory by the observation that each comes from.

    Attributes:
        geometry: strains. energy: hartree. errors: what they were made of.
    """

    geometry: dict[str, float]
    energy: dict[str, float]
    errors: Errors

    @property
    def largest(self) -> tuple[str, str]:
        """The observation that dominates the geometry, and that which dominates the energy."""
        geometry, energy = (max(t, key=t.__getitem__) for t in (self.geometry, self.energy))
        return geometry, energy

    def columns(self) -> dict[str, float]:
        """Errors and terms by name, with their units, as columns of a table."""
        return {
            "e_energy_ev": self.errors.energy * HARTREE_IN_EV,
            "e_forces": self.errors.forces,
            "e_force_constants": self.errors.force_constants,
            "e_third_order": self.errors.third_order,
            "e_virial_hartree_per_bohr3": self.errors.virial,
            **{f"geometry_{name}": value for name, value in self.geometry.items()},
            **{f"energy_{name}_mev": v * HARTREE_IN_MEV for name, v in self.energy.items()},
        }

    def advice(self) -> str:
        """One paragraph: which observation is missing in the training data."""
        geometry, energy = self.largest
        strain, milli = self.geometry[geometry], HARTREE_IN_MEV * self.energy[energy]
        shares = ", ".join(f"{_words(n)} {v:.1e}" for n, v in self.geometry.items())
        parts = ", ".join(f"{_words(n)} {HARTREE_IN_MEV * v:.2g}" for n, v in self.energy.items())
        # what dominates the energy through the geometry is what dominates the geometry
        cause = geometry if energy == "geometry" else energy
        text = (
            f"Of the strain error, {_words(geometry)} give the largest term, {strain:.1e} "
            f"({shares}); of the energy error {_words(energy)}, {milli:.2g} meV ({parts} meV). "
            f"Missing in the training data for the geometry: {ADVICE[geometry]}."
        )
        if cause != geometry:
            text += f" For the energy: {ADVICE[cause]}."
        return text


@dataclass(frozen=True, eq=False)
class Domain:
    """A training domain: a defect relaxed by the reference, and the observations it offers.

    Attributes:
        defect, relaxed: its atoms, and their positions (n_atoms, 3), bohr.
        observations: labelled; of the defect's snapshots and of the perfect crystal.
        constants: of the perfect crystal. third: see :func:`third_differences`.
        amplitude: b of the strain's decay. relaxation_volume: bohr^3. repeats: cubic cells along
            an edge of the crystal's supercells.
    """

    defect: Defect
    relaxed: Array
    observations: list[Observation]
    constants: ForceConstants
    third: Array
    amplitude: float
    relaxation_volume: float
    repeats: int

    @property
    def green(self) -> GreenOperator:
        """The perfect crystal's answer to forces on the atoms of the defect."""
        return GreenOperator(self.constants, self.defect)


def training_domain(
    reference: Potential,
    defect: Defect,
    *,
    amplitude: float,
    snapshots: int = 5,
    rattle: float = 0.2,
    seed: int = 0,
    tolerance: float = TIGHT,
    repeats: int | None = None,
    stress_tolerance: float = STRESS_TOLERANCE,
) -> Domain:
    """Relax a defect with the reference and label its observations.

    Args:
        defect: in a ball or supercell of the size of the training domain.
        amplitude: b, from a larger crystal; see :func:`fedens.generalisation.measures.decay`.
        snapshots: rattled copies beside the relaxed one. rattle: standard deviation of their
            coordinates, bohr. tolerance: of forces, hartree/bohr.
        repeats: cubic cells along an edge of the supercell for force constants; default: so many
            that no image is felt.
        stress_tolerance: of the crystal, hartree/bohr^3; see :func:`check_relaxed`.

    Raises:
        StructureError: the crystal is not relaxed. ConvergenceError: the defect could not be.
    """
    crystal = defect.crystal
    check_relaxed(reference, crystal, tolerance=stress_tolerance)
    if repeats is None:
        repeats = crystal.repeats_beyond(4 * reference.cutoff)
    constants = force_constants(reference, crystal, repeats)
    green = GreenOperator(constants, defect)
    relaxed = relax(reference, defect, green, tolerance=tolerance).positions
    observations = labelled(
        [
            *defect_observations(defect, rattled(defect, relaxed, snapshots, rattle, seed)),
            *crystal_observations(crystal, repeats),
        ],
        reference,
    )
    return Domain(
        defect,
        relaxed,
        observations,
        constants,
        third_differences(reference, crystal.cell(repeats)),
        amplitude,
        relaxation_volume(reference, defect, relaxed),
        repeats,
    )


def judge(model: Potential, domain: Domain) -> Terms:
    """Errors of a model's observations, and the terms they make.

    Args:
        model: any potential; see :class:`fedens.generalisation.potential.AsePotential`.
    """
    crystal, radius = domain.defect.crystal, domain.defect.radius
    a = crystal.lattice_constant
    errors = _errors(model, domain)

    def beyond(power: int) -> float:
        """Sum of (b (a / r)^3)^power over the sites beyond L."""
        exponent = 3 * power - 3
        sites = 4 * np.pi * len(crystal.cell()) / exponent
        return sites * domain.amplitude**power * (a / radius) ** exponent

    geometry = {
        "forces": errors.forces,
        "force_constants": errors.force_constants * beyond(2) ** 0.5,
        "third_order": errors.third_order * beyond(4) ** 0.5,
    }
    stiffness = _stiffness(domain)
    energy = {
        "energy": errors.energy,
        "virial": errors.virial * abs(domain.relaxation_volume),
        "force_constants": errors.force_constants * stiffness / 2 * beyond(2),
        "third_order": errors.third_order * stiffness / 6 * beyond(3),
        "geometry": stiffness / 2 * sum(geometry.values()) ** 2,
    }
    return Terms(geometry, energy, errors)


def _errors(model: Potential, domain: Domain) -> Errors:
    defect, crystal = domain.defect, domain.defect.crystal
    energy, forces = (
        next(o for o in domain.observations if o.kind == kind).error(model)
        for kind in ("energy", "forces")
    )
    at_rest = next(o for o in domain.observations if o.kind == "virial").error(model)
    pushed = np.zeros_like(domain.relaxed)
    pushed[defect.free] = forces
    # against the model's own crystal, as in a formation energy
    cohesion = [o for o in domain.observations if o.kind == "energy"][-1].error(model)
    third = third_differences(model, crystal.cell(domain.repeats)) - domain.third
    return Errors(
        abs(float(energy) + defect.missing * float(cohesion)),
        Strain(defect).norm(domain.green(pushed)),
        relative_error(domain.constants, force_constants(model, crystal, domain.repeats)),
        float(np.linalg.norm(third))
        * crystal.neighbour_distance
        / float(np.linalg.norm(domain.constants.values[:, 0])),
        float(np.abs(at_rest[:3].mean())) / crystal.atomic_volume,
    )


def third_differences(potential: Potential, cell: Structure) -> Array:
    """Second differences of forces by the displacement of the first atom along x and along <111>.

    Returns:
        (2, n_atoms, 3), hartree/bohr^3: second derivatives of the gradient.
    """
    bound = potential.bind(cell)
    rest = bound.energy_and_forces(cell.positions)[1]
    found = []
    for direction in ([1.0, 0.0, 0.0], [3**-0.5] * 3):
        shift = np.zeros_like(cell.positions)
        shift[0] = THIRD_ORDER_STEP * np.array(direction)
        ahead = bound.energy_and_forces(cell.positions + shift)[1]
        behind = bound.energy_and_forces(cell.positions - shift)[1]
        found.append((2 * rest - ahead - behind) / THIRD_ORDER_STEP**2)
    return np.stack(found)


def relaxation_volume(reference: Potential, defect: Defect, relaxed: Array) -> float:
    """How much a large crystal with free surfaces would grow by the relaxation of the defect.

    The trace of the elastic dipole, the virial against that of the perfect crystal, over three
    bulk moduli; G. Leibfried and N. Breuer, Point Defects in Metals I (1978).

    Returns:
        bohr^3, without the volume of the atoms added or removed.
    """
    virial = reference.bind(defect.structure).virial(relaxed)
    perfect = reference.bind(defect.perfect).virial(defect.perfect.positions)
    step = 1e-3
    pressures = [
        crystal_stress(reference, replace(defect.crystal, lattice_constant=a))
        for a in defect.crystal.lattice_constant * np.array([1 - step, 1 + step])
    ]
    bulk_modulus = (pressures[1] - pressures[0]) / (6 * step)
    return -float(np.trace(virial - perfect)) / (3 * bulk_modulus)


def _stiffness(domain: Domain) -> float:
    """k, hartree: what displacing one atom of the perfect crystal costs, over its strain norm.

    Its strains, its own and those of its neighbours, have the squared norm 6 u^2 / d^2.
    """
    force_constant = float(np.trace(domain.constants.values[0])) / 3
    return force_constant * domain.defect.crystal.neighbour_distance**2 / 6


def _words(name: str) -> str:
    return name.replace("_", " ")
