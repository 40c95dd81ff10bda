import math

import numpy as np
import pytest

from fedens import KPoints, Structure, monkhorst_pack
from fedens.errors import SamplingError

EVEN = np.array([0.5, 0.5])


def crystal(cell):
    return Structure(["Al"], [[0.0] * 3], cell=cell, pbc=True)


def test_a_mesh_is_that_of_monkhorst_and_pack():
    mesh = monkhorst_pack((2, 3, 1))
    assert len(mesh) == 6
    assert sorted(set(mesh.points[:, 0])) == pytest.approx([-1 / 4, 1 / 4])
    assert sorted(set(mesh.points[:, 1])) == pytest.approx([-1 / 3, 0, 1 / 3])
    np.testing.assert_array_equal(mesh.points[:, 2], 0)
    np.testing.assert_allclose(mesh.weights, 1 / 6)


def test_a_gamma_centred_mesh_holds_gamma_and_the_zone_boundary():
    mesh = monkhorst_pack((4, 1, 1), gamma_centred=True)
    np.testing.assert_allclose(mesh.points[:, 0], [0, 1 / 4, 1 / 2, -1 / 4])


@pytest.mark.parametrize("q", [1, 2, 3, 6])
def test_a_mesh_integrates_waves_up_to_its_own_length(q):
    """The sum of exp(2 pi i k n) is zero for n = 1 to q - 1, and not for n = q."""
    k = monkhorst_pack((q, 1, 1)).points[:, 0]
    sums = [np.exp(2j * np.pi * k * n).mean() for n in range(1, q + 1)]
    np.testing.assert_allclose(np.abs(sums), [0] * (q - 1) + [1], atol=1e-14)


def test_coordinates_are_folded():
    folded = KPoints([[0.75, -0.5, 1.0], [-1.25, 0.5, -0.5 + 1e-12]], EVEN).points
    np.testing.assert_allclose(folded, [[-0.25, 0.5, 0.0], [-0.25, 0.5, 0.5]])


def test_points_are_found_modulo_one():
    kpoints = KPoints([[0.1, 0.5, 0], [0.2, 0, 0]], EVEN)
    wanted = np.array([[1.2, -1, 1e-10], [0.1, -0.5, -1e-10], [0.1, 0.4, 0]])
    np.testing.assert_array_equal(kpoints.index_of(wanted), [1, 0, -1])


@pytest.mark.parametrize("spacing", [0.1, 0.2, 0.37])
def test_the_spacing_asked_for_is_not_exceeded(spacing):
    structure = crystal([7.65, 5.0, 12.0])
    mesh = KPoints.from_spacing(structure, spacing)
    assert 0.6 * spacing < mesh.spacing(structure.cell) <= spacing


def test_a_spacing_gives_the_mesh_it_came_from():
    """Though it is written with seven digits."""
    structure = crystal([7.65, 7.65, 7.65])
    spacing = monkhorst_pack((8, 8, 8)).spacing(structure.cell)
    assert spacing == pytest.approx(2 * np.pi / (8 * 7.65), rel=1e-12)
    assert len(KPoints.from_spacing(structure, spacing * (1 - 1e-7))) == 512


def test_the_spacing_of_a_sheared_cell_is_that_of_its_reciprocal_vectors():
    cell = [[7.0, 0, 0], [3, 5, 0], [0, 0, 7]]
    first = 2 * np.pi * np.hypot(1 / 7, 3 / 35)
    assert monkhorst_pack((1, 8, 8)).spacing(cell) == pytest.approx(first)
    assert monkhorst_pack((8, 1, 8)).spacing(cell) == pytest.approx(2 * np.pi / 5)


def test_isolated_atoms_get_one_point():
    molecule = Structure(["H", "H"], [[0.0] * 3, [1.4, 0, 0]], cell=[20.0] * 3)
    mesh = KPoints.from_spacing(molecule, 0.1)
    np.testing.assert_array_equal(mesh.points, [[0, 0, 0]])
    assert mesh.spacing(None) is None


@pytest.mark.parametrize(
    ("points", "weights"),
    [
        ([[0.0, 0, 0], [0.5, 0, 0]], [0.3, 0.7]),
        ([[0.0, 0, 0], [0.3, 0, 0]], EVEN),
        ([[0.0, 0, 0], [0.5, 0.5, 0]], EVEN),
    ],
)
def test_what_is_no_mesh_has_no_spacing(points, weights):
    assert KPoints(points, weights).spacing(np.eye(3)) is None


@pytest.mark.parametrize(("size", "left"), [((4, 4, 4), 32), ((3, 3, 3), 14), ((2, 1, 1), 1)])
def test_time_reversal_halves_a_mesh(size, left):
    mesh = monkhorst_pack(size)
    reduced = mesh.reduced_by_time_reversal()
    assert len(reduced) == left
    np.testing.assert_array_equal(reduced.points, mesh.points[mesh.index_of(reduced.points)])
    assert (np.diff(mesh.index_of(reduced.points)) > 0).all()
    # an even function has the same mean
    means = [
        k.weights @ np.cos(2 * np.pi * k.points @ [[1], [2], [3]]) ** 2 for k in (mesh, reduced)
    ]
    np.testing.assert_allclose(*means)


def test_time_reversal_joins_no_more_than_pairs():
    kpoints = KPoints(
        [[0.1, 0.2, 0], [0.5, 0, 0], [-0.1, -0.2, 0], [0.1, -0.2, 0]], [0.1, 0.2, 0.3, 0.4]
    )
    reduced = kpoints.reduced_by_time_reversal()
    np.testing.assert_allclose(reduced.points, kpoints.points[[0, 1, 3]])
    np.testing.assert_allclose(reduced.weights, [0.4, 0.2, 0.4])


def test_points_on_isolated_axes_are_refused():
    monkhorst_pack((2, 2, 1)).check_matches((True, True, False))
    with pytest.raises(SamplingError, match=r"k-point 0 is .*nothing repeats along z"):
        monkhorst_pack((1, 1, 2)).check_matches((True, True, False))


@pytest.mark.parametrize(
    ("points", "weights", "message"),
    [
        ([[0, 0, np.nan]], [1], "finite"),
        ([0, 0, 0], [1], "expected 2 dimensions"),
        ([["a", 0, 0]], [1], "must be numbers"),
        ([[0, 0]], [1], r"shape \(1, 2\)"),
        (np.zeros((0, 3)), [], "at least one point"),
        ([[0, 0, 0], [0.5, 0, 0]], [1], r"weights \(1,\)"),
        ([[0, 0, 0], [0.5, 0, 0]], [1.5, -0.5], "weight of k-point 1 is -0.5"),
        ([[0, 0, 0], [0.5, 0, 0]], [1, 1], "add up to 2, expected 1"),
        ([[0.5, 0, 0], [-0.5, 1, 0]], EVEN, "0 and 1 are the same"),
    ],
)
def test_bad_lists_are_refused(points, weights, message):
    with pytest.raises(SamplingError, match=message):
        KPoints(points, weights)


@pytest.mark.parametrize(
    "size", [(2, 2), (0, 1, 1), (1.5, 1, 1), (math.nan, 1, 1), (1, math.inf, 1), 4, "444"]
)
def test_bad_meshes_are_refused(size):
    with pytest.raises(SamplingError, match="three whole numbers"):
        monkhorst_pack(size)


@pytest.mark.parametrize("spacing", [0.0, -1.0, np.inf, np.nan])
def test_bad_spacings_are_refused(spacing):
    with pytest.raises(SamplingError, match="expected a positive number"):
        KPoints.from_spacing(crystal([7.65] * 3), spacing)
