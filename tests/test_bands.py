"""Bands: shapes, and the density of states against its integral and a single level."""

import math
from dataclasses import replace

import numpy as np
import pytest
from samples import make_bands

from fedens.errors import DatasetError, SamplingError


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"kpoints": np.ones((3, 2))}, "kpoints"),
        ({"weights": np.ones(4) / 4}, "kpoints"),
        ({"eigenvalues": np.ones((2, 4))}, "occupations"),
        ({"eigenvalues": np.ones(3), "occupations": np.ones(3)}, "eigenvalues"),
        ({"occupations": np.full((3, 4), np.nan)}, "occupations"),
        ({"chemical_potential": np.inf}, "chemical_potential"),
    ],
)
def test_inconsistent_bands_are_refused(change, named):
    with pytest.raises(DatasetError, match=named):
        replace(make_bands(), **change)


def test_the_density_of_states_integrates_to_two_per_band():
    bands = make_bands()
    energies = np.linspace(-5, 5, 2001)
    states = bands.density_of_states(energies, 0.1)
    assert states.sum() * (energies[1] - energies[0]) == pytest.approx(8.0, rel=1e-10)


@pytest.mark.parametrize("width", [0.0, -0.01, math.nan])
def test_levels_need_a_width(width):
    with pytest.raises(SamplingError, match="expected more than 0"):
        make_bands().density_of_states(np.zeros(1), width)


def test_a_level_is_a_gaussian_of_its_weight():
    bands = make_bands()
    level = replace(
        bands,
        kpoints=bands.kpoints[:1],
        weights=np.ones(1),
        eigenvalues=np.array([[0.3]]),
        occupations=np.array([[2.0]]),
    )
    there, beside = level.density_of_states([0.3, 0.35], 0.05)
    assert there == pytest.approx(2 / (math.sqrt(2 * math.pi) * 0.05), rel=1e-12)
    assert beside == pytest.approx(there / math.sqrt(math.e), rel=1e-12)
