"""Reports of all kinds show every number under its own heading, in its own unit."""

import re
from html import unescape
from unittest.mock import patch

import numpy as np
import pytest
from ase import units
from ase.units import Bohr, Hartree

from fedens.analysis.evaluation import Evaluation, mean_errors
from fedens.analysis.quantities import QUANTITIES
from fedens.analysis.reference_points import Cost, Outcome
from fedens.report.crystals import write_crystals_report
from fedens.report.molecules import write_molecules_report
from fedens.report.page import ReportTable, shown
from fedens.report.reference_points import write_reference_points_report
from fedens.report.sections import (
    calibrations,
    curve_figures,
    for_terminal,
    headline,
    losses,
    rows_table,
    summary_table,
)

ROUTES = ("reference", "functional", "energy_density", "hellmann_feynman", "predicted")


def evaluation(name, group, size, molecule):
    """One with every number that its kind may have, all different."""
    keys = [
        key
        for key in QUANTITIES
        if re.search("percent|debye|e_bohr|_e$|mev_per|kcal|cycles", key)
        and ("kcal" in key or "cycles" in key or "debye" in key) <= molecule
        and not key.startswith("mean_candidate")
    ]
    numbers = {key: size * (1 + place / 100) for place, key in enumerate(keys)}
    array = size * np.array([[0.1, -0.2, 0.3], [0.4, 0.5, -0.6]])
    forces = {route: (1 + 0.1 * i) * array for i, route in enumerate(ROUTES)}
    energies = {route: size * (1 + 0.1 * i) for i, route in enumerate(ROUTES)}
    if molecule:
        forces["reference_hellmann_feynman"] = 2 * array
    return Evaluation(name, group, "H2", ["H", "H"], numbers, energies, forces)


def tables_of(page):
    """Title -> rows of a page's tables, each heading -> text; units in brackets."""
    found = {}
    for section in re.findall(r"<section.*?</section>", page, re.DOTALL):
        headings = [
            re.sub(r'<span class="unit">(.*)</span>', r" [\1]", text)
            for text in re.findall(r"<th[^>]*>(.*?)</th>", section)
        ]
        rows = re.findall(r"<tr>(<td.*?)</tr>", section)
        cells = [[unescape(c) for c in re.findall(r"<td[^>]*>(.*?)</td>", row)] for row in rows]
        title = unescape(re.search(r"<h3>(.*?)</h3>", section)[1])
        found[title] = [dict(zip(headings, row, strict=True)) for row in cells]
    return found


def heading(key):
    label, unit = QUANTITIES[key]
    return f"{label} [{unit}]" if unit else label


#: As much of a picture as a page looks at.
PNG = b"\x89PNG"
MOLECULES = [
    evaluation("a", "water", 1.0, molecule=True),
    evaluation("b", "water", -3.0, molecule=True),
    evaluation("c", "ammonia", 5.0, molecule=True),
]
CRYSTALS = [evaluation("a", "", 2.0, molecule=False), evaluation("b", "", -3.0, molecule=False)]


def check_summary(rows, evaluations):
    """Means, largest and units of all that a table of quantities shows; returns the keys shown."""
    by_label = {(row["quantity"], row["unit"]): row for row in rows}
    known = evaluations[0].numbers  # other jobs have keys of the same label
    keys = [key for key, quantity in QUANTITIES.items() if quantity in by_label and key in known]
    for key in keys:
        row, sizes = by_label[QUANTITIES[key]], [abs(e.numbers[key]) for e in evaluations]
        assert row["largest"] == shown(max(sizes))
        groups = {e.group for e in evaluations}
        for group in groups:
            own = [s for e, s in zip(evaluations, sizes, strict=True) if e.group == group]
            assert row[group if len(groups) > 1 else "mean"] == shown(np.mean(own))
    return keys


def test_report_of_crystals_shows_numbers_under_their_headings(tmp_path):
    curve = [{"structures": n, **CRYSTALS[0].numbers} for n in (1, 2)]
    rounds = [
        {"round": n, "mean_candidate_uncertainty_mev_per_atom": 40.0 + n, **curve[n]}
        for n in (0, 1)
    ]
    path = tmp_path / "a.html"
    page = write_crystals_report(path, "al", 7, {"seed": 3}, CRYSTALS, curve, rounds).read_text()
    assert "Trained on 7 structures" in page
    tables = tables_of(page)
    assert len(check_summary(tables["Held-out errors"], CRYSTALS)) == len(CRYSTALS[0].numbers)
    for title, rows in (
        ("Held-out structures", [e.numbers for e in CRYSTALS]),
        ("Learning curve", curve),
        ("Active learning", rounds),
    ):
        by_heading = {heading(key): key for key in QUANTITIES if key in rows[0]}
        assert len(tables[title]) == 2
        for row, numbers in zip(tables[title], rows, strict=True):
            of_numbers = {text: cell for text, cell in row.items() if text in by_heading}
            assert len(of_numbers) >= 3
            for text, cell in of_numbers.items():
                assert cell == shown(numbers[by_heading[text]])
    assert [row["structure"] for row in tables["Held-out structures"]] == ["a", "b"]


def test_report_of_molecules_shows_numbers_under_their_headings(tmp_path):
    path = write_molecules_report(tmp_path / "a.html", "water", 8, {"seed": 3}, MOLECULES)
    tables = tables_of(path.read_text())
    keys = check_summary(tables["Mean absolute errors and uncertainties"], MOLECULES)
    pulay = "Hellmann-Feynman force of the reference density against its analytic force"
    keys += check_summary(tables[pulay], MOLECULES)
    assert sorted(keys) == sorted(MOLECULES[0].numbers)
    assert sum("pulay" in key for key in keys) == len(tables[pulay]) == 3
    for row, one in zip(tables["Every molecule"], MOLECULES, strict=True):
        assert row["structure"] == one.name
        for key in ("nmape_percent", "dipole_error_debye", "energy_error_kcal_per_mol"):
            assert row[heading(key)] == shown(one.numbers[key])
    first = tables["Forces of a: lengths of the vectors"][0]
    kcal = Hartree / Bohr / (units.kcal / units.mol)
    length = np.linalg.norm([0.1, -0.2, 0.3]) * kcal
    factors = {"predicted": 1.4, "analytic": 1, "Hellmann-Feynman": 2, "Pulay difference": 1}
    for column, factor in factors.items():
        assert first[f"{column} [kcal/mol/angstrom]"] == shown(factor * length)


def test_energies_of_molecules_are_drawn_in_their_unit_above_the_mean_of_each_formula(tmp_path):
    """Two formulas whose energies lie far apart; errors of 0.01 and 0.03 hartree."""
    made = []
    for formula, energy, error in (("a", -76.0, 0.0), ("a", -76.2, 0.01), ("b", -56.0, 0.03)):
        energies = {"reference": energy, "predicted": energy + error}
        made.append(Evaluation("", "", formula, ["H"], {"nmape_percent": 1.0}, energies, {}))
    with patch("fedens.report.molecules.parity_plot", return_value=PNG) as drawn:
        write_molecules_report(tmp_path / "a.html", "two", 8, {}, made)
    reference, predicted, _, unit = drawn.call_args.args
    assert unit == "kcal/mol"
    kcal = Hartree / (units.kcal / units.mol)
    np.testing.assert_allclose(reference, np.array([0.1, -0.1, 0.0]) * kcal, atol=1e-9)
    np.testing.assert_allclose(predicted, np.array([0.1, -0.09, 0.03]) * kcal, atol=1e-9)


def test_energies_and_forces_of_crystals_are_drawn_in_ev(tmp_path):
    with (
        patch("fedens.report.crystals.parity_plot", return_value=PNG) as energies,
        patch("fedens.report.sections.parity_plot", return_value=PNG) as forces,
    ):
        write_crystals_report(tmp_path / "a.html", "al", 7, {}, CRYSTALS, slices=PNG)
    for call, route in zip(energies.call_args_list, ("functional", "energy_density"), strict=True):
        for values, key in zip(call.args, ("reference", route), strict=False):
            expected = [e.energies[key] * Hartree / 2 for e in CRYSTALS]
            np.testing.assert_allclose(values, expected)
        assert call.args[3] == "eV"
        assert (call.kwargs["error_unit"], call.kwargs["error_factor"]) == ("meV", 1000)
    for call, route in zip(forces.call_args_list, ("functional", "hellmann_feynman"), strict=True):
        for values, key in zip(call.args, ("reference", route), strict=False):
            expected = np.concatenate([e.forces[key] for e in CRYSTALS]) * Hartree / Bohr
            np.testing.assert_allclose(values, expected)
        assert call.args[3] == "eV/angstrom"


def test_report_of_reference_points_shows_numbers_under_their_headings(tmp_path):
    outcomes = [
        Outcome("atoms", "energies", 2, seed, 10.0 + seed, 30.0 + seed, 5.0, 7.0) for seed in (0, 2)
    ]
    costs = [Cost("atoms", 32, 1.5, 2.5, 3.5, 4.5, 5.5)]
    path = write_reference_points_report(tmp_path / "a.html", "points", {}, outcomes, costs)
    tables = tables_of(path.read_text())
    assert tables["Held-out errors"] == [
        {
            "taught": "energies",
            "reference points": "atoms",
            "training structures": "2",
            "force error [meV/angstrom]": "31",
            "spread over seeds [meV/angstrom]": "1",
            "energy error [meV/atom]": "11",
            "spread over seeds [meV/atom]": "1",
            "time per epoch [s]": "5",
            "epochs": "7",
        }
    ]
    assert tables["Costs, one structure"] == [
        {
            "reference points": "atoms",
            "points": "32",
            "features and derivatives [s]": "1.5",
            "stored [MiB]": "2.5",
            "energy and forces [s]": "3.5",
            "net force [meV/angstrom]": "4.5",
            "egg-box [meV/atom]": "5.5",
        }
    ]


def test_curves_and_calibrations_show_what_they_say():
    rows = [{"structures": n, "nmape_percent": 8 / n, "dipole_error_debye": 1 / n} for n in (2, 4)]
    with patch("fedens.report.sections.learning_curve", return_value=PNG) as drawn:
        curve_figures(rows, ["nmape_percent", "dipole_error_debye", "missing"], "")
        assert curve_figures(rows[:1], ["nmape_percent"], "") == []
    sizes, errors, unit = drawn.call_args.args
    assert (sizes, unit) == ([2, 4], "% or D")
    assert errors == {"density error (NMAPE) (%)": [4, 2], "dipole error (D)": [0.5, 0.25]}
    with patch("fedens.report.sections.calibration_plot", return_value=PNG) as drawn:
        figures = calibrations(CRYSTALS)
    assert figures[0].title == "Uncertainty: density"
    uncertainty, error, quantity, unit, _ = drawn.call_args_list[0].args
    assert (quantity, unit) == ("density", "%")
    for values, key in ((uncertainty, "density_uncertainty_percent"), (error, "nmape_percent")):
        np.testing.assert_allclose(np.abs(values), [abs(e.numbers[key]) for e in CRYSTALS])
    losses_of = {"Loss": {"step": [0, 1], "training_loss": [2.0, 1.0]}, "Nothing": {"step": []}}
    with patch("fedens.report.sections.loss_curve", return_value=PNG) as drawn:
        assert [figure.title for figure in losses(losses_of)] == ["Loss"]
    assert drawn.call_args.args == ([0, 1], [2.0, 1.0], ())


def test_means_are_of_those_that_have_the_number():
    means = mean_errors([{"a": -3.0, "b": 1.0}, {"a": 1.0}])
    assert means == {"a": 2.0, "b": 1.0}
    assert headline([MOLECULES[0], MOLECULES[2]], ["missing", "nmape_percent"]) == [
        ("density error (NMAPE)", pytest.approx(3 * MOLECULES[0].numbers["nmape_percent"]), "%")
    ]


def test_columns_without_a_number_are_left_out():
    rows = [{"round": 1, "structures": None}, {"round": 2}]
    table = rows_table("Rounds", ["round", "structures", "networks"], rows)
    assert table == ReportTable("Rounds", ["round"], [[1], [2]], [""])


def test_table_in_the_terminal_is_that_of_the_page():
    table = for_terminal(summary_table("3 held out", MOLECULES, ["nmape_percent"]))
    cells = [next(iter(column.cells)) for column in table.columns]
    mean = MOLECULES[0].numbers["nmape_percent"]
    expected = [f"{factor * mean:.3g}" for factor in (5, 2, 5)]
    assert cells == ["density error (NMAPE)", *expected, "%"]
