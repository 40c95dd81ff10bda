"""The engine of all jobs, with a toy job: folder, lock, sections, failures, signals."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import toy_job
import yaml
from typer.testing import CliRunner

from fedens.commands.cli import app
from fedens.commands.info import describe_path
from fedens.errors import ConfigurationError, FedensError, RunLockedError
from fedens.jobs.lock import LOCK, lock_owner, release_lock, take_lock
from fedens.jobs.registry import JOBS, load_job, open_run
from fedens.jobs.sections import Sections, digest
from fedens.progress import Progress
from fedens.structure import Structure

QUIET = Progress(quiet=True)


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    """The one line that makes the toy job known."""
    monkeypatch.setitem(JOBS, "toy", toy_job.REGISTRY_LINE)


@pytest.fixture
def toy(tmp_path):
    """Do a step of the toy job from the command line; returns what it prints, in one line."""

    def invoke(step="run", folder="out", **changes):
        path = tmp_path / "toy.yaml"
        path.write_text(yaml.safe_dump({"job": "toy", **changes}))
        arguments = [step, str(path), "--output", str(tmp_path / folder)]
        result = CliRunner().invoke(app, arguments)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return " ".join(result.output.split())

    return invoke


@pytest.fixture
def labelled(monkeypatch):
    """Structures that were labelled."""
    made, label = [], toy_job.ToyLabeller.__call__

    def counted(labeller, structure, *how):
        made.append(structure.formula)
        return label(labeller, structure, *how)

    monkeypatch.setattr(toy_job.ToyLabeller, "__call__", counted)
    return made


def results_in(folder):
    return json.loads((folder / "results.json").read_text())


def test_a_new_job_is_a_file_and_a_line(toy, tmp_path):
    output = toy()
    # three hydrogen atoms at (i, 2, 0.1)
    assert results_in(tmp_path / "out")["sum"] == pytest.approx(0 + 1 + 2 + 3 * 2.1)
    assert "9.3" in output
    assert (tmp_path / "out" / "config.yaml").is_file()
    assert not (tmp_path / "out" / LOCK).exists()


def test_steps_do_their_part(toy, tmp_path):
    folder = tmp_path / "out"
    assert f"reference data in {folder / 'data'}".replace("\n", "") in toy("generate")
    assert Sections(folder).names == ["reference data"]
    toy("train")
    assert Sections(folder).names == ["reference data", "sum"]
    assert not (folder / "results.json").exists()
    toy("evaluate")
    assert (folder / "results.json").is_file()


def test_labels_show_the_residual_of_their_steps(tmp_path, monkeypatch):
    notes = []

    @contextmanager
    def stage(*_):
        yield lambda _, note="": notes.append(note)

    monkeypatch.setattr(Progress, "stage", stage)
    with open_run(toy_job.ToyConfiguration(job="toy"), tmp_path / "out", QUIET) as run:
        run.generate()
    assert notes[:3] == ["", "0-H, step 3: residual 2.5e-01", ""]


def test_nothing_is_done_twice(toy, labelled):
    toy()
    assert len(labelled) == 4
    output = toy()
    assert len(labelled) == 4
    assert "reference data: 4 of 4 skipped" in output
    for section in ("sum", "results"):
        assert f"{section}: skipped, nothing it depends on has changed" in output
    assert "9.3" in output  # the summary is shown all the same


def test_what_depends_on_a_change_is_done_again_and_it_is_said_why(toy, tmp_path, labelled):
    toy()
    output = toy(factor=2.0)
    assert len(labelled) == 4
    assert "sum: done again (factor changed)" in output
    assert "results: done again (sum changed)" in output
    assert results_in(tmp_path / "out")["sum"] == pytest.approx(18.6)
    (tmp_path / "out" / "results.json").unlink()
    assert "results: done again (results.json is missing)" in toy(factor=2.0)
    assert (tmp_path / "out" / "results.json").is_file()


def test_name_and_device_change_no_result(toy):
    toy()
    output = toy(name="other", device="cpu")
    assert "sum: skipped" in output
    assert "results: done again (name changed)" in output  # a report may show it
    output = toy(name="other", device="auto", pause=0.001)
    assert "results: skipped" in output


def test_folder_of_other_data_is_refused(toy, tmp_path):
    toy()
    with pytest.raises(ConfigurationError, match=r"another configuration \(count differs\): choo"):
        toy(count=2)
    with pytest.raises(ConfigurationError, match=r"\(seed, count differ\): choose another folder"):
        toy(count=2, seed=1)
    (tmp_path / "other.yaml").write_text("{}")
    with pytest.raises(ConfigurationError, match=r"holds another run .*: choose another folder"):
        open_run(load_job(tmp_path / "other.yaml"), tmp_path / "out", QUIET)
    assert lock_owner(tmp_path / "out") is None


def test_structures_that_fail_are_listed_and_not_tried_again(toy, tmp_path, labelled):
    for _ in range(2):
        output = toy()
        assert "left out: 3-He: not converged: helium" in output
        assert labelled.count("He") == 1
    assert results_in(tmp_path / "out")["left_out"] == {"3-He": "not converged: helium"}


def test_a_sample_of_another_structure_is_labelled_again(tmp_path, labelled):
    run = open_run(toy_job.ToyConfiguration(), tmp_path, QUIET)
    run.generate()
    del labelled[:]
    moved = {"1-H": Structure(["H"], [[1.0, 2.0, 0.1 + 1e-12]])}
    run.label("moved", moved)
    assert labelled == ["H"]
    assert run.data["1-H"].structure.positions[0, 2] == moved["1-H"].positions[0, 2]
    run.label("the same", moved)
    assert labelled == ["H"]
    # a failure is one of that structure only
    run.label("moved", {"3-He": Structure(["H"], [[1.0, 2.0, 0.1]])})
    assert run.failures == {}


def test_samples_no_longer_asked_for_are_removed_and_others_kept(tmp_path):
    run = open_run(toy_job.ToyConfiguration(), tmp_path, QUIET)
    run.generate()
    run.data.add(run.labeller(Structure(["H"], [[0.0, 0.0, 9.0]])), "imported")
    run.generate_data({"0-H": Structure(["H"], [[0.0, 2.0, 0.1]])})
    assert run.data.names == ["0-H", "imported"]
    assert run.failures == {}


def test_digests_are_of_content():
    one = {"a": 1.0, "b": [1, 2]}
    assert digest(one) == digest({"b": (1, 2), "a": 1.0})
    assert digest(one) != digest(one | {"a": 1.0 + 1e-15})
    structure = Structure(["H", "H"], [[0, 0, 0], [0, 0, 1.4]])
    assert digest(structure) == digest(structure.replace(positions=np.array(structure.positions)))
    changes = {"numbers": [1, 2], "positions": structure.positions + 1e-14, "spin": 2, "charge": -1}
    changes |= {"cell": [9.0] * 3, "pbc": True, "occupancies": [1.0, 0.5]}
    for name, value in changes.items():
        others = {"cell": [9.0] * 3} if name == "pbc" else {}
        changed = structure.replace(**{name: value}, **others)
        assert digest(changed) != digest(structure.replace(**others)), name


def test_a_broken_record_is_named(toy, tmp_path):
    toy()
    (tmp_path / "out" / "sections.json").write_text("{")
    with pytest.raises(FedensError, match=r"sections.json is not JSON .*: delete it"):
        toy()


def test_info_says_what_a_run_folder_holds(toy, tmp_path):
    toy("generate")
    shown = describe_path(tmp_path / "out")
    assert (shown["job"], shown["name"], shown["samples"]) == ("toy", "toy", 3)
    assert shown["left out: 3-He"] == "not converged: helium"
    assert "not yet" in shown["report"]
    take_lock(tmp_path / "out")
    assert f"process {os.getpid()} on" in describe_path(tmp_path / "out")["at work"]
    with pytest.raises(FedensError, match="neither the folder of a run, nor a data set"):
        describe_path(tmp_path)


# --- several processes


def command(tmp_path, **changes):
    """A run of the toy job, a second for each structure, as a process."""
    path = tmp_path / "toy.yaml"
    path.write_text(yaml.safe_dump({"job": "toy", "count": 60, "pause": 1.0, **changes}))
    return [sys.executable, toy_job.__file__, "run", str(path), "-o", str(tmp_path / "out"), "-q"]


@pytest.fixture
def at_work(tmp_path):
    """A process that is labelling, with a sample done."""
    process = subprocess.Popen(
        command(tmp_path),
        stderr=subprocess.PIPE,
        text=True,
        # a shell's background job ignores Ctrl-C, and so would its children
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    data, end = tmp_path / "out" / "data", time.monotonic() + 60
    while not list(data.glob("*.h5")):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end
        time.sleep(0.05)
    yield process
    process.kill()
    process.communicate()


def test_a_second_process_is_refused_and_a_dead_ones_lock_taken_over(at_work, tmp_path, toy):
    expected = rf"process {at_work.pid} on {socket.gethostname()} is at work in"
    with pytest.raises(RunLockedError, match=expected):
        toy(count=60)
    second = subprocess.run(command(tmp_path), capture_output=True, text=True)
    assert second.returncode == 1
    assert "is at work in" in second.stderr
    assert "Traceback" not in second.stderr
    at_work.kill()
    at_work.wait()
    assert (tmp_path / "out" / LOCK).exists()
    done = len(list((tmp_path / "out" / "data").glob("*.h5")))
    assert f"reference data: {done} of 61 skipped" in toy(count=60)


def test_lock_of_another_host_is_respected(tmp_path):
    take_lock(tmp_path)
    take_lock(tmp_path)  # the same process again
    owner = json.loads((tmp_path / LOCK).read_text())
    (tmp_path / LOCK).write_text(json.dumps(owner | {"host": "elsewhere", "process": 1}))
    with pytest.raises(RunLockedError, match=rf"process 1 on elsewhere .*delete .*{LOCK}"):
        take_lock(tmp_path)
    release_lock(tmp_path)
    assert (tmp_path / LOCK).exists()
    # the same number, but started at another time: another process, which has ended
    (tmp_path / LOCK).write_text(json.dumps(owner | {"start": "1"}))
    take_lock(tmp_path)
    assert json.loads((tmp_path / LOCK).read_text()) == owner
    release_lock(tmp_path)
    assert not (tmp_path / LOCK).exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_a_run_with_a_line_and_it_goes_on(at_work, tmp_path, toy, number, code):
    at_work.send_signal(number)
    _, errors = at_work.communicate(timeout=60)
    assert at_work.returncode == code
    (line,) = errors.strip().splitlines()
    assert line.startswith("stopped; what is done is kept, and the same command goes on")
    assert str(Path("out")) in line
    assert not (tmp_path / "out" / LOCK).exists()
    done = len(list((tmp_path / "out" / "data").glob("*.h5")))
    assert f"reference data: {done} of 61 skipped" in toy(count=60)
