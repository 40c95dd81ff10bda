"""What a temperature adds to the uniform gas: Fermi integrals, both limits, a whole functional."""

import json
import math

import numpy as np
import pytest
import torch
from systems import GTHFIT, rattled

from fedens import EnergyFunctional, TensorSpace, solve_ground_state
from fedens.energy.thermal_kinetic import ThermalThomasFermi
from fedens.errors import FunctionalError


def fermi_integral(twice_order, eta):
    """Integral of x^j / (1 + exp(x - eta)), j = twice_order/2: trapezoidal rule in x^(1/2)."""
    step = np.minimum(0.3, 0.14 * np.sqrt(eta + 1j * np.pi).imag)
    v = step * np.arange(1, 3000)[:, None]
    with np.errstate(over="ignore"):
        return 2 * step * (v ** (twice_order + 1) / (1 + np.exp(v**2 - eta))).sum(axis=0)


def direct(eta, temperature):
    """n, and what the temperature adds to energy density and chemical potential, at mu/kT."""
    filling, pressure = fermi_integral(1, eta), 2 / 3 * fermi_integral(3, eta)
    n = math.sqrt(2) / math.pi**2 * temperature**1.5 * filling
    fermi_energy = (3 * math.pi**2 * n) ** (2 / 3) / 2
    free_energy = n * temperature * (eta - pressure / filling)
    return n, free_energy - 0.6 * n * fermi_energy, temperature * eta - fermi_energy


def added(n, temperature):
    n = torch.as_tensor(n, dtype=torch.float64)
    pair = ThermalThomasFermi(temperature).energy_density_and_potential(n, n ** (1 / 3))
    return [one.numpy() for one in pair]


@pytest.mark.parametrize("temperature", [1e-3, 0.04, 2.0])
def test_against_fermi_integrals(temperature):
    """Relative to what the temperature adds itself, from vacuum to a nearly degenerate gas."""
    n, energy, potential = direct(np.linspace(-60.0, 60.0, 601), temperature)
    found = added(n, temperature)
    assert n.max() / n.min() > 1e27
    # the sums cancel to 1e-12 of the energy of the degenerate gas
    assert found[0] == pytest.approx(energy, rel=1e-10)
    assert found[1] == pytest.approx(potential, rel=1e-9)


def test_the_degenerate_gas_is_sommerfelds():
    """-(pi^2/4) n (kT)^2/E_F (1 - (pi^2/20) (kT/E_F)^2); the next term is of order (kT/E_F)^4."""
    fermi_energy, temperature = 0.4, 0.4 / np.logspace(2.5, 6, 50)
    n = (2 * fermi_energy) ** 1.5 / (3 * math.pi**2)
    t = temperature / fermi_energy
    first = -(math.pi**2 / 4) * n * fermi_energy * t**2
    found = np.array([added(n, one)[0] for one in temperature])
    assert found == pytest.approx(first * (1 - math.pi**2 / 20 * t**2), rel=1e-9)
    assert 1 - found[0] / first[0] == pytest.approx(math.pi**2 / 20 * t[0] ** 2, rel=1e-4)


def test_the_thin_gas_is_ideal():
    """n kT (ln(n lambda^3/2) - 1), lambda the thermal wavelength, less Thomas-Fermi."""
    temperature, n = 0.04, np.logspace(-30, -14, 50)
    wavelength = math.sqrt(2 * math.pi / temperature)
    ideal = n * temperature * (np.log(n * wavelength**3 / 2) - 1)
    thomas_fermi = 0.3 * (3 * math.pi**2) ** (2 / 3) * n ** (5 / 3)
    assert added(n, temperature)[0] == pytest.approx(ideal - thomas_fermi, rel=1e-11)


def test_it_lowers_the_energy_of_a_crystal_by_its_entropy():
    """dF/dT = -S: the envelope theorem between two minimisations."""
    space = TensorSpace.for_structure(rattled(), 0.6, 6)

    def solve(temperature):
        functional = EnergyFunctional.orbital_free(
            "wt", pseudopotential=GTHFIT, temperature=temperature
        )
        return solve_ground_state(rattled(), space, functional, residual_tolerance=1e-8)

    low, middle, high = (solve(t) for t in (0.039, 0.04, 0.041))

    def free_energy(temperature):
        return float(ThermalThomasFermi(temperature).energy(middle.density))

    slope = (free_energy(0.041) - free_energy(0.039)) / 0.002
    assert (high.energy - low.energy) / 0.002 == pytest.approx(slope, rel=1e-5)
    assert middle.energies["thermal_thomas_fermi"] == pytest.approx(free_energy(0.04), rel=1e-12)
    assert free_energy(0.04) < -1e-3


def test_it_is_described_where_there_is_one():
    warm = EnergyFunctional.orbital_free("lkt", pseudopotential=GTHFIT, temperature=0.04)
    description = json.loads(json.dumps(warm.describe()))
    assert description["temperature"] == 0.04
    again = EnergyFunctional.from_description(description)
    assert again.describe() == description
    assert [term.name for term in again.terms] == [term.name for term in warm.terms]
    assert again.terms[2].temperature == 0.04
    cold = EnergyFunctional.orbital_free("lkt", pseudopotential=GTHFIT)
    assert "temperature" not in cold.describe()
    assert "thermal_thomas_fermi" not in [term.name for term in cold.terms]


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
def test_temperatures_that_are_none(temperature):
    with pytest.raises(FunctionalError, match="expected k_B T in hartree, above 0"):
        ThermalThomasFermi(temperature)
