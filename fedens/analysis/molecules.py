"""Errors of a molecule's prediction against a Kohn-Sham sample."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from numpy.typing import NDArray

from fedens.analysis.errors import density_errors, mean_absolute_error, percent
from fedens.analysis.evaluation import Evaluation, check_same_functional
from fedens.atoms.spherical import pair_energy, superposed_fields
from fedens.data.sample import Sample
from fedens.errors import ConvergenceError, ExtrapolationWarning, FunctionalError
from fedens.fields import LOCAL_FIELDS
from fedens.models.molecule.data import atoms_energy
from fedens.models.molecule.model import MolecularModel
from fedens.models.molecule.prediction import MolecularPrediction
from fedens.reference.pyscf.harris import harris
from fedens.reference.pyscf.kohn_sham import solve_with_pyscf
from fedens.units import (
    ELECTRON_BOHR_IN_DEBYE,
    HARTREE_IN_KCAL_PER_MOL,
    HARTREE_PER_BOHR_IN_KCAL_PER_MOL_ANGSTROM,
)

Array = NDArray[np.float64]


def evaluate_molecule(
    model: MolecularModel, sample: Sample, name: str = "", group: str = "", scf: bool = False
) -> Evaluation:
    """Predict a sample's molecule and compare fields, dipole, energy and forces.

    The route of energies and forces is ``predicted``. Beside the reference's forces,
    ``reference``, there are those of Hellmann and Feynman from its density where they are known,
    ``reference_hellmann_feynman``.

    Args:
        scf: also take a Harris step from the predicted density, and count the self-consistent
            cycles from there and from PySCF's own start; some seconds each.

    Raises:
        ModelError: a sample of another level of theory than the model's.
    """
    check_same_functional(model.provenance.get("functional"), sample, name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExtrapolationWarning)  # here the errors are known
        prediction = model.predict(sample.structure)
        found = model.energy_and_forces(sample.structure)
    numbers = field_errors(prediction, sample)
    wrong = found.energy - sample.total_energy
    numbers["energy_error_kcal_per_mol"] = HARTREE_IN_KCAL_PER_MOL * wrong
    if prediction.energy_uncertainty is not None:
        uncertainty = HARTREE_IN_KCAL_PER_MOL * prediction.energy_uncertainty
        numbers["energy_uncertainty_kcal_per_mol"] = uncertainty
    references = _reference_forces(sample)
    if "reference" in references:
        numbers |= force_errors(prediction, sample.structure.numbers, found.forces, **references)
    if scf:
        try:
            numbers |= _self_consistency(prediction, sample)
        except (ConvergenceError, FunctionalError) as error:
            warnings.warn(f"{name}: no step from the prediction: {error}", stacklevel=2)
    return Evaluation(
        name,
        group,
        sample.structure.formula,
        list(sample.structure.symbols),
        numbers,
        {"reference": sample.total_energy, "predicted": found.energy},
        {"predicted": found.forces} | references,
    )


def _reference_forces(sample: Sample) -> dict[str, Array]:
    feynman = sample.provenance.get("hellmann_feynman_forces_hartree_per_bohr")
    result = {} if sample.forces is None else {"reference": np.asarray(sample.forces)}
    return result if feynman is None else result | {"reference_hellmann_feynman": np.array(feynman)}


def field_errors(prediction: MolecularPrediction, sample: Sample) -> dict[str, float]:
    """Errors of the fields and of their integrals, by quadrature; energies in kcal/mol.

    Those of the kinetic and xc fields are in percent of what is learned, the difference to
    superposed atoms.
    """
    points, weights = torch.tensor(sample.points), torch.tensor(sample.weights)
    superposed = superposed_fields(sample.structure, points, prediction.atoms, names=LOCAL_FIELDS)
    learned = prediction.differences(points)
    true = {f: torch.tensor(sample.fields[f]) - superposed[f] for f in LOCAL_FIELDS}
    density, wrong = torch.tensor(sample.fields["density"]), learned["density"] - true["density"]
    numbers = density_errors(sample.structure, sample.points, weights, wrong, density)
    numbers["nmape_superposed_atoms_percent"] = percent(weights, true["density"], density)
    for field in ("kinetic", "xc"):
        share = percent(weights, learned[field] - true[field], true[field])
        numbers[f"{field}_difference_error_percent"] = share
    uncertainty = prediction.density_uncertainty(points)
    if uncertainty is not None:
        numbers["density_uncertainty_percent"] = percent(weights, uncertainty, density)
    charge = float(weights @ learned["density"]) + sample.structure.charge
    dipole = -(weights * true["density"]) @ points
    wrong_dipole = float(np.linalg.norm(prediction.dipole - dipole.numpy()))
    closed = atoms_energy(sample.structure, prediction.atoms)
    closed += float(pair_energy(sample.structure, prediction.atoms))
    integrand = learned["kinetic"] + learned["xc"] + prediction.electrostatic(points)
    wrong_energy = closed + float(weights @ integrand) - sample.total_energy
    return numbers | {
        "charge_error_by_quadrature_e": charge,
        "dipole_error_debye": ELECTRON_BOHR_IN_DEBYE * wrong_dipole,
        "energy_error_all_fields_kcal_per_mol": HARTREE_IN_KCAL_PER_MOL * wrong_energy,
    }


def force_errors(
    prediction: MolecularPrediction,
    atomic_numbers: NDArray[np.int64],
    forces: Array,
    reference: Array,
    reference_hellmann_feynman: Array | None = None,
) -> dict[str, float]:
    """Errors of forces (n_atoms, 3) in kcal/mol/angstrom; how the references differ, if known."""
    unit = HARTREE_PER_BOHR_IN_KCAL_PER_MOL_ANGSTROM
    size = unit * float(np.sqrt((reference**2).mean()))
    numbers = {
        "force_mae_kcal_per_mol_angstrom": mean_absolute_error(forces, reference, unit),
        "force_rms_reference_kcal_per_mol_angstrom": size,
    }
    if reference_hellmann_feynman is None:
        return numbers
    own = prediction.hellmann_feynman_forces
    key = "force_mae_hellmann_feynman_kcal_per_mol_angstrom"
    numbers[key] = mean_absolute_error(own, reference_hellmann_feynman, unit)
    pulay, heavy = unit * np.abs(reference_hellmann_feynman - reference), atomic_numbers > 1
    numbers["pulay_largest_kcal_per_mol_angstrom"] = float(pulay.max())
    for which, chosen in (("heavy_atoms", heavy), ("hydrogen", ~heavy)):
        if chosen.any():
            numbers[f"pulay_{which}_kcal_per_mol_angstrom"] = float(pulay[chosen].mean())
    return numbers


def _self_consistency(prediction: MolecularPrediction, sample: Sample) -> dict[str, float]:
    structure, theory = sample.structure, sample.provenance["functional"]
    level = {"xc": theory["xc"], "basis": theory["basis"]}
    grid_level = sample.provenance["grid_level"]
    step, start = (
        harris(structure, prediction.density_at, **level, atoms=prediction.atoms, grid_level=n)
        for n in (grid_level, 1)
    )
    run = level | {"grid_level": grid_level, "conv_tol": sample.provenance["conv_tol_hartree"]}
    plain = solve_with_pyscf(structure, **run)
    started = solve_with_pyscf(structure, **run, density_matrix=start.density_matrix)
    wrong = np.linalg.norm(step.dipole - plain.dipole)
    return {
        "dipole_error_one_kohn_sham_step_debye": ELECTRON_BOHR_IN_DEBYE * float(wrong),
        "energy_error_harris_kcal_per_mol": HARTREE_IN_KCAL_PER_MOL * (step.energy - plain.energy),
        "cycles_from_minao": plain.cycles,
        "cycles_from_prediction": started.cycles,
    }
