"""All-electron densities on uniform grids: electrons, cores, values against PySCF, files."""

import math

import numpy as np
import pytest
import torch
from ase.calculators.vasp import VaspChargeDensity
from ase.io.cube import read_cube
from scipy.special import gammainc

from fedens.atoms.spherical import SphericalAtom, superposed_fields
from fedens.commands.export import export, free_atoms_of
from fedens.data.dataset import Dataset
from fedens.data.sample import Sample
from fedens.errors import DatasetError, FunctionalError, OutputError
from fedens.fem.simplex import SimplexSpace
from fedens.fem.tensor import TensorSpace
from fedens.output import all_electron_grid as module
from fedens.output.all_electron_grid import all_electron_grid, sample_grid
from fedens.reference.pyscf.kohn_sham import solve_with_pyscf
from fedens.structure import Structure
from fedens.units import BOHR_IN_ANGSTROM

SPACING = 0.2 / BOHR_IN_ANGSTROM
WATER = Structure(["O", "H", "H"], [[0.1, 0.0, 0.2], [0.0, 1.43, -0.9], [0.2, -1.5, -0.8]])
BOX = np.array([WATER.positions.min(axis=0) - 8, WATER.positions.max(axis=0) + 8])
#: Electrons and decay, 1/bohr, of shells like those of oxygen and hydrogen.
SHELLS = {"O": [(2.0, 15.0), (6.0, 3.5)], "H": [(1.0, 2.0)]}


def shell_atom(symbol):
    """Exponential shells N a^3 exp(-a r) / (8 pi)."""
    r = np.geomspace(1e-8, 50.0, 4096)
    shells = SHELLS[symbol]
    density = sum(n * a**3 / (8 * math.pi) * np.exp(-a * r) for n, a in shells)
    charge = sum(n for n, _ in shells)
    return SphericalAtom(charge, r, density, np.zeros_like(r), np.zeros_like(r))


def charge_within(symbol, radius):
    """Exact: N P(3, a R)."""
    return sum(n * gammainc(3, a * radius) for n, a in SHELLS[symbol])


ATOMS = {symbol: shell_atom(symbol) for symbol in SHELLS}


def nothing(points):
    return points.new_zeros(len(points))


def electrons(grid):
    return grid.values.sum() * grid.voxel


def grid_points(grid):
    planes = [
        o + np.arange(n) * h
        for o, n, h in zip(grid.origin, grid.values.shape, grid.steps, strict=True)
    ]
    return np.stack(np.meshgrid(*planes, indexing="ij"), axis=-1)


@pytest.mark.parametrize("symbol", SHELLS)
@pytest.mark.parametrize("radius", [0.3, 0.9, 1.2])
def test_cores_keep_their_charge_and_join_smoothly(symbol, radius):
    structure = Structure([symbol], [[0.4, -0.3, 0.1]])
    (core,) = module._cores(structure, ATOMS, radius)
    assert core.radius == radius

    def density(r):
        direction = np.array([2.0, -1.0, 2.0]) / 3
        return core.density(torch.tensor(structure.positions + np.outer(r, direction))).numpy()

    x, weights = np.polynomial.legendre.leggauss(8)
    r, weights = radius * (x + 1) / 2, radius * weights / 2
    inside = density(r)
    charge = 4 * math.pi * weights @ (r**2 * inside)
    assert charge == pytest.approx(charge_within(symbol, radius), rel=1e-7)
    assert inside.min() > 0
    assert (np.diff(inside) < 0).all()
    step = 1e-3
    below, above = (density(radius + sign * step * np.arange(1, 5)) for sign in (-1, 1))
    # value, slope and curvature from both sides; cubics through four points
    for k in range(3):
        left, right = (
            np.polynomial.polynomial.polyfit(sign * np.arange(1, 5), side, 3)[k] / step**k
            for sign, side in ((-1, below), (1, above))
        )
        assert left == pytest.approx(right, rel=10 ** (2 * k - 6)), k
    beyond = np.array([radius, 1.5, 3.0])
    exact = sum(n * a**3 / (8 * math.pi) * np.exp(-a * beyond) for n, a in SHELLS[symbol])
    np.testing.assert_allclose(density(beyond), exact, rtol=1e-8)


def test_electrons_wherever_the_grid_lies(monkeypatch):
    generator = np.random.default_rng(3)
    boxes = [BOX + generator.random(3) * SPACING for _ in range(4)]
    found = [electrons(all_electron_grid(WATER, ATOMS, nothing, SPACING, b)) for b in boxes]
    np.testing.assert_allclose(found, 10.0, rtol=1e-3)
    # half a spacing wide, the cores are those of the atoms, more or less
    monkeypatch.setattr(module, "_CORE", 0.5)
    found = [electrons(all_electron_grid(WATER, ATOMS, nothing, SPACING, b)) for b in boxes]
    assert np.abs(np.array(found) / 10 - 1).max() > 0.02


@pytest.mark.parametrize("place", [0.0, 0.3, 0.5])
def test_sharp_differences_are_averaged_next_to_nuclei_only(place):
    """A peak and a dipole with cusps at oxygen, in closed form as a learned difference is."""
    oxygen = torch.tensor(WATER.positions[0])

    def difference(points):
        away = points - oxygen
        r = away.norm(dim=1)
        return -2.5 * torch.exp(-16 * r) + 8 * away[:, 2] * torch.exp(-10 * r)

    # the nucleus on a grid point, or between them
    low, high = (WATER.positions[0] + SPACING * (n - place) for n in (-24, 24))
    grid, atoms = (
        all_electron_grid(WATER, ATOMS, d, SPACING, [low, high]) for d in (difference, nothing)
    )
    points = torch.tensor(grid_points(grid).reshape(-1, 3))
    exact = -2.5 * 8 * math.pi / 16**3
    assert electrons(grid) - electrons(atoms) == pytest.approx(exact, abs=4e-3)
    if place == 0:
        plain = float(difference(points).sum()) * grid.voxel
        assert abs(plain - exact) > 0.1, "not averaged"
    density = superposed_fields(WATER, points, ATOMS)["density"] + difference(points)
    outside = (torch.cdist(points, torch.tensor(WATER.positions)) > 1.2).all(dim=1).numpy()
    np.testing.assert_allclose(
        grid.values.reshape(-1)[outside], density.numpy()[outside], rtol=1e-9
    )


def test_the_average_fades_towards_the_radius():
    """That of r^2 exceeds r^2 by the same everywhere: h^2/12 (1 - 1/16) for each axis."""
    oxygen = Structure(["O"], [[0.0, 0.0, 0.0]])
    box = [[-6.0] * 3, [6.0] * 3]
    grid, atoms = (
        all_electron_grid(oxygen, ATOMS, d, 0.3, box)
        for d in (lambda p: (p**2).sum(dim=1), nothing)
    )
    r2 = (grid_points(grid) ** 2).sum(axis=-1)
    excess = (grid.steps**2).sum() / 12 * (1 - 1 / 16)
    window = np.clip(1 - r2 / 0.9**2, 0, None) ** 3
    np.testing.assert_allclose(grid.values - atoms.values - r2, window * excess, atol=1e-12)


def test_cores_of_neighbours_do_not_overlap_and_follow_the_spacing():
    distances = np.linalg.norm(WATER.positions[1:] - WATER.positions[0], axis=1)
    fine, coarse = (module._cores(WATER, ATOMS, largest) for largest in (0.5, 3.0))
    assert [core.radius for core in fine] == [0.5] * 3
    expected = [distances.min() / 2, *distances / 2]
    np.testing.assert_allclose([core.radius for core in coarse], expected)
    grid = all_electron_grid(WATER, ATOMS, nothing, 0.25, BOX)
    assert grid.remark == "all electrons, within 0.750 bohr of nuclei smoothed with the same charge"
    np.testing.assert_allclose(grid.origin, BOX[0])
    assert (grid.steps <= 0.25).all()


@pytest.fixture(scope="module")
def state():
    return solve_with_pyscf(WATER)


@pytest.fixture(scope="module")
def folder(state, tmp_path_factory):
    """A data set of water with all electrons on tetrahedra."""
    folder = tmp_path_factory.mktemp("water") / "data"
    sample = state.to_sample(SimplexSpace.for_structure(WATER), gradient=True)
    Dataset.open(folder, create=True).add(sample, "water")
    return folder


def test_kohn_sham_density_of_water(state, folder):
    sample = Dataset.open(folder)["water"]
    grid = sample_grid(sample, free_atoms_of(sample), spacing=SPACING)
    assert electrons(grid) == pytest.approx(10, rel=1e-3)
    assert grid.values.min() >= 0
    points = grid_points(grid).reshape(-1, 3)[::7]
    nearest = np.linalg.norm(points[:, None] - WATER.positions, axis=-1).min(axis=1)
    outside = nearest > module._CORE * SPACING
    error = grid.values.reshape(-1)[::7] - state.fields(points)["density"]
    # what the mesh makes of the difference to superposed atoms
    assert np.abs(error[outside]).max() < 4e-3
    assert np.sqrt((error[outside] ** 2).mean()) < 4e-5
    assert np.abs(error[~outside]).max() > 0.1, "cores are smoothed"


def test_files_of_water_by_ase(folder, tmp_path):
    lines = []
    paths = export(folder, tmp_path, ["cube", "chgcar"], SPACING, say=lines.append)
    assert [path.name for path in paths] == ["water.cube", "water.CHGCAR"]
    assert all("in the sample" in line and "smaller" not in line for line in lines)
    with paths[0].open() as file:
        cube = read_cube(file)
    voxel = np.linalg.det(cube["spacing"] / BOHR_IN_ANGSTROM)
    assert cube["data"].sum() * voxel == pytest.approx(10, rel=1e-3)
    content = VaspChargeDensity(str(paths[1]))
    (atoms,), (values,) = content.atoms, content.chg
    assert values.mean() * atoms.get_volume() == pytest.approx(10, rel=1e-3)
    np.testing.assert_allclose(values * BOHR_IN_ANGSTROM**3, cube["data"], rtol=1e-5, atol=1e-12)
    assert atoms.get_chemical_symbols() == ["O", "H", "H"]
    origin = cube["origin"]
    np.testing.assert_allclose(
        atoms.positions + origin, WATER.positions * BOHR_IN_ANGSTROM, atol=1e-6
    )
    for path in paths:
        with path.open() as file:
            assert "of nuclei smoothed with the same charge" in file.readline()


@pytest.mark.slow
def test_one_sample_and_its_fields(folder, tmp_path):
    pyvista = pytest.importorskip("pyvista")
    lines, source = [], folder / "water.h5"
    assert export(source, tmp_path / "a.cube", spacing=0.5 / BOHR_IN_ANGSTROM, say=lines.append)
    assert "choose a smaller spacing" in lines[0]
    path, atoms = export(source, tmp_path / "a.vtu")
    shown = pyvista.read(path)
    assert set(shown.point_data) == {
        "density [electron/angstrom^3]",
        "kinetic [eV/angstrom^3]",
        "xc [eV/angstrom^3]",
        *(f"gradient_{axis} [electron/angstrom^4]" for axis in "xyz"),
    }
    nuclei = pyvista.read(atoms).points / BOHR_IN_ANGSTROM
    np.testing.assert_allclose(nuclei, WATER.positions, atol=1e-6)
    at_oxygen = np.linalg.norm(shown.points - nuclei[0] * BOHR_IN_ANGSTROM, axis=1).argmin()
    assert shown["density [electron/angstrom^3]"].argmax() == at_oxygen


def replaced(sample, **provenance):
    return Sample(
        sample.structure,
        sample.points,
        sample.weights,
        sample.fields,
        sample.energy,
        provenance=provenance,
    )


@pytest.mark.slow
def test_samples_that_cannot_be_exported(folder):
    sample = Dataset.open(folder)["water"]
    level, space = sample.provenance["functional"], sample.provenance["space"]
    with pytest.raises(OutputError, match="functional is None; a grid of all electrons needs xc"):
        free_atoms_of(replaced(sample, space=space))
    valence = level | {"pseudopotential": "gth-pbe"}
    with pytest.raises(OutputError, match="without pseudopotential"):
        free_atoms_of(replaced(sample, space=space, functional=valence))
    with pytest.raises(DatasetError, match="which space its points belong to"):
        sample_grid(replaced(sample, functional=level), ATOMS)
    imported = TensorSpace.for_structure(WATER, spacing=2.0, order=2).describe()
    with pytest.raises(OutputError, match="functional is None"):
        free_atoms_of(replaced(sample, space=imported))
    with pytest.raises(OutputError, match="spacing is 0 bohr; expected a positive number"):
        sample_grid(sample, ATOMS, spacing=0)
    with pytest.raises(OutputError, match="spacing is 0 bohr"):
        export(folder / "water.h5", folder / "water.cube", spacing=0)


@pytest.mark.parametrize(
    ("change", "error", "named"),
    [
        ({"spacing": -1.0}, OutputError, "spacing is -1.0 bohr"),
        ({"spacing": math.inf}, OutputError, "spacing is inf bohr"),
        ({"box": [[-1.0] * 3, [1.0] * 3]}, OutputError, "expected one with all nuclei"),
        ({"difference": lambda p: p}, OutputError, r"shape \(\d+, 3\) at \d+ points"),
        ({"difference": lambda p: nothing(p) / 0}, OutputError, "expected finite numbers"),
        ({"atoms": {"O": ATOMS["O"]}}, FunctionalError, "no free atom of H"),
        (
            {"structure": Structure(["H"], [[1.0] * 3], cell=[4.0] * 3, pbc=True)},
            OutputError,
            "expected an isolated molecule",
        ),
    ],
)
def test_bad_input_gets_a_clear_message(change, error, named):
    options = {"structure": WATER, "atoms": ATOMS, "difference": nothing, "spacing": 1.0}
    with pytest.raises(error, match=named):
        all_electron_grid(**{**options, "box": BOX, **change})
