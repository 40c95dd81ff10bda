"""Whole files or none: written under another name, then renamed. Any layer may import this."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from fedens.errors import OutputError


def write_atomically(path: str | Path, content: str | bytes | Callable[[Path], None]) -> Path:
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


def _write_and_rename(path: Path, content: str | bytes | Callable[[Path], None]) -> None:
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        if callable(content):
            content(temporary)
        else:
            temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        os.chmod(temporary, 0o666 & ~_umask())
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


def _umask() -> int:
    """The process' mask for new files, which ``mkstemp`` ignores."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
