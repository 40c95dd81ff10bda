"""Tables of pseudopotentials: energies against DFTpy's, time and memory against GTHLocal's.

    python benchmarks/recpot.py FOLDER

with the ``.recpot`` files of the BLPS library, gzipped or not, anywhere below the folder. Time is
the processor's for binding a cell and for that with the derivative in the positions, the best of
five; memory the peak of a fresh process above what it held after the first import.
"""

from __future__ import annotations

import gzip
import json
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from fedens import EnergyFunctional, GTHLocal, Recpot, Structure, TensorSpace, solve_ground_state
from fedens.energy.electrostatics import Electrostatics

REFERENCE = Path(__file__).parents[1] / "tests" / "dftpy_recpot.json"
SPACING, ORDER = 0.23, 8


def structure_of(case: dict[str, Any]) -> Structure:
    """The crystal of a case."""
    given = json.loads(REFERENCE.read_text())["structures"][case["symbol"]]
    symbols = [case["symbol"]] * len(given["positions"])
    return Structure(symbols, given["positions"], given["cell"], pbc=True)


def error(case: dict[str, Any], path: Path) -> float:
    """Energy less DFTpy's, hartree per atom."""
    structure = structure_of(case)
    space = TensorSpace.for_structure(structure, SPACING, ORDER)
    functional = EnergyFunctional.orbital_free("wt", xc=case["xc"], pseudopotential=Recpot(path))
    state = solve_ground_state(structure, space, functional)
    return (state.energy - case["energy"]) / len(structure.positions)


def peak() -> float:
    """Largest memory this process has held, MB (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def cost(case: dict[str, Any], path: Path | None) -> tuple[float, float, float]:
    """Time (ms) of a binding, of one with forces, and memory (MB); ``GTHLocal`` without a path."""
    torch.set_num_threads(1)
    before = peak()
    pseudopotential = Recpot(path) if path else GTHLocal(3, 0.7473, 4.9546, -0.8993)
    structure = structure_of(case)
    space = TensorSpace.for_structure(structure, SPACING, ORDER)
    ions = Electrostatics(pseudopotential)
    bound, forces = [], []
    for _ in range(5):
        start = time.process_time()
        ions.bind(structure, space)
        bound.append(time.process_time() - start)
        start = time.process_time()
        positions = torch.tensor(structure.positions, requires_grad=True)
        terms = ions.bind(structure, space, positions=positions)
        felt = space.integrate(terms.short_range + terms.charge) + terms.ion_energy
        torch.autograd.grad(felt, positions)
        forces.append(time.process_time() - start)
    return min(bound) * 1e3, min(forces) * 1e3, peak() - before


def in_fresh_process(case: dict[str, Any], path: Path | None) -> tuple[float, float, float]:
    """:func:`cost` where nothing else has been allocated."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(cost, case, path).result()


def unpack(source: Path, target: Path) -> Path:
    """The table as a plain file of its name in the library."""
    packed = source.suffix == ".gz"
    path = target / (source.stem if packed else source.name)
    path.write_bytes(gzip.decompress(source.read_bytes()) if packed else source.read_bytes())
    return path


def main() -> None:
    """One row per table that has a reference energy."""
    cases = json.loads(REFERENCE.read_text())["energies"]
    print("table, - DFTpy (hartree/atom) | bind ms, GTHLocal | forces ms, GTHLocal | MB, GTHLocal")
    with TemporaryDirectory() as folder:
        for source in sorted(Path(sys.argv[1]).rglob("*.recpot*")):
            path = unpack(source, Path(folder))
            if path.name not in cases:
                continue
            case = cases[path.name]
            both = zip(in_fresh_process(case, path), in_fresh_process(case, None), strict=True)
            bind, forces, memory = (f"{a:6.1f} {b:6.1f}" for a, b in both)
            print(f"{path.name:16} {error(case, path):9.1e} | {bind} | {forces} | {memory}")


if __name__ == "__main__":
    main()
