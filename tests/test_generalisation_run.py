"""The job ``generalisation`` in small: resumes, writes tables, pictures and ParaView files."""

import csv
import json
from collections import Counter
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedens.commands.cli import app
from fedens.configuration import GeneralisationConfiguration
from fedens.errors import ConfigurationError, StructureError
from fedens.jobs.generalisation import GeneralisationRun
from fedens.jobs.registry import load_job, open_run
from fedens.progress import Progress

EXAMPLE = Path(__file__).parents[1] / "examples" / "generalisation.yaml"

SMALL = """
job: generalisation
ball: 2.5
decay_ball: 3
far_field: {sizes: [0.75, 1.05, 1.3]}
fits:
  sizes: [1.6]
  snapshots: 1
  sufficient: {decays: [4.0, 9.0], degree: 2}
  observations: [[forces], [energy, forces, virial, force_constants]]
"""


QUIET = Progress(quiet=True)


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_example_is_the_default():
    """Every key of the example's file has its default value."""
    assert load_job(EXAMPLE) == GeneralisationConfiguration(name="generalisation")


@pytest.fixture
def computed(monkeypatch):
    """How often each kind of row was computed."""
    counts = Counter()
    for name in ("_defect", "_decay", "_far_field", "_fit", "_compared"):
        original = getattr(GeneralisationRun, name)

        def counted(*arguments, original=original):
            counts[original.__name__] += 1
            return original(*arguments)

        monkeypatch.setattr(GeneralisationRun, name, counted)
    return counts


@pytest.mark.slow
def test_job_from_file_to_report(tmp_path, computed):
    config = tmp_path / "small.yaml"
    config.write_text(SMALL)
    folder = tmp_path / "run"
    arguments = [str(config), "--output", str(folder)]
    outputs = []
    for step in ("generate", "train", "evaluate"):
        result = CliRunner().invoke(app, [step, *arguments])
        assert result.exit_code == 0, result.output
        outputs.append(result.output)
    # every row once, whatever the number of tables, figures and sentences it stands in
    assert computed == {"_defect": 3, "_decay": 1, "_far_field": 6, "_fit": 5, "_compared": 1}
    assert "models fitted within L" not in outputs[0]
    assert "Fitted to forces in a domain of 1.6 lattice constants" in result.output
    tables = {path.stem: rows(path) for path in (folder / "tables").glob("*.csv")}
    assert set(tables) == {"defects", "decay", "far_field", "fits", "slopes"}
    assert [row["defect"] for row in tables["defects"]] == ["vacancy", "divacancy", "dumbbell"]
    assert len(tables["far_field"]) == 6
    assert len(tables["fits"]) == 5
    exact = [row for row in tables["fits"] if row["basis"] == "exact"]
    assert [float(row["geometry"]) < 1e-6 for row in exact] == [True]
    theory = {row["theory"] for row in tables["slopes"]} - {""}
    assert theory == {"-1.5", "-3.0", "-4.5", "-6.0"}
    page = (folder / "report.html").read_text()
    assert "Missing in the training data for the geometry" in page
    assert page.count("data:image/png") == 6
    files = list((folder / "fields").glob("*.vtp"))
    assert len(files) == 5
    assert "displacement_error [angstrom]" in files[0].read_text()

    # the second start computes only what is missing
    stored = folder / "sections.json"
    sections = json.loads(stored.read_text())
    lost = sections.pop("far field 2 1.05")["result"]
    sections["far field 3 1.3"]["result"]["geometry"] = 42.0
    stored.write_text(json.dumps(sections))
    computed.clear()
    result = CliRunner().invoke(app, ["run", *arguments])
    assert result.exit_code == 0
    assert computed == {"_far_field": 1, "_compared": 1}
    for title in ("defects relaxed by the reference", "models wrong beyond L"):
        assert result.output.count(f"{title} ") <= 1  # bars
        assert result.output.count(f"{title}: ") == 1  # what was skipped
    results = json.loads((folder / "results.json").read_text())
    assert results["far_field"][1]["geometry"] == pytest.approx(lost["geometry"], rel=1e-9)
    assert results["far_field"][5]["geometry"] == 42.0
    # neither the device nor the name makes a run refuse its results, or do them again
    computed.clear()
    config.write_text(SMALL + "name: other\n")
    assert CliRunner().invoke(app, ["run", *arguments, "--device", "cpu"]).exit_code == 0
    assert computed == {"_compared": 1}  # the page has another title
    assert "other: what generalises" in (folder / "report.html").read_text()
    with pytest.raises(ConfigurationError, match="data of another configuration"):
        open_run(load_job(config, {"seed": 1}), folder, QUIET)


def test_ball_too_small_is_refused(tmp_path):
    run = open_run(GeneralisationConfiguration(ball=4.0), tmp_path, QUIET)
    with pytest.raises(StructureError, match=r"radius 4 .* expected a radius of 5.25 or more"):
        run.do()
    assert not (tmp_path / "tables").exists()


def test_observations_without_a_target_are_refused(tmp_path):
    path = tmp_path / "wrong.yaml"
    path.write_text("job: generalisation\nfits:\n  targets: {forces: 1e-3}\n")
    with pytest.raises(ConfigurationError, match=r"fits\.targets: has none for energy"):
        load_job(path)
    path.write_text("job: generalisation\nfits:\n  observations: [[density]]\n")
    with pytest.raises(ConfigurationError, match="line 3"):
        load_job(path)
