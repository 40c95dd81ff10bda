"""Time of the descriptors by each of their paths: GMP here, then LODE (``lode_speed.py``).

Displaced fcc aluminium in cubic cells of 32 and 256 atoms (``--repeat 2 4``); GMP of widths 0.7,
1.0, 1.4, 2.0, 2.8 bohr, orders 0 to 3. Pair sums at random points, with the default reach and with
a cutoff, in float64 and float32; both tensor paths at the quadrature points of a space of the
default resolution. The best of several runs is reported, and the processor time of that run, which
other work on the machine disturbs less. An atom counts once, whatever its images. The error is the
largest root-mean-square error of a feature, relative to its spread, against the separable path.

    python benchmarks/descriptors.py --threads 2
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import lode_speed
import numpy as np
import torch
from torch import Tensor

from fedens.features import GMP
from fedens.fem.tensor import TensorSpace
from fedens.structure import Structure

WIDTHS = (0.7, 1.0, 1.4, 2.0, 2.8)
MAX_ORDER = 3
CUTOFF = 12.0
FCC = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
CONSTANT = 7.65
#: Points at which pair sums are compared with the exact path.
COMPARED = 2_000


def aluminium(repeat: int, rattle: float = 0.2) -> Structure:
    """``repeat``^3 cubic cells of aluminium, atoms displaced at random by ``rattle`` bohr."""
    corners = np.stack(np.meshgrid(*[np.arange(repeat)] * 3, indexing="ij"), -1).reshape(-1, 1, 3)
    positions = ((corners + FCC) * CONSTANT).reshape(-1, 3)
    positions += np.random.default_rng(0).normal(scale=rattle, size=positions.shape)
    return Structure(["Al"] * len(positions), positions, cell=[repeat * CONSTANT] * 3, pbc=True)


def best_time(function: Callable[[], Tensor], repeats: int) -> tuple[Tensor, float, float]:
    """Result, and wall and processor seconds of the fastest run."""
    times = []
    for _ in range(repeats):
        wall, processor = time.perf_counter(), time.process_time()
        result = function()
        times.append((time.perf_counter() - wall, time.process_time() - processor))
    return result, *min(times)


def gradient(descriptor: GMP, points: Tensor | TensorSpace, structure: Structure) -> Tensor:
    """Derivative in the positions of the sum of all features, (n_atoms, 3)."""
    positions = torch.tensor(structure.positions, requires_grad=True)
    descriptor(points, structure, positions=positions).sum().backward()
    assert positions.grad is not None
    return positions.grad


def error_of(found: Tensor, exact: Tensor) -> float:
    """Largest root-mean-square error of a feature, relative to its spread."""
    error = (found - exact).square().mean(dim=0).sqrt() / exact.std(dim=0)
    return float(error.max())


def report_gmp(repeat: int, n_points: int, repeats: int, gradients: bool) -> None:
    """Print the table of one cell."""
    structure = aluminium(repeat)
    space = TensorSpace.for_structure(structure)
    chosen = torch.randperm(space.n_points, generator=torch.Generator().manual_seed(0))[:COMPARED]
    length = repeat * CONSTANT
    points = torch.tensor(np.random.default_rng(1).uniform(0, length, (n_points, 3)))
    exact = GMP(WIDTHS, MAX_ORDER)(space, structure)
    print(f"\nGMP, {structure.formula}, {length:.1f} bohr; {torch.get_num_threads()} threads")
    print(
        f"{'path':<26}{'points':>9}{'wall, s':>9}{'cpu, s':>9}{'points x atoms / cpu s':>24}  error"
    )

    def row(name: str, descriptor: GMP, where: Tensor | TensorSpace) -> None:
        features, wall, processor = best_time(lambda: descriptor(where, structure), repeats)
        rate = len(features) * len(structure) / processor
        if isinstance(where, TensorSpace):
            error = error_of(features, exact)
        else:
            some = space.points[chosen].to(where.dtype)
            error = error_of(descriptor(some, structure), exact[chosen])
        print(
            f"{name:<26}{len(features):>9}{wall:>9.3f}{processor:>9.3f}{rate:>24.2e}  {error:.0e}"
        )
        if gradients:
            _, wall, processor = best_time(lambda: gradient(descriptor, where, structure), 1)
            print(f"{'  with derivatives':<26}{'':>9}{wall:>9.3f}{processor:>9.3f}")

    for name, where in (("float64", points), ("float32", points.float())):
        row(f"pairs, {name}", GMP(WIDTHS, MAX_ORDER), where)
        row(f"pairs, {name}, {CUTOFF:g} bohr", GMP(WIDTHS, MAX_ORDER, cutoff=CUTOFF), where)
    row("space, separable", GMP(WIDTHS, MAX_ORDER), space)
    row("space, laplacian", GMP(WIDTHS, MAX_ORDER, path="laplacian"), space)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--repeat", type=int, nargs="*", default=[2, 4], help="cells per axis")
    parser.add_argument("--points", type=int, default=100_000, help="of the pair sums")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3, help="runs of which the best counts")
    parser.add_argument("--gradients", action="store_true", help="also time derivatives")
    parser.add_argument("--no-lode", action="store_true", help="GMP only")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for repeat in arguments.repeat:
        report_gmp(repeat, arguments.points, arguments.repeats, arguments.gradients)
    if not arguments.no_lode:
        print("\nLODE")
        lode_speed.report(20_000, 3, 2, arguments.repeats, arguments.gradients)


if __name__ == "__main__":
    main()
