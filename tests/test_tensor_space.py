"""TensorSpace: exact integrals, convergence rates, known potentials, and every refusal."""

import math

import numpy as np
import pytest
import torch
from systems import atom, dimer, fcc, rattled

from fedens import Structure, TensorSpace
from fedens.errors import DeviceError, SpaceError, StructureError
from fedens.fem.axis import MAX_ORDER, Axis
from fedens.testing import central_difference, check_function_space

ORDERS = range(1, MAX_ORDER + 1)
GRADED = [0.0, 0.3, 0.9, 2.0, 4.0]
TWO_SIDED = [-4.0, -2.0, -1.0, -0.4, 0.4, 1.0, 2.0, 4.0]
WAVE = 2 * math.pi / 6.0

SPACES = {
    "periodic": TensorSpace([4.0, 5.0, 6.0], (2, 3, 2), 4, True),
    "isolated": TensorSpace([8.0, 9.0, 10.0], (3, 2, 3), 4, False, origin=(-4.0, -4.0, 3.0)),
    "linear": TensorSpace([4.0, 5.0, 6.0], (4, 3, 5), 1, True),
    "highest order": TensorSpace([4.0, 5.0, 6.0], (1, 1, 2), 10, True),
    "graded periodic": TensorSpace(edges=[GRADED] * 3, order=3, periodic=True),
    "graded isolated": TensorSpace(edges=[TWO_SIDED] * 3, order=3, periodic=False),
    "mixed": TensorSpace([4.0, 5.0, 6.0], 3, 3, (True, True, False)),
}


def fitted_rate(counts, errors):
    """Exponent r of errors ~ counts^-r."""
    return -np.polyfit(np.log(counts), np.log(errors), 1)[0]


def vector(*values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("name", SPACES)
def test_modes_are_orthonormal(name):
    space = SPACES[name]
    chosen = torch.arange(0, space.n_coefficients, max(1, space.n_coefficients // 30))
    some = torch.zeros(len(chosen), space.n_coefficients, dtype=torch.float64)
    some[torch.arange(len(chosen)), chosen] = 1.0
    overlaps = space.test(space.evaluate(some))
    assert torch.allclose(overlaps, some, rtol=0, atol=1e-12)


@pytest.mark.parametrize("order", ORDERS)
def test_polynomials_are_integrated_exactly(order):
    edges = [[-1.0, 0.5, 1.0], [0.0, 2.0], [1.0, 1.5, 2.0]]
    space = TensorSpace(edges=edges, order=order, periodic=True)
    x, y, z = space.points.T
    degree = 2 * order + 1  # what order + 1 Gauss points can do
    result = space.integrate(x ** (degree - 1) * y**degree * z**degree)
    exact = 2 / degree * 2 ** (degree + 1) / (degree + 1) * (2 ** (degree + 1) - 1) / (degree + 1)
    assert float(result) == pytest.approx(exact, rel=1e-13)


@pytest.mark.parametrize("order", [1, 4])
def test_quadrature_is_no_better_than_it_should_be(order):
    space = TensorSpace([1.0, 1.0, 1.0], 1, order)
    degree = 2 * order + 2
    assert float(space.integrate(space.points[:, 0] ** degree)) != pytest.approx(
        1 / (degree + 1), rel=1e-6
    )


@pytest.mark.parametrize("order", range(2, MAX_ORDER + 1))
def test_polynomials_that_vanish_at_the_walls_are_in_the_space(order):
    space = TensorSpace(edges=[GRADED] * 3, order=order, periodic=False)
    x, y, z = space.points.T
    bump, slope = lambda t: t ** (order - 1) * (4 - t), lambda t: 4 - 2 * t
    field = bump(x) * y * (4 - y) * z * (4 - z)
    coefficients = space.project(field)
    assert torch.allclose(space.evaluate(coefficients), field, rtol=0, atol=1e-11 * field.max())
    along_z = space.evaluate_gradient(coefficients)[:, 2]
    exact = bump(x) * y * (4 - y) * slope(z)
    assert torch.allclose(along_z, exact, rtol=0, atol=1e-10 * exact.max())


RATE_COUNTS = {
    1: (16, 24, 32),
    2: (12, 16, 24),
    3: (8, 12, 16),
    4: (6, 8, 12),
    5: (6, 8, 10),
    6: (5, 6, 8),
    7: (4, 5, 6, 7),
    8: (5, 6, 7, 8),
    9: (3, 4, 5),
    10: (3, 4, 5),
}


def wave_errors(order, axis, count, shift):
    """Squared errors of projection, Poisson potential and gradient for exp(sin) along an axis."""
    lengths, counts = [2.0] * 3, [1] * 3
    lengths[axis], counts[axis] = 6.0, count
    space = TensorSpace(lengths, counts, order)
    angle = WAVE * space.points[:, axis] + shift
    field = torch.exp(torch.sin(angle))
    slope = WAVE * torch.cos(angle) * field
    curvature = WAVE**2 * (torch.cos(angle) ** 2 - torch.sin(angle)) * field
    mean = space.integrate(field) / space.volume
    potential = space.project(space.solve_poisson(-curvature / (4 * math.pi)))
    # compared on a uniform line: at Gauss points the error of a projection is too small
    line = [vector(0.3)] * 3
    line[axis] = torch.linspace(0, 6, 401, dtype=torch.float64)[:-1]
    exact = torch.exp(torch.sin(WAVE * line[axis] + shift))
    projected = space.interpolate_at(space.project(field), torch.cartesian_prod(*line))
    solved = space.interpolate_at(potential, torch.cartesian_prod(*line))
    gradient = space.evaluate_gradient(space.project(field))[:, axis]
    return [
        float(((projected - exact) ** 2).mean()),
        float(((solved - (exact - mean)) ** 2).mean()),
        float(((gradient - slope) ** 2).mean()),
    ]


@pytest.mark.parametrize("order", ORDERS)
def test_convergence_rates(order):
    # averaged over shifts against the mesh, without which symmetry hides or adds an order
    counts = RATE_COUNTS[order]
    errors = [
        sum(
            np.array(wave_errors(order, order % 3, n, 2 * math.pi * s / n))
            for s in np.arange(4) / 4
        )
        for n in counts
    ]
    rates = [fitted_rate(counts, np.sqrt(e)) for e in np.array(errors).T]
    assert rates == pytest.approx([order + 1, order + 1, order], abs=0.25 + 0.07 * order)


EIGENVALUES = {
    1: (1, (8, 12, 16)),
    2: (1, (4, 6, 8)),
    3: (2, (4, 6, 8)),
    4: (2, (3, 5, 7)),
    5: (3, (4, 5, 7)),
    6: (4, (5, 6, 7)),
    7: (4, (3, 5, 6)),
    8: (5, (3, 4, 6)),
    9: (6, (4, 5)),
    10: (9, (4, 5, 6)),
}


@pytest.mark.parametrize("order", ORDERS)
def test_laplacian_eigenvalues_converge_at_twice_the_order(order):
    mode, counts = EIGENVALUES[order]
    exact = (math.pi * mode) ** 2
    computed = [
        float(Axis.build(np.linspace(0, 1, n + 1), order, periodic=False).eigenvalues[mode - 1])
        for n in counts
    ]
    errors = [value / exact - 1 for value in computed]
    assert min(errors) > 0, "Galerkin eigenvalues come from above"
    assert fitted_rate(counts, errors) == pytest.approx(2 * order, abs=0.1 + 0.1 * order)


@pytest.mark.parametrize(("periodic", "wave"), [(True, 2 * math.pi), (False, math.pi)])
def test_functions_of_the_laplacian_act_on_waves_as_numbers(periodic, wave):
    space = TensorSpace([1.0, 1.0, 1.0], 3, 10, periodic)
    x, y, z = space.points.T
    field = torch.sin(wave * x) * torch.sin(wave * y) * torch.sin(2 * wave * z)
    smoothed = space.apply(lambda k2: torch.exp(-0.01 * k2), field)
    exact = math.exp(-0.01 * 6 * wave**2) * field
    assert torch.allclose(smoothed, exact, rtol=0, atol=1e-7)


def test_periodic_potential_of_waves():
    space = TensorSpace([5.0, 6.0, 7.0], 3, 9)
    kx, ky, kz = (2 * math.pi / length for length in space.lengths)
    x, y, z = space.points.T
    phi = torch.sin(kx * x + 0.3) * torch.cos(ky * y) * torch.sin(2 * kz * z)
    charge = (kx**2 + ky**2 + 4 * kz**2) / (4 * math.pi) * phi
    assert torch.allclose(space.solve_poisson(charge + 0.5), phi, rtol=0, atol=1e-6)
    exact = 0.5 * float(space.integrate(charge * phi))
    assert float(space.coulomb_energy(charge + 0.5)) == pytest.approx(exact, rel=1e-9)


def test_periodic_potential_of_a_pair_of_gaussians():
    """Against the Fourier series of the same two charges."""
    length, width = 8.0, 0.7
    centres, charges = vector([1.0, 2.0, 7.5], [4.0, 5.5, 3.0]), vector(1.0, -1.0)
    space = TensorSpace([length] * 3, 4, 8)
    half = torch.arange(-16, 17, dtype=torch.float64) * 2 * math.pi / length
    waves = torch.cartesian_prod(half, half, half)
    q2 = (waves**2).sum(dim=1)
    waves, q2 = waves[q2 > 0], q2[q2 > 0]

    def series(points, factor):
        phases = torch.cos((points[:, None] - centres[0]) @ waves.T) * charges[0]
        phases = phases + torch.cos((points[:, None] - centres[1]) @ waves.T) * charges[1]
        return (phases @ (torch.exp(-0.5 * width**2 * q2) * factor)).reshape(-1) / length**3

    charge = torch.zeros(space.n_points, dtype=torch.float64)
    for centre, amount in zip(centres, charges, strict=True):
        d = space.points - centre
        d = d - length * torch.round(d / length)
        # one cell of images around the nearest: the Gaussians are narrow
        for shift in torch.cartesian_prod(*[vector(-length, 0.0, length)] * 3):
            r2 = ((d - shift) ** 2).sum(dim=1)
            charge += amount * torch.exp(-r2 / (2 * width**2)) / (2 * math.pi * width**2) ** 1.5
    some = torch.arange(0, space.n_points, 4001)
    exact = series(space.points[some], 4 * math.pi / q2)
    assert exact.abs().max() > 0.1
    phi = space.solve_poisson(charge)
    assert torch.allclose(phi[some], exact, rtol=0, atol=2e-6)


@pytest.mark.parametrize("name", ["periodic", "isolated"])
def test_potential_is_the_derivative_of_the_coulomb_energy(name, generator):
    space = SPACES[name]
    charge = torch.randn(space.n_points, generator=generator, dtype=torch.float64)
    charge.requires_grad_(True)
    (derivative,) = torch.autograd.grad(space.coulomb_energy(charge), charge)
    phi = space.solve_poisson(charge.detach())
    assert torch.allclose(derivative / space.weights, phi, rtol=0, atol=1e-10 * phi.abs().max())


@pytest.mark.parametrize("flags", [(True, True, False), (False, True, False)])
def test_electrostatics_of_slabs_and_wires_is_refused(flags):
    space = TensorSpace([4.0, 5.0, 6.0], 3, 3, flags)
    with pytest.raises(SpaceError, match=r"slabs and wires.*not supported"):
        space.solve_poisson(space.weights)


def test_interpolation_at_one_point_after_another():
    space = TensorSpace([6.0, 2.0, 2.0], (4, 1, 1), 8)
    c = space.project(torch.sin(WAVE * space.points[:, 0]))
    for x in (0.1, 1.3, 4.4, 1.3):
        value = float(space.interpolate_at(c, vector([x, 0.3, 0.7])))
        assert value == pytest.approx(math.sin(WAVE * x), abs=1e-7)


def test_interpolation_wraps_in_periodic_boxes(generator):
    space = SPACES["periodic"]
    c = torch.randn(space.n_coefficients, generator=generator, dtype=torch.float64)
    inside = space.points[::17]
    outside = inside + vector(8.0, -5.0, 60.0)  # 2, -1 and 10 box lengths
    there, here = space.interpolate_at(c, outside), space.interpolate_at(c, inside)
    assert torch.allclose(there, here, rtol=0, atol=1e-11)


def test_interpolation_at_known_places():
    space = TensorSpace([3.0, 4.0, 5.0], 2, 10)
    kx, ky, kz = (2 * math.pi / length for length in space.lengths)

    def field(points):
        x, y, z = points.unbind(-1)
        return torch.sin(kx * x) * torch.cos(ky * y) + torch.cos(kz * z)

    c = space.project(field(space.points))
    places = vector([0.0, 0.0, 0.0], [1.5, 2.0, 2.5], [2.9, 0.1, 4.99], [0.77, 3.3, 1.2])
    assert torch.allclose(space.interpolate_at(c, places), field(places), rtol=0, atol=1e-8)
    single = space.interpolate_at(c, places.float())
    assert torch.allclose(single, field(places), rtol=0, atol=1e-5)
    in_parts = space.interpolate_at(c, places, chunk=3)
    assert torch.allclose(in_parts, space.interpolate_at(c, places), rtol=0, atol=1e-13)
    assert space.interpolate_at(c, places[:0]).shape == (0,)


@pytest.mark.parametrize("offset", [0.0, 3.3, -1000.0, 1e4])
@pytest.mark.parametrize("periodic", [True, False])
def test_interpolation_far_from_the_origin(offset, periodic, generator):
    # periodic modes come in pairs that any rotation leaves valid: the same pair must come back
    space = TensorSpace([7.1, 7.7, 3.1], (5, 3, 7), 4, periodic, origin=(offset,) * 3)
    c = torch.randn(space.n_coefficients, generator=generator, dtype=torch.float64)
    values = space.evaluate(c)[::37]
    at_points = space.interpolate_at(c, space.points[::37])
    assert torch.allclose(at_points, values, rtol=0, atol=1e-9 * values.abs().max())


def test_points_outside_an_isolated_box_are_refused():
    space = SPACES["isolated"]
    c = torch.zeros(space.n_coefficients, dtype=torch.float64)
    with pytest.raises(SpaceError, match=r"outside the box \[3\.000, 13\.000\]"):
        space.interpolate_at(c, vector([0.0, 0.0, 2.9]))


def test_fields_vanish_at_isolated_walls(generator):
    space = SPACES["isolated"]
    c = torch.randn(space.n_coefficients, generator=generator, dtype=torch.float64)
    wall = vector([-4.0, 0.0, 5.0], [0.0, 5.0, 5.0], [0.0, 0.0, 13.0])
    assert torch.allclose(space.interpolate_at(c, wall), vector(0.0, 0.0, 0.0), atol=1e-12)
    assert space.evaluate(c).abs().max() > 1e-2


def test_scaled_space_is_the_space_of_the_stretched_box():
    factors = vector(1.01, 0.98, 1.03)
    stretched = SPACES["periodic"].scaled(factors)
    direct = TensorSpace([4.0 * 1.01, 5.0 * 0.98, 6.0 * 1.03], (2, 3, 2), 4, True)
    for name in ("points", "weights", "laplacian_eigenvalues"):
        assert torch.allclose(getattr(stretched, name), getattr(direct, name), rtol=1e-12)
    assert stretched.lengths == pytest.approx(direct.lengths, rel=1e-12)
    check_function_space(stretched)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_scaled_space_is_differentiable(axis, generator):
    space = SPACES["periodic"]
    c = torch.randn(space.n_coefficients, generator=generator, dtype=torch.float64)

    def energy(stretch):
        box = space.scaled(stretch)
        values, slopes = box.evaluate(c), box.evaluate_gradient(c)
        x = box.points[:, axis]
        local = box.integrate(values**4 + (slopes**2).sum(dim=1) * values + torch.sin(x) * values)
        return local + box.coulomb_energy(values**2)

    stretch = torch.ones(3, dtype=torch.float64, requires_grad=True)
    (derivative,) = torch.autograd.grad(energy(stretch), stretch)
    unit = torch.eye(3, dtype=torch.float64)[axis]
    expected = central_difference(lambda h: float(energy(1 + h * unit)), 1e-3)
    assert float(derivative[axis]) == pytest.approx(expected, rel=1e-8)


def test_device_argument_and_to():
    here = TensorSpace([4.0, 5.0, 6.0], 2, 3, device="cpu")
    here.interpolate_at(torch.zeros(here.n_coefficients, dtype=torch.float64), here.points[:1])
    assert here.device == torch.device("cpu")
    assert torch.equal(here.to("cpu").weights, here.weights)
    # "meta" tensors exist on every machine: nothing may stay behind
    moved = here.to("meta")
    tensors = [v for axis in moved.axes for v in vars(axis).values() if torch.is_tensor(v)]
    assert {t.device.type for t in tensors} == {"meta"}
    assert len(tensors) == 6 * 3


def test_a_device_that_torch_lacks_is_refused():
    with pytest.raises(DeviceError, match=r"device is 'gpu', but .* use 'cpu'"):
        TensorSpace([4.0, 5.0, 6.0], 2, 3, device="gpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_contract_on_cuda():
    space = TensorSpace([4.0, 5.0, 6.0], 2, 3, device="cuda")
    assert space.points.is_cuda
    check_function_space(space)


@pytest.mark.parametrize(("spacing", "order"), [(0.425, 6), (0.3, 8), (0.5, 3), (2.0, 6)])
def test_space_for_a_cell_is_as_fine_as_asked_for(spacing, order):
    structure = rattled()
    space = TensorSpace.for_structure(structure, spacing, order)
    assert space.is_periodic
    assert space.lengths == pytest.approx((7.65, 7.5, 7.8))
    counts = [len(axis.edges) - 1 for axis in space.axes]
    for length, count in zip(space.lengths, counts, strict=True):
        wanted = length / (spacing * order)
        assert -0.2001 < count - wanted < 0.8001 or count == 1
    assert space.spacing == pytest.approx(
        max(e / n for e, n in zip(space.lengths, counts, strict=True)) / order
    )
    space.check_matches(structure)


def test_space_for_isolated_atoms_is_fine_around_them():
    structure = dimer()
    space = TensorSpace.for_structure(structure, spacing=0.5, order=6, margin=15.0)
    assert not any(space.periodic)
    low, high = structure.positions.min(axis=0), structure.positions.max(axis=0)
    for axis, first, last in zip(space.axes, low, high, strict=True):
        assert float(axis.edges[0]) == pytest.approx(first - 15.0)
        assert float(axis.edges[-1]) == pytest.approx(last + 15.0)
    assert space.spacing_at(torch.tensor(structure.positions)) == pytest.approx(0.5)
    assert space.spacing > 0.5
    space.check_matches(structure)


def test_spacing_at_looks_where_the_points_are():
    space = TensorSpace(edges=[GRADED, [0.0, 4.0], GRADED], order=2, periodic=False)
    assert space.spacing == pytest.approx(2.0)
    assert space.spacing_at(vector([0.5, 1.0, 0.1])) == pytest.approx(2.0)
    fine = TensorSpace(edges=[GRADED] * 3, order=2, periodic=False)
    assert fine.spacing_at(vector([0.5, 0.6, 0.1])) == pytest.approx(0.3)
    assert fine.spacing_at(vector([0.5, 0.6, 0.1], [3.0, 0.1, 0.1])) == pytest.approx(1.0)
    on_an_edge = vector([0.9, 0.1, 0.1])
    assert fine.spacing_at(on_an_edge) == pytest.approx(0.55)
    mirrored = TensorSpace(edges=[[4.0 - e for e in GRADED[::-1]]] * 3, order=2, periodic=False)
    assert mirrored.spacing_at(4.0 - on_an_edge) == pytest.approx(0.55)
    around = TensorSpace(edges=[GRADED] * 3, order=2, periodic=True)
    assert around.spacing_at(vector([4.5, -3.5, 8.1])) == pytest.approx(0.3)


def test_gradual_growth_towards_the_walls():
    space = TensorSpace.for_structure(atom(), spacing=0.4, order=6, margin=16.0, growth=1.6)
    sizes = np.diff(space.axes[0].edges.numpy())
    assert sizes == pytest.approx(sizes[::-1])
    assert (sizes[1:] / sizes[:-1]).max() <= 1.6 + 1e-9


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"lengths": [4.0, 5.0], "elements": 2}, "3 box lengths"),
        ({"lengths": None}, "3 box lengths"),
        ({"lengths": [4.0, 5.0, -6.0]}, "not positive"),
        ({"lengths": [4.0, 5.0, 6.0], "elements": (2, 0, 2)}, "not positive"),
        ({"lengths": [4.0, 5.0, 6.0], "elements": (2, 2)}, "element counts"),
        ({"lengths": [4.0, 5.0, 6.0], "order": 0}, "order is 0"),
        ({"lengths": [4.0, 5.0, 6.0], "order": 11}, "expected 1 to 10"),
        ({"lengths": [4.0, 5.0, 6.0], "periodic": (True, False)}, "three axes"),
        ({"edges": [[0.0, 1.0]] * 2}, "three axes"),
        ({"edges": [[0.0, 1.0, 0.5]] * 3}, "ascending"),
        ({"edges": [[0.0, float("nan"), 1.0]] * 3}, "ascending"),
        ({"edges": [[0.0]] * 3}, "at least two"),
        ({"lengths": [4.0, 5.0, 6.0], "elements": 1, "order": 1, "periodic": False}, "no freedom"),
    ],
)
def test_impossible_space_is_named(arguments, named):
    with pytest.raises(SpaceError, match=named):
        TensorSpace(**arguments)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"spacing": 0.0}, "spacing is 0"),
        ({"spacing": -0.4}, "positive"),
        ({"spacing": float("nan")}, "spacing is nan"),
        ({"order": 0}, "order 0"),
        ({"order": 12}, "expected 1 to 10"),
    ],
)
def test_bad_resolution_is_named(arguments, named):
    with pytest.raises(SpaceError, match=named):
        TensorSpace.for_structure(fcc(), **arguments)


@pytest.mark.parametrize("arguments", [{"margin": 0.0}, {"growth": 0.5}, {"margin": -3.0}])
def test_bad_box_for_isolated_atoms_is_named(arguments):
    with pytest.raises(SpaceError, match=next(iter(arguments))):
        TensorSpace.for_structure(atom(), **arguments)


def test_sheared_cells_and_slabs_are_refused():
    sheared = Structure(["Al"], [[0.0] * 3], cell=[[8, 0, 0], [1, 8, 0], [0, 0, 8]], pbc=True)
    with pytest.raises(StructureError, match="sheared cells are not supported"):
        TensorSpace.for_structure(sheared)
    with pytest.raises((SpaceError, StructureError), match="slabs and wires"):
        TensorSpace.for_structure(
            Structure(["Al"], [[0.0] * 3], cell=[8, 8, 30], pbc=[True, True, False])
        )


def test_space_of_another_structure_is_refused():
    periodic, isolated = TensorSpace.for_structure(fcc()), TensorSpace.for_structure(atom())
    with pytest.raises(SpaceError, match="structure is isolated, the space is periodic"):
        periodic.check_matches(atom())
    with pytest.raises(SpaceError, match="structure is periodic, the space is isolated"):
        isolated.check_matches(fcc())
    with pytest.raises(SpaceError, match="structure's cell is"):
        periodic.check_matches(fcc(7.7))
    outside = Structure(["Al", "Al"], [[0.0] * 3, [0.0, 0.0, 40.0]])
    with pytest.raises(SpaceError, match=r"atom 1 lies outside the box .* along axis z"):
        isolated.check_matches(outside)


def test_fields_element_by_element():
    space = SPACES["graded periodic"]
    x, y, z = space.points.T
    blocks = space.element_blocks(space.points)
    assert blocks.shape == (4**3, 4**3, 3)
    lengths = space.element_lengths
    extents = blocks.max(dim=1).values - blocks.min(dim=1).values
    assert (extents < lengths).all()
    assert (extents > 0.8 * lengths).all()
    volumes = space.element_blocks(space.weights).sum(dim=1)
    assert torch.allclose(volumes, lengths.prod(dim=1), rtol=1e-12)
    moments = space.element_blocks(space.weights * x * y**2 * z).sum(dim=1)
    assert float(moments.sum()) == pytest.approx(8.0 * (64 / 3) * 8.0, rel=1e-12)


@pytest.mark.parametrize("name", SPACES)
def test_description_makes_the_same_space(name):
    copy = TensorSpace.from_description(SPACES[name].describe())
    assert torch.allclose(copy.points, SPACES[name].points, rtol=0, atol=1e-13)
    assert copy.periodic == SPACES[name].periodic
    assert copy.order == SPACES[name].order
    assert copy.describe() == SPACES[name].describe()


def test_numpy_scalars_serve_as_arguments():
    given = TensorSpace(np.array([4.0, 5.0, 6.0]), np.int64(2), 3, np.bool_(False))
    assert given.describe() == TensorSpace([4.0, 5.0, 6.0], 2, 3, False).describe()


def test_repr_tells_what_it_is():
    text = repr(TensorSpace.for_structure(fcc()))
    assert "periodic" in text
    assert "7.650 x 7.650 x 7.650 bohr" in text
    assert "order 10" in text
