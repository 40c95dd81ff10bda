import math

import numpy as np
import pytest
import torch

from fedens.errors import SamplingError
from fedens.reference.kohn_sham.smearing import HIGHEST_TOP_OCCUPATION, KINDS, Smearing
from fedens.testing.differences import central_difference

FIRST_ORDER = ("methfessel_paxton", "cold")
GAMMA = torch.ones(1, dtype=torch.float64)


def random_levels(seed=0, n_k=5, n_bands=20):
    """Levels without a gap, and weights of their k-points."""
    generator = np.random.default_rng(seed)
    levels = torch.tensor(generator.uniform(-0.3, 0.7, (n_k, n_bands))).sort(dim=1).values
    weights = torch.tensor(generator.uniform(0.5, 1.5, n_k))
    return levels, weights / weights.sum()


def free_energy(filled, levels, weights):
    energy = float(weights @ (filled.occupations * levels).sum(dim=1))
    return energy + filled.entropy_energy


def uniform_gas(fermi_energy=0.4):
    """Levels of free electrons as k-points of one band, weighted by their density of states.

    Returns levels, weights and the number of electrons below the Fermi energy.
    """
    nodes, quadrature = np.polynomial.legendre.leggauss(2000)
    root = (nodes + 1) / 2 * math.sqrt(3 * fermi_energy)  # eps = root^2, g(eps) ~ root
    weights = quadrature * root**2
    levels = torch.tensor(np.stack([root**2, root**2 + 100], axis=1))
    share = fermi_energy**1.5 / (3 * fermi_energy) ** 1.5
    return levels, torch.tensor(weights / weights.sum()), 2 * share


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("electrons", [1.0, 7.0, 12.5, 20.0])
def test_occupations_add_up(kind, electrons):
    levels, weights = random_levels()
    filled = Smearing(0.02, kind).occupations(levels, weights, electrons)
    assert float(weights @ filled.occupations.sum(dim=1)) == pytest.approx(electrons, rel=1e-11)


@pytest.mark.parametrize("kind", KINDS)
def test_occupations_are_derivatives_of_the_free_energy(kind):
    levels, weights = random_levels()
    smearing = Smearing(0.03, kind)
    filled = smearing.occupations(levels, weights, 13.0)
    k, band = divmod(int((levels - filled.chemical_potential).abs().argmin()), levels.shape[1])

    def energy(shift):
        moved = levels.clone()
        moved[k, band] += shift
        return free_energy(smearing.occupations(moved, weights, 13.0), moved, weights)

    expected = float(weights[k] * filled.occupations[k, band])
    assert central_difference(energy, 1e-3) == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("kind", KINDS)
def test_the_chemical_potential_is_the_derivative_in_the_electrons(kind):
    levels, weights = random_levels()
    smearing = Smearing(0.03, kind)

    def energy(change):
        return free_energy(smearing.occupations(levels, weights, 13 + change), levels, weights)

    expected = smearing.occupations(levels, weights, 13.0).chemical_potential
    assert central_difference(energy, 1e-2) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_levels_far_away_are_full_or_empty(kind):
    levels = torch.tensor([[-5.0, 0.0, 5.0]], dtype=torch.float64)
    filled = Smearing(0.05, kind).occupations(levels, GAMMA, 3.0)
    np.testing.assert_allclose(filled.occupations, [[2, 1, 0]], atol=1e-12)


def test_fermi_dirac_is_that_of_the_textbook():
    levels, weights = random_levels()
    filled = Smearing(0.02).occupations(levels, weights, 13.0)
    share = 1 / (1 + np.exp((levels.numpy() - filled.chemical_potential) / 0.02))
    np.testing.assert_allclose(filled.occupations, 2 * share, rtol=1e-9)
    entropy = -2 * (share * np.log(share) + (1 - share) * np.log(1 - share)).sum(axis=1)
    assert filled.entropy_energy == pytest.approx(-0.02 * weights.numpy() @ entropy, rel=1e-9)


def test_the_uniform_gas_has_the_term_of_sommerfeld():
    """F = E_0 - (pi^2/4) n (kT)^2 / E_F."""
    levels, weights, electrons = uniform_gas()
    kT = 0.004
    filled = Smearing(kT).occupations(levels, weights, electrons)
    change = free_energy(filled, levels, weights) / electrons - 0.6 * 0.4
    assert change == pytest.approx(-(math.pi**2) / 4 * kT**2 / 0.4, rel=2e-3)


@pytest.mark.parametrize(
    ("kind", "order"),
    [("fermi_dirac", 4), ("gaussian", 4), ("methfessel_paxton", 4), ("cold", 3)],
)
def test_the_energy_at_zero_width_has_its_order(kind, order):
    levels, weights, electrons = uniform_gas()
    widths = (0.01, 0.02) if kind == "fermi_dirac" else (0.03, 0.06)
    errors = []
    for width in widths:
        smearing = Smearing(width, kind)
        filled = smearing.occupations(levels, weights, electrons)
        energy = smearing.energy_at_zero_width(
            free_energy(filled, levels, weights), filled.entropy_energy
        )
        errors.append(energy / electrons - 0.6 * 0.4)
    assert math.log2(errors[1] / errors[0]) == pytest.approx(order, abs=0.35)


def test_only_kinds_of_second_order_take_the_middle_of_both_energies():
    energies = {kind: Smearing(0.01, kind).energy_at_zero_width(3.0, -2.0) for kind in KINDS}
    assert energies == {"fermi_dirac": 4, "gaussian": 4, "methfessel_paxton": 3, "cold": 3}


@pytest.mark.parametrize("kind", KINDS)
def test_an_insulator_has_its_chemical_potential_inside_the_gap(kind):
    levels = torch.tensor([[-0.2, -0.1, 0.1, 0.2], [-0.3, -0.15, 0.15, 0.3]], dtype=torch.float64)
    weights = torch.tensor([0.25, 0.75], dtype=torch.float64)
    for width in (0.0, 1e-3):
        filled = Smearing(width, kind).occupations(levels, weights, 4.0)
        assert filled.chemical_potential == pytest.approx(0, abs=2e-3)
        np.testing.assert_allclose(filled.occupations, [[2, 2, 0, 0]] * 2, atol=1e-11)
        assert filled.entropy_energy == pytest.approx(0, abs=1e-12)
        filled.check()
    assert Smearing().occupations(levels, weights, 4.0).gap == pytest.approx(0.2)


def test_bands_without_an_empty_one_need_no_gap():
    levels = torch.tensor([[-0.2, -0.1]], dtype=torch.float64)
    filled = Smearing().occupations(levels, GAMMA, 4.0)
    filled.check()
    assert filled.chemical_potential == -0.1
    assert filled.gap == math.inf


@pytest.mark.parametrize("kind", FIRST_ORDER)
@pytest.mark.parametrize("seed", range(20))
def test_one_of_several_chemical_potentials_is_found(kind, seed):
    """Few levels, where the number of electrons neither rises everywhere nor has one root."""
    levels, weights = random_levels(seed, n_k=1, n_bands=4)
    filled = Smearing(0.03, kind).occupations(levels, weights, 4.0)
    assert float(weights @ filled.occupations.sum(dim=1)) == pytest.approx(4, rel=1e-11)
    gaussian = Smearing(0.03, "gaussian").occupations(levels, weights, 4.0)
    assert abs(filled.chemical_potential - gaussian.chemical_potential) < 0.2


@pytest.mark.parametrize(
    "levels", [[[-0.2, 0.1, 0.1, 0.3]], [[-0.2, 0.1, 0.3, 0.4], [-0.3, -0.2, 0.0, 0.3]]]
)
def test_a_metal_without_smearing_is_refused(levels):
    levels = torch.tensor(levels, dtype=torch.float64)
    weights = torch.full((len(levels),), 1 / len(levels), dtype=torch.float64)
    with pytest.raises(SamplingError, match="a metal, or an open shell; give a smearing"):
        Smearing().occupations(levels, weights, 4.0).check()


def test_too_few_bands_are_refused_afterwards():
    levels = torch.linspace(0, 1, 10, dtype=torch.float64)[None]
    filled = Smearing(0.05).occupations(levels, GAMMA, 10.0)
    assert filled.top == pytest.approx(2 / (1 + math.exp(0.5 / 0.05)))
    with pytest.raises(SamplingError, match=r"10 bands are too few.*give bands=14"):
        filled.check()
    Smearing(0.03).occupations(levels, GAMMA, 10.0).check()


def test_a_topmost_band_below_nothing_is_refused_too():
    """Methfessel-Paxton takes away electrons from levels a little above the edge."""
    levels = torch.tensor([[0.0, 0.1, 0.18], [0.0, 0.1, 1.0]], dtype=torch.float64)
    weights = torch.full((2,), 0.5, dtype=torch.float64)
    filled = Smearing(0.05, "methfessel_paxton").occupations(levels, weights, 3.0)
    assert float(filled.occupations[:, -1].min()) < -0.01
    assert filled.top == -float(filled.occupations[:, -1].min())
    with pytest.raises(SamplingError, match="too few"):
        filled.check()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("width", "edge", "electrons"), [(0.01, 7.65, 12), (0.04, 7.65, 12), (0.02, 15.3, 96)]
)
def test_empty_bands_suffice_for_free_electrons(kind, width, edge, electrons):
    smearing = Smearing(width, kind)
    n_bands = electrons // 2 + smearing.empty_bands(electrons, edge**3)
    waves = np.stack(np.meshgrid(*[np.arange(-6, 7)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    k = np.array([[x, y, z] for x in (1, 3) for y in (1, 3) for z in (1, 3)]) / 8
    levels = 0.5 * (2 * np.pi / edge) ** 2 * ((waves + k[:, None]) ** 2).sum(axis=-1)
    levels = torch.tensor(np.sort(levels, axis=1)[:, :n_bands])
    weights = torch.full((8,), 1 / 8, dtype=torch.float64)
    filled = smearing.occupations(levels, weights, electrons)
    assert filled.top < HIGHEST_TOP_OCCUPATION
    assert n_bands < 60 * electrons / 12


def test_insulators_get_a_quarter_more_bands_and_at_least_two():
    assert Smearing().empty_bands(32, 1000.0) == 4
    assert Smearing().empty_bands(2, 1000.0) == 2


@pytest.mark.parametrize(
    ("width", "electrons", "message"),
    [
        (0.0, 5.0, "must be even; give a smearing"),
        (0.0, 4.5, "4.5 electrons fill no whole number"),
        (0.0, 42.0, "give bands=21"),
        (0.01, 40.0, "20 bands cannot hold 40 electrons .* give bands=21"),
        (0.01, 0.0, "expected a positive number"),
    ],
)
def test_electrons_that_do_not_fit_are_refused(width, electrons, message):
    with pytest.raises(SamplingError, match=message):
        Smearing(width).occupations(*random_levels(), electrons)


def test_levels_that_are_no_numbers_are_refused():
    with pytest.raises(SamplingError, match="finite levels"):
        Smearing(0.01).occupations(torch.full((1, 4), torch.nan), GAMMA, 2.0)


@pytest.mark.parametrize("width", [-0.01, math.nan, math.inf])
def test_bad_widths_are_refused(width):
    with pytest.raises(SamplingError, match="expected 0 or more"):
        Smearing(width)


def test_unknown_kinds_are_refused():
    with pytest.raises(SamplingError, match="'fermi', expected fermi_dirac, gaussian"):
        Smearing(0.01, "fermi")
