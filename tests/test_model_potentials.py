"""Electrons in model potentials: the uniform gas, one solver against another, derivatives."""

import math

import numpy as np
import pytest
import torch

from fedens.data.sample_file import read_sample, write_sample
from fedens.energy.kinetic import THOMAS_FERMI
from fedens.errors import FunctionalError, SamplingError, SpaceError
from fedens.fem.modes import ModeBasis
from fedens.fem.tensor import TensorSpace
from fedens.reference.kohn_sham.hamiltonian import Orbitals
from fedens.reference.kohn_sham.smearing import KINDS, Smearing
from fedens.reference.model_potentials.axis import AxisPotential
from fedens.reference.model_potentials.planar import _lateral_integrals, solve_planar
from fedens.reference.model_potentials.separable import solve_separable

LENGTH, ELECTRONS = 7.65, 12.0
MP = Smearing(0.04, "methfessel_paxton")
FREE = AxisPotential(LENGTH)
WAVES = AxisPotential(LENGTH, (0.02, 0.06 + 0.03j, -0.04j))


def cube(elements=2):
    return TensorSpace([LENGTH] * 3, elements, 10)


def free_energy(state):
    """A_s, hartree."""
    return state.energies["kinetic"] + state.energies["entropy"]


def thomas_fermi(electrons, volume):
    return THOMAS_FERMI * (electrons / volume) ** (5 / 3) * volume


def solved(smearing=MP, potentials=(WAVES, WAVES, FREE), kpoints=12, electrons=ELECTRONS, **more):
    return solve_separable(cube(), potentials, electrons, smearing, kpoints, **more)


@pytest.mark.parametrize("kpoints", [24, (23, 24, 25)])
def test_the_uniform_gas_is_that_of_thomas_and_fermi(kpoints):
    state = solved(potentials=(FREE,) * 3, kpoints=kpoints)
    expected = thomas_fermi(ELECTRONS, LENGTH**3)
    assert free_energy(state) == pytest.approx(expected, abs=1e-6 * ELECTRONS)
    uniform = torch.full_like(state.density, ELECTRONS / LENGTH**3)
    assert torch.allclose(state.density, uniform, rtol=1e-9)
    fermi_energy = (3 * math.pi**2 * ELECTRONS / LENGTH**3) ** (2 / 3) / 2
    assert state.chemical_potential == pytest.approx(fermi_energy, abs=1e-6)


def test_the_warm_uniform_gas_has_the_term_of_sommerfeld():
    width, volume = 0.01, 48 * 4.0**2
    space = TensorSpace([4, 4, 48], [1, 1, 10], 10)
    electrons = ELECTRONS / LENGTH**3 * volume
    state = solve_planar(space, AxisPotential(48.0), electrons, Smearing(width), 48)
    fermi_energy = (3 * math.pi**2 * electrons / volume) ** (2 / 3) / 2
    sommerfeld = -(math.pi**2 / 4) * width**2 / fermi_energy
    found = (free_energy(state) - thomas_fermi(electrons, volume)) / electrons
    assert found == pytest.approx(sommerfeld, abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_lateral_integrals_are_those_of_the_smearing(kind):
    """Against sums over a fine mesh of lateral energies."""
    width, mesh = 0.03, torch.linspace(0, 4, 200_001, dtype=torch.float64)
    x = (mesh - 0.5) / width
    g, s = KINDS[kind].occupation(x), KINDS[kind].entropy(x)
    expected = [torch.trapezoid(part, mesh) / math.pi for part in (g, mesh * g, width * s)]
    found = _lateral_integrals(torch.tensor([-0.5], dtype=torch.float64), Smearing(width, kind))
    for one, other in zip(found, expected, strict=True):
        assert float(one) == pytest.approx(float(other), abs=1e-9)


def test_a_planar_potential_is_a_separable_one_with_two_constants():
    planar = solve_planar(cube(), WAVES, ELECTRONS, MP, 24)
    separable = solved(potentials=(FREE, FREE, WAVES), kpoints=24)
    assert planar.chemical_potential == pytest.approx(separable.chemical_potential, abs=2e-6)
    for name, energy in separable.energies.items():
        assert planar.energies[name] == pytest.approx(energy, abs=1e-5), name
    for name in ("density", "kinetic_energy_density", "potential"):
        one, other = getattr(planar, name), getattr(separable, name)
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-12), name


def test_products_of_levels_are_the_levels_in_three_dimensions():
    """Against the matrix of one k-point; those of other signs have the same density."""
    length, smearing = 5.0, Smearing(0.03)
    space = TensorSpace([length] * 3, 2, 8)
    potentials = [AxisPotential(length, (0.05 * i, 0.1, 0.04j)) for i in range(3)]
    state = solve_separable(space, potentials, 3.0, smearing, 2)
    basis = ModeBasis.below(space, 24.0, (0.25, 0.25, 0.25))
    unit = torch.eye(basis.n_modes, dtype=basis.dtype)
    hamiltonian = torch.diag(basis.kinetic) + basis.multiply(state.potential, unit).T
    levels, vectors = torch.linalg.eigh(hamiltonian)
    found = smearing.occupations(levels[None, :60], torch.ones(1).double(), 3.0)
    shares = found.occupations[0]
    density = Orbitals(basis, None, vectors.T[:60].contiguous()).density(shares)
    assert state.chemical_potential == pytest.approx(found.chemical_potential, abs=1e-6)
    total = float(shares @ levels[:60]) + found.entropy_energy
    assert state.energies["total"] == pytest.approx(total, abs=1e-6)
    assert float((state.density - density).abs().max()) < 1e-4 * float(density.max())
    assert density.max() > 1.5 * density.min()


@pytest.mark.parametrize("smearing", [MP, Smearing(0.02), Smearing(0.03, "cold")])
def test_fields_integrate_to_the_electrons_and_the_energies(smearing):
    state = solved(smearing)
    space, density = state.space, state.density
    assert float(space.integrate(density)) == pytest.approx(ELECTRONS, abs=1e-8)
    kinetic = float(space.integrate(state.kinetic_energy_density))
    assert kinetic == pytest.approx(state.energies["kinetic"], abs=1e-6)
    external = float(space.integrate(density * state.potential))
    assert external == pytest.approx(state.energies["external"], abs=1e-7)
    assert density.max() > 1.5 * density.min() > 0


@pytest.mark.parametrize("solver", ["separable", "planar"])
def test_mu_less_the_potential_is_the_derivative_of_the_free_energy(solver):
    """dA_s = int (mu - v) dn between two potentials, in the middle to second order."""

    def state(strength):
        wave = AxisPotential(LENGTH, (0, 0.06 + strength, 0.03j))
        if solver == "planar":
            return solve_planar(cube(), wave, ELECTRONS + 20 * strength, MP, 12)
        return solved(potentials=(WAVES, FREE, wave), electrons=ELECTRONS + 20 * strength)

    before, at, after = (state(strength) for strength in (-0.002, 0, 0.002))
    change = free_energy(after) - free_energy(before)
    slope = at.chemical_potential - at.potential
    expected = float(at.space.integrate(slope * (after.density - before.density)))
    assert abs(change) > 0.02
    assert change == pytest.approx(expected, rel=2e-4)


def test_more_plane_waves_and_k_points_change_nothing():
    rough, fine = solved(kpoints=24), solved(kpoints=48, cutoff=40.0)
    assert rough.energies["total"] == pytest.approx(fine.energies["total"], abs=1e-6)


def test_strong_wells_need_more_levels_than_the_uniform_gas():
    wells = (AxisPotential(LENGTH, (0, -0.6, -0.3)),) * 3
    state = solved(potentials=wells)
    assert float(state.space.integrate(state.density)) == pytest.approx(ELECTRONS, rel=1e-5)


def test_a_sample_goes_to_a_file_and_back(tmp_path):
    state = solved()
    sample = state.to_sample()
    write_sample(sample, tmp_path / "x.h5")
    back = read_sample(tmp_path / "x.h5")
    assert len(back.structure) == 0
    assert back.structure.digest == sample.structure.digest
    assert back.chemical_potential == state.chemical_potential
    assert back.energy == sum(back.energies[name] for name in ("kinetic", "entropy", "external"))
    assert np.array_equal(back.fields["effective_potential"], sample.fields["effective_potential"])
    assert back.tensor_space().n_points == cube().n_points
    described = back.provenance["model"]["potentials"]
    assert [AxisPotential.from_description(one) for one in described] == [WAVES, WAVES, FREE]


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"electrons": 0}, SamplingError, "expected a positive number"),
        ({"kpoints": 0}, SamplingError, "expected 1 or more"),
        ({"smearing": Smearing()}, SamplingError, "need a smearing"),
        ({"cutoff": 1.0}, SamplingError, "raise the cutoff"),
        ({"cutoff": math.nan}, SpaceError, "expected a positive number"),
        ({"potentials": (AxisPotential(8.0),) * 3}, FunctionalError, "they must be the same"),
        ({"potentials": (FREE, FREE)}, SamplingError, "one for each of three axes"),
    ],
)
def test_what_does_not_fit_is_refused(change, error, words):
    with pytest.raises(error, match=words):
        solved(**change)


def test_a_potential_without_numbers_and_an_isolated_space_are_refused():
    with pytest.raises(FunctionalError, match="finite numbers"):
        AxisPotential(LENGTH, (0, math.nan))
    space = TensorSpace([LENGTH] * 3, 2, 10, periodic=False)
    with pytest.raises(SpaceError, match="periodic TensorSpace"):
        solve_separable(space, (FREE,) * 3, ELECTRONS, MP, 12)
