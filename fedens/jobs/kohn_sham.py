"""What a configuration of theory ``kohn_sham`` asks for."""

from __future__ import annotations

from typing import Any

from fedens.configuration.crystals import MeshOptions
from fedens.configuration.theory import KohnShamOptions
from fedens.energy.kohn_sham import KohnSham


def kohn_sham_labelling(theory: KohnShamOptions, space: MeshOptions) -> dict[str, Any]:
    """Kind and settings of the labeller.

    Raises:
        PseudopotentialError: one that is not in the library, or its file is not there.
        FunctionalError: an unknown xc functional.
    """
    pseudopotentials = {s: one.pseudopotential(s) for s, one in theory.pseudopotentials.items()}
    functional = KohnSham(theory.xc, pseudopotentials, theory.gaussian_width)
    described = {"kind", "xc", "pseudopotentials", "gaussian_width"}
    return {
        "kind": "kohn_sham",
        "functional": functional.describe(),
        **space.model_dump(),
        **theory.model_dump(exclude=described),
    }
