"""Every example script runs in its quick form and defends a number."""

import runpy
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fedens.commands.cli import app
from fedens.jobs.registry import load_job

EXAMPLES = Path(__file__).parents[1] / "examples"

#: Script -> arguments of ``main`` in the quick form, largest value it may return, file it leaves.
SCRIPTS: dict[str, tuple[dict[str, Any], float, str | None]] = {
    "aluminium.py": (
        {"n_structures": 6, "n_train": 3, "steps": 200},
        3.0,  # meV/atom
        "runs/script/density.vtu",
    ),
    "dynamics.py": ({"quick": True}, 0.4, "runs/dynamics/density.pvd"),  # meV/atom/ps
    "equation_of_state.py": ({"quick": True}, 0.5, "runs/equation_of_state/curves.png"),  # %
    "long_range.py": ({"quick": True}, 0.01, "runs/long_range/errors.png"),  # share of the spread
    "reference_points.py": ({"quick": True}, 150.0, None),  # meV/angstrom
    "vacancy.py": ({"quick": True}, 3.0, "runs/vacancy/density.vtu"),  # meV
    "vacancy_density.py": (
        {"quick": True},
        15.0,  # meV
        "runs/vacancy_density_quick/energy_errors.png",
    ),
}


def test_every_script_is_listed():
    scripts = {path.name for path in EXAMPLES.glob("*.py") if not path.name.startswith("_")}
    assert scripts == set(SCRIPTS)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::fedens.errors.ExtrapolationWarning")
@pytest.mark.parametrize("name", SCRIPTS)
def test_script_defends_its_number(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # python puts a script's own folder on the path, runpy does not
    monkeypatch.syspath_prepend(EXAMPLES)
    arguments, limit, file = SCRIPTS[name]
    value = runpy.run_path(str(EXAMPLES / name))["main"](**arguments)
    assert 0 < value < limit
    assert file is None or (tmp_path / file).is_file()


def test_configurations_are_valid():
    for path in EXAMPLES.glob("*.yaml"):
        assert load_job(path).name == path.stem


@pytest.mark.slow
def test_aluminium_configuration_in_small(tmp_path):
    """The demo's own file with fewer structures and steps still ends in small errors."""
    import json

    text = (EXAMPLES / "aluminium.yaml").read_text()
    for old, new in {
        "count: 24": "count: 5",
        "train_count: 12": "train_count: 3",
        "steps: 2000": "steps: 300",
        "learning_curve: [1, 2, 4, 8]": "learning_curve: []",
    }.items():
        assert old in text
        text = text.replace(old, new)
    config = tmp_path / "aluminium.yaml"
    config.write_text(text)
    result = CliRunner().invoke(app, ["run", str(config), "--output", str(tmp_path / "run")])
    assert result.exit_code == 0, result.output
    held_out = json.loads((tmp_path / "run" / "metrics.json").read_text())["held_out"]
    assert held_out["nmape_percent"]["mean"] < 0.4
    assert held_out["energy_error_functional_mev_per_atom"]["mean"] < 1.5
    assert held_out["force_mae_functional_mev_per_angstrom"]["mean"] < 4
