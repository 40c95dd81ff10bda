"""What a run came to, for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedens.progress import Progress
from fedens.report.page import ReportTable
from fedens.report.sections import for_terminal

REPORT, HELD_OUT_FIELDS = "report.html", "fields/held_out.pvd"
_TO_OPEN = {REPORT: "open next", HELD_OUT_FIELDS: "in ParaView"}


@dataclass(frozen=True)
class Summary:
    """The end of a run.

    Attributes:
        table: the numbers. sentences: below it. files: that the run has written.
    """

    table: ReportTable
    sentences: Sequence[str] = ()
    files: Sequence[str] = ()

    def show(self, failures: Mapping[str, str], folder: Path, progress: Progress) -> None:
        """Print it, with the structures left out of the run in a folder, and what to open next."""
        progress.console.print(for_terminal(self.table))
        for name, reason in failures.items():
            progress.say(f"left out: {name}: {reason}")
        for sentence in self.sentences:
            progress.say(sentence)
        for file, words in _TO_OPEN.items():
            if file in self.files:
                progress.say(f"{words}: {folder / file}")
