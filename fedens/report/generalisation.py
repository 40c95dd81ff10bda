"""The report of a generalisation analysis: slopes, errors against domain size, what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fedens.generalisation.measures import Strain
from fedens.report.figures import arrows_figure, power_law_plot
from fedens.report.page import ReportContent, ReportFigure, ReportTable, write_report
from fedens.units import BOHR_IN_ANGSTROM

Row = dict[str, Any]

#: Exponents of the theory: what is wrong beyond L, and the error's quantity.
THEORY = {
    ("force constants", "geometry"): -1.5,
    ("force constants", "formation_energy"): -3.0,
    ("third order", "geometry"): -4.5,
    ("third order", "formation_energy"): -6.0,
}
_SIZE = "training-domain radius L (lattice constants)"
_STRAIN = "error of the strain, l2 norm"


def write_generalisation_report(path: Path, analysis: Any) -> Path:
    """Write the page of an analysis whose steps are done.

    Raises:
        OutputError: the file cannot be written.
    """
    return write_report(path, _content(analysis))


def _content(analysis: Any) -> ReportContent:
    options = analysis.configuration
    slopes, fits = analysis.slopes, analysis.fits
    return ReportContent(
        title=f"{options.name}: what generalises to a {options.defect}",
        summary=analysis.advice(),
        headline=_headline(analysis, slopes, fits),
        run=_what_was_run(analysis),
        figures=_figures(analysis, fits),
        tables=_tables(analysis, slopes, fits),
        notes=[
            "Strain: gradient of the displacement from the differences to nearest neighbours; "
            "errors of the geometry are l2 norms of the strain of the difference to the "
            "reference's relaxed positions.",
            "Theory: errors of the force constants beyond L cost L^-1.5 in geometry and L^-3 in "
            "energy, those of the third order L^-4.5 and L^-6.",
            "Terms are estimates of size with the theory's constants left at 1, not bounds.",
            "tables/ holds every number as CSV; fields/*.vtp open in ParaView: displacement and "
            "its error, strain and its error, of the atoms around the defect.",
        ],
    )


def _headline(
    analysis: Any, slopes: Sequence[Row], fits: Sequence[Row]
) -> list[tuple[str, Any, str]]:
    wanted = [r for r in slopes if r["theory"] is not None]
    found = [
        (
            f"slope of the {_words(r['quantity'])}, {r['model']}",
            r["slope"],
            f"theory {r['theory']:g}",
        )
        for r in wanted[:3]
    ]
    first, last = (
        _at_smallest(analysis, fits, "sufficient", kinds)
        for kinds in (
            analysis.configuration.fits.observations[0],
            analysis.configuration.fits.observations[-1],
        )
    )
    ratio = first["geometry"] / last["geometry"]
    title = f"geometry error of {_words(first['observations'])} over that of all observations"
    return [*found, (title, ratio, "times")]


def _at_smallest(analysis: Any, fits: Sequence[Row], basis: str, kinds: Sequence[str]) -> Row:
    smallest = min(analysis.configuration.fits.sizes)
    return next(
        r
        for r in fits
        if r["basis"] == basis
        and r["size_lattice_constants"] == smallest
        and r["observations"] == ", ".join(kinds)
    )


def _what_was_run(analysis: Any) -> dict[str, object]:
    options, large = analysis.configuration, analysis.large
    return {
        "reference": f"Gupta potential of {options.element}",
        "lattice constant": f"{analysis.crystal.lattice_constant * BOHR_IN_ANGSTROM:.6f} angstrom",
        "defect": options.defect,
        "large crystal": (
            f"{int(large.defect.free.sum())} free atoms within {options.ball:g} lattice constants"
        ),
        "training snapshots": f"relaxed and {options.fits.snapshots} rattled by "
        f"{options.fits.rattle:g} bohr",
        "seed": options.seed,
    }


def _figures(analysis: Any, fits: Sequence[Row]) -> list[ReportFigure]:
    figures = []
    for quantity, label in (
        ("geometry", _STRAIN),
        ("formation_energy", "error of the formation energy (eV)"),
    ):
        curves = {}
        for wrong in ("force constants", "third order"):
            rows = [r for r in analysis.far_field if r["wrong"] == wrong]
            curves[f"wrong {wrong}"] = _curve(rows, quantity)
        lines = {
            f"L^{THEORY[wrong, quantity]:g}": THEORY[wrong, quantity]
            for wrong in ("force constants", "third order")
        }
        picture = power_law_plot(curves, _SIZE, label, lines)
        title = f"Models wrong beyond L: {_words(quantity)}"
        figures.append(ReportFigure(title, picture, "Dashed: the theory's exponents."))
    for basis in ("small", "sufficient"):
        curves = {}
        for kinds in map(", ".join, analysis.configuration.fits.observations):
            rows = [r for r in fits if r["basis"] == basis and r["observations"] == kinds]
            curves[_words(kinds)] = _curve(rows, "geometry")
        if not any(np.isfinite(errors).any() for _, errors in curves.values()):
            continue  # no model of this basis is stable
        picture = power_law_plot(curves, _SIZE, _STRAIN)
        figures.append(ReportFigure(f"Fits within L: {basis} basis", picture))
    decay = analysis.decay
    curve = (
        [r["distance_lattice_constants"] for r in decay],
        [r["r3_strain"] / r["distance_lattice_constants"] ** 3 for r in decay],
    )
    picture = power_law_plot(
        {"strain": curve}, "distance (lattice constants)", "root mean square strain", {"r^-3": -3.0}
    )
    figures.append(ReportFigure("Strain around the defect", picture))
    figures.append(_displacements(analysis))
    return figures


def _displacements(analysis: Any) -> ReportFigure:
    """Relaxation and its error in the plane through the defect, with their strains."""
    large = analysis.large
    sites, a = large.defect.sites, analysis.crystal.lattice_constant
    plane = (np.abs(sites[:, 2]) < 0.1 * a) & (large.defect.distances < 4 * a)
    panels, longest = {}, []
    error = analysis.displacement_error
    shown = {"relaxation": large.displacement, "its error": np.nan_to_num(error)}
    for title, displacement in shown.items():
        strain = np.sqrt(Strain(large.defect).squared(displacement))
        arrows = displacement[plane, :2] * BOHR_IN_ANGSTROM
        panels[title] = (sites[plane, :2] * BOHR_IN_ANGSTROM, arrows, strain[plane])
        longest.append(BOHR_IN_ANGSTROM * float(np.linalg.norm(displacement, axis=1).max()))
    kinds = _words(", ".join(analysis.configuration.fits.observations[0]))
    return ReportFigure(
        "Displacements around the defect",
        arrows_figure(panels, "angstrom", "strain"),
        f"Plane through the defect; error of the model fitted to {kinds} in the smallest domain "
        f"with the sufficient basis. Longest arrows: {longest[0]:.3g}, {longest[1]:.3g} angstrom.",
        wide=True,
    )


def _curve(rows: Sequence[Row], quantity: str) -> tuple[list[float], list[float]]:
    return [r["size_lattice_constants"] for r in rows], [abs(r[quantity]) for r in rows]


def _tables(analysis: Any, slopes: Sequence[Row], fits: Sequence[Row]) -> list[ReportTable]:
    return [
        ReportTable(
            "Slopes against the training-domain radius",
            ("model", "quantity", "slope", "95 % half width", "theory"),
            [
                [
                    _words(r["model"]),
                    _words(r["quantity"]),
                    r["slope"],
                    r["half_width_95"],
                    r["theory"],
                ]
                for r in slopes
            ],
        ),
        ReportTable(
            "Fits",
            ("basis", "observations", "L", "geometry error", "largest", "formation energy", "note"),
            [
                [
                    r["basis"],
                    _words(r["observations"]),
                    r["size_lattice_constants"],
                    r["geometry"],
                    r["largest"],
                    1000 * r["formation_energy"],
                    r["message"],
                ]
                for r in fits
            ],
            ("", "", "lattice constants", "strain", "strain", "meV", ""),
        ),
        _terms_table(analysis, fits),
        ReportTable(
            "Strain around the defect",
            ("distance", "r^3 times strain"),
            [[r["distance_lattice_constants"], r["r3_strain"]] for r in analysis.decay],
            ("lattice constants", "lattice constants^3"),
        ),
        ReportTable(
            "Defects relaxed by the reference",
            ("defect", "formation energy", "relaxation energy", "relaxation volume", "strain norm"),
            [
                [
                    r["defect"],
                    r["formation_energy_ev"],
                    r["relaxation_energy_ev"],
                    r["relaxation_volume_atomic_volumes"],
                    r["strain_norm"],
                ]
                for r in analysis.defects
            ],
            ("", "eV", "eV", "atomic volumes", ""),
        ),
    ]


def _terms_table(analysis: Any, fits: Sequence[Row]) -> ReportTable:
    """What each observation's error costs, for the smallest domain."""
    names = [key for key in fits[0] if key.startswith("geometry_")]
    energies = [key for key in fits[0] if key.startswith("energy_")]
    smallest = min(analysis.configuration.fits.sizes)
    rows = [
        [r["basis"], _words(r["observations"]), *(r[key] for key in (*names, *energies))]
        for r in fits
        if r["size_lattice_constants"] == smallest
    ]
    columns = [_words(key.removesuffix("_mev")) for key in (*names, *energies)]
    return ReportTable(
        f"Terms of the theory at L = {smallest:g} lattice constants",
        ("basis", "observations", *columns),
        rows,
        ("", "", *("strain" for _ in names), *("meV" for _ in energies)),
    )


def _words(name: str) -> str:
    return name.replace("_", " ")
