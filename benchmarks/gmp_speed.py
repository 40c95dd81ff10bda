"""Time of Gaussian multipole features by both paths, and what a cutoff of the pair sum costs.

Rattled fcc aluminium in a cubic cell of 15.3 bohr (32 atoms), at the 74,088 quadrature points of
a space of order 6 at 0.425 bohr; widths 0.7, 1.0, 1.4, 2.0, 2.8 bohr, orders 0 to 3, as in
training. The best of several runs is reported, and the processor time of that run, which other
work on the machine disturbs less.

    python benchmarks/gmp_speed.py --threads 2
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from fedens.features import GMP
from fedens.fem.tensor import TensorSpace
from fedens.structure import Structure

WIDTHS = (0.7, 1.0, 1.4, 2.0, 2.8)
FCC = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
CONSTANT = 7.65


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


def report(cutoffs: list[float], repeat: int, repeats: int, gradients: bool) -> None:
    """Print the table."""
    structure = aluminium(repeat)
    space = TensorSpace.for_structure(structure, spacing=0.425, order=6)
    print(f"{structure}\n{space}\n{torch.get_num_threads()} threads\n")
    print(
        f"{'path':<24}{'wall, s':>9}{'cpu, s':>9}   largest error / largest value, orders -1 to 3"
    )
    exact = GMP(WIDTHS, 3)
    reference, wall, processor = best_time(lambda: exact(space, structure), repeats)
    print(f"{'axes (exact)':<24}{wall:9.3f}{processor:9.3f}")
    if gradients:
        _, wall, processor = best_time(lambda: gradient(exact, space, structure), repeats)
        print(f"{'  with derivatives':<24}{wall:9.3f}{processor:9.3f}")
    for cutoff in cutoffs:
        descriptor = GMP(WIDTHS, 3, cutoff=cutoff)
        values, wall, processor = best_time(
            lambda d=descriptor: d(space.points, structure), repeats
        )
        error = (values - reference).abs().amax(dim=0) / reference.abs().amax(dim=0)
        name = f"pairs, cutoff {cutoff:g} bohr"
        print(f"{name:<24}{wall:9.3f}{processor:9.3f}   density {error[0]:.1e}")
        for i, width in enumerate(WIDTHS):
            of_width = "  ".join(f"{e:.1e}" for e in error[1 + i :: len(WIDTHS)])
            print(f"{'':45}width {width:3.1f}: {of_width}")
        if gradients:
            d = descriptor
            _, wall, processor = best_time(
                lambda d=d: gradient(d, space.points, structure), repeats
            )
            print(f"{'  with derivatives':<24}{wall:9.3f}{processor:9.3f}")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--cutoff", type=float, nargs="*", default=[12.0], help="bohr, any number")
    parser.add_argument("--repeat", type=int, default=2, help="cubic cells per axis (default 2)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5, help="runs of which the best counts")
    parser.add_argument("--gradients", action="store_true", help="also time derivatives")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    report(arguments.cutoff, arguments.repeat, arguments.repeats, arguments.gradients)


if __name__ == "__main__":
    main()
