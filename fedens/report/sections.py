"""What the reports of several jobs share: tables of rows, summaries, parity plots, curves."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from rich.table import Table

from fedens.analysis.evaluation import Evaluation, mean_errors, summarise
from fedens.analysis.quantities import QUANTITIES
from fedens.analysis.uncertainty import agreement, uncertainty_pairs
from fedens.report.figures import calibration_plot, learning_curve, loss_curve, parity_plot
from fedens.report.page import ReportFigure, ReportTable, shown

Row = Mapping[str, Any]
#: Significant digits in the terminal.
_DIGITS = 3


def rows_table(
    title: str, keys: Iterable[str], rows: Sequence[Row], caption: str = ""
) -> ReportTable:
    """Rows with the headings and units of their keys; a column that is empty is left out."""
    there = [key for key in keys if any(row.get(key) is not None for row in rows)]
    return ReportTable(
        title,
        [QUANTITIES[key].label for key in there],
        [[row.get(key) for key in there] for row in rows],
        [QUANTITIES[key].unit for key in there],
        caption,
    )


def evaluations_table(
    title: str, keys: Iterable[str], evaluations: Sequence[Evaluation]
) -> ReportTable:
    """Some numbers of every structure."""
    return rows_table(title, ("name", *keys), [{"name": e.name, **e.numbers} for e in evaluations])


def summary_table(
    title: str,
    evaluations: Sequence[Evaluation],
    keys: Collection[str] = QUANTITIES,
    caption: str = "",
) -> ReportTable:
    """Mean of every number, for each group where there are several, and the largest of all."""
    groups = sorted({e.group for e in evaluations})
    means = [mean_errors(e.numbers for e in evaluations if e.group == group) for group in groups]
    summary = summarise(evaluations)
    rows = [
        [label, *(mean.get(key) for mean in means), summary[key]["max"], unit]
        for key, (label, unit) in QUANTITIES.items()
        if key in summary and key in keys
    ]
    names = groups if len(groups) > 1 else ["mean"]
    return ReportTable(title, ["quantity", *names, "largest", "unit"], rows, caption=caption)


def for_terminal(table: ReportTable) -> Table:
    """The same table for the terminal, with fewer digits."""
    result = Table(title=table.title)
    for column in table.columns:
        result.add_column(column, justify="left" if column in ("quantity", "unit") else "right")
    for row in table.rows:
        result.add_row(*(shown(cell, _DIGITS) for cell in row))
    return result


def headline(
    evaluations: Sequence[Evaluation], keys: Iterable[str]
) -> list[tuple[str, float, str]]:
    """(label, mean, unit) of some numbers, those that there are."""
    means = mean_errors(e.numbers for e in evaluations)
    return [
        (QUANTITIES[key].label, means[key], QUANTITIES[key].unit) for key in keys if key in means
    ]


def force_parity(
    title: str, evaluations: Sequence[Evaluation], route: str, scale: float, unit: str, **error: Any
) -> list[ReportFigure]:
    """Force components of a route against the reference's, where there are any.

    Args:
        scale: of one hartree/bohr in ``unit``. error: see :func:`parity_plot`.
    """
    known = [e.forces for e in evaluations if {"reference", route} <= set(e.forces)]
    if not known:
        return []
    reference, predicted = (
        scale * np.concatenate([forces[key] for forces in known]) for key in ("reference", route)
    )
    picture = parity_plot(reference, predicted, "force component", unit, **error)
    return [ReportFigure(title, picture)]


def calibrations(evaluations: Sequence[Evaluation]) -> list[ReportFigure]:
    """Actual against estimated errors, for all that the model estimates."""
    figures = []
    for key, (uncertainty, error) in uncertainty_pairs(evaluations).items():
        label, unit = QUANTITIES[key]
        found = agreement(uncertainty, error).items()
        notes = [f"{name.replace('_', ' ')} {v:.2g}" for name, v in found if v is not None]
        what = label.replace(" uncertainty", "")
        picture = calibration_plot(uncertainty, error, what.split(",")[0], unit, notes)
        figures.append(ReportFigure(f"Uncertainty: {what}", picture))
    return figures


def curve_figures(rows: Sequence[Row], keys: Iterable[str], caption: str) -> list[ReportFigure]:
    """Errors against the number of training structures; nothing for fewer than two."""
    if len(rows) < 2:
        return []
    there = [key for key in keys if all(key in row for row in rows)]
    units = dict.fromkeys(QUANTITIES[key].unit for key in there)
    errors = {"{} ({})".format(*QUANTITIES[key]): [row[key] for row in rows] for key in there}
    picture = learning_curve([row["structures"] for row in rows], errors, " or ".join(units))
    return [ReportFigure("Learning curve", picture, caption)]


def curve_tables(rows: Sequence[Row], keys: Iterable[str], caption: str) -> list[ReportTable]:
    """The same as a table."""
    keys = ("structures", "networks", *keys)
    return [rows_table("Learning curve", keys, rows, caption)] if len(rows) > 1 else []


def losses(histories: Mapping[str, Mapping[str, Sequence[float]]]) -> list[ReportFigure]:
    """Losses of trainings, title -> ``step``, ``training_loss`` and ``validation_loss``."""
    keys = ("step", "training_loss", "validation_loss")
    return [
        ReportFigure(title, loss_curve(*(history.get(key, ()) for key in keys)))
        for title, history in histories.items()
        if len(history["step"])
    ]
