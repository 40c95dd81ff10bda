"""What methods of any kind say of crystals, side by side: errors of each cell and their means."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedens.analysis.errors import mean_absolute_error, percent
from fedens.data.sample import Sample
from fedens.energy.functional import EnergyFunctional
from fedens.errors import ConvergenceError, ModelError
from fedens.models.base import Uncertainty
from fedens.models.functional.model import FunctionalModel
from fedens.models.functional.prediction import FunctionalPrediction
from fedens.models.points.model import EnergyModel
from fedens.reference.orbital_free import solve_ground_state
from fedens.units import (
    HARTREE_IN_MEV,
    HARTREE_PER_BOHR3_IN_GPA,
    HARTREE_PER_BOHR_IN_MEV_PER_ANGSTROM,
)

Array = NDArray[np.float64]
#: Of one cell by one method, as JSON can hold it: see :func:`compare`.
Row = Mapping[str, Any]

#: Means of absolute values over the cells, where the method has them.
_MEANS = (
    "nmape_percent",
    "force_mae_mev_per_angstrom",
    "stress_error_gpa",
    "evaluations",
    "call_seconds",
)


@dataclass(frozen=True, eq=False)
class Answer:
    """What a method says of a crystal, Hartree atomic units.

    Attributes:
        energy: total energy. forces: (n_atoms, 3). stress: (3,), or None.
        density: (n_points,) at the sample's points, or None. evaluations: of a functional.
        uncertainty: estimated errors, or None. seconds: that it took.
    """

    energy: float
    forces: Array
    stress: Array | None = None
    density: Tensor | None = None
    evaluations: int | None = None
    uncertainty: Uncertainty | None = None
    seconds: float = 0.0


def functional_answer(
    functional: EnergyFunctional, sample: Sample, tolerance: float, max_evaluations: int
) -> Answer:
    """The ground state of a functional on the space of a sample.

    Raises:
        ConvergenceError: it was not found.
    """
    start = time.perf_counter()
    state = solve_ground_state(
        sample.structure,
        sample.tensor_space(),
        functional,
        residual_tolerance=tolerance,
        max_evaluations=max_evaluations,
    )
    return Answer(
        state.energy,
        state.forces,
        state.stress,
        state.density.values,
        state.evaluations,
        seconds=time.perf_counter() - start,
    )


def model_answer(model: FunctionalModel, sample: Sample, error_bars: bool = True) -> Answer:
    """The minimum of a model's functional on the space of a sample; the time is without error bars.

    Args:
        error_bars: whether they are wanted, where the model has them.

    Raises:
        ConvergenceError: it was not found. ModelError: numbers that are not finite.
    """
    start = time.perf_counter()
    prediction = model.predict(sample.structure, sample.tensor_space())
    found = prediction.numbers(stress=True)
    seconds = time.perf_counter() - start
    return Answer(
        found.energy,
        found.forces,
        found.stress,
        prediction.density.values,
        prediction.state.evaluations,
        _error_bars(prediction) if error_bars and prediction.posterior else None,
        seconds,
    )


def _error_bars(prediction: FunctionalPrediction) -> Uncertainty:
    """Those of the forces need functionals drawn from the posterior, which may have no minimum."""
    try:
        return prediction.uncertainty
    except ConvergenceError:
        return Uncertainty(prediction.energy_uncertainty)


def atoms_answer(model: EnergyModel, sample: Sample) -> Answer:
    """Energy, forces and stress of a sum over the atoms."""
    start = time.perf_counter()
    found = model.energy_and_forces(sample.structure, stress=True)
    seconds = time.perf_counter() - start
    return Answer(found.energy, found.forces, found.stress, seconds=seconds)


@dataclass(frozen=True)
class Line:
    """E/N = offset + slope E_0/N: a straight line through the energies of another method.

    Attributes:
        offset: hartree per atom. slope: 1 where it is not fitted.
    """

    offset: float
    slope: float = 1.0

    @classmethod
    def fit(cls, energies: Sequence[float], samples: Sequence[Sample]) -> Line:
        """Through the energies (hartree) that a method has of samples; an offset of one alone."""
        x, y = (
            np.array([e / len(s.structure) for e, s in zip(values, samples, strict=True)])
            for values in (energies, [s.total_energy for s in samples])
        )
        if np.ptp(x) == 0:
            return cls(float(np.mean(y - x)))
        slope, offset = np.polyfit(x, y, 1)
        return cls(float(offset), float(slope))

    def __call__(self, answer: Answer) -> Answer:
        """The answer with its energy, forces and stress on the line; stress without the offset."""
        energy = self.offset * len(answer.forces) + self.slope * answer.energy
        stress = None if answer.stress is None else self.slope * answer.stress
        return Answer(
            energy,
            self.slope * answer.forces,
            stress,
            answer.density,
            answer.evaluations,
            seconds=answer.seconds,
        )


def compare(answer: Answer, sample: Sample) -> dict[str, Any]:
    """Errors of an answer against a sample, as JSON can hold them.

    ``energy_error_mev_per_atom`` with its sign; the mean absolute force component's; the mean of
    the normal stresses'; ``nmape_percent`` of the density; uncertainties, where there are any;
    ``energy`` and ``forces`` themselves, and those of the ``reference``.

    Raises:
        ModelError: a sample without forces; numbers that are not finite.
    """
    if sample.forces is None:
        raise ModelError(f"sample {sample.structure.formula} has no forces to compare with")
    if not (np.isfinite(answer.energy) and np.isfinite(answer.forces).all()):
        raise ModelError(f"the energy of {sample.structure.formula} or its forces are not finite")
    per_atom, unit = HARTREE_IN_MEV / len(sample.structure), HARTREE_PER_BOHR_IN_MEV_PER_ANGSTROM
    row: dict[str, Any] = {
        "formula": sample.structure.formula,
        "atoms": len(sample.structure),
        "energy_error_mev_per_atom": (answer.energy - sample.total_energy) * per_atom,
        "force_mae_mev_per_angstrom": mean_absolute_error(answer.forces, sample.forces, unit),
        "force_spread_reference_mev_per_angstrom": float(sample.forces.std()) * unit,
        "call_seconds": answer.seconds,
        "energy": answer.energy,
        "forces": answer.forces.tolist(),
        "reference": {"energy": sample.total_energy, "forces": sample.forces.tolist()},
    }
    if answer.evaluations is not None:
        row["evaluations"] = answer.evaluations
    return row | _density(answer, sample) | _stress(answer, sample) | _uncertainty(answer, per_atom)


def _density(answer: Answer, sample: Sample) -> dict[str, float]:
    if answer.density is None:
        return {}
    reference = torch.tensor(sample.fields["density"])
    error = answer.density.detach().cpu() - reference
    return {"nmape_percent": percent(torch.tensor(sample.weights), error, reference)}


def _stress(answer: Answer, sample: Sample) -> dict[str, float]:
    if answer.stress is None or sample.stress is None:
        return {}
    error = mean_absolute_error(answer.stress, sample.stress, HARTREE_PER_BOHR3_IN_GPA)
    return {"stress_error_gpa": error}


def _uncertainty(answer: Answer, per_atom: float) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if answer.uncertainty is None:
        return found
    if answer.uncertainty.energy is not None:
        found["energy_uncertainty_mev_per_atom"] = answer.uncertainty.energy * per_atom
    if answer.uncertainty.forces is not None:
        found["force_uncertainties"] = answer.uncertainty.forces.tolist()
    return found


def chosen(rows: Sequence[Row], kind: str, method: str) -> list[Row]:
    """Those of one method on one set of cells, which ``set`` and ``method`` of a row name."""
    return [row for row in rows if (row["set"], row["method"]) == (kind, method)]


def summary(rows: Sequence[Row]) -> dict[str, float | int | None]:
    """Means over the cells of one method; of energies mean error and standard deviation.

    Cells with a ``failure`` count as such and nowhere else.
    """
    done = [row for row in rows if "failure" not in row]
    found: dict[str, float | int | None] = {"cells": len(done), "failures": len(rows) - len(done)}
    for key in _MEANS:
        values = [row[key] for row in done if key in row]
        found[key] = float(np.mean(values)) if values else None
    errors = [row["energy_error_mev_per_atom"] for row in done]
    found["energy_mean_error_mev_per_atom"] = float(np.mean(errors)) if errors else None
    spread = float(np.std(errors, ddof=1)) if len(errors) > 1 else None
    found["energy_sd_mev_per_atom"] = spread
    return found


def calibration(rows: Sequence[Row]) -> dict[str, dict[str, float | int]]:
    """Errors in units of their estimates, of ``energy`` and of the components of ``forces``.

    ``rms_sigma`` is 1 for honest error bars; ``within_1_sigma`` is then 68 %, ``within_2_sigma``
    95 %, of a normal distribution. Nothing where the method estimates nothing.
    """
    found: dict[str, dict[str, float | int]] = {}
    for name, (uncertainty, error) in uncertainty_pairs(rows).items():
        z = np.abs(error / uncertainty)
        found[name] = {
            "values": len(z),
            "rms_sigma": float(np.sqrt(np.mean(z**2))),
            "within_1_sigma_percent": 100 * float(np.mean(z < 1)),
            "within_2_sigma_percent": 100 * float(np.mean(z < 2)),
        }
    return found


def uncertainty_pairs(rows: Sequence[Row]) -> dict[str, tuple[Array, Array]]:
    """``energy``, meV/atom, and ``forces``, meV/angstrom -> (uncertainties, absolute errors)."""
    unit = HARTREE_PER_BOHR_IN_MEV_PER_ANGSTROM
    energies = [
        (row["energy_uncertainty_mev_per_atom"], abs(row["energy_error_mev_per_atom"]))
        for row in rows
        if row.get("energy_uncertainty_mev_per_atom")
    ]
    forces = [
        (unit * sigma, unit * abs(one - reference))
        for row in rows
        if "force_uncertainties" in row
        for sigma, one, reference in zip(
            np.ravel(row["force_uncertainties"]),
            np.ravel(row["forces"]),
            np.ravel(row["reference"]["forces"]),
            strict=True,
        )
        if sigma > 0
    ]
    pairs = {"energy": np.array(energies), "forces": np.array(forces)}
    return {name: (found[:, 0], found[:, 1]) for name, found in pairs.items() if len(found)}
