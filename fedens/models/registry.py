"""Every kind of model by its name in a model's folder; a new kind is one line here."""

from __future__ import annotations

from pkgutil import resolve_name
from typing import Any

from fedens.errors import ModelError

#: Kind -> "module:class".
KINDS: dict[str, str] = {
    "crystal": "fedens.models.crystal.model:Predictor",
    "functional": "fedens.models.functional.model:FunctionalModel",
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
    return resolve_name(KINDS[kind])
