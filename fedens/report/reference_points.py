"""The report of a comparison of reference points: learning curves, costs and findings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fedens.analysis.reference_points import LABELS, Cost, Outcome, averages, findings
from fedens.report.figures import learning_curve
from fedens.report.page import ReportContent, ReportFigure, write_report
from fedens.report.sections import rows_table

Means = Mapping[tuple[str, str, int], Mapping[str, float]]

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
    means, order = averages(outcomes), list(LABELS)
    rows: list[dict[str, Any]] = [
        {"points": points, "labels": labels, "structures": size, **numbers}
        for (points, labels, size), numbers in means.items()
    ]
    rows.sort(key=lambda r: (order.index(r["labels"]), r["points"], r["structures"]))
    content = ReportContent(
        title=f"{name}: reference points compared",
        summary=(
            "Energies as sums over reference points, from the same descriptors, networks, "
            "structures and training time; orbital-free aluminium cells with defects. Errors are "
            "those of held-out structures, means over seeds."
        ),
        run=run,
        figures=_figures(means),
        tables=[
            rows_table("Held-out errors", (*_KEYS, *_ERRORS), rows),
            rows_table("Costs, one structure", _COSTS, list(map(asdict, costs)), _COST_CAPTION),
        ],
        notes=[*findings(outcomes, costs), *_NOTES],
    )
    return write_report(path, content)


def _figures(means: Means) -> list[ReportFigure]:
    figures = []
    for labels in LABELS:
        for quantity, unit in (("force", "meV/angstrom"), ("energy", "meV/atom")):
            curves: dict[str, dict[int, float]] = {}
            for (points, taught, size), numbers in means.items():
                if taught == labels:
                    curves.setdefault(points, {})[size] = numbers[f"{quantity}_error"]
            if not curves:
                continue
            sizes = sorted({size for curve in curves.values() for size in curve})
            errors = {
                points: [curve.get(size, float("nan")) for size in sizes]
                for points, curve in curves.items()
            }
            picture = learning_curve(sizes, errors, unit, f"{quantity} error")
            figures.append(ReportFigure(f"{quantity.capitalize()} error, taught {labels}", picture))
    return figures
