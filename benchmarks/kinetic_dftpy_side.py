"""DFTpy's ground states with three kinetic functionals: makes ``tests/dftpy_kinetic.json``.

A displaced fcc cell of four aluminium atoms and a strained one, with Wang-Teter, the
density-independent Wang-Govind-Carter kernel and Luo-Karasiev-Trickey. Runs in DFTpy's own
environment (``requirements.txt``), 20 seconds on one core:

    python benchmarks/kinetic_dftpy_side.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from dftpy.field import DirectField
from dftpy.functional import Functional, TotalFunctional
from dftpy.grid import DirectGrid
from dftpy.ions import Ions
from dftpy.optimization import Optimization
from dftpy_side import GTHTable
from systems import LATTICE_CONSTANT, PSEUDOPOTENTIAL

RESULT = Path(__file__).parents[1] / "tests" / "dftpy_kinetic.json"
POINTS = 40
SOURCE = (
    f"DFTpy 2.2.0 by benchmarks/kinetic_dftpy_side.py: {POINTS} points per axis, truncated Newton "
    "to 1e-12 hartree/atom (lkt: until its line search stops, about 1e-9), exact structure factors "
    "and Ewald sum, LDA Perdew-Zunger, local GTH pseudopotential of benchmarks/systems.py; stress: "
    "(1/V) dE/d strain along x, y, z, by its own formulas"
)
#: DFTpy's names and options; wgc is its Wang-Teter kernel with other exponents. Its stress of
#: Luo-Karasiev-Trickey is that of its GGA of this name, which contains von Weizsaecker's term.
KINETIC: dict[str, dict[str, Any]] = {
    "wt": {"name": "WT"},
    "wgc": {"name": "WT", "alpha": (5 + 5**0.5) / 6, "beta": (5 - 5**0.5) / 6},
    "lkt": {"name": "GGA", "k_str": "LKT"},
}


def structures() -> dict[str, dict[str, Any]]:
    """Cells (3,) and positions (4, 3), bohr."""
    half = LATTICE_CONSTANT / 2
    sites = np.array([[0, 0, 0], [0, half, half], [half, 0, half], [half, half, 0]])
    moves = np.array([[0.1, 0.0, 0.2], [0.0, -0.2, 0.15], [0.0, 0.1, 0.0], [-0.15, 0.0, 0.0]])
    cells = {"displaced": np.ones(3), "strained": np.array([1.03, 0.98, 1.01])}
    return {
        name: {
            "cell": (LATTICE_CONSTANT * stretch).tolist(),
            "positions": ((sites + moves) * stretch).tolist(),
        }
        for name, stretch in cells.items()
    }


def functional_of(kinetic: str, ions: Ions, grid: DirectGrid) -> TotalFunctional:
    """The whole energy with one of :data:`KINETIC`."""
    table = {"Al": GTHTable(**PSEUDOPOTENTIAL)}
    return TotalFunctional(
        KineticEnergyFunctional=Functional(type="KEDF", **KINETIC[kinetic]),
        XCFunctional=Functional(type="XC", name="LDA", libxc=False),
        HARTREE=Functional(type="HARTREE"),
        PSEUDO=Functional(type="PSEUDO", grid=grid, ions=ions, PP_list=table, PME=False),
    )


def minimum(functional: TotalFunctional, start: DirectField) -> tuple[float, DirectField]:
    """Energy (hartree) and density of the ground state."""
    minimiser = Optimization(
        EnergyEvaluator=functional,
        optimization_method="TN",
        optimization_options={"econv": 4e-12, "maxiter": 200},
    )
    density = minimiser.optimize_rho(guess_rho=start)
    return float(minimiser.functional.energy), density


def cases(structure: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Energy, forces and normal stress by kinetic functional; the first lends its density."""
    cell, positions = np.diag(structure["cell"]), np.array(structure["positions"])
    ions = Ions(["Al"] * len(positions), positions=positions, cell=cell)
    grid = DirectGrid(lattice=ions.cell, nr=np.array([POINTS] * 3), full=False)
    density = DirectField(grid)
    density[:] = PSEUDOPOTENTIAL["valence"] * len(positions) / ions.cell.volume
    found = {}
    for kinetic in KINETIC:
        functional = functional_of(kinetic, ions, grid)
        energy, density = minimum(functional, density)
        found[kinetic] = {
            "energy": energy,
            "forces": functional.get_forces(density).tolist(),
            "stress": np.diag(functional.get_stress(density)).tolist(),
        }
    return found


def main() -> None:
    """Write all cases."""
    cells = structures()
    result = {
        "source": SOURCE,
        "units": "hartree, bohr, hartree/bohr, hartree/bohr^3",
        "structures": cells,
        "cases": {
            f"{name}_{kinetic}": {"structure": name, "kinetic": kinetic, **case}
            for name, cell in cells.items()
            for kinetic, case in cases(cell).items()
        },
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
