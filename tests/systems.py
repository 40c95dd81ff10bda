"""The test systems and their reference numbers: one table, shared by all tests.

Hartree atomic units throughout. Every reference number stands beside its source.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from fedens import EnergyFunctional, EvanescentCore, GoodwinNeedsHeine, GTHLocal, Structure

# A fit to a bulk-derived aluminium pseudopotential; the same smooth and without a core; the
# evanescent core of Fiolhais et al., Phys. Rev. B 51, 14001 (1995); Goodwin, Needs and Heine.
GTHFIT = GTHLocal(3, 0.7473, 4.9546, -0.8993)
ERF = GTHLocal(3, 0.8)
EVANESCENT = EvanescentCore(3, 0.32, 3.6)
GNH = GoodwinNeedsHeine()
PSEUDOPOTENTIALS = {"gthfit": GTHFIT, "erf": ERF, "evanescent": EVANESCENT, "gnh": GNH}

FCC = np.array([[0.0, 0.0, 0.0], [0.0, 0.5, 0.5], [0.5, 0.0, 0.5], [0.5, 0.5, 0.0]])


def fcc(edge: float = 7.65) -> Structure:
    """Four aluminium atoms on a perfect fcc lattice."""
    return Structure(["Al"] * 4, FCC * edge, cell=[edge] * 3, pbc=True)


def rattled() -> Structure:
    """Four aluminium atoms off their sites in a cell of three different edges; low symmetry.

    The first atom sits on the far side of the cell's boundary.
    """
    positions = [[-0.15, 0.05, 7.85], [0.1, 3.8, 4.0], [3.7, 0.15, 3.8], [3.8, 3.9, -0.05]]
    return Structure(["Al"] * 4, positions, cell=[7.65, 7.5, 7.8], pbc=True)


def atom() -> Structure:
    """One isolated aluminium atom."""
    return Structure(["Al"], [[0.0, 0.0, 0.0]])


def dimer() -> Structure:
    """Two isolated aluminium atoms along no axis of the box."""
    return Structure(["Al", "Al"], [[0.0, 0.0, 0.0], [3.0, 3.5, 1.0]])


def cubic_lattice(kind: str, volume_per_atom: float = 112.0) -> Structure:
    """Perfect ``sc``, ``bcc`` or ``fcc`` lattice in its cubic cell."""
    sites = {"sc": np.zeros((1, 3)), "bcc": np.array([[0.0] * 3, [0.5] * 3]), "fcc": FCC}[kind]
    edge = (len(sites) * volume_per_atom) ** (1 / 3)
    return Structure(["Al"] * len(sites), sites * edge, cell=[edge] * 3, pbc=True)


#: Energy of point charges 1 in a neutralising background, times r_WS, by lattice.
#: R. A. Coldwell-Horsfall and A. A. Maradudin, J. Math. Phys. 1, 395 (1960), halved.
MADELUNG = {"sc": -0.880059, "bcc": -0.895929, "fcc": -0.895874}


@dataclass(frozen=True)
class ReferenceCase:
    """One calculation of another code; see ``dftpy_aluminium.json`` for its source."""

    name: str
    structure: Structure
    functional: EnergyFunctional
    energy: float
    parts: dict[str, float]
    chemical_potential: float
    forces: np.ndarray


@cache
def _dftpy() -> dict[str, Any]:
    return json.loads(Path(__file__).with_name("dftpy_aluminium.json").read_text())


DFTPY_CASES = sorted(_dftpy()["cases"])


def dftpy_case(name: str) -> ReferenceCase:
    """A case of plane-wave orbital-free DFT by its name, such as ``fcc4_gthfit_wt``."""
    case = _dftpy()["cases"][name]
    lattice = _dftpy()["structures"][case["structure"]]
    positions = np.array(lattice["positions"])
    structure = Structure(["Al"] * len(positions), positions, cell=lattice["cell"], pbc=True)
    functional = EnergyFunctional.orbital_free(
        case["kinetic"],
        case["vw_weight"],
        "lda_pz",
        PSEUDOPOTENTIALS[case["pseudopotential"]],
    )
    return ReferenceCase(
        name,
        structure,
        functional,
        case["energy"],
        case["parts"],
        case["chemical_potential"],
        np.array(case["forces"]),
    )


@dataclass(frozen=True)
class KineticCase:
    """A ground state with one kinetic functional; see ``dftpy_kinetic.json`` for its source."""

    structure: Structure
    functional: EnergyFunctional
    energy: float
    forces: np.ndarray
    stress: np.ndarray


@cache
def _kinetic() -> dict[str, Any]:
    return json.loads(Path(__file__).with_name("dftpy_kinetic.json").read_text())


KINETIC_CASES = sorted(_kinetic()["cases"])


def kinetic_case(name: str) -> KineticCase:
    """A case of a displaced or strained cell of four atoms, such as ``strained_lkt``."""
    case = _kinetic()["cases"][name]
    lattice = _kinetic()["structures"][case["structure"]]
    return KineticCase(
        Structure(["Al"] * 4, lattice["positions"], cell=lattice["cell"], pbc=True),
        EnergyFunctional.orbital_free(case["kinetic"], pseudopotential=GTHFIT),
        case["energy"],
        np.array(case["forces"]),
        np.array(case["stress"]),
    )


#: Goodwin-Needs-Heine aluminium, fcc, a = 7.63 bohr, LDA-PZ, hartree per atom (DFTpy 2.2.0), by
#: kinetic functional and von Weizsaecker weight.
GNH_FCC_EDGE = 7.63
GNH_FCC = {("tfvw", 1.0): -2.1259593, ("tfvw", 0.2): -2.2102806, ("wt", 1.0): -2.1436059}

#: Its potential in real space, r (bohr): v(r) (hartree), by the sine transform of v(q).
GNH_REAL_SPACE = {
    0.5: 0.027530,
    1.0: -1.063118,
    1.5: -1.693288,
    2.0: -1.596533,
    3.0: -0.980221,
    5.0: -0.599306,
}


@dataclass(frozen=True)
class AtomCase:
    """Isolated pseudo-atom, LDA-PZ, from a spectral radial solver (residual below 1e-12)."""

    pseudopotential: GTHLocal
    vw_weight: float
    energy: float
    tolerance: float
    chemical_potential: float | None = None


#: The last two are -3 erf(r)/r, which is the GTH form with r_loc = 1/sqrt(2).
FREE_ATOMS = {
    "gthfit_1": AtomCase(GTHFIT, 1.0, -1.7345054724, 1e-8, -0.12559087),
    "gthfit_0.2": AtomCase(GTHFIT, 0.2, -2.1032343041, 1e-8),
    "erf_1": AtomCase(ERF, 1.0, -2.1844681055, 1e-8),
    "erf_rc1_1": AtomCase(GTHLocal(3, 0.5**0.5), 1.0, -2.3203357, 1e-7),
    "erf_rc1_0.2": AtomCase(GTHLocal(3, 0.5**0.5), 0.2, -2.8291474, 1e-7),
}
