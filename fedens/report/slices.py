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
from fedens.fields import is_density
from fedens.output.naming import field_unit, inside_box
from fedens.report.figures import as_png, new_figure
from fedens.structure import Structure
from fedens.units import BOHR_IN_ANGSTROM

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class FieldSlice:
    """A field in a plane across z, in the units of files.

    Attributes:
        values: (n, m), x to the right. extent: left, right, bottom, top, angstrom.
        title: of the picture; unit: of the values, such as ``electron/angstrom^3``.
        atoms: in the plane, (n_atoms, 2), angstrom.
        signed: whether colours are centred on zero, as for errors.
    """

    values: NDArray[np.float64]
    extent: tuple[float, float, float, float]
    title: str
    unit: str
    atoms: NDArray[np.float64]
    signed: bool


def slice_field(
    space: TensorSpace,
    structure: Structure,
    field: Tensor | ArrayLike,
    name: str = "density",
    title: str = "",
    *,
    signed: bool = False,
    n: int = 200,
    thickness: float = 1.0,
) -> FieldSlice:
    """A field in the plane of constant z through the first atom.

    Args:
        field: (n_points,), at ``space.points``.
        n: samples along the longer side.
        thickness: atoms no further than this from the plane are shown, bohr.

    Raises:
        SpaceError: for a field of the wrong shape. OutputError: for a field without a unit.
    """
    unit = field_unit(name)
    space.check_matches(structure)
    low = np.array([float(axis.edges[0]) for axis in space.axes])
    atoms, lengths = inside_box(structure, low), np.array(space.lengths)
    height = atoms[0, 2]
    counts = np.maximum(2, np.round(n * lengths[:2] / lengths[:2].max()).astype(int))
    # the centres of equal pixels
    coordinates = [low[i] + lengths[i] * (np.arange(c) + 0.5) / c for i, c in enumerate(counts)]
    plane = grid_values(space, field, [*coordinates, [height]], root=is_density(name))[:, :, 0]
    away = atoms[:, 2] - height
    if space.axes[2].periodic:
        away -= lengths[2] * np.round(away / lengths[2])
    left, bottom, right, top = BOHR_IN_ANGSTROM * np.append(low[:2], (low + lengths)[:2])
    return FieldSlice(
        unit.factor * plane,
        (left, right, bottom, top),
        title or f"{name} at z = {height * BOHR_IN_ANGSTROM:.2f} angstrom",
        unit.in_files,
        atoms[np.abs(away) <= thickness, :2] * BOHR_IN_ANGSTROM,
        signed,
    )


def density_slices(sample: Sample, predicted: Tensor) -> bytes:
    """A sample's density and the error of a predicted one, in the plane of the first atom. PNG.

    Args:
        predicted: (n_points,), at the sample's points.
    """
    space, density = sample.tensor_space(), torch.tensor(sample.fields["density"])
    error = predicted.cpu() - density
    pieces = [
        slice_field(space, sample.structure, density, "density", "reference"),
        slice_field(
            space, sample.structure, error, "density_error", "predicted - reference", signed=True
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
    edge = "black" if piece.signed else "white"
    x, y = piece.atoms.T
    axes.scatter(x, y, s=36, facecolor="none", edgecolor=edge, linewidth=1.1)
    axes.grid(visible=False)
    axes.set(xlim=extent[:2], ylim=extent[2:], title=piece.title)
    axes.set(xlabel="x (angstrom)", ylabel="y (angstrom)")
    unit = piece.unit.replace("^3", "$^3$")
    ticks = ScalarFormatter()
    ticks.set_powerlimits((-2, 3))
    figure.colorbar(picture, ax=axes, shrink=0.86, format=ticks, label=unit)
