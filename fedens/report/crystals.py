"""The report of a run: what was run, headline numbers, tables, curves, parity plots, slices."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fedens.analysis.crystals import Evaluation, summarise
from fedens.analysis.uncertainty import agreement, uncertainty_pairs
from fedens.configuration import Configuration
from fedens.models.crystal.model import Predictor
from fedens.report.figures import calibration_plot, learning_curve, loss_curve, parity_plot
from fedens.report.page import ReportContent, ReportFigure, ReportTable, write_report
from fedens.units import HARTREE_IN_EV, HARTREE_PER_BOHR_IN_EV_PER_ANGSTROM

#: Error -> (what a reader calls it, unit).
QUANTITIES = {
    "nmape_percent": ("density error (NMAPE)", "%"),
    "density_uncertainty_percent": ("density uncertainty", "%"),
    "points_outside_training_percent": ("points unlike those of the training", "%"),
    "density_error_near_nuclei_percent": ("density error within 1 bohr of nuclei", "%"),
    "charge_error_before_normalisation_percent": ("charge error before normalisation", "%"),
    "dipole_error_before_normalisation_e_bohr": ("dipole error before normalisation", "e bohr"),
    "energy_error_functional_mev_per_atom": (
        "energy error, functional at the predicted density",
        "meV/atom",
    ),
    "energy_uncertainty_functional_mev_per_atom": (
        "energy uncertainty, functional at the predicted density",
        "meV/atom",
    ),
    "energy_error_functional_one_step_mev_per_atom": (
        "energy error, functional after one minimisation step",
        "meV/atom",
    ),
    "energy_error_energy_density_mev_per_atom": (
        "energy error, sum of predicted energy densities",
        "meV/atom",
    ),
    "energy_uncertainty_energy_density_mev_per_atom": (
        "energy uncertainty, sum of predicted energy densities",
        "meV/atom",
    ),
    "force_mae_functional_mev_per_angstrom": (
        "force MAE, derivative of the functional energy",
        "meV/angstrom",
    ),
    "force_uncertainty_functional_mev_per_angstrom": (
        "force uncertainty, derivative of the functional energy",
        "meV/angstrom",
    ),
    "force_mae_functional_one_step_mev_per_angstrom": (
        "force MAE, functional after one minimisation step",
        "meV/angstrom",
    ),
    "force_mae_hellmann_feynman_mev_per_angstrom": (
        "force MAE, Hellmann-Feynman",
        "meV/angstrom",
    ),
    "force_uncertainty_hellmann_feynman_mev_per_angstrom": (
        "force uncertainty, Hellmann-Feynman",
        "meV/angstrom",
    ),
    "force_spread_reference_mev_per_angstrom": ("spread of reference forces", "meV/angstrom"),
    "kinetic_energy_density_error_percent": ("kinetic energy density error", "%"),
    "xc_energy_density_error_percent": ("xc energy density error", "%"),
    "electrostatic_energy_density_error_percent": ("electrostatic energy density error", "%"),
}
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
#: Pairs of uncertainty and error that get a picture: title, quantity, unit.
_CALIBRATIONS = {
    "density_percent": ("density", "density", "%"),
    "energy_functional_mev_per_atom": (
        "energy, functional at the predicted density",
        "energy",
        "meV/atom",
    ),
    "forces_functional_mev_per_angstrom": (
        "forces, derivative of the functional energy",
        "force component",
        "meV/angstrom",
    ),
    "energy_energy_density_mev_per_atom": (
        "energy, sum of predicted energy densities",
        "energy",
        "meV/atom",
    ),
}


def write_run_report(
    path: str | Path,
    configuration: Configuration,
    predictor: Predictor,
    evaluations: Sequence[Evaluation],
    curve: Sequence[dict[str, float]],
    rounds: Sequence[dict[str, Any]],
    slices: bytes,
) -> Path:
    """Write the report page.

    Args:
        evaluations: of the held-out structures. curve: rows of the learning curve.
        rounds: rows of active learning, if any. slices: PNG of a density slice and its error.

    Raises:
        OutputError: the file cannot be written.
    """
    summary = summarise(evaluations)
    n_train = predictor.provenance["n_samples"]
    figures: list[ReportFigure] = []
    if configuration.output.figures:
        figures = _figures(predictor, evaluations, curve, slices)
    content = ReportContent(
        title=f"{configuration.name}: learned electron density",
        summary=(
            f"Trained on {n_train} structures, compared with the solver on "
            f"{len(evaluations)} held-out ones. Errors are means over the held-out structures."
        ),
        headline=[(QUANTITIES[k][0], summary[k]["mean"], QUANTITIES[k][1]) for k in _HEADLINE],
        run=_what_was_run(configuration, predictor),
        figures=figures,
        tables=[*_tables(evaluations, summary, curve), *_rounds_table(rounds)],
        notes=[
            "NMAPE: integral of |n_pred - n_ref| over the integral of n_ref, with the mesh's own "
            "quadrature weights. A small NMAPE does not imply a small energy error.",
            "The functional route evaluates the parent functional at the predicted density: its "
            "error is second order in the density error, and its forces are the exact "
            "derivative of its energy. Summed energy densities err in first order.",
            "Uncertainties of the functional route are what one more minimisation step of the "
            "functional changes; they need no committee.",
            "Uncertainties of the density, of summed energy densities and of Hellmann-Feynman "
            "forces are the standard deviation over the committee, scaled to the errors of its "
            "members on structures they were not trained on.",
            "Points unlike those of the training have a feature outside the range it has seen.",
            "Hellmann-Feynman forces come from the density alone and are not the derivative of a "
            "predicted energy; their error shows the quality of the density.",
            "fields/held_out.pvd opens in ParaView: one step per held-out structure, reference, "
            "predicted and error fields in angstrom and eV. metrics.json has every number.",
        ],
    )
    return write_report(path, content)


def _what_was_run(configuration: Configuration, predictor: Predictor) -> dict[str, object]:
    settings = predictor.provenance["settings"]
    steps = predictor.history["step"]
    return {
        "configuration": configuration.name,
        "seed": configuration.seed,
        "functional": f"{predictor.parent.kinetic}, {predictor.parent.xc}",
        "space": f"order {predictor.order}, spacing {predictor.spacing:.3f} bohr",
        "descriptors": f"{predictor.descriptor.n_features} features per point",
        "differences learned to": predictor.baseline.kind,
        "networks": f"{settings['committee']} of {list(predictor.hidden)} hidden units",
        "optimiser steps": int(steps[-1]) if steps else 0,
    }


def _figures(
    predictor: Predictor,
    evaluations: Sequence[Evaluation],
    curve: Sequence[dict[str, float]],
    slices: bytes,
) -> list[ReportFigure]:
    figures = [
        ReportFigure(
            "Density and its error",
            slices,
            "Plane through the first atom of the held-out structure with the largest NMAPE.",
            wide=True,
        )
    ]
    figures += [
        _energy_parity(evaluations, "functional", "functional at the predicted density"),
        _energy_parity(evaluations, "energy_density", "sum of predicted energy densities"),
        _force_parity(evaluations, "functional", "derivative of the functional energy"),
        _force_parity(evaluations, "hellmann_feynman", "Hellmann-Feynman"),
    ]
    figures += _calibrations(evaluations)
    history = predictor.history
    if history["step"]:
        picture = loss_curve(history["step"], history["training_loss"], history["validation_loss"])
        figures.append(ReportFigure("Loss", picture, "Of the first network, batch by batch."))
    if curve:
        errors = {
            "NMAPE (%)": [row["nmape_percent"] for row in curve],
            "energy (meV/atom)": [row["energy_error_functional_mev_per_atom"] for row in curve],
        }
        picture = learning_curve([row["structures"] for row in curve], errors, "% or meV/atom")
        caption = "Held-out errors of short trainings, a quarter of the steps each."
        figures.append(ReportFigure("Learning curve", picture, caption))
    return figures


def _energy_parity(evaluations: Sequence[Evaluation], route: str, title: str) -> ReportFigure:
    reference, predicted = (
        np.array([e.energies[key] / e.n_atoms * HARTREE_IN_EV for e in evaluations])
        for key in ("reference", route)
    )
    picture = parity_plot(
        reference, predicted, "energy per atom", "eV", error_unit="meV", error_factor=1000.0
    )
    return ReportFigure(f"Energy: {title}", picture)


def _force_parity(evaluations: Sequence[Evaluation], route: str, title: str) -> ReportFigure:
    reference, predicted = (
        np.concatenate([e.forces[key] for e in evaluations]) * HARTREE_PER_BOHR_IN_EV_PER_ANGSTROM
        for key in ("reference", route)
    )
    picture = parity_plot(
        reference,
        predicted,
        "force component",
        "eV/angstrom",
        error_unit="meV/angstrom",
        error_factor=1000.0,
    )
    return ReportFigure(f"Forces: {title}", picture)


def _calibrations(evaluations: Sequence[Evaluation]) -> list[ReportFigure]:
    figures = []
    pairs = uncertainty_pairs(evaluations)
    for name, (title, quantity, unit) in _CALIBRATIONS.items():
        if name not in pairs:
            continue
        uncertainty, error = pairs[name]
        found = agreement(uncertainty, error).items()
        notes = [f"{key.replace('_', ' ')} {v:.2g}" for key, v in found if v is not None]
        picture = calibration_plot(uncertainty, error, quantity, unit, notes)
        figures.append(ReportFigure(f"Uncertainty: {title}", picture))
    return figures


def summary_rows(summary: dict[str, dict[str, float]]) -> list[tuple[str, float, float, str]]:
    """(quantity, mean, largest, unit) of every error and uncertainty, for tables."""
    return [
        (label, summary[key]["mean"], summary[key]["max"], unit)
        for key, (label, unit) in QUANTITIES.items()
        if key in summary
    ]


def _tables(
    evaluations: Sequence[Evaluation],
    summary: dict[str, dict[str, float]],
    curve: Sequence[dict[str, float]],
) -> list[ReportTable]:
    overview = ReportTable(
        "Held-out errors", ("quantity", "mean", "largest", "unit"), summary_rows(summary)
    )
    columns = {key: QUANTITIES[key] for key in _COLUMNS if key in summary}
    each = ReportTable(
        "Held-out structures",
        ("structure", *(label for label, _ in columns.values())),
        [(e.name, *(e.errors[key] for key in columns)) for e in evaluations],
        ("", *(unit for _, unit in columns.values())),
    )
    tables = [overview, each]
    if curve:
        rows = [
            (
                row["structures"],
                row["nmape_percent"],
                row["energy_error_functional_mev_per_atom"],
            )
            for row in curve
        ]
        names = ("training structures", "NMAPE", "energy error")
        tables.append(ReportTable("Learning curve", names, rows, ("", "%", "meV/atom")))
    return tables


def _rounds_table(rounds: Sequence[dict[str, Any]]) -> list[ReportTable]:
    """What active learning did, if there was any."""
    columns = {
        "round": ("round", ""),
        "structures": ("training structures", ""),
        "mean_candidate_uncertainty_mev_per_atom": ("mean candidate uncertainty", "meV/atom"),
        "nmape_percent": ("NMAPE", "%"),
        "energy_error_functional_mev_per_atom": ("energy error", "meV/atom"),
    }
    if not rounds:
        return []
    return [
        ReportTable(
            "Active learning",
            [name for name, _ in columns.values()],
            [[row[key] for key in columns] for row in rounds],
            [unit for _, unit in columns.values()],
            "A round labels the candidates of the most uncertain energy and goes on training with "
            "them; their uncertainty is that of the model before the round, the errors are of "
            "held-out structures after it.",
        )
    ]
