"""Lattice sums of power laws: exact constants, independence of the splitting, direct sums."""

import math

import numpy as np
import pytest
import torch
from systems import FCC
from torch.autograd import gradcheck

from fedens.features import ewald, waves
from fedens.features.ewald import fields_at_points, fields_on_space
from fedens.features.power_law import PowerLaws, fourier_at_zero
from fedens.features.waves import Sources
from fedens.fem.tensor import TensorSpace

BCC = np.array([[0, 0, 0], [0.5, 0.5, 0.5]])
HALF = np.array([0.5, 0, 0])
QUARTER = np.array([0.25, 0.25, 0.25])
SHEARED = np.array([[5.9, 0.0, 0.0], [1.5, 5.5, 0.3], [-0.7, 1.1, 6.7]])
#: Y_00: fields are F_00 divided by it.
Y00 = 1 / math.sqrt(4 * math.pi)


def crystal(sites, charges, edge):
    """A cubic crystal of unit nearest-neighbour distance when the edge is chosen so."""
    positions = torch.tensor(np.asarray(sites) * edge, dtype=torch.float64)
    strengths = torch.tensor(charges, dtype=torch.float64)
    cell = edge * torch.eye(3, dtype=torch.float64)
    return Sources(positions, [(range(len(charges)), strengths)], cell)


def sodium_chloride():
    return crystal(np.vstack([FCC, FCC + HALF]), [1.0] * 4 + [-1.0] * 4, 2.0)


def potential(sources, exponent, smearing, point):
    laws = PowerLaws((exponent,), smearing, 0)
    rows = fields_at_points(
        laws, sources, torch.tensor([point], dtype=torch.float64), lambda m: m.flatten(0, 1)
    )
    return float(rows[0, 0]) / Y00


def others_at_origin(sources, exponent, smearing=0.1):
    """What the atom at the origin sees of all others, without itself."""
    own = 1 / (math.gamma(exponent / 2 + 1) * (2 * smearing**2) ** (exponent / 2))
    return potential(sources, exponent, smearing, [0.0, 0.0, 0.0]) - own


def low_symmetry():
    """Three atoms in two channels, not neutral, in a sheared cell."""
    positions = torch.tensor([[0.1, 0.2, 0.3], [2.6, 3.0, 2.9], [4.4, 1.1, 5.0]])
    channels = [([0, 2], torch.tensor([1.0, 0.6]).double()), ([1], torch.tensor([-0.8]).double())]
    return Sources(positions.double(), channels, torch.tensor(SHEARED))


def everything(moments):
    return moments.flatten(0, 1)


def scattered(n=7, seed=0):
    return torch.tensor(np.random.default_rng(seed).uniform(-2, 8, (n, 3)))


@pytest.mark.parametrize(
    ("sites", "charges", "edge", "constant"),
    [
        (np.vstack([FCC, FCC + HALF]), [1] * 4 + [-1] * 4, 2.0, 1.747564594633),
        (BCC, [1, -1], 2 / math.sqrt(3), 1.762674773071),
        (np.vstack([FCC, FCC + QUARTER]), [1] * 4 + [-1] * 4, 4 / math.sqrt(3), 1.638055053389),
    ],
    ids=["NaCl", "CsCl", "ZnS"],
)
def test_madelung_constants(sites, charges, edge, constant):
    """Nearest-neighbour distance 1; values as in Borwein et al., Lattice Sums Then and Now."""
    assert -others_at_origin(crystal(sites, charges, edge), 1.0) == pytest.approx(
        constant, abs=1e-11
    )


@pytest.mark.parametrize(
    ("sites", "edge", "constant"),
    [
        (np.zeros((1, 3)), 1.0, 8.401923974828),
        (BCC, 2 / math.sqrt(3), 12.253667867291),
        (FCC, math.sqrt(2), 14.453921043745),
    ],
    ids=["sc", "bcc", "fcc"],
)
def test_dispersion_sums(sites, edge, constant):
    """Sum of r^-6 over all other atoms, nearest-neighbour distance 1."""
    sources = crystal(sites, [1.0] * len(sites), edge)
    assert others_at_origin(sources, 6.0) == pytest.approx(constant, rel=1e-11)


@pytest.mark.parametrize(
    ("exponent", "value"), [(1, 0.942983331986), (2, 4.492657092504), (3, 15.309682257349)]
)
def test_potential_of_sodium_chloride(exponent, value):
    found = potential(sodium_chloride(), float(exponent), 0.03, [0.3, 0.1, 0.2])
    assert found == pytest.approx(value, abs=1e-11)


@pytest.mark.parametrize("exponent", [0.4, 1.0, 2.7, 3.0, 3.5, 6.0, 20.0])
def test_splitting_does_not_matter(exponent):
    """l up to 6, channels that are not neutral, a sheared cell; by waves alone, and not."""
    laws, sources, points = PowerLaws((exponent,), 0.8, 6), low_symmetry(), scattered()
    results = [
        fields_at_points(laws, sources, points, everything, width)
        for width in (0.8, 1.0, 1.5, 2.4, None)
    ]
    size = results[0].abs().amax(dim=1, keepdim=True)
    assert float(size.min()) > 0
    for other in results[1:]:
        assert float(((other - results[0]) / size).abs().max()) < 1e-11


def test_direct_sum():
    """p = 12 and l up to 4 against all images within 60 bohr."""
    laws, sources, points = PowerLaws((12.0,), 0.8, 4), low_symmetry(), scattered(2)
    steps = np.stack(np.meshgrid(*[np.arange(-16, 17)] * 3), axis=-1).reshape(-1, 3)
    shifts = torch.tensor(steps @ SHEARED)
    shifts = shifts[shifts.norm(dim=1) < 60]
    images = (sources.positions[:, None] + shifts).reshape(-1, 3)
    numbers = torch.arange(len(images)).reshape(3, -1)
    channels = [
        (numbers[list(i)].flatten().tolist(), w.repeat_interleave(len(shifts)))
        for i, w in sources.channels
    ]
    direct = fields_at_points(laws, Sources(images, channels, None), points, everything)
    found = fields_at_points(laws, sources, points, everything)
    assert ((found - direct).abs() <= 1e-10 * direct.abs().amax(dim=1, keepdim=True)).all()


@pytest.mark.parametrize("exponent", [1.0, 2.2, 3.0, 4.5])
def test_mean_of_the_field(exponent):
    """Zero up to p = 3, where a uniform background neutralises; the whole integral above."""
    cell = torch.diag(torch.tensor([5.0, 6.0, 5.5], dtype=torch.float64))
    atoms = low_symmetry()
    sources = Sources(atoms.positions, atoms.channels, cell)
    space = TensorSpace([5.0, 6.0, 5.5], 3, 6)
    laws = PowerLaws((exponent,), 0.9, 0)
    integrals = space.integrate(fields_on_space(laws, sources, space, everything)) / Y00
    whole = fourier_at_zero(exponent, 0.9) if exponent > 3 else 0.0
    expected = [whole * float(w.sum()) for _, w in sources.channels]
    assert integrals.tolist() == pytest.approx(expected, rel=1e-9, abs=1e-8)


def test_all_points_of_a_space_at_once():
    """By waves alone and with pairs, against point by point; a box whose corner is elsewhere."""
    cell = torch.diag(torch.tensor([5.0, 6.3, 7.0], dtype=torch.float64))
    atoms = low_symmetry()
    sources = Sources(atoms.positions, atoms.channels, cell)
    space = TensorSpace([5.0, 6.3, 7.0], 2, 3, origin=(-1.0, 0.4, 2.0))
    laws = PowerLaws((1.0, 4.4), 0.8, 3)
    expected = fields_at_points(laws, sources, space.points, everything, 1.6)
    for width in (0.8, 1.3, None):
        found = fields_on_space(laws, sources, space, everything, width)
        assert torch.allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_blocks_do_not_matter(monkeypatch):
    """Values and derivatives in one block and in many, which are computed twice."""
    laws, where = PowerLaws((1.0,), 0.8, 1), low_symmetry()
    cell = torch.diag(torch.tensor([5.0, 6.0, 5.5], dtype=torch.float64))
    space = TensorSpace([5.0, 6.0, 5.5], 1, 2)

    def results():
        positions = where.positions.clone().requires_grad_()
        sources = Sources(positions, where.channels, cell)
        rows = torch.cat(
            [
                fields_at_points(laws, sources, scattered(), everything, 1.1),
                fields_on_space(laws, sources, space, everything, 1.1),
                fields_at_points(
                    laws, Sources(positions, where.channels, None), scattered(), everything
                ),
            ],
            dim=1,
        )
        mixing = torch.linspace(0, 1, rows.numel(), dtype=rows.dtype).reshape(rows.shape)
        (rows * mixing).sum().backward()
        return rows.detach(), positions.grad

    whole = results()
    monkeypatch.setattr(ewald, "_BLOCK_PAIRS", 1)
    monkeypatch.setattr(ewald, "_BLOCK_WAVES", 1)
    monkeypatch.setattr(waves, "_BLOCK_ENTRIES", 1)
    for one, other in zip(whole, results(), strict=True):
        assert one.abs().max() > 0.01
        assert torch.allclose(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("width", [0.9, 1.4])
def test_derivatives(width):
    """Points, positions, strengths and cell, by waves alone and with pairs; p = 3 has a log."""
    laws, where = PowerLaws((3.0,), 0.9, 1), low_symmetry()
    arguments = [scattered(1), where.positions, where.channels[0][1], where.cell]
    arguments = [argument.clone().requires_grad_() for argument in arguments]

    def fields(points, positions, strengths, cell):
        channels = [(where.channels[0][0], strengths), where.channels[1]]
        return fields_at_points(laws, Sources(positions, channels, cell), points, everything, width)

    assert gradcheck(fields, arguments, atol=1e-7)


def test_no_points_and_no_atoms():
    laws, atoms = PowerLaws((1.0, 6.0), 0.8, 2), low_symmetry()
    assert fields_at_points(laws, atoms, scattered(0), everything).shape == (36, 0)
    empty = Sources(atoms.positions, [([], torch.zeros(0).double())], atoms.cell)
    assert (fields_at_points(laws, empty, scattered(), everything) == 0).all()
