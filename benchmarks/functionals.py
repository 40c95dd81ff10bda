"""Aluminium with a local potential, and the functionals that are compared with learned ones.

Lengths in bohr, energies in hartree.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from fedens import EnergyFunctional, GTHLocal, KohnSham, KPoints, Structure, solve_kohn_sham
from fedens.errors import ModelError
from fedens.fem.modes import space_for_cutoff
from fedens.models.base import Model
from fedens.models.functional.model import FunctionalModel
from fedens.reference.kohn_sham.smearing import Smearing
from fedens.reference.kohn_sham.state import KohnShamState

LATTICE = 7.65
POTENTIAL = GTHLocal(valence=3, r_loc=0.7473, c1=4.9546, c2=-0.8993)
MEAN_DENSITY = 12 / LATTICE**3
FCC = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
CUTOFF = 16.0
DEFAULT_MODEL = Path("runs/aluminium_kohn_sham/model")


def arguments(description: str | None) -> argparse.ArgumentParser:
    """The options that all of these scripts share."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", type=Path, default=DEFAULT_MODEL, metavar="PATH",
        help=f"folder of the learned functional (default {DEFAULT_MODEL})",
    )  # fmt: skip
    parser.add_argument("--no-model", action="store_true", help="leave out the learned functional")
    parser.add_argument("--threads", type=int, default=1, metavar="N")
    return parser


def learned(path: Path) -> FunctionalModel:
    """The learned functional of a folder."""
    model = Model.load(path)
    if not isinstance(model, FunctionalModel):
        raise ModelError(f"{path} holds a model of kind {model.kind!r}, expected 'functional'")
    return model


def classical(kinetic: str, model: FunctionalModel | None = None) -> FunctionalModel:
    """A classical functional on the mesh of a learned one; its kernel is that of the bulk."""
    functional = EnergyFunctional.orbital_free(
        kinetic,
        pseudopotential=POTENTIAL,
        mean_density=None if kinetic == "lkt" else MEAN_DENSITY,
    )
    if model is None:
        return FunctionalModel(functional, spacing=0.35, order=10)
    return replace(
        model, functional=functional, covariance=None, domain=None, correction=None, provenance={}
    )


def kohn_sham(structure: Structure, tolerance: float = 1e-6) -> KohnShamState:
    """Kohn-Sham with the k-points and the smearing of the labels."""
    return solve_kohn_sham(
        structure,
        space_for_cutoff(structure, CUTOFF),
        KohnSham("lda_pz", POTENTIAL),
        KPoints.from_spacing(structure, 0.105),
        Smearing(0.04, "methfessel_paxton"),
        CUTOFF,
        residual_tolerance=tolerance,
    )


def fcc(repeats: tuple[int, int, int], displacement: float = 0.0, seed: int = 0) -> Structure:
    """Cubic cells of fcc, atoms displaced by a normal of this width (bohr) along each axis."""
    corners = np.indices(repeats).reshape(3, -1).T
    sites = LATTICE * (corners[:, None] + FCC).reshape(-1, 3)
    sites = sites + displacement * np.random.default_rng(seed).normal(size=sites.shape)
    return Structure(["Al"] * len(sites), sites, cell=LATTICE * np.array(repeats), pbc=True)
