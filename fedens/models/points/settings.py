"""How an energy model is trained."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EnergyTrainingSettings:
    """How to train an energy model.

    Attributes:
        hidden: units of the hidden layers; empty for a linear model.
        energy_weight, force_weight, field_weight: of the three terms of the loss; zero leaves
            a label out. Fields are learned at the first set of points.
        steps: of the optimiser. max_seconds: end sooner after this processor time.
        batch_points: points of the fields' term per step. learning_rate: highest rate of AdamW.
        ridge: damping of the least-squares start, relative to the mean diagonal.
        seed: of weights and batches.
    """

    hidden: tuple[int, ...] = (64, 64)
    energy_weight: float = 1.0
    force_weight: float = 1.0
    field_weight: float = 0.0
    steps: int = 2000
    max_seconds: float | None = None
    batch_points: int = 4096
    learning_rate: float = 1e-3
    ridge: float = 1e-6
    seed: int = 0
