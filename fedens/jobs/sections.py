"""What a run has done, and from what: results by section, with digests of their inputs.

A section is done again when one of its inputs has changed, or a file that it wrote is missing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from fedens.errors import DatasetError
from fedens.files import write_atomically
from fedens.structure import Structure

SECTIONS = "sections.json"


def digest(value: Any) -> str:
    """SHA-256 of a value's canonical JSON: the same for the same content, wherever it came from."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Structure):
        return value.digest
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    raise TypeError(f"{type(value).__name__} has no canonical JSON")


class Sections:
    """The record of a run folder: ``sections.json``."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._records = _read(folder / SECTIONS)

    @property
    def names(self) -> list[str]:
        """Sections that have been done, in their order."""
        return list(self._records)

    def change(
        self, name: str, inputs: Mapping[str, Any], files: Sequence[str] = ()
    ) -> list[str] | None:
        """Why a section is to be done: the inputs that changed; none of them the first time.

        None where it is done: then :meth:`result` is what would come out again.
        """
        if name not in self._records:
            return []
        known = self._records[name]["inputs"]
        wanted = {part: digest(value) for part, value in inputs.items()}
        changed = [p for p in {**known, **wanted} if known.get(p) != wanted.get(p)]
        missing = [f"{file} is missing" for file in files if not (self.folder / file).exists()]
        return [*changed, *missing] or None

    def result(self, name: str) -> Any:
        """What a section came to, as JSON holds it; None where it has not been done."""
        return self._records.get(name, {}).get("result")

    def store(self, name: str, inputs: Mapping[str, Any], result: Any) -> Any:
        """Keep a section's result on disk; returns it as a later run will read it."""
        digests = {part: digest(value) for part, value in inputs.items()}
        # as JSON gives it back, so that a first run and one that goes on work with the same
        record = json.loads(json.dumps({"inputs": digests, "result": result}, default=_plain))
        self._records[name] = record
        write_atomically(self.folder / SECTIONS, json.dumps(self._records, indent=1))
        return record["result"]


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DatasetError(
            f"{path} is not JSON ({error}): delete it, and what it recorded is done again"
        ) from error
