"""DFTpy's energies of crystals with ``.recpot`` tables, for ``tests/dftpy_recpot.json``.

Runs in DFTpy's own environment (``requirements.txt``, and PySCF for its libxc):

    python benchmarks/recpot_dftpy_side.py TABLE [TABLE ...]

prints, for each table (uncompressed, named as in the library), the energy with the step of q that
makes the Coulomb tail carry a whole charge, and with DFTpy's own, (largest q)/(count - 1).
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from dftpy.field import DirectField
from dftpy.functional import Functional, TotalFunctional
from dftpy.functional.pseudo.recpot import RECPOT
from dftpy.grid import DirectGrid
from dftpy.ions import Ions
from dftpy.optimization import Optimization
from pyscf.dft import libxc

REFERENCE = Path(__file__).parents[1] / "tests" / "dftpy_recpot.json"
SPACING = 0.27


class WholeCharge(RECPOT):
    """A table with the step of q that gives the pole -4 pi Z/q^2 a whole Z."""

    def read(self, fname: str) -> None:
        super().read(fname)
        k = np.arange(1.0, max(8, round(0.1 / self.r[1])))
        powers = np.stack([k**0, k**2, k**4, k**6], axis=1)
        pole = np.linalg.lstsq(powers, self.v[1 : len(k) + 1] * k**2)[0][0]
        self.r = np.arange(len(self.v)) * math.sqrt(4 * math.pi * self._zval / -pole)


class LibXCFunctional:
    """PySCF's libxc in the place of pylibxc, which the package index does not have."""

    def __init__(self, name: str, polarisation: str):
        assert polarisation == "unpolarized"
        self.code = f"{name}," if "_x_" in name else f",{name}"

    def compute(self, fields: dict[str, Any], **_: Any) -> dict[str, np.ndarray]:
        slope = np.sqrt(np.ravel(fields["sigma"]))
        rho = np.stack([np.ravel(fields["rho"]).clip(1e-20), slope, 0 * slope, 0 * slope])
        per_electron, (v_rho, v_sigma, *_rest) = libxc.eval_xc(self.code, rho)[:2]
        return {"zk": per_electron, "vrho": v_rho, "vsigma": v_sigma}


def solve(case: dict[str, Any], structure: dict[str, Any], table: RECPOT) -> float:
    """Ground-state energy of a structure with Wang-Teter's functional, hartree."""
    cell, positions = structure["cell"], np.array(structure["positions"])
    ions = Ions([case["symbol"]] * len(positions), positions=positions, cell=np.diag(cell))
    points = np.array([2 * math.ceil(length / SPACING / 2) for length in cell])
    grid = DirectGrid(lattice=ions.cell, nr=points, full=False)
    lda = case["xc"] == "lda_pz"
    pseudo = {"PP_list": {case["symbol"]: table}, "PME": False}
    energy = TotalFunctional(
        KineticEnergyFunctional=Functional(type="KEDF", name="WT"),
        XCFunctional=Functional(type="XC", name="LDA" if lda else "PBE", libxc=not lda),
        HARTREE=Functional(type="HARTREE"),
        PSEUDO=Functional(type="PSEUDO", grid=grid, ions=ions, **pseudo),
    )
    density = DirectField(grid)
    density[:] = ions.get_ncharges() / ions.cell.volume
    options = {"econv": 1e-11 * len(positions), "maxiter": 200}
    minimiser = Optimization(
        EnergyEvaluator=energy, optimization_method="TN", optimization_options=options
    )
    minimiser.optimize_rho(guess_rho=density)
    return float(minimiser.functional.energy)


def main() -> None:
    """Energies of the tables named on the command line."""
    package, module = ModuleType("pylibxc"), ModuleType("pylibxc.functional")
    module.LibXCFunctional = LibXCFunctional  # type: ignore[attr-defined]
    sys.modules |= {"pylibxc": package, "pylibxc.functional": module}
    package.__spec__ = module.__spec__ = object()  # type: ignore[assignment]
    reference = json.loads(REFERENCE.read_text())
    for path in sys.argv[1:]:
        case = reference["energies"][Path(path).name]
        structure = reference["structures"][case["symbol"]]
        whole, own = (solve(case, structure, kind(path)) for kind in (WholeCharge, RECPOT))
        print(f"{Path(path).name}: {whole:.9f} hartree, as DFTpy reads it {own:.9f}")


if __name__ == "__main__":
    main()
