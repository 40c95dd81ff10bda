"""Waves in a sphere, and atoms in them: exact answers and all-electron atoms."""

import math

import numpy as np
import pytest
import torch
from scipy.linalg import eigh_tridiagonal
from systems import ERF

from fedens import GTH
from fedens.reference.kohn_sham.confined_atom import SphericalWaves, solve_atom
from fedens.reference.kohn_sham.smearing import Smearing

# Valence levels of spherical atoms with all electrons, hartree: AtomSphAverageRKS of PySCF, LDA of
# Perdew and Zunger, aug-cc-pvqz.
ALL_ELECTRON = {
    ("H", "gth-pade-q1"): [-0.23359],
    ("C", "gth-pade-q4"): [-0.50107, -0.19926],
    ("O", "gth-pade-q6"): [-0.87154, -0.33837],
    ("Al", "gth-pade-q3"): [-0.28740, -0.10265],
    ("Si", "gth-pade-q4"): [-0.39873, -0.15350],
}


@pytest.fixture(scope="module")
def waves():
    return SphericalWaves(7.0, 4, 40)


def test_waves_are_orthonormal_and_end_at_the_wall(waves):
    overlaps = waves.local(torch.ones_like(waves.r))
    torch.testing.assert_close(overlaps, torch.eye(40).to(overlaps).expand_as(overlaps))
    assert (waves.q.diff(dim=1) > 0).all()
    assert (waves.q.diff(dim=0) > 0).all()
    # the first zeros of j_1 and j_2, Abramowitz and Stegun, table 10.6
    assert waves.q[1:3, 0].tolist() == pytest.approx([4.493409 / 7, 5.763459 / 7], abs=1e-6)


def test_harmonic_oscillator(waves):
    """Levels 2 k + l + 3/2 times the frequency."""
    levels = torch.linalg.eigvalsh(waves.kinetic + waves.local(waves.r**2 / 2))
    expected = 2 * torch.arange(3) + torch.arange(4)[:, None] + 1.5
    torch.testing.assert_close(levels[:, :3], expected.double(), atol=1e-7, rtol=0)


@pytest.mark.parametrize("order", [0, 1, 2])
def test_soft_potential_against_finite_differences(waves, order):
    hamiltonian = (waves.kinetic + waves.local(ERF.potential(waves.r)))[order]
    levels = []
    for n in (4000, 8000):
        r, step = np.linspace(0, waves.radius, n + 1, retstep=True)
        r = r[1:-1]
        v = ERF.potential(torch.tensor(r)).numpy() + order * (order + 1) / (2 * r**2)
        off = np.full(len(r) - 1, -0.5 / step**2)
        select = {"select": "i", "select_range": (0, 2)}
        levels.append(eigh_tridiagonal(v + 1 / step**2, off, True, **select))
    extrapolated = (4 * levels[1] - levels[0]) / 3  # the error goes as the square of the step
    found = torch.linalg.eigvalsh(hamiltonian)[:3].numpy()
    np.testing.assert_allclose(found, extrapolated, atol=1e-6)


def test_coulomb_potential_of_a_gaussian(waves):
    charge = 3.0
    density = charge * torch.exp(-(waves.r**2)) / math.pi**1.5
    expected = charge * torch.erf(waves.r) / waves.r
    torch.testing.assert_close(waves.coulomb_potential(density), expected, atol=1e-8, rtol=0)


@pytest.mark.parametrize(("symbol", "name"), [("Al", "gth-pade-q3"), ("Cu", "gth-pade-q11")])
def test_projectors_have_norm_1_in_the_waves(waves, symbol, name):
    channels = GTH.load(symbol, name).projectors
    assert len(channels) > 1
    for channel in channels:
        p = waves.overlaps(channel.order, torch.tensor(channel.radial(waves.r.numpy())))
        np.testing.assert_allclose((p**2).sum(dim=1), 1, atol=1e-5)


@pytest.mark.parametrize(("element", "expected"), ALL_ELECTRON.items())
def test_levels_of_atoms_with_all_electrons(element, expected):
    wide = SphericalWaves(12.0, 3, 80)
    atom = solve_atom(wide, GTH.load(*element), Smearing(0.001))
    assert atom.levels[: len(expected), 0].tolist() == pytest.approx(expected, abs=2e-3)


def test_density_holds_the_electrons(waves):
    atom = solve_atom(waves, ERF, Smearing(0.05))
    density = atom.density(waves)
    assert float(4 * math.pi * waves.weights @ density) == pytest.approx(3)
    assert float(atom.electrons.sum()) == pytest.approx(3)


def test_energy_beyond_nothing_is_zero(waves):
    """With no wave left out of b, <b|H - eps|b> is that of the orbitals themselves."""
    beyond = solve_atom(waves, ERF, Smearing(0.05)).energy_beyond()
    assert beyond[:, 0].abs().max() < 1e-9 < beyond[0, 5]
