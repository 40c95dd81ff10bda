"""Estimated against actual errors: how far the uncertainties of a model can be trusted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedens.analysis.evaluation import Evaluation
from fedens.units import HARTREE_PER_BOHR_IN_MEV_PER_ANGSTROM

Pairs = tuple[NDArray[np.float64], NDArray[np.float64]]


def uncertainty_pairs(evaluations: Sequence[Evaluation]) -> dict[str, Pairs]:
    """Key of an uncertainty -> (uncertainties, absolute errors), what the model has of them.

    One pair per structure, or for those of forces one per component.
    """
    pairs: dict[str, Pairs] = {}
    first = evaluations[0]
    for key in first.numbers:
        if key.startswith(("density_uncertainty", "energy_uncertainty")):
            known = key.replace("density_uncertainty", "nmape").replace("_uncertainty", "_error")
            uncertainty, error = (
                np.array([e.numbers[name] for e in evaluations]) for name in (key, known)
            )
            pairs[key] = (uncertainty, np.abs(error))
    for route in first.force_uncertainties:
        unit = HARTREE_PER_BOHR_IN_MEV_PER_ANGSTROM
        uncertainty = np.concatenate([e.force_uncertainties[route].ravel() for e in evaluations])
        errors = [np.abs(e.forces[route] - e.forces["reference"]).ravel() for e in evaluations]
        key = f"force_uncertainty_{route}_mev_per_angstrom"
        pairs[key] = (unit * uncertainty, unit * np.concatenate(errors))
    return pairs


def agreements(evaluations: Sequence[Evaluation]) -> dict[str, dict[str, float | None]]:
    """:func:`agreement` of every kind of pair, by ``density_percent`` and the like."""
    return {
        key.replace("_uncertainty", "").replace("force_", "forces_"): agreement(*pair)
        for key, pair in uncertainty_pairs(evaluations).items()
    }


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
