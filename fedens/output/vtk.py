"""Fields and atoms as files that ParaView opens: VTU, VTP and PVD.

Lengths are in angstrom, densities in electron/angstrom^3, energy densities in eV/angstrom^3, so
that the integral of a density taken with VTK is the number of electrons. The unit stands in the
name of each array, which ParaView shows beside the colours.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np
from ase.data import covalent_radii
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fedens.errors import OutputError
from fedens.fem.mesh import grid_values, hexahedral_mesh, node_coordinates, vtk_cells, vtk_values
from fedens.fem.simplex import SimplexSpace
from fedens.fem.tensor import TensorSpace
from fedens.fields import field_unit, is_density
from fedens.files import write_atomically
from fedens.structure import Structure
from fedens.units import BOHR_IN_ANGSTROM

if TYPE_CHECKING:
    import pyvista


def write_vtu(
    path: str | Path,
    space: TensorSpace | SimplexSpace,
    fields: Mapping[str, Tensor | ArrayLike],
    structure: Structure | None = None,
    *,
    subdivisions: int | None = None,
    units: Mapping[str, str] | None = None,
    atom_fields: Mapping[str, Tensor | ArrayLike] | None = None,
) -> list[Path]:
    """Fields on the space's elements as one VTU file.

    A TensorSpace's elements are each cut into linear hexahedra; those of a SimplexSpace stay
    what they are, quadratic ones as VTK's quadratic cells, and a field's values at the nodes are
    its least-squares projection. The rest here is about the former.

    The file's field data say what it shows: ``subdivisions`` (linear cells per finite element
    and axis), ``element_order``, ``angstrom_per_bohr``. Values at the nodes come from the
    polynomials inside the elements, for densities from those of the root density
    (:func:`fedens.fem.mesh.grid_values`); a field that is nowhere negative at the quadrature
    points stays so between them. Values are stored in single precision.

    Measured with VTK on aluminium at the default resolution and subdivision: the integral of
    the density is within 0.004 % of the electron number for a cell of 32 sites (1.5 MB for
    three fields) and within 0.15 % for a single atom in vacuum; that of the von Weizsaecker
    energy density, which changes fast inside an element, within 2 %. Sums that must be exact
    belong to the quadrature points.

    Args:
        path: ends in ``.vtu``.
        fields: name -> (n_points,) at ``space.points``, in atomic units. Arrays in the file are
            called ``name [unit]``, as in ``density_error [electron/angstrom^3]``. Those of a
            Kohn-Sham calculation, with the density of any single band, are ``state.fields()``:
            see :meth:`fedens.reference.kohn_sham.state.KohnShamState.fields`.
        structure: atoms, written beside the fields as ``<stem>_atoms.vtp``.
        subdivisions: linear cells per element and axis; default: the order of the elements.
        units: atomic unit of each field whose name does not tell it, such as
            ``{"charge": "elementary charge"}``; see :data:`fedens.fields.UNITS`.
        atom_fields: with ``structure``: see :func:`write_atoms`.

    Returns:
        The files written, fields first.

    Raises:
        OutputError: for a file that cannot be written, a wrong suffix, a field without a unit.
        SpaceError: for a field of the wrong shape, or a structure that does not fit the space.
    """
    import pyvista

    path = _checked_suffix(path, ".vtu")
    if structure is not None:
        space.check_matches(structure)
    if isinstance(space, SimplexSpace):
        name_of_cells, cells = vtk_cells(space)
        points, parts, origin = space.all_nodes.numpy(), 1, [0.0, 0.0, 0.0]
        at_nodes = partial(vtk_values, space)
    else:
        parts = space.order if subdivisions is None else subdivisions
        coordinates = node_coordinates(space, parts)
        name_of_cells, (points, cells) = "HEXAHEDRON", hexahedral_mesh(coordinates)
        origin = [float(axis.edges[0]) for axis in space.axes]
        at_nodes = partial(grid_values, space, coordinates=coordinates)
    kinds = {pyvista.CellType[name_of_cells]: cells}
    grid = pyvista.UnstructuredGrid(kinds, (points * BOHR_IN_ANGSTROM).astype(np.float32))
    for name, values in fields.items():
        label, factor = _label(name, units)
        nodal = at_nodes(values, root=is_density(name)).ravel()
        grid.point_data[label] = (factor * nodal).astype(np.float32)
    grid.field_data["subdivisions"] = np.array([parts])
    grid.field_data["element_order"] = np.array([space.order])
    grid.field_data["angstrom_per_bohr"] = np.array([BOHR_IN_ANGSTROM])
    written = [write_atomically(path, _xml(grid))]
    if structure is not None:
        beside = path.with_name(f"{path.stem}_atoms.vtp")
        written.append(write_atoms(beside, structure, atom_fields, units=units, origin=origin))
    return written


def write_atoms(
    path: str | Path,
    structure: Structure,
    fields: Mapping[str, Tensor | ArrayLike] | None = None,
    *,
    units: Mapping[str, str] | None = None,
    origin: ArrayLike = (0.0, 0.0, 0.0),
) -> Path:
    """Atoms as points with ``atomic_number``, ``symbol``, ``covalent_radius`` and own fields.

    Atoms of a periodic cell are moved into it by whole lattice vectors.

    Args:
        path: ends in ``.vtp``.
        fields: name -> (n_atoms,) or (n_atoms, 3), in atomic units, such as ``forces`` and
            ``forces_error`` (hartree/bohr; eV/angstrom in the file).
        units: as in :func:`write_vtu`.
        origin: lower corner of a periodic cell, bohr.

    Raises:
        OutputError: for a file that cannot be written, a wrong suffix, a field without a unit
            or of the wrong shape.
    """
    import pyvista

    path = _checked_suffix(path, ".vtp")
    atoms = pyvista.PolyData(structure.positions_in_box(origin) * BOHR_IN_ANGSTROM)
    atoms.point_data["atomic_number"] = structure.numbers.copy()
    atoms.point_data["symbol"] = structure.symbols
    atoms.point_data["covalent_radius [angstrom]"] = covalent_radii[structure.numbers]
    for name, values in (fields or {}).items():
        array = _per_atom(name, values, len(structure))
        label, factor = _label(name, units)
        atoms.point_data[label] = factor * array
    atoms.field_data["angstrom_per_bohr"] = np.array([BOHR_IN_ANGSTROM])
    return write_atomically(path, _xml(atoms))


def write_pvd(
    path: str | Path,
    entries: Iterable[tuple[float, str | Path | Sequence[str | Path]]],
) -> Path:
    """A series of files that ParaView opens as one, with a time slider.

    Args:
        path: ends in ``.pvd``; names in the file are relative to its folder.
        entries: (time or index, file or files); several files of one time, such as those
            :func:`write_vtu` returns, become parts of one data set.

    Raises:
        OutputError: for a file that cannot be written, a wrong suffix, an entry whose file does
            not exist, or no entries.
    """
    path = _checked_suffix(path, ".pvd")
    root = ElementTree.Element("VTKFile", type="Collection", version="0.1")
    collection = ElementTree.SubElement(root, "Collection")
    for time, files in entries:
        for part, file in enumerate([files] if isinstance(files, str | Path) else files):
            if not Path(file).is_file():
                raise OutputError(f"{file} does not exist: write a series after its files")
            relative = Path(os.path.relpath(Path(file).resolve(), path.parent.resolve()))
            entry = {"timestep": f"{time:g}", "part": str(part), "file": relative.as_posix()}
            ElementTree.SubElement(collection, "DataSet", entry)
    if not len(collection):
        raise OutputError(f"{path}: a series needs at least one file")
    ElementTree.indent(root)
    text = ElementTree.tostring(root, encoding="unicode")
    return write_atomically(path, f'<?xml version="1.0"?>\n{text}\n')


def _checked_suffix(path: str | Path, suffix: str) -> Path:
    path = Path(path)
    if path.suffix != suffix:
        raise OutputError(f"{path} must end in {suffix}: ParaView chooses its reader by that")
    return path


def _label(name: str, units: Mapping[str, str] | None) -> tuple[str, float]:
    unit = field_unit(name, units)
    return f"{name} [{unit.in_files}]", unit.factor


def _per_atom(name: str, values: Tensor | ArrayLike, n_atoms: int) -> NDArray[np.float64]:
    given = values.detach().cpu() if isinstance(values, Tensor) else values
    array = np.array(given, dtype=np.float64)
    if array.shape not in {(n_atoms,), (n_atoms, 3)}:
        raise OutputError(
            f"field {name!r} of the atoms has shape {array.shape}, expected ({n_atoms},) or "
            f"({n_atoms}, 3)"
        )
    return array


def _xml(data: pyvista.DataSet) -> str:
    """The file's text: compressed, binary data as base64, so that it is valid XML."""
    from vtkmodules import vtkIOXML

    writers: dict[str, Any] = {
        "UnstructuredGrid": vtkIOXML.vtkXMLUnstructuredGridWriter,
        "PolyData": vtkIOXML.vtkXMLPolyDataWriter,
    }
    writer = writers[type(data).__name__]()
    writer.SetInputData(data)
    writer.SetWriteToOutputString(True)
    writer.EncodeAppendedDataOn()
    if not writer.Write():
        raise OutputError("VTK could not write the data set")
    return writer.GetOutputString()
