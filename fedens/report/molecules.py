"""The report of a run on molecules: errors, parity plots, learning curve, Pulay forces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fedens.analysis.evaluation import Evaluation
from fedens.analysis.quantities import QUANTITIES
from fedens.report.figures import parity_plot
from fedens.report.page import ReportContent, ReportFigure, ReportTable, write_report
from fedens.report.sections import (
    Row,
    calibrations,
    curve_figures,
    curve_tables,
    evaluations_table,
    force_parity,
    headline,
    losses,
    summary_table,
)
from fedens.units import HARTREE_IN_KCAL_PER_MOL, HARTREE_PER_BOHR_IN_KCAL_PER_MOL_ANGSTROM

#: What stands in the table of the single molecules and in the learning curve.
_COLUMNS = (
    "nmape_percent",
    "dipole_error_debye",
    "energy_error_kcal_per_mol",
    "force_mae_kcal_per_mol_angstrom",
)
_HEADLINE = (
    *_COLUMNS,
    "energy_error_harris_kcal_per_mol",
    "cycles_from_minao",
    "cycles_from_prediction",
)
_FORCE_UNIT = (HARTREE_PER_BOHR_IN_KCAL_PER_MOL_ANGSTROM, "kcal/mol/angstrom")
_PULAY = [key for key in QUANTITIES if key.startswith("pulay")]
_NOTES = (
    "NMAPE: integral of |predicted - reference density| over the number of electrons.",
    "Energies: free atoms, pairs of undeformed atoms and a learned energy per atom; forces are "
    "its exact derivative. Kinetic and xc are integrals of their fields; electrostatic is the "
    "rest of the total.",
    "Energy by quadrature of all predicted fields: kinetic, xc, and the electrostatic energy of "
    "the predicted density in closed form; of first order in the errors of the fields.",
    "Harris: one Kohn-Sham step from the predicted density, against the self-consistent energy; "
    "cycles: of the self-consistent field to the same tolerance.",
    "predicted.xyz: energies (eV), forces (eV/angstrom), dipoles (e angstrom). fields/*.vtu: "
    "reference, prediction and error of every field on the tetrahedra.",
)


def write_molecules_report(
    path: str | Path,
    name: str,
    n_trained: int,
    run: Mapping[str, Any],
    evaluations: Sequence[Evaluation],
    curve: Sequence[Row] = (),
    histories: Mapping[str, Mapping[str, Sequence[float]]] | None = None,
) -> Path:
    """Write the page of a model, evaluated on molecules it has not learned from.

    Args:
        name: of the run. n_trained: samples it learned from. run: what was run, name -> value.
        curve: rows of the learning curve. histories: losses of trainings, by title.

    Raises:
        OutputError: the file cannot be written.
    """
    caption = "All points but the last are of one network, the last of the committee."
    content = ReportContent(
        title=f"{name}: electron density and energies of molecules",
        summary=f"Mean absolute errors over {len(evaluations)} molecules that were not learned "
        f"from; {n_trained} were.",
        headline=headline(evaluations, _HEADLINE),
        run=run,
        figures=[
            _energy_parity(evaluations),
            *force_parity("Forces", evaluations, "predicted", *_FORCE_UNIT),
            *calibrations(evaluations),
            *curve_figures(curve, _COLUMNS, caption),
            *losses(histories or {}),
        ],
        tables=[
            summary_table(
                "Mean absolute errors and uncertainties",
                evaluations,
                QUANTITIES.keys() - _PULAY,
                "Quadrature: on the reference's mesh. Uncertainties are the standard deviation "
                "over the committee, scaled to errors of its members on molecules they left out.",
            ),
            *_pulay_tables(evaluations),
            *curve_tables(curve, _COLUMNS, caption),
            evaluations_table("Every molecule", _COLUMNS, evaluations),
        ],
        notes=_NOTES,
    )
    return write_report(path, content)


def _energy_parity(evaluations: Sequence[Evaluation]) -> ReportFigure:
    """Above the mean of each formula: else their compositions would be all there is to see."""
    formulas = [e.formula for e in evaluations]
    reference, predicted = (
        HARTREE_IN_KCAL_PER_MOL * np.array([e.energies[route] for e in evaluations])
        for route in ("reference", "predicted")
    )
    for formula in set(formulas):
        alike = [one == formula for one in formulas]
        mean = reference[alike].mean()
        reference[alike] -= mean
        predicted[alike] -= mean
    picture = parity_plot(reference, predicted, "energy above the mean", "kcal/mol")
    return ReportFigure("Total energies", picture)


def _pulay_tables(evaluations: Sequence[Evaluation]) -> list[ReportTable]:
    """How far Hellmann-Feynman forces of the reference are from its analytic ones, if known."""
    known = [e for e in evaluations if "reference_hellmann_feynman" in e.forces]
    if not known:
        return []
    summary = summary_table(
        "Hellmann-Feynman force of the reference density against its analytic force",
        evaluations,
        _PULAY,
        "A Gaussian basis moves with the nuclei: the electrostatic force on a nucleus is not the "
        "derivative of the energy (Pulay), least of all on heavy atoms. Forces here are "
        "derivatives of the energy.",
    )
    return [summary, _forces_of(known[0])]


def _forces_of(one: Evaluation) -> ReportTable:
    """Forces on every atom of a molecule, their sizes."""
    analytic, feynman = one.forces["reference"], one.forces["reference_hellmann_feynman"]
    vectors = (one.forces["predicted"], analytic, feynman, feynman - analytic)
    sizes = _FORCE_UNIT[0] * np.linalg.norm(vectors, axis=2).T
    columns = ["atom", "predicted", "analytic", "Hellmann-Feynman", "Pulay difference"]
    atoms = [f"{symbol} {i}" for i, symbol in enumerate(one.symbols)]
    return ReportTable(
        f"Forces of {one.name}: lengths of the vectors",
        columns,
        [[atom, *row] for atom, row in zip(atoms, sizes.tolist(), strict=True)],
        ["", *_FORCE_UNIT[1:] * 4],
        "Analytic and Hellmann-Feynman: of the reference. Difference: of the vectors.",
    )
