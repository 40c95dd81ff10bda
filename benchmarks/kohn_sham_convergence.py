"""How Kohn-Sham energies converge: with the cutoff, the mesh, and through the egg-box.

    python benchmarks/kohn_sham_convergence.py [--crystals al4 si8] [--parts cutoff mesh eggbox]

Displaced Al4 and Si8 with GTH-PADE pseudopotentials, LDA of Perdew and Wang, the four points
(1/4, +-1/4, +-1/4), kT = 0.01 hartree for aluminium. Energies in meV/atom and largest force errors
in meV/angstrom against the last row of each table; processor seconds of energy and forces.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

import numpy as np
import torch

from fedens import GTH, KohnSham, KohnShamState, Structure, TensorSpace, solve_kohn_sham
from fedens.fem.modes import space_for_cutoff
from fedens.reference.kohn_sham.cutoffs import default_cutoff
from fedens.units import HARTREE_IN_EV, HARTREE_PER_BOHR_IN_EV_PER_ANGSTROM

FCC = np.array([[0.0, 0.0, 0.0], [0.0, 0.5, 0.5], [0.5, 0.0, 0.5], [0.5, 0.5, 0.0]])
#: symbol, sites, edge in bohr, pseudopotential, smearing in hartree
CRYSTALS = {
    "al4": ("Al", FCC, 7.65, "gth-pade-q3", 0.01),
    "si8": ("Si", np.vstack([FCC, FCC + 0.25]), 10.26, "gth-pade-q4", 0.0),
}
POINTS = [[0.25, a, b] for a in (0.25, -0.25) for b in (0.25, -0.25)]
CUTOFFS = (8, 12, 16, 24, 32, 44)


def crystal(name: str, shift: Sequence[float] = (0, 0, 0)) -> tuple[Structure, KohnSham, float]:
    symbol, sites, edge, potential, smearing = CRYSTALS[name]
    displaced = sites * edge + np.random.default_rng(1).normal(scale=0.1, size=sites.shape)
    structure = Structure([symbol] * len(sites), displaced + shift, cell=[edge] * 3, pbc=True)
    return structure, KohnSham("lda_pw", GTH.load(symbol, potential)), smearing


def solve(name: str, space: TensorSpace | None, cutoff: float, shift: Sequence[float] = (0, 0, 0)):
    structure, functional, smearing = crystal(name, shift)
    space = space or space_for_cutoff(structure, cutoff)
    begin = time.process_time()
    state = solve_kohn_sham(
        structure, space, functional, (POINTS, [0.25] * 4), smearing, cutoff, symmetry=False
    )
    _ = state.forces
    return state, time.process_time() - begin


def table(title: str, labels: list[str], states: list[tuple[KohnShamState, float]]) -> None:
    print(f"\n{title}")
    print(f"{'':>20s} {'points':>8s} {'modes':>7s} {'meV/atom':>10s} {'meV/A':>8s} {'s':>7s}")
    last = states[-1][0]
    for label, (state, seconds) in zip(labels, states, strict=True):
        n = len(state.structure)
        energy = (state.free_energy - last.free_energy) / n * HARTREE_IN_EV * 1000
        worst = np.abs(state.forces - last.forces).max() * HARTREE_PER_BOHR_IN_EV_PER_ANGSTROM
        print(
            f"{label:>20s} {state.space.n_points:8d} {state.orbitals[0].basis.n_modes:7d} "
            f"{energy:10.4f} {worst * 1000:8.3f} {seconds:7.2f}"
        )


def by_cutoff(name: str) -> None:
    states = [solve(name, None, cutoff) for cutoff in CUTOFFS]
    table(f"{name}: cutoff, hartree", [str(c) for c in CUTOFFS], states)


def by_mesh(name: str) -> None:
    """Elements of two orders, at a cutoff that all hold."""
    edge, cutoff = CRYSTALS[name][2], 12.0
    meshes = [(n, order) for order in (6, 10) for n in range(2, 9)]
    spaces = [(n, o, TensorSpace([edge] * 3, n, o)) for n, o in meshes]
    held = [(n, o, s) for n, o, s in spaces if 1.2 < 4.9 * s.spacing < 2.2]
    held.append((6, 10, TensorSpace([edge] * 3, 6, 10)))
    states = [solve(name, space, cutoff) for _, _, space in held]
    table(f"{name}: mesh at 12 hartree", [f"{n} of order {o}" for n, o, _ in held], states)


def egg_box(name: str) -> None:
    structure, functional, _ = crystal(name)
    cutoff = default_cutoff(structure, functional)
    space = space_for_cutoff(structure, cutoff)
    element = space.axes[0].length / (len(space.axes[0].edges) - 1)
    states = [
        solve(name, space, cutoff, t * element * np.array([1, 0.7, 0.4]))[0]
        for t in (0, 0.17, 0.39, 0.5, 0.77, 1)
    ]
    spread = np.ptp([s.free_energy for s in states]) / len(structure) * HARTREE_IN_EV * 1000
    net = max(np.abs(s.forces.sum(axis=0)).max() for s in states)
    print(
        f"\n{name}: moved through the mesh at {cutoff:g} hartree ({space}): "
        f"{spread:.4f} meV/atom, net force "
        f"{net * HARTREE_PER_BOHR_IN_EV_PER_ANGSTROM * 1000:.3f} meV/A"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--crystals", nargs="*", default=list(CRYSTALS))
    parser.add_argument("--parts", nargs="*", default=["cutoff", "mesh", "eggbox"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.crystals:
        for part, run in {"cutoff": by_cutoff, "mesh": by_mesh, "eggbox": egg_box}.items():
            if part in options.parts:
                run(name)


if __name__ == "__main__":
    main()
