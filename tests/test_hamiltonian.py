"""Orbitals of one k-point: densities, kinetic energies, and the operator they solve."""

import numpy as np
import pytest
import torch
from systems import rattled

from fedens import GTH, TensorSpace
from fedens.energy.nonlocal_potential import bind_projectors
from fedens.energy.projectors import ProjectorChannel
from fedens.fem import modes
from fedens.fem.modes import ModeBasis
from fedens.reference.kohn_sham.hamiltonian import Orbitals

SPACE = TensorSpace([7.65, 7.5, 7.8], 2, 8)
POTENTIAL = GTH(3, 0.8, projectors=[ProjectorChannel(1, 0.9, ((1.5,),))])
KPOINTS = {"gamma": (0.0, 0.0, 0.0), "complex": (0.25, -0.25, 0.1)}


@pytest.fixture(params=KPOINTS)
def orbitals(request):
    basis = ModeBasis.below(SPACE, 2.0, KPOINTS[request.param])
    projectors = bind_projectors({"Al": POTENTIAL}, rattled(), basis)
    return Orbitals.free(basis, projectors, 6)


def assert_orthonormal(rows):
    overlaps = (rows.conj() @ rows.T).numpy()
    np.testing.assert_allclose(overlaps, np.eye(len(rows)), atol=1e-12)


def test_the_start_is_orthonormal_and_the_same_every_time(orbitals):
    assert_orthonormal(orbitals.coefficients)
    again = Orbitals.free(orbitals.basis, orbitals.projectors, 6)
    assert torch.equal(again.coefficients, orbitals.coefficients)
    lowest = orbitals.basis.kinetic.sort().values[:6]
    assert torch.allclose(orbitals.kinetic_energies(), lowest, rtol=0, atol=0.1)


def test_more_bands_keep_those_at_hand(orbitals):
    before = orbitals.coefficients
    orbitals.add_bands(3)
    assert_orthonormal(orbitals.coefficients)
    inside = orbitals.coefficients[:6] @ before.mH @ before
    assert torch.allclose(inside, orbitals.coefficients[:6], rtol=0, atol=1e-10)
    lowest = orbitals.basis.kinetic.sort().values[:9]
    assert torch.allclose(orbitals.kinetic_energies(), lowest, rtol=0, atol=0.1)


OCCUPATIONS = torch.tensor([2.0, 2.0, 1.3, 0.0, 0.4, 0.0], dtype=torch.float64)


def test_the_density_holds_the_electrons(orbitals, monkeypatch):
    monkeypatch.setattr(modes, "_BLOCK_ENTRIES", 3 * SPACE.n_points)  # blocks of 3 and 1
    fields = orbitals.basis.evaluate(orbitals.coefficients)
    expected = OCCUPATIONS @ (fields.abs() ** 2)
    density = orbitals.density(OCCUPATIONS)
    assert torch.allclose(density, expected, rtol=0, atol=1e-13)
    assert float(SPACE.integrate(density)) == pytest.approx(5.7, abs=1e-11)


def test_the_kinetic_energy_density_holds_the_kinetic_energy(orbitals):
    tau = orbitals.kinetic_energy_density(OCCUPATIONS)
    assert float(tau.min()) >= 0
    expected = float(OCCUPATIONS @ orbitals.kinetic_energies())
    assert expected > 0.1
    assert float(SPACE.integrate(tau)) == pytest.approx(expected, abs=1e-10)


def test_a_k_point_without_electrons(orbitals):
    assert not orbitals.density(torch.zeros(6, dtype=torch.float64)).any()
    assert not orbitals.kinetic_energy_density(torch.zeros(6, dtype=torch.float64)).any()


def test_levels_are_those_of_the_matrix(orbitals):
    basis, projectors = orbitals.basis, orbitals.projectors
    potential = -0.3 * torch.cos(2 * torch.pi * SPACE.points / torch.tensor(SPACE.lengths)).sum(1)
    one = torch.eye(basis.n_modes, dtype=basis.dtype)
    matrix = torch.diag(basis.kinetic).to(basis.dtype)
    matrix = matrix + basis.multiply(potential, one).T + projectors.apply(one).T
    expected = np.linalg.eigvalsh(matrix.numpy())
    orbitals.add_bands(2)
    wanted = torch.arange(8) < 6
    found = orbitals.solve(potential, 1e-8, 60, wanted)
    assert found.residuals[:6].max() < 1e-8
    np.testing.assert_allclose(found.values[:6], expected[:6], rtol=0, atol=1e-10)
    assert orbitals.coefficients is found.vectors
    bare = Orbitals.free(basis, None, 8).solve(potential, 1e-8, 60, wanted)
    assert float((found.values - bare.values)[:6].max()) > 1e-2  # a repulsive projector
