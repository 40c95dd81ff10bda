"""Fixtures shared by all tests; the systems themselves are in ``systems.py``."""

import os

# One thread, set before NumPy is loaded: the matrices here are small, and on a busy machine
# threads that wait for each other are many times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import molecules
import pytest
import torch
from systems import GTHFIT, dimer, rattled

from fedens import EnergyFunctional, TensorSpace, solve_ground_state

torch.set_num_threads(1)

#: Forces are first order in the residual: this one is good for 1e-8 hartree/bohr.
TIGHT = 1e-9


@pytest.fixture
def generator():
    """A seeded random number generator."""
    return torch.Generator().manual_seed(20)


@pytest.fixture(scope="session")
def rattled_state():
    """Tightly converged Wang-Teter ground state of the rattled cell."""
    structure = rattled()
    functional = EnergyFunctional.orbital_free("wt", pseudopotential=GTHFIT)
    space = TensorSpace.for_structure(structure)
    return solve_ground_state(structure, space, functional, residual_tolerance=TIGHT)


@pytest.fixture(scope="session")
def dimer_state():
    """Tightly converged ground state of the isolated dimer in a small box."""
    structure = dimer()
    functional = EnergyFunctional.orbital_free("tfvw", pseudopotential=GTHFIT)
    space = TensorSpace.for_structure(structure, spacing=0.8, order=6, margin=8.0)
    return solve_ground_state(structure, space, functional, residual_tolerance=TIGHT)


@pytest.fixture(scope="session")
def water_samples():
    """Coarse Kohn-Sham samples of displaced water molecules."""
    return [molecules.label(molecules.rattled(molecules.WATER, seed)) for seed in range(4)]


@pytest.fixture(scope="session")
def water_model(water_samples):
    """A small model that has learned them; two networks of each kind."""
    return molecules.train_water(water_samples)
