"""What the prediction of one structure is worth, and means over many; the same for every model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedens.data.sample import Sample
from fedens.errors import ModelError

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Errors of one prediction; energies in hartree, forces (n_atoms, 3) in hartree/bohr.

    Attributes:
        name, group: of the sample; groups get means of their own. formula, symbols: of its atoms.
        numbers: errors and uncertainties by their keys in
            :data:`fedens.analysis.quantities.QUANTITIES`; energy errors carry their sign.
        energies, forces: by route, with ``reference`` among them.
        force_uncertainties: by route, where the model has them.
    """

    name: str
    group: str
    formula: str
    symbols: list[str]
    numbers: dict[str, float]
    energies: dict[str, float]
    forces: dict[str, Array]
    force_uncertainties: dict[str, Array] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON can hold it."""
        arrays = {
            name: {route: values.tolist() for route, values in getattr(self, name).items()}
            for name in ("forces", "force_uncertainties")
        }
        return vars(self) | arrays


def check_same_functional(trained: Any, sample: Sample, name: str) -> None:
    """Refuse to compare a model with a sample of another functional or level of theory.

    Raises:
        ModelError: they differ.
    """
    here = sample.provenance.get("functional")
    if here is not None and here != trained:
        raise ModelError(
            f"sample {name or sample.structure.formula} is of {here}, the model was trained on "
            f"{trained}: their energies and fields cannot be compared"
        )


def by_key(numbers: Iterable[Mapping[str, float]]) -> dict[str, Array]:
    """Absolute values of every number, of those that have it."""
    rows = list(numbers)
    keys = dict.fromkeys(key for row in rows for key in row)
    return {key: np.abs([row[key] for row in rows if key in row]) for key in keys}


def mean_errors(numbers: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Mean absolute value of every number, over those that have it."""
    return {key: float(values.mean()) for key, values in by_key(numbers).items()}


def summarise(evaluations: Sequence[Evaluation]) -> dict[str, dict[str, float]]:
    """Mean and maximum of the absolute value of every number, over those that have it."""
    return {
        key: {"mean": float(values.mean()), "max": float(values.max())}
        for key, values in by_key(e.numbers for e in evaluations).items()
    }
