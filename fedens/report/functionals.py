"""The report of a learned functional beside other methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fedens.analysis.functionals import Array, Row, calibration, chosen, summary, uncertainty_pairs
from fedens.report.figures import calibration_plot, learning_curve, parity_plot
from fedens.report.page import ReportContent, ReportFigure, ReportTable, shown, write_report
from fedens.report.sections import rows_table
from fedens.units import HARTREE_IN_EV, HARTREE_PER_BOHR_IN_EV_PER_ANGSTROM

#: Sets of cells and methods in words.
SETS = {"held_out": "held-out cells", "larger": "larger cells"}
METHOD_WORDS = {
    "wang_teter": "Wang-Teter",
    "wgc": "Wang-Govind-Carter",
    "lkt": "Luo-Karasiev-Trickey",
    "line": "line through Wang-Teter",
    "direct": "direct fit",
    "delta": "Wang-Teter + correction",
    "learned": "learned functional",
    "learned_delta": "learned functional + correction",
    "mace": "MACE",
}
#: What is compared, in the order of the table.
COMPARED = (
    "method",
    "nmape_percent",
    "energy_mean_error_mev_per_atom",
    "energy_sd_mev_per_atom",
    "force_mae_mev_per_angstrom",
    "stress_error_gpa",
    "evaluations",
    "call_seconds",
    "cells",
    "failures",
)
_CELLS = (
    "name",
    "nmape_percent",
    "energy_error_mev_per_atom",
    "energy_uncertainty_mev_per_atom",
    "force_mae_mev_per_angstrom",
    "force_spread_reference_mev_per_angstrom",
    "stress_error_gpa",
    "evaluations",
)
_SIGMAS = (
    "method",
    "quantity",
    "values",
    "rms_sigma",
    "within_1_sigma_percent",
    "within_2_sigma_percent",
)
_CURVE = ("method", "structures", "energy_sd_mev_per_atom", "force_mae_mev_per_angstrom")
_HEADLINE = (
    "nmape_percent",
    "energy_mean_error_mev_per_atom",
    "energy_sd_mev_per_atom",
    "force_mae_mev_per_angstrom",
)
_ENERGIES = (
    "Energies are total energies: the mean error is that of all cells, the standard deviation is "
    "what is left without it."
)
_CURVE_CAPTION = "Mean errors on the held-out cells, over all draws of the training cells."
_NOTES = (
    "NMAPE: integral of |n_pred - n_ref| over the integral of n_ref, with the mesh's own "
    "quadrature weights.",
    "The learned functional is a kinetic energy of the density alone, which is minimised as any "
    "other: density, energy, forces and stress belong to one minimum, and the forces are the exact "
    "derivative of the energy.",
    "n0, the mean density of the undistorted crystal, is the unit of all densities that the "
    "functional sees, and the mean density of Wang-Teter's kernel in every cell, with vacancies "
    "and strains or without. For another material the functional is scaled to its n0.",
    "The line is a straight one through Wang-Teter's energies of the training cells; the direct "
    "fit learns their energies and forces as a sum over the atoms, without a functional.",
    "The correction is a sum over the atoms, fitted to the energies and forces that a functional "
    "leaves. It changes no density.",
    "A functional and its correction are conditional on the elements and pseudopotentials of the "
    "labels where those have projectors: a density cannot see these, and what stands for them "
    "holds for the same element only. The learned functional alone, from local potentials, is not.",
    "Error bars are those of the Bayesian least-squares fit, at the minimum. Honest ones have an "
    "rms of 1, 68 % of the errors within one sigma and 95 % within two.",
    "Times are those of energy, forces and stress of one cell, on the labels' mesh.",
    "fields/held_out.pvd opens in ParaView: one step per held-out cell, reference, predicted and "
    "error in angstrom. metrics.json has every number.",
)


def write_functionals_report(
    path: str | Path,
    name: str,
    best: str,
    run: Mapping[str, Any],
    rows: Sequence[Row],
    curve: Sequence[Row] = (),
    slices: bytes | None = None,
) -> Path:
    """Write the page of a learned functional and what it is compared with.

    Args:
        name: of the run. best: the method whose model is that of the run. run: what was run.
        rows: of every method and cell, see :func:`fedens.analysis.functionals.compare`, with
            ``method``, ``set`` and ``name``. curve: rows of the learning curve.
        slices: PNG of a density slice and its error; without it there are no pictures.

    Raises:
        OutputError: the file cannot be written.
    """
    own = chosen(rows, "held_out", best)
    figures = [] if slices is None else _figures(rows, own, best, curve, slices)
    tables = [comparison_table(rows, kind) for kind in _sets(rows)]
    tables += _sigma_tables(rows)
    if own:
        tables.append(rows_table(f"Held-out cells, {METHOD_WORDS[best]}", _CELLS, own))
    if curve:
        tables.append(rows_table("Learning curve", _CURVE, _in_words(mean_curve(curve))))
    content = ReportContent(
        title=f"{name}: learned kinetic functional",
        summary="Learned from small Kohn-Sham cells, and compared with Kohn-Sham theory on cells "
        "that it has not seen.",
        headline=_headline(own),
        run=run,
        figures=figures,
        tables=tables,
        notes=_NOTES,
    )
    return write_report(path, content)


def comparison_table(
    rows: Sequence[Row], kind: str, columns: Sequence[str] = COMPARED
) -> ReportTable:
    """Every method on one set of cells."""
    methods = dict.fromkeys(row["method"] for row in rows if row["set"] == kind)
    found = [{"method": m, **summary(chosen(rows, kind, m))} for m in methods]
    if not any(row["failures"] for row in found):
        columns = [key for key in columns if key != "failures"]
    return rows_table(f"Errors on {SETS[kind]}", columns, _in_words(found), _ENERGIES)


def terminal_table(rows: Sequence[Row]) -> ReportTable:
    """The same of the held-out cells in a few columns that carry their units."""
    table = comparison_table(rows, "held_out", ("method", *_HEADLINE))
    named = zip(table.columns, table.units, strict=True)
    columns = [f"{name} ({unit})" if unit else name for name, unit in named]
    return replace(table, columns=columns, units=())


def larger_in_words(rows: Sequence[Row]) -> list[str]:
    """A sentence about every method on the larger cells, if there are any."""
    table = comparison_table(rows, "larger", ("method", *_HEADLINE))
    sentences = []
    for method, *values in table.rows:
        numbers = zip(table.columns[1:], values, table.units[1:], strict=True)
        words = [f"{name} {shown(v, 3)} {unit}" for name, v, unit in numbers if v is not None]
        sentences.append(f"{SETS['larger']}, {method}: {', '.join(words) or 'none converged'}")
    return sentences


def _sets(rows: Sequence[Row]) -> list[str]:
    return [kind for kind in SETS if any(row["set"] == kind for row in rows)]


def _in_words(rows: Sequence[Row]) -> list[dict[str, Any]]:
    return [{**row, "method": METHOD_WORDS[row["method"]]} for row in rows]


def _headline(rows: Sequence[Row]) -> list[tuple[str, Any, str]]:
    table = rows_table("", _HEADLINE, [summary(rows)])
    return list(zip(table.columns, table.rows[0], table.units, strict=True))


def _sigma_tables(rows: Sequence[Row]) -> list[ReportTable]:
    found = [
        {"method": method, "quantity": quantity, **numbers}
        for method in METHOD_WORDS
        for quantity, numbers in calibration(chosen(rows, "held_out", method)).items()
    ]
    return [rows_table("Error bars on held-out cells", _SIGMAS, _in_words(found))] if found else []


def _figures(
    rows: Sequence[Row], own: Sequence[Row], best: str, curve: Sequence[Row], slices: bytes
) -> list[ReportFigure]:
    caption = "Plane through the first atom of the held-out cell with the largest density error."
    figures = [ReportFigure("Density and its error", slices, caption, wide=True)]
    for method in dict.fromkeys((best, "wang_teter")):
        figures += _parity(chosen(rows, "held_out", method), METHOD_WORDS[method])
    units = {"energy": ("energy per atom", "meV"), "forces": ("force component", "meV/angstrom")}
    for name, pair in uncertainty_pairs(own).items():
        picture = calibration_plot(*pair, *units[name])
        figures.append(ReportFigure(f"Error bars: {name}", picture))
    return figures + _curve_figures(curve)


def _parity(rows: Sequence[Row], words: str) -> list[ReportFigure]:
    """Energies and forces of a method against the reference's."""
    done = [row for row in rows if "failure" not in row]
    if not done:
        return []
    atoms = np.array([row["atoms"] for row in done])
    references = [row["reference"] for row in done]
    energy = parity_plot(
        _energies(references) / atoms,
        _energies(done) / atoms,
        "energy per atom",
        "eV",
        error_unit="meV",
        error_factor=1000.0,
    )
    force = parity_plot(
        _forces(references),
        _forces(done),
        "force component",
        "eV/angstrom",
        error_unit="meV/angstrom",
        error_factor=1000.0,
    )
    return [ReportFigure(f"Energy: {words}", energy), ReportFigure(f"Forces: {words}", force)]


def _energies(rows: Sequence[Row]) -> Array:
    return HARTREE_IN_EV * np.array([row["energy"] for row in rows])


def _forces(rows: Sequence[Row]) -> Array:
    forces = np.concatenate([np.ravel(row["forces"]) for row in rows])
    return HARTREE_PER_BOHR_IN_EV_PER_ANGSTROM * forces


def mean_curve(curve: Sequence[Row]) -> list[dict[str, Any]]:
    """Means over the draws, by method and number of cells."""
    groups: dict[tuple[str, int], list[Row]] = {}
    for row in curve:
        groups.setdefault((row["method"], row["structures"]), []).append(row)
    return [
        {"method": method, "structures": size}
        | {key: _mean([row[key] for row in own]) for key in _CURVE[2:]}
        for (method, size), own in sorted(groups.items(), key=lambda item: item[0])
    ]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _curve_figures(curve: Sequence[Row]) -> list[ReportFigure]:
    """Force errors of every method against the number of cells; nothing for fewer than two."""
    rows = mean_curve(curve)
    sizes = sorted({row["structures"] for row in rows})
    if len(sizes) < 2:
        return []
    errors = {
        METHOD_WORDS[method]: [
            row["force_mae_mev_per_angstrom"] or np.nan for row in rows if row["method"] == method
        ]
        for method in METHOD_WORDS
        if any(row["method"] == method for row in rows)
    }
    picture = learning_curve(sizes, errors, "meV/angstrom", "force MAE")
    return [ReportFigure("Learning curve", picture, _CURVE_CAPTION)]
