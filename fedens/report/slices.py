"""A density and its error in a plane across the box, as PNG bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fedens.data.sample import Sample
from fedens.fem.mesh import grid_values
from fedens.fem.tensor import TensorSpace
from fedens.fields import FIELDS
from fedens.report.figures import as_png, new_figure
from fedens.structure import Structure
from fedens.units import BOHR_IN_ANGSTROM

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Atoms no further than this from the plane are shown, bohr.
_THICKNESS = 1.0
#: Along the longer side.
_PIXELS = 200


@dataclass(frozen=True, eq=False)
class DensitySlice:
    """A density, or a difference of two, in a plane across z.

    Attributes:
        values: (n, m), x to the right, electron/angstrom^3.
        extent: left, right, bottom, top, angstrom.
        atoms: in the plane, (n_atoms, 2), angstrom.
    """

    values: NDArray[np.float64]
    extent: tuple[float, float, float, float]
    atoms: NDArray[np.float64]


def density_slices(sample: Sample, predicted: Tensor) -> bytes:
    """A sample's density and the error of a predicted one, in the plane of the first atom. PNG.

    Args:
        predicted: (n_points,), at the sample's points.
    """
    space, density = sample.tensor_space(), torch.tensor(sample.fields["density"])
    figure, (left, right) = new_figure(10.4, 4.4, 2)
    reference = slice_density(space, sample.structure, density)
    error = slice_density(space, sample.structure, predicted.cpu() - density)
    draw_slice(figure, left, reference, "reference")
    draw_slice(figure, right, error, "predicted - reference", signed=True)
    return as_png(figure)


def slice_density(
    space: TensorSpace, structure: Structure, density: Tensor | ArrayLike
) -> DensitySlice:
    """A density (n_points,) in the plane of constant z through the first atom.

    Raises:
        SpaceError: for a density of the wrong shape.
    """
    space.check_matches(structure)
    low = np.array([float(axis.edges[0]) for axis in space.axes])
    atoms, lengths = structure.positions_in_box(low), np.array(space.lengths)
    height = atoms[0, 2]
    counts = np.maximum(2, np.round(_PIXELS * lengths[:2] / lengths[:2].max()).astype(int))
    # the centres of equal pixels
    coordinates = [low[i] + lengths[i] * (np.arange(c) + 0.5) / c for i, c in enumerate(counts)]
    plane = grid_values(space, density, [*coordinates, [height]], root=True)[:, :, 0]
    away = atoms[:, 2] - height
    if space.axes[2].periodic:
        away -= lengths[2] * np.round(away / lengths[2])
    left, bottom, right, top = BOHR_IN_ANGSTROM * np.append(low[:2], (low + lengths)[:2])
    return DensitySlice(
        FIELDS["density"].unit.factor * plane,
        (left, right, bottom, top),
        atoms[np.abs(away) <= _THICKNESS, :2] * BOHR_IN_ANGSTROM,
    )


def draw_slice(
    figure: Figure, axes: Axes, piece: DensitySlice, title: str, *, signed: bool = False
) -> None:
    """A plane with its colour bar and the atoms in it as circles.

    Args:
        signed: colours are centred on zero, as for errors.
    """
    from matplotlib.ticker import ScalarFormatter

    low, high = float(piece.values.min()), float(piece.values.max())
    if signed:
        high = max(-low, high) or 1.0
        low = -high
    picture = axes.imshow(
        piece.values.T,
        cmap="RdBu_r" if signed else "viridis",
        origin="lower",
        extent=piece.extent,
        interpolation="bilinear",
        vmin=low,
        vmax=high,
    )
    edge = "black" if signed else "white"
    x, y = piece.atoms.T
    axes.scatter(x, y, s=36, facecolor="none", edgecolor=edge, linewidth=1.1)
    axes.grid(visible=False)
    axes.set(xlim=piece.extent[:2], ylim=piece.extent[2:], title=title)
    axes.set(xlabel="x (angstrom)", ylabel="y (angstrom)")
    ticks = ScalarFormatter()
    ticks.set_powerlimits((-2, 3))
    label = "electron/angstrom$^3$"
    figure.colorbar(picture, ax=axes, shrink=0.86, format=ticks, label=label)
