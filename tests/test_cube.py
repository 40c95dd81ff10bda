"""Cube files, read back with ASE."""

import math

import numpy as np
import pytest
import torch
from ase.io.cube import read_cube

from fedens.errors import OutputError
from fedens.fem.tensor import TensorSpace
from fedens.output.cube import write_cube
from fedens.structure import Structure
from fedens.units import BOHR_IN_ANGSTROM


def read(path):
    with open(path) as file:
        return read_cube(file)


def test_round_trip_of_a_periodic_cell(tmp_path):
    structure = Structure(["Al", "O"], [[0.5, 1, 1], [4, 5, 6]], cell=[8.0, 9.0, 10.0], pbc=True)
    space = TensorSpace.for_structure(structure)
    x, y, z = (2 * np.pi * space.points / torch.tensor(space.lengths)).T
    density = 3 + torch.sin(x) + torch.cos(y) * torch.sin(2 * z)
    # three different distances of planes
    path = write_cube(tmp_path / "a.cube", structure, space, density, spacing=0.47)
    cube = read(path)
    counts = [math.ceil(length / 0.47) for length in (8, 9, 10)]
    assert cube["data"].shape == tuple(counts)
    grids = [2 * np.pi * np.arange(n) / n for n in counts]
    x, y, z = np.meshgrid(*grids, indexing="ij")
    expected = 3 + np.sin(x) + np.cos(y) * np.sin(2 * z)
    # the format has six digits; the rest is the interpolation of the square root
    np.testing.assert_allclose(cube["data"], expected, atol=2e-3)
    assert cube["atoms"].get_chemical_symbols() == ["Al", "O"]
    np.testing.assert_allclose(
        cube["atoms"].positions, structure.positions * BOHR_IN_ANGSTROM, atol=1e-6
    )
    np.testing.assert_allclose(
        cube["atoms"].cell.lengths(), np.array([8, 9, 10]) * BOHR_IN_ANGSTROM, rtol=1e-6
    )
    # number and charge of each nucleus, which ASE does not read
    lines = path.read_text().splitlines()[6:8]
    assert [line.split()[:2] for line in lines] == [["13", "13.000000"], ["8", "8.000000"]]
    assert path.read_text().startswith("fedens: density in electron/bohr^3; lengths in bohr\n")


def test_isolated_box_starts_at_its_corner_and_keeps_the_integral(tmp_path):
    structure = Structure(["He"], [[1.0, 2.0, 3.0]])
    space = TensorSpace.for_structure(structure, spacing=0.7, margin=9.0)
    r2 = ((space.points - torch.tensor(structure.positions)) ** 2).sum(dim=1)
    density = 2 * torch.exp(-r2 / 2) / (2 * np.pi) ** 1.5
    cube = read(write_cube(tmp_path / "he.cube", structure, space, density, spacing=0.6))
    np.testing.assert_allclose(cube["origin"] / BOHR_IN_ANGSTROM, [-8, -7, -6], atol=1e-6)
    voxel = np.linalg.det(cube["spacing"] / BOHR_IN_ANGSTROM)
    assert cube["data"].sum() * voxel == pytest.approx(2, rel=1e-3)
    peak = np.unravel_index(cube["data"].argmax(), cube["data"].shape)
    np.testing.assert_allclose(
        cube["origin"] + peak @ cube["spacing"],
        structure.positions[0] * BOHR_IN_ANGSTROM,
        atol=0.35,
    )


def test_bad_input_gets_a_clear_message(tmp_path):
    structure = Structure(["Al"], [[0, 0, 0]], cell=[4.0] * 3, pbc=True)
    space = TensorSpace.for_structure(structure)
    ones = np.ones(space.n_points)
    with pytest.raises(OutputError, match="spacing is 0 bohr"):
        write_cube(tmp_path / "a.cube", structure, space, ones, spacing=0)
    with pytest.raises(OutputError, match="'foo' has unit None"):
        write_cube(tmp_path / "a.cube", structure, space, ones, "foo")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        write_cube(tmp_path / "file" / "a.cube", structure, space, ones)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
