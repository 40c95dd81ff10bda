"""Progress bars with the time left, on a terminal or in plain lines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

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


class Progress:
    """Shows how far a run is; silent with ``quiet``."""

    def __init__(self, quiet: bool = False):
        self.console = Console(quiet=quiet)

    def say(self, text: str) -> None:
        """Print a line."""
        self.console.print(text, markup=False, soft_wrap=True)

    @contextmanager
    def stage(self, label: str, total: int) -> Iterator[Callable[[int], None]]:
        """A bar of ``total`` items; yields a function to call with how many were just done."""
        with self._bars() as bars:
            task = bars.add_task(label, total=total, note="")
            yield lambda n: bars.advance(task, n)

    @contextmanager
    def reporter(self, label: str) -> Iterator[Callable[[dict[str, Any]], None]]:
        """Bars for the reports of :func:`fedens.models.training.train`."""
        with self._bars() as bars:
            tasks: dict[str, TaskID] = {}

            def report(state: dict[str, Any]) -> None:
                name = f"{label}: {state.get('network', state['stage'])}"
                if name not in tasks:
                    tasks[name] = bars.add_task(name, total=state["total"], note="")
                loss = f"loss {state['loss']:.2e}" if "loss" in state else ""
                bars.update(tasks[name], completed=state["done"], note=loss)

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
