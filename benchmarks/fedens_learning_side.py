"""fedens' side of ``learning_vs_mace.py``: one training and its predictions.

Task: ``data`` (folder of a data set), ``training``, ``held_out`` (names of samples), ``rounds``
(steps), ``threads``, ``seed``. Everything else is as in ``examples/aluminium.yaml``. The networks
for the energy densities, which the energies and forces here do without, are trained and charged
too.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from learning_side import Clock, answer, timed_predictions

import fedens
from fedens import (
    GMP,
    Concatenation,
    Dataset,
    EnergyFunctional,
    Predictor,
    ResponseFields,
    Structure,
    TrainingSettings,
)
from fedens.units import HARTREE_IN_EV, HARTREE_PER_BOHR_IN_EV_PER_ANGSTROM

WIDTHS = (0.7, 1.0, 1.4, 2.0, 2.8)  # bohr


class StepTimes:
    """Processor time per step of every network, from the reports of a training."""

    def __init__(self) -> None:
        #: Of each network: (steps done, processor seconds), and the steps it will do.
        self._marks: dict[str, list[tuple[int, float]]] = {}
        self._totals: dict[str, int] = {}

    def __call__(self, entry: dict[str, Any]) -> None:
        """Take a report of ``fedens.train``."""
        if entry["stage"] == "training":
            mark = (entry["done"], time.process_time())
            self._marks.setdefault(entry["network"], []).append(mark)
            self._totals[entry["network"]] = entry["total"]

    def seconds_per_round(self, rounds: int) -> float:
        """Seconds that one more of ``rounds`` steps costs, in all networks together."""
        seconds = 0.0
        for network, marks in self._marks.items():
            (first, start), (last, end) = marks[0], marks[-1]
            seconds += self._totals[network] * (end - start) / max(1, last - first)
        return seconds / rounds


def learn(task: dict[str, Any]) -> dict[str, Any]:
    """Train and predict; energies in eV, forces in eV/angstrom, times in seconds."""
    torch.set_num_threads(task["threads"])
    data = Dataset.open(task["data"])
    clock, steps = Clock(), StepTimes()
    predictor = train(data, task, steps)
    times = {
        "rounds": task["rounds"],
        "seconds_per_round": steps.seconds_per_round(task["rounds"]),
        "training_cpu_seconds": clock.processor,
        "training_wall_seconds": clock.wall,
    }

    def predict(structure: Structure) -> tuple[float, np.ndarray]:
        numbers = predictor.energy_and_forces(structure)
        forces = numbers.forces * HARTREE_PER_BOHR_IN_EV_PER_ANGSTROM
        return numbers.energy * HARTREE_IN_EV, forces

    warm_up = [data[name].structure for name in task["training"][:1]]
    return {
        **times,
        **timed_predictions(predict, warm_up, [data[n].structure for n in task["held_out"]]),
        "parameters": sum(p.numel() for n in predictor.networks for p in n.parameters()),
        "versions": {"fedens": fedens.__version__, "torch": torch.__version__},
    }


def train(data: Dataset, task: dict[str, Any], report: StepTimes) -> Predictor:
    """The predictor of the demo, trained for a number of steps."""
    functional = EnergyFunctional.from_description(data.functional)
    return fedens.train(
        [data[name] for name in task["training"]],
        Concatenation([GMP(WIDTHS, 3, form="smooth"), ResponseFields(functional)]),
        TrainingSettings(steps=task["rounds"], seed=task["seed"]),
        functional,
        device="cpu",
        report=report,
    )


if __name__ == "__main__":
    answer(learn)
