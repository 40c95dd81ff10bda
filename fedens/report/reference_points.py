"""The report of a comparison of reference points: learning curves, costs and findings."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fedens.analysis.quantities import QUANTITIES
from fedens.analysis.reference_points import LABELS, Cost, Outcome, averages, findings
from fedens.report.figures import learning_curve
from fedens.report.page import ReportContent, ReportFigure, write_report
from fedens.report.sections import Row, rows_table

_KEYS = ("labels", "points", "structures")
_ERRORS = (
    "force_error",
    "force_error_spread",
    "energy_error",
    "energy_error_spread",
    "seconds_per_epoch",
    "epochs",
)
_COSTS = (
    "points",
    "n_points",
    "preparation_seconds",
    "stored_mebibytes",
    "prediction_seconds",
    "net_force",
    "egg_box",
)
_COST_CAPTION = (
    "Features and derivatives are computed once, before the training. Net force and egg-box "
    "(largest change of the energy when the rigid crystal is shifted) are those of a trained model."
)
_NOTES = (
    "Fields (energy density and density) can be taught only where the points fill the volume. They "
    "are smoothed over the distance of the points, which keeps their integrals. Their loss is the "
    "squared error at points; it does not know the total energy.",
    "Times are processor times. They depend on the machine, and so do the errors, as the training "
    "time is fixed.",
)


def write_reference_points_report(
    path: str | Path,
    name: str,
    run: Mapping[str, Any],
    outcomes: Sequence[Outcome],
    costs: Sequence[Cost],
) -> Path:
    """Write the page.

    Args:
        name: of the run. run: what was run, name -> value.

    Raises:
        OutputError: the file cannot be written.
    """
    order = list(LABELS)
    rows = sorted(
        averages(outcomes),
        key=lambda row: (order.index(row["labels"]), row["points"], row["structures"]),
    )
    content = ReportContent(
        title=f"{name}: reference points compared",
        summary=(
            "Energies as sums over reference points, from the same descriptors, networks, "
            "structures and training time; orbital-free aluminium cells with defects. Errors are "
            "those of held-out structures, means over seeds."
        ),
        run=run,
        figures=list(_figures(rows)),
        tables=[
            rows_table("Held-out errors", (*_KEYS, *_ERRORS), rows),
            rows_table("Costs, one structure", _COSTS, list(map(asdict, costs)), _COST_CAPTION),
        ],
        notes=[*findings(outcomes, costs), *_NOTES],
    )
    return write_report(path, content)


def _figures(rows: Sequence[Row]) -> Iterator[ReportFigure]:
    for labels in dict.fromkeys(row["labels"] for row in rows):
        chosen = [row for row in rows if row["labels"] == labels]
        sizes = sorted({row["structures"] for row in chosen})
        for key in ("force_error", "energy_error"):
            label, unit = QUANTITIES[key]
            found = {(row["points"], row["structures"]): row[key] for row in chosen}
            errors = {
                points: [found.get((points, size), math.nan) for size in sizes]
                for points in dict.fromkeys(row["points"] for row in chosen)
            }
            picture = learning_curve(sizes, errors, unit, label)
            yield ReportFigure(f"{label.capitalize()}, taught {labels}", picture)
