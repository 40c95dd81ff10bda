"""What a prediction says of itself, against closed forms."""

import math

import pytest
import torch
from systems import GTHFIT, rattled

from fedens import EnergyFunctional, TensorSpace
from fedens.models.crystal.prediction import Prediction, density_from_root

FUNCTIONAL = EnergyFunctional.orbital_free("tfvw", pseudopotential=GTHFIT)
CALIBRATION = 1.7


@pytest.fixture(scope="module")
def prediction():
    """Of three networks whose root densities differ by known waves."""
    structure = rattled()
    space = TensorSpace.for_structure(structure, 0.6, 6)
    bound = FUNCTIONAL.bind(structure, space)
    wave = torch.sin(2 * math.pi * space.points[:, 0] / space.lengths[0])
    root = torch.sqrt(bound.mean_density) * (1 + 0.2 * wave)
    roots = torch.stack([root - 1e-3 * wave, root, root + 1e-3 * wave])
    corrections = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)[:, None, None]
    corrections = 1e-4 * corrections.expand(3, space.n_points, 3) * wave[:, None] ** 2
    density = density_from_root(space, roots.mean(dim=0), 12.0)
    return Prediction(structure, density, roots, CALIBRATION, 12.0, bound, 0, lambda: corrections)


def test_density_uncertainty_is_that_of_the_squared_root(prediction):
    """dn = 2 |u| du: the members' densities spread as much, to first order in du."""
    found = prediction.density_uncertainty
    torch.testing.assert_close(
        found, CALIBRATION * (prediction.roots**2).std(dim=0), rtol=1e-5, atol=1e-9
    )
    assert float(found.max()) > 1e-4


def test_density_uncertainty_over_the_electrons(prediction):
    """Of u = u0 (1 + a w) and du = b w: the integral of 2 u0 b |w| (1 + a w) is 4 u0 b V / pi."""
    u0 = float(torch.sqrt(prediction.bound.mean_density))
    volume = prediction.structure.volume
    expected = CALIBRATION * 4 * u0 * 1e-3 * volume / math.pi / 12.0
    assert prediction.relative_density_uncertainty == pytest.approx(expected, rel=2e-3)


def test_energy_uncertainty_is_the_calibrated_deviation_of_the_members(prediction):
    """Corrections of -c, 0 and c move the members' energies apart; so do their densities."""
    with torch.no_grad():
        energies = [float(m.energy_of("energy_density")) for m in prediction.members()]
    expected = CALIBRATION * torch.tensor(energies).double().std().item()
    assert prediction.energy_uncertainty("energy_density") == pytest.approx(expected, rel=1e-6)
    # one of <w^2> = 1/2 for each of the three densities
    shift = 3 * 1e-4 * prediction.structure.volume / 2
    plain = [float(m.energy_of("functional")) for m in prediction.members()]
    for correction, energy, base in zip((-shift, 0.0, shift), energies, plain, strict=True):
        assert energy - base == pytest.approx(correction, rel=1e-6, abs=1e-9)
    assert prediction.energy == pytest.approx(float(prediction.energy_of("functional")))
