"""Every example script runs in its quick form and defends a number."""

import json
import runpy
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedens.commands.cli import app
from fedens.jobs.registry import load_job

EXAMPLES = Path(__file__).parents[1] / "examples"

#: Script -> largest value that ``main`` may return in its quick form, file that it leaves.
SCRIPTS: dict[str, tuple[float, str | None]] = {
    "aluminium.py": (0.5, "runs/script/density.vtu"),  # meV/atom
    "dynamics.py": (0.43, "runs/dynamics/density.pvd"),  # meV/atom/ps
    "equation_of_state.py": (0.5, "runs/equation_of_state/curves.png"),  # %
    "long_range.py": (1e-3, "runs/long_range/errors.png"),  # share of the spread
    "reference_points.py": (190.0, None),  # meV/angstrom
    "vacancy.py": (2.6, "runs/vacancy/density.vtu"),  # meV
    "vacancy_density.py": (15.0, "runs/vacancy_density_quick/energy_errors.png"),  # meV
}
#: Those that train networks of their own; three others share that of ``_model.py``.
SEEDED = {"aluminium.py", "reference_points.py", "vacancy_density.py"}


def test_every_script_is_listed():
    scripts = {path.name for path in EXAMPLES.glob("*.py") if not path.name.startswith("_")}
    assert scripts == set(SCRIPTS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the scripts run: one for all, so that the quick model is trained once."""
    return tmp_path_factory.mktemp("examples")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::fedens.errors.ExtrapolationWarning")
@pytest.mark.parametrize("name", SCRIPTS)
def test_script_defends_its_number(name, folder, monkeypatch, training_seed, bounded):
    monkeypatch.chdir(folder)
    # python puts a script's own folder on the path, runpy does not
    monkeypatch.syspath_prepend(EXAMPLES)
    import _model

    quick = _model.QUICK.model_copy(update={"seed": training_seed})
    monkeypatch.setattr(_model, "QUICK", quick)
    limit, file = SCRIPTS[name]
    seed = {"seed": training_seed} if name in SEEDED else {}
    value = runpy.run_path(str(EXAMPLES / name))["main"](quick=True, **seed)
    assert value > 0
    bounded("returned", value, limit)
    assert file is None or (folder / file).is_file()


def test_configurations_are_valid():
    for path in EXAMPLES.glob("*.yaml"):
        assert load_job(path).name == path.stem


@pytest.mark.slow
def test_aluminium_configuration_in_small(tmp_path, training_seed, bounded):
    """The demo's own file with fewer and smaller structures and fewer steps."""
    text = (EXAMPLES / "aluminium.yaml").read_text()
    for old, new in {
        "seed: 0": f"seed: {training_seed}",
        "supercell: [2, 2, 2]": "supercell: [2, 1, 1]",
        "count: 24": "count: 6",
        "train_count: 12": "train_count: 4",
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
    limits = {
        "nmape_percent": 0.58,
        "energy_error_functional_mev_per_atom": 0.9,
        "force_mae_functional_mev_per_angstrom": 5.4,
    }
    for name, limit in limits.items():
        bounded(name, held_out[name]["mean"], limit)
