"""Labels of many structures, one after another here or by worker processes of a Dask cluster.

Labels are pure functions of structure and labeller: which process makes them, and in what order,
changes nothing. A worker is given a structure and the labeller's description and hands back the
sample; the process that runs the job alone writes the data set. Another cluster than one of this
machine needs another :class:`distributed.Client` and nothing else.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from fedens.data.sample import Sample
from fedens.errors import ConvergenceError, SamplingError
from fedens.progress import Count
from fedens.reference.labeller import Labeller, StepReport, labeller_from_description
from fedens.structure import Structure

if TYPE_CHECKING:
    from distributed import Client, Future

#: How often a structure is tried whose worker process dies.
TRIES = 3

#: By name, structures and where a label goes on that was cut off.
Tasks = Mapping[str, tuple[Structure, Path]]

#: Name, and the sample or why there is none.
Outcome = tuple[str, Sample | str]


def outcomes_here(labeller: Labeller, tasks: Tasks, count: Count) -> Iterator[Outcome]:
    """Label in this process, in order; the note behind the bar is of the calculation at work.

    Raises:
        FedensError: what the labeller raises, except for failures of single structures.
    """
    for name, (structure, checkpoint) in tasks.items():
        report = _step_report(name, count)
        yield name, _sample_or_reason(labeller, structure, report, checkpoint)


def outcomes_of_workers(
    client: Client, workers: int, description: Mapping[str, Any], tasks: Tasks, count: Count
) -> Iterator[Outcome]:
    """Label by the workers of a cluster; outcomes come as they finish.

    A structure whose worker dies is tried again by another, :data:`TRIES` times in all.

    Args:
        workers: as many structures are handed out at a time.
        description: of the labeller, see :meth:`fedens.reference.labeller.Labeller.describe`.
        tasks: their checkpoints lie where the workers can write.

    Raises:
        FedensError: what the labeller raises, except for failures of single structures.
    """
    from distributed import as_completed

    waiting, at_work, done = iter(tasks.items()), {}, as_completed()

    def hand_out(most: int) -> None:
        for name, (structure, checkpoint) in islice(waiting, most):
            future = client.submit(_label, description, structure, checkpoint, pure=False)
            at_work[future.key] = name
            done.add(future)
        count(0, f"at work: {', '.join(at_work.values())}" if at_work else "")

    hand_out(workers)
    for future in done:
        name = at_work.pop(future.key)
        outcome = _outcome(future)
        hand_out(1)
        yield name, outcome


@contextmanager
def local_cluster(workers: int) -> Iterator[Client]:
    """Processes of one thread each on this machine; none of them outlives the context."""
    import dask
    from distributed import Client, LocalCluster

    settings = {
        "distributed.scheduler.allowed-failures": TRIES - 1,
        "distributed.logging": {"distributed": "critical"},  # what matters is said here
    }
    with (
        dask.config.set(settings),
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            memory_limit=None,  # the machine's; a share of it would end large calculations
            dashboard_address="127.0.0.1:0",  # any free port: several runs at a time
            silence_logs=logging.CRITICAL,
            preload=[*dask.config.get("distributed.worker.preload"), __name__],
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


def dask_setup(_: object) -> None:
    """Prepare a worker, which Dask does by this name: a terminal's Ctrl-C is the parent's."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _label(description: Mapping[str, Any], structure: Structure, checkpoint: Path) -> Sample | str:
    """The work of a worker."""
    torch.set_num_threads(1)  # here, for it holds for the calling thread alone
    return _sample_or_reason(labeller_from_description(description), structure, None, checkpoint)


def _sample_or_reason(
    labeller: Labeller, structure: Structure, report: StepReport | None, checkpoint: Path
) -> Sample | str:
    try:
        return labeller(structure, report, checkpoint)
    except (ConvergenceError, SamplingError) as error:
        return str(error)


def _outcome(future: Future[Sample | str]) -> Sample | str:
    from distributed import KilledWorker

    try:
        return future.result()
    except KilledWorker:
        return (
            f"its worker process died {TRIES} times, perhaps for lack of memory: to try again, "
            "delete failures.json and choose fewer workers"
        )


def _step_report(name: str, count: Count) -> StepReport:
    def report(step: int, _: float, residual: float) -> None:
        count(0, f"{name}, step {step}: residual {residual:.1e}")

    return report
