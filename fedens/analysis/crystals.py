"""Errors of a crystal's prediction against a reference sample, and what the model says of them."""

from __future__ import annotations

import warnings
from collections.abc import Collection
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedens.analysis.errors import density_errors, mean_absolute_error, percent
from fedens.analysis.evaluation import Evaluation, check_same_functional
from fedens.data.sample import Sample
from fedens.energy.forces import hellmann_feynman_forces
from fedens.errors import ExtrapolationWarning, ModelError
from fedens.fem.tensor import TensorSpace
from fedens.fields import ENERGY_DENSITIES
from fedens.models.base import EnergyAndForces
from fedens.models.crystal.model import Predictor
from fedens.models.crystal.prediction import ENERGY_ROUTES, Prediction, change_of_step
from fedens.units import HARTREE_IN_MEV, HARTREE_PER_BOHR_IN_MEV_PER_ANGSTROM

Arrays = dict[str, NDArray[np.float64]]


def evaluate_sample(
    predictor: Predictor, sample: Sample, name: str = ""
) -> tuple[Evaluation, Prediction]:
    """Predict a sample's structure on its own space and compare field by field.

    Routes of energies and forces are those of the model, and ``functional_one_step``: the
    functional route after one minimisation step. A model without any is compared by its fields.

    Raises:
        ModelError: a sample of another functional than the model's, without forces or a space.
    """
    check_same_functional(predictor.theory, sample, name)
    if sample.forces is None:
        raise ModelError(f"sample {name} has no forces to compare with")
    space = sample.tensor_space(predictor.device)
    with torch.no_grad():
        prediction = predictor.predict(sample.structure, space)
    by_route = _functional_numbers(predictor, prediction)
    energies = {route: n.energy for route, n in by_route.items()}
    if "energy_density" in predictor.routes:
        energies["energy_density"] = float(prediction.energy_of("energy_density"))
    forces = {route: n.forces for route, n in by_route.items()}
    if "hellmann_feynman" in predictor.routes:
        feynman = hellmann_feynman_forces(predictor.parent, sample.structure, prediction.density)
        forces["hellmann_feynman"] = feynman.cpu().numpy()
    force_uncertainties = _force_uncertainties(predictor, prediction, by_route)
    numbers = field_errors(prediction, sample, space)
    numbers |= energy_errors(energies, sample) | force_errors(forces, sample.forces)
    numbers |= _uncertainties(prediction, energies, force_uncertainties)
    evaluation = Evaluation(
        name,
        "",
        sample.structure.formula,
        list(sample.structure.symbols),
        numbers,
        {"reference": sample.total_energy, **energies},
        {"reference": sample.forces, **forces},
        force_uncertainties,
    )
    return evaluation, prediction


def _functional_numbers(predictor: Predictor, prediction: Prediction) -> dict[str, EnergyAndForces]:
    """The functional route, and after one minimisation step where that can be differentiated."""
    if "functional" not in predictor.routes:
        return {}
    routes = ["functional"]
    if prediction.bound.twice_differentiable:
        routes.append("functional_one_step")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExtrapolationWarning)
        space = cast(TensorSpace, prediction.bound.space)
        numbers = predictor.refinement(prediction.structure, range(len(routes)), space)
    return dict(zip(routes, numbers, strict=True))


def _force_uncertainties(
    predictor: Predictor, prediction: Prediction, numbers: dict[str, EnergyAndForces]
) -> Arrays:
    result = {}
    if "functional_one_step" in numbers:
        step = change_of_step(numbers["functional"], numbers["functional_one_step"])
        assert step.forces is not None
        result["functional"] = step.forces
    if "hellmann_feynman" in predictor.routes:
        feynman = prediction.force_uncertainty()
        if feynman is not None:
            result["hellmann_feynman"] = feynman
    return result


def quick_errors(predictor: Predictor, sample: Sample) -> dict[str, float]:
    """NMAPE and the functional route's energy error, without forces."""
    space = sample.tensor_space(predictor.device)
    with torch.no_grad():
        prediction = predictor.predict(sample.structure, space)
        known = "functional" in predictor.routes
        energies = {"functional": prediction.energy} if known else {}
    reference = _on(space, sample.fields["density"])
    nmape = percent(space.weights, prediction.density.values - reference, reference)
    return {"nmape_percent": nmape, **energy_errors(energies, sample)}


def field_errors(prediction: Prediction, sample: Sample, space: TensorSpace) -> dict[str, float]:
    """Errors of density and energy densities; percentages are of the reference's integral.

    Charge and dipole are those of the prediction before it was normalised.
    """
    weights, reference = space.weights, _on(space, sample.fields["density"])
    error = prediction.density.values - reference
    raw_error = prediction.raw_root**2 - reference
    centre = torch.stack([(axis.edges[0] + axis.edges[-1]) / 2 for axis in space.axes])
    dipole = (weights * raw_error) @ (space.points - centre)
    charge = abs(float(space.integrate(raw_error)))
    result = density_errors(sample.structure, sample.points, weights, error, reference) | {
        "charge_error_before_normalisation_percent": 100 * charge / prediction.electrons,
        "dipole_error_before_normalisation_e_bohr": float(dipole.norm()),
    }
    for field in ENERGY_DENSITIES:
        expected = _on(space, sample.fields[field])
        difference = prediction.energy_densities[field] - expected
        result[f"{field}_energy_density_error_percent"] = percent(weights, difference, expected)
    return result


def _on(space: TensorSpace, values: NDArray[np.float64]) -> Tensor:
    return torch.tensor(values, device=space.device)


def energy_errors(energies: dict[str, float], sample: Sample) -> dict[str, float]:
    """Errors with their sign, meV/atom, of energies by route, hartree."""
    per_atom = HARTREE_IN_MEV / len(sample.structure)
    return {
        f"energy_error_{route}_mev_per_atom": (energy - sample.total_energy) * per_atom
        for route, energy in energies.items()
    }


def force_errors(forces: Arrays, reference: NDArray[np.float64]) -> dict[str, float]:
    """Mean absolute errors, meV/angstrom, of forces by route, hartree/bohr, and their spread."""
    unit = HARTREE_PER_BOHR_IN_MEV_PER_ANGSTROM
    errors = {
        f"force_mae_{route}_mev_per_angstrom": mean_absolute_error(values, reference, unit)
        for route, values in forces.items()
    }
    return {**errors, "force_spread_reference_mev_per_angstrom": float(reference.std()) * unit}


def _uncertainties(
    prediction: Prediction, energies: Collection[str], forces: Arrays
) -> dict[str, float]:
    """Uncertainties as means and integrals like those of the errors, where the model has them."""
    space = prediction.density.space
    result = {"points_outside_training_percent": 100 * prediction.points_outside / space.n_points}
    if prediction.relative_density_uncertainty is not None:
        result["density_uncertainty_percent"] = 100 * prediction.relative_density_uncertainty
    per_atom = HARTREE_IN_MEV / len(prediction.structure)
    for route in (route for route in ENERGY_ROUTES if route in energies):
        energy = prediction.energy_uncertainty(route)
        if energy is not None:
            result[f"energy_uncertainty_{route}_mev_per_atom"] = energy * per_atom
    for route, values in forces.items():
        mean = float(values.mean()) * HARTREE_PER_BOHR_IN_MEV_PER_ANGSTROM
        result[f"force_uncertainty_{route}_mev_per_angstrom"] = mean
    return result
