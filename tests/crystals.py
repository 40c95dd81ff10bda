"""Small crystals with orbital-free samples, and a small model of them."""

from dataclasses import replace
from functools import cache

import numpy as np
from systems import GTHFIT, fcc

from fedens import (
    GMP,
    Concatenation,
    EnergyFunctional,
    ResponseFields,
    Structure,
    TensorSpace,
    solve_ground_state,
)
from fedens.models.crystal.objective import TrainingSettings
from fedens.models.crystal.training import train

FUNCTIONAL = EnergyFunctional.orbital_free("wt", pseudopotential=GTHFIT)
DESCRIPTOR = Concatenation([GMP([1.0, 2.0], 2, form="smooth"), ResponseFields(FUNCTIONAL)])
SETTINGS = TrainingSettings(
    hidden=(32, 32), committee=1, steps=400, batch_points=2000, learning_rate=5e-3
)


def cell(seed: int, edge: float = 7.65) -> Structure:
    """Four displaced atoms; the first ones lie beyond the cell's boundary."""
    shifts = np.random.default_rng(seed).normal(0, 0.12, (4, 3))
    return Structure(["Al"] * 4, fcc(edge).positions + shifts, cell=[edge] * 3, pbc=True)


def label(structure: Structure):
    space = TensorSpace.for_structure(structure, spacing=0.55, order=5)
    return solve_ground_state(structure, space, FUNCTIONAL).to_sample()


@cache
def samples():
    """Four cells of different size."""
    return [label(cell(seed, 7.6 + 0.03 * seed)) for seed in range(4)]


@cache
def trained(seed):
    """A model of the first three."""
    return train(samples()[:3], DESCRIPTOR, replace(SETTINGS, seed=seed), device="cpu")
