"""Fixtures shared by all tests; the systems themselves are in ``systems.py``.

Errors of trained networks are asserted with ``bounded``: training is chaotic, and another
processor, which rounds otherwise, trains another network. ``benchmarks/trained_thresholds.py``
measures how much they scatter with the two options added here.
"""

import atexit
import os
import tempfile

# One thread, set before NumPy is loaded, also for the workers of xdist and for child processes:
# the matrices here are small, and threads that wait for each other are many times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# Free atoms of earlier runs, perhaps of other code, are not read; xdist's workers share a folder.
if "PYTEST_XDIST_WORKER" not in os.environ:
    cache = tempfile.TemporaryDirectory()
    atexit.register(cache.cleanup)
    os.environ["XDG_CACHE_HOME"] = cache.name

import json
from dataclasses import replace

import molecules
import pytest
import torch
from systems import GTHFIT, dimer, rattled

from fedens import EnergyFunctional, TensorSpace, solve_ground_state

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))

#: Forces are first order in the residual: this one is good for 1e-8 hartree/bohr.
TIGHT = 1e-9


def pytest_addoption(parser):
    parser.addoption("--training-seed", type=int, default=0, help="of networks that are bounded")
    parser.addoption("--measure", metavar="FILE", help="write down what is bounded; assert nothing")


def pytest_collection_modifyitems(items):
    for item in items:
        if "bounded" in item.fixturenames:
            item.add_marker("trained")
        if "water_model" in item.fixturenames:
            item.add_marker("slow")


@pytest.fixture(scope="session")
def training_seed(request):
    """Of the trainings whose errors are bounded; not 0 in the benchmark only."""
    return request.config.getoption("training_seed")


@pytest.fixture
def bounded(request):
    """``bounded(quantity, value, limit)``: asserts that the value is below the limit.

    A limit is at least twice the worst value over three seeds and two arithmetics.
    """
    file = request.config.getoption("measure")

    def check(quantity, value, limit):
        if file is None:
            assert value < limit, f"{quantity}: {value:.4g} where {limit:g} is allowed"
        else:
            found = {"test": request.node.nodeid, "quantity": quantity, "limit": limit}
            with open(file, "a") as record:
                print(json.dumps(found | {"value": float(value)}), file=record)

    return check


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
def water_model(water_samples, training_seed):
    """A small model that has learned them; two networks of each kind."""
    return molecules.train_water(water_samples, replace(molecules.SETTINGS, seed=training_seed))
