"""One self-contained HTML page: tables and pictures, nothing loaded from anywhere."""

from __future__ import annotations

import base64
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedens.errors import OutputError
from fedens.files import write_atomically

#: Significant digits of numbers that a table or list is given as floats.
DIGITS = 4


@dataclass(frozen=True)
class ReportTable:
    """A table.

    Attributes:
        title: heading; columns: their names; rows: one sequence of cells per row, where floats
            are shown with four significant digits and strings as they are, None as a dash.
        units: unit of each column (empty where there is none), or nothing.
        caption: a sentence under the table.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    units: Sequence[str] = ()
    caption: str = ""

    def __post_init__(self) -> None:
        width = len(self.columns)
        if self.units and len(self.units) != width:
            raise OutputError(f"table {self.title!r}: {len(self.units)} units, {width} columns")
        for row in self.rows:
            if len(row) != width:
                raise OutputError(
                    f"table {self.title!r}: a row of {len(row)} cells, {width} columns"
                )


@dataclass(frozen=True)
class ReportFigure:
    """A picture: PNG bytes (see :mod:`fedens.report.figures`) with title and caption.

    ``wide`` pictures take the page's whole width.
    """

    title: str
    png: bytes
    caption: str = ""
    wide: bool = False

    def __post_init__(self) -> None:
        if not self.png.startswith(b"\x89PNG"):
            raise OutputError(f"figure {self.title!r}: the picture is not a PNG file")

    @property
    def source(self) -> str:
        """The picture as a data URI."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode()


@dataclass(frozen=True)
class ReportContent:
    """What stands on the page, from top to bottom.

    Attributes:
        title, summary: heading, and a sentence or two under it.
        headline: the few numbers to see first: (name, value, unit).
        run: what was run, name -> value.
        figures, tables: pictures come before tables.
        notes: sentences at the end: what the numbers mean, files to open next.
    """

    title: str
    summary: str = ""
    headline: Sequence[tuple[str, Any, str]] = ()
    run: Mapping[str, Any] = field(default_factory=dict)
    figures: Sequence[ReportFigure] = ()
    tables: Sequence[ReportTable] = ()
    notes: Sequence[str] = ()


def write_report(path: str | Path, content: ReportContent) -> Path:
    """The page as one HTML file, readable on a phone, in print, in light and in dark.

    The same content gives the same text.

    Raises:
        OutputError: if the file cannot be written.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["shown"] = shown
    environment.tests["numeric"] = _is_number
    page = environment.get_template("report.html.j2").render(content=content)
    return write_atomically(path, page)


def shown(value: Any, digits: int = DIGITS) -> str:
    """A cell's text, with some significant digits.

    >>> shown(0.0123456), shown(12345), shown(12345.6), shown(1e-9), shown(None), shown("fcc")
    ('0.01235', '12345', '12346', '1e-09', '-', 'fcc')
    """
    if value is None:
        return "-"
    if not _is_number(value):
        return str(value)
    if isinstance(value, numbers.Integral):
        return str(int(value))
    number = float(value)
    return f"{number:.0f}" if 1e4 <= abs(number) < 1e9 else f"{number:.{digits}g}"


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)
