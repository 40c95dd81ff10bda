"""The same Kohn-Sham calculation on two cores and on a GPU: are the numbers the same?

Compares free energy, forces and eigenvalues of occupied bands to 1e-9 hartree (and hartree/bohr),
prints both times and their ratio. Without a GPU it says so and does nothing.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

import torch
from fedens_kohn_sham_side import ground_state
from kohn_sham_settings import choice
from kohn_sham_systems import NAMES, TITLES, make_system

TOLERANCE = 1e-9


def main() -> None:
    arguments = parse_arguments()
    if not torch.cuda.is_available():
        print("no GPU: nothing is compared")
        return
    torch.set_num_threads(2)
    if arguments.kohn_sham and not compare_kohn_sham(arguments.system):
        sys.exit(1)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--kohn-sham", action="store_true", required=True, help="solve a crystal of kohn_sham.py"
    )
    parser.add_argument(
        "--system", choices=NAMES, default="al32", help="which crystal (default al32)"
    )
    return parser.parse_args()


def compare_kohn_sham(name: str) -> bool:
    """Print times and largest differences; whether all are within the tolerance."""
    solve("si8", "cuda")  # the device's libraries load on first use
    slow, seconds = solve(name, "cpu")
    quick, gpu_seconds = solve(name, "cuda")
    occupied = torch.as_tensor(slow.occupations).cpu() > 1e-6  # the bands above are a buffer
    differences = {
        "free energy": abs(float(slow.free_energy) - float(quick.free_energy)),
        "forces": largest_difference(slow.forces, quick.forces),
        "eigenvalues": largest_difference(
            torch.as_tensor(slow.eigenvalues).cpu()[occupied],
            torch.as_tensor(quick.eigenvalues).cpu()[occupied],
        ),
    }
    print(f"{TITLES[name]}: {seconds:.2f} s on 2 cores, {gpu_seconds:.2f} s on the GPU")
    print(f"ratio {seconds / gpu_seconds:.2f}; {slow.iterations} and {quick.iterations} steps")
    for quantity, difference in differences.items():
        print(f"{quantity}: {difference:.1e}{'' if difference < TOLERANCE else '  too far apart'}")
    return max(differences.values()) < TOLERANCE


def solve(name: str, device: str) -> tuple[Any, float]:
    """The state of a system and the seconds by the clock."""
    setting = {**choice("fedens", name).setting, "residual": 1e-10}
    start = time.perf_counter()
    state = ground_state(make_system(name), setting, device)
    torch.cuda.synchronize()
    return state, time.perf_counter() - start


def largest_difference(a: Any, b: Any) -> float:
    return float((torch.as_tensor(a).cpu() - torch.as_tensor(b).cpu()).abs().max())


if __name__ == "__main__":
    main()
