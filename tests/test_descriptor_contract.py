"""The contract kit on our descriptors, and on some that break it."""

import pytest
import torch

from fedens.features import GMP, LODE, Concatenation, PowerSpectrum
from fedens.species import element_gaussians
from fedens.structure import Structure
from fedens.testing import check_descriptor

POSITIONS = [[0.1, 0.2, 0.3], [3.1, 2.0, 2.5], [1.0, 4.5, 4.2], [-1.5, 2.5, 0.4]]
SHEARED = [[6.0, 0.0, 0.0], [1.5, 7.5, 0.0], [-0.7, 1.1, 6.5]]
MOLECULE = Structure(["Mg", "O", "Al", "O"], POSITIONS, occupancies=[1.0, 0.7, 1.0, 1.0])
CRYSTAL = MOLECULE.replace(cell=SHEARED, pbc=True)
GAUSSIANS = {s: element_gaussians(s) for s in ("Mg", "O", "Al", "Si")}
WEIGHTS = {"Mg": 1.0, "O": -0.5, "Al": 2.0}


@pytest.mark.parametrize("structure", [MOLECULE, CRYSTAL], ids=["molecule", "crystal"])
@pytest.mark.parametrize(
    "descriptor",
    [
        GMP([0.8, 1.5], 2),
        GMP([1.1], 9, form="squared", scaling="both"),
        GMP([0.8, 1.5], 2, GAUSSIANS, form="squared", channels="element", cross_widths=True),
        GMP([0.8, 1.5], 1, form="smooth", smoothing=1e-2),
        Concatenation([GMP([0.8], 1), GMP([2.0], 0, GAUSSIANS, channels="element")]),
        LODE([1.0, 3.5], 0.8, 2, WEIGHTS, form="squared"),
        PowerSpectrum(GMP([0.8], 2), LODE(1.0, 0.8, 2, WEIGHTS)),
    ],
    ids=["root", "order 9", "channels", "smooth", "concatenation", "LODE", "power spectrum"],
)
def test_contract(descriptor, structure):
    check_descriptor(descriptor, structure)


def broken(change):
    """A descriptor whose features are not as they should be."""

    class Broken(GMP):
        kind = f"broken_{change.__name__}"

        def __call__(self, points, structure, positions=None, cell=None, occupancies=None):
            features = super().__call__(points, structure, positions, cell, occupancies)
            points = points.to(features.dtype)
            where = torch.tensor(structure.positions) if positions is None else positions
            return features * change(points, where).to(features.dtype)

    return Broken([0.9], 1, form="squared")


def turns(points, positions):
    return 1 + 0.1 * (points[:, :1] - positions[0, 0]) ** 2


def moves(points, _positions):
    return 1 + 0.1 * (points**2).sum(dim=1, keepdim=True)


def counts(points, positions):
    return 1 + 0.1 * ((points - positions[0]) ** 2).sum(dim=1, keepdim=True)


def wraps(points, positions):
    return 1 + 0.1 * ((points - positions.mean(dim=0)) ** 2).sum(dim=1, keepdim=True)


def scales(points, positions):
    distances = ((points[:, None] - positions) ** 2).sum(dim=2)
    return 1 + 0.1 * torch.exp(-distances).sum(dim=1, keepdim=True)


def differentiates(points, positions):
    distances = ((points[:, None] - positions.detach()) ** 2).sum(dim=2)
    return distances.sum(dim=1, keepdim=True) / distances.amax(dim=1, keepdim=True)


@pytest.mark.parametrize(
    ("change", "message", "structure"),
    [
        (turns, "rotation", MOLECULE),
        (moves, "translation", MOLECULE),
        (counts, "order of the atoms", MOLECULE),
        (wraps, "image of a point", CRYSTAL),
        (scales, "dilation", MOLECULE),
        (differentiates, "derivative in positions", MOLECULE),
    ],
)
def test_the_kit_notices(change, message, structure):
    with pytest.raises(AssertionError, match=message):
        check_descriptor(broken(change), structure)
