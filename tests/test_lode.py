"""Long-distance features: published values, other codes, symmetries, two paths, derivatives."""

import json
import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from fedens.errors import DescriptorError, SpaceError
from fedens.features import GMP, LODE, Concatenation, PowerSpectrum, descriptor_from_description
from fedens.fem.tensor import TensorSpace
from fedens.structure import Structure

#: F_lm of one source of weight 1, s = 0.7, l = 0 to 2, m = -l to l, by exponent.
LOOK = np.array([[0.3, -0.5, 0.8]])
TABLE = {
    1.0: "0.240134982882 0.107675642827 -0.172281028523 -0.064605385696 -0.078009523899 "
    "-0.208025397064 0.141121634817 0.124815238239 -0.041605079413",
    6.0: "0.024067996632 0.030175568331 -0.048280909329 -0.018105340999 -0.031849727803 "
    "-0.084932607474 0.057617139951 0.050959564485 -0.016986521495",
}
CHARGES = {"Na": 1.0, "Cl": -0.8}


def salt(**changes):
    """Two elements in a cell of three different edges, not neutral, one site half filled."""
    positions = [[0.1, 0.2, 0.3], [3.1, 2.0, 2.5], [1.0, 4.5, 5.2], [3.6, 5.0, 0.4]]
    structure = Structure(
        ["Na", "Cl", "Na", "Cl"],
        positions,
        cell=[6.0, 7.0, 8.0],
        pbc=True,
        occupancies=[1.0, 0.5, 1.0, 1.0],
    )
    return structure.replace(**changes)


def sheared():
    cell = np.array([[6.0, 0.0, 0.0], [1.5, 5.5, 0.3], [-0.7, 1.1, 6.5]])
    return Structure(["Na", "Cl"], [[0.1, 0.2, 0.3], [2.6, 3.0, 2.9]], cell=cell, pbc=True)


def isolated():
    return salt(pbc=False, cell=None)


def scattered(n=5, seed=0, scale=6.0):
    return np.random.default_rng(seed).uniform(0, scale, (n, 3))


@pytest.mark.parametrize("exponent", TABLE)
def test_expansion_of_one_source(exponent):
    moments = LODE(exponent, 0.7, 2, channels="sum").moments(LOOK, Structure(["H"], [[0, 0, 0]]))
    assert [tuple(m.shape) for m in moments] == [(1, 1, 1), (1, 3, 1), (1, 5, 1)]
    found = torch.cat([m.flatten() for m in moments]).tolist()
    assert found == pytest.approx([float(f) for f in TABLE[exponent].split()], abs=1e-12)


def test_features_are_invariants_of_the_moments():
    """F_00 with its sign, and sums over m of products, within and across fields."""
    descriptor = LODE([1, 4.5], 0.8, 2, CHARGES, form="squared", cross=True)
    assert descriptor.moment_names == ["Na_p1_s0.8", "Na_p4.5_s0.8", "Cl_p1_s0.8", "Cl_p4.5_s0.8"]
    features = dict(zip(descriptor.names, descriptor(LOOK, salt())[0].tolist(), strict=True))
    moments = descriptor.moments(LOOK, salt())
    assert len(features) == 4 + 2 * (4 + 6)
    assert features["lode_0_Cl_p1_s0.8"] == float(moments[0][2, 0, 0]) != 0
    for order in (1, 2):
        na, cl = moments[order][0, :, 0], moments[order][3, :, 0]
        assert features[f"lode_{order}_Na_p1_s0.8"] == pytest.approx(float(na @ na))
        assert features[f"lode_{order}_Na_p1_s0.8_Cl_p4.5_s0.8"] == pytest.approx(float(na @ cl))


@pytest.mark.parametrize("exponent", [1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
def test_potential_against_torch_pme(exponent):
    """Its Ewald sum at charges of zero gives half the potential."""
    torchpme = pytest.importorskip("torchpme")
    structure, points = rock_salt(), scattered(6, scale=10.0)
    where = np.concatenate([structure.positions, points])
    charges = torch.tensor([1.0, -1.0] * 4 + [0.0] * 6, dtype=torch.float64)[:, None]
    law = torchpme.InversePowerLawPotential(exponent=int(exponent), smearing=0.7)
    ewald = torchpme.EwaldCalculator(law, lr_wavelength=0.28, full_neighbor_list=True)
    names = ["Na", "Cl"] * 4 + ["He"] * 6
    everything = Structure(names, where, cell=structure.cell, pbc=True)
    first, second, _, distances = everything.neighbours(4.9)
    halves = ewald.to(torch.float64)(
        charges=charges,
        cell=torch.tensor(structure.cell),
        positions=torch.tensor(where),
        neighbor_indices=torch.tensor(np.stack([first, second], axis=1)),
        neighbor_distances=torch.tensor(distances),
    )
    theirs = 2 * halves[8:, 0]
    weights = {"Na": 1.0, "Cl": -1.0}
    ours = LODE(exponent, 0.05, 0, weights, channels="sum")(points, structure)[:, 0]
    ours = ours * math.sqrt(4 * math.pi)
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-10 * float(ours.abs().max()))


def rock_salt():
    """Eight atoms in a sheared cell; more room than the points of other codes need."""
    cell = np.array([[11.0, 0, 0], [1.5, 10.0, 0], [-0.7, 1.1, 12.0]])
    sites = np.stack(np.meshgrid(*[np.arange(2)] * 3), axis=-1).reshape(-1, 3) / 2 + 0.1
    sites += np.random.default_rng(3).normal(scale=0.03, size=sites.shape)
    return Structure(["Na", "Cl"] * 4, sites @ cell, cell=cell, pbc=True)


@pytest.mark.parametrize("exponent", [1, 3, 6])
def test_expansion_against_featomic(exponent):
    """Its projections on r^l Y_lm inside a sphere, for radii that shrink to nothing."""
    pytest.importorskip("featomic")
    structure, points = rock_salt(), scattered(6, scale=10.0)
    first, second, third = (
        featomic_moments(structure, points, exponent, 1.2, 2, radius) for radius in (0.2, 0.1, 0.05)
    )
    # errors of second and fourth order in the radius removed
    once, again = (4 * second - first) / 3, (4 * third - second) / 3
    theirs = (16 * again - once) / 15
    moments = LODE(exponent, 1.2, 2, {"Na": 1.0, "Cl": 1.0}).moments(points, structure)
    ours = torch.cat(moments, dim=1).numpy()
    size = np.abs(ours).max(axis=2, keepdims=True)
    assert np.abs((theirs - ours) / size).max() < 1e-7


def featomic_moments(structure, points, exponent, smearing, highest, radius):
    """F_lm (n_elements, n_harmonics, n_points) to second order in the radius.

    In a small sphere V is the sum of 4 pi/(2l+1)!! F_lm r^l Y_lm.
    """
    from ase import Atoms
    from featomic import LodeSphericalExpansion, basis, density
    from featomic.splines import LodeSpliner

    ghosts = ["He"] * len(points)
    everything = Atoms(
        [*structure.symbols, *ghosts],
        np.concatenate([structure.positions, points]),
        cell=structure.cell,
        pbc=True,
    )
    orders = range(highest + 1)
    radial = {n: basis.Monomials(angular_channel=n, max_radial=0, radius=radius) for n in orders}
    splines = LodeSpliner(
        density=density.SmearedPowerLaw(smearing=smearing, exponent=exponent),
        basis=basis.Explicit(by_angular=radial),
        k_cutoff=8.5 / smearing,
        n_spline_points=400,
    )
    expansion = LodeSphericalExpansion(**splines.get_hypers()).compute([everything])
    result = []
    for number in (11, 17):
        blocks = []
        for n in orders:
            keys = {"o3_lambda": n, "o3_sigma": 1, "center_type": 2, "neighbor_type": number}
            factor = math.prod(range(2 * n + 1, 0, -2)) / (4 * math.pi)
            factor *= math.sqrt(2 * n + 3) * radius ** -(n + 1.5)
            blocks.append(factor * expansion.block(**keys).values[:, :, 0].T)
        result.append(np.concatenate(blocks))
    return np.stack(result)


@pytest.mark.parametrize("structure", [sheared(), isolated()], ids=["periodic", "isolated"])
def test_rotation_translation_and_order(structure):
    turn, shift = Rotation.random(random_state=1).as_matrix(), np.array([0.3, -2.0, 11.0])
    descriptor = LODE([1, 6.3], 0.8, 6, CHARGES, form="squared", cross=True)
    here = descriptor(LOOK, structure)
    order = np.arange(len(structure))[::-1]
    moved = structure.replace(
        numbers=structure.numbers[order],
        positions=(structure.positions @ turn.T + shift)[order],
        occupancies=structure.occupancies[order],
        cell=None if structure.cell is None else structure.cell @ turn.T,
    )
    there = descriptor(LOOK @ turn.T + shift, moved)
    assert torch.allclose(here, there, rtol=1e-8, atol=1e-13)


@pytest.mark.parametrize("exponent", [1.0, 3.0, 4.2])
def test_periodic_images(exponent):
    """Whole lattice vectors on atoms or points, and a doubled cell, change nothing."""
    structure, points = sheared(), scattered()
    descriptor = LODE(exponent, 0.8, 3, CHARGES)
    here = descriptor(points, structure)
    moved = structure.positions + np.array([[1, 0, -2], [0, 3, 0]]) @ structure.cell
    there = descriptor(points + structure.cell[2], structure.replace(positions=moved))
    assert torch.allclose(there, here, rtol=1e-10, atol=1e-13)
    doubled = structure.replace(
        numbers=np.tile(structure.numbers, 2),
        positions=np.concatenate([structure.positions, structure.positions + structure.cell[0]]),
        cell=structure.cell * [[2], [1], [1]],
        occupancies=np.ones(4),
    )
    assert torch.allclose(descriptor(points, doubled), here, rtol=1e-10, atol=1e-13)


def test_far_from_everything_a_cell_becomes_open():
    """In a growing cell the field of a neutral pair tends to that of an isolated one."""
    pair = Structure(["Na", "Cl"], [[0.0, 0.0, 0.0], [2.0, 1.0, 0.0]])
    descriptor = LODE(1.0, 0.5, 2, {"Na": 1.0, "Cl": -1.0}, channels="sum", form="squared")
    alone = descriptor(LOOK, pair)
    errors = [
        float((descriptor(LOOK, pair.replace(cell=[edge] * 3, pbc=True)) - alone).abs().max())
        for edge in (20.0, 40.0)
    ]
    assert errors[0] < 2e-3
    assert errors[1] == pytest.approx(errors[0] / 8, rel=0.1)  # dipoles: edge^-3


@pytest.mark.parametrize("form", ["root", "squared", "smooth"])
def test_space_agrees_with_points(form):
    descriptor = LODE([1.0, 3.0, 6.5], 0.6, 3, CHARGES | {"H": 1.0}, form=form, cross=True)
    space = TensorSpace.for_structure(salt(), spacing=1.0, order=3)
    fast, slow = descriptor(space, salt()), descriptor(space.points, salt())
    assert fast.shape == (space.n_points, descriptor.n_features)
    size = slow.abs().amax(dim=0)
    assert ((fast - slow).abs() <= 1e-10 * size).all()
    absent = torch.tensor(["_H_" in name for name in descriptor.names])
    assert (size[absent] == 0).all()
    assert (size[~absent] > 0).all()


def test_space_of_an_isolated_structure():
    descriptor = LODE(1.0, 0.8, 2, CHARGES)
    space = TensorSpace.for_structure(isolated(), spacing=3.0, order=2, margin=6.0)
    assert torch.equal(descriptor(space, isolated()), descriptor(space.points, isolated()))


def test_field_of_charges_is_the_solution_of_poisson():
    """p = 1 is the potential of Gaussian charges; the space's own solver converges to it."""
    descriptor = LODE(1.0, 0.8, 0, CHARGES, channels="sum")
    errors = []
    for spacing in (0.6, 0.25):
        space = TensorSpace.for_structure(salt(), spacing=spacing)
        weights = torch.tensor([1.0, -0.4, 1.0, -0.8]).double() / (2 * math.pi * 0.64) ** 1.5
        exponents = torch.full((4,), 0.5 / 0.64, dtype=torch.float64)
        charge = space.gaussian_sum(torch.tensor(salt().positions), exponents, weights)
        solved = space.solve_poisson(charge)
        field = descriptor(space, salt())[:, 0] * math.sqrt(4 * math.pi)
        errors.append(float((solved - field).abs().max() / field.std()))
    assert errors[1] < 1e-5
    assert errors[1] < errors[0] / 1000


def test_derivatives():
    """Points, positions, cell and occupancies."""
    structure = sheared()
    descriptor = LODE([1.0, 3.5], 0.8, 2, CHARGES, form="squared", cross=True)
    arguments = [scattered(1), structure.positions, structure.cell, np.array([0.9, 0.6])]
    arguments = [torch.tensor(a, requires_grad=True) for a in arguments]
    mixing = torch.tensor(np.random.default_rng(2).normal(size=(descriptor.n_features, 3)))

    def sums(points, positions, cell, occupancies):
        return descriptor(points, structure, positions, cell, occupancies) @ mixing

    assert sums(*arguments).abs().min() > 1e-3
    assert torch.autograd.gradcheck(sums, arguments, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("structure", [sheared(), isolated()], ids=["periodic", "isolated"])
def test_second_derivatives(structure):
    """Of points, positions, occupancies and, if there is one, the cell."""
    descriptor = LODE([1.0, 3.5], 0.8, 1, CHARGES, form="squared", cross=True)
    chosen = [LOOK, structure.positions, structure.occupancies]
    chosen += [] if structure.cell is None else [structure.cell]
    arguments = [torch.tensor(np.array(a), requires_grad=True) for a in chosen]
    mixing = torch.tensor(np.random.default_rng(2).normal(size=descriptor.n_features))

    def total(points, positions, occupancies, cell=None):
        return (descriptor(points, structure, positions, cell, occupancies) @ mixing).sum()

    assert torch.autograd.gradgradcheck(total, arguments, atol=1e-6)


def test_derivatives_on_a_space():
    """Positions, occupancies and a stretched box, for a few sums of all features."""
    structure = salt()
    space = TensorSpace.for_structure(structure, spacing=3.0, order=1)
    descriptor = LODE([1.0, 6.0], 0.8, 2, CHARGES, form="squared", cross=True)
    size = (2, space.n_points * descriptor.n_features)
    mixing = torch.tensor(np.random.default_rng(2).normal(size=size))
    positions = torch.tensor(structure.positions, requires_grad=True)
    filled = torch.tensor(structure.occupancies, requires_grad=True)
    factors = torch.ones(3, dtype=torch.float64, requires_grad=True)

    def sums(positions, filled, factors):
        lengths = factors.detach().numpy() * np.diag(structure.cell)
        there = structure.replace(cell=lengths)
        features = descriptor(space.scaled(factors), there, positions * factors, occupancies=filled)
        return mixing @ features.flatten()

    assert sums(positions, filled, factors).abs().min() > 1e-3
    assert torch.autograd.gradcheck(sums, [positions, filled, factors])


def test_strain():
    """The derivative along a strain, by the cell and all coordinates, and by differences."""
    structure, points = sheared(), torch.tensor(LOOK)
    descriptor = LODE([1.0, 6.0], 0.8, 2, CHARGES)
    strain = torch.zeros(3, 3, dtype=torch.float64, requires_grad=True)

    def strained(strain):
        stretch = torch.eye(3, dtype=torch.float64) + strain
        positions, cell = (torch.tensor(a) @ stretch for a in (structure.positions, structure.cell))
        return descriptor(points @ stretch, structure, positions, cell).sum()

    (slope,) = torch.autograd.grad(strained(strain), strain)
    step = 1e-4 * torch.tensor(np.random.default_rng(0).normal(size=(3, 3)))
    difference = float(strained(step) - strained(-step)) / 2
    assert float((slope * step).sum()) == pytest.approx(difference, rel=1e-6)


def test_channels_and_weights():
    """Channels add up; weights scale; weights of single atoms come as occupancies."""
    points = scattered()
    split = LODE(1.0, 0.8, 1, CHARGES).moments(points, salt())
    joint = LODE(1.0, 0.8, 1, CHARGES, channels="sum").moments(points, salt())
    for of_order, total in zip(split, joint, strict=True):
        assert torch.allclose(of_order.sum(dim=0), total[0], rtol=1e-12, atol=1e-14)
    plain = LODE(1.0, 0.8, 1, channels="sum")
    charges = torch.tensor([1.0, -0.4, 1.0, -0.8], dtype=torch.float64)
    assert torch.allclose(
        plain.moments(points, salt(), occupancies=charges)[1], joint[1], rtol=1e-12, atol=1e-14
    )


@pytest.mark.parametrize("structure", [salt(), isolated()], ids=["periodic", "isolated"])
def test_power_spectrum_of_local_density_and_long_range_field(structure):
    """Sum over m of A_lm F_lm, at points and on a space, invariant under rotation."""
    local = GMP([0.8, 1.4], 3, {"Na": [(1.0, 0.5)], "Cl": [(2.0, 0.6)]})
    far = LODE([1.0, 6.0], 0.8, 2, CHARGES)
    both = PowerSpectrum(local, far)
    assert both.n_features == 3 * 2 * 4
    assert both.names[:2] == ["gmp_w0.8_lode_Na_p1_s0.8_l0", "gmp_w0.8_lode_Na_p6_s0.8_l0"]
    features = both(LOOK, structure)
    expected = (local.moments(LOOK, structure)[2][1] * far.moments(LOOK, structure)[2][3]).sum()
    column = both.names.index("gmp_w1.4_lode_Cl_p6_s0.8_l2")
    assert float(features[0, column]) == pytest.approx(float(expected))
    turn = Rotation.random(random_state=2).as_matrix()
    turned = structure.replace(
        positions=structure.positions @ turn.T,
        cell=None if structure.cell is None else structure.cell @ turn.T,
    )
    assert torch.allclose(both(LOOK @ turn.T, turned), features, rtol=1e-8, atol=1e-13)
    space = TensorSpace.for_structure(structure, spacing=2.0, order=2, margin=4.0)
    there = both(space.points, structure)
    size = there.abs().amax(dim=0)
    assert ((both(space, structure) - there).abs() <= 1e-8 * size).all()


def test_on_an_atom():
    """The kernel is finite there; a smearing that makes it too large for a number is refused."""
    atom = Structure(["H"], [[0.0, 0.0, 0.0]])
    features = LODE(6.0, 0.5, 2, channels="sum")(np.zeros((1, 3)), atom)
    at_zero = 1 / (math.gamma(4) * 0.5**3)
    assert features[0].tolist() == pytest.approx([at_zero / math.sqrt(4 * math.pi), 0, 0])
    with pytest.raises(DescriptorError, match="larger smearing"):
        LODE(6.0, 1e-60, 2, channels="sum")
    with pytest.raises(DescriptorError, match="larger smearing"):
        LODE(1.0, 1e-200, 0, channels="sum")


def test_descriptions():
    first = LODE([1.0, 2.5], 0.8, 2, CHARGES, form="smooth", cross=True, smoothing=1e-3)
    gaussians = {"Na": [(1.0, 0.5)], "Cl": [(2.0, 0.6)]}
    second = PowerSpectrum(GMP([0.8], 1, gaussians), LODE(6.0, 1.2, 1, channels="sum"))
    both = Concatenation([first, second])
    again = descriptor_from_description(json.loads(json.dumps(both.describe())))
    assert again.describe() == both.describe()
    assert again.names == both.names
    assert torch.equal(again(LOOK, salt()), both(LOOK, salt()))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"exponent": 0.0}, "exponent is 0"),
        ({"exponent": -1}, "exponent"),
        ({"exponent": math.nan}, "exponent"),
        ({"exponent": []}, "exponent is"),
        ({"exponent": [1, 1.0]}, "different"),
        ({"smearing": 0.0}, "smearing is 0"),
        ({"smearing": -0.5}, "smearing"),
        ({"max_angular": 7}, "0 to 6"),
        ({"max_angular": 1.5}, "max_angular"),
        ({"weights": None}, "pass them"),
        ({"weights": {}}, "empty"),
        ({"weights": {"Xx": 1.0}}, "Xx"),
        ({"weights": {"H": math.inf}}, "weight of H"),
        ({"channels": "atom"}, "element, sum"),
        ({"form": "cube"}, "root, squared, smooth"),
        ({"smoothing": 0.0}, "smoothing"),
    ],
)
def test_bad_parameters(arguments, message):
    good = {"exponent": 1.0, "smearing": 0.8, "max_angular": 1, "weights": {"H": 1.0}}
    with pytest.raises(DescriptorError, match=message):
        LODE(**(good | arguments))


def test_bad_calls():
    descriptor, space = LODE(1.0, 0.8, 1, CHARGES), TensorSpace([6.0, 7.0, 8.0], 1, 2)
    with pytest.raises(DescriptorError, match=r"no weight for element O.*Na, Cl"):
        descriptor(LOOK, Structure(["O"], [[0, 0, 0]]))
    slab = salt()
    object.__setattr__(slab, "pbc", np.array([True, True, False]))  # structures refuse it too
    with pytest.raises(DescriptorError, match="slabs and wires"):
        descriptor(LOOK, slab)
    with pytest.raises(DescriptorError, match="shape"):
        descriptor(np.zeros((4, 2)), salt())
    with pytest.raises(DescriptorError, match="not finite"):
        descriptor(np.full((1, 3), np.nan), salt())
    with pytest.raises(DescriptorError, match="positions have shape"):
        descriptor(LOOK, salt(), positions=torch.zeros(2, 3))
    with pytest.raises(DescriptorError, match="scaled"):
        descriptor(space, salt(), cell=torch.eye(3))
    with pytest.raises(SpaceError, match="periodic"):
        descriptor(space, isolated())
    with pytest.raises(DescriptorError, match="no moments"):
        PowerSpectrum(descriptor, Concatenation([descriptor]))


def test_single_precision():
    """Points in float32 give features in float32; at points, images and isolated atoms."""
    points = torch.tensor(scattered()).float()
    for structure in (sheared(), isolated()):
        descriptor = LODE([1.0, 6.0], 0.8, 2, CHARGES, form="squared", cross=True)
        single, double = descriptor(points, structure), descriptor(points.double(), structure)
        assert single.dtype == torch.float32
        assert double.dtype == torch.float64
        assert ((single - double).abs() <= 1e-4 * double.abs().amax(dim=0)).all()


def test_no_points():
    for structure in (salt(), isolated()):
        assert LODE([1.0, 6.0], 0.8, 1, CHARGES)(np.zeros((0, 3)), structure).shape == (0, 8)
