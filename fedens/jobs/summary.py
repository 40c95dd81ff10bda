"""What a run came to, for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from fedens.progress import Progress
from fedens.report.page import ReportTable
from fedens.report.sections import for_terminal


@dataclass(frozen=True)
class Summary:
    """The end of a run.

    Attributes:
        table: the numbers. sentences: below it.
        files: to open next, words -> path in the run's folder.
    """

    table: ReportTable
    sentences: Sequence[str] = ()
    files: Mapping[str, str] = field(default_factory=lambda: {"open next": "report.html"})

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """The summary that :func:`dataclasses.asdict` has taken apart."""
        return cls(ReportTable(**content["table"]), content["sentences"], content["files"])

    def show(self, failures: Mapping[str, str], folder: Path, progress: Progress) -> None:
        """Print it, with the structures of the run in a folder that were left out."""
        progress.console.print(for_terminal(self.table))
        for name, reason in failures.items():
            progress.say(f"left out: {name}: {reason}")
        for sentence in self.sentences:
            progress.say(sentence)
        for words, file in self.files.items():
            progress.say(f"{words}: {folder / file}")


def files_to_open(fields: bool) -> dict[str, str]:
    """The report and, where there are any, the fields of what was held out."""
    files = {"open next": "report.html"}
    return files | {"in ParaView": "fields/held_out.pvd"} if fields else files
