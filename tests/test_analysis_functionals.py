"""Methods side by side: errors in their units, straight lines, means and error bars."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from samples import make_sample

from fedens.analysis.functionals import (
    Answer,
    Line,
    calibration,
    chosen,
    compare,
    summary,
    uncertainty_pairs,
)
from fedens.errors import ModelError
from fedens.models.base import Uncertainty
from fedens.units import (
    HARTREE_IN_MEV,
    HARTREE_PER_BOHR3_IN_GPA,
    HARTREE_PER_BOHR_IN_MEV_PER_ANGSTROM,
)


def answer_beside(sample, energy=0.0, force=0.0, **options):
    """An answer that is off by an energy and by a force on every component."""
    return Answer(sample.energy + energy, sample.forces + force, **options)


def test_errors_are_in_the_units_of_their_names():
    sample = make_sample(fields={"density": np.full(50, 2.0)})
    answer = answer_beside(
        sample,
        -0.003,
        0.01,
        stress=sample.stress - 1e-4,
        density=torch.full((50,), 1.9, dtype=torch.float64),
        evaluations=7,
    )
    row = compare(answer, sample)
    assert row["energy_error_mev_per_atom"] == pytest.approx(-0.003 / 2 * HARTREE_IN_MEV)
    unit = HARTREE_PER_BOHR_IN_MEV_PER_ANGSTROM
    assert row["force_mae_mev_per_angstrom"] == pytest.approx(0.01 * unit)
    assert row["stress_error_gpa"] == pytest.approx(1e-4 * HARTREE_PER_BOHR3_IN_GPA)
    assert row["nmape_percent"] == pytest.approx(5.0)
    assert row["evaluations"] == 7
    # one hartree per cubic bohr, in pascals, by CODATA
    assert pytest.approx(29421.0, rel=1e-4) == HARTREE_PER_BOHR3_IN_GPA


def test_what_a_method_does_not_say_is_not_compared():
    sample = make_sample()
    row = compare(answer_beside(sample), sample)
    assert not {"nmape_percent", "stress_error_gpa", "evaluations"} & set(row)
    with pytest.raises(ModelError, match="no forces"):
        compare(answer_beside(sample), replace(sample, forces=None))
    with pytest.raises(ModelError, match="not finite"):
        compare(answer_beside(sample, np.nan), sample)


def test_line_goes_through_energies_per_atom():
    samples = [make_sample(seed) for seed in range(4)]
    energies = [2 * ((s.energy / 2) - 0.25) / 0.5 for s in samples]
    line = Line.fit(energies, samples)
    assert (line.offset, line.slope) == pytest.approx((0.25, 0.5))
    given = Answer(energies[0], 2 * samples[0].forces, stress=2 * samples[0].stress, evaluations=3)
    row = compare(line(given), samples[0])
    for key in ("energy_error_mev_per_atom", "force_mae_mev_per_angstrom", "stress_error_gpa"):
        assert row[key] == pytest.approx(0, abs=1e-8)
    assert row["evaluations"] == 3


def test_line_of_one_energy_is_an_offset():
    sample = make_sample()
    line = Line.fit([sample.energy - 0.5], [sample])
    assert (line.offset, line.slope) == pytest.approx((0.25, 1.0))


def test_summary_keeps_mean_error_and_spread_of_energies_apart():
    rows = [
        {"energy_error_mev_per_atom": e, "force_mae_mev_per_angstrom": f, "call_seconds": 1.0}
        for e, f in ((1.0, 2.0), (3.0, 4.0), (5.0, 6.0))
    ]
    found = summary([*rows, {"failure": "not converged"}])
    assert found["energy_mean_error_mev_per_atom"] == pytest.approx(3.0)
    assert found["energy_sd_mev_per_atom"] == pytest.approx(2.0)
    assert found["force_mae_mev_per_angstrom"] == pytest.approx(4.0)
    assert (found["cells"], found["failures"], found["nmape_percent"]) == (3, 1, None)
    assert summary(rows[:1])["energy_sd_mev_per_atom"] is None
    assert summary([])["energy_mean_error_mev_per_atom"] is None


def test_rows_are_chosen_by_set_and_method():
    rows = [{"set": s, "method": m} for s in ("held_out", "larger") for m in ("wgc", "line")]
    assert chosen(rows, "larger", "wgc") == [rows[2]]


def test_error_bars_that_are_half_of_the_errors_are_two_sigma_off():
    samples = [make_sample(seed) for seed in range(3)]
    bars = Uncertainty(0.02, np.full((2, 3), 0.005))
    rows = [compare(answer_beside(s, 0.04, -0.01, uncertainty=bars), s) for s in samples]
    found = calibration(rows)
    assert found["energy"]["rms_sigma"] == pytest.approx(2.0)
    assert found["forces"]["rms_sigma"] == pytest.approx(2.0)
    assert (found["energy"]["values"], found["forces"]["values"]) == (3, 18)
    assert found["forces"]["within_1_sigma_percent"] == 0
    uncertainty, error = uncertainty_pairs(rows)["energy"]
    np.testing.assert_allclose(uncertainty, 0.01 * HARTREE_IN_MEV)
    np.testing.assert_allclose(error, 0.02 * HARTREE_IN_MEV)


def test_error_bars_of_normal_errors_hold_two_thirds_of_them():
    rng = np.random.default_rng(0)
    sample = make_sample()
    bars = Uncertainty(None, np.full((2, 3), 0.01))
    rows = []
    for _ in range(200):
        forces = sample.forces + 0.01 * rng.standard_normal((2, 3))
        rows.append(compare(Answer(sample.energy, forces, uncertainty=bars), sample))
    found = calibration(rows)
    assert set(found) == {"forces"}
    # 1200 values: a share is known to 1.4 %, the rms to 2 %
    assert found["forces"]["within_1_sigma_percent"] == pytest.approx(68.3, abs=5)
    assert found["forces"]["rms_sigma"] == pytest.approx(1, abs=0.08)
    assert calibration([compare(answer_beside(sample), sample)]) == {}
