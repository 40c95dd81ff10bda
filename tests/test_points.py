"""Reference points and the scaling of features at them."""

import numpy as np
import pytest
import torch

from fedens.errors import DescriptorError, SpaceError
from fedens.features.points import reference_points
from fedens.features.scaling import Standardise
from fedens.fem.tensor import TensorSpace
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
        (BOX, "bonds", {}, "not built yet"),
        (BOX, "nodes", {}, "not built yet"),
        (BOX, "stars", {}, "atoms, grid, quadrature"),
        (BOX, "grid", {}, "spacing"),
        (BOX, "grid", {"spacing": -1.0}, "spacing"),
        (MOLECULE, "grid", {"spacing": 1.0}, "periodic"),
        (BOX, "quadrature", {}, "space="),
    ],
)
def test_errors(structure, kind, arguments, message):
    with pytest.raises(DescriptorError, match=message):
        reference_points(structure, kind, **arguments)


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
    assert torch.allclose(scale.undo(scaled), rows, rtol=1e-12)
    assert scale(rows.float()).dtype == torch.float32


def test_scale_is_stored_as_tensors():
    scale = Standardise.fit([features()])
    again = Standardise.from_tensors(scale.to_tensors() | {"other": torch.zeros(1)})
    assert torch.equal(again.mean, scale.mean)
    assert torch.equal(again.scale, scale.scale)


def test_scaling_errors():
    with pytest.raises(DescriptorError, match="empty"):
        Standardise.fit([])
    with pytest.raises(DescriptorError, match="not finite"):
        Standardise.fit([np.full((2, 3), np.nan)])
    with pytest.raises(DescriptorError, match="expected"):
        Standardise.fit([np.zeros((2, 3)), np.zeros((2, 4))])
    with pytest.raises(DescriptorError, match="learned for 3 columns"):
        Standardise.fit([features()])(torch.zeros(5, 2))
    with pytest.raises(DescriptorError, match="mean and scale"):
        Standardise.from_tensors({"mean": torch.zeros(3)})
    with pytest.raises(DescriptorError, match="positive scales"):
        Standardise(torch.zeros(2), torch.zeros(2))
