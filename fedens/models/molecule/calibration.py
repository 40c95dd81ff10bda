"""How far a committee's spread falls short of errors, on molecules its members left out."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fedens.models.molecule.data import MoleculeData, held_out
from fedens.models.molecule.model import MolecularModel
from fedens.models.molecule.prediction import Calibration

#: With fewer molecules left out by a member, there is no telling.
_FEWEST = 2


@torch.no_grad()
def left_out_calibration(model: MolecularModel, molecules: Sequence[MoleculeData]) -> Calibration:
    """Factors from the committee's spread to the error of a member.

    The root of the mean squared error, over that of the spread, both of molecules that a member
    was not trained on; 1 where a member left out none or a single one.
    """
    committee = len(model.field_networks)
    rows = []
    for member in range(committee):
        out = held_out(molecules, member, committee)
        if len(out) < _FEWEST:
            return Calibration()
        rows += [_squares(model, molecules[i], member) for i in out]
    errors, spreads = torch.tensor(rows).sum(dim=0)
    density, energy = (errors / spreads).sqrt().tolist()
    return Calibration(density, energy)


def _squares(
    model: MolecularModel, one: MoleculeData, member: int
) -> tuple[list[float], list[float]]:
    """Squared error of a member and squared spread, each of density and energy."""
    coefficients = model.coefficients(one.structure, one.moments)
    energies = model.learned_energies(one.structure, one.moments)
    apart = coefficients[:, 0] - coefficients[:, 0].mean(dim=0)
    spread = ((apart @ one.gram.double()) * apart).sum() / (len(apart) - 1)
    error = one.squared_errors(coefficients[member])[0]
    return (
        [float(error), float((energies[member] - one.energy) ** 2)],
        [float(spread), float(energies.var())],
    )
