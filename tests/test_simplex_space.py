"""SimplexSpace: meshes, quadrature with 1/r, convergence rates, known potentials, refusals."""

import math

import numpy as np
import pytest
import torch
from scipy.special import erf
from skfem import MeshHex, MeshTet, MeshTri
from skfem.refdom import RefHex, RefTet

from fedens import SimplexSpace, Structure, TensorSpace, write_vtu
from fedens.errors import ConvergenceError, SpaceError
from fedens.fem.mesh import load_mesh
from fedens.fem.simplex.interpolation import CellFinder
from fedens.fem.simplex.quadrature import cell_rule, vertex_rule
from fedens.fem.simplex.refinement import cell_sizes, graded_tetrahedra
from fedens.testing import central_difference, check_function_space
from fedens.units import BOHR_IN_ANGSTROM

#: O, H, H; bond 0.9572 angstrom, angle 104.52 degrees; bohr.
WATER = np.array([[0, 0, 0], [0, 0.75695, 0.58588], [0, -0.75695, 0.58588]]) / BOHR_IN_ANGSTROM
OFF_CENTRE = np.array([[0.3, -0.2, 0.1]])


def water():
    return Structure(["O", "H", "H"], WATER)


def cube(n, half=3.0, kind=MeshTet):
    return kind.init_tensor(*[np.linspace(-half, half, n + 1)] * 3)


def graded(order=2, finest=0.3, growth=0.6, margin=8.0):
    mesh = graded_tetrahedra(np.zeros((1, 3)), np.array([finest]), growth, margin)
    return SimplexSpace(mesh, order, np.zeros((1, 3)))


def fitted_rate(sizes, errors):
    """Exponent r of errors ~ sizes^r."""
    return np.polyfit(np.log(sizes), np.log(errors), 1)[0]


SPACES = {
    "tetrahedra 1": lambda: graded(1),
    "tetrahedra 2": lambda: graded(2),
    "hexahedra 1": lambda: SimplexSpace(cube(7, kind=MeshHex), 1),
    "hexahedra 2": lambda: SimplexSpace(cube(4, kind=MeshHex), 2, np.zeros((1, 3))),
    "molecule": lambda: SimplexSpace.for_structure(water(), 0.4, 0.8, 8.0),
}


def test_tensor_spaces_have_the_same_interface(generator):
    space = TensorSpace([4.0, 5.0, 6.0], 2, 4, periodic=False)
    c = torch.randn(space.n_coefficients, generator=generator, dtype=torch.float64)
    slopes = space.evaluate_gradient(c)
    assert float(space.norm2(c)) == pytest.approx(float(space.integrate(space.evaluate(c) ** 2)))
    total = float(space.integrate((slopes**2).sum(dim=1)))
    assert float(space.gradient_norm2(c)) == pytest.approx(total)
    assert torch.equal(space.inverse_mass(space.mass(c)), c)


# quadrature


def monomial_integral(i, j, k):
    """Of x^i y^j z^k over the reference tetrahedron."""
    top = math.factorial(i) * math.factorial(j) * math.factorial(k)
    return top / math.factorial(i + j + k + 3)


def monomials(degree):
    return [(i, j, degree - i - j) for i in range(degree + 1) for j in range(degree + 1 - i)]


@pytest.mark.parametrize("degree", [5, 7])
def test_rules_on_tetrahedra_are_exact_to_their_degree_and_no_further(degree):
    (x, y, z), weights = cell_rule(RefTet, degree)
    assert weights.min() > 0
    assert min(x.min(), y.min(), z.min(), (1 - x - y - z).min()) > 1e-3
    for d in range(degree + 1):
        for i, j, k in monomials(d):
            assert weights @ (x**i * y**j * z**k) == pytest.approx(monomial_integral(i, j, k))
    wrong = [
        abs(weights @ (x**i * y**j * z**k) - monomial_integral(i, j, k))
        for i, j, k in monomials(degree + 1)
    ]
    assert max(wrong) > 1e-7


@pytest.mark.parametrize("corner", range(4))
def test_rule_at_a_corner_knows_one_over_r(corner):
    """Polynomials of order 4 over r on a tetrahedron, against a far finer rule of another kind."""
    points, weights = vertex_rule(RefTet, corner, 6, 6)
    apex = RefTet.p[:, corner]
    assert weights.min() > 0
    fine, fine_weights = vertex_rule(RefTet, corner, 13, 12)
    r = np.linalg.norm(points - apex[:, None], axis=0)
    fine_r = np.linalg.norm(fine - apex[:, None], axis=0)
    for power in (-1, 0, 1):
        value = weights @ (r**power * points[0] ** 2)
        exact = fine_weights @ (fine_r**power * fine[0] ** 2)
        assert value == pytest.approx(exact, rel=5e-4)
    ordinary, ordinary_weights = cell_rule(RefTet, 5)
    plain = ordinary_weights @ (1 / np.linalg.norm(ordinary - apex[:, None], axis=0))
    exact = fine_weights @ (1 / fine_r)
    assert abs(weights @ (1 / r) / exact - 1) < 5e-4
    assert abs(plain / exact - 1) > 5e-3


@pytest.mark.parametrize("reference", [RefTet, RefHex])
def test_rules_at_all_corners_fill_the_cell(reference):
    volume = {RefTet: 1 / 6, RefHex: 1.0}[reference]
    for corner in range(reference.nnodes):
        _, weights = vertex_rule(reference, corner, 6, 4)
        assert weights.sum() == pytest.approx(volume, rel=1e-13)


@pytest.mark.parametrize("kind", [MeshTet, MeshHex])
def test_polynomials_are_integrated_exactly(kind):
    space = SimplexSpace(cube(2, 1.5, kind), 2, np.zeros((1, 3)))
    x, y, z = space.points.T
    assert space.volume == pytest.approx(27.0, rel=1e-13)
    for powers in ((2, 2, 0), (4, 0, 0), (0, 2, 2), (2, 0, 0)):
        exact = math.prod(2 * 1.5 ** (p + 1) / (p + 1) for p in powers)
        value = space.integrate(x ** powers[0] * y ** powers[1] * z ** powers[2])
        assert float(value) == pytest.approx(exact, rel=1e-12)
    corners, integrals = space.nodes
    assert float(integrals.sum()) == pytest.approx(27.0, rel=1e-13)
    # what is linear between corners is summed exactly
    assert float(integrals @ (1 + corners[:, 0])) == pytest.approx(27.0, rel=1e-13)


def slater(points, centre, exponent):
    """A normalised 1s density exp(-2 exponent r), with its cusp."""
    r = (points - torch.tensor(centre)).norm(dim=1)
    return exponent**3 / math.pi * torch.exp(-2 * exponent * r)


def slater_potential(distance, exponent):
    """Its potential at a distance."""
    a = 2 * exponent
    decay = np.exp(-a * distance)
    return (1 - decay * (1 + a * distance / 2)) / distance


def slater_nuclear(centre, exponent):
    """Attraction of a 1s density to the nuclei of water, positive."""
    total = 0.0
    for charge, nucleus in zip((8, 1, 1), WATER, strict=True):
        d = float(np.linalg.norm(nucleus - centre))
        total += charge * (exponent if d == 0 else slater_potential(d, exponent))
    return total


def test_known_integrals_for_water_with_cusps():
    """What the difference of a molecule to its atoms asks for: few points, many digits.

    Densities like those of bonds: atoms with one exponent minus the same with another, a
    Gaussian in the bond; errors of the electron number and of the attraction by the nuclei.
    """
    space = SimplexSpace.for_structure(water())
    assert space.n_points <= 150_000
    exponents = [(2.2, 2.1), (1.2, 1.0), (1.2, 1.0)]
    density, exact = torch.zeros(space.n_points, dtype=torch.float64), 0.0
    for centre, (narrow, wide) in zip(WATER, exponents, strict=True):
        density += slater(space.points, centre, narrow) - slater(space.points, centre, wide)
        exact += slater_nuclear(centre, narrow) - slater_nuclear(centre, wide)
    nuclei = torch.tensor(WATER)
    attraction = sum(
        charge / (space.points - nucleus).norm(dim=1)
        for charge, nucleus in zip((8.0, 1.0, 1.0), nuclei, strict=True)
    )
    assert abs(float(space.integrate(density))) < 2e-6
    assert float(space.integrate(density * attraction)) == pytest.approx(exact, abs=1e-4)
    # without the rule at the corners the second is far off
    plain = SimplexSpace(space.mesh, 2)
    far = sum(
        charge / (plain.points - nucleus).norm(dim=1)
        for charge, nucleus in zip((8.0, 1.0, 1.0), nuclei, strict=True)
    )
    coarse = sum(
        slater(plain.points, c, a) - slater(plain.points, c, b)
        for c, (a, b) in zip(WATER, exponents, strict=True)
    )
    assert abs(float(plain.integrate(coarse * far)) - exact) > 3e-4


# functions and potentials


@pytest.mark.parametrize(
    ("kind", "order"), [(MeshTet, 1), (MeshTet, 2), (MeshHex, 1), (MeshHex, 2)]
)
def test_convergence_rates(kind, order):
    """Projection and its gradient; the errors' squares by a rule that is good enough for them."""

    def field(points):
        x, y, z = (points * math.pi / 6).T
        return torch.cos(x) * torch.cos(y) * torch.cos(z) * torch.exp(0.3 * points[:, 0])

    counts, errors = (4, 6, 8, 12), []
    for n in counts:
        space = SimplexSpace(cube(n, kind=kind), order)
        points = space.points.requires_grad_(True)
        (slopes,) = torch.autograd.grad(field(points).sum(), points)
        points.requires_grad_(False)
        c = space.project(field(points))
        miss = space.evaluate(c) - field(points)
        steep = ((space.evaluate_gradient(c) - slopes) ** 2).sum(dim=1)
        errors.append([float(space.integrate(e)) ** 0.5 for e in (miss**2, steep)])
    rates = [fitted_rate(1 / np.array(counts), e) for e in np.array(errors).T]
    assert rates == pytest.approx([order + 1, order], abs=0.25)


def gaussian_charge(points, centre, width):
    r2 = ((points - torch.tensor(centre)) ** 2).sum(dim=1)
    return torch.exp(-r2 / (2 * width**2)) / (2 * math.pi * width**2) ** 1.5


def gaussian_potential(points, centre, width):
    r = (points - torch.tensor(centre)).norm(dim=1).numpy()
    return torch.tensor(erf(r / (math.sqrt(2) * width)) / r)


@pytest.mark.parametrize(("order", "expected"), [(1, 2), (2, 4)])
def test_coulomb_energy_of_a_gaussian_converges_at_twice_the_order(order, expected):
    """Net charge 1, off the centre: the surface carries its potential."""
    exact, width = 1 / (2 * math.sqrt(math.pi) * 0.8), 0.8
    sizes, errors = (5, 8) if order == 2 else (6, 10), []
    for n in sizes:
        space = SimplexSpace(cube(2 * n, 4.0), order)
        charge = gaussian_charge(space.points, OFF_CENTRE[0], width)
        errors.append(exact - float(space.coulomb_energy(charge)))
    assert min(errors) > 0, "Galerkin energies come from below"
    assert fitted_rate(1 / np.array(sizes), errors) == pytest.approx(expected, abs=0.4)


def test_potential_of_a_pair_of_gaussians():
    """A dipole and a monopole, graded towards both, everywhere in the mesh."""
    centres = np.array([[0.0, 0.0, -1.0], [0.2, 0.0, 1.0]])
    structure = Structure(["H", "H"], centres)
    space = SimplexSpace.for_structure(structure, 0.3, 0.4, 10.0)
    charges, width = (1.5, -0.5), 0.8
    charge = sum(
        q * gaussian_charge(space.points, c, width) for q, c in zip(charges, centres, strict=True)
    )
    exact = sum(
        q * gaussian_potential(space.points, c, width)
        for q, c in zip(charges, centres, strict=True)
    )
    error = space.solve_poisson(charge) - exact
    outside = (space.points.abs() > 6).any(dim=1)
    assert float(error.abs().max()) < 7e-3
    assert float(error[outside].abs().max()) < 2e-3
    assert float(exact[outside].min()) > 0.04, "the values at the surface matter"
    energy = 0.5 * float(space.integrate(charge * exact))
    assert float(space.coulomb_energy(charge)) == pytest.approx(energy, rel=2e-3)


def test_potential_is_the_derivative_of_the_coulomb_energy():
    space = graded()
    charge = gaussian_charge(space.points, OFF_CENTRE[0], 0.7).requires_grad_(True)
    direction = torch.sin(space.points[:, 0]) * charge.detach()
    (derivative,) = torch.autograd.grad(space.coulomb_energy(charge), charge)
    phi = space.solve_poisson(charge.detach())
    assert torch.allclose(derivative, space.weights * phi, rtol=1e-9, atol=0)
    # and twice
    (row,) = torch.autograd.grad(space.coulomb_energy(charge), charge, create_graph=True)
    (second,) = torch.autograd.grad(row @ direction, charge)
    expected = space.weights * space.solve_poisson(direction)
    assert torch.allclose(second, expected, rtol=0, atol=1e-9 * float(expected.abs().max()))


@pytest.mark.parametrize("kind", [MeshTet, MeshHex])
def test_matrices_are_those_of_the_quadrature(kind, generator):
    """Assembled with a rule of their own degree on tetrahedra."""
    space = SimplexSpace(cube(4, kind=kind), 2, np.zeros((1, 3)))
    one, two = torch.randn(2, space.n_coefficients, generator=generator, dtype=torch.float64)
    by_points = space.integrate(space.evaluate(one) * space.evaluate(two))
    assert float(one @ space.mass(two)) == pytest.approx(float(by_points), rel=1e-12)
    slopes = [space.evaluate_gradient(c) for c in (one, two)]
    by_points = float(space.integrate((slopes[0] * slopes[1]).sum(dim=1)))
    applied = torch.tensor(space._matrices.inner_stiffness @ two.numpy())
    assert float(one @ applied) == pytest.approx(by_points, rel=1e-12)


def neutral_charge(points):
    """A quadrupole and more, without charge and dipole."""
    centres = [[0.0, 0.0, 0.8], [0.0, 0.0, -0.8], [0.0, 0.0, 0.0]]
    factors = (1.0, 1.0, -2.0)
    return sum(q * gaussian_charge(points, c, 0.9) for q, c in zip(factors, centres, strict=True))


def test_potential_confined_to_the_mesh_is_close_to_that_of_a_neutral_charge():
    space = graded(finest=0.2, growth=0.4)
    charge = neutral_charge(space.points)
    free, confined = space.solve_poisson(charge), space.evaluate(space.solve_confined(charge))
    assert float((free - confined).abs().max()) < 2e-2 * float(free.abs().max())
    energy = float(space.confined_energy(charge))
    assert energy == pytest.approx(0.5 * float(space.integrate(charge * confined)), rel=1e-12)
    assert energy == pytest.approx(float(space.coulomb_energy(charge)), rel=1e-3)
    charged = gaussian_charge(space.points, [0.0] * 3, 0.9)
    assert float(space.confined_energy(charged)) < 0.9 * float(space.coulomb_energy(charged))


def test_preconditioner_is_symmetric_positive_and_close(generator):
    space = graded()
    approximate = space.preconditioner(0.5, 2.0)
    a, b = torch.randn(2, space.n_coefficients, generator=generator, dtype=torch.float64)
    assert float(a @ approximate(b)) == pytest.approx(float(b @ approximate(a)), rel=1e-8)
    masses, stiffness = space._matrices.inner_masses, space._matrices.inner_stiffness
    applied = torch.tensor((0.5 * stiffness + 2.0 * masses) @ a.numpy())
    left = approximate(applied) - a
    # spectrum of the cycle times the matrix within (0, 1], most of it near 1
    assert 0.3 < float(applied @ approximate(applied)) / float(a @ applied) <= 1 + 1e-9
    assert float(left.norm() / a.norm()) < 0.6


def test_conjugate_gradients_say_when_they_fail():
    space = graded()
    with pytest.raises(ConvergenceError, match="did not reach a residual"):
        space.project(torch.full((space.n_points,), math.inf, dtype=torch.float64))


# meshes


def test_mesh_for_a_molecule():
    structure = water()
    finest = {"O": 0.05, "H": 0.2}
    space = SimplexSpace.for_structure(structure, finest, growth=0.5, margin=9.0)
    low, high = WATER.min(axis=0) - 9.0, WATER.max(axis=0) + 9.0
    assert space.volume == pytest.approx(np.prod(high - low), rel=1e-12)
    np.testing.assert_allclose(space.mesh.p.min(axis=1), low)
    corners = space.mesh.p.T
    distance = np.linalg.norm(corners[:, None] - WATER, axis=-1)
    assert (distance.min(axis=0) == 0).all(), "nuclei are corners"
    sizes = cell_sizes(space.mesh)
    wanted = (np.array([0.05, 0.2, 0.2]) + 0.5 * distance).min(axis=1)[space.mesh.t].min(axis=0)
    assert (sizes <= wanted).all()
    assert sizes.mean() > 0.6 * wanted.mean(), "finer than asked for"
    at_oxygen = (space.mesh.t == distance[:, 0].argmin()).any(axis=0)
    assert 0.02 < sizes[at_oxygen].max() <= 0.05
    space.check_matches(structure)
    assert space.spacing_at(torch.tensor(WATER[:1])) < 0.1


@pytest.mark.parametrize("finest", [0.3, 0.01])
@pytest.mark.parametrize("growth", [0.4, 1.0])
def test_cells_stay_well_shaped(finest, growth):
    """3 times inner over outer radius, 1 for the regular tetrahedron."""
    nuclei = np.array([[0.0, 0.0, 0.0], [0.1, 0.3, 1.4], [3.0, 0.2, 0.1]])
    mesh = graded_tetrahedra(nuclei, np.full(3, finest), growth, 8.0)
    p = mesh.p[:, mesh.t]
    edges = (p[:, 1:] - p[:, :1]).transpose(2, 1, 0)
    volume = np.abs(np.linalg.det(edges)) / 6
    length2 = sum(((p[:, i] - p[:, j]) ** 2).sum(axis=0) for i in range(4) for j in range(i))
    quality = 12 * (3 * volume) ** (2 / 3) / length2
    assert quality.min() > 0.25
    assert quality.mean() > 0.7


def test_mesh_follows_its_nuclei():
    space = SimplexSpace.for_structure(water(), 0.2, 0.8, 8.0)
    goal = torch.tensor(WATER + 0.1 * np.array([[1, 0, 0], [0, 1, 0], [0, 0, -1.0]]))
    moved = space.moved(goal)
    assert moved.volume == pytest.approx(space.volume, rel=1e-12)
    np.testing.assert_allclose(moved.nuclei, goal, atol=1e-15)
    assert (moved.mesh.t == space.mesh.t).all()
    check_function_space(moved)
    with pytest.raises(SpaceError, match="inside out"):
        space.moved(goal + torch.tensor([[3.0, 0, 0], [-3.0, 0, 0], [0, 0, 0]]))


def test_moving_space_is_differentiable():
    """Fields, gradients and Coulomb energy with fixed coefficients, against differences."""
    structure = Structure(["H", "H"], [[0.0, 0.0, -0.8], [0.1, 0.0, 0.8]])
    space = SimplexSpace.for_structure(structure, 0.4, 0.9, 6.0)
    c = space.project(torch.exp(-space.points.norm(dim=1)))

    def energy(positions):
        there = space.moved(positions)
        values, slopes = there.evaluate(c), there.evaluate_gradient(c)
        local = there.integrate(values**4 + (slopes**2).sum(dim=1) * values)
        attraction = there.integrate(values**2 / (there.points - positions[0]).norm(dim=1))
        parts = there.norm2(c) + there.gradient_norm2(c) + there.coulomb_energy(values**2)
        return local - attraction + parts + 2 * there.confined_energy(values**3)

    positions = torch.tensor(structure.positions, requires_grad=True)
    (gradient,) = torch.autograd.grad(energy(positions), positions)
    direction = torch.tensor([[0.5, 0.1, 0.0], [0.0, -0.3, 0.8]], dtype=torch.float64)
    start = positions.detach()
    expected = central_difference(lambda h: float(energy(start + h * direction)), 1e-3)
    assert float((gradient * direction).sum()) == pytest.approx(expected, rel=1e-7)


def test_any_mesh_that_meshio_reads(tmp_path):
    import meshio

    library = SimplexSpace(load_mesh("water"), 2)
    assert library.mesh.nelements == 10212
    mesh = cube(3, 2.0)
    path = tmp_path / "made.msh"
    stray = np.vstack([mesh.p.T, [[9.0, 9.0, 9.0]]])  # a corner that no cell uses
    meshio.write(path, meshio.Mesh(stray, [("tetra", mesh.t.T)]), file_format="gmsh")
    space = SimplexSpace(load_mesh(path, "bohr"), 1)
    assert space.volume == pytest.approx(64.0, rel=1e-12)
    hexahedra = SimplexSpace(load_mesh("cluster_box"), 1)
    assert hexahedra.volume == pytest.approx(69006.25, rel=1e-6)


def test_interpolation_at_known_places():
    space = SimplexSpace(cube(6), 2)

    def field(points):
        x, y, z = points.T
        return (9 - x**2) * (1 + 0 * y + 0 * z) / 9

    # vanishes on two of the walls only: compare in a coefficient space that is right inside
    values = field(space.all_nodes[: space.n_coefficients])
    inside = torch.tensor([[0.1, 0.2, -0.3], [1.0, 0.0, 0.0], [-0.77, 1.3, 1.9]])
    result = space.interpolate_at(values, inside.double())
    assert torch.allclose(result, field(inside.double()), rtol=0, atol=1e-12)
    assert space.interpolate_at(values, inside[:0]).shape == (0,)
    with pytest.raises(SpaceError, match="outside the mesh"):
        space.interpolate_at(values, torch.tensor([[0.0, 0.0, 3.1]]))


def places_inside(mesh, n, generator):
    """Random points in random cells, (n, 3)."""
    cells = torch.randint(mesh.nelements, (n,), generator=generator).numpy()
    shares = torch.rand(n, len(mesh.t), generator=generator, dtype=torch.float64).numpy()
    shares /= shares.sum(axis=1, keepdims=True)
    return np.einsum("xcn,nc->nx", mesh.p[:, mesh.t[:, cells]], shares)


@pytest.mark.parametrize("kind", [MeshTet, MeshHex])
def test_several_fields_at_many_points_are_those_of_scikit_fem(kind, generator):
    mesh = cube(4, kind=kind) if kind is MeshHex else SPACES["molecule"]().mesh
    # left- and right-handed cells
    mesh = kind(np.ascontiguousarray(mesh.p * [[1.0], [1.1], [-0.9]]), mesh.t)
    space = SimplexSpace(mesh, 2)
    c = torch.randn(2, 3, space.n_coefficients, generator=generator, dtype=torch.float64)
    points = places_inside(mesh, 500, generator)
    values = space.interpolate_at(c, torch.tensor(points), chunk=300)
    assert values.shape == (2, 3, 500)
    everything = np.zeros((6, space._cells.basis.N))
    everything[:, space._cells.order_of_nodes[: space.n_coefficients]] = c.flatten(0, 1)
    expected = space._cells.basis.probes(points.T) @ everything.T
    np.testing.assert_allclose(values.flatten(0, 1), expected.T, rtol=0, atol=1e-10)
    with pytest.raises(SpaceError, match="outside the mesh"):
        space.interpolate_at(c, torch.tensor([[math.nan, 0.0, 0.0]]))


def test_cells_are_found_by_walking_and_where_the_way_is_barred(generator, monkeypatch):
    mesh = SPACES["molecule"]().mesh
    points = places_inside(mesh, 2000, generator)
    with monkeypatch.context() as patched:
        patched.setattr(CellFinder, "_search", None)  # not needed
        cells, places = CellFinder(mesh)(points)
    np.testing.assert_allclose(mesh.mapping().F(places[:, :, None], cells)[..., 0].T, points)
    assert min(places.min(), (1 - places.sum(axis=0)).min()) > -1e-9
    # in the large one of two cells that do not touch, close to the small one
    corners = np.vstack([np.zeros(3), np.eye(3)])
    pair = MeshTet(np.vstack([10 * corners, -0.1 - corners]).T, np.arange(8).reshape(2, 4).T)
    cells, _ = CellFinder(pair)(np.full((1, 3), 0.1))
    assert cells.tolist() == [0]
    with pytest.raises(SpaceError, match="outside the mesh"):
        CellFinder(pair)(np.full((1, 3), -0.05))


def test_description_makes_the_same_space():
    space = SimplexSpace.for_structure(water(), 0.4, 1.0, 6.0)
    again = SimplexSpace.from_description(space.describe())
    assert torch.equal(again.points, space.points)
    assert torch.equal(again.weights, space.weights)
    assert again.describe() == space.describe()
    meshed = SimplexSpace(space.mesh, 2, space.nuclei)
    copy = SimplexSpace.from_description(meshed.describe())
    assert torch.equal(copy.points, space.points)
    with pytest.raises(SpaceError, match="of another version"):
        SimplexSpace.from_description(space.describe() | {"n_cells": 3})
    assert f"{space.mesh.nelements} tetrahedra of order 2" in repr(space)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("kind", [MeshTet, MeshHex])
def test_fields_in_paraview(kind, order, tmp_path):
    pyvista = pytest.importorskip("pyvista")
    cells = {
        (MeshTet, 1): pyvista.CellType.TETRA,
        (MeshTet, 2): pyvista.CellType.QUADRATIC_TETRA,
        (MeshHex, 1): pyvista.CellType.HEXAHEDRON,
        (MeshHex, 2): pyvista.CellType.TRIQUADRATIC_HEXAHEDRON,
    }[kind, order]
    mesh = cube(4, 2.5, kind)
    # left- and right-handed cells
    mesh = type(mesh)(np.ascontiguousarray(mesh.p * [[1.0], [1.1], [-0.9]]), mesh.t)
    space = SimplexSpace(mesh, order)
    structure = Structure(["H"], [[0.1, 0.0, 0.0]])

    def field(x, y, z):
        return 1 + x + 2 * y - z + (x * y - z**2 if order == 2 else 0)

    density = gaussian_charge(space.points, [0.0] * 3, 1.0)
    fields = {"density": density, "potential": field(*space.points.T)}
    path = tmp_path / "a.vtu"
    files = write_vtu(path, space, fields, structure, units={"potential": "1"})
    assert [file.name for file in files] == ["a.vtu", "a_atoms.vtp"]
    shown = pyvista.read(path)
    assert set(shown.celltypes) == {cells}
    volumes = shown.compute_cell_sizes()["Volume"]
    assert volumes.min() > 0
    assert volumes.sum() == pytest.approx(space.volume * BOHR_IN_ANGSTROM**3, rel=1e-5)
    exact = field(*(shown.points.T / BOHR_IN_ANGSTROM))
    np.testing.assert_allclose(shown["potential [1]"], exact, atol=2e-5)
    # inside the cells too: the order of the nodes is VTK's
    places = np.random.default_rng(1).uniform(-2.0, 2.0, (100, 3))
    sampled = pyvista.PolyData(places * BOHR_IN_ANGSTROM).sample(shown)
    np.testing.assert_allclose(sampled["potential [1]"], field(*places.T), atol=1e-3)
    assert shown["density [electron/angstrom^3]"].min() >= 0


# refusals


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: SimplexSpace(cube(2), 3), "order is 3; expected 1 or 2"),
        (lambda: SimplexSpace(MeshTri(), 1), "MeshTri1; expected linear tetrahedra or hexahedra"),
        (lambda: SimplexSpace(cube(2), 1, [[0.5, 0.0, 0.0]]), "nucleus 0 is 5.00e-01 bohr"),
        (lambda: SimplexSpace.for_structure(water(), finest=-1.0), "must be positive numbers"),
        (lambda: SimplexSpace.for_structure(water(), growth=math.nan), "must be positive numbers"),
        (lambda: SimplexSpace.for_structure(water(), {"O": 0.1}), "no length for H"),
        (
            lambda: SimplexSpace.for_structure(
                Structure(["Al"], [[0.0] * 3], cell=[7.0] * 3, pbc=True)
            ),
            "for isolated systems",
        ),
        (lambda: SimplexSpace(flat(), 1), "cell 0 and 0 more have no volume"),
    ],
)
def test_bad_input_gets_a_clear_message(make, named):
    with pytest.raises(SpaceError, match=named):
        make()


def flat():
    points = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0.5, 0.5, 0]]).T
    return MeshTet(points, np.array([[0, 1, 2, 3]]).T)


def test_structures_that_do_not_fit():
    space = SimplexSpace.for_structure(water(), 0.4, 1.0, 6.0)
    moved = Structure(["O", "H", "H"], WATER + 0.01)
    with pytest.raises(SpaceError, match="nuclei at other positions"):
        space.check_matches(moved)
    plain = SimplexSpace(cube(2), 1)
    plain.check_matches(Structure(["H"], [[0.0, 0.0, 0.0]]))
    with pytest.raises(SpaceError, match="atom 0 lies outside the mesh"):
        plain.check_matches(Structure(["H"], [[0.0, 0.0, 5.0]]))
    with pytest.raises(SpaceError, match="use a TensorSpace"):
        plain.check_matches(Structure(["Al"], [[0.0] * 3], cell=[7.0] * 3, pbc=True))
