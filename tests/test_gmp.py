"""Gaussian multipole features: published values, symmetries, two paths, derivatives."""

import json
import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.spatial.transform import Rotation

from fedens.errors import DescriptorError, SpaceError
from fedens.features import (
    GMP,
    Concatenation,
    axis_products,
    descriptor_from_description,
    laplacian,
    pair_sum,
)
from fedens.fem.harmonics import (
    addition_coefficients,
    harmonic_coefficients,
    monomials,
    solid_harmonics,
)
from fedens.fem.tensor import TensorSpace
from fedens.species import element_gaussians
from fedens.structure import Structure
from fedens.units import BOHR_IN_ANGSTROM as A0

# Gaussians (B, beta) in angstrom^-3 and angstrom^-2, and the published code's values of F_n.
WATER_GAUSSIANS = {
    "H": [
        (0.5852767678806401, 15.763007345678899),
        (0.47789355464477734, 5.230231115154175),
        (0.23352291964642088, 1.6182344494418026),
    ],
    "O": [
        (-11.358334493417026, 22.50646032175094),
        (11.263521376513516, 7.501580074133762),
        (2.074738039292679, 2.1955239813330114),
    ],
}
IN_BOHR = {s: [(b * A0**3, beta * A0**2) for b, beta in g] for s, g in WATER_GAUSSIANS.items()}
WATER = np.array([[0, 0, 0], [0.757, 0.586, 0], [-0.757, 0.586, 0]]) / A0
LOOK = np.array([[0, 0, 0], [0.757, 0.586, 0], [0.3, -0.4, 0.5]]) / A0
# (order, width in angstrom): at O, at H, at the third point; angstrom^(order - 3).
PUBLISHED = {
    (-1, 0.0): (2.0938412876, 1.5914718887, 0.98531998771),
    (0, 0.5): (1.6359632932, 0.67124617627, 0.84457744142),
    (0, 1.0): (0.36330351785, 0.26415137143, 0.28559664865),
    (1, 0.5): (4.2336437590e-2, 0.29054011801, 0.38139300364),
    (2, 0.5): (5.2717380552e-2, 0.43633319011, 0.42194265290),
    (3, 0.5): (0.18791920932, 1.0497203860, 0.73344652633),
    (4, 0.5): (0.60560310677, 3.4656667719, 1.7911947188),
    (6, 0.5): (15.401753720, 74.307410926, 37.117891165),
    (8, 0.5): (819.63652034, 4210.0304294, 2781.5254884),
}


def water(**changes):
    return Structure(["O", "H", "H"], WATER).replace(**changes)


def crystal():
    """Two elements, a vacancy-like site, a box of three lengths."""
    positions = [[0.1, 0.2, 0.3], [3.1, 2.0, 2.5], [1.0, 4.5, 5.2], [3.6, 5.0, 0.4]]
    return Structure(
        ["Mg", "O", "Mg", "O"],
        positions,
        cell=[6.0, 7.0, 8.0],
        pbc=True,
        occupancies=[1.0, 0.7, 1.0, 1.0],
    )


def sheared():
    cell = [[6.0, 0.0, 0.0], [1.5, 5.5, 0.0], [-0.7, 1.1, 6.5]]
    return Structure(["Mg", "O"], [[0.1, 0.2, 0.3], [2.6, 3.0, 2.9]], cell=cell, pbc=True)


def scattered(n=5, seed=0, scale=5.0):
    return torch.tensor(np.random.default_rng(seed).uniform(0, scale, (n, 3)))


def column(descriptor, order, width):
    name = "gmp_density" if order < 0 else f"gmp_{order}_w{width:g}"
    return descriptor.names.index(name)


@pytest.fixture(scope="module")
def water_features():
    descriptor = GMP([0.5 / A0, 1.0 / A0], 9, gaussians=IN_BOHR)
    return descriptor, descriptor(LOOK, water()).numpy()


@pytest.mark.parametrize(("order", "width"), PUBLISHED)
def test_published_values(water_features, order, width):
    descriptor, features = water_features
    found = features[:, column(descriptor, order, width / A0)] * A0 ** (max(order, 0) - 3)
    assert found == pytest.approx(PUBLISHED[order, width], rel=1e-9)


def test_order_nine(water_features):
    """The published code is wrong here: our value, which rotation supports."""
    descriptor, features = water_features
    found = features[2, column(descriptor, 9, 0.5 / A0)] * A0**6
    assert found == pytest.approx(4.1480773224e4, rel=1e-9)


def test_rotation():
    turn = Rotation.random(random_state=1).as_matrix()
    descriptor = GMP([0.8, 1.7], 9, form="squared", cross_widths=True)
    here = descriptor(LOOK, water())
    there = descriptor(LOOK @ turn.T, water(positions=WATER @ turn.T))
    assert torch.allclose(here, there, rtol=1e-9, atol=0)


def test_translation_and_order_of_atoms():
    descriptor = GMP([0.8], 4, form="squared")
    here = descriptor(LOOK, water())
    shift = np.array([0.3, -2.0, 11.0])
    there = descriptor(LOOK + shift, Structure(["H", "O", "H"], WATER[[2, 0, 1]] + shift))
    assert torch.allclose(here, there, rtol=1e-10, atol=0)


@pytest.mark.parametrize("structure", [crystal(), sheared()], ids=["box", "sheared"])
def test_periodic_images(structure):
    """Whole lattice vectors on atoms or points, and a doubled cell, change nothing."""
    descriptor = GMP([0.8, 1.6], 3, form="squared")
    points = scattered()
    here = descriptor(points, structure)
    moves = np.array([[1, 0, -2], [0, 3, 0], [0, 0, 0], [2, 1, 1]])[: len(structure)]
    moved = structure.replace(positions=structure.positions + moves @ structure.cell)
    assert torch.allclose(descriptor(points, moved), here, rtol=1e-9, atol=1e-15)
    elsewhere = points + torch.tensor([2.0, -1.0, 5.0], dtype=torch.float64) @ torch.tensor(
        structure.cell
    )
    assert torch.allclose(descriptor(elsewhere, structure), here, rtol=1e-9, atol=1e-15)
    doubled = structure.replace(
        numbers=np.tile(structure.numbers, 2),
        positions=np.concatenate([structure.positions, structure.positions + structure.cell[0]]),
        cell=structure.cell * [[2], [1], [1]],
        occupancies=np.tile(structure.occupancies, 2),
    )
    assert torch.allclose(descriptor(points, doubled), here, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("form", ["root", "squared", "smooth"])
@pytest.mark.parametrize("channels", ["sum", "element"])
def test_space_agrees_with_pair_sum(form, channels):
    gaussians = {s: element_gaussians(s) for s in ("Mg", "Si", "O")}
    descriptor = GMP([0.7, 1.5, 2.2], 3, gaussians, form=form, channels=channels, cross_widths=True)
    structure = crystal()
    space = TensorSpace.for_structure(structure, spacing=1.0, order=3)
    fast, pairs = descriptor(space, structure), descriptor(space.points, structure)
    assert fast.shape == pairs.shape == (space.n_points, descriptor.n_features)
    size = pairs.abs().amax(dim=0)
    assert ((fast - pairs).abs() <= 1e-8 * size).all()
    absent = torch.tensor(["_Si_" in name for name in descriptor.names])
    assert (size[absent] == 0).all()
    assert (size[~absent] > 0).all()


def test_space_agrees_with_pair_sum_for_isolated_atoms():
    descriptor = GMP([0.6, 1.2], 5)
    space = TensorSpace.for_structure(water(), spacing=1.2, order=3, margin=6.0)
    fast, pairs = descriptor(space, water()), descriptor(space.points, water())
    assert ((fast - pairs).abs() <= 1e-8 * pairs.abs().amax(dim=0)).all()


def rms_error(found, exact):
    """Of each feature, relative to its spread; features that vanish count as they are."""
    spread = exact.std(dim=0)
    return (found - exact).square().mean(dim=0).sqrt() / torch.where(spread > 0, spread, 1.0)


@pytest.mark.parametrize("scaling", ["radial", "both"])
def test_laplacian_path(scaling):
    """At the default resolution: below 1e-4 of each feature's spread."""
    structure = crystal()
    space = TensorSpace.for_structure(structure)
    gaussians = {s: element_gaussians(s) for s in ("Mg", "Si", "O")}
    options = {"scaling": scaling, "channels": "element", "cross_widths": True}
    widths = [1.4, 0.7, 2.8, 1.0]
    exact = GMP(widths, 3, gaussians, **options)(space, structure)
    found = GMP(widths, 3, gaussians, path="laplacian", **options)(space, structure)
    assert (exact.std(dim=0) > 0).sum() == 2 * exact.shape[1] // 3  # one element is absent
    assert 1e-9 < rms_error(found, exact).max() < 1e-4


def test_laplacian_path_converges(monkeypatch):
    """Order 4: the error falls at least with the fourth power of the spacing."""
    monkeypatch.setattr(laplacian, "_RESOLVED_VARIANCE", 0.1)
    structure, counts, errors = crystal(), (3, 4, 6), []
    for n in counts:
        space = TensorSpace(np.diag(structure.cell), n, 4)
        exact = GMP([0.8, 1.6], 3)(space, structure)
        found = GMP([0.8, 1.6], 3, path="laplacian")(space, structure)
        errors.append(float(rms_error(found, exact).max()))
    assert errors[-1] < 1e-2
    assert np.polyfit(np.log(counts), np.log(errors), 1)[0] < -4


def test_any_other_space_is_taken_by_its_points():
    class Points:
        points = torch.tensor(LOOK)

    descriptor = GMP([0.8], 2)
    assert torch.equal(descriptor(Points(), water()), descriptor(LOOK, water()))


def test_density_integrates_to_the_valence_electrons():
    structure = crystal()
    space = TensorSpace.for_structure(structure, spacing=0.3)
    density, smoothed = GMP([1.0], 0)(space, structure).T
    assert float(space.integrate(density)) == pytest.approx(2 * 2 + 1.7 * 6, rel=1e-6)
    assert float(space.integrate(smoothed)) == pytest.approx(2 * 2 + 1.7 * 6, rel=1e-10)


def test_atoms_crowded_in_a_corner():
    """Far more neighbours than the mean density lets expect are all found."""
    crowd = np.stack(np.meshgrid(*[np.arange(3)] * 3), axis=-1).reshape(-1, 3) * 2.0
    alone = Structure(["H"] * 27, crowd)
    periodic = alone.replace(cell=[60.0] * 3, pbc=True)
    descriptor = GMP([0.8], 2, cutoff=8.0)
    points = scattered(10)
    assert torch.allclose(descriptor(points, periodic), descriptor(points, alone), rtol=1e-12)


def test_cutoff_is_where_it_says():
    atom = Structure(["H"], [[0, 0, 0]])
    points = np.array([[0.0, 2.99, 0.0], [0.0, 0.0, 3.01]])
    features = GMP([1.5], 2, cutoff=3.0)(points, atom)
    assert torch.equal(features[:1], GMP([1.5], 2)(points[:1], atom))
    assert (features[0] > 0).all()
    assert (features[1] == 0).all()


def test_cutoff_with_nothing_inside():
    """A point that sees no atom, in a cell: all features vanish."""
    features = GMP([1.5], 2, cutoff=0.4)(np.array([[3.0, 4.0, 6.5]]), crystal())
    assert features.shape == (1, 4)
    assert (features == 0).all()


def test_truncation_error_falls_with_the_cutoff():
    points, structure = scattered(), crystal()
    exact = GMP([1.6], 3)(points, structure)
    errors = [(GMP([1.6], 3, cutoff=c)(points, structure) - exact).abs().max() for c in (5, 8, 11)]
    assert errors[0] > 1e-2
    assert errors[1] < 0.2 * errors[0]
    assert errors[2] < 0.05 * errors[1]


def test_blocks_do_not_matter(monkeypatch):
    """Values and derivatives in one block and in many, which are computed twice."""
    structure = crystal()
    space = TensorSpace.for_structure(structure, spacing=3.0, order=1)
    descriptor = GMP([0.9], 2, cutoff=7.0)

    def results(points):
        positions = torch.tensor(structure.positions, requires_grad=True)
        features = descriptor(points, structure, positions=positions)
        (features * torch.linspace(0, 1, features.numel()).reshape(features.shape)).sum().backward()
        return features.detach(), positions.grad

    whole = [*results(space), *results(space.points)]
    monkeypatch.setattr(axis_products, "_BLOCK_ENTRIES", 1)
    monkeypatch.setattr(pair_sum, "_PAIR_ENTRIES", 30_000)
    monkeypatch.setattr(pair_sum, "_GROUP_POINTS", 3)
    parts = [*results(space), *results(space.points)]
    for one, other in zip(whole, parts, strict=True):
        assert one.abs().max() > 0.01
        assert torch.allclose(one, other, rtol=1e-10, atol=1e-12)


def test_points_in_groups_see_what_each_sees_alone():
    """The sums about the middle of a group of points, turned into those about each point."""
    descriptor = GMP([0.6, 1.1], 8)
    points = scattered(400, scale=3.0)
    together = descriptor(points, crystal())
    alone = torch.cat([descriptor(point[None], crystal()) for point in points[::50]])
    size = together.abs().amax(dim=0)
    assert ((together[::50] - alone).abs() <= 1e-8 * size).all()


@pytest.mark.parametrize("points", [scattered(300, scale=2.0), scattered(300, scale=900.0)])
def test_single_precision(points):
    """Float32 points give float32 features, 1e-5 from float64's, also far from the origin."""
    descriptor = GMP([0.7, 1.4, 2.8], 3)
    single = descriptor(points.float(), crystal())
    double = descriptor(points.float().double(), crystal())
    assert single.dtype == torch.float32
    assert double.dtype == torch.float64
    size = double.abs().amax(dim=0)
    assert (single - double).abs().max() > 0
    assert ((single - double).abs() <= 1e-5 * size).all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("path", ["separable", "laplacian"])
def test_on_a_gpu(path):
    """Points or a space on a GPU: the same numbers, there."""
    descriptor, structure = GMP([0.7, 1.4], 3, path=path), crystal()
    space = TensorSpace.for_structure(structure, spacing=1.0, order=3)
    for points in (space, space.points):
        here, there = descriptor(points, structure), descriptor(points.to("cuda"), structure)
        assert there.is_cuda
        assert torch.allclose(there.cpu(), here, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("form", ["root", "squared", "smooth"])
def test_derivatives_of_the_pair_sum(form):
    structure = sheared()
    descriptor = GMP([0.9, 1.4], 2, cutoff=9.0, form=form, cross_widths=True)
    points = scattered(2, seed=3).numpy()
    arguments = [points, structure.positions, structure.cell, np.array([0.9, 0.6])]
    arguments = [torch.tensor(a, requires_grad=True) for a in arguments]
    assert torch.autograd.gradcheck(
        lambda r, p, c, o: descriptor(r, structure, p, c, o), arguments, atol=1e-7
    )


def test_second_derivatives_of_the_pair_sum():
    descriptor = GMP([0.9], 2, form="squared")
    points = torch.tensor(LOOK[2:])
    positions = torch.tensor(WATER, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda p: descriptor(points, water(), p), [positions])


def alloy(silicon):
    """One site shared by aluminium and silicon, beside an oxygen."""
    positions = [[0.1, 0.2, 0.3], [0.1, 0.2, 0.3], [3.0, 2.0, 2.5]]
    filled = [1 - silicon, silicon, 1.0]
    return Structure(["Al", "Si", "O"], positions, [6.0, 7.0, 8.0], True, occupancies=filled)


def test_shared_site_is_a_mixture():
    """Moments are linear in the fractions: those of a mixture lie between those of its parts."""
    descriptor, points = GMP([0.8, 1.5], 3), scattered(20)
    pure = [alloy(0.0), alloy(1.0)]
    aluminium, silicon = (descriptor.moments(points, structure) for structure in pure)
    mixed = descriptor.moments(points, alloy(0.3))
    for one, other, between in zip(aluminium, silicon, mixed, strict=True):
        assert (one - other).abs().max() > 1e-3
        assert torch.allclose(between, 0.7 * one + 0.3 * other, rtol=1e-10, atol=1e-14)


def test_derivatives_in_the_fractions():
    """First and second, at points and on a space."""
    structure = alloy(0.3)
    filled = torch.tensor(structure.occupancies, requires_grad=True)
    space = TensorSpace.for_structure(structure, spacing=4.0, order=1)
    descriptor = GMP([0.9], 2, form="squared")
    for points in (scattered(2), space):

        def features(fractions, points=points):
            return descriptor(points, structure, occupancies=fractions)[:5]

        assert torch.autograd.gradcheck(features, [filled])
        assert torch.autograd.gradgradcheck(features, [filled])


@pytest.mark.parametrize("path", ["separable", "laplacian"])
def test_derivatives_on_a_space(path):
    """Positions, occupancies and a stretched box, for a few sums of all features."""
    structure = crystal()
    space = TensorSpace.for_structure(structure, spacing=3.0, order=1)
    descriptor = GMP([0.9, 1.4], 2, form="squared", cross_widths=True, path=path)
    size = (3, space.n_points * descriptor.n_features)
    mixing = torch.tensor(np.random.default_rng(2).normal(size=size))
    positions = torch.tensor(structure.positions, requires_grad=True)
    filled = torch.tensor(structure.occupancies, requires_grad=True)
    factors = torch.ones(3, dtype=torch.float64, requires_grad=True)

    def sums(positions, filled, factors):
        lengths = factors.detach().numpy() * np.diag(structure.cell)
        there = structure.replace(cell=lengths)
        scaled = space.scaled(factors)
        features = descriptor(scaled, there, positions * factors, occupancies=filled)
        return mixing @ features.flatten()

    assert sums(positions, filled, factors).abs().min() > 1e-3
    assert torch.autograd.gradcheck(sums, [positions, filled, factors])


def test_moving_everything_changes_nothing():
    """The derivative in the points is minus the sum of those in the positions."""
    points = torch.tensor(LOOK[2:], requires_grad=True)
    positions = torch.tensor(WATER, requires_grad=True)
    features = GMP([0.8], 3)(points, water(), positions=positions)
    features.sum().backward()
    assert points.grad.abs().max() > 0.01
    assert torch.allclose(points.grad[0], -positions.grad.sum(dim=0), rtol=1e-10)


def test_forms_at_a_symmetric_site():
    """At the middle of two like atoms F_1 = 0: only its square and smooth root are smooth."""
    pair = Structure(["O", "O"], [[-1.2, 0, 0], [1.2, 0, 0]])

    def gradient(form, x):
        point = torch.tensor([[x, 0.0, 0.0]], dtype=torch.float64, requires_grad=True)
        value = GMP([0.8], 1, form=form)(point, pair)[0, 2]
        value.backward()
        return float(value.detach()), float(point.grad[0, 0])

    for form in ("root", "squared", "smooth"):
        value, slope = gradient(form, 0.0)
        assert value == pytest.approx(0.0, abs=1e-14)
        assert slope == pytest.approx(0.0, abs=1e-12)
    assert gradient("root", 1e-9)[1] > 0.01  # a cusp
    assert abs(gradient("smooth", 1e-9)[1]) < 1e-5
    root, smooth = gradient("root", 0.5)[0], gradient("smooth", 0.5)[0]
    assert smooth == pytest.approx(math.hypot(root, 1e-4) - 1e-4, rel=1e-10)
    assert gradient("squared", 0.5)[0] == pytest.approx(root**2, rel=1e-12)


def test_far_from_all_atoms_derivatives_are_finite():
    for form in ("root", "squared", "smooth"):
        positions = torch.tensor(WATER, requires_grad=True)
        far = torch.tensor([[300.0, 0.0, 0.0]], dtype=torch.float64, requires_grad=True)
        features = GMP([0.8], 3, form=form)(far, water(), positions=positions)
        features.sum().backward()
        assert (features == 0).all()
        assert torch.isfinite(positions.grad).all()
        assert torch.isfinite(far.grad).all()


@pytest.mark.parametrize("order", [0, 1, 2, 5])
def test_both_scaling_divides_by_the_norm_of_the_probe(order):
    """The norm is sum over m of the integral of exp(-2 alpha r^2) r^(2n+2) with all factors."""
    width, alpha = 0.9, 0.5 / 0.9**2
    radial = quad(lambda r: math.exp(-2 * alpha * r * r) * r ** (2 * order + 2), 0, math.inf)[0]
    odd = math.prod(range(2 * order - 1, 0, -2))
    norm = math.sqrt(odd * math.factorial(order) * 4 * math.pi * radial)
    plain = GMP([width], order)(LOOK, water())
    both = GMP([width], order, scaling="both")(LOOK, water())
    assert torch.allclose(plain[:, -1] / norm, both[:, -1], rtol=1e-9)
    assert torch.equal(plain[:, 0], both[:, 0])


def test_element_channels_add_up():
    """Densities add; a channel is what its atoms alone would give."""
    gaussians = {s: element_gaussians(s) for s in ("H", "O")}
    split = GMP([0.8], 2, gaussians, channels="element")
    features = split(LOOK, water())
    assert split.names[0] == "gmp_H_density"
    assert split.names[4] == "gmp_O_density"
    alone = GMP([0.8], 2)(LOOK, Structure(["O"], WATER[:1]))
    assert torch.allclose(features[:, 4:], alone, rtol=1e-12)
    together = GMP([0.8], 2)(LOOK, water())
    assert torch.allclose(features[:, 0] + features[:, 4], together[:, 0], rtol=1e-12)


def test_cross_widths():
    """Products of two widths: names, Cauchy and Schwarz (equal on an axis), signed roots."""
    descriptor = GMP([0.8, 1.3], 1, form="squared", cross_widths=True)
    assert descriptor.names == [
        "gmp_density",
        "gmp_0_w0.8",
        "gmp_0_w1.3",
        "gmp_1_w0.8",
        "gmp_1_w0.8_w1.3",
        "gmp_1_w1.3",
    ]
    features = descriptor(LOOK, water())
    assert (features[:, 4] ** 2 <= features[:, 3] * features[:, 5]).all()
    on_line = descriptor(np.array([[0.0, 3.0, 0.0]]), water())  # one component only
    assert on_line[0, 4] ** 2 == pytest.approx(float(on_line[0, 3] * on_line[0, 5]), rel=1e-10)
    # beside the small atom the narrow probe sees it and the wide one the large atom behind
    opposed = Structure(["O", "H"], [[0, 0, 0], [4.0, 0, 0]]), np.array([[3.2, 0.0, 0.0]])
    product = descriptor(opposed[1], opposed[0])[0, 4]
    assert product < -1e-8
    rooted = GMP([0.8, 1.3], 1, cross_widths=True)
    assert float(rooted(opposed[1], opposed[0])[0, 4]) == pytest.approx(-math.sqrt(-product))
    rooted = rooted(LOOK, water())
    assert torch.allclose((rooted * rooted.abs())[:, 1:], features[:, 1:], rtol=1e-10)
    assert torch.equal(rooted[:, 0], features[:, 0])  # the density is never squared


@pytest.mark.parametrize("order", [0, 1, 3, 6, 9])
def test_addition_theorem(order):
    """Harmonics of a sum from those of its two parts."""
    one, other = scattered(20, seed=1, scale=1.0), scattered(20, seed=2, scale=1.0) - 0.5
    left, right, both = (solid_harmonics(order)(x) for x in (one, other, one + other))
    total = torch.zeros(20, 2 * order + 1, dtype=torch.float64)
    for first in range(order + 1):
        second = order - first
        total += torch.einsum(
            "pa,pb,abm->pm",
            left[:, first**2 : (first + 1) ** 2],
            right[:, second**2 : (second + 1) ** 2],
            addition_coefficients(first, second),
        )
    assert torch.allclose(total, both[:, order**2 :], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("order", range(8))
def test_harmonics_agree_with_sphericart(order):
    x, y, z = points = scattered(20).T
    terms = torch.stack([x**a * y**b * z**c for a, b, c in monomials(order)])
    expected = solid_harmonics(order)(points.T.contiguous())[:, order**2 :].T
    assert torch.allclose(harmonic_coefficients(order) @ terms, expected, rtol=1e-10, atol=1e-9)


@pytest.mark.parametrize("channels", ["sum", "element"])
@pytest.mark.parametrize("scaling", ["radial", "both"])
def test_squares_of_the_moments_are_the_features(channels, scaling):
    """At points and on a space; an element that is absent has moments of zero."""
    gaussians = {s: element_gaussians(s) for s in ("Mg", "Si", "O")}
    descriptor = GMP([0.7, 1.5], 3, gaussians, scaling, "squared", channels)
    structure = crystal()
    space = TensorSpace.for_structure(structure, spacing=2.0, order=2)
    for points in (space, scattered(70)):
        moments = descriptor.moments(points, structure)
        features = descriptor(points, structure)
        n_channels = 1 if channels == "sum" else 3
        assert [m.shape for m in moments] == [
            (n_channels * 2, 2 * n + 1, len(features)) for n in range(4)
        ]
        squares = torch.stack([(m**2).sum(dim=1) for m in moments])
        squares = squares.reshape(4, n_channels, 2, -1).movedim(1, 0).reshape(n_channels, 8, -1)
        expected = features.T.reshape(n_channels, 9, -1)[:, 1:]
        assert torch.allclose(squares, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("path", ["separable", "laplacian"])
def test_moments_on_a_space_are_those_at_its_points(path):
    """With their signs."""
    descriptor = GMP([0.9, 1.8], 3, path=path)
    space = TensorSpace.for_structure(crystal(), spacing=0.34)
    some = slice(None, None, 997)
    on_space = descriptor.moments(space, crystal())
    at_points = descriptor.moments(space.points[some], crystal())
    for found, expected in zip(on_space, at_points, strict=True):
        size = expected.abs().amax()
        assert ((found[..., some] - expected).abs() <= 1e-4 * size).all()


def test_moments_turn_as_solid_harmonics():
    """Those of one Gaussian are the harmonics of its direction times a number."""
    descriptor = GMP([0.8], 4, gaussians={"H": [(1.0, 0.7)]})
    atom = Structure(["H"], [[0.3, -0.4, 1.1]])
    point = torch.zeros(1, 3, dtype=torch.float64)
    for order, moment in enumerate(descriptor.moments(point, atom)):
        terms = [
            math.prod(x**p for x, p in zip(atom.positions[0], q, strict=True))
            for q in monomials(order)
        ]
        harmonics = harmonic_coefficients(order) @ torch.tensor(terms)
        ratios = moment[0, :, 0] / harmonics
        assert float(ratios[0]) > 0
        assert torch.allclose(ratios, ratios[:1].expand(len(ratios)), rtol=1e-10)


def test_moments_are_differentiable():
    descriptor = GMP([0.9], 2)
    positions = torch.tensor(WATER, requires_grad=True)

    def flat(p):
        return torch.cat([m.flatten() for m in descriptor.moments(LOOK, water(), positions=p)])

    assert torch.autograd.gradcheck(flat, [positions])
    assert torch.autograd.gradgradcheck(flat, [positions])


def test_description_makes_the_same_descriptor():
    first = GMP([0.8, 1.3], 2, form="smooth", cutoff=11.0, smoothing=1e-3, scaling="both")
    both = Concatenation([first, GMP([2.0], 0, gaussians=IN_BOHR, channels="element")])
    again = descriptor_from_description(json.loads(json.dumps(both.describe())))
    assert again.describe() == both.describe()
    assert again.names == both.names
    assert torch.equal(again(LOOK, water()), both(LOOK, water()))
    assert both(LOOK, water()).shape == (3, both.n_features) == (3, 11)
    assert first.describe() != GMP([0.8, 1.3], 2).describe()


def test_no_points():
    assert GMP([0.8], 1)(np.zeros((0, 3)), water()).shape == (0, 3)


def test_missing_element_is_named():
    with pytest.raises(DescriptorError, match=r"no Gaussians for element Og.*H, He, Li"):
        GMP([1.0], 1)(LOOK, Structure(["Og"], [[0, 0, 0]]))
    with pytest.raises(DescriptorError, match=r"element O; there are some for H"):
        GMP([1.0], 1, gaussians={"H": [(1.0, 1.0)]})(LOOK, water())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"widths": []}, "widths"),
        ({"widths": [1.0, 1.0]}, "different"),
        ({"widths": [-1.0]}, "width"),
        ({"widths": [math.nan]}, "width"),
        ({"max_order": -1}, "max_order"),
        ({"max_order": 1.5}, "max_order"),
        ({"scaling": "none"}, "radial, both"),
        ({"form": "cube"}, "root, squared, smooth"),
        ({"channels": "atom"}, "sum, element"),
        ({"channels": "element"}, "pass them"),
        ({"cutoff": 0.0}, "cutoff"),
        ({"smoothing": 0.0}, "smoothing"),
        ({"path": "fast"}, "separable, laplacian"),
        ({"gaussians": {}}, "empty"),
        ({"gaussians": {"Xx": [(1, 1)]}}, "Xx"),
        ({"gaussians": {"H": []}}, "gaussians of H"),
        ({"gaussians": {"H": [(1, -1)]}}, "beta of H"),
        ({"gaussians": {"H": [(math.inf, 1)]}}, "B of H"),
    ],
)
def test_bad_parameters(arguments, message):
    with pytest.raises(DescriptorError, match=message):
        GMP(**({"widths": [1.0], "max_order": 1} | arguments))


def test_bad_calls():
    descriptor, structure = GMP([1.0], 1), crystal()
    space = TensorSpace.for_structure(structure, spacing=3.0, order=1)
    with pytest.raises(DescriptorError, match="shape"):
        descriptor(np.zeros((4, 2)), structure)
    with pytest.raises(DescriptorError, match="not finite"):
        descriptor(np.full((1, 3), np.nan), structure)
    with pytest.raises(DescriptorError, match="positions have shape"):
        descriptor(LOOK, structure, positions=torch.zeros(2, 3))
    for name, value in (("positions", torch.tensor(structure.positions)), ("cell", torch.eye(3))):
        with pytest.raises(DescriptorError, match=f"{name} contain"):
            descriptor(LOOK, structure, **{name: value * math.nan})
    with pytest.raises(DescriptorError, match=r"occupancies have shape \(3,\), expected \(4,\)"):
        descriptor(LOOK, structure, occupancies=torch.ones(3))
    with pytest.raises(DescriptorError, match="not periodic"):
        descriptor(LOOK, water(), cell=torch.eye(3))
    with pytest.raises(DescriptorError, match="scaled"):
        descriptor(space, structure, cell=torch.eye(3))
    with pytest.raises(SpaceError, match="periodic"):
        descriptor(space, water())
    isolated = TensorSpace.for_structure(water(), spacing=3.0, order=1)
    with pytest.raises(DescriptorError, match=r"isolated.*separable"):
        GMP([1.0], 1, path="laplacian")(isolated, water())


def test_bad_descriptions():
    with pytest.raises(DescriptorError, match=r"'sonar'.*gmp"):
        descriptor_from_description({"kind": "sonar"})
    with pytest.raises(DescriptorError, match="does not fit"):
        descriptor_from_description({"kind": "gmp", "colour": 3})
    with pytest.raises(DescriptorError, match="more than one"):
        Concatenation([GMP([1.0], 1), GMP([1.0], 1)])
    with pytest.raises(DescriptorError, match="at least one"):
        Concatenation([])
