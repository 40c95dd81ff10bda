"""Densities of other codes: what ASE writes is read, what we write ASE reads, the rest refused."""

import re

import numpy as np
import pytest
import torch
from ase.calculators.vasp import VaspChargeDensity
from ase.io import write
from ase.io.cube import read_cube
from ase.io.cube import write_cube as ase_write_cube
from systems import GTHFIT, fcc
from typer.testing import CliRunner

from fedens import (
    GMP,
    EnergyFunctional,
    GTHLocal,
    Predictor,
    TensorSpace,
    TrainingSettings,
    solve_ground_state,
    train,
)
from fedens.atoms.baseline import SuperposedAtoms
from fedens.commands.cli import app
from fedens.commands.export import export
from fedens.commands.import_densities import import_files
from fedens.commands.info import describe_path
from fedens.data.dataset import Dataset
from fedens.data.sample import Sample
from fedens.errors import DatasetError, FedensError, ModelError, OutputError, StructureError
from fedens.output.chgcar import write_chgcar
from fedens.output.cube import write_cube
from fedens.progress import Progress
from fedens.reference.volumetric import GridDensity, read_density
from fedens.structure import Structure
from fedens.units import BOHR_IN_ANGSTROM, HARTREE_IN_EV

QUIET = Progress(quiet=True)
LENGTHS = np.array([8.0, 7.5, 8.5])
STRUCTURE = Structure(["Al", "O"], [[0.5, 1.0, 1.2], [4.0, 4.5, 5.0]], cell=LENGTHS, pbc=True)
#: Gaussians on the two atoms whose sum is the root of the density: heights, exponents in bohr^-2.
HEIGHTS, EXPONENTS = (0.5, 0.8), (0.3, 0.4)
ELECTRONS = 9
SPACING = 0.25  # of the mesh, bohr


def squared_gaussians(x, y, z, lengths=LENGTHS):
    """Density of 9 electrons on the grid of three coordinate lists, electron/bohr^3."""
    return (
        ELECTRONS
        * _root(x, y, z, lengths) ** 2
        / (_root(*(np.arange(40) / 40 * e for e in lengths), lengths) ** 2).mean()
        / np.prod(lengths)
    )


def _root(x, y, z, lengths):
    total = 0.0
    images = np.arange(-2, 3)
    for height, b, position in zip(HEIGHTS, EXPONENTS, STRUCTURE.positions, strict=True):
        factors = [
            np.exp(-b * (c[:, None] - p - images * length) ** 2).sum(axis=1)
            for c, p, length in zip((x, y, z), position, lengths, strict=True)
        ]
        total = total + height * np.einsum("i,j,k->ijk", *factors)
    return total


def on_grid(shape, origin=(0, 0, 0), lengths=LENGTHS):
    planes = [o + np.arange(n) / n * e for o, n, e in zip(origin, shape, lengths, strict=True)]
    return squared_gaussians(*planes, lengths)


def at_points(space):
    return squared_gaussians(*(axis.points.numpy() for axis in space.axes)).ravel()


@pytest.fixture(scope="module")
def space():
    return TensorSpace.for_structure(STRUCTURE, SPACING)


@pytest.fixture(scope="module")
def sample(space):
    return Sample(
        structure=STRUCTURE,
        points=space.points.numpy(),
        weights=space.weights.numpy(),
        fields={"density": at_points(space)},
        energy=None,
        provenance={"space": space.describe()},
    )


def ase_cube(path, values, structure=STRUCTURE, origin=(0, 0, 0)):
    """A cube file by ASE; seven digits."""
    with path.open("w") as file:
        ase_write_cube(file, structure.to_ase(), values, np.array(origin) * BOHR_IN_ANGSTROM)
    return path


def xsf(path, values, structure=STRUCTURE, begin="BEGIN_DATAGRID_3D_density", repeat=True):
    """A file as Quantum ESPRESSO's PP/src/xsf.f90 writes it, for a crystal or a molecule."""
    atoms = structure.to_ase()
    counts = np.array(values.shape)
    if repeat:
        values = np.pad(values, [(0, 1)] * 3, mode="wrap")
    cell = atoms.cell.array * ((np.array(values.shape) - 1) / counts)[:, None]
    rows = [" ".join(f"{x:.9f}" for x in row) for row in cell]
    sites = [
        f"{s} " + " ".join(f"{x:.9f}" for x in r)
        for s, r in zip(atoms.symbols, atoms.positions, strict=True)
    ]
    if repeat:
        lines = [" CRYSTAL", " PRIMVEC", *rows, " PRIMCOORD", f" {len(atoms)} 1", *sites]
    else:
        lines = ["ATOMS", *sites]
    lines += ["BEGIN_BLOCK_DATAGRID_3D", "3D_PWSCF", begin]
    lines += [" ".join(map(str, values.shape)), "0.0 0.0 0.0", *rows]
    lines += [f"{v:.9e}" for v in values.ravel(order="F")]
    lines += ["END_DATAGRID_3D", "END_BLOCK_DATAGRID_3D"]
    path.write_text("\n".join(lines) + "\n")
    return path


# ------------------------------------------------------------------- interpolation


@pytest.mark.parametrize("shape", [(9, 9, 9), (8, 10, 9)])
def test_waves_that_the_grid_knows_are_exact_between_its_points(space, shape):
    def wave(x, y, z):
        a, b, c = (2 * np.pi * v / e for v, e in zip((x, y, z), LENGTHS, strict=True))
        return 2 + np.sin(3 * a + 1) * np.cos(2 * b) + np.sin(c) * np.cos(3 * c + b)

    origin = np.array([-1.0, 0.3, 2.0])
    planes = [o + np.arange(n) / n * e for o, n, e in zip(origin, shape, LENGTHS, strict=True)]
    density = GridDensity("x", STRUCTURE, wave(*np.meshgrid(*planes, indexing="ij")), origin)
    expected = wave(*space.points.numpy().T)
    np.testing.assert_allclose(density.at(space).numpy(), expected, atol=1e-11)
    assert float(space.integrate(density.at(space))) == pytest.approx(2 * space.volume, rel=1e-12)


def test_error_falls_like_the_highest_wave_of_the_grid(space):
    """As exp(-k^2 / 4b) with k = pi n / L, for the sharper Gaussian along the longest axis."""
    expected, errors = at_points(space), []
    for n in (16, 24):
        density = GridDensity("x", STRUCTURE, on_grid((n, n, n)), np.zeros(3))
        errors.append(float(np.abs(density.at(space).numpy() - expected).max()))
    exponent = np.pi**2 * (24**2 - 16**2) / (4 * 2 * EXPONENTS[1] * LENGTHS[2] ** 2)
    assert np.log(errors[0] / errors[1]) == pytest.approx(exponent, rel=0.1)
    assert errors[1] < 1e-11


def test_error_is_estimated(space):
    for n in (12, 16, 20):
        density = GridDensity("x", STRUCTURE, on_grid((n, n, n)), np.zeros(3))
        error = np.abs(density.at(space).numpy() - at_points(space)) @ space.weights.numpy() / 9
        assert error / 3 < density.interpolation_error < 10 * error


def test_integral_is_kept_where_the_polynomial_swings_below_zero(space):
    grid = GridDensity("x", STRUCTURE, on_grid((9, 9, 9)), np.zeros(3))
    density = grid.at(space)
    assert float(density.min()) == 0
    assert float(space.integrate(density)) == pytest.approx(grid.number_of_electrons, rel=1e-8)


def test_grid_that_is_too_coarse_is_refused(space):
    spikes = np.zeros((10, 10, 10))
    spikes[2, 3, 4] = 1000 * 9 / STRUCTURE.volume
    with pytest.raises(DatasetError, match=r"below zero, which holds -\d.* of 9\.0000 electrons"):
        GridDensity("x.cube", STRUCTURE, spikes, np.zeros(3)).at(space)


def test_mesh_that_is_too_coarse_is_refused():
    coarse = TensorSpace.for_structure(STRUCTURE, spacing=4.0, order=1)
    density = GridDensity("x.cube", STRUCTURE, on_grid((24, 24, 24)), np.zeros(3))
    with pytest.raises(DatasetError, match=r"9\.0000.* electrons on its grid .* too coarse"):
        density.at(coarse)


# ------------------------------------------------------------------- the three formats


def test_cube_by_ase_with_an_origin(tmp_path, space):
    origin = np.array([-1.0, 0.5, 0.25])
    path = ase_cube(tmp_path / "a.cube", on_grid((30, 30, 30), origin), origin=origin)
    density = read_density(path, periodic=True, structure=STRUCTURE)
    assert density.structure.periodic
    assert density.structure.formula == "AlO"
    np.testing.assert_allclose(density.at(space).numpy(), at_points(space), atol=2e-6)
    rough = read_density(path, periodic=True).structure
    np.testing.assert_allclose(rough.positions, STRUCTURE.positions, atol=1e-5)
    np.testing.assert_allclose(rough.cell, STRUCTURE.cell, atol=1e-4)


def test_chgcar_by_ase_with_a_spin_block(tmp_path, space):
    values = on_grid((30, 28, 32)) / BOHR_IN_ANGSTROM**3
    content = VaspChargeDensity(None)
    content.atoms, content.chg, content.chgdiff = [STRUCTURE.to_ase()], [values], [0.3 * values]
    content.aug = "augmentation occupancies   1   2\n  0.1000000E+00  0.2000000E+00\n"
    content.write(str(tmp_path / "CHGCAR"), format="chgcar")
    density = read_density(tmp_path / "CHGCAR")
    assert density.number_of_electrons == pytest.approx(9, abs=1e-8)
    assert "spin" in density.notes[0]
    np.testing.assert_allclose(density.at(space).numpy(), at_points(space), atol=1e-9)


@pytest.mark.parametrize("begin", ["BEGIN_DATAGRID_3D_density", "DATAGRID_3D_UNKNOWN"])
def test_xsf_of_a_crystal_repeats_the_last_planes(tmp_path, space, begin):
    path = xsf(tmp_path / "a.xsf", on_grid((30, 28, 32)), begin=begin)
    density = read_density(path, unit="electron/bohr^3")
    assert density.values.shape == (30, 28, 32)
    np.testing.assert_allclose(density.at(space).numpy(), at_points(space), atol=1e-8)


def test_xsf_unit_must_be_told_and_is_used(tmp_path):
    path = xsf(tmp_path / "a.xsf", on_grid((24, 24, 24)) / BOHR_IN_ANGSTROM**3)
    with pytest.raises(DatasetError, match=r"or 9\.0000 electrons in electron/angstrom\^3"):
        read_density(path)
    density = read_density(path, unit="electron/angstrom^3")
    assert density.number_of_electrons == pytest.approx(9, abs=1e-6)
    with pytest.raises(DatasetError, match="integrates to 60"):
        read_density(path, unit="electron/bohr^3")
    with pytest.raises(DatasetError, match="unit is 'barn'"):
        read_density(path, unit="barn")


def test_molecule_becomes_a_periodic_box_if_its_box_is_large_enough(tmp_path):
    lengths = np.array([18.0, 18.0, 18.0])
    molecule = STRUCTURE.replace(positions=STRUCTURE.positions + 6.5, cell=lengths, pbc=False)
    values = on_grid((40, 40, 40), (-6.5,) * 3, lengths)
    for path in (
        ase_cube(tmp_path / "a.cube", values, molecule),
        xsf(tmp_path / "a.xsf", values, molecule, repeat=False),
    ):
        density = read_density(path, unit="electron/bohr^3")
        np.testing.assert_allclose(density.structure.cell, np.diag(lengths), rtol=1e-5)
        assert density.number_of_electrons == pytest.approx(9, abs=1e-3)
    small = ase_cube(tmp_path / "small.cube", on_grid((24, 24, 24)))
    with pytest.raises(DatasetError, match=r"walls .* reaches .*expected at most 0\.0001"):
        read_density(small)


# ------------------------------------------------------------------- what is refused


def edited(path, pattern, replacement):
    path.write_text(re.sub(pattern, replacement, path.read_text(), count=1))
    return path


@pytest.fixture
def cube(tmp_path):
    return ase_cube(tmp_path / "a.cube", on_grid((16, 16, 16)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: 1.01 * v, r"integrates to 9\.09\d* electrons, the nearest whole number is 9"),
        (lambda v: v - v.mean(), "nearest whole number is 0"),
        (lambda v: np.where(v == v.max(), np.nan, v), r"1 values are not finite, .* point \["),
        (lambda v: v + 0.01 * np.cos(np.arange(16) * np.pi), r"negative values, down to -.* hold"),
    ],
)
def test_values_that_are_no_density(tmp_path, change, message):
    path = ase_cube(tmp_path / "a.cube", change(on_grid((16, 16, 16))))
    with pytest.raises(DatasetError, match=message):
        read_density(path, periodic=True)


def test_tolerance_can_be_raised(tmp_path):
    path = ase_cube(tmp_path / "a.cube", 1.01 * on_grid((16, 16, 16)))
    assert read_density(path, periodic=True, tolerance=0.1).number_of_electrons > 9.08
    with pytest.raises(DatasetError, match=r"tolerance is 0\.5 electrons"):
        read_density(path, tolerance=0.5)


def test_files_that_are_not_whole(tmp_path, cube):
    whole = cube.read_text()
    for text in (whole[: len(whole) // 2], whole[:100], "", whole.replace("e-03", "e-x3")):
        cube.write_text(text)
        with pytest.raises(DatasetError, match=r"a\.cube cannot be read"):
            read_density(cube, periodic=True)
    content = VaspChargeDensity(None)
    content.atoms, content.chg = [STRUCTURE.to_ase()], [on_grid((8, 8, 8))]
    path = tmp_path / "CHGCAR"
    content.write(str(path), format="chgcar")
    whole = path.read_text().splitlines()
    for keep in (-2, 6, 12):
        path.write_text("\n".join(whole[:keep]))
        with pytest.raises(DatasetError, match="CHGCAR cannot be read"):
            read_density(path)
    path = xsf(tmp_path / "a.xsf", on_grid((8, 8, 8)))
    whole = path.read_text()
    path.write_text(whole[: len(whole) // 2])
    with pytest.raises(DatasetError, match=r"a\.xsf cannot be read"):
        read_density(path)
    with pytest.raises(DatasetError, match="there is no file"):
        read_density(tmp_path / "b.cube")
    with pytest.raises(DatasetError, match="expected a name that ends in"):
        read_density(tmp_path / "b.txt")


def test_cubes_of_other_kinds(cube):
    text = cube.read_text()
    edited(cube, r"(?m)^   16", "  -16")
    with pytest.raises(DatasetError, match="lengths in angstrom"):
        read_density(cube)
    cube.write_text(text)
    edited(cube, r"(?m)^    2(.*)$", r"    2\1 2")
    cube.write_text(cube.read_text() + text[-(16**3) * 13 :])
    with pytest.raises(DatasetError, match=r"several fields|cannot be read"):
        read_density(cube)


def test_boxes_that_do_not_fit(tmp_path, cube):
    with pytest.raises(DatasetError, match=r"edges \[8.*they must be the same"):
        read_density(cube, structure=STRUCTURE.replace(cell=LENGTHS * 1.001))
    moved = STRUCTURE.replace(positions=STRUCTURE.positions + np.array([[0, 0, 0], [0, 0.1, 0]]))
    with pytest.raises(DatasetError, match=r"atom 1 is 0\.1000 bohr from its place"):
        read_density(cube, structure=moved)
    with pytest.raises(DatasetError, match="holds AlO, the structure given is OAl"):
        read_density(cube, structure=STRUCTURE.replace(numbers=["O", "Al"]))
    whole_cells = STRUCTURE.replace(positions=STRUCTURE.positions + np.array([LENGTHS, -LENGTHS]))
    assert read_density(cube, structure=whole_cells).structure.positions[0, 0] == 8.5
    sheared = STRUCTURE.to_ase()
    sheared.cell[1, 0] = 0.5
    path = tmp_path / "sheared.cube"
    with path.open("w") as file:
        ase_write_cube(file, sheared, on_grid((16, 16, 16)))
    with pytest.raises(DatasetError, match=r"not orthorhombic .* supercell"):
        read_density(path, periodic=True)


def test_xsf_whose_last_plane_does_not_repeat_or_that_shows_a_part(tmp_path):
    values = on_grid((12, 12, 12))
    path = xsf(tmp_path / "a.xsf", values)
    text = path.read_text()
    grid, numbers = text.split("DATAGRID_3D_density\n")
    first = f"{values[0, 0, 0]:.9e}"
    path.write_text(grid + "DATAGRID_3D_density\n" + numbers.replace(first, "1.0", 1))
    with pytest.raises(DatasetError, match="last plane along axis x differs"):
        read_density(path, unit="electron/bohr^3")
    path.write_text(text.replace("PRIMVEC\n4.2", "PRIMVEC\n5.2"))
    with pytest.raises(DatasetError, match="over part of the cell"):
        read_density(path, unit="electron/bohr^3")


def test_unit_of_a_chgcar_is_fixed(tmp_path, sample, space):
    path = write_chgcar(tmp_path / "CHGCAR", STRUCTURE, space, sample.fields["density"])
    with pytest.raises(DatasetError, match="holds density times volume"):
        read_density(path, unit="electron/bohr^3")


# ------------------------------------------------------------------- round trips


def test_export_and_import_give_the_same_density(tmp_path, sample):
    data = Dataset.open(tmp_path / "data", create=True)
    data.add(sample, "one")
    spacing = 0.2 / BOHR_IN_ANGSTROM
    paths = export(tmp_path / "data", tmp_path / "grids", ["cube", "chgcar"], spacing)
    assert [path.name for path in paths] == ["one.cube", "one.CHGCAR"]
    for path in paths:
        density = read_density(path, periodic=True)
        assert density.spacing <= spacing
        back = density.to_sample(TensorSpace.for_structure(density.structure, SPACING))
        error = np.abs(back.fields["density"] - sample.fields["density"]).max()
        assert error < 1e-6, path
        assert back.number_of_electrons == pytest.approx(9, abs=1e-5)
        np.testing.assert_allclose(back.structure.positions, STRUCTURE.positions, atol=1e-6)
    np.testing.assert_allclose(back.number_of_electrons, 9, atol=1e-8)  # CHGCAR, 11 digits


def test_ase_reads_what_is_written(tmp_path, sample, space):
    spacing = 0.2 / BOHR_IN_ANGSTROM
    density = sample.fields["density"]
    with write_cube(tmp_path / "a.cube", STRUCTURE, space, density, spacing=spacing).open() as file:
        cube = read_cube(file)
    voxel = abs(np.linalg.det(cube["spacing"])) / BOHR_IN_ANGSTROM**3
    assert cube["data"].sum() * voxel == pytest.approx(9, rel=1e-3)
    chgcar = write_chgcar(tmp_path / "CHGCAR", STRUCTURE, space, density, spacing=spacing)
    content = VaspChargeDensity(str(chgcar))
    (atoms,), (values,) = content.atoms, content.chg
    assert values.mean() * atoms.get_volume() == pytest.approx(9, rel=1e-6)
    np.testing.assert_allclose(values * BOHR_IN_ANGSTROM**3, cube["data"], atol=1e-6)
    np.testing.assert_allclose(atoms.positions, STRUCTURE.positions * BOHR_IN_ANGSTROM)


def test_isolated_boxes_move_to_the_origin_of_a_chgcar(tmp_path):
    helium = Structure(["He"], [[1.0, 2.0, 3.0]])
    space = TensorSpace.for_structure(helium, spacing=0.7, margin=9.0)
    r2 = ((space.points - torch.tensor(helium.positions)) ** 2).sum(dim=1)
    density = 2 * torch.exp(-r2 / 2) / (2 * np.pi) ** 1.5
    path = write_chgcar(tmp_path / "CHGCAR", helium, space, density, spacing=0.5)
    back = read_density(path)
    np.testing.assert_allclose(back.structure.positions, [[9.0, 9.0, 9.0]], atol=1e-9)
    assert back.number_of_electrons == pytest.approx(2, rel=1e-3)
    peak = np.unravel_index(back.values.argmax(), back.values.shape)
    np.testing.assert_allclose(np.array(peak) * back.spacing, 9.0, atol=0.3)
    half = helium.replace(occupancies=[0.5])
    with pytest.raises(StructureError, match="partial occupancies"):
        write_chgcar(path, half, space, density)
    with pytest.raises(OutputError, match="spacing is -1"):
        write_chgcar(path, helium, space, density, spacing=-1)


def test_export_says_when_the_grid_is_too_coarse(tmp_path, sample):
    data = Dataset.open(tmp_path / "data", create=True)
    data.add(sample, "one")
    lines = []
    source, target = tmp_path / "data" / "one.h5", tmp_path / "one.CHGCAR"
    assert export(source, target, spacing=0.4, say=lines.append) == [target]
    assert re.fullmatch(
        r"wrote .*: 9\.0000.. electrons on the grid, 9\.000000 in the sample", lines[0]
    )
    export(source, target, spacing=2.0, say=lines.append)
    assert "choose a smaller spacing" in lines[1]
    with pytest.raises(OutputError, match="holds CHGCAR"):
        export(source, tmp_path / "a.png")
    assert describe_path(source)["energy"] == "not known"


# ------------------------------------------------------------------- the command


def test_import_of_several_files(tmp_path, sample, space):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_chgcar(tmp_path / name / "CHGCAR", STRUCTURE, space, sample.fields["density"])
    ase_cube(tmp_path / "c.1.cube", on_grid((16, 16, 16)))
    files = [tmp_path / "a" / "CHGCAR", tmp_path / "b" / "CHGCAR", tmp_path / "c.1.cube"]
    write(tmp_path / "all.extxyz", [STRUCTURE.to_ase()] * 3)
    (tmp_path / "e.txt").write_text("a -27.2\n\nb -1.0\nc.1 0.5\n")
    out = tmp_path / "data"
    arguments = ["import", *map(str, files), "--out", str(out), "--spacing", "0.3", "--order", "6"]
    arguments += ["--structures", str(tmp_path / "all.extxyz"), "--energies", f"{tmp_path}/e.txt"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    data = Dataset.open(out)
    assert data.names == ["a", "b", "c.1"]
    assert data["a"].total_energy == pytest.approx(-27.2 / HARTREE_IN_EV)
    assert data["a"].space().order == 6
    assert data.functional is None
    assert data["b"].number_of_electrons == pytest.approx(9, abs=1e-6)
    again = CliRunner().invoke(app, arguments)
    assert "a is already there" in again.output
    assert "3 samples" in again.output


def test_import_without_energies(tmp_path, cube):
    data = import_files([cube], tmp_path / "data", QUIET, periodic=True)
    sample = data["a"]
    assert sample.energy is None
    assert data.index["a"]["energy_hartree"] is None
    with pytest.raises(DatasetError, match="has no total energy"):
        _ = sample.total_energy


def test_import_names_what_does_not_fit(tmp_path, cube):
    def refused(message, files=(cube,), **options):
        with pytest.raises(FedensError, match=message):
            import_files(files, tmp_path / "data", QUIET, periodic=True, **options)

    other = tmp_path / "folder" / "a.cube"
    other.parent.mkdir()
    other.write_bytes(cube.read_bytes())
    refused("several files would be called a ", files=[cube, other])
    energies = tmp_path / "e.txt"
    refused(r"e\.txt cannot be read", energies=energies)
    energies.write_text("a minus-one\n")
    refused(r"expected lines of a sample's name", energies=energies)
    energies.write_text("b -1\n")
    refused("no finite energy for a; it has b", energies=energies)
    write(tmp_path / "two.xyz", [STRUCTURE.to_ase()] * 2)
    refused("2 structures for 1 files", structures=tmp_path / "two.xyz")
    refused("on the mesh, whose spacing .* too coarse", spacing=5.0, order=1)
    refused("spacing is -1", spacing=-1.0)
    assert not list((tmp_path / "data").glob("*.h5"))


# ------------------------------------------------------------------- learning from it

FUNCTIONAL = EnergyFunctional.orbital_free("tfvw", pseudopotential=GTHFIT)


def nmape(density, sample):
    error = np.abs(density.values.numpy() - sample.fields["density"])
    return 100 * float(sample.weights @ error) / sample.number_of_electrons


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::fedens.errors.ExtrapolationWarning")
def test_densities_alone_can_be_learned(tmp_path):
    """As if another code had solved these cells: their files hold no functional, no energies."""
    files = []
    for seed in range(4):
        shifts = np.random.default_rng(seed).normal(0, 0.12, (4, 3))
        structure = fcc().replace(positions=fcc().positions + shifts)
        solution = TensorSpace.for_structure(structure, spacing=0.55, order=5)
        density = solve_ground_state(structure, solution, FUNCTIONAL).density
        files.append(tmp_path / f"{seed}.CHGCAR")
        write_chgcar(files[-1], structure, solution, density.values)
    data = import_files(files, tmp_path / "data", QUIET, spacing=0.55, order=5)
    *seen, held_out = data
    descriptor = GMP([0.7, 1.0, 1.4, 2.0, 2.8], 3, form="smooth")
    settings = TrainingSettings(hidden=(16,), committee=1, steps=200, batch_points=2000)
    options = {"settings": settings, "baseline": "superposed_atoms", "device": "cpu"}
    model = train(seen, descriptor, functional=FUNCTIONAL, **options)
    model.save(tmp_path / "model")
    model = Predictor.load(tmp_path / "model")
    space = held_out.space()
    atoms = SuperposedAtoms(FUNCTIONAL).density(held_out.structure, space)
    learned = model.density(held_out.structure, space)
    assert nmape(learned, held_out) < nmape(atoms, held_out) / 2
    assert np.isfinite(model.energy(held_out.structure))
    with pytest.raises(ModelError, match="has learned densities alone"):
        model.energy(held_out.structure, "energy_density")
    with pytest.raises(ModelError, match="do not name theirs"):
        train(seen, descriptor, **options)
    one = EnergyFunctional.orbital_free("tfvw", pseudopotential=GTHLocal(1, 0.7))
    with pytest.raises(ModelError, match=r"holds 12\.0\d* electrons, .* make it 4"):
        train(seen, descriptor, functional=one, **options)
    paths = export(tmp_path / "data" / "3.h5", tmp_path / "out", ["cube"], predictor=model)
    assert [path.name for path in paths] == ["3.cube", "3_predicted.cube"]
    predicted = read_density(paths[1], periodic=True).at(space)
    np.testing.assert_allclose(predicted.numpy(), learned.values.numpy(), atol=1e-3)
