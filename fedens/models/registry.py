"""Every kind of model by its name in a model's folder; a new kind is one line here."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedens.errors import ModelError
from fedens.models.storage import read_kind

if TYPE_CHECKING:
    import torch

    from fedens.models.crystal.model import Predictor
    from fedens.models.molecule.model import MolecularModel

#: Kind -> "module:class".
KINDS: dict[str, str] = {
    "crystal": "fedens.models.crystal.model:Predictor",
    "molecule": "fedens.models.molecule.model:MolecularModel",
    "points": "fedens.models.points.model:EnergyModel",
}


def model_class(kind: object) -> Any:
    """The class of a kind.

    Raises:
        ModelError: a kind that this fedens does not know.
    """
    if not isinstance(kind, str) or kind not in KINDS:
        raise ModelError(f"no model of kind {kind!r} is known; expected one of {', '.join(KINDS)}")
    module, _, name = KINDS[kind].partition(":")
    return getattr(import_module(module), name)


def load_model(path: str | Path, device: torch.device | str = "cpu") -> Predictor | MolecularModel:
    """A model of crystals or of molecules from its folder."""
    kind = read_kind(Path(path))
    return model_class(kind).load(path, device)
