"""What the choice of reference points does to an energy model: errors, cost, artefacts of grids."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

import numpy as np

from fedens.errors import ExtrapolationWarning
from fedens.models.points.data import StructureData
from fedens.models.points.model import EnergyModel, PointModels
from fedens.models.points.objective import energy_and_forces_from
from fedens.structure import Structure
from fedens.units import HARTREE_IN_MEV, HARTREE_PER_BOHR_IN_MEV_PER_ANGSTROM

Row = dict[str, Any]

#: What a model is taught -> weights of energies, forces and fields in the loss.
LABELS: dict[str, tuple[float, float, float]] = {
    "energies": (1.0, 0.0, 0.0),
    "energies and forces": (1.0, 1.0, 0.0),
    "fields": (0.0, 0.0, 1.0),
    "all": (1.0, 1.0, 1.0),
}
#: Shifts of a rigid crystal, in bohr, whose energies are compared; along no axis of a mesh.
_SHIFTS = ((0.31, 0.17, 0.23), (0.53, 0.41, 0.67), (0.9, 0.75, 0.2))


@dataclass(frozen=True)
class Outcome:
    """One training and its held-out errors.

    Attributes:
        points, labels: reference points and what was taught, by name.
        structures: number of training structures. seed: of their choice and of the network.
        energy_error: mean absolute, meV/atom. force_error: mean absolute, meV/angstrom.
        seconds_per_epoch: processor time of one pass over the training structures.
        epochs: number of passes in the time given.
    """

    points: str
    labels: str
    structures: int
    seed: int
    energy_error: float
    force_error: float
    seconds_per_epoch: float
    epochs: float


@dataclass(frozen=True)
class Cost:
    """What a set of reference points costs, in processor time, and what is wrong with it.

    Attributes:
        points: by name. n_points: of one structure.
        preparation_seconds: features and their derivatives, one structure.
        stored_mebibytes: these in memory, one structure.
        prediction_seconds: energy and forces of one new structure.
        net_force: |sum of the forces|, meV/angstrom. egg_box: largest change of the energy when
            the whole crystal is shifted, meV/atom.
    """

    points: str
    n_points: int
    preparation_seconds: float
    stored_mebibytes: float
    prediction_seconds: float
    net_force: float
    egg_box: float


def held_out_errors(model: EnergyModel, held_out: Sequence[StructureData]) -> tuple[float, float]:
    """Mean absolute errors of energies, meV/atom, and force components, meV/angstrom."""
    energy_errors, force_errors = [], []
    for one in held_out:
        energy, forces = energy_and_forces_from(PointModels(model.parts), one)
        assert forces is not None
        assert one.forces is not None
        energy_errors.append(abs(float(energy.detach()) - one.energy) / len(one.structure))
        force_errors.append(float((forces.detach() - one.forces).abs().mean()))
    energy_error = HARTREE_IN_MEV * mean(energy_errors)
    return energy_error, HARTREE_PER_BOHR_IN_MEV_PER_ANGSTROM * mean(force_errors)


def cost_of(
    name: str,
    model: EnergyModel,
    structure: Structure,
    data: StructureData,
    preparation_seconds: float,
) -> Cost:
    """Measure a set of points on one structure, with a trained model."""
    moved = [structure.replace(positions=structure.positions + np.array(s)) for s in _SHIFTS]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExtrapolationWarning)  # nothing is said of its errors here
        start = time.process_time()
        found = model.energy_and_forces(structure)
        seconds = time.process_time() - start
        changes = [abs(model.energy(one) - found.energy) for one in moved]
    stored = [t for points in data.sets for t in vars(points).values() if t is not None]
    return Cost(
        name,
        sum(len(points.weights) for points in data.sets),
        preparation_seconds,
        sum(t.numel() * t.element_size() for t in stored) / 2**20,
        seconds,
        HARTREE_PER_BOHR_IN_MEV_PER_ANGSTROM * float(np.linalg.norm(found.forces.sum(axis=0))),
        HARTREE_IN_MEV * max(changes) / len(structure),
    )


def averages(outcomes: Sequence[Outcome]) -> list[Row]:
    """One row for each of points, labels and structures: means over the seeds, spread of errors."""
    groups: dict[tuple[str, str, int], list[Outcome]] = {}
    for one in outcomes:
        groups.setdefault((one.points, one.labels, one.structures), []).append(one)
    rows = []
    for key, group in groups.items():
        row: Row = dict(zip(("points", "labels", "structures"), key, strict=True))
        for name in ("energy_error", "force_error", "seconds_per_epoch", "epochs"):
            values = [getattr(one, name) for one in group]
            row[name] = mean(values)
            if name.endswith("error"):
                row[f"{name}_spread"] = float(np.std(values))
        rows.append(row)
    return rows


def structures_needed(
    rows: Sequence[Row], points: str, labels: str, force_error: float
) -> int | None:
    """Fewest training structures with which the mean force error is at most the given one."""
    enough = [
        row["structures"]
        for row in rows
        if (row["points"], row["labels"]) == (points, labels) and row["force_error"] <= force_error
    ]
    return min(enough, default=None)


def findings(outcomes: Sequence[Outcome], costs: Sequence[Cost]) -> list[str]:
    """What the numbers say, in sentences; only what was measured."""
    rows = averages(outcomes)
    largest = max(row["structures"] for row in rows)
    sentences = []
    for labels in dict.fromkeys(row["labels"] for row in rows):
        listed = ", ".join(
            "{points} {force_error:.3g} meV/angstrom and {energy_error:.3g} meV/atom".format(**row)
            for row in _ranked(rows, labels, largest)
        )
        sentences.append(f"Taught {labels}, {largest} structures, best forces first: {listed}.")
    return [*sentences, *_what_fields_save(rows, largest), *_where_grids_lose(costs)]


def _ranked(rows: Sequence[Row], labels: str, size: int) -> list[Row]:
    """Rows of the same labels and number of structures, best forces first."""
    chosen = [row for row in rows if (row["labels"], row["structures"]) == (labels, size)]
    return sorted(chosen, key=lambda row: row["force_error"])


def _what_fields_save(rows: Sequence[Row], largest: int) -> Iterator[str]:
    for best in _ranked(rows, "energies and forces", largest)[:1]:
        for labels in ("fields", "all"):
            kinds = dict.fromkeys(row["points"] for row in rows if row["labels"] == labels)
            needed = {
                kind: structures_needed(rows, kind, labels, best["force_error"]) for kind in kinds
            }
            words = ", ".join(
                f"{kind} {'never' if count is None else f'with {count} structures'}"
                for kind, count in needed.items()
            )
            if words:
                yield (
                    f"The force error that energies and forces of {largest} structures reach at "
                    f"their best ({best['points']}, {best['force_error']:.3g} meV/angstrom) is "
                    f"reached when {labels} {'are' if labels == 'fields' else 'is'} taught: "
                    f"{words}."
                )


def _where_grids_lose(costs: Sequence[Cost]) -> list[str]:
    fixed = [one for one in costs if one.net_force > 1e-6]
    moving = [one for one in costs if one.net_force <= 1e-6]
    if not fixed or not moving:
        return []
    words = "; ".join(
        f"{one.points}: net force {one.net_force:.3g} meV/angstrom, egg-box {one.egg_box:.3g} "
        f"meV/atom, {one.prediction_seconds:.2g} s per prediction"
        for one in fixed
    )
    others = ", ".join(f"{one.points} {one.prediction_seconds:.2g} s" for one in moving)
    return [
        "Points fixed in space lose where the crystal moves against them: "
        f"{words}. Atoms and bonds move along and have neither error; they predict in: {others}."
    ]
