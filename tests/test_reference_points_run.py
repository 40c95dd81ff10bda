"""The experiment on reference points: it runs, goes on after a cut, and says what it found."""

import json

import pytest
from typer.testing import CliRunner

from fedens.analysis.reference_points import Cost, Outcome, averages, findings, structures_needed
from fedens.commands.cli import app
from fedens.errors import ConfigurationError
from fedens.jobs.registry import load_job

SMALL = """
job: reference_points
structures: {count: 4, supercell: [1, 1, 1], vacancy_fraction: 0}
space: {spacing: 0.425, order: 6}
functional: {kinetic: tfvw}
gmp: {widths: [1.0, 2.0], max_order: 2}
points:
  atoms: [{kind: atoms}]
  quadrature: [{kind: quadrature, spacing: 1.7, order: 2}]
sizes: [1, 2]
held_out: 2
seeds: 1
seconds: 0.2
hidden: [4]
"""


def outcome(points, labels, structures, force_error, seed=0):
    return Outcome(points, labels, structures, seed, 1.0, force_error, 0.1, 3.0)


OUTCOMES = [
    outcome("atoms", "energies and forces", 2, 40.0),
    outcome("atoms", "energies and forces", 16, 20.0),
    outcome("atoms", "energies and forces", 16, 30.0, seed=1),
    outcome("quadrature", "all", 1, 50.0),
    outcome("quadrature", "all", 2, 24.0),
    outcome("quadrature", "all", 16, 5.0),
    outcome("quadrature", "fields", 16, 26.0),
]


@pytest.mark.slow
def test_run_and_resume(tmp_path):
    path, folder = tmp_path / "small.yaml", tmp_path / "run"
    path.write_text(SMALL)

    def invoke(step="run", *options):
        return CliRunner().invoke(app, [step, str(path), "--output", str(folder), *options])

    for step in ("generate", "train", "evaluate"):
        result = invoke(step)
        assert result.exit_code == 0, result.output
    stored = json.loads((folder / "results.json").read_text())
    # atoms are taught two kinds of labels, points of a volume four; two sizes
    assert len(stored["outcomes"]) == 2 * (2 + 4)
    assert [one["points"] for one in stored["costs"]] == ["atoms", "quadrature"]
    atoms, quadrature = stored["costs"]
    assert atoms["net_force"] < 1e-6 < quadrature["net_force"]
    assert atoms["egg_box"] < 1e-6 < quadrature["egg_box"]
    assert "Held-out errors" in (folder / "report.html").read_text()

    # cut off: what is missing is done, the rest is kept
    sections = json.loads((folder / "sections.json").read_text())
    lost = [name for name in sections if "structures, seed" in name][-3:]
    kept = {name: section for name, section in sections.items() if name not in lost}
    (folder / "sections.json").write_text(json.dumps(kept))
    result = invoke()
    assert result.exit_code == 0
    assert "quadrature: trainings: 5 of 8 skipped" in result.output
    again = json.loads((folder / "results.json").read_text())["outcomes"]
    assert again[:-3] == stored["outcomes"][:-3]
    assert len(again) == len(stored["outcomes"])
    assert again != stored["outcomes"]  # the times differ

    # neither the device nor the name makes a run refuse its results, or do them again
    path.write_text(SMALL + "name: other\n")
    result = invoke("run", "--device", "cpu")
    assert result.exit_code == 0
    for points in ("atoms", "quadrature"):
        assert f"{points}: features" not in result.output
    assert json.loads((folder / "results.json").read_text())["outcomes"] == again

    # more seeds: those that are there stay
    path.write_text(SMALL.replace("seeds: 1", "seeds: 2"))
    assert invoke().exit_code == 0
    more = json.loads((folder / "results.json").read_text())["outcomes"]
    assert [one for one in more if one["seed"] == 0] == again
    assert len(more) == 2 * len(again)

    path.write_text(SMALL.replace("spacing: 0.425", "spacing: 0.4"))
    result = invoke()
    assert isinstance(result.exception, ConfigurationError)
    assert "another configuration (space differs)" in str(result.exception)


def test_averages_are_over_seeds():
    row = averages(OUTCOMES)[1]
    assert (row["points"], row["labels"], row["structures"]) == ("atoms", "energies and forces", 16)
    assert row["force_error"] == 25.0
    assert row["force_error_spread"] == 5.0


def test_structures_needed():
    rows = averages(OUTCOMES)
    assert structures_needed(rows, "quadrature", "all", 25.0) == 2
    assert structures_needed(rows, "quadrature", "fields", 25.0) is None


def test_findings_say_what_was_measured():
    costs = [
        Cost("atoms", 32, 1.0, 2.0, 0.01, 0.0, 0.0),
        Cost("quadrature", 5832, 1.0, 2.0, 0.2, 3.0, 0.5),
    ]
    text = " ".join(findings(OUTCOMES, costs))
    assert "(atoms, 25 meV/angstrom)" in text
    assert "quadrature with 2" in text
    assert "quadrature never" in text
    assert "egg-box 0.5 meV/atom" in text


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("sizes: [1, 2]", "sizes: [1, 3]", "the largest of sizes and held_out need 5"),
        ("{kind: atoms}", "{kind: bonds}", "cutoff"),
        ("[{kind: atoms}]", "[]", "at least 1"),
        ("hidden: [4]", "hiden: [4]", "did you mean 'hidden'"),
    ],
)
def test_bad_configurations(tmp_path, old, new, message):
    path = tmp_path / "case.yaml"
    path.write_text(SMALL.replace(old, new))
    with pytest.raises(ConfigurationError, match=message):
        load_job(path)
