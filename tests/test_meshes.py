"""The library of meshes: files, script and table agree; loading says what is wrong."""

import importlib.util
import sys
from pathlib import Path

import meshio
import numpy as np
import pytest

from fedens.errors import SpaceError
from fedens.fem.mesh import library_meshes, load_mesh
from fedens.units import BOHR_IN_ANGSTROM

FOLDER = Path(__file__).parents[1] / "meshes"


def _script():
    spec = importlib.util.spec_from_file_location("make_meshes", FOLDER / "make_meshes.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


script = _script()


def test_library_holds_what_the_script_makes():
    assert set(library_meshes()) == set(script.LIBRARY)
    assert all(path.stat().st_size < 1_000_000 for path in library_meshes().values())


@pytest.mark.parametrize("name", script.LIBRARY)
def test_script_makes_the_same_mesh_again(name):
    made, stored = script.LIBRARY[name][0](), load_mesh(name)
    np.testing.assert_allclose(stored.points, made.points, atol=1e-9)
    np.testing.assert_array_equal(stored.cells[0].data, made.cells[0].data)


def test_table_is_what_the_files_give():
    assert script.table() in (FOLDER / "README.md").read_text()


@pytest.mark.parametrize("name", script.LIBRARY)
def test_known_integrals(name):
    """At the highest degree; the sphere's flat faces cut off a part of the Gaussian."""
    _, function, exact, _ = script.LIBRARY[name]
    tolerance = 5e-5 if name == "sphere" else 1e-6
    value = script.integrate(script.skfem_mesh(name), function, max(script.DEGREES))
    assert value == pytest.approx(exact, rel=tolerance)


@pytest.mark.parametrize("name", script.LIBRARY)
def test_vtk_sees_positive_cells(name):
    pyvista = pytest.importorskip("pyvista")
    volumes = pyvista.read(library_meshes()[name]).compute_cell_sizes()["Volume"]
    assert volumes.min() > 0
    expected = {
        "crystal_box": script.CRYSTAL_LENGTH**3,
        "cluster_box": np.prod(np.ptp(load_mesh("cluster_box").points, axis=0)),
        "sphere": 4 / 3 * np.pi * script.SPHERE_RADIUS**3,
        "water": np.prod(np.ptp(script.WATER, axis=0) + 2 * script.WATER_MARGIN),
    }[name]
    tolerance = 0.01 if name == "sphere" else 1e-6
    assert volumes.sum() / BOHR_IN_ANGSTROM**3 == pytest.approx(expected, rel=tolerance)


def test_water_is_finest_at_the_nuclei():
    mesh = script.skfem_mesh("water")
    centres = mesh.p[:, mesh.t].mean(axis=1).T
    distance = np.linalg.norm(centres[:, None] - script.WATER, axis=-1).min(axis=1)
    near, far = distance < 0.3, distance > 5
    sizes = np.cbrt(np.abs(np.linalg.det(np.diff(mesh.p[:, mesh.t], axis=1).transpose(2, 1, 0))))
    assert sizes[near].max() < 0.2 * sizes[far].min()


def test_any_file_meshio_reads_in_either_unit(tmp_path):
    points = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    path = tmp_path / "one.msh"
    meshio.write(path, meshio.Mesh(points, [("tetra", [[0, 1, 2, 3]])]), file_format="gmsh")
    np.testing.assert_allclose(load_mesh(path, "bohr").points, points)
    np.testing.assert_allclose(load_mesh(path).points, points / BOHR_IN_ANGSTROM)


def test_bad_input_gets_a_clear_message(tmp_path):
    with pytest.raises(SpaceError, match=r"no mesh 'waterr'.*cluster_box, crystal_box, sphere"):
        load_mesh("waterr")
    with pytest.raises(SpaceError, match="unit is 'nm'; expected one of angstrom, bohr"):
        load_mesh("water", "nm")
    broken = tmp_path / "broken.vtu"
    broken.write_bytes(library_meshes()["water"].read_bytes()[:5000])
    with pytest.raises(SpaceError, match="cannot be read as a mesh"):
        load_mesh(broken)
    strange = tmp_path / "notes.txt"
    strange.write_text("not a mesh")
    with pytest.raises(SpaceError, match="cannot be read as a mesh"):
        load_mesh(strange)
    flat = tmp_path / "flat.vtu"
    meshio.write(flat, meshio.Mesh(np.eye(3), [("triangle", [[0, 1, 2]])]))
    with pytest.raises(SpaceError, match="holds triangle; expected tetrahedra or hexahedra"):
        load_mesh(flat)
