"""``fedens run`` and its steps: any job of the registry, in its folder."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from fedens.jobs.registry import load_job, open_run
from fedens.progress import Progress


class Terminated(KeyboardInterrupt):
    """The process was asked to end, by SIGTERM."""


def run_job(
    config: Path,
    output: Path | None,
    device: str | None,
    seed: int | None,
    workers: int | None,
    quiet: bool,
    step: str,
) -> None:
    """A step of a job: ``generate``, ``train``, ``evaluate``, or ``do``, all of them.

    Args:
        config: its configuration; device, seed and workers replace the configuration's.
        output: the run's folder, default ``runs/<name>``.

    Raises:
        FedensError: what the job raises, see :class:`fedens.jobs.run.Run`.
        typer.Exit: 130 after SIGINT, 143 after SIGTERM.
    """
    progress = Progress(quiet)
    with _stopping_in_a_line():
        configuration = load_job(config, {"device": device, "seed": seed, "workers": workers})
        with open_run(configuration, output, progress) as run:
            getattr(run, step)()
            if step in run.leaves:
                words, place = run.leaves[step]
                progress.say(f"{words} in {run.folder / place}")


@contextmanager
def _stopping_in_a_line() -> Iterator[None]:
    """SIGINT and SIGTERM end what is done here with a line about how to go on."""

    def terminate(*_: object) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    except KeyboardInterrupt as stop:
        words = "stopped; what is done is kept, and the same command goes on from there"
        print(f"\n{words}: {' '.join(sys.argv)}", file=sys.stderr)
        raise typer.Exit(143 if isinstance(stop, Terminated) else 130) from None
    finally:
        signal.signal(signal.SIGTERM, before)
