"""Errors of a prediction against a reference sample, and what the model says about them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from fedens.data.sample import Sample
from fedens.energy.forces import hellmann_feynman_forces
from fedens.errors import ExtrapolationWarning, ModelError
from fedens.fem.tensor import TensorSpace
from fedens.fields import ENERGY_DENSITIES
from fedens.models.crystal.model import Predictor
from fedens.models.crystal.prediction import (
    ENERGY_ROUTES,
    EnergyAndForces,
    Prediction,
    Uncertainty,
)
from fedens.structure import Structure
from fedens.units import HARTREE_IN_MEV, HARTREE_PER_BOHR_IN_MEV_PER_ANGSTROM

#: Points closer than this to a nucleus count as near nuclei, bohr.
NEAR_NUCLEUS = 1.0


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Errors of one prediction; energies in hartree, forces (n_atoms, 3) in hartree/bohr.

    Attributes:
        name, formula, n_atoms: of the sample.
        errors: errors and uncertainties, name with unit -> value; energy errors carry their sign.
            Uncertainties are there where the model has them: see :class:`Prediction`.
        energies, forces: by route, with ``reference`` among them, and ``functional_one_step``:
            the functional route after one minimisation step.
        force_uncertainties: by route.
    """

    name: str
    formula: str
    n_atoms: int
    errors: dict[str, float]
    energies: dict[str, float]
    forces: dict[str, NDArray[np.float64]]
    force_uncertainties: dict[str, NDArray[np.float64]]


def evaluate_sample(
    predictor: Predictor, sample: Sample, name: str = ""
) -> tuple[Evaluation, Prediction]:
    """Predict a sample's structure on its own space and compare field by field.

    Raises:
        ModelError: a sample of another functional than the model's, without forces or a space.
    """
    _check_same_functional(predictor, sample)
    if sample.forces is None:
        raise ModelError(f"sample {name} has no forces to compare with")
    space = sample.tensor_space(predictor.device)
    with torch.no_grad():
        prediction = predictor.predict(sample.structure, space)
    numbers = _functional_numbers(predictor, prediction)
    energies = {route: n.energy for route, n in numbers.items()}
    energies["energy_density"] = float(prediction.energy("energy_density"))
    feynman = hellmann_feynman_forces(predictor.functional, sample.structure, prediction.density)
    forces = {route: n.forces for route, n in numbers.items()}
    forces["hellmann_feynman"] = feynman.cpu().numpy()
    force_uncertainties = _force_uncertainties(prediction, numbers)
    errors = density_errors(prediction, sample, space)
    errors |= _energy_errors(energies, sample) | _force_errors(forces, sample)
    errors |= _uncertainties(prediction, force_uncertainties)
    evaluation = Evaluation(
        name,
        sample.structure.formula,
        len(sample.structure),
        errors,
        {"reference": sample.total_energy, **energies},
        {"reference": sample.forces, **forces},
        force_uncertainties,
    )
    return evaluation, prediction


def _functional_numbers(predictor: Predictor, prediction: Prediction) -> dict[str, EnergyAndForces]:
    """The functional route, and after one minimisation step where that can be differentiated."""
    routes = ["functional"]
    if prediction.bound.twice_differentiable:
        routes.append("functional_one_step")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExtrapolationWarning)
        space = cast(TensorSpace, prediction.bound.space)
        numbers = predictor.refinement(prediction.structure, range(len(routes)), space)
    return dict(zip(routes, numbers, strict=True))


def _force_uncertainties(
    prediction: Prediction, numbers: dict[str, EnergyAndForces]
) -> dict[str, NDArray[np.float64]]:
    result = {}
    if "functional_one_step" in numbers:
        step = Uncertainty.of_step(numbers["functional"], numbers["functional_one_step"])
        result["functional"] = step.forces
    feynman = prediction.force_uncertainty()
    if feynman is not None:
        result["hellmann_feynman"] = feynman
    return result


def quick_errors(predictor: Predictor, sample: Sample) -> dict[str, float]:
    """NMAPE and the functional route's absolute energy error, without forces."""
    space = sample.tensor_space(predictor.device)
    with torch.no_grad():
        prediction = predictor.predict(sample.structure, space)
        energies = {"functional": float(prediction.energy("functional"))}
    reference = _on(space, sample.fields["density"])
    nmape = _relative(space, prediction.density.values - reference, reference)
    errors = _energy_errors(energies, sample)
    return {"nmape_percent": nmape, **{key: abs(value) for key, value in errors.items()}}


def density_errors(prediction: Prediction, sample: Sample, space: TensorSpace) -> dict[str, float]:
    """Errors of density and energy densities; percentages are of the reference's integral.

    NMAPE is the integral of |n_pred - n_ref| over the integral of n_ref. Charge and dipole are
    those of the prediction before it was normalised.
    """
    reference = _on(space, sample.fields["density"])
    error = prediction.density.values - reference
    near = _on(space, near_nuclei(sample.structure, sample.points))
    raw_error = prediction.raw_root**2 - reference
    centre = torch.stack([(axis.edges[0] + axis.edges[-1]) / 2 for axis in space.axes])
    dipole = (space.weights * raw_error) @ (space.points - centre)
    result = {
        "nmape_percent": _relative(space, error, reference),
        "density_error_near_nuclei_percent": _relative(space, error * near, reference * near),
        "charge_error_before_normalisation_percent": 100
        * abs(float(space.integrate(raw_error)))
        / prediction.bound.electrons,
        "dipole_error_before_normalisation_e_bohr": float(dipole.norm()),
    }
    for field in ENERGY_DENSITIES:
        expected = _on(space, sample.fields[field])
        difference = prediction.energy_densities[field] - expected
        result[f"{field}_energy_density_error_percent"] = _relative(space, difference, expected)
    return result


def near_nuclei(structure: Structure, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """1.0 at points (n_points, 3) within :data:`NEAR_NUCLEUS` of a nucleus or image, else 0.0."""
    if structure.periodic:
        box = structure.orthorhombic_lengths()
        tree = cKDTree(structure.positions % box % box, boxsize=box)
        distances, _ = tree.query(points % box % box)
    else:
        distances, _ = cKDTree(structure.positions).query(points)
    return (distances < NEAR_NUCLEUS).astype(np.float64)


def _relative(space: TensorSpace, error: Tensor, reference: Tensor) -> float:
    scale = space.integrate(reference.abs())
    return 100 * float(space.integrate(error.abs()) / scale)


def _on(space: TensorSpace, values: NDArray[np.float64]) -> Tensor:
    return torch.tensor(values, device=space.device)


def _energy_errors(energies: dict[str, float], sample: Sample) -> dict[str, float]:
    per_atom = HARTREE_IN_MEV / len(sample.structure)
    return {
        f"energy_error_{route}_mev_per_atom": (energy - sample.total_energy) * per_atom
        for route, energy in energies.items()
    }


def _force_errors(forces: dict[str, NDArray[np.float64]], sample: Sample) -> dict[str, float]:
    unit = HARTREE_PER_BOHR_IN_MEV_PER_ANGSTROM
    assert sample.forces is not None
    errors = {
        f"force_mae_{route}_mev_per_angstrom": float(np.abs(f - sample.forces).mean()) * unit
        for route, f in forces.items()
    }
    spread = float(sample.forces.std()) * unit
    return {**errors, "force_spread_reference_mev_per_angstrom": spread}


def _uncertainties(
    prediction: Prediction, forces: dict[str, NDArray[np.float64]]
) -> dict[str, float]:
    """Uncertainties as means and integrals like those of the errors, where the model has them."""
    space = prediction.bound.space
    result = {"points_outside_training_percent": 100 * prediction.points_outside / space.n_points}
    if prediction.density_uncertainty is not None:
        result["density_uncertainty_percent"] = 100 * prediction.density_uncertainty
    per_atom = HARTREE_IN_MEV / len(prediction.structure)
    for route in ENERGY_ROUTES:
        energy = prediction.energy_uncertainty(route)
        if energy is not None:
            result[f"energy_uncertainty_{route}_mev_per_atom"] = energy * per_atom
    for route, values in forces.items():
        mean = float(values.mean()) * HARTREE_PER_BOHR_IN_MEV_PER_ANGSTROM
        result[f"force_uncertainty_{route}_mev_per_angstrom"] = mean
    return result


def _check_same_functional(predictor: Predictor, sample: Sample) -> None:
    theirs = sample.provenance.get("functional")
    if theirs is not None and theirs != predictor.functional.describe():
        raise ModelError(
            "the sample was made with another functional than the model was trained for; "
            f"model: {predictor.functional.describe()}, sample: {theirs}"
        )


def summarise(evaluations: Sequence[Evaluation]) -> dict[str, dict[str, float]]:
    """Mean and maximum of the absolute value of every error over the evaluations."""
    names = evaluations[0].errors
    table = {name: np.abs([e.errors[name] for e in evaluations]) for name in names}
    return {
        name: {"mean": float(values.mean()), "max": float(values.max())}
        for name, values in table.items()
    }
