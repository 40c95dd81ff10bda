"""What a run came to, for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table

from fedens.progress import Progress


@dataclass(frozen=True)
class Summary:
    """The end of a run.

    Attributes:
        title, columns, rows: of a table; numbers get three digits, None a dash.
        sentences: below it.
        files: to open next, words -> path in the run's folder.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    sentences: Sequence[str] = ()
    files: Mapping[str, str] = field(default_factory=dict)


def show(summary: Summary, failures: Mapping[str, str], folder: Path, progress: Progress) -> None:
    """Print a summary of the run in a folder, and the structures that were left out."""
    table = Table(title=summary.title)
    for place, column in enumerate(summary.columns):
        words = any(isinstance(row[place], str) for row in summary.rows)
        table.add_column(column, justify="left" if words else "right")
    for row in summary.rows:
        table.add_row(*map(_cell, row))
    progress.console.print(table)
    for name, reason in failures.items():
        progress.say(f"left out: {name}: {reason}")
    for sentence in summary.sentences:
        progress.say(sentence)
    for words_for, file in summary.files.items():
        progress.say(f"{words_for}: {folder / file}")


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else f"{value:.3g}"
