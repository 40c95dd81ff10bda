"""fedens' side of the benchmark: a worker process; run by ``orbital_free_vs_dftpy.py``.

Settings (a dict): ``order`` of the elements; for crystals ``elements`` per axis; for isolated
atoms ``margin`` to the walls in bohr, ``spacing`` at the atoms and ``growth`` of the elements
towards the walls; ``residual`` (tolerance, hartree) and ``guess`` of the minimisation.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from worker import serve

import fedens
from fedens import EnergyFunctional, GTHLocal, Structure, TensorSpace, solve_ground_state
from fedens.atoms.pseudo import free_atom

torch.set_num_threads(1)


def solve(system: dict[str, Any], setting: dict[str, Any]) -> dict[str, Any]:
    """Ground state of one structure, from positions to energy."""
    functional = EnergyFunctional.orbital_free(
        kinetic=system["kinetic"],
        vw_weight=1.0,
        xc="lda_pz",
        pseudopotential=GTHLocal(**system["pseudopotential"]),
    )
    if setting.get("task") == "atomic_gaussians":
        atom = free_atom(functional, "Al")
        return {"exponents": atom.exponents.tolist(), "amplitudes": atom.amplitudes.tolist()}
    structure = _structure(system)
    space = _space(structure, setting)
    state = solve_ground_state(
        structure,
        space,
        functional,
        guess=setting.get("guess"),
        residual_tolerance=setting["residual"],
        require_convergence=False,
    )
    return {
        "energy": state.energy,
        "evaluations": state.evaluations,
        "converged": state.converged,
        "size": space.n_points,
    }


def _structure(system: dict[str, Any]) -> Structure:
    positions, cell = np.array(system["positions"]), system["cell"]
    return Structure(["Al"] * len(positions), positions, cell=cell, pbc=cell is not None)


def _space(structure: Structure, setting: dict[str, Any]) -> TensorSpace:
    if structure.periodic:
        lengths = structure.orthorhombic_lengths().tolist()
        return TensorSpace(lengths, setting["elements"], setting["order"], True)
    return TensorSpace.for_structure(
        structure,
        spacing=setting["spacing"],
        order=setting["order"],
        margin=setting["margin"],
        growth=setting["growth"],
    )


if __name__ == "__main__":
    modules = {"fedens": fedens, "torch": torch, "numpy": np}
    serve(solve, {name: module.__version__ for name, module in modules.items()})
