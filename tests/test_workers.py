"""Labels by worker processes (fedens/jobs/labelling.py): the same data, and processes that die."""

import os
import signal
import subprocess
import sys
import time

import dask
import distributed  # noqa: F401  its defaults are there before a test changes some
import h5py
import psutil
import pytest
import toy_job
import yaml

from fedens.errors import FunctionalError
from fedens.jobs.labelling import TRIES
from fedens.jobs.registry import JOBS, open_run
from fedens.progress import Progress
from fedens.structure import Structure

#: Workers start like any Python: they import torch, and that takes seconds.
pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    """The toy job is known here and in the workers."""
    monkeypatch.setitem(JOBS, "toy", toy_job.REGISTRY_LINE)
    with dask.config.set({"distributed.worker.preload": ["toy_job"]}):
        yield


def structures(symbols):
    """A single atom each."""
    return {f"{i}-{s}": Structure([s], [[i, 2.0, 0.1]]) for i, s in enumerate(symbols)}


def workers_of(number):
    """Processes that a process has started for Python's multiprocessing, without its helper."""
    children = psutil.Process(number).children(recursive=True)
    return [child for child in children if "spawn_main" in " ".join(child.cmdline())]


def run_in(folder, workers):
    configuration = toy_job.ToyConfiguration(workers=workers)
    return open_run(configuration, folder, Progress(quiet=True))


def contents(folder):
    """Files of a run by name; of samples, the checksum of all that they hold."""
    shown = {}
    for path in folder.rglob("*.*"):
        shown[path.relative_to(folder)] = path.read_bytes()
        if path.suffix == ".h5":
            with h5py.File(path) as file:
                shown[path.relative_to(folder)] = file.attrs["checksum"]
    return shown


def test_workers_make_the_same_data_as_one_process(tmp_path):
    for workers in (1, 3):
        folder = tmp_path / str(workers)
        # several threads would be a worker's default then
        with dask.config.set({"distributed.nanny.pre-spawn-environ.OMP_NUM_THREADS": 4}):
            failed = run_in(folder, workers).label("toy", structures(["B", "H", "He", "H", "H"]))
        assert failed == {"0-B": "no sampling: boron", "2-He": "not converged: helium"}
        (folder / "config.yaml").unlink()  # says how many workers
    assert contents(tmp_path / "1") == contents(tmp_path / "3")


def test_a_structure_whose_worker_dies_is_tried_again_and_then_given_up(tmp_path):
    run = run_in(tmp_path, 2)
    # lithium kills one worker and goes on from its checkpoint, beryllium kills all that try it
    assert run.label("toy", structures(["Li", "H"])) == {}
    failed = run.label("toy", structures(["Li", "H", "Be", "H", "H"]))
    assert run.data.names == ["0-Li", "1-H", "3-H", "4-H"]
    assert list(failed) == ["2-Be"]
    assert failed["2-Be"].startswith(f"its worker process died {TRIES} times")
    assert not (tmp_path / "unfinished").exists()


def test_other_errors_of_a_worker_end_the_run(tmp_path, capfd):
    run = run_in(tmp_path, 2)
    with pytest.raises(FunctionalError, match="no functional: carbon"):
        run.label("toy", structures(["H", "C"]))
    assert workers_of(os.getpid()) == []
    assert capfd.readouterr().err == ""


@pytest.fixture
def at_work(tmp_path):
    """A process with two workers that are labelling, with a sample done."""
    path, data = tmp_path / "toy.yaml", tmp_path / "out" / "data"
    path.write_text(yaml.safe_dump({"job": "toy", "count": 60, "pause": 1.0}))
    arguments = ["run", str(path), "-o", str(tmp_path / "out"), "-q", "--workers", "2"]
    process = subprocess.Popen(
        [sys.executable, toy_job.__file__, *arguments],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    end = time.monotonic() + 120
    while not list(data.glob("*.h5")):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end
        time.sleep(0.05)
    yield process
    process.kill()
    process.communicate()


@pytest.mark.parametrize(
    ("stop", "number", "code"),
    [
        (os.killpg, signal.SIGINT, 130),  # as a terminal does
        (os.kill, signal.SIGTERM, 143),
        (os.kill, signal.SIGKILL, -signal.SIGKILL),
    ],
)
def test_no_worker_outlives_its_run_and_finished_samples_are_kept(
    at_work, tmp_path, stop, number, code
):
    workers = workers_of(at_work.pid)
    assert len(workers) == 2
    time.sleep(0.3)  # it waits for its workers then, as it does nearly always
    stop(at_work.pid, number)
    _, errors = at_work.communicate(timeout=60)
    assert at_work.returncode == code, errors
    if number != signal.SIGKILL:
        assert "Traceback" not in errors
        (line,) = errors.strip().splitlines()
        assert line.startswith("stopped; what is done is kept, and the same command goes on")
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert alive == []
    run = open_run(toy_job.ToyConfiguration(count=60), tmp_path / "out", Progress(quiet=True))
    names = run.data.names
    assert 1 <= len(names) < 60
    assert all(run.data[name].converged for name in names)
