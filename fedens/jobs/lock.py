"""One process at a time in a run folder: a file with its number and host."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fedens.errors import OutputError, RunLockedError
from fedens.files import write_atomically

LOCK = "lock.json"


def take_lock(folder: Path) -> None:
    """Make the folder this process's own; what a dead process of this host left is taken over.

    Raises:
        RunLockedError: another process is at work in the folder, or one of another host may be.
        OutputError: the folder cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be made: {error.strerror or error}") from error
    with _alone(folder):
        owner = lock_owner(folder)
        if owner is not None and owner != _this_process():
            raise RunLockedError(
                f"process {owner.get('process')} on {owner.get('host')} is at work in {folder}: "
                f"wait for it or stop it, or choose another folder with --output; if there is no "
                f"such process any more, delete {folder / LOCK}"
            )
        write_atomically(folder / LOCK, json.dumps(_this_process()))


def release_lock(folder: Path) -> None:
    """Leave the folder to others."""
    if folder.is_dir():
        with _alone(folder):
            if lock_owner(folder) == _this_process():
                (folder / LOCK).unlink()


def lock_owner(folder: Path) -> dict[str, Any] | None:
    """Process, its start and host of whoever is at work in a folder; None for nobody alive."""
    try:
        owner = json.loads((folder / LOCK).read_text())
    except (OSError, ValueError):
        return None
    dead = owner.get("host") == socket.gethostname() and owner != _process(owner.get("process"))
    return None if dead else owner


def _this_process() -> dict[str, Any]:
    return _process(os.getpid())


def _process(number: int) -> dict[str, Any]:
    """What a lock says of a process of this host; numbers are used again, starts are not."""
    start = ""
    with suppress(OSError):
        start = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[19]
    if not start and not _alive(number):
        start = "none"
    return {"process": number, "start": start, "host": socket.gethostname()}


def _alive(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Nobody else of this host reads and writes the lock meanwhile."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some file systems cannot
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
