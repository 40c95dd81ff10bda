"""ASE calculator: a learned model by one of its routes, or the orbital-free solver itself."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator as AseCalculator
from ase.calculators.calculator import PropertyNotImplementedError, all_changes
from numpy.typing import NDArray

from fedens.data.density import Density
from fedens.energy.functional import EnergyFunctional
from fedens.errors import ExtrapolationWarning, FedensError
from fedens.fem.tensor import DEFAULT_ORDER, DEFAULT_SPACING, TensorSpace
from fedens.models.crystal.model import Predictor
from fedens.models.crystal.prediction import check_route
from fedens.models.molecule.model import MolecularModel
from fedens.models.registry import load_model
from fedens.reference.orbital_free import solve_ground_state
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

_CONSERVATIVE = ("energy", "free_energy", "forces", "stress", "hellmann_feynman_forces")
_UNCERTAINTIES = ("energy_uncertainty", "forces_uncertainty")
_OF_MOLECULES = ("energy", "free_energy", "forces", "dipole", "hellmann_feynman_forces")


class Calculator(AseCalculator):
    """Energies (eV), forces (eV/angstrom) and stress (eV/angstrom^3) for ASE.

    ``Calculator(predictor)`` or ``Calculator("runs/aluminium/model")`` predicts;
    ``Calculator(functional=...)`` solves for the ground state.

    Args:
        predictor: a model or its folder. route: ``functional`` (the parent functional at the
            predicted density), ``energy_density`` (sum of predicted energy densities), or
            ``hellmann_feynman``, whose forces are no derivative of an energy: it offers
            ``hellmann_feynman_forces`` and neither energy nor forces.
        refinement_steps: minimisation steps of the functional from the predicted density.
        functional: run the solver with it instead. residual_tolerance: of the solver, hartree.
        spacing, order: of the mesh; default the model's, or 0.34 bohr and 10 for the solver.

    Beyond ASE's names, ``get_property`` knows ``hellmann_feynman_forces``, and for models
    ``energy_uncertainty`` and ``forces_uncertainty``. ``density(atoms)`` gives the density.

    A model of molecules (:class:`fedens.models.molecule.model.MolecularModel`) has neither routes
    nor a mesh, and also gives the dipole moment (e angstrom).

    Forces are the exact derivative of the energy on a fixed mesh, and so is the stress: a cell
    keeps its number of elements while its edges stay within 10 % of what they were at first, an
    isolated structure its box while its atoms stay in the fine elements. Where that ends, the
    mesh is made anew and the energy may jump by the discretisation error. The mesh is
    orthorhombic: sheared cells raise, and the three shear components of the stress, which are
    not known, are given as zero, so that cell relaxations keep right angles.

    Raises:
        FedensError: both or neither of ``predictor`` and ``functional``; an unknown route.
    """

    name = "fedens"

    def __init__(
        self,
        predictor: Predictor | MolecularModel | str | Path | None = None,
        route: str = "functional",
        *,
        functional: EnergyFunctional | None = None,
        refinement_steps: int = 0,
        residual_tolerance: float = 1e-6,
        spacing: float | None = None,
        order: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if (predictor is None) == (functional is None):
            raise FedensError("give a Calculator either a predictor or functional=, not both")
        check_route(route)
        if isinstance(predictor, str | Path):
            predictor = load_model(predictor)
        self.molecules = predictor if isinstance(predictor, MolecularModel) else None
        if isinstance(predictor, MolecularModel):
            predictor = None
        self.predictor, self.functional = predictor, functional
        self.route, self.refinement_steps = route, refinement_steps
        self.residual_tolerance = residual_tolerance
        self._meshes = _Meshes(
            spacing or (predictor.spacing if predictor else DEFAULT_SPACING),
            order or (predictor.order if predictor else DEFAULT_ORDER),
            predictor.device if predictor else "cpu",
        )
        self._stress_wanted = self._has_warned = False
        self.implemented_properties = list(self._offered())

    def _offered(self) -> tuple[str, ...]:
        if self.molecules is not None:
            several = len(self.molecules.energy_networks) > 1
            return (*_OF_MOLECULES, "energy_uncertainty") if several else _OF_MOLECULES
        if self.predictor is None:
            return _CONSERVATIVE
        if self.route == "hellmann_feynman":
            return ("hellmann_feynman_forces", "forces_uncertainty")
        return (*_CONSERVATIVE, *_UNCERTAINTIES)

    def get_property(self, name: str, atoms: Atoms | None = None, allow_calculation: bool = True):  # type: ignore[no-untyped-def]
        """As in ASE; a property that the route lacks says why it does."""
        if name not in self.implemented_properties:
            raise PropertyNotImplementedError(self._why_not(name))
        return super().get_property(name, atoms, allow_calculation)

    def _why_not(self, name: str) -> str:
        offered = ", ".join(self.implemented_properties)
        if self.route == "hellmann_feynman" and name in _CONSERVATIVE:
            return (
                f"route 'hellmann_feynman' has no {name}: its forces come from the density alone "
                "and are not the derivative of an energy, so dynamics would not conserve it; ask "
                "for 'hellmann_feynman_forces', or use route 'functional'"
            )
        return f"{name} is not available; this calculator offers {offered}"

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Compute ``properties`` and what comes with them, in ASE's units, into ``results``."""
        super().calculate(atoms, properties, system_changes)
        assert self.atoms is not None
        structure = Structure.from_ase(self.atoms)
        if "stress" in properties and not (structure.periodic and self.molecules is None):
            raise PropertyNotImplementedError("stress is defined for periodic cells only")
        # who asks for the stress once asks for it at every step: get it from the same pass
        self._stress_wanted |= "stress" in properties
        wanted = set(properties)
        if self._stress_wanted and structure.periodic:
            wanted.add("stress")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            results = self._results(structure, wanted)
        self._pass_on(caught)
        for name, value in results.items():
            self.results[name] = _voigt(value) if name == "stress" else value
            self.results[name] = self.results[name] * _UNITS[name]

    def _results(self, structure: Structure, wanted: set[str]) -> dict[str, Any]:
        if self.molecules is not None:
            return self._of_molecule(self.molecules, structure, wanted)
        space = self._meshes.space_for(structure)
        compute = self._predicted if self.predictor else self._solved
        return compute(structure, space, wanted)

    def _of_molecule(
        self, model: MolecularModel, structure: Structure, wanted: set[str]
    ) -> dict[str, Any]:
        found = model.energy_and_forces(structure)
        results: dict[str, Any] = {"energy": found.energy, "free_energy": found.energy}
        results["forces"] = found.forces
        if wanted & {"dipole", "hellmann_feynman_forces", "energy_uncertainty"}:
            prediction = model.predict(structure)
            results["dipole"] = prediction.dipole
            if "hellmann_feynman_forces" in wanted:
                results["hellmann_feynman_forces"] = prediction.hellmann_feynman_forces
            if prediction.energy_uncertainty is not None:
                results["energy_uncertainty"] = prediction.energy_uncertainty
        return results

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
        if self.molecules is not None:
            raise FedensError(
                "a model of molecules has no mesh: model.predict(structure).fields(points) gives "
                "the density at any points"
            )
        structure = Structure.from_ase(atoms)
        space = self._meshes.space_for(structure)
        if self.predictor is None:
            return self._ground_state(structure, space).density
        return self.predictor.density(structure, space, self.refinement_steps)

    def _ground_state(self, structure: Structure, space: TensorSpace) -> Any:
        assert self.functional is not None
        return solve_ground_state(
            structure, space, self.functional, residual_tolerance=self.residual_tolerance
        )

    def _solved(
        self,
        structure: Structure,
        space: TensorSpace,
        wanted: set[str],
    ) -> dict[str, Any]:
        state = self._ground_state(structure, space)
        results = {"energy": state.energy, "free_energy": state.energy, "forces": state.forces}
        results["hellmann_feynman_forces"] = state.forces
        if "stress" in wanted:
            results["stress"] = state.stress
        return results

    def _predicted(
        self,
        structure: Structure,
        space: TensorSpace,
        wanted: set[str],
    ) -> dict[str, Any]:
        assert self.predictor is not None
        how = (space, self.refinement_steps)
        results: dict[str, Any] = {}
        if wanted & {"energy", "free_energy", "forces", "stress"}:
            numbers = self.predictor.energy_and_forces(
                structure, self.route, *how, stress="stress" in wanted
            )
            results |= {"energy": numbers.energy, "free_energy": numbers.energy}
            results["forces"] = numbers.forces
            if numbers.stress is not None:
                results["stress"] = numbers.stress
        if "hellmann_feynman_forces" in wanted:
            results["hellmann_feynman_forces"] = self.predictor.forces(
                structure, "hellmann_feynman", *how
            )
        if wanted & set(_UNCERTAINTIES):
            uncertainty = self.predictor.uncertainty(structure, self.route, *how)
            results["forces_uncertainty"] = uncertainty.forces
            if uncertainty.energy is not None:
                results["energy_uncertainty"] = uncertainty.energy
        return results


class _Meshes:
    """The mesh of a calculator, kept as long as the structure allows it."""

    def __init__(self, spacing: float, order: int, device: Any):
        self.spacing, self.order, self.device = spacing, order, device
        self._first: TensorSpace | None = None

    def space_for(self, structure: Structure) -> TensorSpace:
        """The mesh kept, stretched to the structure's cell, or a new one."""
        if self._first is None or not self._fits(self._first, structure):
            self._first = TensorSpace.for_structure(
                structure, self.spacing, self.order, device=self.device
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
            low, high = float(axis.edges[0]), float(axis.edges[-1])
            if (structure.positions[:, i] <= low).any() or (
                structure.positions[:, i] >= high
            ).any():
                return False
        positions = space.points.new_tensor(structure.positions)
        return space.spacing_at(positions) <= _SAME_BOX * space.finest_spacing


def _voigt(normal: NDArray[np.float64]) -> NDArray[np.float64]:
    """Normal stresses (3,) as ASE's (6,); shear is not known and given as zero."""
    return np.concatenate([normal, np.zeros(3)])
