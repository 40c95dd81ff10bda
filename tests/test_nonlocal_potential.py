"""Projectors in a basis of modes, against quadrature, symmetry and finite differences."""

import itertools
import math

import numpy as np
import pytest
import torch
from systems import GTHFIT

from fedens import GTH, Structure, TensorSpace
from fedens.energy.nonlocal_potential import bind_projectors
from fedens.energy.projectors import ProjectorChannel
from fedens.errors import PseudopotentialError
from fedens.fem.modes import ModeBasis

EDGE = 6.0
CUTOFF = 40.0
RADIUS = 0.5
H = ((1.3, -0.4), (-0.4, 0.8))
CHANNELS = [ProjectorChannel(order, RADIUS + 0.05 * order, H) for order in range(3)]
SPACE = TensorSpace([EDGE] * 3, 3, 9)
GAMMA, COMPLEX = (0.0, 0.0, 0.0), (0.2, -0.3, 0.5)
KPOINTS = {"gamma": GAMMA, "complex": COMPLEX}
#: Two atoms, the second beyond the cell's boundary.
PAIR = Structure(["Al", "Al"], [[1.0, 2.2, 3.1], [4.0, 6.3, -0.4]], cell=[EDGE] * 3, pbc=True)
ALONE = Structure(["Al"], [[1.0, 2.2, 3.1]], cell=[EDGE] * 3, pbc=True)


def bound(structure, basis, channels=CHANNELS, positions=None):
    potential = GTH(3, 0.45, -1.0, projectors=channels)
    return bind_projectors({"Al": potential}, structure, basis, positions)


def radial(channel, i, r):
    """p_i^l(r) as Hartwigsen et al. write it, i = 1, 2."""
    order, width = channel.order, channel.radius
    power = order + (4 * i - 1) / 2
    norm = width**power * math.sqrt(math.gamma(power))
    return math.sqrt(2) * r ** (order + 2 * (i - 1)) * np.exp(-((r / width) ** 2) / 2) / norm


def harmonics(order, d):
    """Real spherical harmonics of vectors (n, 3), m = -l to l: (2 l + 1, n)."""
    x, y, z = (d / np.linalg.norm(d, axis=1, keepdims=True)).T
    if order == 0:
        return np.full((1, len(d)), math.sqrt(1 / (4 * math.pi)))
    if order == 1:
        return math.sqrt(3 / (4 * math.pi)) * np.array([y, z, x])
    planes = [x * y, y * z, (3 * z**2 - 1) / math.sqrt(12), x * z, (x**2 - y**2) / 2]
    return math.sqrt(15 / (4 * math.pi)) * np.array(planes)


@pytest.fixture(scope="module", params=KPOINTS)
def basis(request):
    return ModeBasis.below(SPACE, CUTOFF, KPOINTS[request.param])


@pytest.fixture(scope="module")
def gamma():
    return ModeBasis.below(SPACE, CUTOFF)


@pytest.fixture(scope="module")
def small():
    return ModeBasis.below(SPACE, 3.0, COMPLEX)


@pytest.fixture(scope="module")
def overlaps(basis):
    """sum over modes of <p|mode><mode|p'> of one atom."""
    rows = bound(ALONE, basis).overlaps
    return (rows.conj() @ rows.T).numpy()


def test_projectors_are_complete_and_orthogonal(overlaps):
    """Norm 1 for every l, i and m; nothing between two l or m; p_1 on p_2 by radial quadrature."""
    r, weights = np.polynomial.legendre.leggauss(200)
    r, weights = 3 * (r + 1), 3 * weights
    blocks = []
    for channel in CHANNELS:
        p = np.array([radial(channel, i, r) for i in (1, 2)])
        inner = (p * weights * r**2) @ p.T
        np.testing.assert_allclose(inner.diagonal(), 1, rtol=1e-12)
        blocks.append(np.kron(inner, np.eye(2 * channel.order + 1)))
    expected = np.zeros_like(overlaps, dtype=float)
    start = 0
    for block in blocks:
        stop = start + len(block)
        expected[start:stop, start:stop] = block
        start = stop
    assert start == len(overlaps) == 2 * (1 + 3 + 5)
    np.testing.assert_allclose(overlaps, expected, rtol=0, atol=2e-5)


def test_three_projectors_of_one_l(gamma):
    """Powers up to r^4 have mixed products of x^2, y^2 and z^2."""
    channel = ProjectorChannel(1, RADIUS, tuple(map(tuple, np.eye(3).tolist())))
    rows = bound(ALONE, gamma, [channel]).overlaps[::3]  # along y
    r, weights = np.polynomial.legendre.leggauss(200)
    r, weights = 3 * (r + 1), 3 * weights
    p = np.array([radial(channel, i, r) for i in (1, 2, 3)])
    expected = (p * weights * r**2) @ p.T
    np.testing.assert_allclose(rows @ rows.T, expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("kpoint", KPOINTS.values(), ids=KPOINTS)
def test_against_quadrature_over_the_cell(kpoint):
    """Projectors summed over images with their phases, at the points of the space."""
    basis = ModeBasis.below(SPACE, 3.0, kpoint)  # of products that the points integrate
    found = bound(PAIR, basis).overlaps
    cells = np.array(list(itertools.product((-1, 0, 1), repeat=3)))
    fields = []
    for channel, i in itertools.product(CHANNELS, (1, 2)):
        for position in PAIR.positions:
            total = 0.0
            for cell in cells:
                d = SPACE.points.numpy() + cell * EDGE - position
                values = radial(channel, i, np.linalg.norm(d, axis=1))
                phase = np.exp(2j * math.pi * (cell @ kpoint))
                total = total + phase * values * harmonics(channel.order, d)
            fields.append(total)
    field = torch.tensor(np.concatenate(fields))
    field = field if found.is_complex() else field.real.contiguous()
    expected = basis.test(field.conj().resolve_conj()).conj()
    assert torch.allclose(found, expected, rtol=0, atol=1e-7)


def test_weighted_are_the_overlaps_times_h(small):
    projectors = bound(ALONE, small, CHANNELS[1:2])
    first, second = projectors.overlaps[:3], projectors.overlaps[3:]
    for i, rows in enumerate((projectors.weighted[:3], projectors.weighted[3:])):
        assert torch.allclose(rows, H[i][0] * first + H[i][1] * second, rtol=0, atol=1e-14)


def test_expectation_and_apply_agree(basis, generator):
    projectors = bound(PAIR, basis)
    rows = torch.randn(4, basis.n_modes, dtype=basis.dtype, generator=generator)
    matrix = rows.conj() @ projectors.apply(rows).T
    assert torch.allclose(matrix, matrix.mH, rtol=0, atol=1e-12 * float(matrix.abs().max()))
    found = projectors.expectation(rows)
    assert float(found.abs().min()) > 0.1
    assert torch.allclose(matrix.diagonal().real, found, rtol=1e-12)


def test_a_quarter_turn_permutes_the_projectors(gamma, generator):
    """(x, y, z) -> (-y, x, z): p_x of the turned orbital is minus p_y of the old one."""
    x, y, z = ALONE.positions[0]
    turned = Structure(["Al"], [[EDGE - y, x, z]], cell=[EDGE] * 3, pbc=True)
    coefficients = torch.randn(1, gamma.n_modes, dtype=torch.float64, generator=generator)
    field = gamma.evaluate(coefficients / (1 + gamma.kinetic) ** 2).reshape(SPACE.shape)
    after = field.transpose(0, 1).flip(0)

    def p(structure, values):
        projectors = bound(structure, gamma, CHANNELS[1:2])
        return (projectors.overlaps @ gamma.test(values.reshape(1, -1))[0])[:3]

    p_y, p_z, p_x = p(ALONE, field)
    expected = torch.stack([p_x, p_z, -p_y])
    assert float(expected.abs().min()) > 1e-3
    assert torch.allclose(p(turned, after), expected, rtol=0, atol=1e-10)


def test_moving_atom_and_orbital_by_an_element_changes_nothing(gamma, generator):
    coefficients = torch.randn(2, gamma.n_modes, dtype=torch.float64, generator=generator)
    field = gamma.evaluate(coefficients).unflatten(1, SPACE.shape)
    moved = field.roll(SPACE.order + 1, dims=1).flatten(1)
    positions = torch.tensor(PAIR.positions) + torch.tensor([EDGE / 3, 0.0, 0.0])
    before = bound(PAIR, gamma).expectation(coefficients)
    after = bound(PAIR, gamma, positions=positions).expectation(gamma.test(moved))
    left_behind = bound(PAIR, gamma).expectation(gamma.test(moved))
    assert torch.allclose(after, before, rtol=1e-8)
    assert not torch.allclose(left_behind, before, rtol=1e-2)


def test_moving_an_atom_by_a_cell_changes_nothing(small, generator):
    rows = torch.randn(2, small.n_modes, dtype=small.dtype, generator=generator)
    positions = torch.tensor(PAIR.positions) + torch.tensor([[EDGE, 0.0, 0.0], [0, 0, -2 * EDGE]])
    before = bound(PAIR, small).expectation(rows)
    after = bound(PAIR, small, positions=positions).expectation(rows)
    assert torch.allclose(after, before, rtol=1e-11)


def test_the_expectation_follows_the_positions(small, generator):
    rows = torch.randn(2, small.n_modes, dtype=small.dtype, generator=generator)
    positions = torch.tensor(PAIR.positions, requires_grad=True)

    def expectation(given):
        return bound(PAIR, small, positions=given).expectation(rows)

    assert torch.autograd.gradcheck(expectation, positions, rtol=1e-6, atol=1e-8)


def test_the_expectation_follows_the_cell(small, generator):
    rows = torch.randn(2, small.n_modes, dtype=small.dtype, generator=generator)
    factors = torch.tensor([1.0, 1.02, 0.97], dtype=torch.float64, requires_grad=True)

    def expectation(stretch):
        positions = torch.tensor(PAIR.positions) * stretch
        return bound(PAIR, small.scaled(stretch), positions=positions).expectation(rows)

    assert torch.autograd.gradcheck(expectation, factors, rtol=1e-6, atol=1e-8)


def test_each_element_has_its_own_projectors(small):
    structure = Structure(
        ["Al", "H", "Si"], PAIR.positions[[0, 1, 0]] + [[0], [0], [1.5]], cell=[EDGE] * 3, pbc=True
    )
    channels = {"Al": CHANNELS[:1], "Si": CHANNELS[1:2]}
    potentials = {s: GTH(3, 0.45, projectors=c) for s, c in channels.items()} | {"H": GTHFIT}
    found = bind_projectors(potentials, structure, small).overlaps
    assert len(found) == 2 * 1 + 2 * 3
    silicon = Structure(["Si"], structure.positions[2:], cell=[EDGE] * 3, pbc=True)
    assert torch.equal(found[2:], bind_projectors(potentials, silicon, small).overlaps)


def test_isolated_atoms():
    space = TensorSpace([9.0, 8.0, 10.0], 4, 9, periodic=False, origin=(-4.5, -4.0, -5.0))
    structure = Structure(["Al"], [[0.3, -0.2, 0.5]])
    rows = bound(structure, ModeBasis.below(space, 30.0)).overlaps
    np.testing.assert_allclose((rows[0] ** 2).sum(), 1, atol=1e-4)
    basis = ModeBasis.below(space, 3.0)
    rows = bound(structure, basis).overlaps
    distances = np.linalg.norm(space.points.numpy() - structure.positions, axis=1)
    values = radial(CHANNELS[0], 1, distances)
    field = torch.tensor(values / math.sqrt(4 * math.pi))[None]
    assert torch.allclose(rows[:1], basis.test(field), rtol=0, atol=1e-7)


def test_local_pseudopotentials_have_none(small):
    assert bind_projectors({"Al": GTHFIT}, ALONE, small) is None
    assert bound(ALONE, small, channels=()) is None


def test_partly_occupied_sites(small):
    structure = Structure(
        ["Al", "Al"], PAIR.positions, cell=[EDGE] * 3, pbc=True, occupancies=[1.0, 0.5]
    )
    with pytest.raises(PseudopotentialError, match="partly occupied"):
        bound(structure, small)
    assert bind_projectors({"Al": GTHFIT}, structure, small) is None


def test_an_element_without_a_pseudopotential(small):
    with pytest.raises(PseudopotentialError, match="no pseudopotential for Al"):
        bind_projectors({"Si": GTHFIT}, ALONE, small)
