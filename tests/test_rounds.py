"""Rounds of active learning on a small scale, through the command line and resumed."""

import json

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.io import write
from safetensors.torch import load_file
from test_crystals_run import SMALL, configured, run_of, with_labeller
from typer.testing import CliRunner

import fedens.jobs.crystals as crystals
from fedens import Dataset, Predictor
from fedens.commands.cli import app
from fedens.errors import ConvergenceError, StructureError
from fedens.jobs.crystals import is_added
from fedens.jobs.registry import load_job, open_run
from fedens.jobs.rounds import energy_uncertainty, most_uncertain
from fedens.jobs.sections import Sections
from fedens.progress import Progress

ROUNDS = {
    "training": SMALL["training"] | {"steps": 60, "learning_curve": []},
    "rounds": {"count": 2, "add": 1, "candidates": 3, "steps": 30},
    "output": {"fields": False, "figures": False},
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rounds")
    arguments = ["run", str(configured(folder, **ROUNDS)), "--output", str(folder / "out")]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    return folder / "out"


@pytest.fixture
def counted(monkeypatch):
    """What is labelled and trained from now on; ``stop_at`` kills the run at that training."""

    class Counted:
        labelled = 0
        trained = 0
        stop_at = None

    train = crystals.train

    def counted_label(labeller, structure):
        Counted.labelled += 1
        return labeller(structure)

    def counted_train(*arguments):
        if Counted.stop_at == Counted.trained:
            raise KeyboardInterrupt
        Counted.trained += 1
        return train(*arguments)

    with_labeller(monkeypatch, counted_label)
    monkeypatch.setattr(crystals, "train", counted_train)
    return Counted


def metrics_of(folder):
    return json.loads((folder / "metrics.json").read_text())


def uncertainties_of(folder, number):
    prefix, sections = "uncertainty of ", Sections(folder)
    names = [name for name in sections.names if name.startswith(f"{prefix}round{number}-")]
    return {name.removeprefix(prefix): sections.result(name) for name in names}


@pytest.mark.slow
def test_each_round_adds_the_most_uncertain_of_new_structures(finished):
    rows = metrics_of(finished)["rounds"]
    assert [row["structures"] for row in rows] == [3, 4, 5]
    assert rows[0]["added"] == []
    places = ([5, 6, 7], [8, 9, 10])
    for number, row in enumerate(rows[1:], start=1):
        uncertainties = uncertainties_of(finished, number)
        assert sorted(int(name.split("-")[1]) for name in uncertainties) == places[number - 1]
        assert row["added"] == [max(uncertainties, key=uncertainties.get)]
        assert row["added"][0].startswith(f"round{number}-")
        mean = row["mean_candidate_uncertainty_mev_per_atom"]
        assert mean == pytest.approx(np.mean(list(uncertainties.values())))
    data = Dataset.open(finished / "data")
    assert len(data) == 7
    assert set(rows[1]["added"] + rows[2]["added"]) < set(data.names)


@pytest.mark.slow
def test_held_out_structures_are_those_of_a_run_without_rounds(finished, tmp_path):
    metrics = metrics_of(finished)
    plain = run_of(tmp_path, **(ROUNDS | {"rounds": {"count": 0}}))
    plain.generate()
    training, held_out = plain.split
    assert metrics["held_out_structures"] == held_out
    added = [name for row in metrics["rounds"] for name in row["added"]]
    assert metrics["training_structures"] == training + added
    assert not set(metrics["training_structures"]) & set(held_out)
    assert len(metrics["training_structures"]) == 5


@pytest.mark.slow
def test_last_model_is_the_runs_and_the_report_shows_the_rounds(finished):
    last, model = (Predictor.load(finished / name) for name in ("rounds/2", "model"))
    assert model.provenance == last.provenance
    assert model.provenance["n_samples"] == 5
    assert model.history["step"][-1] == 60 + 2 * 30
    first = Predictor.load(finished / "rounds/0")
    torch.testing.assert_close(model.scaling.mean, first.scaling.mean)
    torch.testing.assert_close(model.target_scales, first.target_scales)
    page = (finished / "report.html").read_text()
    assert "Active learning" in page
    row = metrics_of(finished)["rounds"][2]
    for key in ("mean_candidate_uncertainty_mev_per_atom", "nmape_percent"):
        assert f"{row[key]:.4g}" in page
    evaluated = metrics_of(finished)["held_out"]["nmape_percent"]["mean"]
    assert row["nmape_percent"] == pytest.approx(evaluated)


@pytest.mark.slow
def test_second_run_repeats_nothing(finished, counted):
    before = metrics_of(finished)
    config = finished.parent / "small.yaml"
    arguments = ["run", str(config), "-o", str(finished), "-q"]
    assert CliRunner().invoke(app, arguments, catch_exceptions=False).exit_code == 0
    assert (counted.labelled, counted.trained) == (0, 0)
    assert metrics_of(finished)["rounds"] == before["rounds"]


@pytest.mark.slow
@pytest.mark.parametrize("killed_at", [1, 2])
def test_run_killed_in_a_round_goes_on_there(finished, tmp_path, counted, killed_at):
    """After the structures of round ``killed_at`` are labelled, before it is trained."""
    counted.stop_at = killed_at
    run = run_of(tmp_path, **ROUNDS)
    run.generate()
    with pytest.raises(KeyboardInterrupt):
        run.train()
    assert (counted.labelled, counted.trained) == (5 + killed_at, killed_at)
    counted.stop_at = None
    run = run_of(tmp_path, **ROUNDS)
    run.generate()
    run.train()
    assert (counted.labelled, counted.trained) == (7, 3)
    assert len(run.data) == 7
    for number in (1, 2):
        assert uncertainties_of(run.folder, number) == pytest.approx(
            uncertainties_of(finished, number), rel=1e-3
        )
    weights, expected = (
        load_file(folder / "model" / "weights.safetensors") for folder in (run.folder, finished)
    )
    for name, tensor in expected.items():
        torch.testing.assert_close(weights[name], tensor, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_rounds_begin_with_the_model_of_a_run_without(tmp_path, counted):
    run = run_of(tmp_path, **(ROUNDS | {"rounds": {"count": 0}}))
    run.generate()
    run.train()
    assert counted.trained == 1
    assert not (run.folder / "rounds").exists()
    longer = run_of(tmp_path, **(ROUNDS | {"rounds": ROUNDS["rounds"] | {"count": 1}}))
    assert longer.train().provenance["n_samples"] == 4
    assert counted.trained == 2
    run_of(tmp_path, **ROUNDS).train()
    assert counted.trained == 3


def test_only_what_a_model_depends_on_has_it_trained_again(tmp_path, counted, capsys):
    def trained(**training):
        path = configured(tmp_path, training=ROUNDS["training"] | {"steps": 5} | training)
        run = open_run(load_job(path), tmp_path / "out", Progress())
        run.generate()
        run.train()
        return counted.trained

    assert trained() == 1
    assert trained(checkpoint_every=3) == 1
    assert "model is already trained" in capsys.readouterr().out
    assert trained(steps=6) == 2
    assert "trained again (settings changed)" in capsys.readouterr().out
    assert trained(steps=6, learning_curve=[1]) == 2


def test_candidates_that_do_not_converge_are_left_out(tmp_path, monkeypatch):
    run = run_of(tmp_path, **(ROUNDS | {"rounds": ROUNDS["rounds"] | {"count": 1, "add": 2}}))
    run.generate()
    failed = []

    def failing_once(labeller, structure):
        if not failed:
            failed.append(structure)
            raise ConvergenceError("not converged: a trial")
        return labeller(structure)

    with_labeller(monkeypatch, failing_once)
    assert run.train().provenance["n_samples"] == 4
    assert list(run.failures.values()) == ["not converged: a trial"]


def test_most_uncertain():
    uncertainties = {"a": 0.2, "b": 0.9, "c": 0.1, "d": 0.9, "e": 0.5}
    assert most_uncertain(uncertainties, 3) == ["b", "d", "e"]


def cells(amplitudes, path):
    """Cells of four atoms, each displaced by its amplitude (angstrom)."""
    images = [bulk("Al", "fcc", a=4.05, cubic=True) for _ in amplitudes]
    for seed, (atoms, amplitude) in enumerate(zip(images, amplitudes, strict=True)):
        atoms.rattle(amplitude, seed=seed)
    write(path, images)


@pytest.mark.slow
def test_the_one_cell_unlike_the_training_is_chosen(tmp_path, training_seed, bounded):
    """Of the structures that a file has left over it is neither the first nor the last."""
    cells([0.05, 0.06, 0.07, 0.05, 0.05, 0.3, 0.06], tmp_path / "cells.xyz")
    changes = {"structures": {"file": "cells.xyz", "index": ":4"}}
    changes["rounds"] = ROUNDS["rounds"] | {"count": 1}
    run = run_of(tmp_path, **(ROUNDS | changes), seed=training_seed)
    run.generate()
    run.train()
    assert [name for name in run.data.names if is_added(name)] == ["round1-0005-Al4"]
    first = Predictor.load(run.folder / "rounds" / "0")
    sample = run.data["round1-0005-Al4"]
    actual = run.mean_errors(first, ["round1-0005-Al4"])["energy_error_functional_mev_per_atom"]
    estimate = energy_uncertainty(first, sample.structure)
    bounded("relative error of the uncertainty", abs(estimate / actual - 1), 0.08)
    calm = run.mean_errors(first, run.split[1])["energy_error_functional_mev_per_atom"]
    bounded("error of calm cells over its error", calm / actual, 0.6)


def test_file_without_structures_to_spare_is_refused_at_once(tmp_path):
    cells([0.05] * 6, tmp_path / "cells.xyz")
    changes = {"structures": {"file": "cells.xyz"}}
    with pytest.raises(StructureError, match=r"has 0 structures besides.*':'.*6 further ones"):
        run_of(tmp_path, **(ROUNDS | changes)).generate()
    assert len(run_of(tmp_path, **(ROUNDS | changes)).data) == 0
