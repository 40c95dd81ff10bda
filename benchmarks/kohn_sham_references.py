"""Kohn-Sham crystals and boxes against ABINIT: a table of differences, case by case.

    python benchmarks/kohn_sham_references.py FOLDER [CASE ...]

FOLDER holds the reference files (JSON, one a case; atomic units). Every case with orthogonal axes
is solved at its own plane-wave cutoff with its own k-points, smearing and pseudopotentials, so
that both codes make about the same error of the basis. Printed are the differences of the free
energy per atom, the largest ones of forces and normal stresses, and the spread of those of the
eigenvalues (whose zero is a convention), with the processor seconds of energy, forces and stress.
Isolated molecules (``mol_*``, made with PySCF) are solved in boxes with walls: differences of the
energy, of the occupied levels and of the dipole, beside the error that the file states.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fedens import GTH, KohnSham, KohnShamState, Structure, solve_kohn_sham
from fedens.energy.projectors import ProjectorChannel
from fedens.fem.modes import space_for_cutoff

#: Names of functionals by ABINIT's number.
XC = {1: "lda_teter", 2: "lda_pz", 7: "lda_pw", 11: "pbe"}
#: Cubes that have the same k-points as a primitive cell: file -> perfect crystal, its points.
EQUIVALENT = {
    "al1_pade_prim_gamma": "al4_pade_perfect_teter",
    "si2_pade_prim_gamma": "si8_pade_perfect",
}
#: Cutoffs of isolated molecules, hartree, and distance of the walls, bohr.
MOLECULES = {"mol_h2_isolated": 200, "mol_h2o_isolated": 220, "mol_lih_isolated": 180,
             "mol_n2_isolated": 200}  # fmt: skip
MARGIN = 12.0
GAMMA_AND_R = ([[0, 0, 0], [0.5, 0.5, 0.5]], [0.5, 0.5])


def pseudopotential(entry: dict[str, Any]) -> GTH:
    channels = [
        ProjectorChannel(one["l"], one["r"], tuple(map(tuple, one["h"])))
        for one in entry["projectors"]
    ]
    return GTH(entry["Z_ion"], entry["r_loc"], *entry["C"], projectors=channels)


def solve(
    case: dict[str, Any], box: dict[str, Any], kpoints: Any, tolerance: float
) -> KohnShamState:
    """``box``: the case whose cell and atoms are used."""
    structure = Structure(box["symbols"], box["positions"], cell=box["cell"], pbc=True)
    potentials = {s: pseudopotential(p) for s, p in case["pseudopotentials"].items()}
    functional = KohnSham(XC[case["xc"]["abinit_ixc"]], potentials)
    cutoff = case["code"]["cutoff_hartree"]
    width = case["smearing"]["width"]
    return solve_kohn_sham(
        structure,
        space_for_cutoff(structure, cutoff),
        functional,
        kpoints,
        width if width > 0.005 else 0.0,  # the others have a gap
        cutoff,
        residual_tolerance=tolerance,
    )


def compare(folder: Path, name: str, tolerance: float) -> str:
    case = json.loads((folder / f"{name}.json").read_text())
    box, copies = case, 1
    points = case["kpoints"]["reduced"], np.array(case["kpoints"]["weights"])
    points = points[0], points[1] / points[1].sum()
    if name in EQUIVALENT:
        box, points = json.loads((folder / f"{EQUIVALENT[name]}.json").read_text()), GAMMA_AND_R
        copies = len(box["symbols"]) // len(case["symbols"])
    begin = time.process_time()
    state = solve(case, box, points, tolerance)
    seconds = [time.process_time() - begin]
    forces, stress = state.forces, state.stress
    seconds.append(time.process_time() - begin - seconds[0])
    wanted = case["results"]
    energy = (state.free_energy / copies - wanted["free_energy_F"]) / len(case["symbols"])
    differences = forces - forces.mean(axis=0)
    if copies == 1:
        differences = differences - np.array(wanted["forces"])
    theirs = np.array(wanted["stress"])
    theirs = np.diag(theirs) if theirs.shape == (3, 3) else theirs[:3]
    return (
        f"{name:24s} {state.cutoff:6.0f} {energy:+10.1e} {np.abs(differences).max():9.1e} "
        f"{np.abs(stress - theirs).max():9.1e} {_eigenvalues(state, wanted, copies):>9s} "
        f"{state.iterations:4d} {seconds[0]:8.1f} {seconds[1]:7.1f}"
    )


def _eigenvalues(state: KohnShamState, wanted: dict[str, Any], copies: int) -> str:
    """Spread of the differences over filled and the lowest empty levels."""
    theirs = np.array(wanted["eigenvalues"])
    if copies > 1 or len(theirs) != len(state.eigenvalues):
        return "-"  # other k-points
    count = min(theirs.shape[1], state.eigenvalues.shape[1]) - 3
    count = max(count, int((state.occupations > 1e-3).any(axis=0).sum()))
    return f"{np.ptp(state.eigenvalues[:, :count] - theirs[:, :count]):.1e}"


def compare_isolated(folder: Path, name: str, tolerance: float) -> str:
    case = json.loads((folder / f"{name}.json").read_text())
    wanted = case["isolated"]
    structure = Structure(case["symbols"], case["positions"])
    potentials = {s: pseudopotential(p) for s, p in case["pseudopotentials"].items()}
    cutoff = MOLECULES[name]
    space = space_for_cutoff(structure, cutoff, MARGIN)
    begin = time.process_time()
    state = solve_kohn_sham(
        structure, space, KohnSham("lda_teter", potentials), cutoff=cutoff,
        residual_tolerance=tolerance,
    )  # fmt: skip
    forces = state.forces
    seconds = time.process_time() - begin
    levels = np.array(wanted["orbital_energies"])
    charges = np.array([potentials[s].valence for s in structure.symbols])
    dipole = charges @ structure.positions - state.density.dipole.numpy()
    return (
        f"{name:24s} {cutoff:6d} {state.free_energy - wanted['energy']:+10.1e} "
        f"{wanted['energy_error_estimate']:9.0e} "
        f"{np.abs(state.eigenvalues[0, : len(levels)] - levels).max():9.1e} "
        f"{np.abs(dipole - wanted['dipole']).max():9.1e} {np.abs(forces.sum(axis=0)).max():9.1e} "
        f"{space.n_points:9d} {state.iterations:4d} {seconds:8.1f}"
    )


def orthogonal(path: Path) -> bool:
    case = json.loads(path.read_text())
    if "results" not in case:
        return False
    cell = np.array(case["cell"])
    return path.stem in EQUIVALENT or bool(np.allclose(cell, np.diag(np.diag(cell))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="where the reference files are")
    parser.add_argument("cases", nargs="*", help="their names; default all that fit")
    parser.add_argument("--tolerance", type=float, default=1e-7, help="of the density's residual")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = [path.stem for path in sorted(options.folder.glob("*.json")) if orthogonal(path)]
    print(
        f"{'hartree, bohr':24s} {'cutoff':>6s} {'dF/atom':>10s} {'dForces':>9s} {'dStress':>9s} "
        f"{'dLevels':>9s} {'steps':>4s} {'energy s':>8s} {'rest s':>7s}"
    )
    chosen = options.cases or [*(n for n in found if "slab" not in n), *MOLECULES]
    for name in (n for n in chosen if n not in MOLECULES):
        print(compare(options.folder, name, options.tolerance), flush=True)
    print(
        f"\n{'isolated':24s} {'cutoff':>6s} {'dE':>10s} {'stated':>9s} {'dLevels':>9s} "
        f"{'dDipole':>9s} {'net F':>9s} {'points':>9s} {'steps':>4s} {'s':>8s}"
    )
    for name in (n for n in chosen if n in MOLECULES):
        print(compare_isolated(options.folder, name, options.tolerance), flush=True)


if __name__ == "__main__":
    main()
