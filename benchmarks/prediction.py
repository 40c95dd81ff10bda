"""One call for energy and forces: its parts, the solver beside it, memory, and what a guess saves.

For displaced aluminium cells of 32 and 108 sites: seconds of descriptors, networks, functional and
the backward pass of an energy-and-forces call of the demo's model, the whole call with and without
refinement and stress, and the solver's time for the same structure on the same mesh. Then the
energy evaluations that ``solve_ground_state`` needs from different starts, and the peak memory of
one call for 256 sites, in a process of its own.

    fedens run examples/aluminium.yaml
    python benchmarks/prediction.py
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from demo_run import DemoRun, arguments

from fedens import Predictor, Structure, solve_ground_state
from fedens.errors import ExtrapolationWarning
from fedens.sources.thermal_cells import ThermalCells

DISPLACEMENT = 0.2


def crystal(repeat: int) -> Structure:
    """``repeat``^3 cubic cells of aluminium with displaced atoms."""
    cells = ThermalCells(
        supercell=(repeat,) * 3,
        count=1,
        displacement=(DISPLACEMENT, DISPLACEMENT),
        strain=0.0,
        vacancy_fraction=0.0,
    )
    return cells.structure(0, seed=1)


def seconds(function: Callable[[], Any], repeats: int) -> float:
    """Shortest of some runs after one to warm up."""
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def parts(predictor: Predictor, structure: Structure, repeats: int) -> dict[str, float]:
    """Seconds of each part of a call, and of the whole."""
    space = predictor.space_for(structure)
    bound = predictor.functional.bind(structure, space)
    coefficients = predictor.density(structure, space).root_coefficients
    features = predictor.scaled_features(space, structure)

    @torch.no_grad()
    def descriptors() -> None:
        predictor.scaled_features(space, structure)

    @torch.no_grad()
    def networks() -> None:
        for network in predictor.networks:
            network.root_density(features)

    def call(steps: int = 0, stress: bool = False) -> Callable[[], Any]:
        return lambda: predictor.energy_and_forces(structure, "functional", space, steps, stress)

    times = {
        "descriptors": seconds(descriptors, repeats),
        "networks": seconds(networks, repeats),
        "functional": seconds(lambda: bound.energy_and_gradient(coefficients), repeats),
    }
    whole = seconds(call(), repeats)
    return times | {
        "backward and the rest": whole - sum(times.values()),
        "energy and forces": whole,
        "  with stress": seconds(call(stress=True), repeats),
        "  refined once": seconds(call(1), repeats),
        "solver, energy and forces": seconds(
            lambda: solve_ground_state(structure, space, predictor.functional).forces, repeats
        ),
    }


def guesses(demo: DemoRun, count: int) -> dict[str, list[int]]:
    """Energy evaluations to a residual of 1e-6 hartree for held-out structures, by start."""
    result: dict[str, list[int]] = {
        "superposed atoms": [],
        "linear response": [],
        "prediction": [],
    }
    for name in demo.held_out[:count]:
        sample = demo.data[name]
        space, structure = sample.tensor_space(), sample.structure
        starts = ("superposed_atoms", "linear_response", demo.predictor.density(structure, space))
        for label, start in zip(result, starts, strict=True):
            state = solve_ground_state(structure, space, demo.predictor.functional, guess=start)
            result[label].append(state.evaluations)
    return result


def peak_memory(run: str, repeat: int) -> None:
    """Print the peak memory, MiB, of one energy-and-forces call in this process."""
    predictor = Predictor.load(f"{run}/model")
    structure = crystal(repeat)
    predictor.energy_and_forces(structure)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    points = predictor.space_for(structure).n_points
    print(f"{len(structure)} atoms, {points} points: {peak:.0f} MiB at most")


def main() -> None:
    """Print the tables."""
    parser = arguments(__doc__)
    parser.add_argument("--memory-of", type=int, help="used by the script itself")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore", ExtrapolationWarning)
    if options.memory_of:
        peak_memory(str(options.run), options.memory_of)
        return
    demo = DemoRun.open(options.run)
    for repeat in (2,) if options.quick else (2, 3):
        structure = crystal(repeat)
        repeats = 3 if repeat == 2 else 1
        print(f"{len(structure)} atoms: seconds, {options.threads} threads, best of {repeats}")
        for name, value in parts(demo.predictor, structure, repeats).items():
            print(f"{name:28s}{value:12.3f}", flush=True)
    print("\nenergy evaluations to a residual of 1e-6 hartree, mean over held-out structures")
    for label, counts in guesses(demo, 2 if options.quick else 12).items():
        print(f"{label:28s}{np.mean(counts):12.1f}")
    if not options.quick:
        print("\nmemory", flush=True)
        command = [sys.executable, __file__, "--run", str(options.run), "--memory-of", "4"]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
