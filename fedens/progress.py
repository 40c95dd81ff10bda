"""Progress bars with the time left, on a terminal or in plain lines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress


@dataclass(frozen=True)
class Advance:
    """How far a piece of work is.

    Attributes:
        task: what is done. done, total: of its steps. loss: of a training, now.
    """

    task: str
    done: int
    total: int
    loss: float | None = None


#: What long work calls as it goes on.
Report = Callable[[Advance], None]


def silent(_: Advance) -> None:
    """A report that says nothing."""


class Count(Protocol):
    """Counts items of a bar."""

    def __call__(self, done: int, note: str = "") -> None:
        """``done`` more items are done; the note stands behind the bar until the next call."""


class Progress:
    """Shows how far a run is; silent with ``quiet``."""

    def __init__(self, quiet: bool = False):
        self.console = Console(quiet=quiet)

    def say(self, text: str) -> None:
        """Print a line."""
        self.console.print(text, markup=False, soft_wrap=True)

    @contextmanager
    def stage(self, label: str, total: int) -> Iterator[Count]:
        """A bar of ``total`` items; yields what counts those that are done."""
        with self._bars() as bars:
            task = bars.add_task(label, total=total, note="")

            def count(done: int, note: str = "") -> None:
                bars.update(task, advance=done, note=note)

            yield count

    @contextmanager
    def reporter(self, label: str) -> Iterator[Report]:
        """A bar for every task that is reported."""
        with self._bars() as bars:
            tasks: dict[str, TaskID] = {}

            def report(state: Advance) -> None:
                name = f"{label}: {state.task}"
                if name not in tasks:
                    tasks[name] = bars.add_task(name, total=state.total, note="")
                note = "" if state.loss is None else f"loss {state.loss:.2e}"
                bars.update(tasks[name], completed=state.done, note=note)

            yield report

    def _bars(self) -> RichProgress:
        return RichProgress(
            TextColumn("{task.description:<40}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=self.console,
        )
