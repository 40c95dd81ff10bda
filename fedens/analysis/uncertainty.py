"""Estimated against actual errors: how far the uncertainties of a model can be trusted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedens.analysis.crystals import Evaluation
from fedens.units import HARTREE_PER_BOHR_IN_MEV_PER_ANGSTROM

Pairs = tuple[NDArray[np.float64], NDArray[np.float64]]

#: Numbers of an evaluation that belong together: name with unit -> (uncertainty, error).
_NUMBERS = {
    "density_percent": ("density_uncertainty_percent", "nmape_percent"),
    **{
        f"energy_{route}_mev_per_atom": (
            f"energy_uncertainty_{route}_mev_per_atom",
            f"energy_error_{route}_mev_per_atom",
        )
        for route in ("functional", "energy_density")
    },
}


def uncertainty_pairs(evaluations: Sequence[Evaluation]) -> dict[str, Pairs]:
    """Name with unit -> (uncertainties, absolute errors), what the model has of them.

    One pair per structure, or for ``forces_functional`` and ``forces_hellmann_feynman`` one per
    component.
    """
    pairs: dict[str, Pairs] = {}
    for name, keys in _NUMBERS.items():
        if all(key in evaluation.errors for key in keys for evaluation in evaluations):
            uncertainty, error = (np.array([e.errors[key] for e in evaluations]) for key in keys)
            pairs[name] = (uncertainty, np.abs(error))
    for route in evaluations[0].force_uncertainties:
        unit = HARTREE_PER_BOHR_IN_MEV_PER_ANGSTROM
        uncertainty = np.concatenate([e.force_uncertainties[route].ravel() for e in evaluations])
        errors = [np.abs(e.forces[route] - e.forces["reference"]).ravel() for e in evaluations]
        pairs[f"forces_{route}_mev_per_angstrom"] = (
            unit * uncertainty,
            unit * np.concatenate(errors),
        )
    return pairs


def agreement(uncertainty: ArrayLike, error: ArrayLike) -> dict[str, float | None]:
    """How well uncertainties (n,) tell absolute errors (n,).

    ``correlation``: of their logarithms, None for fewer than three pairs. Pairs with a zero do not
    count. ``error_over_uncertainty``: ratio of the means.
    """
    u, e = np.asarray(uncertainty, dtype=np.float64), np.asarray(error, dtype=np.float64)
    positive = (u > 0) & (e > 0)
    logarithms = np.log(u[positive]), np.log(e[positive])
    correlation = None
    if positive.sum() > 2 and all(values.std() > 0 for values in logarithms):
        correlation = float(np.corrcoef(*logarithms)[0, 1])
    ratio = float(e.mean() / u.mean()) if u.mean() > 0 else None
    return {"correlation": correlation, "error_over_uncertainty": ratio}
