"""How the Brillouin zone of a Kohn-Sham sample was sampled, and which samples go together.

Labels of different k-points and smearing differ by as much as models are to learn: tens of
meV/angstrom between the meshes that are in use for metals.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import Any

from fedens.data.sample import Sample

#: k-spacings of one data set differ at most by this factor.
LARGEST_RATIO = 1.2


def sampling_of(sample: Sample) -> dict[str, Any] | None:
    """Of a sample's history ``kspacing_per_bohr``, ``smearing``, ``width_hartree`` and others.

    With ``cutoff_hartree`` of the orbitals. None without orbitals; isolated structures have no
    k-spacing.
    """
    sampling = sample.provenance.get("sampling")
    if sampling is None:
        return None
    kept = {**sampling, "cutoff_hartree": sample.provenance.get("cutoff_hartree")}
    if not sample.structure.periodic:
        kept.pop("kspacing_per_bohr", None)
    return kept


def sampling_differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """What keeps two samples from being mixed, in words; empty where they go together."""
    differences = []
    if "kspacing_per_bohr" in one and "kspacing_per_bohr" in other:
        spacings = one["kspacing_per_bohr"], other["kspacing_per_bohr"]
        if not _close(*spacings):
            words = [f"{s:.4f} per bohr" if s else "that of no mesh" for s in spacings]
            differences.append(f"k-spacing {words[0]} and {words[1]}")
    smearings = [_smearing_of(sampling) for sampling in (one, other)]
    if smearings[0] != smearings[1]:
        differences.append(f"smearing {smearings[0]} and {smearings[1]}")
    return differences


def describe_samplings(samplings: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """``k-spacing``, ``smearing`` and ``cutoff`` of some samples for a reader, with units."""
    every = list(samplings)
    spacings = {one["kspacing_per_bohr"] for one in every if one.get("kspacing_per_bohr")}
    shown = {
        "k-spacing": _range(spacings, "per bohr"),
        "smearing": ", ".join(sorted({_smearing_of(one) for one in every})),
        "cutoff": _range({one["cutoff_hartree"] for one in every} - {None}, "hartree"),
    }
    return {name: words for name, words in shown.items() if words}


def _range(values: Set[float], unit: str) -> str:
    limits = dict.fromkeys(f"{value:.4g}" for value in (min(values), max(values))) if values else {}
    return f"{' to '.join(limits)} {unit}" if limits else ""


def _close(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return max(one, other) <= LARGEST_RATIO * min(one, other)


def _smearing_of(sampling: Mapping[str, Any]) -> str:
    """Kind and width; the kind means nothing without a width."""
    width = sampling["width_hartree"]
    return f"{sampling['smearing']} of {width:g} hartree" if width else "none"
