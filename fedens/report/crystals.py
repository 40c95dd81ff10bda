"""The report of a run on crystals: headline numbers, slices, parity plots, curves, tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedens.analysis.evaluation import Evaluation
from fedens.analysis.quantities import QUANTITIES
from fedens.report.figures import density_of_states_plot, parity_plot
from fedens.report.page import ReportContent, ReportFigure, write_report
from fedens.report.sections import (
    Row,
    calibrations,
    curve_figures,
    curve_tables,
    evaluations_table,
    force_parity,
    headline,
    losses,
    rows_table,
    summary_table,
)
from fedens.units import HARTREE_IN_EV, HARTREE_PER_BOHR_IN_EV_PER_ANGSTROM

Array = NDArray[np.float64]

_HEADLINE = (
    "nmape_percent",
    "energy_error_functional_mev_per_atom",
    "force_mae_functional_mev_per_angstrom",
    "charge_error_before_normalisation_percent",
)
#: What the table of the single structures shows, where the model has it.
_COLUMNS = (
    "nmape_percent",
    "density_uncertainty_percent",
    "energy_error_functional_mev_per_atom",
    "energy_uncertainty_functional_mev_per_atom",
    "force_mae_functional_mev_per_angstrom",
    "force_uncertainty_functional_mev_per_angstrom",
    "points_outside_training_percent",
)
_CURVE = ("nmape_percent", "energy_error_functional_mev_per_atom")
_ROUNDS = ("round", "structures", "mean_candidate_uncertainty_mev_per_atom", *_CURVE)
_ROUNDS_CAPTION = (
    "A round labels the candidates of the most uncertain energy and goes on training with them; "
    "their uncertainty is that of the model before the round, the errors are of held-out "
    "structures after it."
)
_NOTES = (
    "NMAPE: integral of |n_pred - n_ref| over the integral of n_ref, with the mesh's own "
    "quadrature weights. A small NMAPE does not imply a small energy error.",
    "The functional route evaluates the parent functional at the predicted density: its error is "
    "second order in the density error, and its forces are the exact derivative of its energy. "
    "Summed energy densities err in first order.",
    "Uncertainties of the functional route are what one more minimisation step of the functional "
    "changes; they need no committee.",
    "Uncertainties of the density, of summed energy densities and of Hellmann-Feynman forces are "
    "the standard deviation over the committee, scaled to the errors of its members on structures "
    "they were not trained on.",
    "Of Kohn-Sham data a model knows the fields, and the energies and forces that follow from "
    "them: see fedens.models.crystal.labels. The others are not in the tables.",
    "Points unlike those of the training have a feature outside the range it has seen.",
    "Hellmann-Feynman forces come from the density alone and are not the derivative of a predicted "
    "energy; their error shows the quality of the density.",
    "fields/held_out.pvd opens in ParaView: one step per held-out structure, reference, predicted "
    "and error fields in angstrom and eV. metrics.json has every number.",
)


def write_crystals_report(
    path: str | Path,
    name: str,
    n_trained: int,
    run: Mapping[str, Any],
    evaluations: Sequence[Evaluation],
    curve: Sequence[Row] = (),
    rounds: Sequence[Row] = (),
    history: Mapping[str, Sequence[float]] | None = None,
    slices: bytes | None = None,
    states: tuple[str, Array, Array, float] | None = None,
) -> Path:
    """Write the page of a model, evaluated on crystals it has not learned from.

    Args:
        name: of the run. n_trained: structures it learned from. run: what was run, name -> value.
        curve, rounds: rows of the learning curve and of active learning.
        history: losses of the first network.
        slices: PNG of a density slice and its error; without it there are no pictures.
        states: of data with bands, a structure's name, energies (n,) in hartree, its density of
            states there, states per hartree, and its chemical potential, hartree.

    Raises:
        OutputError: the file cannot be written.
    """
    caption = "Held-out errors of short trainings, a quarter of the steps each."
    figures: list[ReportFigure] = []
    if slices is not None:
        figures = [*_figures(evaluations, slices), *losses({"Loss": history} if history else {})]
        figures += curve_figures(curve, _CURVE, caption)
        figures += [_density_of_states(*states)] if states else []
    content = ReportContent(
        title=f"{name}: learned electron density",
        summary=(
            f"Trained on {n_trained} structures, compared with the solver on "
            f"{len(evaluations)} held-out ones. Errors are means over the held-out structures."
        ),
        headline=headline(evaluations, _HEADLINE),
        run=run,
        figures=figures,
        tables=[
            summary_table("Held-out errors", evaluations),
            evaluations_table("Held-out structures", _COLUMNS, evaluations),
            *curve_tables(curve, _CURVE, caption),
            *([rows_table("Active learning", _ROUNDS, rounds, _ROUNDS_CAPTION)] if rounds else []),
        ],
        notes=_NOTES,
    )
    return write_report(path, content)


def _figures(evaluations: Sequence[Evaluation], slices: bytes) -> list[ReportFigure]:
    caption = "Plane through the first atom of the held-out structure with the largest NMAPE."
    figures = [ReportFigure("Density and its error", slices, caption, wide=True)]
    for route in ("functional", "energy_density"):
        figures += _energy_parity(evaluations, route)
    for route in ("functional", "hellmann_feynman"):
        title = _title("Forces", f"force_mae_{route}_mev_per_angstrom")
        scale, unit = HARTREE_PER_BOHR_IN_EV_PER_ANGSTROM, "eV/angstrom"
        error = {"error_unit": "meV/angstrom", "error_factor": 1000.0}
        figures += force_parity(title, evaluations, route, scale, unit, **error)
    return figures + calibrations(evaluations)


def _energy_parity(evaluations: Sequence[Evaluation], route: str) -> list[ReportFigure]:
    known = [e for e in evaluations if route in e.energies]
    if not known:
        return []
    reference, predicted = (
        np.array([e.energies[key] / len(e.symbols) * HARTREE_IN_EV for e in known])
        for key in ("reference", route)
    )
    picture = parity_plot(
        reference, predicted, "energy per atom", "eV", error_unit="meV", error_factor=1000.0
    )
    return [ReportFigure(_title("Energy", f"energy_error_{route}_mev_per_atom"), picture)]


def _density_of_states(
    name: str, energies: Array, states: Array, chemical_potential: float
) -> ReportFigure:
    picture = density_of_states_plot(energies, states, chemical_potential)
    caption = f"Both spins, of the reference calculation of {name}; what is filled is shaded."
    return ReportFigure("Density of states", picture, caption)


def _title(what: str, key: str) -> str:
    """With the route of a quantity, which is what its label says after the comma."""
    return f"{what}: {QUANTITIES[key].label.partition(', ')[2]}"
