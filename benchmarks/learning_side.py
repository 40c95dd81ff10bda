"""What the two sides of ``learning_vs_mace.py`` share: the task, the clocks, timed predictions.

A side is a process that reads its task as JSON from standard input, learns, predicts, and writes
its answer as JSON to the file named on its command line. Both are measured by the same clocks.
Only the standard library and numpy are used here, for it runs in the environments of both codes.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

#: Energy (eV) and forces (eV/angstrom), (n_atoms, 3), of one structure.
Predict = Callable[[Any], tuple[float, np.ndarray]]


class Clock:
    """Processor seconds (user and system, all threads) and wall seconds since it was made."""

    def __init__(self) -> None:
        self._processor, self._wall = time.process_time(), time.perf_counter()

    @property
    def processor(self) -> float:
        """Processor seconds so far."""
        return time.process_time() - self._processor

    @property
    def wall(self) -> float:
        """Wall seconds so far."""
        return time.perf_counter() - self._wall


def timed_predictions(
    predict: Predict, warm_up: Iterable[Any], structures: Iterable[Any]
) -> dict[str, Any]:
    """Energies and forces of structures, each predicted once, and the medians of the times.

    Args:
        warm_up: other structures, predicted before and not timed.
    """
    for structure in warm_up:
        predict(structure)
    energies, forces, processor, wall = [], [], [], []
    for structure in structures:
        clock = Clock()
        energy, force = predict(structure)
        processor.append(clock.processor)
        wall.append(clock.wall)
        energies.append(float(energy))
        forces.append(np.asarray(force).tolist())
    return {
        "energies_ev": energies,
        "forces_ev_per_angstrom": forces,
        "prediction_cpu_seconds": statistics.median(processor),
        "prediction_wall_seconds": statistics.median(wall),
    }


def answer(learn: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Read the task, do it, write the answer."""
    task = json.load(sys.stdin)
    Path(sys.argv[1]).write_text(json.dumps(learn(task)))
