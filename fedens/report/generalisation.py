"""The report of a generalisation analysis: slopes, errors against domain size, what is missing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fedens.report.figures import arrows_figure, power_law_plot
from fedens.report.page import ReportContent, ReportFigure, ReportTable, write_report
from fedens.report.sections import Row, rows_table

_SIZE = "training-domain radius L (lattice constants)"
_STRAIN = "error of the strain, l2 norm"
_FAR_FIELD = {"geometry": _STRAIN, "formation_energy": "error of the formation energy (eV)"}
_SLOPES = ("model", "quantity", "slope", "half_width_95", "theory")
_FITS = (
    "basis",
    "observations",
    "size_lattice_constants",
    "geometry",
    "largest",
    "formation_energy_mev",
    "message",
)
_DEFECTS = (
    "defect",
    "formation_energy_ev",
    "relaxation_energy_ev",
    "relaxation_volume_atomic_volumes",
    "strain_norm",
)
_NOTES = (
    "Strain: gradient of the displacement from the differences to nearest neighbours; errors of "
    "the geometry are l2 norms of the strain of the difference to the reference's relaxed "
    "positions.",
    "Theory: errors of the force constants beyond L cost L^-1.5 in geometry and L^-3 in energy, "
    "those of the third order L^-4.5 and L^-6.",
    "Terms are estimates of size with the theory's constants left at 1, not bounds.",
    "tables/ holds every number as CSV; fields/*.vtp open in ParaView: displacement and its "
    "error, strain and its error, of the atoms around the defect.",
)


def write_generalisation_report(
    path: str | Path,
    title: str,
    summary: str,
    run: Mapping[str, Any],
    tables: Mapping[str, Sequence[Row]],
    panels: Mapping[str, tuple[ArrayLike, ArrayLike, ArrayLike]],
) -> Path:
    """Write the page of an analysis.

    Args:
        run: what was run, name -> value.
        tables: rows of ``slopes``, ``fits``, ``far_field``, ``decay`` and ``defects``; the first
            fits are to the fewest observations, the last to all.
        panels: displacements in a plane through the defect, title -> points (n, 2), arrows (n, 2),
            both in angstrom, and strains (n,).

    Raises:
        OutputError: the file cannot be written.
    """
    tables = {name: [_readable(row) for row in rows] for name, rows in tables.items()}
    slopes, fits = tables["slopes"], tables["fits"]
    content = ReportContent(
        title=title,
        summary=summary,
        headline=_headline(slopes, fits),
        run=run,
        figures=[
            *_far_field(tables["far_field"], slopes),
            *_fits(fits),
            _decay(tables["decay"]),
            _displacements(panels),
        ],
        tables=[
            rows_table("Slopes against the training-domain radius", _SLOPES, slopes),
            rows_table("Fits", _FITS, fits),
            _terms_table(fits),
            rows_table(
                "Strain around the defect",
                ("distance_lattice_constants", "r3_strain"),
                tables["decay"],
            ),
            rows_table("Defects relaxed by the reference", _DEFECTS, tables["defects"]),
        ],
        notes=_NOTES,
    )
    return write_report(path, content)


def _readable(row: Row) -> Row:
    """With spaces in its words, and errors of formation energies in meV too."""
    words = {key: _words(value) if isinstance(value, str) else value for key, value in row.items()}
    if "formation_energy" in row:
        words["formation_energy_mev"] = 1000 * row["formation_energy"]
    return words


def _words(name: str) -> str:
    return name.replace("_", " ")


def _headline(slopes: Sequence[Row], fits: Sequence[Row]) -> list[tuple[str, Any, str]]:
    found = [
        (f"slope of the {r['quantity']}, {r['model']}", r["slope"], f"theory {r['theory']:g}")
        for r in slopes
        if r["theory"] is not None
    ]
    smallest = [r for r in _smallest(fits) if r["basis"] == "sufficient"]
    first, last = smallest[0], smallest[-1]
    title = f"geometry error of {first['observations']} over that of all observations"
    return [*found[:3], (title, first["geometry"] / last["geometry"], "times")]


def _smallest(fits: Sequence[Row]) -> list[Row]:
    """Those in the smallest training domain."""
    size = min(r["size_lattice_constants"] for r in fits)
    return [r for r in fits if r["size_lattice_constants"] == size]


def _groups(rows: Sequence[Row], key: str) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row[key], []).append(row)
    return groups


def _curves(
    rows: Sequence[Row], key: str, quantity: str
) -> dict[str, tuple[list[float], list[float]]]:
    """Radii of training domains and sizes of a quantity there, for every value of a key."""
    return {
        name: (
            [r["size_lattice_constants"] for r in group],
            [abs(r[quantity]) for r in group],
        )
        for name, group in _groups(rows, key).items()
    }


def _far_field(rows: Sequence[Row], slopes: Sequence[Row]) -> Iterator[ReportFigure]:
    for quantity, label in _FAR_FIELD.items():
        words = _words(quantity)
        curves = {f"wrong {n}": xy for n, xy in _curves(rows, "wrong", quantity).items()}
        theory = [r["theory"] for r in slopes if r["quantity"] == words and r["theory"] is not None]
        lines = {f"L^{exponent:g}": exponent for exponent in theory}
        picture = power_law_plot(curves, _SIZE, label, lines)
        title = f"Models wrong beyond L: {words}"
        yield ReportFigure(title, picture, "Dashed: the theory's exponents.")


def _fits(fits: Sequence[Row]) -> Iterator[ReportFigure]:
    for basis, rows in _groups(fits, "basis").items():
        curves = _curves(rows, "observations", "geometry")
        stable = any(np.isfinite(errors).any() for _, errors in curves.values())
        if basis != "exact" and stable:
            picture = power_law_plot(curves, _SIZE, _STRAIN)
            yield ReportFigure(f"Fits within L: {basis} basis", picture)


def _decay(rows: Sequence[Row]) -> ReportFigure:
    distances = [r["distance_lattice_constants"] for r in rows]
    strains = [r["r3_strain"] / r["distance_lattice_constants"] ** 3 for r in rows]
    picture = power_law_plot(
        {"strain": (distances, strains)},
        "distance (lattice constants)",
        "root mean square strain",
        {"r^-3": -3.0},
    )
    return ReportFigure("Strain around the defect", picture)


def _displacements(panels: Mapping[str, tuple[ArrayLike, ArrayLike, ArrayLike]]) -> ReportFigure:
    """Relaxation and its error in the plane through the defect, with their strains."""
    longest = ", ".join(
        f"{np.linalg.norm(arrows, axis=1).max():.3g}" for _, arrows, _ in panels.values()
    )
    return ReportFigure(
        "Displacements around the defect",
        arrows_figure(panels, "angstrom", "strain"),
        "Plane through the defect; error of the model fitted to the first observations in the "
        f"smallest domain with the sufficient basis. Longest arrows: {longest} angstrom.",
        wide=True,
    )


def _terms_table(fits: Sequence[Row]) -> ReportTable:
    """What each observation's error costs, for the smallest domain."""
    rows = _smallest(fits)
    names = [key for key in rows[0] if key.startswith("geometry_")]
    energies = [key for key in rows[0] if key.startswith("energy_")]
    columns = [_words(key.removesuffix("_mev")) for key in (*names, *energies)]
    return ReportTable(
        f"Terms of the theory at L = {rows[0]['size_lattice_constants']:g} lattice constants",
        ("basis", "observations", *columns),
        [[r[key] for key in ("basis", "observations", *names, *energies)] for r in rows],
        ("", "", *("strain" for _ in names), *("meV" for _ in energies)),
    )
