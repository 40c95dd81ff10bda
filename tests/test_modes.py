"""Bases of Bloch waves below a cutoff, the meshes that hold them, and overlaps with Gaussians."""

import itertools
import math
import re

import numpy as np
import pytest
import torch
from systems import dimer

from fedens import Structure, TensorSpace
from fedens.errors import SpaceError
from fedens.fem import modes
from fedens.fem.axis import Axis
from fedens.fem.modes import (
    ModeBasis,
    gaussian_overlaps,
    largest_cutoff,
    space_for_cutoff,
    spacing_for_cutoff,
)

LENGTHS = (7.0, 6.0, 5.0)
CUTOFF = 4.0
CRYSTAL = TensorSpace(LENGTHS, 2, 6, origin=(1.0, -2.0, 0.0))
#: A box whose elements grow towards its walls.
BOX = TensorSpace(edges=[[-6.0, -2.0, 0.0, 2.0, 6.0]] * 3, order=6, periodic=False)
BASES = {
    "gamma": ModeBasis.below(CRYSTAL, CUTOFF),
    "half-integer": ModeBasis.below(CRYSTAL, CUTOFF, (0.5, 0.0, -0.5)),
    "complex": ModeBasis.below(CRYSTAL, CUTOFF, (0.2, -0.3, 0.5)),
    "isolated": ModeBasis.below(BOX, 2.0),
}
SPACES = {name: BOX if name == "isolated" else CRYSTAL for name in BASES}


def crystal(*lengths):
    return Structure(["Al"], [[0.0, 0.0, 0.0]], cell=lengths, pbc=True)


def random_coefficients(basis, generator, count=3):
    return torch.randn(count, basis.n_modes, dtype=basis.dtype, generator=generator)


@pytest.mark.parametrize("name", BASES)
def test_arithmetic_is_real_where_the_phases_allow(name):
    assert BASES[name].dtype == (torch.complex128 if name == "complex" else torch.float64)


@pytest.mark.parametrize("name", BASES)
def test_modes_are_orthonormal(name):
    basis = BASES[name]
    one = torch.eye(basis.n_modes, dtype=basis.dtype)
    assert torch.allclose(basis.test(basis.evaluate(one)), one, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", BASES)
def test_gradients_give_the_kinetic_energy(name):
    basis = BASES[name]
    weights = SPACES[name].weights
    total = 0.0
    for slopes in basis.gradient(torch.eye(basis.n_modes, dtype=basis.dtype)):
        total = total + (slopes.conj() * weights) @ slopes.T
    expected = torch.diag(2 * basis.kinetic).to(basis.dtype)
    assert torch.allclose(total, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", BASES)
def test_all_modes_below_the_cutoff_are_there(name):
    basis, cutoff = BASES[name], 2.0 if name == "isolated" else CUTOFF
    assert basis.kinetic.max() < cutoff
    phases = [axis.phase for axis in basis.axes]
    axes = [axis.with_phase(k) for axis, k in zip(SPACES[name].axes, phases, strict=True)]
    x, y, z = (axis.eigenvalues for axis in axes)
    everything = (x[:, None, None] + y[:, None] + z).reshape(-1) / 2
    assert basis.n_modes == int((everything < cutoff).sum())


def test_free_electrons():
    k = np.array([0.2, -0.3, 0.5])
    basis = ModeBasis.below(TensorSpace(LENGTHS, 3, 10), CUTOFF, k)
    waves = np.array(list(itertools.product(range(-6, 7), repeat=3))) + k
    levels = np.sort(0.5 * ((2 * math.pi * waves / LENGTHS) ** 2).sum(axis=1))
    expected = levels[levels < CUTOFF]
    np.testing.assert_allclose(np.sort(basis.kinetic), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("order", "counts"), [(2, [8, 12, 16, 24]), (4, [4, 6, 8, 12])])
def test_levels_of_a_bloch_axis_converge_at_twice_the_order(order, counts):
    kappa, length, levels = 0.2, 6.0, 5
    exact = np.sort((2 * math.pi * (np.arange(-5, 6) + kappa) / length) ** 2)[:levels]
    axes = [Axis.build(np.linspace(0, length, n + 1), order, True, kappa) for n in counts]
    errors = [axis.eigenvalues[:levels].numpy() - exact for axis in axes]
    for error in np.array(errors).T[2:]:  # the first two end in rounding errors at once
        rate = -np.polyfit(np.log(counts), np.log(error), 1)[0]
        assert rate == pytest.approx(2 * order, rel=0.05)


@pytest.mark.parametrize("kappa", [0.0, 0.5, 0.2, -0.3])
def test_bloch_condition(kappa):
    axis = CRYSTAL.axes[0].with_phase(kappa)
    inside = torch.linspace(float(axis.edges[0]), float(axis.edges[-1]), 23, dtype=torch.float64)
    factor = np.exp(2j * math.pi * kappa)
    here = axis.modes_at(inside).numpy()
    assert (np.abs(here).max(axis=0) > 0.1).all()
    np.testing.assert_allclose(here[-1], factor * here[0], atol=1e-12)
    for cells in (-2, 1):
        there = axis.modes_at(inside + cells * axis.length).numpy()
        np.testing.assert_allclose(there, factor**cells * here, atol=1e-11)


@pytest.mark.parametrize("kappa", [0.0, 0.5, 0.2])
def test_modes_at_the_points_are_the_values(kappa):
    axis = CRYSTAL.axes[1].with_phase(kappa)
    assert torch.allclose(axis.modes_at(axis.points), axis.values, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("phase", "folded"), [(-0.5, 0.5), (0.7, -0.3), (1.0, 0.0), (-1.25, -0.25)]
)
def test_phases_are_folded(phase, folded):
    axis = CRYSTAL.axes[0].with_phase(phase)
    assert axis.phase == folded
    assert axis.with_phase(0.0).phase == 0.0


def test_a_whole_phase_is_none():
    axis = CRYSTAL.axes[0]
    assert axis.with_phase(2.0) is axis


def test_multiply_is_the_potential_between_two_modes(generator, monkeypatch):
    monkeypatch.setattr(modes, "_BLOCK_ENTRIES", 2 * CRYSTAL.n_points)
    basis = BASES["complex"]
    potential = torch.randn(CRYSTAL.n_points, dtype=torch.float64, generator=generator)
    rows = random_coefficients(basis, generator, 5)
    assert [len(block) for block in basis.blocks(rows)] == [2, 2, 1]
    fields = basis.evaluate(torch.eye(basis.n_modes, dtype=basis.dtype))
    matrix = (fields.conj() * CRYSTAL.weights * potential) @ fields.T
    expected = rows @ matrix.T
    assert torch.allclose(basis.multiply(potential, rows), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("count", [0, 1, 7])
def test_blocks_cover_all_rows(count, monkeypatch):
    monkeypatch.setattr(modes, "_BLOCK_ENTRIES", CRYSTAL.n_points // 2)
    rows = torch.arange(2.0 * count).reshape(count, 2)
    blocks = BASES["gamma"].blocks(rows)
    assert torch.equal(torch.cat(blocks), rows)
    assert max(len(block) for block in blocks) <= 1


def test_no_rows_have_no_fields():
    basis = BASES["complex"]
    nothing = torch.zeros(0, basis.n_modes, dtype=basis.dtype)
    assert basis.evaluate(nothing).shape == (0, CRYSTAL.n_points)
    assert basis.multiply(CRYSTAL.weights, nothing).shape == (0, basis.n_modes)


def test_kinetic_energies_follow_the_scaling():
    factors = torch.tensor([1.1, 0.9, 1.0], dtype=torch.float64, requires_grad=True)
    basis = BASES["complex"].scaled
    assert torch.autograd.gradcheck(lambda f: basis(f).kinetic, factors, rtol=1e-7)


# Overlaps with Gaussians


GAUSSIAN_AXES = {
    "phase 0": CRYSTAL.axes[0],
    "phase 1/2": CRYSTAL.axes[0].with_phase(0.5),
    "phase 0.2": CRYSTAL.axes[0].with_phase(0.2),
    "isolated": BOX.axes[0],
}
#: In the middle, close to a wall, and (of a periodic axis) in other cells.
CENTRES = {"isolated": [0.3, -5.8], "periodic": [3.9, 7.95, 15.3, -1.1]}
NARROW, WIDE = 0.5 / 0.2**2, 0.5 / 2.0**2


def centres_of(axis):
    return torch.tensor(CENTRES["periodic" if axis.periodic else "isolated"], dtype=torch.float64)


def overlaps_by_quadrature(axis, centre, exponent, power, per_element=80, cells=5):
    """int (x - c)^k exp(-b (x - c)^2) mode(x) dx over many cells, Gauss points in each element."""
    nodes, weights = np.polynomial.legendre.leggauss(per_element)
    images = range(-cells, cells + 1) if axis.periodic else [0]
    edges = axis.edges.numpy()
    total = 0.0
    for image, (low, high) in itertools.product(images, itertools.pairwise(edges)):
        x = (low + high) / 2 + nodes * (high - low) / 2
        phase = np.exp(2j * math.pi * axis.phase * image)
        d = x + image * axis.length - centre
        integrand = d**power * np.exp(-exponent * d**2) * weights * (high - low) / 2
        total = total + phase * (integrand @ axis.modes_at(torch.tensor(x)).numpy())
    return total


@pytest.mark.parametrize("name", GAUSSIAN_AXES)
@pytest.mark.parametrize("exponent", [NARROW, WIDE], ids=["narrow", "wide"])
def test_overlaps_with_gaussians(name, exponent):
    axis = GAUSSIAN_AXES[name]
    centres = centres_of(axis)
    found = gaussian_overlaps(axis, centres, exponent, 3).numpy()
    assert found.shape == (4, len(centres), len(axis.eigenvalues))
    for power, (i, centre) in itertools.product(range(4), enumerate(centres.tolist())):
        expected = overlaps_by_quadrature(axis, centre, exponent, power)
        scale = np.abs(expected).max()
        np.testing.assert_allclose(found[power, i], expected, rtol=0, atol=1e-11 * scale)


def test_overlaps_with_plane_waves():
    kappa, exponent, length = 0.2, 1.3, 6.0
    axis = Axis.build(np.linspace(0, length, 5), 10, True, kappa)
    q = 2 * math.pi * (np.arange(-3, 4) + kappa) / length
    q = q[np.argsort(q**2)][:5]
    wave = math.sqrt(math.pi / exponent / length) * np.exp(-(q**2) / (4 * exponent))
    expected = [wave, wave * np.abs(q) / (2 * exponent)]
    found = gaussian_overlaps(axis, torch.tensor([2.3], dtype=torch.float64), exponent, 1)
    np.testing.assert_allclose(found[:, 0, :5].abs(), expected, rtol=1e-7)


@pytest.mark.parametrize("name", GAUSSIAN_AXES)
def test_overlaps_follow_the_centres(name):
    axis = GAUSSIAN_AXES[name].lowest(5)
    centres = centres_of(axis).requires_grad_(True)
    assert torch.autograd.gradcheck(
        lambda c: gaussian_overlaps(axis, c, 0.8, 2), centres, rtol=1e-6, atol=1e-8
    )


@pytest.mark.parametrize("name", GAUSSIAN_AXES)
def test_overlaps_follow_the_stretch_of_the_axis(name):
    axis = GAUSSIAN_AXES[name].lowest(5)
    centres = centres_of(axis)
    factor = torch.tensor(1.02, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda f: gaussian_overlaps(axis.scaled(f), centres * f, 0.8, 2),
        factor,
        rtol=1e-6,
        atol=1e-8,
    )


# Meshes and cutoffs


@pytest.mark.parametrize("cutoff", [12.0, 40.0])
@pytest.mark.parametrize("lengths", [(7.65,) * 3, (3.1, 7.0, 19.0)])
def test_a_cutoff_too_high_says_which_mesh_holds_it(lengths, cutoff):
    structure = crystal(*lengths)
    coarse = TensorSpace.for_structure(structure, spacing=0.7)
    with pytest.raises(SpaceError, match="space_for_cutoff") as caught:
        ModeBasis.below(coarse, cutoff)
    spacing = float(re.search(r"use a spacing of ([\d.]+) bohr", str(caught.value))[1])
    finer = TensorSpace.for_structure(structure, spacing)
    assert largest_cutoff(finer) >= cutoff
    assert largest_cutoff(space_for_cutoff(structure, cutoff)) >= cutoff
    assert f"holds 0 to {largest_cutoff(coarse):.4g}" in str(caught.value)


@pytest.mark.parametrize("lengths", [(7.65,) * 3, (3.1, 7.0, 4.4)])
def test_the_largest_cutoff_is_held(lengths):
    space = TensorSpace.for_structure(crystal(*lengths), spacing=0.5)
    largest = largest_cutoff(space)
    assert ModeBasis.below(space, largest).n_modes > 10
    with pytest.raises(SpaceError, match="or a lower cutoff"):
        ModeBasis.below(space, 1.001 * largest)


@pytest.mark.parametrize("cutoff", [0.0, -1.0, math.nan])
def test_cutoffs_that_are_not_positive(cutoff):
    with pytest.raises(SpaceError, match="the cutoff is"):
        ModeBasis.below(CRYSTAL, cutoff)


def test_a_phase_along_an_isolated_axis():
    with pytest.raises(SpaceError, match="does not repeat"):
        ModeBasis.below(BOX, 2.0, (0.0, 0.25, 0.0))


@pytest.mark.parametrize(("space", "kpoint"), [(BOX, (0, 0, 0)), (CRYSTAL, (0.5, 0.5, 0.5))])
def test_no_mode_below_the_cutoff(space, kpoint):
    with pytest.raises(SpaceError, match="raise the cutoff"):
        ModeBasis.below(space, 0.05, kpoint)


@pytest.mark.parametrize("cutoff", [3.0, 16.0, 60.0])
@pytest.mark.parametrize("lengths", [(7.65,) * 3, (4.0,) * 3, (3.1, 7.0, 19.0), (30.0, 6.0, 6.0)])
def test_space_for_a_cutoff(lengths, cutoff):
    space = space_for_cutoff(crystal(*lengths), cutoff)
    assert space.lengths == pytest.approx(lengths)
    assert space.spacing <= spacing_for_cutoff(cutoff) * (1 + 1e-5)
    shortest = 2 * math.pi / math.sqrt(2 * cutoff)  # wavelength
    assert space.spacing < shortest / 3
    for order in range(7, 11):
        elements = [math.ceil(x / (spacing_for_cutoff(cutoff) * order)) for x in lengths]
        assert space.n_points <= TensorSpace(lengths, elements, order).n_points


def test_space_for_a_cutoff_of_a_molecule():
    space = space_for_cutoff(dimer(), 16.0, margin=9.0)
    assert space.finest_spacing <= spacing_for_cutoff(16.0) * (1 + 1e-5)
    assert not any(space.periodic)
    assert space.lengths == pytest.approx((21.0, 21.5, 19.0))
    assert ModeBasis.below(space, 1.0).n_modes > 50
