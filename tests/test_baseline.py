"""Free atoms against radial references, and their superposition."""

import itertools
import json
import math

import numpy as np
import pytest
import torch
from systems import ERF, EVANESCENT, FREE_ATOMS, GNH, GTHFIT, atom, dimer, rattled

from fedens import EnergyFunctional, GTHLocal, TensorSpace, solve_ground_state
from fedens.atoms.baseline import (
    BASELINES,
    GaussianAtoms,
    baseline_from_description,
    baseline_of,
    default_baseline,
    default_guess,
)
from fedens.atoms.pseudo import free_atom, superposed_density
from fedens.errors import FedensError, FunctionalError, PseudopotentialError
from fedens.testing import central_difference


def functional(pseudopotential, vw_weight=1.0, **options):
    return EnergyFunctional.orbital_free(
        "tfvw", vw_weight, pseudopotential=pseudopotential, **options
    )


@pytest.mark.parametrize("name", FREE_ATOMS)
def test_free_atom_against_the_radial_reference(name):
    case = FREE_ATOMS[name]
    result = free_atom(functional(case.pseudopotential, case.vw_weight), "Al")
    assert result.energy == pytest.approx(case.energy, abs=case.tolerance)
    if case.chemical_potential is not None:
        assert result.chemical_potential == pytest.approx(case.chemical_potential, abs=1e-7)


@pytest.mark.parametrize("name", ["gthfit_1", "erf_1"])
def test_atom_in_a_box_against_the_radial_atom(name):
    """Three dimensions and one: two discretisations of the same problem."""
    case = FREE_ATOMS[name]
    space = TensorSpace.for_structure(atom(), spacing=0.4, order=8)
    state = solve_ground_state(atom(), space, functional(case.pseudopotential, case.vw_weight))
    assert state.energy == pytest.approx(case.energy, abs=2e-5)
    radial = free_atom(state.functional, "Al")
    assert state.chemical_potential == pytest.approx(radial.chemical_potential, abs=2e-5)


def test_radial_density_is_the_boxs():
    space = TensorSpace.for_structure(atom(), spacing=0.4, order=8)
    state = solve_ground_state(atom(), space, functional(ERF))
    radial = free_atom(state.functional, "Al")
    some = (radial.r < 8.0).nonzero()[::9, 0]
    direction = torch.tensor([0.6, 0.0, 0.8], dtype=torch.float64)
    points = radial.r[some, None] * direction
    values = space.interpolate_at(state.density.root_coefficients, points) ** 2
    assert torch.allclose(values, radial.density[some], rtol=0, atol=2e-5)
    assert radial.density.max() > 0.05


@pytest.mark.parametrize("pseudopotential", [GTHFIT, EVANESCENT, GNH], ids=lambda p: p.kind)
def test_gaussian_fit_of_the_atom(pseudopotential):
    result = free_atom(functional(pseudopotential), "Al")
    charge = float(result.amplitudes @ (math.pi / result.exponents) ** 1.5)
    assert charge == pytest.approx(3.0, rel=1e-12)
    fitted = torch.exp(-torch.outer(result.r**2, result.exponents)) @ result.amplitudes
    assert fitted.min() > -1e-12
    weights = torch.diff(result.r) * 4 * math.pi * result.r[1:] ** 2
    error = float((weights * (fitted - result.density)[1:].abs()).sum()) / 3.0
    assert error < 0.02


def test_kinetic_kernels_and_atoms():
    """The atom of a non-local functional is Thomas-Fermi + von Weizsaecker's."""
    nonlocal_kinetic = EnergyFunctional.orbital_free("wt", pseudopotential=GTHFIT)
    assert free_atom(nonlocal_kinetic, "Al").energy == pytest.approx(
        FREE_ATOMS["gthfit_1"].energy, abs=1e-8
    )


def test_free_atom_is_solved_once_per_functional():
    one = functional({"Al": GTHFIT, "Mg": ERF})
    again = functional(
        {"Al": GTHLocal(**{k: v for k, v in GTHFIT.describe().items() if k != "kind"}), "Mg": ERF}
    )
    assert free_atom(one, "Al") is free_atom(again, "Al")
    assert free_atom(one, "Mg").energy == pytest.approx(FREE_ATOMS["erf_1"].energy, abs=1e-8)
    assert free_atom(one, "Al") is not free_atom(functional(GTHFIT, vw_weight=0.2), "Al")


def test_free_atom_does_not_depend_on_the_gaussian_width():
    energies = [free_atom(functional(GTHFIT, gaussian_width=w), "Al").energy for w in (0.9, 1.5)]
    assert energies[0] == pytest.approx(energies[1], abs=1e-8)


def test_light_and_heavy_valence():
    """One electron, and a deep core: the same axis must do."""
    hydrogen = free_atom(functional(GTHLocal(1, 0.2, -4.180237, 0.725075)), "H")
    # TF + vW + LDA-PZ of the bare proton is -0.292663; the pseudopotential is close to it
    assert hydrogen.energy == pytest.approx(-0.2927, abs=2e-3)


def test_refusals():
    with pytest.raises(FunctionalError, match="local xc functional, not 'pbe'"):
        free_atom(functional(GTHFIT, xc="pbe"), "Al")
    with pytest.raises(PseudopotentialError, match="no pseudopotential for O"):
        free_atom(functional({"Al": GTHFIT}), "O")


@pytest.mark.parametrize("structure", [rattled(), dimer()], ids=["periodic", "isolated"])
def test_superposition_holds_the_electrons(structure):
    space = TensorSpace.for_structure(structure, 0.45, 8)
    density = superposed_density(functional(GTHFIT), structure, space)
    assert density.min() > 0
    assert float(space.integrate(density)) == pytest.approx(3.0 * len(structure), rel=1e-5)


def test_superposition_is_the_sum_of_its_atoms():
    one = functional({"Al": GTHFIT, "Mg": ERF})
    structure = rattled().replace(
        numbers=["Al", "Mg", "Al", "Mg"], occupancies=[1.0, 1.0, 0.25, 0.5]
    )
    space = TensorSpace.for_structure(structure, 0.6, 6)
    total = torch.zeros(space.n_points, dtype=torch.float64)
    for i, share in enumerate(structure.occupancies):
        alone = structure.replace(
            numbers=structure.numbers[i : i + 1],
            positions=structure.positions[i : i + 1],
            occupancies=[1.0],
        )
        total += share * superposed_density(one, alone, space)
    whole = superposed_density(one, structure, space)
    assert torch.allclose(whole, total, rtol=1e-12, atol=1e-15)


def test_superposition_is_differentiable_in_the_positions():
    structure = rattled()
    space = TensorSpace.for_structure(structure, 0.6, 6)
    weight = torch.sin(space.points[:, 0]) * space.weights
    model = functional(GTHFIT)

    def moment(positions):
        return superposed_density(model, structure, space, positions) @ weight

    positions = torch.tensor(structure.positions, requires_grad=True)
    (gradient,) = torch.autograd.grad(moment(positions), positions)
    unit = torch.zeros_like(gradient)
    unit[2, 0] = 1.0
    slope = central_difference(lambda h: float(moment(positions.detach() + h * unit)), 1e-3)
    assert float(gradient[2, 0]) == pytest.approx(slope, rel=1e-8)
    assert abs(slope) > 0.1


def test_baselines_by_name():
    gradient = EnergyFunctional.orbital_free(pseudopotential=GTHFIT, xc="pbe")
    assert default_baseline(rattled(), functional(GTHFIT)) == "relaxed_response"
    assert default_baseline(rattled(), gradient) == "linear_response"
    assert default_baseline(dimer(), functional(GTHFIT)) == "superposed_atoms"
    assert default_guess(rattled()) == "linear_response"
    assert default_guess(dimer()) == "superposed_atoms"
    space = TensorSpace.for_structure(dimer(), 0.8, 6, margin=8.0)
    for name in ("linear_response", "relaxed_response", "bananas"):
        with pytest.raises(FedensError, match=f"'{name}'; expected 'superposed_atoms'"):
            baseline_of(name, functional(GTHFIT)).density(dimer(), space)


@pytest.mark.parametrize("name", BASELINES)
def test_baselines_are_near_the_ground_state(name, rattled_state):
    state = rattled_state
    baseline = baseline_of(name, state.functional).density(state.structure, state.space)
    baseline = baseline.normalised(12.0)
    error = (baseline.values - state.density.values).abs()
    nmape = float(state.space.integrate(error)) / 12.0
    limits = {"relaxed_response": 0.01, "linear_response": 0.1, "superposed_atoms": 0.3}
    assert 0.001 < nmape < limits[name]
    assert float(state.bound.energy(baseline)) > state.energy


def test_relaxed_response_steps_half_way_first_then_nine_tenths(rattled_state):
    """Saved models are differences to it: other lengths, or the other order, would spoil them."""
    structure, bound = rattled_state.structure, rattled_state.bound

    def stepped(lengths):
        linear = baseline_of("linear_response", bound.functional)
        density = linear.density(structure, bound.space).normalised(12.0)
        c = density.root_coefficients
        for length in lengths:
            _, gradient = bound.energy_and_gradient(c)
            along = gradient - (gradient @ c) / (c @ c) * c
            c = c - length * along / bound.hessian_diagonal
            c = c * (12.0 / (c @ c)) ** 0.5
        return bound.space.evaluate(c) ** 2

    relaxed = baseline_of("relaxed_response", bound.functional)
    found = relaxed.density(structure, bound.space).values
    torch.testing.assert_close(found, stepped((0.5, 0.9)), rtol=0, atol=1e-10)
    assert float((found - stepped((0.9, 0.5))).abs().max()) > 1e-5


@pytest.mark.parametrize("name", BASELINES)
def test_baselines_are_differentiable_in_the_positions(name):
    structure = rattled()
    space = TensorSpace.for_structure(structure, 0.6, 6)
    weight = torch.sin(space.points[:, 0]) * space.weights
    model = functional(GTHFIT)

    def moment(positions):
        return baseline_of(name, model).density(structure, space, positions).values @ weight

    positions = torch.tensor(structure.positions, requires_grad=True)
    (gradient,) = torch.autograd.grad(moment(positions), positions)
    unit = torch.zeros_like(gradient)
    unit[1, 0] = 1.0
    slope = central_difference(lambda h: float(moment(positions.detach() + h * unit)), 1e-3)
    assert float(gradient[1, 0]) == pytest.approx(slope, rel=1e-7)
    assert abs(slope) > 1e-2


def test_linear_response_is_right_to_first_order():
    """A weak potential: the screened response is the whole answer."""
    weak = GTHLocal(3, 1.8)
    structure = rattled()
    model = EnergyFunctional.orbital_free("wt", pseudopotential=weak)
    space = TensorSpace.for_structure(structure, 0.45, 6)
    state = solve_ground_state(structure, space, model, residual_tolerance=1e-9)
    mean = 12.0 / space.volume
    guess = baseline_of("linear_response", model).density(structure, space).normalised(12.0)
    change = (state.density.values - mean).abs().max()
    error = (guess.values - state.density.values).abs().max()
    assert 0.01 * mean < change < 0.2 * mean
    # what is left is of second order in the change
    assert error < 2 * change**2 / mean


@pytest.mark.parametrize("name", BASELINES)
def test_baselines_are_stored_with_their_functional(name):
    before = baseline_of(name, functional(GTHFIT))
    after = baseline_from_description(json.loads(json.dumps(before.describe())))
    assert after.describe() == before.describe()
    assert after.number_of_electrons(rattled()) == 12.0
    space = TensorSpace.for_structure(rattled(), 0.8, 5)
    one, other = (b.density(rattled(), space).values for b in (before, after))
    torch.testing.assert_close(one, other, rtol=0, atol=1e-9)


def test_gaussian_atoms_are_sums_of_gaussians_and_need_no_functional():
    """Of two elements, one of them a quarter there: a closed form at every point, and electrons."""
    atoms = {"Al": ([0.5, 0.2], [0.3, 0.1]), "Mg": ([0.3], [0.2])}
    tensors = {s: tuple(torch.tensor(pair, dtype=torch.float64)) for s, pair in atoms.items()}
    structure = rattled().replace(numbers=["Al", "Mg", "Al", "Mg"], occupancies=[1, 1, 0.25, 1])
    before = GaussianAtoms(tensors)
    baseline = baseline_from_description(json.loads(json.dumps(before.describe())))
    charge = {s: sum(np.array(a) * (np.pi / np.array(b)) ** 1.5) for s, (b, a) in atoms.items()}
    electrons = 1.25 * charge["Al"] + 2 * charge["Mg"]
    assert baseline.number_of_electrons(structure) == pytest.approx(electrons, rel=1e-12)
    space = TensorSpace.for_structure(structure, 0.5, 8)
    density = baseline.density(structure, space)
    assert float(density.number_of_electrons) == pytest.approx(electrons, rel=1e-4)
    lengths = torch.tensor(structure.orthorhombic_lengths())
    expected = torch.zeros(space.n_points, dtype=torch.float64)
    for symbol, position, share in zip(
        structure.symbols, structure.positions, structure.occupancies, strict=True
    ):
        for cell in itertools.product((-2, -1, 0, 1, 2), repeat=3):
            image = torch.tensor(position) + torch.tensor(cell) * lengths
            r2 = ((space.points - image) ** 2).sum(dim=1)
            for b, a in zip(*atoms[symbol], strict=True):
                expected += share * a * torch.exp(-b * r2)
    torch.testing.assert_close(density.values, expected, rtol=0, atol=1e-4)
    assert expected.max() > 0.2
    with pytest.raises(FedensError, match="no Gaussians for Cu; there are some for Al, Mg"):
        baseline.density(structure.replace(numbers=["Cu"] * 4), space)
