"""One energy-and-forces call: own Kohn-Sham, the learned functional and Wang-Teter, on one core.

The same displaced crystals of 4 to 500 atoms, each call in a process of its own. Printed are
processor seconds and the peak memory of the process. Kohn-Sham runs up to ``--kohn-sham-atoms``.

    fedens run examples/aluminium_kohn_sham.yaml
    python benchmarks/kohn_sham_vs_learned.py --kohn-sham-atoms 32
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
import warnings
from argparse import Namespace

import torch
from functionals import arguments, classical, fcc, kohn_sham, learned

from fedens.errors import ExtrapolationWarning

REPEATS = {
    4: (1, 1, 1), 8: (2, 1, 1), 16: (2, 2, 1), 32: (2, 2, 2), 108: (3, 3, 3), 256: (4, 4, 4),
    500: (5, 5, 5),
}  # fmt: skip
METHODS = ("Kohn-Sham", "learned", "Wang-Teter")


def call(method: str, atoms: int, options: Namespace) -> None:
    """Time one call in this process and print its numbers as JSON."""
    structure = fcc(REPEATS[atoms], 0.15)
    model = None if options.no_model else learned(options.model)
    if method == "Wang-Teter":
        model = classical("wt", model)
    start = time.process_time()
    if method == "Kohn-Sham":
        _ = kohn_sham(structure).forces
    else:
        assert model is not None
        model.energy_and_forces(structure)
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps([seconds, peak]))


def measure(method: str, atoms: int, options: Namespace) -> list[float] | None:
    """Seconds and MiB of a call, in a fresh process; None where it is not asked for."""
    if method == "Kohn-Sham" and atoms > options.kohn_sham_atoms:
        return None
    if method == "learned" and options.no_model:
        return None
    command = [sys.executable, __file__, *sys.argv[1:], "--call", method, str(atoms)]
    answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return list(json.loads(answer.splitlines()[-1]))


def crossing(found: dict[int, dict[str, list[float] | None]]) -> str:
    """From how many atoms on the learned functional is quicker, among those measured."""
    both = [(n, r["Kohn-Sham"], r["learned"]) for n, r in found.items()]
    pairs = [(n, ks[0] / own[0]) for n, ks, own in both if ks and own]
    ratios = ", ".join(f"{n} atoms: {ratio:.0f}" for n, ratio in pairs)
    first = next((f"{n} atoms" for n, ratio in pairs if ratio > 1), "none of these")
    if not pairs:
        return "Kohn-Sham and the learned functional were not both measured for any size"
    return f"Kohn-Sham over learned, {ratios}; learned is quicker from: {first}"


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--atoms", type=int, nargs="+", choices=REPEATS, default=list(REPEATS))
    parser.add_argument("--kohn-sham-atoms", type=int, default=8, metavar="N")
    parser.add_argument("--call", nargs=2, help="used by the script itself")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore", ExtrapolationWarning)
    if options.call:
        call(options.call[0], int(options.call[1]), options)
        return
    print("| atoms |" + "".join(f" {m}, s | {m}, MiB |" for m in METHODS))
    print("|---|" + "---|---|" * len(METHODS))
    found: dict[int, dict[str, list[float] | None]] = {}
    for atoms in options.atoms:
        found[atoms] = {m: measure(m, atoms, options) for m in METHODS}
        cells = (f" {r[0]:.2f} | {r[1]:.0f} |" if r else " | |" for r in found[atoms].values())
        print(f"| {atoms} |" + "".join(cells), flush=True)
    print("\n" + crossing(found))


if __name__ == "__main__":
    main()
