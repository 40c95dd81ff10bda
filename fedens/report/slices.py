"""Fields in a plane across the box, as PNG bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fedens.data.sample import Sample
from fedens.errors import OutputError
from fedens.fem.mesh import grid_values
from fedens.fem.tensor import TensorSpace
from fedens.output.naming import FILE_UNITS, field_unit, inside_box, is_density
from fedens.report.figures import as_png, new_figure
from fedens.structure import Structure
from fedens.units import BOHR_IN_ANGSTROM

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class FieldSlice:
    """A field in a plane across the box, in the units of files.

    Attributes:
        values: (n, m), first axis to the right. extent: left, right, bottom, top, angstrom.
        title: of the picture; unit: of the values, such as ``electron/angstrom^3``.
        labels: of the two axes. atoms: in the plane, (n_atoms, 2), angstrom.
        signed: whether colours are centred on zero, as for errors.
    """

    values: NDArray[np.float64]
    extent: tuple[float, float, float, float]
    title: str
    unit: str
    labels: tuple[str, str] = ("x", "y")
    atoms: NDArray[np.float64] | None = None
    signed: bool = False


def slice_field(
    space: TensorSpace,
    field: Tensor | ArrayLike,
    name: str = "density",
    structure: Structure | None = None,
    *,
    axis: int = 2,
    position: float | None = None,
    title: str | None = None,
    signed: bool = False,
    unit: str | None = None,
    n: int = 200,
    thickness: float = 1.0,
) -> FieldSlice:
    """A field in the plane at ``position`` (bohr) across one axis (0, 1 or 2).

    Args:
        field: (n_points,), at ``space.points``; ``unit`` if its ``name`` does not tell it.
        position: default: through the first atom, else through the middle of the box.
        n: samples along the longer side.
        thickness: atoms no further than this from the plane are shown, bohr.

    Raises:
        SpaceError: for a field of the wrong shape. OutputError: for a field without a unit.
    """
    factor, file_unit = FILE_UNITS[field_unit(name, {name: unit} if unit else None)]
    across = [i for i in range(3) if i != axis]
    atoms = _atoms(space, structure)
    if position is None:
        edges = space.axes[axis].edges
        position = float(atoms[0, axis] if len(atoms) else (edges[0] + edges[-1]) / 2)
    coordinates = _plane_coordinates(space, axis, position, n)
    plane = grid_values(space, field, coordinates, root=is_density(name)).squeeze(axis)
    near = _distance_to_plane(space, atoms, axis, position) <= thickness
    ends = [float(space.axes[i].edges[side]) * BOHR_IN_ANGSTROM for i in across for side in (0, -1)]
    return FieldSlice(
        values=factor * plane,
        extent=(ends[0], ends[1], ends[2], ends[3]),
        title=title or f"{name} at {'xyz'[axis]} = {position * BOHR_IN_ANGSTROM:.2f} angstrom",
        unit=file_unit,
        labels=("xyz"[across[0]], "xyz"[across[1]]),
        atoms=atoms[near][:, across] * BOHR_IN_ANGSTROM,
        signed=signed,
    )


def density_slices(sample: Sample, predicted: Tensor) -> bytes:
    """A sample's density and the error of a predicted one, in the plane of the first atom. PNG.

    Args:
        predicted: (n_points,), at the sample's points.
    """
    space, density = sample.space(), torch.tensor(sample.fields["density"])
    error = predicted.cpu() - density
    pieces = [
        slice_field(space, density, "density", sample.structure, title="reference"),
        slice_field(
            space,
            error,
            "density_error",
            sample.structure,
            title="predicted - reference",
            signed=True,
        ),
    ]
    return slices_figure(pieces)


def slices_figure(slices: Sequence[FieldSlice]) -> bytes:
    """Planes side by side, each with its colour bar and the atoms in it as circles. PNG.

    Slices of one unit that are not ``signed`` share one colour scale, to be compared.
    """
    if not slices:
        raise OutputError("a figure of slices needs at least one slice")
    figure, all_axes = new_figure(5.2 * len(slices), 4.4, len(slices))
    for axes, piece in zip(all_axes, slices, strict=True):
        _draw_slice(figure, axes, piece, _colour_limits(slices, piece))
    return as_png(figure)


def _colour_limits(slices: Sequence[FieldSlice], piece: FieldSlice) -> tuple[float, float]:
    if piece.signed:
        limit = float(np.abs(piece.values).max()) or 1.0
        return -limit, limit
    alike = [s.values for s in slices if s.unit == piece.unit and not s.signed]
    return min(float(v.min()) for v in alike), max(float(v.max()) for v in alike)


def _draw_slice(figure: Figure, axes: Axes, piece: FieldSlice, limits: tuple[float, float]) -> None:
    from matplotlib.ticker import ScalarFormatter

    colours: dict[str, Any] = {"cmap": "RdBu_r" if piece.signed else "viridis"}
    colours |= {"vmin": limits[0], "vmax": limits[1]}
    extent, image = piece.extent, piece.values.T
    picture = axes.imshow(image, origin="lower", extent=extent, interpolation="bilinear", **colours)
    if piece.atoms is not None and len(piece.atoms):
        edge = "black" if piece.signed else "white"
        axes.scatter(
            piece.atoms[:, 0],
            piece.atoms[:, 1],
            s=36,
            facecolor="none",
            edgecolor=edge,
            linewidth=1.1,
        )
    axes.grid(visible=False)
    axes.set(xlim=extent[:2], ylim=extent[2:], title=piece.title)
    axes.set_xlabel(f"{piece.labels[0]} (angstrom)")
    axes.set_ylabel(f"{piece.labels[1]} (angstrom)")
    ticks = ScalarFormatter()
    ticks.set_powerlimits((-2, 3))
    figure.colorbar(picture, ax=axes, shrink=0.86, format=ticks, label=_typeset(piece.unit))


def _typeset(unit: str) -> str:
    """The unit with its exponent raised."""
    return unit.replace("^3", "$^3$")


def _plane_coordinates(
    space: TensorSpace, axis: int, position: float, n: int
) -> list[NDArray[np.float64]]:
    """Three coordinate lists, bohr: the centres of equal pixels, and one position."""
    longest = max(space.axes[i].length for i in range(3) if i != axis)
    lists: list[NDArray[np.float64]] = []
    for a in space.axes:
        count = max(2, round(n * a.length / longest))
        faces = np.linspace(float(a.edges[0]), float(a.edges[-1]), count + 1)
        lists.append((faces[1:] + faces[:-1]) / 2)
    lists[axis] = np.array([position])
    return lists


def _atoms(space: TensorSpace, structure: Structure | None) -> NDArray[np.float64]:
    if structure is None:
        return np.zeros((0, 3))
    space.check_matches(structure)
    return inside_box(structure, [float(axis.edges[0]) for axis in space.axes])


def _distance_to_plane(
    space: TensorSpace, atoms: NDArray[np.float64], axis: int, position: float
) -> NDArray[np.float64]:
    distance = atoms[:, axis] - position
    if space.axes[axis].periodic:
        distance -= space.axes[axis].length * np.round(distance / space.axes[axis].length)
    return np.abs(distance)
