"""Gaussian cube, VASP CHGCAR and XCrySDen xsf files as they stand, before anything is checked.

=========  =================  ==================================================================
file       lengths            values
=========  =================  ==================================================================
cube       bohr               electron/bohr^3 by convention; z runs fastest; n steps are the box
CHGCAR     angstrom           density times volume of the cell; x fastest; n steps are the cell
xsf        angstrom           the format does not say; x fastest; in crystals the last plane along
                              each axis repeats the first, so that n - 1 steps are the cell
=========  =================  ==================================================================

Sources: https://paulbourke.net/dataformats/cube, https://www.vasp.at/wiki/index.php/CHGCAR,
http://www.xcrysden.org/doc/XSF.html. Cube files by castep2cube repeat planes too: ASE drops them.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import numpy as np
from numpy.typing import NDArray

from fedens.errors import DatasetError, FedensError
from fedens.fields import FIELDS
from fedens.units import BOHR_IN_ANGSTROM

if TYPE_CHECKING:
    from ase import Atoms

_DENSITY = FIELDS["density"].unit
#: Units that the values of a file may have, and what to divide by for electron/bohr^3.
VALUE_UNITS = {_DENSITY.name: 1.0, _DENSITY.in_files: _DENSITY.factor}


@dataclass(frozen=True, eq=False)
class GridFile:
    """What one file holds.

    Attributes:
        path: of the file. atoms: in angstrom, as ASE has them.
        values: (nx, ny, nz), no plane twice.
        unit: of the values, by convention or, if ``unit_is_certain``, by the format; or None.
        steps: rows are the vectors from one plane to the next, (3, 3), bohr.
        origin: position of the first value, (3,), bohr.
        periodic: whether the file says that it is a crystal, or a molecule; None if neither.
        notes: what was left out.
    """

    path: Path
    atoms: Atoms
    values: NDArray[np.float64]
    steps: NDArray[np.float64]
    origin: NDArray[np.float64]
    unit: str | None
    unit_is_certain: bool
    periodic: bool | None
    notes: tuple[str, ...] = ()


def read_grid_file(path: str | Path) -> GridFile:
    """Read a ``.cube`` (``.cub``), ``CHGCAR`` (also ``CHG``, ``.vasp``) or ``.xsf`` file.

    Raises:
        DatasetError: no such file, another kind of file, or one that is truncated or damaged.
    """
    path = Path(path)
    read = _reader(path)
    try:
        # ASE's parsers raise anything, and only warn of lines that they do not understand
        with path.open(encoding="utf-8") as file, warnings.catch_warnings():
            warnings.simplefilter("error")
            return read(path, file)
    except FedensError:
        raise
    except FileNotFoundError as error:
        raise DatasetError(f"there is no file {path}: check the path") from error
    except Exception as error:
        raise DatasetError(
            f"{path} cannot be read: {str(error) or type(error).__name__}; it is truncated, "
            "damaged or of another format than its name says"
        ) from error


def _reader(path: Path) -> Callable[[Path, TextIO], GridFile]:
    name = path.name.lower()
    if name.endswith((".cube", ".cub")):
        return _read_cube
    if name.endswith(".xsf"):
        return _read_xsf
    if "chgcar" in name or name == "chg" or name.endswith(".vasp"):
        return _read_chgcar
    raise DatasetError(
        f"{path}: expected a name that ends in .cube, .cub, .xsf or .vasp, or holds CHGCAR"
    )


def _read_cube(path: Path, file: TextIO) -> GridFile:
    from ase.io.cube import read_cube

    head = [file.readline().split() for _ in range(6)]
    if any(int(line[0]) < 0 for line in head[3:]):
        raise DatasetError(
            f"{path} gives negative numbers of grid points, which means lengths in angstrom and "
            "leaves the unit of the density open; write it in bohr, with positive numbers"
        )
    file.seek(0)
    cube = read_cube(file)
    if len(cube["datas"]) > 1 or len(cube["labels"]) > 1:
        raise DatasetError(f"{path} holds several fields; expected one, the total electron density")
    return GridFile(
        path=path,
        atoms=cube["atoms"],
        values=cube["data"],
        steps=cube["spacing"] / BOHR_IN_ANGSTROM,
        origin=cube["origin"] / BOHR_IN_ANGSTROM,
        unit="electron/bohr^3",
        unit_is_certain=False,
        periodic=None,
    )


def _read_chgcar(path: Path, file: TextIO) -> GridFile:
    """The first block. ASE's VaspChargeDensity is not used: it misses truncated rows of one."""
    from ase.io.vasp import read_vasp_configuration

    atoms = read_vasp_configuration(file)
    file.readline()
    counts = file.readline().split()
    shape = tuple(int(count) for count in counts)
    if len(shape) != 3:
        raise DatasetError(f"{path}: expected three numbers of grid points, found {counts}")
    tokens: list[str] = []
    for line in file:
        tokens += line.split()
        if len(tokens) >= np.prod(shape):
            break
    values = np.array(tokens, dtype=np.float64).reshape(shape, order="F")
    has_spin = any(line.split() == counts for line in file)
    return GridFile(
        path=path,
        atoms=atoms,
        values=values / atoms.get_volume(),
        steps=atoms.cell.array / np.array(shape)[:, None] / BOHR_IN_ANGSTROM,
        origin=np.zeros(3),
        unit="electron/angstrom^3",
        unit_is_certain=True,
        periodic=True,
        notes=(f"{path}: the block of the spin density is left out",) if has_spin else (),
    )


def _read_xsf(path: Path, file: TextIO) -> GridFile:
    from ase.io.xsf import read_xsf

    # Quantum ESPRESSO (PP/src/xsf.f90) leaves out BEGIN_, which ASE's reader insists on
    text = re.sub(r"(?m)^\s*DATAGRID_3D", "BEGIN_DATAGRID_3D", file.read())
    values, origin, vectors, atoms = read_xsf(io.StringIO(text), read_data=True)
    periodic = bool(atoms.pbc.all())
    if atoms.pbc.any() and not periodic:
        raise DatasetError(f"{path}: slabs and wires are not supported yet")
    intervals = np.array(values.shape)[:, None] - 1
    if periodic:
        values = _without_repeated_planes(path, values)
        if not np.allclose(vectors, atoms.cell.array, rtol=0, atol=1e-4 * np.abs(vectors).max()):
            raise DatasetError(
                f"{path}: the grid spans {vectors.tolist()} angstrom, the cell is "
                f"{atoms.cell.array.tolist()}; a grid over part of the cell cannot be imported"
            )
        vectors = atoms.cell.array  # the same with more digits
    return GridFile(
        path=path,
        atoms=atoms,
        values=values,
        steps=vectors / intervals / BOHR_IN_ANGSTROM,
        origin=origin / BOHR_IN_ANGSTROM,
        unit=None,
        unit_is_certain=False,
        periodic=periodic,
    )


def _without_repeated_planes(path: Path, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """A general grid of a crystal without the last plane of each axis."""
    tolerance = 1e-4 * float(np.abs(values).max())
    for axis, name in enumerate("xyz"):
        difference = float(np.abs(values.take(0, axis) - values.take(-1, axis)).max())
        if not difference <= tolerance:
            raise DatasetError(
                f"{path}: the last plane along axis {name} differs from the first by up to "
                f"{difference:.3g}; expected the general grid of the xsf format, whose last plane "
                "repeats the first in a crystal"
            )
    return values[:-1, :-1, :-1]
