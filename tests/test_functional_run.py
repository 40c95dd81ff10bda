"""The job that learns a kinetic functional, in small: labelled, trained, compared, gone on with."""

import json
import shutil
import sys

import numpy as np
import pytest
import yaml
from ase.io import read, write
from typer.testing import CliRunner

from fedens import Calculator, Dataset
from fedens.commands.cli import app
from fedens.commands.info import describe_path
from fedens.configuration.functional_training import OtherCodeOptions
from fedens.errors import ConfigurationError, ConvergenceError, DatasetError, ModelError
from fedens.jobs import functional_answers
from fedens.jobs.functional_training import in_proportion
from fedens.jobs.other_code import learn_elsewhere
from fedens.jobs.registry import load_job, open_run
from fedens.models.base import Model
from fedens.progress import Progress

QUIET = Progress(quiet=True)
CELLS = {"cell": "tetragonal", "supercell": [1, 1, 1], "displacement": [0.05, 0.2]}
ALUMINIUM = {"kind": "gth_local", "valence": 3, "r_loc": 0.7473, "c1": 4.9546, "c2": -0.8993}
GMP = {"gmp": {"widths": [1.0, 1.4], "max_order": 1}}
SMALL = {
    "job": "functional",
    "structures": [
        {**CELLS, "count": 4, "vacancy_fraction": 0.0},
        {**CELLS, "count": 2, "vacancy_fraction": 1.0},
    ],
    "larger": [{**CELLS, "supercell": [1, 1, 2], "count": 1, "vacancy_fraction": 1.0}],
    "theory": {
        "kind": "kohn_sham",
        "xc": "lda_pz",
        "pseudopotentials": {"Al": ALUMINIUM},
        "kspacing": 0.4,
        "cutoff": 4.0,
        "residual_tolerance": 1e-4,
    },
    "space": {"order": 6},
    "training": {
        "train_count": 3,
        "degree": 1,
        "model_potentials": {"separable": 2, "planar": 1},
        "correction": GMP,
        "direct": {**GMP, "hidden": [8], "steps": 20},
    },
    "comparison": {"learning_curve": {"sizes": [1, 3]}},
}
METHODS = {"wang_teter", "wgc", "lkt", "line", "direct", "delta", "learned", "learned_delta"}
#: A code that has learned nothing but the mean energy per atom.
OTHER_CODE = """
import json, sys
import ase.io
import numpy as np
task = json.load(sys.stdin)
training = ase.io.read(task["training_file"], index=":")
mean = np.mean([atoms.info["REF_energy"] / len(atoms) for atoms in training])
cells = ase.io.read(task["held_out_file"], index=":")
answer = {
    "energies_ev": [mean * len(atoms) for atoms in cells],
    "forces_ev_per_angstrom": [np.zeros((len(atoms), 3)).tolist() for atoms in cells],
    "prediction_wall_seconds": 0.5,
}
open(sys.argv[1], "w").write(json.dumps(answer))
"""


def configured(folder, **changes):
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(SMALL | changes))
    return path


def open_small(folder, **changes):
    return open_run(load_job(configured(folder, **changes)), folder / "out", QUIET)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("functional")
    (folder / "other.py").write_text(OTHER_CODE)
    other = {"python": sys.executable, "script": str(folder / "other.py")}
    comparison = SMALL["comparison"] | {"mace": other}
    arguments = ["run", str(configured(folder, comparison=comparison)), "-o", str(folder / "out")]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    return folder / "out", result.output


@pytest.fixture(scope="module")
def metrics(finished):
    folder, _ = finished
    return json.loads((folder / "metrics.json").read_text())


@pytest.mark.slow
def test_run_leaves_everything_behind(finished):
    folder, output = finished
    names = Dataset.open(folder / "data").names
    assert [name.split("-")[0] for name in names] == ["cells0"] * 4 + ["cells1"] * 2 + ["larger0"]
    assert {path.name for path in (folder / "models").iterdir()} == {
        "direct",
        "delta",
        "learned_delta",
    }
    assert sorted(path.suffix for path in (folder / "fields").iterdir()) == [
        ".pvd",
        *[".vtp"] * 3,
        *[".vtu"] * 3,
    ]
    assert "report.html" in output.replace("\n", "")
    assert "larger cells, learned functional" in output


@pytest.mark.slow
def test_every_method_is_compared_on_every_cell(metrics):
    assert set(metrics["held_out"]) == set(metrics["larger"]) == METHODS | {"mace"}
    assert {found["cells"] for found in metrics["held_out"].values()} == {3}
    assert {found["cells"] for found in metrics["larger"].values()} == {1}
    trained = metrics["training_structures"]
    assert sorted(name[:6] for name in trained) == ["cells0", "cells0", "cells1"]
    assert not set(trained) & {row["name"] for row in metrics["per_structure"]}


@pytest.mark.slow
def test_methods_say_what_they_are(metrics):
    """Density and energy of the line are Wang-Teter's and better than its own; MACE's none."""
    found = metrics["held_out"]
    for kind in ("held_out", "larger"):
        density = {m: metrics[kind][m]["nmape_percent"] for m in METHODS}
        assert density["line"] == density["wang_teter"] == density["delta"]
        assert density["learned"] == density["learned_delta"]
        assert density["direct"] is None
    assert found["line"]["energy_sd_mev_per_atom"] < found["wang_teter"]["energy_sd_mev_per_atom"]
    assert found["mace"]["call_seconds"] == 0.5
    spreads = [
        row["force_spread_reference_mev_per_angstrom"] >= row["force_mae_mev_per_angstrom"]
        for row in metrics["per_structure"]
        if row["method"] == "mace"
    ]
    assert all(spreads)


@pytest.mark.slow
def test_learning_curve_has_every_size_and_learning_method(metrics):
    rows = metrics["learning_curve"]
    assert {row["method"] for row in rows} == METHODS - {"wang_teter", "wgc", "lkt", "line"}
    assert [(row["structures"], row["draw"]) for row in rows] == [(1, 0)] * 4 + [(3, 0)] * 4
    for row in rows[4:]:  # all cells: the models of the run
        whole = metrics["held_out"][row["method"]]["force_mae_mev_per_angstrom"]
        assert row["force_mae_mev_per_angstrom"] == pytest.approx(whole, rel=1e-6)


@pytest.mark.slow
def test_report_shows_the_numbers_of_the_metrics(finished, metrics):
    folder, _ = finished
    page = (folder / "report.html").read_text()
    for kind in ("held_out", "larger"):
        for key in ("force_mae_mev_per_angstrom", "nmape_percent"):
            assert f"{metrics[kind]['learned'][key]:.4g}" in page
    assert "Learning curve" in page
    assert "conditional" in page
    assert "://" not in page  # pictures in base64 have no colon


@pytest.mark.slow
def test_model_of_the_run_predicts(finished, tmp_path):
    folder, _ = finished
    sample = Dataset.open(folder / "data")["larger0-0000-Al3"]
    write(tmp_path / "in.xyz", sample.structure.to_ase())
    arguments = ["predict", str(tmp_path / "in.xyz"), "--model", str(folder / "model")]
    arguments += ["--out", str(tmp_path / "out.xyz"), "--fields"]
    assert CliRunner().invoke(app, arguments, catch_exceptions=False).exit_code == 0
    atoms = read(tmp_path / "out.xyz")
    expected = Calculator(folder / "model").get_potential_energy(sample.structure.to_ase())
    assert atoms.get_potential_energy() == pytest.approx(expected, abs=1e-6)
    assert len(list((tmp_path / "out").glob("*.vtu"))) == 1
    assert describe_path(folder)["job"] == "functional"
    assert "functional" in describe_path(folder / "model")


@pytest.mark.slow
def test_second_run_repeats_nothing(finished):
    folder, _ = finished
    files = [p for p in folder.rglob("*") if p.suffix in (".h5", ".safetensors", ".html", ".vtu")]
    before = [file.stat().st_mtime_ns for file in files]
    with open_run(load_job(folder / "config.yaml"), folder, QUIET) as run:
        run.do()
    assert len(files) == 18
    assert [file.stat().st_mtime_ns for file in files] == before


@pytest.mark.slow
def test_a_comparison_that_was_cut_off_goes_on(finished, tmp_path, monkeypatch):
    folder = shutil.copytree(finished[0], tmp_path / "out")
    compared = []
    compare = functional_answers.compare

    def counted(answer, sample):
        if len(compared) == 4:
            raise KeyboardInterrupt
        compared.append(sample.structure.formula)
        return compare(answer, sample)

    changed = load_job(folder / "config.yaml", {"solver": {"residual_tolerance": 2e-6}})
    monkeypatch.setattr(functional_answers, "compare", counted)
    with pytest.raises(KeyboardInterrupt), open_run(changed, folder, QUIET) as run:
        run.rows(run.train())
    monkeypatch.setattr(functional_answers, "compare", lambda *_: {"again": True})
    with open_run(changed, folder, QUIET) as run:
        rows = run.rows(run.train())
    assert ["again" in row for row in rows[:5]] == [False] * 4 + [True]


@pytest.mark.slow
def test_cells_that_do_not_converge_are_rows_with_a_reason(finished, monkeypatch):
    folder, _ = finished

    def runs_away(*_):
        raise ConvergenceError("it runs away")

    monkeypatch.setattr(functional_answers, "model_answer", runs_away)
    with open_run(load_job(folder / "config.yaml"), folder, QUIET) as run:
        models = {"learned": Model.load(folder / "model")}
        assert run.row("learned", run.larger[0], models) == {"failure": "it runs away"}


def test_missing_cells_are_named(tmp_path):
    with open_small(tmp_path) as run, pytest.raises(DatasetError, match="holds 0 small cells"):
        run.train()


def test_larger_cells_may_be_added_later_and_small_ones_not(tmp_path):
    with open_small(tmp_path):
        pass
    with open_small(tmp_path, larger=[]):
        pass
    fewer = [{**CELLS, "count": 8}]
    with pytest.raises(ConfigurationError, match="structures differs"):
        open_small(tmp_path, structures=fewer)


@pytest.mark.parametrize("size", [1, 3, 6, 9, 12])
def test_every_beginning_holds_its_share_of_each_source(size):
    names = [f"cells0-{i:04d}-Al4" for i in range(9)] + [f"cells1-{i:04d}-Al3" for i in range(3)]
    mixed = in_proportion(names, seed=0)
    assert sorted(mixed) == names
    assert sum(name.startswith("cells1") for name in mixed[:size]) == round(size / 4 - 0.01)
    drawn = np.array([in_proportion(names, seed) for seed in range(8)])
    assert len({tuple(order) for order in drawn.tolist()}) == 8


def test_model_potentials_are_made_again_only_where_their_settings_change(tmp_path):
    def checksums(densities, planar):
        models = {"separable": 0, "planar": planar, "densities": densities}
        training = SMALL["training"] | {"model_potentials": models}
        with open_small(tmp_path, training=training) as run:
            labels = run.model_potentials
            n0 = run.configuration.mean_density
            over = [s.number_of_electrons / s.structure.volume / n0 for s in labels]
            assert all(densities[0] <= value <= densities[1] for value in over)
        index = Dataset.open(tmp_path / "out" / "model_potentials").index
        return [entry["checksum"] for entry in index.values()]

    one = checksums([0.8, 1.2], 1)
    two = checksums([0.8, 1.2], 2)
    assert two[0] == one[0]
    changed = checksums([1.3, 1.4], 2)
    assert not set(changed) & set(two)


def test_another_code_that_fails_is_told_with_its_log(tmp_path):
    (tmp_path / "broken.py").write_text("raise SystemExit('no such model')")
    options = OtherCodeOptions(python=sys.executable, script=str(tmp_path / "broken.py"))
    with pytest.raises(ModelError, match="no such model"):
        learn_elsewhere(options, [], [], 0, tmp_path / "log")
