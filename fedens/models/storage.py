"""Model folders: weights as safetensors, the rest as JSON; reading executes nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from fedens.errors import ModelError
from fedens.files import write_atomically

SCHEMA_VERSION = 4
WEIGHTS_FILE, DESCRIPTION_FILE = "weights.safetensors", "model.json"


def write_model(path: Path, tensors: Mapping[str, Tensor], description: dict[str, Any]) -> None:
    """Write the two files of a model folder.

    Raises:
        OutputError: when the folder cannot be written.
    """
    kept = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_atomically(path / WEIGHTS_FILE, lambda temporary: save_file(kept, temporary))
    text = json.dumps({"schema_version": SCHEMA_VERSION, **description}, indent=1)
    write_atomically(path / DESCRIPTION_FILE, text)


def read_model(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and description of a model folder.

    Raises:
        ModelError: missing or broken files, another schema.
    """
    description, weights = _read_description(path / DESCRIPTION_FILE), path / WEIGHTS_FILE
    if not weights.is_file():
        raise ModelError(f"no weights in {path}: {weights.name} is missing")
    try:
        return load_file(weights), description
    except SafetensorError as error:
        raise ModelError(f"{weights} is not a safetensors file ({error}): truncated?") from error


def _read_description(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ModelError(f"no model in {path.parent}: {path.name} is missing")
    try:
        description = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{path} is not JSON ({error}): truncated or not a model") from error
    version = description.get("schema_version") if isinstance(description, dict) else None
    if not isinstance(version, int):
        raise ModelError(f"{path} has no schema version: not a fedens model")
    if version != SCHEMA_VERSION:
        advice = "install a newer fedens" if version > SCHEMA_VERSION else "train it again"
        raise ModelError(
            f"{path} has schema version {version}, this fedens reads {SCHEMA_VERSION}: {advice}"
        )
    return description
