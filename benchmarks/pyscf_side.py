"""PySCF's side of ``kohn_sham.py``: a worker process with periodic Gaussians.

Settings (a dict): ``basis``, ``ke_cutoff`` (hartree; the mesh of the density), ``energy_change``
(hartree) and ``forces``. The self-consistent loop runs on multigrids, the quickest of PySCF's
ways, with time reversal. Forces at k-points know only the uniform mesh and need the whole list
of k-points. The precision of the sums over images stays at its default: at 1e-6 larger bases
collapse.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pyscf
from pyscf import lib
from pyscf.pbc import dft, gto
from pyscf.pbc.dft.numint import KNumInt
from pyscf.pbc.scf.addons import smearing_
from worker import serve

lib.num_threads(1)
_XC = {"lda_teter": "LDA_XC_TETER93", "lda_pw": "LDA_X,LDA_C_PW", "pbe": "PBE"}


def solve(system: dict[str, Any], setting: dict[str, Any]) -> dict[str, Any]:
    """Free energy and forces of one structure, the seconds of the energy apart."""
    start, steps = time.process_time(), []
    method = _method(system, setting)
    method.conv_tol = setting["energy_change"]
    method.callback = lambda _: steps.append(1)
    method.kernel()
    answer = {
        "energy": float(method.e_free if system["smearing"] else method.e_tot),
        "evaluations": len(steps),
        "converged": bool(method.converged),
        "size": int(method.cell.nao),
        "energy_seconds": time.process_time() - start,
    }
    return {**answer, "forces": _forces(method).tolist()} if setting["forces"] else answer


def _method(system: dict[str, Any], setting: dict[str, Any]) -> Any:
    cell = gto.M(
        atom=[(system["element"], position) for position in system["positions"]],
        a=np.eye(3) * system["length"],
        unit="bohr",
        basis=setting["basis"],
        pseudo=system["pseudopotential"]["name"],
        ke_cutoff=setting["ke_cutoff"],
        verbose=0,
    )
    if max(system["mesh"]) == 1:
        method = dft.RKS(cell, xc=_XC[system["xc"]])
    else:
        kpoints = cell.make_kpts(
            system["mesh"], with_gamma_point=False, time_reversal_symmetry=True
        )
        method = dft.KRKS(cell, kpoints, xc=_XC[system["xc"]])
    method = method.multigrid_numint()
    return smearing_(method, system["smearing"], "fermi") if system["smearing"] else method


def _forces(method: Any) -> np.ndarray:
    if hasattr(method, "to_khf"):
        method = method.to_khf()
        method._numint = KNumInt(method.kpts)
    return -method.nuc_grad_method().kernel()


if __name__ == "__main__":
    serve(solve, {"pyscf": pyscf.__version__})
