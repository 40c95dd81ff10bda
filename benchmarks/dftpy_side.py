"""DFTpy's side of the benchmark: a worker process; run by ``orbital_free_vs_dftpy.py``.

Uses DFTpy 2.2.0 as its own examples do. The pseudopotential goes in as a fine table of its
closed form in reciprocal space, whose entry at q = 0 is the integral of v(r) + Z/r.

Settings (a dict): ``points`` per axis; ``margin`` in bohr around isolated atoms;
``particle_mesh`` for ions and structure factors, else exact sums; ``method``, ``energy_change``
(hartree/atom), ``checks`` (energy changes in a row below it), ``vector``, ``signed_root``,
``levels`` (coarser grids first), ``fft`` and ``guess`` of the minimisation.
"""

from __future__ import annotations

from typing import Any

import ase
import dftpy
import numpy as np
import scipy
from dftpy.constants import environ
from dftpy.density import DensityGenerator
from dftpy.field import DirectField
from dftpy.functional import Functional, TotalFunctional
from dftpy.functional.pseudo.abstract_pseudo import BasePseudo
from dftpy.grid import DirectGrid
from dftpy.ions import Ions
from dftpy.optimization import Optimization
from dftpy.utils import field2distrib
from worker import serve

#: Wave numbers of the tabulated pseudopotential, 1/bohr: geometric where it goes as 1/q^2, so
#: that DFTpy's cubic spline is right to 1e-7 there too, even in the largest vacuum boxes.
_TABLE = np.concatenate(
    [[0.0], np.geomspace(0.02, 1.0, 400, endpoint=False), np.arange(1.0, 25.0, 0.02)]
)
_KINETIC = {"tfvw": "TFVW", "wt": "WT", "lkt": "LKT"}


class GTHTable(BasePseudo):
    """Local GTH pseudopotential, tabulated where DFTpy would read a ``.recpot`` file.

    ``atomic``: Gaussians (exponents, amplitudes) of the free atom's density, to start from.
    """

    def __init__(
        self,
        valence: float,
        r_loc: float,
        c1: float,
        c2: float,
        atomic: tuple[list[float], list[float]] | None = None,
    ):
        super().__init__(fname=None, direct=False)
        self.r, self._zval = _TABLE, valence
        self.v = gth_in_reciprocal_space(_TABLE, valence, r_loc, c1, c2)
        if atomic is not None:
            b, a = np.array(atomic[0]), np.array(atomic[1])
            self._atomic_density = np.exp(-np.outer(_TABLE**2, 0.25 / b)) @ (a * (np.pi / b) ** 1.5)


def gth_in_reciprocal_space(
    q: np.ndarray, valence: float, r_loc: float, c1: float, c2: float
) -> np.ndarray:
    """Fourier transform of the GTH local form, hartree bohr^3; at q = 0 without -4 pi Z/q^2."""
    x = (q * r_loc) ** 2
    gaussian = np.exp(-x / 2)
    core = (2 * np.pi) ** 1.5 * r_loc**3 * gaussian * (c1 + c2 * (3 - x))
    coulomb = np.full_like(q, 2 * np.pi * valence * r_loc**2)
    away = q > 0
    coulomb[away] = -4 * np.pi * valence / q[away] ** 2 * gaussian[away]
    return coulomb + core


class Counted(TotalFunctional):
    """Total energy functional that counts how often it is evaluated."""

    evaluations = 0

    def get_energy_potential(self, *args: Any, **kwargs: Any) -> Any:
        self.evaluations += 1
        return super().get_energy_potential(*args, **kwargs)


def solve(system: dict[str, Any], setting: dict[str, Any]) -> dict[str, Any]:
    """Ground state of one structure, from positions to energy."""
    environ["FFTLIB"] = setting.get("fft", "numpy")
    ions = _ions(system, setting.get("margin"))
    points = np.array(setting["points"])
    levels = setting.get("levels", 1)
    grid = DirectGrid(lattice=ions.cell, nr=points if levels == 1 else points // 2, full=False)
    energy = _functional(system, setting, ions, grid)
    options = {
        "econv": setting["energy_change"] * ions.nat,
        "ncheck": setting.get("checks", 2),
        "vector": setting.get("vector", "Orthogonalization"),
        "maxiter": 500,
    }
    minimiser = Optimization(
        EnergyEvaluator=energy,
        optimization_method=setting["method"],
        optimization_options=options,
    )
    signed = setting.get("signed_root", False)
    density = minimiser.optimize_rho(guess_rho=_guess(setting, ions, grid, energy), lphi=signed)
    if levels == 2:
        density = _refine(density, ions, points, energy)
        minimiser.optimize_rho(guess_rho=density, lphi=signed)
    return {
        "energy": float(minimiser.functional.energy),
        "evaluations": energy.evaluations,
        "converged": minimiser.converged == 0,
        "size": int(np.prod(points)),
    }


def _ions(system: dict[str, Any], margin: float | None) -> Ions:
    """Atoms in their cell; isolated ones in the middle of a box with a margin on every side."""
    positions, cell = np.array(system["positions"]), system["cell"]
    if cell is None:
        low, high = positions.min(axis=0), positions.max(axis=0)
        cell = high - low + 2 * margin
        positions = positions - low + margin
    return Ions(["Al"] * len(positions), positions=positions, cell=np.diag(cell))


def _functional(
    system: dict[str, Any], setting: dict[str, Any], ions: Ions, grid: DirectGrid
) -> Counted:
    atomic = setting.get("guess") == "atomic"
    table = GTHTable(
        **system["pseudopotential"], atomic=system["atomic_gaussians"] if atomic else None
    )
    return Counted(
        KineticEnergyFunctional=Functional(type="KEDF", name=_KINETIC[system["kinetic"]]),
        XCFunctional=Functional(type="XC", name="LDA", libxc=False),
        HARTREE=Functional(type="HARTREE"),
        PSEUDO=Functional(
            type="PSEUDO", grid=grid, ions=ions, PP_list={"Al": table}, PME=setting["particle_mesh"]
        ),
    )


def _guess(setting: dict[str, Any], ions: Ions, grid: DirectGrid, energy: Counted) -> DirectField:
    density = DirectField(grid)
    if setting.get("guess", "uniform") == "uniform":
        density[:] = ions.get_ncharges() / ions.cell.volume
        return density
    return DensityGenerator(pseudo=energy.PSEUDO).guess_rho(ions, grid=grid, rho=density)


def _refine(density: DirectField, ions: Ions, points: np.ndarray, energy: Counted) -> DirectField:
    """The density on the fine grid, as DFTpy's own multi-step minimisation passes it on."""
    grid = DirectGrid(lattice=ions.cell, nr=points, full=False)
    finer = DirectField(grid)
    field2distrib(density, finer, root=0)
    finer *= ions.get_ncharges() / finer.integral()
    energy.PSEUDO.restart(full=False, ions=ions, grid=grid)
    return finer


if __name__ == "__main__":
    modules = {"dftpy": dftpy, "numpy": np, "scipy": scipy, "ase": ase}
    serve(solve, {name: getattr(m, "__version__", "?") for name, m in modules.items()})
