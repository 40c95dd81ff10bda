"""Reference points and the scaling of features at them."""

import numpy as np
import pytest
import torch

from fedens.errors import DescriptorError, SpaceError
from fedens.features.points import bond_weight, reference_points
from fedens.fem.tensor import TensorSpace
from fedens.learning.scaling import Standardise
from fedens.structure import Structure

CELL = np.array([[4.0, 0.0, 0.0], [1.0, 5.0, 0.0], [0.5, -1.0, 6.0]])
CRYSTAL = Structure(["Al"], [[0.5, 0.5, 0.5]], cell=CELL, pbc=True)
BOX = Structure(["Al"], [[0.5, 0.5, 0.5]], cell=[4.0, 5.0, 6.0], pbc=True)
MOLECULE = Structure(["H", "H"], [[0, 0, 0], [0, 0, 1.4]])


def test_atoms():
    points, weights = reference_points(MOLECULE)
    assert torch.equal(points, torch.tensor(MOLECULE.positions))
    assert torch.equal(weights, torch.ones(2, dtype=torch.float64))


def test_grid_integrates_plane_waves():
    """A uniform grid is exact for plane waves of the cell below its resolution."""
    points, weights = reference_points(CRYSTAL, "grid", spacing=1.0)
    assert len(points) == 4 * 6 * 7  # vectors of length 4, 5.10 and 6.10 bohr
    assert float(weights.sum()) == pytest.approx(CRYSTAL.volume, rel=1e-12)
    waves = 2 * np.pi * np.linalg.inv(CELL)  # columns: reciprocal vectors
    for index in ([1, 0, 0], [0, -2, 1], [3, 0, 3]):
        phase = points.numpy() @ (waves @ index)
        assert abs((weights.numpy() * np.exp(1j * phase)).sum()) < 1e-10
    aliased = points.numpy() @ (waves @ [4, 0, 0])
    assert (weights.numpy() * np.cos(aliased)).sum() == pytest.approx(CRYSTAL.volume)


def test_grid_spacing_is_an_upper_bound():
    points, _ = reference_points(BOX, "grid", spacing=1.1)
    assert len(points) == 4 * 5 * 6
    cube = Structure(["Al"], [[0.5, 0.5, 0.5]], cell=[4.2, 4.2, 4.2], pbc=True)
    points, _ = reference_points(cube, "grid", spacing=0.7)  # 4.2 / 0.7 rounds to more than 6
    assert len(points) == 6**3


def test_quadrature():
    space = TensorSpace.for_structure(BOX, spacing=1.0, order=2)
    points, weights = reference_points(BOX, "quadrature", space=space)
    assert torch.equal(points, space.points)
    assert float(weights.sum()) == pytest.approx(BOX.volume, rel=1e-12)
    with pytest.raises(SpaceError):
        reference_points(MOLECULE, "quadrature", space=space)


@pytest.mark.parametrize(
    ("structure", "kind", "arguments", "message"),
    [
        (BOX, "bonds", {}, "cutoff"),
        (BOX, "bonds", {"cutoff": float("nan")}, "cutoff"),
        (BOX, "nodes", {}, "space="),
        (BOX, "stars", {}, "atoms, bonds, grid, quadrature, nodes"),
        (BOX, [], {}, "at least one"),
        (BOX, np.zeros(3), {}, "expected"),
        (BOX, np.full((1, 3), np.nan), {}, "not finite"),
        (BOX, "grid", {}, "spacing"),
        (BOX, "grid", {"spacing": -1.0}, "spacing"),
        (MOLECULE, "grid", {"spacing": 1.0}, "periodic"),
        (BOX, "quadrature", {}, "space="),
    ],
)
def test_errors(structure, kind, arguments, message):
    with pytest.raises(DescriptorError, match=message):
        reference_points(structure, kind, **arguments)


def test_bonds_of_a_crystal():
    """fcc: 6 bonds per atom to nearest neighbours; second neighbours are beyond the cutoff."""
    edge = 7.65
    sites = np.array([[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0]]) * edge / 2
    crystal = Structure(["Al"] * 4, sites, cell=[edge] * 3, pbc=True)
    points, weights = reference_points(crystal, "bonds", cutoff=1.2 * edge / 2**0.5)
    assert len(points) == 24
    length = torch.tensor(edge / 2**0.5, dtype=torch.float64)
    assert torch.allclose(weights, bond_weight(length, 1.2 * float(length)).expand(24))
    # an atom that bonds with its own images
    primitive = Structure(["Al"], [[0, 0, 0]], cell=edge / 2 * (1 - np.eye(3)), pbc=True)
    midpoints, _ = reference_points(primitive, "bonds", cutoff=1.2 * edge / 2**0.5)
    assert len(midpoints) == 6
    assert torch.allclose(midpoints.norm(dim=1), length / 2)


def test_no_bonds():
    points, weights = reference_points(CRYSTAL, "bonds", cutoff=1.0)
    assert points.shape == (0, 3)
    assert weights.shape == (0,)


@pytest.mark.parametrize("distance", [2.4, 2.95, 3.0001])
def test_bonds_appear_smoothly(distance):
    """Sum of w e(midpoint): its derivative is that of finite differences across the cutoff."""

    def total(r, positions=None):
        dimer = Structure(["H", "H"], [[0, 0, 0], [0, 0, r]])
        points, weights = reference_points(dimer, "bonds", cutoff=3.0, positions=positions)
        return (weights * (1 + points[:, 2]) ** 2).sum()

    positions = torch.tensor([[0, 0, 0], [0, 0, distance]], requires_grad=True, dtype=torch.float64)
    value = total(distance, positions)
    step = 2e-4
    expected = float(total(distance + step) - total(distance - step)) / (2 * step)
    if value.requires_grad:
        (gradient,) = torch.autograd.grad(value, positions)
        assert float(gradient[1, 2]) == pytest.approx(expected, rel=1e-5, abs=1e-6)
    else:
        assert distance > 3.0
        assert abs(expected) < 1e-6


def test_bonds_follow_positions_and_cell():
    shear = torch.tensor([[1.0, 0.02, 0], [0, 1.01, 0], [0.01, 0, 0.98]], dtype=torch.float64)
    positions, cell = torch.tensor(CRYSTAL.positions) @ shear, torch.tensor(CELL) @ shear
    how = {"cutoff": 5.5}
    plain, weights = reference_points(CRYSTAL, "bonds", **how)
    moved, moved_weights = reference_points(CRYSTAL, "bonds", **how, positions=positions, cell=cell)
    assert torch.allclose(moved, plain @ shear)
    assert not torch.allclose(moved_weights, weights)


def test_grid_follows_the_cell():
    cell = torch.tensor(CELL, requires_grad=True)
    points, weights = reference_points(CRYSTAL, "grid", spacing=1.0, cell=cell)
    (gradient,) = torch.autograd.grad(weights.sum(), cell)
    assert torch.allclose(gradient, CRYSTAL.volume * torch.linalg.inv(cell).T)
    assert points.requires_grad


@pytest.mark.parametrize("structure", [BOX, MOLECULE])
def test_nodes_integrate_linear_functions(structure):
    space = TensorSpace.for_structure(structure, spacing=1.0, order=2, margin=6.0)
    points, weights = reference_points(structure, "nodes", space=space)
    centre = space.weights @ space.points / space.volume
    assert float(weights.sum()) == pytest.approx(space.volume, rel=1e-12)
    if not space.is_periodic:
        assert torch.allclose(weights @ points / space.volume, centre, atol=1e-12)
        assert float(points[:, 2].min()) == float(space.axes[2].edges[0])
    else:
        assert len(points) == 2 * 3 * 3


def test_unions_and_arrays():
    points, weights = reference_points(MOLECULE, ["atoms", "bonds"], cutoff=3.0)
    assert torch.equal(
        points, torch.tensor([[0, 0, 0], [0, 0, 1.4], [0, 0, 0.7]], dtype=weights.dtype)
    )
    assert torch.equal(weights, torch.ones(3).double())
    own = np.array([[0.1, 0.2, 0.3]])
    points, weights = reference_points(MOLECULE, own)
    assert torch.equal(points, torch.tensor(own))
    assert torch.equal(weights, torch.ones(1).double())


def features(n=1000, seed=0):
    """Columns of spread 1 around 1e6, of spread 1e-3 around 0, and a constant."""
    normal = np.random.default_rng(seed).normal(size=(n, 2))
    return np.column_stack([1e6 + normal[:, 0], 1e-3 * normal[:, 1], np.full(n, 0.1)])


def test_chunks_give_the_scale_of_the_whole():
    rows = features()
    scale = Standardise.fit(rows[a:b] for a, b in [(0, 1), (1, 1), (1, 400), (400, 1000)])
    assert scale.mean.numpy() == pytest.approx(rows.mean(axis=0), rel=1e-12)
    assert scale.scale[:2].numpy() == pytest.approx(rows[:, :2].std(axis=0), rel=1e-8)
    assert scale.scale[2] == 1.0


def test_scaled_features():
    rows = torch.tensor(features())
    scale = Standardise.fit([rows])
    scaled = scale(rows)
    assert scaled.mean(dim=0).abs().max() < 1e-8
    assert torch.allclose(scaled[:, :2].std(dim=0, correction=0), torch.ones(2).double(), rtol=1e-8)
    assert scaled[:, 2].abs().max() < 1e-12
    assert torch.allclose(scaled * scale.scale + scale.mean, rows, rtol=1e-12)
    assert scale(rows.float()).dtype == torch.float32


def test_scaling_errors():
    with pytest.raises(DescriptorError, match="empty"):
        Standardise.fit([])
    with pytest.raises(DescriptorError, match="not finite"):
        Standardise.fit([np.full((2, 3), np.nan)])
    with pytest.raises(DescriptorError, match="expected"):
        Standardise.fit([np.zeros((2, 3)), np.zeros((2, 4))])
    with pytest.raises(DescriptorError, match="learned for 3 columns"):
        Standardise.fit([features()])(torch.zeros(5, 2))
    with pytest.raises(DescriptorError, match="positive scales"):
        Standardise(torch.zeros(2), torch.zeros(2))
