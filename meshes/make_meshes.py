"""Makes the meshes of the library and the table in README.md.

    python meshes/make_meshes.py

Each function returns points in bohr; files are in angstrom, as all files of fedens. The table's
numbers are measured on the files as :func:`fedens.fem.mesh.load_mesh` reads them.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path

import meshio
import numpy as np
from skfem import Basis, ElementHex1, ElementTetP1, Functional, Mesh, MeshTet
from skfem.io.meshio import from_meshio

from fedens.fem.mesh import hexahedral_mesh, load_mesh, node_coordinates
from fedens.fem.tensor import TensorSpace
from fedens.structure import Structure
from fedens.units import BOHR_IN_ANGSTROM

logging.getLogger("skfem").setLevel(logging.ERROR)  # it reports on memory layout

FOLDER = Path(__file__).parent
DEGREES = (2, 5, 9)
START, END = "<!-- table: written by make_meshes.py -->", "<!-- end of table -->"

CRYSTAL_LENGTH = 2 * 4.05 / BOHR_IN_ANGSTROM
SPHERE_RADIUS = 6.0
#: O, H, H; bond 0.9572 angstrom, angle 104.52 degrees; bohr.
WATER = np.array([[0, 0, 0], [0, 0.75695, 0.58588], [0, -0.75695, 0.58588]]) / BOHR_IN_ANGSTROM
WATER_MARGIN, FINEST, GROWTH = 10.0, 0.2, 0.5


def icosahedron(bond: float = 5.3) -> np.ndarray:
    """13 sites: a centre and its 12 neighbours at ``bond`` bohr, (13, 3)."""
    golden = (1 + math.sqrt(5)) / 2
    corners = [(0.0, a, b * golden) for a in (-1, 1) for b in (-1, 1)]
    corners = [np.roll(corner, k) for k in range(3) for corner in corners]
    return np.vstack([np.zeros(3), np.array(corners) * bond / math.hypot(1, golden)])


def crystal_box() -> meshio.Mesh:
    """The default elements of a 32-site aluminium cell, each cut in two along each axis."""
    return _hexahedra(TensorSpace((CRYSTAL_LENGTH,) * 3), 2)


def cluster_box() -> meshio.Mesh:
    """Elements of order 6 around a 13-atom aluminium cluster, growing towards vacuum."""
    space = TensorSpace.for_structure(
        Structure(["Al"] * 13, icosahedron()), spacing=0.425, order=6, growth=1.6
    )
    return _hexahedra(space, 1)


def _hexahedra(space: TensorSpace, subdivisions: int) -> meshio.Mesh:
    points, cells = hexahedral_mesh(node_coordinates(space, subdivisions))
    return meshio.Mesh(points, [("hexahedron", cells)])


def sphere() -> meshio.Mesh:
    """A ball of tetrahedra about the origin, corners of its surface on the sphere."""
    return _tetrahedra(MeshTet.init_ball(4).scaled(SPHERE_RADIUS))


def water() -> meshio.Mesh:
    """A box around a water molecule, bisected until no edge exceeds FINEST + GROWTH * distance.

    The distance is that of the tetrahedron's nearest corner to the nearest nucleus; the size
    of a tetrahedron is the edge of a regular one of the same volume.
    """
    low, high = WATER.min(axis=0) - WATER_MARGIN, WATER.max(axis=0) + WATER_MARGIN
    mesh = MeshTet.init_tensor(*np.linspace(low, high, 6).T)
    while len(coarse := _too_coarse(mesh)):
        mesh = mesh.refined(coarse)
    return _tetrahedra(mesh)


def _too_coarse(mesh: MeshTet) -> np.ndarray:
    corners = mesh.p[:, mesh.t]
    edges = (corners[:, 1:] - corners[:, :1]).transpose(2, 1, 0)
    size = np.cbrt(math.sqrt(2) * np.abs(np.linalg.det(edges)))
    offsets = corners[:, None] - WATER.T[:, :, None, None]
    distance = np.linalg.norm(offsets, axis=0).min(axis=(0, 1))
    return np.flatnonzero(size > FINEST + GROWTH * distance)


def _tetrahedra(mesh: MeshTet) -> meshio.Mesh:
    mesh = mesh.oriented()  # else VTK takes volumes as zero or negative
    return meshio.Mesh(mesh.p.T, [("tetra", mesh.t.T)])


def crystal_gaussians(x: np.ndarray, width: float = 0.9) -> np.ndarray:
    """Normalised periodic Gaussians at the 32 fcc sites: four to a cube of edge a.

    Along one axis the sites of a cube lie at 0 and a/2; images beyond 2 a are below 1e-30.
    """
    a = CRYSTAL_LENGTH / 2
    sites = a * np.arange(-2, 5)[:, None, None, None]
    norm = math.sqrt(2 * math.pi) * width
    low = np.exp(-((x - sites) ** 2) / (2 * width**2)).sum(axis=0) / norm
    high = np.exp(-((x - a / 2 - sites) ** 2) / (2 * width**2)).sum(axis=0) / norm
    corner, faces = low[0] * low[1] * low[2], [(0, 1, 2), (0, 2, 1), (1, 2, 0)]
    return corner + sum(high[i] * high[j] * low[k] for i, j, k in faces)


def gaussian(x: np.ndarray, centres: np.ndarray, width: float = 1.5) -> np.ndarray:
    """Normalised Gaussians of that width (bohr) at the centres."""
    r2 = [((x.T - centre) ** 2).sum(axis=-1).T for centre in centres]
    return sum(np.exp(-r / (2 * width**2)) for r in r2) / (2 * np.pi * width**2) ** 1.5


def slater(x: np.ndarray) -> np.ndarray:
    """Hydrogen-like 1s densities with a cusp at each nucleus: exponent 2 on O, 1 on H."""
    total = np.zeros(x.shape[1:])
    for centre, exponent in zip(WATER, (2.0, 1.0, 1.0), strict=True):
        r = np.linalg.norm(x.T - centre, axis=-1).T
        total += exponent**3 / np.pi * np.exp(-2 * exponent * r)
    return total


def gaussian_in_sphere(width: float = 1.5) -> float:
    """Integral of a normalised Gaussian over the exact ball."""
    x = SPHERE_RADIUS / (math.sqrt(2) * width)
    return math.erf(x) - 2 / math.sqrt(math.pi) * x * math.exp(-(x**2))


#: Name -> maker, integrand, exact integral, its description.
LIBRARY: dict[str, tuple[Callable[[], meshio.Mesh], Callable, float, str]] = {
    "crystal_box": (
        crystal_box,
        crystal_gaussians,
        32.0,
        "Gaussians of width 0.9 bohr at 32 fcc sites",
    ),
    "cluster_box": (
        cluster_box,
        lambda x: gaussian(x, icosahedron()),
        13.0,
        "Gaussians of width 1.5 bohr at 13 atoms",
    ),
    "sphere": (
        sphere,
        lambda x: gaussian(x, np.zeros((1, 3))),
        gaussian_in_sphere(),
        "a Gaussian of width 1.5 bohr",
    ),
    "water": (water, slater, 3.0, "1s densities with cusps at the nuclei"),
}


def skfem_mesh(name: str) -> Mesh:
    """The file's mesh for scikit-fem, in bohr."""
    return from_meshio(load_mesh(name))


def integrate(mesh: Mesh, function: Callable[[np.ndarray], np.ndarray], degree: int) -> float:
    """Integral with a Gauss rule of that degree in every cell."""
    element = ElementTetP1() if mesh.elem is ElementTetP1 else ElementHex1()
    basis = Basis(mesh, element, intorder=degree)
    return float(Functional(lambda w: function(w.x)).assemble(basis))


def write(name: str) -> None:
    """Make a mesh and write its file, in angstrom."""
    mesh = LIBRARY[name][0]()
    mesh.points = mesh.points * BOHR_IN_ANGSTROM
    meshio.write(FOLDER / f"{name}.vtu", mesh, binary=True)


def row(name: str) -> str:
    """The table's line of a mesh, measured on its file."""
    _, function, exact, description = LIBRARY[name]
    mesh = skfem_mesh(name)
    kind = "tetrahedra" if mesh.elem is ElementTetP1 else "hexahedra"
    volume = integrate(mesh, lambda x: np.ones(x.shape[1:]), 2)
    errors = [integrate(mesh, function, degree) / exact - 1 for degree in DEGREES]
    shown = ["< 1e-10" if abs(e) < 1e-10 else f"{e:.1e}" for e in errors]
    cells = [f"`{name}`", f"{mesh.nelements:,} {kind}", f"{mesh.nvertices:,}", f"{volume:,.2f}"]
    return "| " + " | ".join([*cells, description, *shown]) + " |"


def table() -> str:
    """The table of README.md."""
    rules = " | ".join(f"degree {degree}" for degree in DEGREES)
    head = f"| name | cells | points | volume, bohr^3 | known integral of | {rules} |"
    line = "|" + "---|" * (5 + len(DEGREES))
    return "\n".join([head, line, *(row(name) for name in LIBRARY)])


def main() -> None:
    """Write all files, then the table."""
    for name in LIBRARY:
        write(name)
    readme = FOLDER / "README.md"
    before, rest = readme.read_text().split(START)
    after = rest.split(END)[1]
    readme.write_text(f"{before}{START}\n{table()}\n{END}{after}")
    print(table())


if __name__ == "__main__":
    main()
