"""Settings of ``kohn_sham.py``: the cheapest that a search has found, and what a search tries.

Al32 takes the setting of Al4, the same crystal in a cell of half the length: a limit of its own
would cost each code an hour.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

from cheapest import Catalogue, Mesh, Setting

CODES = ("fedens", "abinit", "pyscf gth-szv", "pyscf gth-dzvp")


@dataclass(frozen=True)
class Choice:
    """A setting within 1 meV/atom of the code's own limit (hartree; None: not known)."""

    setting: Setting
    limit: float | None = None


def _gaussians(basis: str, cutoff: float, limit: float) -> Choice:
    setting = {"basis": basis, "ke_cutoff": cutoff, "energy_change": 1e-6, "forces": True}
    return Choice(setting, limit)


#: Of ABINIT and PySCF found with the lists below, of which none ran as a whole; of fedens by hand.
CHOICES = {
    ("al4", "fedens"): Choice(
        {
            "order": 8,
            "elements": 4,
            "cutoff": 23.0,
            "density_cutoff": 1.44,
            "residual": 1e-4,
            "bands": 11,
        },
        -8.3937436,
    ),
    ("si8", "fedens"): Choice(
        {
            "order": 9,
            "elements": 5,
            "cutoff": 28.0,
            "density_cutoff": 1.44,
            "residual": 1e-4,
        },
        -31.333641433,
    ),
    ("al4", "abinit"): Choice(
        {"ecut": 24, "boxcutmin": 1.2, "tolvrs": 1e-4, "bands": 10, "nline": 2}, -8.3937436648
    ),
    ("si8", "abinit"): Choice(
        {"ecut": 27, "boxcutmin": 1.2, "tolvrs": 1e-4, "bands": 16}, -31.333641486
    ),
    ("al4", "pyscf gth-szv"): _gaussians("gth-szv", 10.0, -8.272218215),
    ("si8", "pyscf gth-szv"): _gaussians("gth-szv", 14.0, -31.045417730),
    ("al4", "pyscf gth-dzvp"): _gaussians("gth-dzvp", 10.0, -8.369290336),
    ("si8", "pyscf gth-dzvp"): _gaussians("gth-dzvp", 14.0, -31.268520813),
}


def choice(code: str, name: str) -> Choice:
    """What a code runs a system with unless a search is asked for."""
    return enlarged(code, CHOICES["al4", code]) if name == "al32" else CHOICES[name, code]


def enlarged(code: str, small: Choice) -> Choice:
    """The setting of Al4 for a cell twice as long: as many bands as the smearing fills."""
    if code == "abinit":
        return Choice({**small.setting, "bands": 68})
    if code == "fedens":
        return Choice({**small.setting, "elements": 2 * small.setting["elements"], "bands": None})
    return Choice({**small.setting, "forces": False})  # they would take hours


def catalogue(code: str, system: dict[str, Any]) -> Catalogue:
    """What a search may try of one code."""
    if code == "abinit":
        return _abinit(10 if system["smearing"] else 16)
    return _fedens(system["length"]) if code == "fedens" else _pyscf(code.split()[1])


def _abinit(bands: int) -> Catalogue:
    """Cutoffs and transforms' meshes; ``tolvrs`` 1e-4 leaves F to 1e-6, forces to 1e-4 hartree."""
    tight = {"tolvrs": 1e-4, "bands": bands}
    return Catalogue(
        limit={"ecut": 44, "boxcutmin": 2.0, "tolvrs": 1e-8, "bands": bands},
        tight=tight,
        meshes=[
            Mesh({"ecut": ecut, "boxcutmin": box}, rank=(ecut, round(10 * box)))
            for ecut, box in itertools.product(range(22, 31), (1.2, 1.5, 2.0))
        ],
        minimisers=[tight, {**tight, "nline": 3}, {**tight, "nline": 2}],
        switches=[{"diemac": 12.0}, {"wfoptalg": 14}],
    )


def _fedens(length: float) -> Catalogue:
    """Meshes, each with every cutoff: what one mesh can't hold a coarser one can't either."""
    finest = math.ceil(length / 2)
    return Catalogue(
        limit={
            "order": 10,
            "elements": math.ceil(length / 1.75),  # the coarsest that holds 44 hartree
            "cutoff": 44.0,
            "residual": 1e-7,
        },
        tight={"residual": 1e-6},
        meshes=[
            Mesh(
                {"order": order, "elements": elements, "cutoff": cutoff},
                rank=(elements,),
                family=(order, cutoff),
            )
            for order, elements, cutoff in itertools.product(
                (8, 10),
                range(math.ceil(length / 4), finest + 1),
                (20.0, 22.0, 24.0, 26.0, 27.0, 28.0),
            )
        ],
        minimisers=[{"residual": residual} for residual in (1e-4, 1e-5, 1e-6)],
    )


def _pyscf(basis: str) -> Catalogue:
    """Meshes of the density, without forces, which would take the search hours."""
    tight = {"basis": basis, "energy_change": 1e-6, "forces": False}
    return Catalogue(
        limit={**tight, "ke_cutoff": 100.0},
        tight=tight,
        meshes=[Mesh({"ke_cutoff": x}, rank=(round(x),)) for x in (8.0, 10.0, 14.0, 20.0, 30.0)],
        minimisers=[tight],
    )
