"""The report of a run on molecules: errors, parity plots, learning curve, Pulay forces."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fedens.analysis.molecules import LearningPoint, MoleculeEvaluation, mean_errors
from fedens.configuration import MoleculesConfiguration
from fedens.models.molecule.model import MolecularModel
from fedens.report.figures import learning_curve, loss_curve, parity_plot
from fedens.report.page import ReportContent, ReportFigure, ReportTable, write_report
from fedens.units import (
    HARTREE_IN_KCAL_PER_MOL,
    HARTREE_PER_BOHR_IN_KCAL_PER_MOL_ANGSTROM,
)

#: Names of the numbers of an evaluation that stand at the top, and in the learning curve.
NMAPE, DIPOLE = "NMAPE (%)", "dipole (D)"
ENERGY, FORCES = "energy error (kcal/mol)", "forces (kcal/mol/angstrom)"
HARRIS = "Harris energy error (kcal/mol)"
_CYCLES = ("self-consistent cycles from minao", "self-consistent cycles from the prediction")


def write_molecules_report(
    path: Path,
    configuration: MoleculesConfiguration,
    model: MolecularModel,
    evaluations: Sequence[MoleculeEvaluation],
    curve: Sequence[LearningPoint],
) -> Path:
    """Write the page of a model, evaluated on molecules it has not seen.

    Raises:
        OutputError: the file cannot be written.
    """
    means = mean_errors(evaluations)
    groups = sorted({one.group for one in evaluations})
    content = ReportContent(
        title=f"{configuration.name}: electron density and energies of molecules",
        summary=f"Mean absolute errors over {len(evaluations)} molecules that were not learned "
        f"from; {model.provenance['n_samples']} were.",
        headline=_headline(means),
        run=_what_was_run(configuration, model),
        figures=_figures(model, evaluations, curve),
        tables=_tables(evaluations, groups, curve),
        notes=_notes(means),
    )
    return write_report(path, content)


def _headline(means: dict[str, float]) -> list[tuple[str, float, str]]:
    wanted = (NMAPE, DIPOLE, ENERGY, HARRIS, FORCES, *_CYCLES)
    there = [name for name in wanted if name in means]
    return [(label, means[name], unit) for name in there for label, unit in [_with_unit(name)]]


def _with_unit(name: str) -> tuple[str, str]:
    """Name and unit of a number such as ``dipole (D)``."""
    label, _, unit = name.partition(" (")
    return label, unit.removesuffix(")")


def _what_was_run(configuration: MoleculesConfiguration, model: MolecularModel) -> dict[str, Any]:
    theory, mesh = configuration.theory, configuration.space
    return {
        "reference": f"{theory.xc}/{theory.basis} by PySCF, all electrons",
        "meshes": f"tetrahedra of order {mesh.order}, {mesh.finest:g} bohr at hydrogen, "
        f"growing by {mesh.growth:g}",
        "learned": ", ".join(
            f"{options.train} of {group}"
            for group, options in configuration.molecules.items()
            if options.train
        ),
        "held out": ", ".join(
            f"{options.test} of {group}"
            for group, options in configuration.molecules.items()
            if options.test
        ),
        "committee": f"{len(model.field_networks)} networks of fields, of energies as many",
        "seed": configuration.seed,
    }


def _figures(
    model: MolecularModel,
    evaluations: Sequence[MoleculeEvaluation],
    curve: Sequence[LearningPoint],
) -> list[ReportFigure]:
    figures = []
    energies = np.array([[one.energy, one.predicted_energy] for one in evaluations])
    if len({one.formula for one in evaluations}) == 1:
        # of several molecules, their compositions would be all that one sees
        energies = HARTREE_IN_KCAL_PER_MOL * (energies - energies[:, 0].mean())
        reference, predicted = energies.T
        picture = parity_plot(reference, predicted, "energy above the mean", "kcal/mol")
        figures.append(ReportFigure("Total energies", picture))
    known = [one for one in evaluations if "reference" in one.forces]
    if known:
        unit = HARTREE_PER_BOHR_IN_KCAL_PER_MOL_ANGSTROM
        reference, predicted = (
            unit * np.concatenate([one.forces[kind] for one in known])
            for kind in ("reference", "predicted")
        )
        picture = parity_plot(reference, predicted, "force component", "kcal/mol/angstrom")
        figures.append(ReportFigure("Forces", picture))
    if len(curve) > 1:
        names = [n for n in (NMAPE, ENERGY, FORCES) if n in curve[-1].errors]
        picture = learning_curve(
            [point.size for point in curve],
            {name: [point.errors[name] for point in curve] for name in names},
            "units as named",
        )
        caption = "All points but the last are of one network, the last of the committee."
        figures.append(ReportFigure("Learning curve", picture, caption))
    for name in ("fields 1", "energy 1"):
        if name in model.history:
            losses = model.history[name]
            held_out = losses["validation_loss"] if len(model.field_networks) > 1 else None
            picture = loss_curve(losses["step"], losses["training_loss"], held_out)
            figures.append(ReportFigure(f"Training: {name}", picture))
    return figures


def _tables(
    evaluations: Sequence[MoleculeEvaluation],
    groups: Sequence[str],
    curve: Sequence[LearningPoint],
) -> list[ReportTable]:
    by_group = [mean_errors([one for one in evaluations if one.group == g]) for g in groups]
    names = [name for name in mean_errors(evaluations) if not name.startswith("Pulay")]
    rows: list[list[Any]]
    tables = [
        ReportTable(
            "Mean absolute errors and uncertainties",
            ["", *groups],
            [[name, *(means.get(name) for means in by_group)] for name in names],
            caption="Quadrature: on the reference's mesh. The committee's spread is the standard "
            "deviation between its networks.",
        )
    ]
    pulay = [name for name in mean_errors(evaluations) if name.startswith("Pulay")]
    if pulay:
        tables.append(
            ReportTable(
                "Hellmann-Feynman force of the reference density against its analytic force",
                ["", *groups],
                [[name, *(means.get(name) for means in by_group)] for name in pulay],
                caption="A Gaussian basis moves with the nuclei: the electrostatic force on a "
                "nucleus is not the derivative of the energy (Pulay), least of all on heavy atoms. "
                "Forces here are derivatives of the energy.",
            )
        )
        tables.append(_forces_of(next(one for one in evaluations if len(one.forces) == 3)))
    if len(curve) > 1:
        names = [n for n in (NMAPE, DIPOLE, ENERGY, FORCES) if n in curve[-1].errors]
        rows = [[p.size, p.members, *(p.errors[name] for name in names)] for p in curve]
        columns = ["learned samples", "networks", *names]
        tables.append(ReportTable("Learning curve", columns, rows))
    columns = ["molecule", NMAPE, DIPOLE, ENERGY, FORCES]
    rows = [[one.name, *(one.numbers.get(name) for name in columns[1:])] for one in evaluations]
    tables.append(ReportTable("Every molecule", columns, rows))
    return tables


def _forces_of(one: MoleculeEvaluation) -> ReportTable:
    """Forces on every atom of a molecule, their sizes."""
    unit = HARTREE_PER_BOHR_IN_KCAL_PER_MOL_ANGSTROM
    analytic, feynman = one.forces["reference"], one.forces["reference_hellmann_feynman"]
    vectors = (one.forces["predicted"], analytic, feynman, feynman - analytic)
    sizes = unit * np.linalg.norm(vectors, axis=2).T
    columns = ["atom", "predicted", "analytic", "Hellmann-Feynman", "Pulay difference"]
    atoms = [f"{symbol} {i}" for i, symbol in enumerate(one.symbols)]
    return ReportTable(
        f"Forces of {one.name}: lengths of the vectors",
        columns,
        [[atom, *row] for atom, row in zip(atoms, sizes.tolist(), strict=True)],
        ["", *["kcal/mol/angstrom"] * 4],
        "Analytic and Hellmann-Feynman: of the reference. Difference: of the vectors.",
    )


def _notes(means: dict[str, float]) -> list[str]:
    notes = [
        "NMAPE: integral of |predicted - reference density| over the number of electrons.",
        "Energies: free atoms, pairs of undeformed atoms and a learned energy per atom; forces are "
        "its exact derivative. Kinetic and xc are integrals of their fields; electrostatic is the "
        "rest of the total.",
        "Energy by quadrature of all predicted fields: kinetic, xc, and the electrostatic energy "
        "of the predicted density in closed form; of first order in the errors of the fields.",
        "predicted.xyz: energies (eV), forces (eV/angstrom), dipoles (e angstrom). fields/*.vtu: "
        "reference, prediction and error of every field on the tetrahedra.",
    ]
    if HARRIS in means:
        notes.append(
            "Harris: one Kohn-Sham step from the predicted density, against the self-consistent "
            "energy; cycles: of the self-consistent field to the same tolerance."
        )
    return notes
