"""Losses of models of molecules, in closed form on data made up for it."""

import math

import numpy as np
import pytest
import torch

from fedens.atoms.gaussian_basis import AtomicBasis
from fedens.models.molecule.data import MoleculeData
from fedens.models.molecule.objective import EnergyObjective, FieldObjective
from fedens.structure import Structure

EXPONENT = 0.4
#: One normalised Gaussian on every hydrogen, and its integral.
BASIS = AtomicBasis({"H": [[EXPONENT]]})
CHARGE = (2 * EXPONENT / math.pi) ** 0.75 * (math.pi / EXPONENT) ** 1.5
PLACES = np.array([[0.3, -0.7, 1.1], [2.0, 0.4, -0.6]])
N_MOMENTS = 4


def random(*shape, seed=0):
    return torch.tensor(np.random.default_rng([seed, *shape]).standard_normal(shape))


def molecule(i, forces=True):
    """A hydrogen atom whose labels are random numbers, but for the charge."""
    return MoleculeData(
        structure=Structure(["H"], PLACES[i : i + 1]),
        moments=random(1, N_MOMENTS, seed=i),
        moments_by_position=random(1, N_MOMENTS, 3, seed=i),
        gram=torch.tensor([[1.5 + i]]),
        loads=random(3, 1, seed=i),
        squares=5 + random(3, seed=i),
        dipole=random(3, seed=10 + i),
        excess=[1.0, 0.0][i],
        energy=float(random(1, seed=i)),
        forces=random(3, seed=20 + i) if forces else None,
    )


class Constant(torch.nn.Module):
    """The same coefficients (3,) for every atom."""

    def __init__(self, coefficients):
        super().__init__()
        self.coefficients = coefficients

    def forward(self, components, symbols):
        return [(torch.arange(len(symbols)), self.coefficients.repeat(len(components), 1))]


class Linear(torch.nn.Module):
    """Energies of atoms that are linear in their moments."""

    def __init__(self, slopes):
        super().__init__()
        self.slopes = slopes

    def forward(self, components, symbols):
        return [(torch.arange(len(symbols)), components @ self.slopes[:, None])]


def parts_of_field_loss(one, coefficients, sizes):
    """Relative squared error, squared lack of charge, mean squared error of the dipole."""
    given = coefficients.clone()
    given[0] = one.excess / CHARGE
    squared = given**2 * one.gram[0, 0] - 2 * given * one.loads[:, 0] + one.squares
    dipole = -one.excess * torch.tensor(one.structure.positions[0]) - one.dipole
    lack = one.excess - float(coefficients[0]) * CHARGE
    return float((squared / sizes).mean()), lack**2, float((dipole**2).mean())


@pytest.mark.parametrize("dipole_weight", [0.0, 0.3])
def test_loss_of_fields_has_fit_charge_and_dipole(dipole_weight):
    molecules = [molecule(0), molecule(1)]
    coefficients = torch.tensor([0.2, -0.4, 0.7], dtype=torch.float64)
    sizes = (molecules[0].squares + molecules[1].squares) / 2
    objective = FieldObjective(molecules, 2, [], BASIS, dipole_weight)
    expected = []
    for i, one in enumerate(molecules):
        fit, charge, dipole = parts_of_field_loss(one, coefficients, sizes)
        assert min(fit, charge, dipole) > 0.1
        expected.append(fit + charge + dipole_weight * dipole)
        alone = float(objective.loss(Constant(coefficients), [i]))
        assert alone == pytest.approx(expected[-1], rel=1e-6)
    both = float(objective.loss(Constant(coefficients), [0, 1]))
    assert both == pytest.approx(np.mean(expected), rel=1e-6)


def test_the_right_charge_costs_nothing():
    """The term of the charge is zero where it should be, and one for one electron too many."""
    one, objective = molecule(0), FieldObjective([molecule(0)], 1, [], BASIS, 0.0)
    right = torch.tensor([one.excess / CHARGE, 0.5, 0.5], dtype=torch.float64)
    more = right + torch.tensor([1 / CHARGE, 0, 0])
    costs = float(objective.loss(Constant(more), [0])) - float(objective.loss(Constant(right), [0]))
    assert costs == pytest.approx(1.0, rel=1e-6)


@pytest.mark.parametrize("weight", [0.0, 0.4])
def test_loss_of_energies_is_in_units_of_two_millihartree(weight):
    """A molecule without forces counts among those whose energies are learned, and no more."""
    molecules = [molecule(0), molecule(1, forces=False)]
    slopes = random(N_MOMENTS, seed=7)
    objective = EnergyObjective(molecules, 2, [], weight, forces=True)
    wrong = [float(one.moments[0] @ slopes) - one.energy for one in molecules]
    pulls = -torch.einsum("f,fx->x", slopes, molecules[0].moments_by_position[0])
    of_forces = float(((pulls - molecules[0].forces) / 2e-3).pow(2).mean())
    of_energies = np.mean(np.square(wrong)) / 2e-3**2
    found = float(objective.loss(Linear(slopes), [0, 1]).detach())
    assert found == pytest.approx(weight * of_energies + of_forces / 2, rel=1e-10)
