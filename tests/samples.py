"""Samples of random numbers, for the tests of what stores them."""

import numpy as np

from fedens.data.bands import Bands
from fedens.data.sample import Sample
from fedens.structure import Structure

FUNCTIONAL = {
    "kinetic": "wt",
    "xc": "lda_pz",
    "gauge": {"kinetic": "root gradient"},
    "gaussian_widths": {"Al": 1.2},
    "pseudopotentials": {"Al": {"kind": "gth_local", "r_loc": 0.7473}},
}


def make_sample(seed=0, functional=FUNCTIONAL, n_points=50, **options):
    """A small sample with random numbers; not physics, but every entry is filled."""
    rng = np.random.default_rng(seed)
    positions = rng.uniform(0, 1, (2, 3)) + np.array([[0], [4]])
    structure = Structure(["Al", "Al"], positions, cell=[8, 9, 10], pbc=True, charge=1)
    names = ("density", "kinetic", "xc", "electrostatic")
    arguments = {
        "structure": structure,
        "points": rng.uniform(0, 8, (n_points, 3)),
        "weights": rng.uniform(0, 1, n_points),
        "fields": {name: rng.standard_normal(n_points) for name in names},
        "energy": float(rng.standard_normal()),
        "energies": {"kinetic": 1.5, "xc": -0.25},
        "ion_energy": -2.5,
        "forces": rng.standard_normal((2, 3)),
        "stress": rng.standard_normal(3),
        "provenance": {"functional": functional, "space": {"spacing": 0.425}, "seed": seed},
    }
    return Sample(**(arguments | options))


def make_bands(seed=0):
    """Four random bands at three k-points."""
    rng = np.random.default_rng(seed)
    return Bands(
        kpoints=rng.uniform(0, 0.5, (3, 3)),
        weights=np.array([0.25, 0.25, 0.5]),
        eigenvalues=rng.standard_normal((3, 4)),
        occupations=rng.uniform(0, 2, (3, 4)),
        chemical_potential=float(rng.standard_normal()),
    )


def make_kohn_sham_sample(sampling, seed=0, **options):
    """The same as Kohn-Sham theory leaves it behind."""
    rng = np.random.default_rng(seed)
    names = ("density", "kinetic", "xc", "electrostatic", "effective_potential")
    arguments = {
        "fields": {name: rng.standard_normal(50) for name in names},
        "energies": {"kinetic": 1.5, "xc": -0.25, "nonlocal": 0.75, "entropy": -0.125},
        "bands": make_bands(seed),
        "provenance": {
            "code": "fedens Kohn-Sham",
            "functional": {"xc": "lda_pw"},
            "cutoff_hartree": 16.0,
            "sampling": sampling,
        },
    }
    return make_sample(seed, **(arguments | options))


def assert_same(one, two):
    for name in ("numbers", "positions", "cell", "pbc", "charge", "spin", "occupancies"):
        assert np.array_equal(getattr(one.structure, name), getattr(two.structure, name)), name
    for name in ("points", "weights", "forces", "stress"):
        assert np.array_equal(getattr(one, name), getattr(two, name)), name
    assert one.fields.keys() == two.fields.keys()
    assert all(np.array_equal(one.fields[name], two.fields[name]) for name in one.fields)
    for name in ("energy", "energies", "ion_energy", "converged", "provenance"):
        assert getattr(one, name) == getattr(two, name), name
    assert (one.bands is None) == (two.bands is None)
    for name in () if one.bands is None else vars(one.bands):
        assert np.array_equal(getattr(one.bands, name), getattr(two.bands, name)), name
