"""The page about a learned functional: means over draws, tables in words, what failed."""

import pytest

from fedens.report.functionals import (
    comparison_table,
    larger_in_words,
    mean_curve,
    terminal_table,
    write_functionals_report,
)


def row(method, kind, force, **options):
    return {
        "method": method,
        "set": kind,
        "name": f"{kind}-0000-Al2",
        "atoms": 2,
        "energy_error_mev_per_atom": 1.5,
        "force_mae_mev_per_angstrom": force,
        "force_spread_reference_mev_per_angstrom": 500.0,
        "energy": -4.0,
        "forces": [[0.01, 0.02, 0.03]] * 2,
        "reference": {"energy": -4.001, "forces": [[0.01, 0.02, 0.035]] * 2},
        "call_seconds": 0.25,
        **options,
    }


ROWS = [
    row("wang_teter", "held_out", 70.0, nmape_percent=0.75, evaluations=9),
    row("learned", "held_out", 8.0, nmape_percent=0.25, evaluations=11),
    row("direct", "held_out", 27.0),
    row("wang_teter", "larger", 40.0, nmape_percent=0.5),
    {"method": "learned", "set": "larger", "name": "x", "failure": "it runs away"},
]


def test_methods_stand_beside_each_other_in_words():
    table = comparison_table(ROWS, "held_out")
    assert "not converged" not in table.columns
    force = table.columns.index("force MAE")
    assert {cells[0]: cells[force] for cells in table.rows} == {
        "Wang-Teter": 70.0,
        "learned functional": 8.0,
        "direct fit": 27.0,
    }
    assert table.units[force] == "meV/angstrom"


def test_columns_of_the_terminal_carry_their_units():
    table = terminal_table(ROWS)
    assert table.columns[-1] == "force MAE (meV/angstrom)"
    assert [cells[-1] for cells in table.rows] == [70.0, 8.0, 27.0]


def test_what_failed_is_counted():
    table = comparison_table(ROWS, "larger")
    failed = table.columns.index("not converged")
    assert [cells[failed] for cells in table.rows] == [0, 1]


def test_larger_cells_are_sentences():
    sentence, failed = larger_in_words(ROWS)
    assert sentence.startswith(
        "larger cells, Wang-Teter: density error (NMAPE) 0.5 %, energy, mean"
    )
    assert sentence.endswith("1.5 meV/atom, force MAE 40 meV/angstrom")
    assert failed == "larger cells, learned functional: none converged"
    assert larger_in_words(ROWS[:3]) == []


def test_curve_is_the_mean_of_its_draws():
    rows = [
        {
            "method": "learned",
            "structures": size,
            "draw": draw,
            "energy_sd_mev_per_atom": None if size == 1 else 0.5,
            "force_mae_mev_per_angstrom": 10.0 * size + draw,
        }
        for size in (4, 1)
        for draw in (0, 1, 2)
    ]
    one, four = mean_curve(rows)
    assert (one["structures"], four["structures"]) == (1, 4)
    assert one["energy_sd_mev_per_atom"] is None
    assert four["energy_sd_mev_per_atom"] == 0.5
    assert four["force_mae_mev_per_angstrom"] == pytest.approx(41.0)


def test_page_needs_no_picture_and_no_row_of_its_own_method(tmp_path):
    page = write_functionals_report(tmp_path / "a.html", "small", "learned", {"seed": 0}, ROWS)
    text = page.read_text()
    assert "data:image/png" not in text
    assert "Errors on larger cells" in text
    assert "n0, the mean density of the undistorted crystal" in text
    write_functionals_report(tmp_path / "b.html", "small", "learned_delta", {}, ROWS)
    assert "Error bars on held-out cells" not in text
