"""Ions and electrons: point-ion lattices, forces term by term, and independence of the width."""

import math

import numpy as np
import pytest
import torch
from systems import (
    DFTPY_CASES,
    ERF,
    EVANESCENT,
    GNH,
    GTHFIT,
    MADELUNG,
    cubic_lattice,
    dftpy_case,
    dimer,
    fcc,
    rattled,
)

from fedens import Density, EnergyFunctional, GTHLocal, Structure, TensorSpace, solve_ground_state
from fedens.energy.electrostatics import Electrostatics
from fedens.energy.forces import hellmann_feynman_forces
from fedens.errors import FunctionalError, PseudopotentialError
from fedens.testing import central_difference

WIDE = {"Al": 1.2}


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


def space_for(structure, spacing=0.6):
    return TensorSpace.for_structure(structure, spacing, 6, margin=9.0)


def some_density(structure, space):
    """A positive density of low symmetry with the right number of electrons."""
    r = space.points - tensor(structure.positions.mean(axis=0))
    if structure.periodic:
        angles = math.tau * space.points / tensor(space.lengths)
        root = 1 + 0.2 * torch.sin(angles[:, 0]) + 0.15 * torch.cos(angles).sum(dim=1)
    else:
        root = torch.exp(-0.08 * (r**2).sum(dim=1)) * (1 + 0.1 * torch.sin(r[:, 0] + r[:, 2]))
    return Density.from_root(space, space.project(root)).normalised(3.0 * len(structure))


def ions_at(structure, space, pseudopotential, positions=None, width=1.2):
    return Electrostatics(pseudopotential, width).bind(structure, space, positions=positions)


def check_gradient(energy_at, positions, tolerance, picks=((0, 0), (0, 2), (1, 1))):
    """Autograd's gradient in some positions against differences of the same energy."""
    leaf = tensor(positions).requires_grad_(True)
    (gradient,) = torch.autograd.grad(energy_at(leaf), leaf)
    for atom, axis in picks:
        unit = torch.zeros_like(leaf)
        unit[atom, axis] = 1.0
        slope = central_difference(
            lambda h, u=unit: float(energy_at(tensor(positions) + h * u)), 1e-3
        )
        assert float(gradient[atom, axis]) == pytest.approx(slope, abs=tolerance)
    assert gradient.abs().max() > 1e-3
    return gradient


SYSTEMS = {"periodic": rattled(), "isolated": dimer()}


@pytest.mark.parametrize("name", SYSTEMS)
def test_force_of_the_gaussian_charges(name):
    structure = SYSTEMS[name]
    space = space_for(structure)
    density = some_density(structure, space)

    def energy(positions):
        ions = ions_at(structure, space, GTHFIT, positions)
        return space.coulomb_energy(density.values - ions.charge)

    check_gradient(energy, structure.positions, 1e-8)


@pytest.mark.parametrize(
    "pseudopotential", [GTHFIT, ERF, EVANESCENT, GNH], ids=lambda p: repr(p)[:9]
)
@pytest.mark.parametrize("name", SYSTEMS)
def test_force_of_the_short_range_potentials(name, pseudopotential):
    structure = SYSTEMS[name]
    space = space_for(structure, 0.7 * pseudopotential.coarsest_spacing(1.2))
    density = some_density(structure, space)

    def energy(positions):
        ions = ions_at(structure, space, pseudopotential, positions)
        return space.integrate(density.values * ions.short_range)

    check_gradient(energy, structure.positions, 1e-8)


@pytest.mark.parametrize("name", SYSTEMS)
def test_force_of_the_ion_pairs(name):
    structure = SYSTEMS[name]
    space = space_for(structure)

    def energy(positions):
        return ions_at(structure, space, ERF, positions).ion_energy

    gradient = check_gradient(energy, structure.positions, 1e-9)
    assert gradient.sum(dim=0).abs().max() < 1e-12, "pairs push each other equally"


@pytest.mark.parametrize("pseudopotential", [GTHFIT, GNH], ids=["gaussians", "radial_sum"])
def test_nothing_changes_when_atoms_leave_through_the_boundary(pseudopotential):
    structure = rattled()
    space = space_for(structure)
    density = some_density(structure, space)
    cells = np.array([[1, 0, 0], [0, -2, 0], [0, 0, 0], [3, 1, -1]])
    outside = structure.replace(positions=structure.positions + cells * space.lengths)
    one, two = (ions_at(s, space, pseudopotential) for s in (structure, outside))
    assert torch.allclose(one.charge, two.charge, rtol=0, atol=1e-12)
    assert torch.allclose(one.short_range, two.short_range, rtol=0, atol=1e-10)
    assert float(two.ion_energy) == pytest.approx(float(one.ion_energy), abs=1e-11)
    functional = EnergyFunctional.orbital_free(pseudopotential=pseudopotential)
    forces = [hellmann_feynman_forces(functional, s, density) for s in (structure, outside)]
    assert torch.allclose(forces[0], forces[1], rtol=0, atol=1e-9)
    assert forces[0].abs().max() > 1e-2


def test_energy_is_continuous_across_the_boundary():
    """An atom that steps over the cell's face: no jump, the same slope on both sides."""
    structure = rattled()
    space = space_for(structure)
    density = some_density(structure, space)

    def energy(x):
        positions = structure.positions.copy()
        positions[0, 0] = x
        return float(ions_at(structure.replace(positions=positions), space, GTHFIT).energy(density))

    steps = [energy(x) for x in (-3e-3, -1e-3, 1e-3, 3e-3)]
    slopes = np.diff(steps) / 2e-3
    assert slopes[1] == pytest.approx(slopes[0], rel=1e-2)
    assert slopes[1] == pytest.approx(slopes[2], rel=1e-2)


@pytest.mark.parametrize("name", SYSTEMS)
def test_electrostatic_potential_is_the_energys_derivative(name):
    structure = SYSTEMS[name]
    space = space_for(structure)
    density = some_density(structure, space)
    ions = ions_at(structure, space, GTHFIT)
    change = some_density(structure, space).values * torch.cos(space.points[:, 1])

    def energy(h):
        return float(ions.energy(Density.from_values(space, density.values + h * change)))

    potential = ions.potential(density) + ions.short_range
    slope = float(space.integrate(potential * change))
    assert slope == pytest.approx(central_difference(energy, 0.1), rel=1e-9)


@pytest.mark.parametrize("name", SYSTEMS)
def test_energy_density_and_ion_energy_add_up(name):
    structure = SYSTEMS[name]
    space = space_for(structure)
    density = some_density(structure, space)
    ions = ions_at(structure, space, GTHFIT)
    total = space.integrate(ions.energy_density(density)) + ions.ion_energy
    assert float(total) == pytest.approx(float(ions.energy(density)), rel=1e-12)
    assert abs(float(ions.ion_energy)) > 0.1


def uniform_electrons(structure, space):
    """Uniform density; with ions of the erf form its energy is the point ions' in a background.

    Up to the background inside the cores: erf(r/(sqrt(2) r_loc))/r misses 2 pi r_loc^2 of 1/r.
    """
    charge = 3.0 * len(structure)
    root = torch.full_like(space.weights, (charge / space.volume) ** 0.5)
    core = 2 * math.pi * ERF.r_loc**2 * charge**2 / space.volume
    return Density.from_root(space, space.project(root)), core


@pytest.mark.parametrize("kind", MADELUNG)
@pytest.mark.parametrize("width", [0.9, 1.2, 1.6])
def test_madelung_constants(kind, width):
    structure = cubic_lattice(kind)
    space = TensorSpace(structure.orthorhombic_lengths(), 3, 8)
    density, core = uniform_electrons(structure, space)
    energy = float(ions_at(structure, space, ERF, width=width).energy(density)) - core
    radius = (3 * 112.0 / (4 * math.pi)) ** (1 / 3)
    assert energy * radius / (9 * len(structure)) == pytest.approx(MADELUNG[kind], abs=1e-6)


@pytest.mark.parametrize("name", ["fcc4_erf_tfvw1", "disp32_erf_tfvw1", "vac31_gthfit_tfvw1"])
def test_point_ion_energy_against_an_ewald_sum(name):
    """DFTpy's exact Ewald sum of the same ions."""
    case = dftpy_case(name)
    space = TensorSpace.for_structure(case.structure, 0.4, 8)
    density, core = uniform_electrons(case.structure, space)
    energy = float(ions_at(case.structure, space, ERF).energy(density)) - core
    assert energy == pytest.approx(case.parts["II"], abs=1e-6)


def test_total_energy_does_not_depend_on_the_gaussian_width():
    structure = rattled()
    space = TensorSpace.for_structure(structure, 0.27, 9)
    results = []
    for width in (0.9, 1.2, 1.5):
        functional = EnergyFunctional.orbital_free(
            "wt", pseudopotential=GTHFIT, gaussian_width=width
        )
        results.append(solve_ground_state(structure, space, functional, residual_tolerance=1e-7))
    energies = [state.energy for state in results]
    assert energies == pytest.approx([energies[1]] * 3, abs=2e-7)
    shifts = [state.chemical_potential for state in results]
    assert shifts == pytest.approx([shifts[1]] * 3, abs=1e-6)
    for state in results:
        assert state.forces == pytest.approx(results[1].forces, abs=1e-6)


def test_width_may_differ_between_elements():
    """Two elements of one pseudopotential but different widths, against one of each."""
    structure = rattled().replace(numbers=["Al", "Mg", "Al", "Mg"])
    space = TensorSpace.for_structure(structure, 0.27, 9)
    pseudopotentials = {"Al": GTHFIT, "Mg": GTHLocal(2, 0.9, 2.0)}
    density = some_density(structure, space).normalised(10.0)
    energies = [
        float(Electrostatics(pseudopotentials, widths).bind(structure, space).energy(density))
        for widths in ({"Al": 1.2, "Mg": 1.2}, {"Al": 1.0, "Mg": 1.5})
    ]
    # the energies differ by the background inside the Gaussians times the missing charge: none
    assert energies[0] == pytest.approx(energies[1], abs=1e-5)


def test_isolated_ions_far_apart_repel_as_points():
    structure = Structure(["Al", "Al"], [[0, 0, 0], [9.0, 0, 0]])
    space = TensorSpace.for_structure(structure, 0.6, 8, margin=10.0)
    ions = ions_at(structure, space, ERF)
    nothing = Density.from_values(space, torch.zeros(space.n_points))
    # two Gaussian charges' repulsion, and the pair sum that makes points of them
    assert float(ions.energy(nothing)) == pytest.approx(9.0 / 9.0, abs=5e-4)


def test_pair_energy_of_two_ions():
    structure = dimer().replace(numbers=["Al", "Mg"])
    ions = {"Al": GTHLocal(3, 0.7), "Mg": GTHLocal(2, 0.7)}
    widths = {"Al": 1.0, "Mg": 1.4}
    energy = float(Electrostatics(ions, widths).ion_energy(structure, tensor(structure.positions)))
    r = np.linalg.norm(structure.positions[1])
    pair = 6.0 * math.erfc(r / math.sqrt(2 * (1.0**2 + 1.4**2))) / r
    own = (9.0 / 1.0 + 4.0 / 1.4) / (2 * math.sqrt(math.pi))
    assert energy == pytest.approx(pair - own, rel=1e-12)


def test_an_ion_sees_its_own_images():
    structure = Structure(["Al"], [[0.0] * 3], cell=[5.0] * 3, pbc=True)
    space = space_for(structure)
    energy = float(ions_at(structure, space, ERF).ion_energy)
    cells = np.arange(-4, 5)
    shifts = 5.0 * np.array(np.meshgrid(cells, cells, cells)).reshape(3, -1).T
    r = np.linalg.norm(shifts, axis=1)
    r = r[r > 0]
    pairs = 0.5 * 9.0 * sum(math.erfc(x / (2 * 1.2)) / x for x in r)
    assert energy == pytest.approx(pairs - 9.0 / (2 * math.sqrt(math.pi) * 1.2), rel=1e-12)


def test_half_filled_sites():
    """Half-filled sites are the mean of the lattices with and without them."""
    half = fcc().replace(occupancies=[1.0, 0.5, 1.0, 0.5])
    space = space_for(fcc())
    whole, partial = (ions_at(s, space, GTHFIT) for s in (fcc(), half))
    without = fcc().replace(
        numbers=[13, 13], positions=fcc().positions[[0, 2]], occupancies=[1.0, 1.0]
    )
    alone = ions_at(without, space, GTHFIT)
    for name in ("charge", "short_range"):
        mean = (getattr(whole, name) + getattr(alone, name)) / 2
        assert torch.allclose(getattr(partial, name), mean, rtol=0, atol=1e-12)
    assert Electrostatics(GTHFIT).number_of_electrons(half) == pytest.approx(9.0)
    with pytest.raises(PseudopotentialError, match=r"partial occupancies need .* Gaussians"):
        ions_at(half, space_for(half, 0.45), EVANESCENT)


def test_number_of_electrons():
    assert Electrostatics(GTHFIT).number_of_electrons(dimer()) == 6.0
    assert Electrostatics(GTHFIT).number_of_electrons(dimer().replace(charge=1)) == 5.0
    functional = EnergyFunctional.orbital_free(pseudopotential=GTHFIT)
    with pytest.raises(FunctionalError, match=r"would have 0\.0 electrons"):
        functional.bind(dimer().replace(charge=6), space_for(dimer()))
    with pytest.raises(FunctionalError, match="charged periodic cells are not supported"):
        functional.bind(fcc().replace(charge=1), space_for(fcc()))


@pytest.mark.parametrize("kinetic", ["wt", "wgc"])
def test_nonlocal_kinetic_is_refused_in_vacuum(kinetic):
    functional = EnergyFunctional.orbital_free(kinetic, pseudopotential=GTHFIT)
    with pytest.raises(FunctionalError, match=r"not defined in vacuum; use kinetic='tfvw'"):
        functional.bind(dimer(), space_for(dimer()))


def test_functional_can_be_described_and_made_again():
    functional = EnergyFunctional.orbital_free(
        "wgc",
        pseudopotential={"Al": GTHFIT, "Mg": EVANESCENT},
        gaussian_width=1.1,
        mean_density=0.03,
    )
    copy = EnergyFunctional.from_description(functional.describe())
    assert copy.describe() == functional.describe()
    space = space_for(rattled())
    density = some_density(rattled(), space)
    energies = [float(f.bind(rattled(), space).energy(density)) for f in (functional, copy)]
    assert energies[0] == energies[1]
    single = EnergyFunctional.orbital_free(pseudopotential=GTHFIT)
    again = EnergyFunctional.from_description(single.describe())
    assert again.pseudopotentials["Xe"].describe() == GTHFIT.describe()


def test_mean_density_may_be_given():
    space = space_for(rattled())
    density = some_density(rattled(), space)
    given, natural = (
        EnergyFunctional.orbital_free("wt", pseudopotential=GTHFIT, mean_density=n0)
        .bind(rattled(), space)
        .energies(density)
        for n0 in (0.02, None)
    )
    assert given["nonlocal_kinetic"] != pytest.approx(natural["nonlocal_kinetic"], rel=1e-3)
    assert given["thomas_fermi"] == natural["thomas_fermi"]


def test_every_case_has_its_numbers():
    assert len(DFTPY_CASES) == 9
    for name in DFTPY_CASES:
        case = dftpy_case(name)
        assert case.parts["TOTAL"] == case.energy
        assert case.forces.shape == case.structure.positions.shape


@pytest.mark.parametrize("width", [0.0, -1.0, math.nan, {"Al": math.inf}])
def test_gaussians_need_a_width(width):
    with pytest.raises(FunctionalError, match="expected a positive number"):
        Electrostatics(GTHFIT, width)
