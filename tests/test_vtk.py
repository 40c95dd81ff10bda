"""VTU, VTP and PVD files, read back with VTK (through pyvista)."""

import numpy as np
import pytest
import systems
import torch
from ase.data import covalent_radii

from fedens.energy.kohn_sham import KohnSham
from fedens.errors import OutputError, SpaceError
from fedens.fem.mesh import grid_values, hexahedral_mesh, node_coordinates
from fedens.fem.tensor import TensorSpace
from fedens.output.vtk import write_atoms, write_pvd, write_vtu
from fedens.reference.kohn_sham.solver import solve_kohn_sham
from fedens.structure import Structure
from fedens.units import BOHR_IN_ANGSTROM, HARTREE_PER_BOHR3_IN_EV_PER_ANGSTROM3

pyvista = pytest.importorskip("pyvista")

LENGTH = 15.3
DENSITY = "density [electron/angstrom^3]"


@pytest.fixture(scope="module")
def crystal():
    """32 displaced fcc sites in the default space."""
    base = np.array([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])
    corners = np.array(list(np.ndindex(2, 2, 2)))
    positions = (corners[:, None] + base).reshape(-1, 3) * LENGTH / 2
    positions += np.random.default_rng(0).normal(0, 0.2, positions.shape)
    return Structure(["Al"] * 32, positions, cell=[LENGTH] * 3, pbc=True)


@pytest.fixture(scope="module")
def space(crystal):
    return TensorSpace.for_structure(crystal, spacing=0.425, order=6)


def gaussians(space, structure, electrons=3.0, width=1.4):
    """Sum of normalised Gaussians at the atoms, periodic images included, (n_points,)."""
    shifts = range(-2, 3) if space.is_periodic else [0]
    total = torch.zeros(space.n_points, dtype=torch.float64)
    for centre in structure.positions:
        factors = []
        for axis, c in zip(space.axes, centre, strict=True):
            offsets = [axis.points - c - s * axis.length for s in shifts]
            factors.append(sum(torch.exp(-(d**2) / (2 * width**2)) for d in offsets))
        x, y, z = factors
        total += (x[:, None, None] * y[:, None] * z).reshape(-1)
    return electrons * total / (2 * np.pi * width**2) ** 1.5


def integral(path, name=DENSITY):
    """Integral of a field over the file's mesh, as VTK computes it."""
    return float(pyvista.read(path).integrate_data()[name][0])


def test_integral_of_the_file_is_the_electron_number(crystal, space, tmp_path):
    density = gaussians(space, crystal)
    assert float(space.integrate(density)) == pytest.approx(96, abs=1e-3)
    files = write_vtu(tmp_path / "crystal.vtu", space, {"density": density}, crystal)
    assert [file.name for file in files] == ["crystal.vtu", "crystal_atoms.vtp"]
    assert integral(files[0]) == pytest.approx(96, rel=1e-3)
    # a mesh with one linear cell per element is too coarse: the number above is not given away
    coarse = write_vtu(tmp_path / "c.vtu", space, {"density": density**3}, subdivisions=1)
    fine = write_vtu(tmp_path / "f.vtu", space, {"density": density**3})
    exact = float(space.integrate(density**3))
    assert abs(integral(coarse[0]) / exact - 1) > 10 * abs(integral(fine[0]) / exact - 1)


def test_isolated_graded_space(tmp_path):
    structure = Structure(["Al", "Al"], [[0, 0, 0], [0.3, 0.1, 5.1]])
    space = TensorSpace.for_structure(structure, spacing=0.6)
    density = gaussians(space, structure)
    files = write_vtu(tmp_path / "dimer.vtu", space, {"density": density}, structure)
    assert integral(files[0]) == pytest.approx(6, rel=1e-3)
    mesh = pyvista.read(files[0])
    assert mesh[DENSITY].min() >= 0
    assert mesh.volume == pytest.approx(space.volume * BOHR_IN_ANGSTROM**3, rel=1e-5)
    expected = structure.positions * BOHR_IN_ANGSTROM
    np.testing.assert_allclose(pyvista.read(files[1]).points, expected, atol=1e-6)


def test_the_mesh_says_what_it_is(space, tmp_path):
    fields = {"kinetic_error": torch.ones(space.n_points), "potential": np.zeros(space.n_points)}
    write_vtu(tmp_path / "a.vtu", space, fields, subdivisions=2, units={"potential": "hartree"})
    mesh = pyvista.read(tmp_path / "a.vtu")
    assert mesh.n_cells == (6 * 2) ** 3
    assert mesh.n_points == (6 * 2 + 1) ** 3
    assert set(mesh.celltypes) == {pyvista.CellType.HEXAHEDRON}
    assert mesh.compute_cell_sizes()["Volume"].min() > 0
    assert mesh.field_data["subdivisions"][0] == 2
    assert mesh.field_data["element_order"][0] == 6
    assert mesh.bounds[1] == pytest.approx(LENGTH * BOHR_IN_ANGSTROM)
    assert set(mesh.point_data) == {"kinetic_error [eV/angstrom^3]", "potential [eV]"}
    expected = HARTREE_PER_BOHR3_IN_EV_PER_ANGSTROM3
    np.testing.assert_allclose(mesh["kinetic_error [eV/angstrom^3]"], expected, rtol=1e-6)


def test_linear_field_is_exact_at_the_nodes_and_the_walls():
    space = TensorSpace(edges=[[0, 1, 3], [-1, 2, 2.5], [0, 1.5, 4]], order=2, periodic=False)
    x, y, z = space.points.T
    coordinates = node_coordinates(space, 3)
    values = grid_values(space, 1 + 2 * x - 3 * y + 0.5 * z, coordinates).ravel()
    expected = 1 + hexahedral_mesh(coordinates)[0] @ [2, -3, 0.5]
    np.testing.assert_allclose(values, expected, atol=1e-12)


def test_trigonometric_field_at_the_nodes(space):
    wave = 2 * np.pi / LENGTH
    field = torch.sin(wave * space.points[:, 0]) * torch.cos(wave * space.points[:, 2])
    coordinates = node_coordinates(space, space.order)
    nodes = hexahedral_mesh(coordinates)[0]
    expected = np.sin(wave * nodes[:, 0]) * np.cos(wave * nodes[:, 2])
    found = grid_values(space, field, coordinates).ravel()
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_density_of_a_root_in_the_space_is_exact_everywhere(space, generator):
    """u^2 at any point, where u is a polynomial of the space that has no sign changes."""
    root = torch.zeros(space.n_coefficients, dtype=torch.float64)
    root[0] = 10.0
    root += 0.01 * torch.rand(len(root), generator=generator) / (1 + space.laplacian_eigenvalues)
    assert (space.evaluate(root).abs() > 0.01).all()
    x = torch.linspace(-3.0, 20.0, 7, dtype=torch.float64)
    expected = space.interpolate_at(root, torch.cartesian_prod(x, x, x)).reshape(7, 7, 7) ** 2
    got = grid_values(space, space.evaluate(root) ** 2, [x, x, x], root=True)
    np.testing.assert_allclose(got, expected, rtol=1e-10)


def test_positive_field_stays_positive_and_close(space):
    """A square with zeros: no negative values beside them, and no kink from a square root."""
    wave = 2 * np.pi / LENGTH
    coordinates = node_coordinates(space, space.order)

    def field(x, y, z):
        return (1 + np.sin(4 * wave * x) * np.cos(wave * y)) ** 2 * (1 + np.cos(wave * z)) ** 2

    got = grid_values(space, field(*space.points.numpy().T), coordinates).ravel()
    assert got.min() == 0
    expected = field(*hexahedral_mesh(coordinates)[0].T)
    np.testing.assert_allclose(got, expected, atol=0.03 * got.max())


def test_atoms_with_forces(crystal, tmp_path):
    moved = crystal.replace(positions=crystal.positions + np.array([LENGTH, 0, -2 * LENGTH]))
    write_atoms(
        tmp_path / "a.vtp",
        moved,
        {"forces": moved.positions, "charge": np.ones(32)},
        units={"charge": "elementary charge"},
    )
    atoms = pyvista.read(tmp_path / "a.vtp")
    assert list(atoms["symbol"]) == ["Al"] * 32
    assert list(atoms["atomic_number"]) == [13] * 32
    np.testing.assert_allclose(atoms["covalent_radius [angstrom]"], covalent_radii[13])
    assert atoms.field_data["angstrom_per_bohr"] == pytest.approx(BOHR_IN_ANGSTROM)
    expected = moved.positions * HARTREE_PER_BOHR3_IN_EV_PER_ANGSTROM3 * BOHR_IN_ANGSTROM**2
    np.testing.assert_allclose(atoms["forces [eV/angstrom]"], expected, rtol=1e-12)
    edge = LENGTH * BOHR_IN_ANGSTROM
    assert (atoms.points >= 0).all()
    assert (atoms.points <= edge).all()
    shift = (atoms.points - crystal.positions * BOHR_IN_ANGSTROM) / edge
    np.testing.assert_allclose(shift, np.round(shift), atol=1e-6)


def test_atoms_lie_in_a_box_that_does_not_start_at_the_origin(tmp_path):
    structure = Structure(["Al"], [[3.5, 0.5, 0.5]], cell=[4.0] * 3, pbc=True)
    edges = np.linspace(-1.0, 3.0, 4)
    space = TensorSpace(edges=[edges] * 3, order=2, periodic=True)
    fields = {"density": np.ones(space.n_points)}
    _, atoms = write_vtu(tmp_path / "a.vtu", space, fields, structure)
    expected = np.array([[-0.5, 0.5, 0.5]]) * BOHR_IN_ANGSTROM
    np.testing.assert_allclose(pyvista.read(atoms).points, expected, atol=1e-6)


def test_pvd_is_a_series_of_fields_and_atoms(crystal, space, tmp_path):
    density = gaussians(space, crystal)
    entries = []
    for i in range(2):
        path = tmp_path / "fields" / f"{i}.vtu"
        files = write_vtu(path, space, {"density": (i + 1) * density}, crystal, subdivisions=2)
        entries.append((i, files))
    reader = pyvista.PVDReader(write_pvd(tmp_path / "series.pvd", entries))
    assert reader.time_values == [0.0, 1.0]
    first = [(d.path, d.part) for d in reader.datasets[:2]]
    assert first == [("fields/0.vtu", 0), ("fields/0_atoms.vtp", 1)]
    reader.set_active_time_value(1.0)
    grid, atoms = reader.read()
    assert grid.integrate_data()[DENSITY][0] == pytest.approx(2 * 96, rel=1e-3)
    assert atoms.n_points == 32


def test_same_input_gives_the_same_bytes(crystal, space, tmp_path):
    density = gaussians(space, crystal)
    a, b = (write_vtu(tmp_path / f"{n}.vtu", space, {"density": density}, crystal) for n in "ab")
    assert [x.read_bytes() for x in a] == [x.read_bytes() for x in b]


@pytest.mark.parametrize("keep", [False, True])
def test_folder_that_cannot_be_written(space, tmp_path, monkeypatch, keep):
    """A file stands where a folder is needed; a disk is full: an error and no half file."""
    (tmp_path / "file").write_text("")
    fields = {"density": np.ones(space.n_points)}
    with pytest.raises(OutputError, match=r"file.*cannot be written"):
        write_vtu(tmp_path / "file" / "a.vtu", space, fields)
    folder = tmp_path / "full"
    folder.mkdir()
    if keep:
        (folder / "a.vtu").write_text("before")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fedens.files.os.replace", full)
    with pytest.raises(OutputError, match="No space left"):
        write_vtu(folder / "a.vtu", space, fields)
    assert [path.read_text() for path in folder.iterdir()] == ["before"] * keep


def test_bad_input_gets_a_clear_message(crystal, space, tmp_path):
    good = {"density": np.ones(space.n_points)}
    with pytest.raises(OutputError, match=r"must end in \.vtu"):
        write_vtu(tmp_path / "a.vtk", space, good)
    with pytest.raises(OutputError, match=r"'foo' has unit None.*pass units"):
        write_vtu(tmp_path / "a.vtu", space, {"foo": good["density"]})
    with pytest.raises(SpaceError, match=r"expected \(74088,\)"):
        write_vtu(tmp_path / "a.vtu", space, {"density": np.ones(5)})
    with pytest.raises(SpaceError, match="subdivisions is 0"):
        write_vtu(tmp_path / "a.vtu", space, good, subdivisions=0)
    with pytest.raises(SpaceError, match="must be the same"):
        write_vtu(tmp_path / "a.vtu", space, good, crystal.replace(cell=[16.0] * 3))
    with pytest.raises(OutputError, match=r"expected \(32,\) or \(32, 3\)"):
        write_atoms(tmp_path / "a.vtp", crystal, {"forces": np.ones((3, 32))})
    with pytest.raises(OutputError, match="does not exist"):
        write_pvd(tmp_path / "a.pvd", [(0, tmp_path / "missing.vtu")])
    with pytest.raises(OutputError, match="at least one file"):
        write_pvd(tmp_path / "a.pvd", [])
    assert list(tmp_path.iterdir()) == []
    small = TensorSpace((4.0,) * 3, 1, 2, periodic=False)
    with pytest.raises(SpaceError, match="outside the box"):
        grid_values(small, np.ones(27), [[4.1], [1.0], [1.0]])


def test_fields_of_a_kohn_sham_calculation_and_the_density_of_one_band(tmp_path):
    structure = systems.fcc()
    functional = KohnSham("lda_pz", systems.GTHFIT)
    space = TensorSpace.for_structure(structure, 0.5, 5)
    state = solve_kohn_sham(structure, space, functional, None, 0.05, 4.0, residual_tolerance=1e-4)
    fields = state.fields(orbitals=[(0, 0), (0, 5)])
    path = write_vtu(tmp_path / "state.vtu", space, fields, structure)[0]
    mesh = pyvista.read(path)
    assert "kinetic [eV/angstrom^3]" in mesh.array_names
    assert "effective_potential [eV]" in mesh.array_names
    name = "orbital_density_k0_band{} [electron/angstrom^3]"
    for band in (0, 5):
        assert integral(path, name.format(band)) == pytest.approx(1, rel=5e-3)
    assert not np.allclose(mesh[name.format(0)], mesh[name.format(5)], rtol=0.1)
    assert integral(path) == pytest.approx(12, rel=5e-3)
