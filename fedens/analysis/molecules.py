"""Errors of a model of molecules against Kohn-Sham samples it has not seen."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedens.analysis.crystals import NEAR_NUCLEUS
from fedens.atoms.spherical import pair_energy, superposed_fields
from fedens.data.sample import Sample
from fedens.errors import ConvergenceError, ExtrapolationWarning, FunctionalError, ModelError
from fedens.fields import LOCAL_FIELDS
from fedens.models.molecule.data import atoms_energy
from fedens.models.molecule.model import MolecularModel
from fedens.models.molecule.prediction import MolecularPrediction
from fedens.reference.pyscf.harris import harris, starting_density_matrix
from fedens.reference.pyscf.kohn_sham import solve_kohn_sham
from fedens.units import (
    ELECTRON_BOHR_IN_DEBYE,
    HARTREE_IN_KCAL_PER_MOL,
    HARTREE_PER_BOHR_IN_KCAL_PER_MOL_ANGSTROM,
)

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class MoleculeEvaluation:
    """What one molecule's prediction is worth.

    Attributes:
        name: of the sample. group: of its molecules in the configuration. formula: of it.
        numbers: errors and uncertainties by name with unit; errors of energies carry their sign.
        energy, predicted_energy: hartree.
        symbols: of the atoms.
        forces: (n_atoms, 3), hartree/bohr, by kind: ``predicted`` and, where they are known, the
            reference's, ``reference``, and those of Hellmann and Feynman from the reference's
            density, ``reference_hellmann_feynman``.
    """

    name: str
    group: str
    formula: str
    numbers: dict[str, float]
    energy: float
    predicted_energy: float
    symbols: list[str]
    forces: dict[str, Array]

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON can hold it."""
        return vars(self) | {"forces": {kind: f.tolist() for kind, f in self.forces.items()}}


@dataclass(frozen=True)
class LearningPoint:
    """Mean errors of a model.

    Attributes:
        size: samples it learned from. members: networks of each kind.
        errors: mean absolute value of every number, by name with unit.
    """

    size: int
    members: int
    errors: dict[str, float]

    @classmethod
    def of(
        cls, size: int, members: int, evaluations: Sequence[MoleculeEvaluation]
    ) -> LearningPoint:
        """The means of some evaluations."""
        return cls(size, members, mean_errors(evaluations))


def numbers_by_name(evaluations: Sequence[MoleculeEvaluation]) -> dict[str, list[float]]:
    """Every number of the molecules that have it."""
    names = dict.fromkeys(name for one in evaluations for name in one.numbers)
    return {name: [o.numbers[name] for o in evaluations if name in o.numbers] for name in names}


def mean_errors(evaluations: Sequence[MoleculeEvaluation]) -> dict[str, float]:
    """Mean absolute value of every number, over the molecules that have it."""
    return {name: float(np.abs(v).mean()) for name, v in numbers_by_name(evaluations).items()}


def evaluate_molecule(
    model: MolecularModel, sample: Sample, name: str = "", group: str = "", scf: bool = False
) -> MoleculeEvaluation:
    """Predict a sample's molecule and compare fields, dipole, energy and forces.

    Args:
        scf: also take a Harris step from the predicted density, and count the self-consistent
            cycles from there and from PySCF's own start; some seconds each.

    Raises:
        ModelError: a sample of another level of theory than the model's.
    """
    _refuse_other_theory(model, sample, name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExtrapolationWarning)  # here the errors are known
        prediction = model.predict(sample.structure)
        found = model.energy_and_forces(sample.structure)
        energy, forces = found.energy, found.forces
    numbers = _errors_on_mesh(prediction, sample)
    numbers["energy error (kcal/mol)"] = HARTREE_IN_KCAL_PER_MOL * (energy - sample.total_energy)
    if prediction.energy_uncertainty is not None:
        spread = prediction.energy_uncertainty
        numbers["energy, committee's spread (kcal/mol)"] = HARTREE_IN_KCAL_PER_MOL * spread
    if sample.forces is not None:
        numbers |= _force_errors(prediction, sample, forces)
    if scf:
        try:
            numbers |= _self_consistency(prediction, sample)
        except (ConvergenceError, FunctionalError) as error:
            warnings.warn(f"{name}: no step from the prediction: {error}", stacklevel=2)
    return MoleculeEvaluation(
        name,
        group,
        sample.structure.formula,
        numbers,
        sample.total_energy,
        energy,
        list(sample.structure.symbols),
        {"predicted": forces} | _reference_forces(sample),
    )


def _reference_forces(sample: Sample) -> dict[str, Array]:
    feynman = sample.provenance.get("hellmann_feynman_forces_hartree_per_bohr")
    result = {} if sample.forces is None else {"reference": np.asarray(sample.forces)}
    return result if feynman is None else result | {"reference_hellmann_feynman": np.array(feynman)}


def _refuse_other_theory(model: MolecularModel, sample: Sample, name: str) -> None:
    trained, here = model.provenance.get("functional"), sample.provenance.get("functional")
    if trained != here:
        raise ModelError(
            f"sample {name or sample.structure.formula} is of {here}, the model was trained on "
            f"{trained}: their energies and fields cannot be compared"
        )


def _errors_on_mesh(prediction: MolecularPrediction, sample: Sample) -> dict[str, float]:
    """Errors of the fields and of their integrals, by quadrature."""
    points = torch.tensor(sample.points)
    superposed = superposed_fields(sample.structure, points, prediction.atoms, names=LOCAL_FIELDS)
    learned = prediction.differences(points)
    true = {f: torch.tensor(sample.fields[f]) - superposed[f] for f in LOCAL_FIELDS}
    return _field_errors(prediction, sample, points, learned, true) | _integral_errors(
        prediction, sample, points, learned, true
    )


def _field_errors(
    prediction: MolecularPrediction,
    sample: Sample,
    points: Tensor,
    learned: dict[str, Tensor],
    true: dict[str, Tensor],
) -> dict[str, float]:
    """Absolute errors integrated, against the integral of what is learned or of the density."""
    weights = torch.tensor(sample.weights)
    wrong = {f: (learned[f] - true[f]).abs() for f in LOCAL_FIELDS}
    electrons = sample.number_of_electrons
    nearest = torch.cdist(points, torch.tensor(sample.structure.positions)).amin(dim=1)
    near = weights * (nearest < NEAR_NUCLEUS)
    density = torch.tensor(sample.fields["density"])
    numbers = {
        "NMAPE (%)": 100 * float(weights @ wrong["density"]) / electrons,
        "NMAPE within 1 bohr of nuclei (%)": 100
        * float(near @ wrong["density"] / (near @ density)),
        "NMAPE of superposed atoms (%)": 100 * float(weights @ true["density"].abs()) / electrons,
    }
    for field in ("kinetic", "xc"):
        share = float(weights @ wrong[field] / (weights @ true[field].abs()))
        numbers[f"{field} energy density, of what is learned (%)"] = 100 * share
    spread = prediction.density_uncertainty(points)
    if spread is not None:
        share = float(weights @ spread) / electrons
        numbers["density, committee's spread (%)"] = 100 * share
    return numbers


def _integral_errors(
    prediction: MolecularPrediction,
    sample: Sample,
    points: Tensor,
    learned: dict[str, Tensor],
    true: dict[str, Tensor],
) -> dict[str, float]:
    """Charge and dipole moment, and the energy of the predicted fields by quadrature."""
    weights = torch.tensor(sample.weights)
    dipole = -(weights * true["density"]) @ points
    wrong = np.linalg.norm(prediction.dipole - dipole.numpy())
    charge = float(weights @ learned["density"]) + sample.structure.charge
    by_fields = _energy_by_quadrature(prediction, sample, weights, learned, points)
    return {
        "charge by quadrature, error (e)": charge,
        "dipole (D)": ELECTRON_BOHR_IN_DEBYE * float(wrong),
        "energy by quadrature of all predicted fields, error (kcal/mol)": HARTREE_IN_KCAL_PER_MOL
        * (by_fields - sample.total_energy),
    }


def _energy_by_quadrature(
    prediction: MolecularPrediction,
    sample: Sample,
    weights: Tensor,
    learned: dict[str, Tensor],
    points: Tensor,
) -> float:
    closed = atoms_energy(sample.structure, prediction.atoms)
    closed += float(pair_energy(sample.structure, prediction.atoms))
    integrand = learned["kinetic"] + learned["xc"] + prediction.electrostatic(points)
    return closed + float(weights @ integrand)


def _force_errors(
    prediction: MolecularPrediction, sample: Sample, forces: Array
) -> dict[str, float]:
    assert sample.forces is not None
    unit = HARTREE_PER_BOHR_IN_KCAL_PER_MOL_ANGSTROM
    numbers = {
        "forces (kcal/mol/angstrom)": unit * float(np.abs(forces - sample.forces).mean()),
        "forces, spread of the reference (kcal/mol/angstrom)": unit
        * float(np.sqrt((sample.forces**2).mean())),
    }
    reference = _reference_forces(sample).get("reference_hellmann_feynman")
    if reference is None:
        return numbers
    pulay = np.abs(reference - sample.forces)
    heavy = sample.structure.numbers > 1
    numbers["Pulay difference of the reference, largest (kcal/mol/angstrom)"] = unit * pulay.max()
    if heavy.any():
        name = "Pulay difference of the reference, mean of heavy atoms (kcal/mol/angstrom)"
        numbers[name] = unit * float(pulay[heavy].mean())
    if not heavy.all():
        name = "Pulay difference of the reference, mean of hydrogen (kcal/mol/angstrom)"
        numbers[name] = unit * float(pulay[~heavy].mean())
    own = np.abs(prediction.hellmann_feynman_forces - reference).mean()
    numbers["Hellmann-Feynman forces of the predicted density (kcal/mol/angstrom)"] = unit * own
    return numbers


def _self_consistency(prediction: MolecularPrediction, sample: Sample) -> dict[str, float]:
    structure, theory = sample.structure, sample.provenance["functional"]
    level = {"xc": theory["xc"], "basis": theory["basis"]}
    grid_level = sample.provenance["grid_level"]
    step = harris(
        structure, prediction.density_at, **level, atoms=prediction.atoms, grid_level=grid_level
    )
    start = starting_density_matrix(
        structure, prediction.density_at, **level, atoms=prediction.atoms
    )
    run = level | {"grid_level": grid_level, "conv_tol": sample.provenance["conv_tol_hartree"]}
    plain = solve_kohn_sham(structure, **run)
    started = solve_kohn_sham(structure, **run, density_matrix=start)
    wrong = np.linalg.norm(step.dipole - plain.dipole)
    return {
        "dipole after one Kohn-Sham step (D)": ELECTRON_BOHR_IN_DEBYE * float(wrong),
        "Harris energy error (kcal/mol)": HARTREE_IN_KCAL_PER_MOL * (step.energy - plain.energy),
        "self-consistent cycles from minao": plain.cycles,
        "self-consistent cycles from the prediction": started.cycles,
    }
