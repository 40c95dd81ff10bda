"""Electron densities of other codes, from uniform grids to finite-element samples.

The density n on a grid of N planes per axis over a periodic box is taken for the trigonometric
polynomial through its values, evaluated at the quadrature points axis by axis,

    n(x) = sum_j n_j D(2 pi (x - x_j) / L),    D(t) = sin(N t / 2) / (N tan(t / 2)), N even,
                                               D(t) = sin(N t / 2) / (N sin(t / 2)), N odd.

That is exact for densities without components of shorter wavelength than two planes, as those of
plane-wave codes with pseudopotentials are. What is shorter is lost: it cannot be told from longer
waves. How much that is about, :attr:`GridDensity.interpolation_error` estimates. The cusps at the
nuclei of all-electron densities are such: the polynomial swings around them, its integral is only
as good as the sum over the grid, and where it swings below zero it is set to zero.

Source: L. N. Trefethen, Spectral Methods in MATLAB (SIAM, 2000), chapter 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import diric
from torch import Tensor

from fedens.data.sample import Sample
from fedens.errors import DatasetError
from fedens.fem.tensor import TensorSpace, kronecker_product
from fedens.reference.volumetric_files import VALUE_UNITS, GridFile, read_grid_file
from fedens.structure import Structure
from fedens.units import BOHR_IN_ANGSTROM

#: How far the integral may be from a whole number of electrons.
ELECTRON_TOLERANCE = 1e-2
#: Share of the electrons that negative values may hold: rounding, and what augmentation leaves.
NEGATIVE_SHARE = 1e-4
#: Largest density at the walls of a molecule's box, electron/bohr^3: a tenth of what is customary
#: as the surface of a molecule (R. F. W. Bader et al., J. Am. Chem. Soc. 109, 7968 (1987)).
WALL_DENSITY = 1e-4
#: Largest relative difference between integrals on the mesh and on the grid.
MESH_TOLERANCE = 1e-3
#: Share of the electrons that the polynomial may put below zero.
SWING_SHARE = 1e-2
#: Waves above this share of the grid's limit tell the interpolation error. For water (PBE, GTH,
#: cube files by PySCF) the estimate is 1.3 to 1.6 times the error, on grids of 0.13 to 0.3 bohr.
_HIGHEST_KEPT = 0.9
#: Relative difference of cells, and distance of atoms in bohr, that digits in files may leave.
_CELL_TOLERANCE = 1e-4
_POSITION_TOLERANCE = 1e-2


@dataclass(frozen=True, eq=False)
class GridDensity:
    """An electron density on a uniform grid over a periodic box, checked.

    Attributes:
        path: where it comes from. structure: periodic, its orthorhombic cell the box.
        values: (nx, ny, nz), electron/bohr^3. origin: position of the first value, (3,), bohr.
        notes: what of the file was left out.
    """

    path: Path
    structure: Structure
    values: NDArray[np.float64]
    origin: NDArray[np.float64]
    notes: tuple[str, ...] = ()

    @property
    def number_of_electrons(self) -> float:
        """Integral of the density: mean value times volume."""
        return float(self.values.mean()) * self.structure.volume

    @property
    def spacing(self) -> float:
        """Largest distance of planes, bohr."""
        lengths = self.structure.orthorhombic_lengths()
        return float((lengths / self.values.shape).max())

    @cached_property
    def interpolation_error(self) -> float:
        """About how far the polynomial is from the density, integral |error| / N.

        Waves that the grid cannot hold are taken to be as strong as the highest that it holds.
        """
        amplitudes = np.fft.fftn(self.values)
        for axis, n in enumerate(self.values.shape):
            kept = np.abs(np.fft.fftfreq(n)) <= _HIGHEST_KEPT / 2
            amplitudes *= np.expand_dims(kept, [i for i in range(3) if i != axis])
        smooth = np.fft.ifftn(amplitudes).real
        return float(np.abs(self.values - smooth).mean() / self.values.mean())

    def at(self, space: TensorSpace) -> Tensor:
        """The density at the points of a periodic space of the same box, (n_points,).

        Not negative, and its integral on the space is that on the grid.

        Raises:
            SpaceError: a space of another box.
            DatasetError: a space, or a grid, too coarse for the density.
        """
        space.check_matches(self.structure)
        matrices = [
            torch.tensor(_interpolation(axis.points.cpu().numpy() - first, n, axis.length))
            for axis, n, first in zip(space.axes, self.values.shape, self.origin, strict=True)
        ]
        given = torch.tensor(self.values.ravel())
        values = kronecker_product(given, *matrices).to(space.device)
        expected, found = self.number_of_electrons, float(space.integrate(values))
        if abs(found - expected) > MESH_TOLERANCE * expected:
            raise DatasetError(
                f"{self.path}: the density integrates to {expected:.6f} electrons on its grid and "
                f"to {found:.6f} on the mesh, whose spacing of {space.spacing:.3f} bohr is too "
                f"coarse (that of the grid is {self.spacing:.3f}): choose a smaller one"
            )
        positive = values.clamp(min=0.0)
        total = float(space.integrate(positive))
        if total - found > SWING_SHARE * expected:
            raise DatasetError(
                f"{self.path}: between the grid's points the density swings below zero, which "
                f"holds {found - total:.4f} of {expected:.4f} electrons; the grid, of spacing "
                f"{self.spacing:.3f} bohr, is too coarse for the cores: export it finer"
            )
        return positive * (expected / total)

    def to_sample(self, space: TensorSpace, energy: float | None = None) -> Sample:
        """The density as a sample on a space (see :meth:`at`); ``energy`` in hartree, if known."""
        return Sample(
            structure=self.structure,
            points=space.points.cpu().numpy(),
            weights=space.weights.cpu().numpy(),
            fields={"density": self.at(space).cpu().numpy()},
            energy=energy,
            provenance={
                "code": "imported",
                "file": self.path.name,
                "grid": list(self.values.shape),
                "electrons": self.number_of_electrons,
                "interpolation_error": self.interpolation_error,
                "space": space.describe(),
            },
        )


def read_density(
    path: str | Path,
    *,
    unit: str | None = None,
    periodic: bool = False,
    structure: Structure | None = None,
    tolerance: float = ELECTRON_TOLERANCE,
) -> GridDensity:
    """Read and check the total density of a cube, CHGCAR or xsf file.

    A molecule becomes a periodic box, which asks that its density vanishes at the walls.

    Args:
        path: see :func:`fedens.reference.volumetric_files.read_grid_file`.
        unit: of the values, ``electron/bohr^3`` or ``electron/angstrom^3``; xsf files do not say,
            cube files have the first unless told otherwise, in CHGCAR files it is fixed.
        periodic: that it is a crystal, where the file does not say so, as cube files do not.
        structure: the same atoms with more digits; also says whether they are a crystal.
        tolerance: how far the integral may be from a whole number, electrons.

    Raises:
        DatasetError: a file that cannot be read; unknown units; values that are not finite,
            negative, or do not integrate to a whole number; a box that is sheared, cuts off a
            molecule or does not fit the structure.
        StructureError: atoms that are no structure.
    """
    file = read_grid_file(path)
    values = _in_atomic_units(file, unit)
    if not 0 < tolerance < 0.5:
        raise DatasetError(f"tolerance is {tolerance} electrons; expected between 0 and 0.5")
    crystal = periodic or bool(file.periodic) or (structure is not None and structure.periodic)
    if not crystal:  # first, as electrons outside the box would be missed in the integral
        _check_walls(file, values)
    _check_integral(file, values, tolerance)
    _check_signs(file, values)
    positions = file.atoms.positions / BOHR_IN_ANGSTROM
    atoms = Structure(file.atoms.numbers, positions, cell=_box(file), pbc=True)
    if structure is not None:
        atoms = _matched(file.path, structure, atoms)
    return GridDensity(file.path, atoms, values, file.origin, file.notes)


def _in_atomic_units(file: GridFile, unit: str | None) -> NDArray[np.float64]:
    """Values in electron/bohr^3, or an error that says what the unit might be."""
    if not np.isfinite(file.values).all():
        bad = np.argwhere(~np.isfinite(file.values))
        raise DatasetError(
            f"{file.path}: {len(bad)} values are not finite, the first at grid point "
            f"{bad[0].tolist()}; repeat the calculation or its export"
        )
    if unit is not None and unit not in VALUE_UNITS:
        raise DatasetError(f"unit is {unit!r}; expected one of {', '.join(VALUE_UNITS)}")
    if file.unit_is_certain and unit not in (None, file.unit):
        raise DatasetError(
            f"{file.path}: a CHGCAR file holds density times volume, so that its unit is known; "
            f"leave out the unit {unit!r}"
        )
    unit = unit or file.unit
    if unit is None:
        raise DatasetError(
            f"{file.path}: xsf files do not tell the unit of their values. The density would "
            f"integrate to {_integrals(file)}: pass the unit (fedens import --unit ...)"
        )
    return file.values / VALUE_UNITS[unit]


def _integrals(file: GridFile) -> str:
    total = _electrons(file, file.values)
    return " or ".join(f"{total / f:.4f} electrons in {u}" for u, f in VALUE_UNITS.items())


def _electrons(file: GridFile, values: NDArray[np.float64]) -> float:
    return float(values.sum()) * abs(float(np.linalg.det(file.steps)))


def _check_integral(file: GridFile, values: NDArray[np.float64], tolerance: float) -> None:
    electrons = _electrons(file, values)
    nearest = round(electrons)
    if nearest < 1 or not abs(electrons - nearest) <= tolerance:
        raise DatasetError(
            f"{file.path}: the density integrates to {electrons:.6f} electrons, the nearest whole "
            f"number is {nearest}, the tolerance {tolerance:g}. As the file stands it would be "
            f"{_integrals(file)}. If the unit is another, pass it (fedens import --unit ...); if "
            "the grid is too coarse for the cores, export it finer, use pseudopotentials, or "
            "allow more (--tolerance); if it is no total density, it cannot be imported"
        )


def _check_signs(file: GridFile, values: NDArray[np.float64]) -> None:
    electrons, negative = _electrons(file, values), _electrons(file, values.clip(max=0))
    if -negative > NEGATIVE_SHARE * electrons:
        raise DatasetError(
            f"{file.path}: negative values, down to {values.min():.3e} electron/bohr^3, hold "
            f"{negative:.3e} of {electrons:.4f} electrons; expected at most "
            f"{NEGATIVE_SHARE:g} of them: is it a spin density, a difference or a potential?"
        )


def _check_walls(file: GridFile, values: NDArray[np.float64]) -> None:
    walls = [np.abs(values.take(side, axis)).max() for axis in range(3) for side in (0, -1)]
    if not max(walls) <= WALL_DENSITY:
        raise DatasetError(
            f"{file.path}: at the walls of the box the density reaches {max(walls):.3e} "
            f"electron/bohr^3; for a molecule expected at most {WALL_DENSITY:g}. If it is a "
            "crystal, say so (fedens import --periodic); if a molecule, export it in a larger box"
        )


def _box(file: GridFile) -> NDArray[np.float64]:
    """Edges (3,) of the box, bohr."""
    vectors = file.steps * np.array(file.values.shape)[:, None]
    edges = np.diag(vectors)
    if np.abs(vectors - np.diag(edges)).max() > 1e-6 * np.abs(edges).max() or edges.min() <= 0:
        raise DatasetError(
            f"{file.path}: the box {np.round(vectors, 4).tolist()} bohr is not orthorhombic along "
            "x, y, z; sheared cells are not supported yet: use an orthorhombic supercell"
        )
    return edges


def _matched(path: Path, structure: Structure, atoms: Structure) -> Structure:
    """The structure given, in the file's box, if it is that of the file."""
    edges = atoms.orthorhombic_lengths()
    if not np.array_equal(structure.numbers, atoms.numbers):
        raise DatasetError(
            f"{path} holds {atoms.formula}, the structure given is {structure.formula} or in "
            "another order of atoms; give the structures in the order of the files"
        )
    if structure.periodic:
        cell = structure.orthorhombic_lengths()
        if not np.allclose(cell, edges, rtol=_CELL_TOLERANCE, atol=0):
            raise DatasetError(
                f"{path}: the box has edges {np.round(edges, 5).tolist()} bohr, the cell of the "
                f"structure given {np.round(cell, 5).tolist()} bohr: they must be the same"
            )
        edges = cell
    shifts = structure.positions - atoms.positions
    distances = np.linalg.norm(shifts - edges * np.round(shifts / edges), axis=1)
    if distances.max() > _POSITION_TOLERANCE:
        raise DatasetError(
            f"{path}: atom {int(distances.argmax())} is {distances.max():.4f} bohr from its place "
            f"in the structure given; expected at most {_POSITION_TOLERANCE:g} bohr"
        )
    return structure.replace(cell=edges, pbc=True)


def _interpolation(x: NDArray[np.float64], n: int, length: float) -> NDArray[np.float64]:
    """Map (len x, n) from the values at j length / n to those at ``x`` of their polynomial."""
    angles = 2 * np.pi * (x[:, None] / length - np.arange(n) / n)
    kernel = diric(angles, n)
    # the highest wave of an even grid is a cosine
    return np.asarray(kernel * np.cos(angles / 2) if n % 2 == 0 else kernel)
