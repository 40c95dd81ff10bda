"""What k-points and smearing cost: labels of displaced metals against denser meshes.

    python benchmarks/kohn_sham_sampling.py [--crystals al mg na si] [--kspacing 0.105]

For each crystal a displaced cell with orthogonal axes is solved with several ways to smear, with
the default spacing of the k-points and with a mesh half as wide again along every axis. Printed
are the changes in free energy (meV/atom), forces (mean and largest, meV/angstrom) and density
(percent of the electrons), and how far the free energy is from the one at zero width, estimated
with the narrowest Gaussian.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from fedens import GTH, GTHLocal, KohnSham, KPoints, Structure, solve_kohn_sham
from fedens.fem.modes import space_for_cutoff
from fedens.reference.kohn_sham.smearing import Smearing
from fedens.units import HARTREE_IN_EV, HARTREE_PER_BOHR_IN_EV_PER_ANGSTROM

FCC = np.array([[0.0, 0.0, 0.0], [0.0, 0.5, 0.5], [0.5, 0.0, 0.5], [0.5, 0.5, 0.0]])
BCC = np.array([[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]])
#: The orthogonal cell of hcp: a, sqrt(3) a, c.
HCP = np.array([[0.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.5, 5 / 6, 0.5], [0.0, 1 / 3, 0.5]])
#: symbol, sites, cell in bohr, pseudopotential, cutoff in hartree
CRYSTALS = {
    "al": ("Al", FCC, [7.65] * 3, GTHLocal(3, 0.7473, 4.9546, -0.8993), 8.0),
    "mg": ("Mg", HCP, [6.05, 10.479, 9.826], "gth-pade-q2", 8.0),
    "na": ("Na", BCC, [7.98] * 3, "gth-pade-q1", 6.0),
    "si": ("Si", np.vstack([FCC, FCC + 0.25]), [10.26] * 3, "gth-pade-q4", 8.0),
}
WAYS = (
    Smearing(0.04, "methfessel_paxton"),
    Smearing(0.04, "cold"),
    Smearing(0.02, "fermi_dirac"),
    Smearing(0.03, "gaussian"),
)


def displaced(name: str) -> tuple[Structure, KohnSham, float]:
    symbol, sites, cell, potential, cutoff = CRYSTALS[name]
    moved = sites * cell + np.random.default_rng(2).normal(scale=0.1, size=sites.shape)
    structure = Structure([symbol] * len(sites), moved, cell=cell, pbc=True)
    if isinstance(potential, str):
        potential = GTH.load(symbol, potential)
    return structure, KohnSham("lda_pw", potential), cutoff


def compare(name: str, kspacing: float, way: Smearing) -> str:
    structure, functional, cutoff = displaced(name)
    space = space_for_cutoff(structure, cutoff)
    begin = time.process_time()
    one, dense = (
        solve_kohn_sham(
            structure, space, functional, KPoints.from_spacing(structure, k), way, cutoff,
            residual_tolerance=1e-5,
        )
        for k in (kspacing, kspacing / 1.5)
    )  # fmt: skip
    n = len(structure)
    energy = (one.free_energy - dense.free_energy) / n * HARTREE_IN_EV * 1000
    width = (dense.free_energy - dense.energy_at_zero_width) / n * HARTREE_IN_EV * 1000
    forces = np.abs(one.forces - dense.forces) * HARTREE_PER_BOHR_IN_EV_PER_ANGSTROM * 1000
    difference = (one.density.values - dense.density.values).abs()
    density = 100 * float(space.integrate(difference) / dense.density.number_of_electrons)
    meshes = f"{len(one.sampled_kpoints)}/{len(dense.sampled_kpoints)}"
    return (
        f"{name:4s} {way.kind:18s} {way.width:5.2f} {meshes:>10s} {energy:9.3f} "
        f"{forces.mean():8.2f} {forces.max():8.2f} {density:8.4f} {width:9.2f} "
        f"{time.process_time() - begin:7.0f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--crystals", nargs="*", default=list(CRYSTALS))
    parser.add_argument("--kspacing", type=float, default=0.105, help="1/bohr")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(
        f"{'':4s} {'smearing':18s} {'width':>5s} {'k-points':>10s} {'meV/atom':>9s} {'mean':>8s} "
        f"{'max meV/A':>8s} {'% of n':>8s} {'F - E0':>9s} {'s':>7s}"
    )
    for name in options.crystals:
        for way in WAYS:
            print(compare(name, options.kspacing, way), flush=True)


if __name__ == "__main__":
    main()
