"""fedens' side of ``kohn_sham.py``: a worker process.

Settings (a dict): ``elements`` per axis and their ``order``, ``cutoff`` of the orbitals in
hartree, ``residual`` of the density; ``density_cutoff`` over the cutoff and ``bands``, if given.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from worker import serve

import fedens
from fedens import GTH, KohnSham, Structure, TensorSpace, monkhorst_pack, solve_kohn_sham


def solve(system: dict[str, Any], setting: dict[str, Any]) -> dict[str, Any]:
    """Free energy and forces of one structure, from positions on."""
    state = ground_state(system, setting)
    return {
        "energy": float(state.free_energy),
        "forces": torch.as_tensor(state.forces).tolist(),
        "evaluations": state.iterations,
        "converged": state.converged,
        "size": state.space.n_points,
    }


def ground_state(system: dict[str, Any], setting: dict[str, Any], device: str = "cpu") -> Any:
    """The KohnShamState of a system on a device; no symmetry but time reversal."""
    element, lengths = system["element"], [system["length"]] * 3
    positions = np.array(system["positions"])
    ratio = setting.get("density_cutoff")
    potential = GTH.load(element, system["pseudopotential"]["name"])
    return solve_kohn_sham(
        Structure([element] * len(positions), positions, cell=lengths, pbc=True),
        TensorSpace(lengths, setting["elements"], setting["order"], True, device=device),
        KohnSham(xc=system["xc"], pseudopotential=potential),
        kpoints=monkhorst_pack(tuple(system["mesh"])),
        smearing=system["smearing"],
        cutoff=setting["cutoff"],
        density_cutoff=ratio and ratio * setting["cutoff"],
        bands=setting.get("bands"),
        residual_tolerance=setting["residual"],
        symmetry=False,
        require_convergence=False,
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    GTH.load("H", "gth-pade-q1")  # loads PySCF: with the other imports in the whole process' time
    modules = {"fedens": fedens, "torch": torch, "numpy": np}
    serve(solve, {name: module.__version__ for name, module in modules.items()})
