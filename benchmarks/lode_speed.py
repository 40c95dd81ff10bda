"""Time of long-distance features: Ewald sums at points, all points of a space, and featomic.

Displaced rock salt in a cubic cell of 32 bohr (216 atoms, a channel for each element), p = 1,
smearing 1 bohr, l up to 2: at 20,000 random points; at the points of a space with about as many;
at those of a space of the default resolution. featomic (if it is installed) expands in one radial
function per l at points given as atoms of another element, at 2,000 of the same points, because
every point costs it the same. The best of several runs is reported, and the processor time of that
run, which other work on the machine disturbs less. An atom counts once, whatever its images.

    python benchmarks/lode_speed.py --threads 2
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedens.features import LODE
from fedens.fem.tensor import TensorSpace
from fedens.structure import Structure

EDGE = 10.66
SMEARING = 1.0
WEIGHTS = {"Na": 1.0, "Cl": -1.0}
FEATOMIC_POINTS = 2_000


def rock_salt(repeat: int, rattle: float = 0.2) -> Structure:
    """``repeat``^3 cubic cells of rock salt, atoms displaced at random by ``rattle`` bohr."""
    sites = np.stack(np.meshgrid(*[np.arange(2 * repeat)] * 3, indexing="ij"), -1).reshape(-1, 3)
    names = [("Na", "Cl")[site.sum() % 2] for site in sites]
    positions = sites * EDGE / 2 + np.random.default_rng(0).normal(scale=rattle, size=sites.shape)
    return Structure(names, positions, cell=[repeat * EDGE] * 3, pbc=True)


def best_time(function: Callable[[], Any], repeats: int) -> tuple[float, float]:
    """Wall and processor seconds of the fastest run."""
    times = []
    for _ in range(repeats):
        wall, processor = time.perf_counter(), time.process_time()
        function()
        times.append((time.perf_counter() - wall, time.process_time() - processor))
    return min(times)


def gradient(descriptor: LODE, points: Tensor | TensorSpace, structure: Structure) -> None:
    """Derivative in the positions of the sum of all features."""
    positions = torch.tensor(structure.positions, requires_grad=True)
    descriptor(points, structure, positions=positions).sum().backward()


def featomic_expansion(structure: Structure, points: Tensor, max_angular: int) -> Callable[[], Any]:
    """The same field expanded by featomic around points given as atoms."""
    from ase import Atoms
    from featomic import LodeSphericalExpansion, basis, density
    from metatensor import Labels

    ghosts = Atoms(["He"] * len(points), points.numpy())
    atoms = Atoms(structure.symbols, structure.positions, cell=structure.cell, pbc=True) + ghosts
    calculator = LodeSphericalExpansion(
        density=density.SmearedPowerLaw(smearing=SMEARING, exponent=1),
        basis=basis.TensorProduct(
            max_angular=max_angular, radial=basis.Gto(max_radial=0, radius=0.5)
        ),
        k_cutoff=7 / SMEARING,
    )
    keys = [[n, 1, 2, z] for n in range(max_angular + 1) for z in (11, 17)]
    wanted = Labels(["o3_lambda", "o3_sigma", "center_type", "neighbor_type"], np.array(keys))
    where = Labels(["atom"], np.arange(len(structure), len(atoms)).reshape(-1, 1))
    return lambda: calculator.compute([atoms], selected_keys=wanted, selected_samples=where)


def report(n_points: int, repeat: int, max_angular: int, repeats: int, gradients: bool) -> None:
    """Print the table."""
    structure = rock_salt(repeat)
    length = repeat * EDGE
    points = torch.tensor(np.random.default_rng(1).uniform(0, length, (n_points, 3)))
    elements = max(1, round(n_points ** (1 / 3) / 9))
    spaces = {
        "space, coarse": TensorSpace([length] * 3, elements, 8),
        "space, default": TensorSpace.for_structure(structure),
    }
    descriptor = LODE(1.0, SMEARING, max_angular, WEIGHTS, form="squared")
    print(f"{structure.formula}, {length:.1f} bohr, l up to {max_angular}, {n_points} points")
    print(f"{torch.get_num_threads()} threads\n")
    print(f"{'path':<24}{'points':>9}{'wall, s':>9}{'cpu, s':>9}{'points x atoms / cpu s':>24}")

    def row(name: str, count: int, function: Callable[[], Any], repeats: int) -> None:
        wall, processor = best_time(function, repeats)
        rate = count * len(structure) / processor
        print(f"{name:<24}{count:>9}{wall:>9.3f}{processor:>9.3f}{rate:>24.2e}")

    row("points, Ewald", n_points, lambda: descriptor(points, structure), repeats)
    if gradients:
        row("  with derivatives", n_points, lambda: gradient(descriptor, points, structure), 1)
    for name, space in spaces.items():
        row(name, space.n_points, lambda s=space: descriptor(s, structure), repeats)
        if gradients:
            row(
                "  with derivatives",
                space.n_points,
                lambda s=space: gradient(descriptor, s, structure),
                1,
            )
    if find_spec("featomic"):
        some = points[:FEATOMIC_POINTS]
        row("featomic", len(some), featomic_expansion(structure, some, max_angular), 1)
    else:
        print("featomic is not installed: pip install featomic")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--points", type=int, default=20_000)
    parser.add_argument("--repeat", type=int, default=3, help="cubic cells per axis (default 3)")
    parser.add_argument("--max-angular", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3, help="runs of which the best counts")
    parser.add_argument("--gradients", action="store_true", help="also time derivatives")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    report(
        arguments.points,
        arguments.repeat,
        arguments.max_angular,
        arguments.repeats,
        arguments.gradients,
    )


if __name__ == "__main__":
    main()
