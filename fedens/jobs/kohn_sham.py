"""What a configuration of theory ``kohn_sham`` asks for."""

from __future__ import annotations

from typing import Any

from fedens.configuration.crystals import MeshOptions
from fedens.configuration.options import Options
from fedens.configuration.theory import GTHOptions, KohnShamOptions
from fedens.energy.gth import GTH
from fedens.energy.kohn_sham import KohnSham
from fedens.energy.pseudopotential import LocalPseudopotential, pseudopotential_from_description


def kohn_sham_labelling(theory: KohnShamOptions, space: MeshOptions) -> dict[str, Any]:
    """Kind and settings of the labeller.

    Raises:
        PseudopotentialError: one that is not in the library, or its file is not there.
        FunctionalError: an unknown xc functional.
    """
    pseudopotentials = {s: _pseudopotential(s, one) for s, one in theory.pseudopotentials.items()}
    functional = KohnSham(theory.xc, pseudopotentials, theory.gaussian_width)
    described = {"kind", "xc", "pseudopotentials", "gaussian_width"}
    return {
        "kind": "kohn_sham",
        "functional": functional.describe(),
        **space.model_dump(),
        **theory.model_dump(exclude=described),
    }


def _pseudopotential(symbol: str, options: Options) -> LocalPseudopotential:
    if isinstance(options, GTHOptions):
        return GTH.load(symbol, options.name)
    return pseudopotential_from_description(options.model_dump(mode="json"))
