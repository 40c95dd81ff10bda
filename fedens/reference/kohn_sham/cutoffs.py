"""Kinetic-energy cutoffs that fit pseudopotentials."""

from __future__ import annotations

import math

from fedens.energy.kohn_sham import KohnSham
from fedens.structure import Structure


def default_cutoff(structure: Structure, functional: KohnSham) -> float:
    """Kinetic energy (hartree) up to which orbitals need modes."""
    spacing = min(
        functional.pseudopotentials[symbol].coarsest_spacing(functional.widths[symbol])
        for symbol in structure.symbols
    )
    return math.ceil(0.8 * (math.pi / spacing) ** 2)
