"""Models of any kind, by what their folder says they are."""

from __future__ import annotations

from pathlib import Path

import torch

from fedens.models.molecular_model import KIND, MolecularModel
from fedens.models.predictor import Predictor
from fedens.models.storage import read_kind


def load_model(path: str | Path, device: torch.device | str = "cpu") -> Predictor | MolecularModel:
    """A model of crystals or of molecules from its folder; the second works on the CPU.

    Raises:
        ModelError: missing or broken files, or another schema.
    """
    if read_kind(Path(path)) == KIND:
        return MolecularModel.load(path)
    return Predictor.load(path, device)
