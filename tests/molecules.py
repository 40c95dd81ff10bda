"""Molecules with coarse Kohn-Sham samples on tetrahedra, and a small model of them."""

import numpy as np

from fedens.fem.simplex import SimplexSpace
from fedens.models.molecule.training import MolecularTrainingSettings, train_molecules
from fedens.reference.pyscf.free_atoms import free_atoms
from fedens.reference.pyscf.kohn_sham import kohn_sham
from fedens.structure import Structure

LEVEL = {"xc": "pbe", "basis": "sto-3g"}
#: Off their minima, without symmetry.
WATER = Structure(["O", "H", "H"], [[0.1, 0.0, 0.2], [0.0, 1.43, -0.9], [0.2, -1.5, -0.8]])
AMMONIA = Structure(
    ["N", "H", "H", "H"],
    [[0.0, 0.1, 0.2], [1.8, 0.0, -0.5], [-0.9, 1.55, -0.5], [-0.9, -1.5, -0.6]],
)
#: A model of these settings knows its samples and little else.
SETTINGS = MolecularTrainingSettings(
    committee=2,
    channels=8,
    hidden=16,
    steps=120,
    energy_steps=120,
    batch=3,
    points=3000,
    learning_rate=4e-3,
)


def rattled(structure, seed, size=0.05):
    """Every atom displaced, bohr."""
    shifts = np.random.default_rng(seed).normal(0, size, (len(structure), 3))
    return structure.replace(positions=structure.positions + shifts)


def mesh(structure, finest=0.7, growth=1.0, margin=8.0):
    """Tetrahedra whose cells at a nucleus are smaller the larger its charge."""
    sizes = {
        s: finest / n for s, n in zip(structure.symbols, structure.numbers.tolist(), strict=True)
    }
    return SimplexSpace.for_structure(structure, sizes, growth, margin)


def label(structure):
    """Kohn-Sham fields on a coarse mesh."""
    return kohn_sham(structure, mesh(structure), **LEVEL, grid_level=1, conv_tol=1e-9)


def atoms_of(*symbols):
    """Free atoms at the same level."""
    return free_atoms(symbols, **LEVEL)


def train_water(samples, settings=SETTINGS, **options):
    """A model of water."""
    return train_molecules(samples, atoms_of("O", "H"), settings, **options)
