"""Time and memory of one self-consistent step against the number of atoms, and where it goes.

    python benchmarks/kohn_sham_scaling.py [--repeats 1x1x1 2x1x1 2x2x2 3x2x2 3x3x3] [--cutoff 8]

Displaced fcc aluminium (gth-pade-q3, LDA of Perdew and Wang, kT = 0.01 hartree), Gamma only, one
thread. Seconds are of the processor; the split is that of the profiler over the whole calculation.
"""

from __future__ import annotations

import argparse
import cProfile
import multiprocessing
import pstats
import resource
import time
from pathlib import Path

import numpy as np
import torch

from fedens import GTH, KohnSham, Structure, solve_kohn_sham
from fedens.fem.modes import space_for_cutoff

EDGE = 7.65
FCC = np.array([[0.0, 0.0, 0.0], [0.0, 0.5, 0.5], [0.5, 0.0, 0.5], [0.5, 0.5, 0.0]])
#: Column -> functions whose time, with all they call, it holds: file and name.
SPLIT = {
    "transforms": (("tensor", "kronecker_product"),),
    "projectors": (("nonlocal_potential", "apply"), ("nonlocal_potential", "_channel_overlaps")),
    "subspace": (
        ("eigensolver", "lowest"),
        ("eigensolver", "expanded"),
        ("eigensolver", "orthonormal"),
    ),
    "potential": (("kohn_sham", "potential"), ("mixing", "next"), ("start", "starting_density")),
}


def supercell(repeats: tuple[int, int, int]) -> Structure:
    shifts = np.stack(np.meshgrid(*map(np.arange, repeats), indexing="ij"), -1).reshape(-1, 3)
    sites = (FCC[None] + shifts[:, None]).reshape(-1, 3) * EDGE
    moved = sites + np.random.default_rng(0).normal(scale=0.1, size=sites.shape)
    return Structure(["Al"] * len(sites), moved, cell=EDGE * np.array(repeats), pbc=True)


def measure(repeats: tuple[int, int, int], cutoff: float) -> dict[str, float]:
    """Run in a process of its own, so that memory is its own."""
    torch.set_num_threads(1)
    structure = supercell(repeats)
    functional = KohnSham("lda_pw", GTH.load("Al", "gth-pade-q3"))
    space = space_for_cutoff(structure, cutoff)
    profile = cProfile.Profile(time.process_time)
    begin = time.process_time()
    profile.enable()
    state = solve_kohn_sham(
        structure, space, functional, None, 0.01, cutoff, residual_tolerance=1e-5
    )
    profile.disable()
    solved = time.process_time()
    _ = state.forces
    row = {
        "atoms": len(structure),
        "points": space.n_points,
        "modes": state.orbitals[0].basis.n_modes,
        "bands": state.eigenvalues.shape[1],
        "steps": state.iterations,
        "step": (solved - begin) / state.iterations,
        "forces": time.process_time() - solved,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    return row | split(profile)


def split(profile: cProfile.Profile) -> dict[str, float]:
    """Share of the time in each column of the table, percent."""
    stats = pstats.Stats(profile)
    shares = {}
    for column, names in SPLIT.items():
        found = [
            s[3] for (file, _, name), s in stats.stats.items() if (Path(file).stem, name) in names
        ]
        shares[column] = 100 * sum(found) / stats.total_tt
    return shares


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--repeats", nargs="*", default=["1x1x1", "2x1x1", "2x2x2", "3x2x2", "3x3x3"]
    )
    parser.add_argument("--cutoff", type=float, default=8.0, help="hartree")
    options = parser.parse_args()
    rows = []
    for text in options.repeats:
        repeats = tuple(int(n) for n in text.split("x"))
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            row = pool.apply(measure, (repeats, options.cutoff))
        if not rows:
            print("  ".join(f"{name:>10s}" for name in row))
        rows.append(row)
        print("  ".join(f"{value:10.4g}" for value in row.values()), flush=True)
    atoms, seconds = ([row[key] for row in rows] for key in ("atoms", "step"))
    if len(rows) > 2:
        power = np.polyfit(np.log(atoms[-3:]), np.log(seconds[-3:]), 1)[0]
        print(f"seconds per step grow as atoms^{power:.2f} over the last three")


if __name__ == "__main__":
    main()
