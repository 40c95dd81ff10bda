"""ASE calculator: a learned model by one of its routes, or one of the solvers itself."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator as AseCalculator
from ase.calculators.calculator import PropertyNotImplementedError, all_changes

from fedens.data.density import Density
from fedens.energy.functional import EnergyFunctional
from fedens.energy.kohn_sham import KohnSham
from fedens.errors import ExtrapolationWarning, FedensError, FunctionalError
from fedens.fem.modes import spacing_for_cutoff
from fedens.fem.tensor import DEFAULT_ORDER, DEFAULT_SPACING, TensorSpace
from fedens.models.base import EnergyAndForces, How, Model
from fedens.models.crystal.prediction import check_route
from fedens.reference.kohn_sham.cutoffs import default_cutoff
from fedens.reference.kohn_sham.kpoints import KPoints
from fedens.reference.kohn_sham.smearing import Smearing
from fedens.reference.kohn_sham.solver import solve_kohn_sham
from fedens.reference.kohn_sham.state import KohnShamState
from fedens.reference.orbital_free import GroundState, solve_ground_state
from fedens.structure import Structure
from fedens.units import (
    BOHR_IN_ANGSTROM,
    HARTREE_IN_EV,
    HARTREE_PER_BOHR3_IN_EV_PER_ANGSTROM3,
    HARTREE_PER_BOHR_IN_EV_PER_ANGSTROM,
)

#: A cell may change its edges by this share before it gets another number of elements.
_SAME_ELEMENTS = 0.1
#: Atoms of isolated structures may move into elements this much longer than the finest.
_SAME_BOX = 1.01

_UNITS = {
    "dipole": BOHR_IN_ANGSTROM,
    "energy": HARTREE_IN_EV,
    "free_energy": HARTREE_IN_EV,
    "energy_uncertainty": HARTREE_IN_EV,
    "forces": HARTREE_PER_BOHR_IN_EV_PER_ANGSTROM,
    "hellmann_feynman_forces": HARTREE_PER_BOHR_IN_EV_PER_ANGSTROM,
    "forces_uncertainty": HARTREE_PER_BOHR_IN_EV_PER_ANGSTROM,
    "stress": HARTREE_PER_BOHR3_IN_EV_PER_ANGSTROM3,
}

#: What ASE's own calculators take.
_ASE_PARAMETERS = {"restart", "ignore_bad_restart_file", "label", "atoms", "directory"}
_CONSERVATIVE = ("energy", "free_energy", "forces", "stress", "hellmann_feynman_forces")


class Calculator(AseCalculator):
    """Energies (eV), forces (eV/angstrom) and stress (eV/angstrom^3) for ASE.

    ``Calculator(predictor)`` or ``Calculator("runs/aluminium/model")`` predicts;
    ``Calculator(functional=...)`` solves for the ground state: of an
    :class:`EnergyFunctional` orbital-free, of a :class:`KohnSham` with orbitals.

    Args:
        predictor: a model or its folder. route: ``functional`` (the parent functional at the
            predicted density), ``energy_density`` (sum of predicted energy densities), or
            ``hellmann_feynman``, whose forces are no derivative of an energy: it offers
            ``hellmann_feynman_forces`` and neither energy nor forces.
        refinement_steps: minimisation steps of the functional from the predicted density.
        functional: run the solver with it instead. residual_tolerance: of the solver: hartree,
            or share of the electrons with orbitals.
        spacing, order: of the mesh; default the model's, or 0.34 bohr and 10 for the solver, as
            fine as the cutoff needs with orbitals.
        kpoints, smearing, cutoff: of :func:`solve_kohn_sham`, for a KohnSham functional.

    Beyond ASE's names, ``get_property`` knows ``hellmann_feynman_forces``, and for models
    ``energy_uncertainty`` and ``forces_uncertainty``. ``density(atoms)`` gives the density.

    Any :class:`fedens.models.base.Model` will do; its ``properties`` says what it offers. Models
    of molecules have neither routes nor a mesh, and also give the dipole moment (e angstrom).

    With smeared occupations ``free_energy`` is F = E - T S, which forces and stress are the
    derivatives of, and ``energy`` its estimate at zero width, as in other codes: (E + F)/2 with
    Fermi-Dirac or Gaussian smearing, F with the others. A Kohn-Sham calculation starts from the
    density of the one before, as long as the mesh is the same.

    Forces are the exact derivative of the energy on a fixed mesh, and so is the stress: a cell
    keeps its number of elements while its edges stay within 10 % of what they were at first, an
    isolated structure its box while its atoms stay in the fine elements. Where that ends, the
    mesh is made anew and the energy may jump by the discretisation error. The mesh is
    orthorhombic: sheared cells raise, and the three shear components of the stress, which are
    not known, are given as zero, so that cell relaxations keep right angles.

    Raises:
        FedensError: both or neither of ``predictor`` and ``functional``; an unknown route;
            k-points, smearing or a cutoff without orbitals; a parameter of another calculator.
    """

    name = "fedens"

    def __init__(
        self,
        predictor: Model | str | Path | None = None,
        route: str = "functional",
        *,
        functional: EnergyFunctional | KohnSham | None = None,
        refinement_steps: int = 0,
        residual_tolerance: float = 1e-6,
        spacing: float | None = None,
        order: int | None = None,
        kpoints: KPoints | tuple[Any, Any] | None = None,
        smearing: Smearing | float = 0.0,
        cutoff: float | None = None,
        **kwargs: Any,
    ):
        _refuse_unknown(kwargs)
        super().__init__(**kwargs)
        check_route(route)
        self.route, self.refinement_steps = route, refinement_steps
        self._source = _source(predictor, functional, residual_tolerance, kpoints, smearing, cutoff)
        self._meshes = None
        usual = self._source.resolution
        if usual is not None:
            self._meshes = _Meshes(spacing or usual[0], order or usual[1], self._source.device)
        self._stress_wanted = self._has_warned = False
        self.implemented_properties = list(self._source.properties(route))

    def get_property(self, name: str, atoms: Atoms | None = None, allow_calculation: bool = True):  # type: ignore[no-untyped-def]
        """As in ASE; a property that the route lacks says why it does."""
        if name in self.implemented_properties:
            return super().get_property(name, atoms, allow_calculation)
        if self.route == "hellmann_feynman" and name in _CONSERVATIVE:
            raise PropertyNotImplementedError(
                f"route 'hellmann_feynman' has no {name}: its forces come from the density alone "
                "and are not the derivative of an energy, so dynamics would not conserve it; ask "
                "for 'hellmann_feynman_forces', or use route 'functional'"
            )
        offered = ", ".join(self.implemented_properties)
        raise PropertyNotImplementedError(
            f"{name} is not available; this calculator offers {offered}"
        )

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Compute ``properties`` and what comes with them, in ASE's units, into ``results``."""
        super().calculate(atoms, properties, system_changes)
        assert self.atoms is not None
        if isinstance(self._source, _KohnShamSolver):
            _refuse_moments_and_charges(self.atoms)
        structure = Structure.from_ase(self.atoms)
        stress_offered = structure.periodic and "stress" in self.implemented_properties
        if "stress" in properties and not stress_offered:
            raise PropertyNotImplementedError("stress is defined for periodic cells only")
        # who asks for the stress once asks for it at every step: get it from the same pass
        self._stress_wanted |= "stress" in properties
        wanted = set(properties)
        if self._stress_wanted and stress_offered:
            wanted.add("stress")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            how: How = {"route": self.route, "refinement_steps": self.refinement_steps}
            how["space"] = self._space_for(structure)
            results = self._source.calculate(structure, wanted, **how)
        self._pass_on(caught)
        if "stress" in results:  # ASE's six; shear is not known and given as zero
            results["stress"] = np.concatenate([results["stress"], np.zeros(3)])
        self.results |= {name: value * _UNITS[name] for name, value in results.items()}

    def _space_for(self, structure: Structure) -> TensorSpace | None:
        return None if self._meshes is None else self._meshes.space_for(structure)

    def _pass_on(self, caught: Sequence[warnings.WarningMessage]) -> None:
        """Issue warnings; that a model is out of its range only once, not at every step."""
        for warning in caught:
            if issubclass(warning.category, ExtrapolationWarning):
                if self._has_warned:
                    continue
                self._has_warned = True
            warnings.warn(str(warning.message), warning.category, stacklevel=2)

    def density(self, atoms: Atoms) -> Density:
        """The density of a structure on the calculator's mesh, for pictures and analysis."""
        structure = Structure.from_ase(atoms)
        space = self._space_for(structure)
        return self._source.density(structure, space, self.refinement_steps)


def _refuse_unknown(parameters: Collection[str]) -> None:
    """ASE's base class takes any parameter, and would pass over ``kpts`` without a word."""
    unknown = sorted(set(parameters) - _ASE_PARAMETERS)
    if unknown:
        raise FedensError(
            f"a Calculator has no {', '.join(unknown)}: its parameters for Kohn-Sham are "
            "functional=KohnSham(...), kpoints=monkhorst_pack((4, 4, 4)), smearing= and cutoff= "
            "(hartree), residual_tolerance="
        )


def _refuse_what_cannot_calculate(predictor: object, functional: object) -> None:
    if isinstance(predictor, EnergyFunctional | KohnSham):
        raise FedensError(
            f"the predictor is a {type(predictor).__name__}: give it by name, as functional="
        )
    if functional is not None and not isinstance(functional, EnergyFunctional | KohnSham):
        raise FedensError(
            f"functional is {functional!r}: expected an EnergyFunctional or a KohnSham, such as "
            "KohnSham('pbe', GTH.load('Al', 'gth-pbe-q3'))"
        )


def _refuse_moments_and_charges(atoms: Atoms) -> None:
    """Kohn-Sham here has no spin, and charges of single atoms say nothing to it."""
    moments, charges = atoms.get_initial_magnetic_moments(), atoms.get_initial_charges()
    if moments.any():
        raise FunctionalError(
            "the atoms have initial magnetic moments, but Kohn-Sham here is spin-unpolarised: "
            "remove them with atoms.set_initial_magnetic_moments(None)"
        )
    if abs(charges.sum() - atoms.info.get("charge", 0.0)) > 1e-9 and charges.any():
        raise FunctionalError(
            f"the atoms' initial charges add up to {charges.sum():g}, their info['charge'] is "
            f"{atoms.info.get('charge', 0)}: the latter counts; remove the former with "
            "atoms.set_initial_charges(None)"
        )


@dataclass(frozen=True, eq=False)
class _Solver:
    """The orbital-free solver, to be asked like a model."""

    functional: EnergyFunctional
    residual_tolerance: float
    resolution = (DEFAULT_SPACING, DEFAULT_ORDER)
    device = torch.device("cpu")

    def properties(self, route: str) -> tuple[str, ...]:
        del route
        return _CONSERVATIVE

    def calculate(
        self, structure: Structure, wanted: Collection[str], **how: Unpack[How]
    ) -> dict[str, Any]:
        """All properties but the stress, which is there where it is wanted."""
        state = self._solve(structure, how["space"])
        stress = state.stress if "stress" in wanted else None
        numbers = EnergyAndForces(state.energy, state.forces, stress).by_name
        return numbers | {"hellmann_feynman_forces": state.forces}

    def density(
        self, structure: Structure, space: TensorSpace | None, refinement_steps: int
    ) -> Density:
        del refinement_steps
        return self._solve(structure, space).density

    def _solve(self, structure: Structure, space: TensorSpace | None) -> GroundState:
        assert space is not None
        return solve_ground_state(
            structure, space, self.functional, residual_tolerance=self.residual_tolerance
        )


@dataclass(eq=False)
class _KohnShamSolver:
    """The Kohn-Sham solver, to be asked like a model; it remembers its last state."""

    functional: KohnSham
    kpoints: KPoints | tuple[Any, Any] | None
    smearing: Smearing | float
    cutoff: float | None
    residual_tolerance: float
    device = torch.device("cpu")
    _last: KohnShamState | None = None

    @property
    def resolution(self) -> tuple[Callable[[Structure], float], int]:
        return self._spacing, DEFAULT_ORDER

    def _spacing(self, structure: Structure) -> float:
        return spacing_for_cutoff(self.cutoff or default_cutoff(structure, self.functional))

    def properties(self, route: str) -> tuple[str, ...]:
        del route
        return _CONSERVATIVE

    def calculate(
        self, structure: Structure, wanted: Collection[str], **how: Unpack[How]
    ) -> dict[str, Any]:
        """All properties but the stress, which is there where it is wanted."""
        state = self._solve(structure, how["space"])
        results = {
            "energy": state.energy_at_zero_width,
            "free_energy": state.free_energy,
            "forces": state.forces,
            "hellmann_feynman_forces": state.forces,
        }
        return results | ({"stress": state.stress} if "stress" in wanted else {})

    def density(
        self, structure: Structure, space: TensorSpace | None, refinement_steps: int
    ) -> Density:
        del refinement_steps
        return self._solve(structure, space).density

    def _solve(self, structure: Structure, space: TensorSpace | None) -> KohnShamState:
        assert space is not None
        guess = None
        if self._last is not None and self._last.space.describe() == space.describe():
            guess = self._last.density
        self._last = solve_kohn_sham(
            structure,
            space,
            self.functional,
            self.kpoints,
            self.smearing,
            self.cutoff,
            residual_tolerance=self.residual_tolerance,
            guess=guess,
        )
        return self._last


def _source(
    predictor: Model | str | Path | None,
    functional: EnergyFunctional | KohnSham | None,
    residual_tolerance: float,
    kpoints: KPoints | tuple[Any, Any] | None,
    smearing: Smearing | float,
    cutoff: float | None,
) -> Model | _Solver | _KohnShamSolver:
    """What the arguments of a :class:`Calculator` ask for; its errors."""
    if (predictor is None) == (functional is None):
        raise FedensError("give a Calculator either a predictor or functional=, not both")
    _refuse_what_cannot_calculate(predictor, functional)
    if isinstance(functional, KohnSham):
        return _KohnShamSolver(functional, kpoints, smearing, cutoff, residual_tolerance)
    if kpoints is not None or smearing or cutoff is not None:
        raise FedensError(
            "kpoints, smearing and cutoff are of calculations with orbitals: give "
            "functional=KohnSham(...), or leave them out"
        )
    if functional is not None:
        return _Solver(functional, residual_tolerance)
    assert predictor is not None
    return Model.load(predictor) if isinstance(predictor, str | Path) else predictor


class _Meshes:
    """The mesh of a calculator, kept as long as the structure allows it."""

    def __init__(self, spacing: float | Callable[[Structure], float], order: int, device: Any):
        self.spacing, self.order, self.device = spacing, order, device
        self._first: TensorSpace | None = None

    def space_for(self, structure: Structure) -> TensorSpace:
        """The mesh kept, stretched to the structure's cell, or a new one."""
        if self._first is None or not self._fits(self._first, structure):
            spacing = self.spacing(structure) if callable(self.spacing) else self.spacing
            self._first = TensorSpace.for_structure(
                structure, spacing, self.order, device=self.device
            )
        if not structure.periodic:
            return self._first
        factors = structure.orthorhombic_lengths() / np.array(self._first.lengths)
        if np.array_equal(factors, np.ones(3)):
            return self._first
        return self._first.scaled(self._first.points.new_tensor(factors))

    def _fits(self, space: TensorSpace, structure: Structure) -> bool:
        if structure.periodic != space.is_periodic:
            return False
        if structure.periodic:
            change = structure.orthorhombic_lengths() / np.array(space.lengths)
            return bool((np.abs(change - 1) <= _SAME_ELEMENTS).all())
        for i, axis in enumerate(space.axes):
            own = structure.positions[:, i]
            if own.min() <= float(axis.edges[0]) or own.max() >= float(axis.edges[-1]):
                return False
        positions = space.points.new_tensor(structure.positions)
        return space.spacing_at(positions) <= _SAME_BOX * space.finest_spacing
