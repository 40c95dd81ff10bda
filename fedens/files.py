"""Whole files or none: written under another name, then renamed. Any layer may import this."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from fedens.errors import OutputError


def write_atomically(path: str | Path, content: str | bytes | Callable[[Path], object]) -> Path:
    """Write a file so that it is there whole, or as it was before, even after a kill.

    The folder is made if it is missing.

    Args:
        path: where the file belongs.
        content: text, bytes, or a function that writes to the path it is given.

    Raises:
        OutputError: if the folder cannot be made or the file cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_and_rename(path, content)
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written: {error.strerror or error}; check permissions and free "
            "space, or choose another folder"
        ) from error
    return path


def _write_and_rename(path: Path, content: str | bytes | Callable[[Path], object]) -> None:
    # always the same name: what a killed writer left is overwritten by the next one
    temporary = path.with_name(f".{path.name}.partial")
    try:
        if callable(content):
            content(temporary)
        else:
            temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        _flush(temporary)
        os.replace(temporary, path)
        _flush(path.parent)
    finally:
        with suppress(OSError):
            temporary.unlink()


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
