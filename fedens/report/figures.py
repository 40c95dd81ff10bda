"""Pictures for the report, as PNG bytes. matplotlib is used without its global state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fedens.errors import OutputError
from fedens.fem.mesh import grid_values
from fedens.fem.tensor import TensorSpace
from fedens.fields import is_density
from fedens.output.naming import field_unit, inside_box
from fedens.structure import Structure
from fedens.units import BOHR_IN_ANGSTROM

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREY = "#1f5fa8", "#d9722e", "#8a94a3"
#: Colours of several curves, distinguishable for the colour-blind (Okabe and Ito).
CURVES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MARKERS = "osD^vP"
PIXELS_PER_INCH = 150


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
    shown = field_unit(name, {name: unit} if unit else None)
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
        values=shown.factor * plane,
        extent=(ends[0], ends[1], ends[2], ends[3]),
        title=title or f"{name} at {'xyz'[axis]} = {position * BOHR_IN_ANGSTROM:.2f} angstrom",
        unit=shown.in_files,
        labels=("xyz"[across[0]], "xyz"[across[1]]),
        atoms=atoms[near][:, across] * BOHR_IN_ANGSTROM,
        signed=signed,
    )


def slices_figure(slices: Sequence[FieldSlice]) -> bytes:
    """Planes side by side, each with its colour bar and the atoms in it as circles. PNG.

    Slices of one unit that are not ``signed`` share one colour scale, to be compared.
    """
    if not slices:
        raise OutputError("a figure of slices needs at least one slice")
    figure, all_axes = _figure(5.2 * len(slices), 4.4, len(slices))
    for axes, piece in zip(all_axes, slices, strict=True):
        _draw_slice(figure, axes, piece, _colour_limits(slices, piece))
    return _png(figure)


def parity_plot(
    reference: ArrayLike,
    predicted: ArrayLike,
    quantity: str,
    unit: str,
    *,
    error_unit: str | None = None,
    error_factor: float = 1.0,
) -> bytes:
    """Predicted against reference values, with mean absolute error and spread in a corner. PNG.

    Args:
        reference, predicted: arrays of the same shape, in ``unit``.
        quantity: what they are, such as ``"energy per atom"``.
        error_unit, error_factor: unit of the error and its size, such as ``"meV"``, 1000.

    Raises:
        OutputError: for arrays of different shapes, empty ones, or numbers that are not finite.
    """
    x, y = (np.asarray(values, dtype=np.float64).ravel() for values in (reference, predicted))
    if x.shape != y.shape or not len(x) or not np.isfinite(np.concatenate([x, y])).all():
        raise OutputError(
            f"parity plot of {quantity}: {len(x)} reference and {len(y)} predicted values; "
            "expected as many of each, at least one, all finite"
        )
    low, high = min(x.min(), y.min()), max(x.max(), y.max())
    pad = 0.05 * (high - low) or 1.0
    mae, spread = np.abs(y - x).mean() * error_factor, x.std() * error_factor
    lines = [f"MAE {mae:.3g}", f"spread of reference {spread:.3g}"]
    lines = [f"{line} {error_unit or unit}" for line in lines]
    figure, axes = _against_each_other(x, y, (low - pad, high + pad), lines)
    axes.set_xlabel(f"reference {quantity} ({unit})")
    axes.set_ylabel(f"predicted {quantity} ({unit})")
    return _png(figure)


def calibration_plot(
    uncertainty: ArrayLike, error: ArrayLike, quantity: str, unit: str, notes: Sequence[str] = ()
) -> bytes:
    """Actual against estimated errors on logarithmic axes, with the line where they agree. PNG.

    Args:
        uncertainty, error: arrays of the same shape, in ``unit``; pairs in which one is zero do
            not show.
        quantity: what they are of, such as ``"energy per atom"``.
        notes: lines in the corner, such as the correlation.

    Raises:
        OutputError: for arrays of different shapes, or without a pair of positive finite numbers.
    """
    x, y = (np.abs(np.asarray(values, dtype=np.float64)).ravel() for values in (uncertainty, error))
    shown = np.zeros(0, dtype=bool)
    if len(x) == len(y):
        shown = (x > 0) & (y > 0) & np.isfinite(x + y)
    if not shown.any():
        raise OutputError(
            f"calibration plot of {quantity}: {len(x)} uncertainties and {len(y)} errors; expected "
            "as many of each, at least one pair of positive finite numbers"
        )
    x, y = x[shown], y[shown]
    limits = (0.7 * min(x.min(), y.min()), 1.4 * max(x.max(), y.max()))
    figure, axes = _against_each_other(x, y, limits, notes)
    _logarithmic(axes, limits)
    axes.set_xlabel(f"estimated error of the {quantity} ({unit})")
    axes.set_ylabel(f"actual error of the {quantity} ({unit})")
    return _png(figure)


def _against_each_other(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    limits: tuple[float, float],
    notes: Sequence[str],
) -> tuple[Figure, Axes]:
    """A square picture of points, the line where both are equal, and notes in the corner."""
    figure, (axes,) = _figure(4.6, 4.6)
    axes.plot(limits, limits, color=GREY, linewidth=1, zorder=1)
    size = 28 if len(x) <= 200 else 7
    axes.scatter(x, y, s=size, color=BLUE, alpha=0.65, linewidth=0, zorder=2)
    axes.set(xlim=limits, ylim=limits, aspect="equal")
    text = "\n".join([*notes, f"{len(x)} values"])
    box = {"boxstyle": "round", "facecolor": "white", "edgecolor": "#dde2e9"}
    axes.text(0.04, 0.96, text, transform=axes.transAxes, va="top", bbox=box)
    return figure, axes


def _logarithmic(axes: Axes, limits: tuple[float, float]) -> None:
    """Both axes logarithmic, with plain numbers at 1, 2 and 5 where decades would be too few."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axes.set(xscale="log", yscale="log")
    steps = (1.0, 2.0, 5.0) if limits[1] < 100 * limits[0] else (1.0,)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=steps))
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_formatter(NullFormatter())


def loss_curve(
    steps: ArrayLike,
    train: ArrayLike,
    validation: ArrayLike | None = None,
    *,
    validation_steps: ArrayLike | None = None,
    label: str = "loss",
) -> bytes:
    """Loss against training step, logarithmic, with the validation loss if there is one. PNG."""
    figure, (axes,) = _figure(5.6, 3.8)
    axes.plot(np.asarray(steps), np.asarray(train), color=BLUE, linewidth=1.2, label="training")
    if validation is not None:
        at = steps if validation_steps is None else validation_steps
        style: dict[str, Any] = {"color": ORANGE, "linewidth": 1.6, "marker": "o", "markersize": 3}
        axes.plot(np.asarray(at), np.asarray(validation), label="validation", **style)
        axes.legend(frameon=False)
    axes.set(xlabel="step", ylabel=label, yscale="log")
    return _png(figure)


def learning_curve(
    sizes: ArrayLike, errors: Mapping[str, ArrayLike], unit: str, label: str = "error"
) -> bytes:
    """Errors (name -> one value per size) against the number of training structures. PNG."""
    figure, (axes,) = _figure(5.6, 3.8)
    x = np.asarray(sizes)
    for i, (name, values) in enumerate(errors.items()):
        colour, marker = CURVES[i % len(CURVES)], MARKERS[i % len(MARKERS)]
        axes.plot(x, np.asarray(values), color=colour, marker=marker, label=name)
    axes.set(xscale="log", yscale="log")
    axes.set_xticks(x, [f"{value:g}" for value in x])
    axes.set_xticks([], minor=True)
    axes.set(xlabel="training structures", ylabel=f"{label} ({unit})")
    axes.legend(frameon=False)
    return _png(figure)


def _figure(width: float, height: float, columns: int = 1) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=PIXELS_PER_INCH, layout="constrained")
    all_axes = list(np.atleast_1d(figure.subplots(1, columns)))
    for axes in all_axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#e8ebf0", linewidth=0.8)
        axes.set_axisbelow(True)
    return figure, all_axes


def _png(figure: Figure) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format="png", bbox_inches="tight", pad_inches=0.08)
    return buffer.getvalue()


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


def power_law_plot(
    curves: Mapping[str, tuple[ArrayLike, ArrayLike]],
    xlabel: str,
    ylabel: str,
    slopes: Mapping[str, float] | None = None,
) -> bytes:
    """Curves (name -> x, y) on logarithmic axes, with lines of given slopes for comparison. PNG.

    Args:
        curves: numbers that are not finite and positive are left out.
        slopes: name of a line -> its exponent; each starts at the first point of the curve in the
            same place of the order.

    Raises:
        OutputError: no curve has a point.
    """
    figure, (axes,) = _figure(5.6, 4.2)
    drawn = []
    for i, (name, (x, y)) in enumerate(curves.items()):
        xs, ys = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
        kept = (xs > 0) & (ys > 0) & np.isfinite(xs + ys)
        drawn.append((xs[kept], ys[kept]))
        style: dict[str, Any] = {"color": CURVES[i % len(CURVES)], "marker": MARKERS[i % 6]}
        axes.plot(xs[kept], ys[kept], markersize=5, label=name, **style)
    if not any(len(xs) for xs, _ in drawn):
        raise OutputError(f"{ylabel} against {xlabel}: no positive finite numbers to draw")
    for (name, exponent), (xs, ys) in zip((slopes or {}).items(), drawn, strict=False):
        if len(xs):
            line = ys[0] * (xs / xs[0]) ** exponent
            axes.plot(xs, line, color=GREY, linestyle="--", linewidth=1.2, label=name)
    axes.set(xscale="log", yscale="log", xlabel=xlabel, ylabel=ylabel)
    from matplotlib.ticker import NullFormatter, StrMethodFormatter

    every = np.unique(np.concatenate([xs for xs, _ in drawn]))
    axes.set_xticks(every[:: -(-len(every) // 8)])
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:.2g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.legend(frameon=False, fontsize=8)
    return _png(figure)


def arrows_figure(
    panels: Mapping[str, tuple[ArrayLike, ArrayLike, ArrayLike]], unit: str, value: str
) -> bytes:
    """Arrows at points in a plane, coloured by the logarithm of a value, panels side by side. PNG.

    Arrows are scaled to the longest of each panel.

    Args:
        panels: title -> points (n, 2), arrows (n, 2), values (n,).
        unit: of the points. value: what the colours show.
    """
    from matplotlib.colors import LogNorm

    figure, all_axes = _figure(5.4 * len(panels), 4.6, len(panels))
    for axes, (title, (points, arrows, values)) in zip(all_axes, panels.items(), strict=True):
        at, along = np.asarray(points), np.asarray(arrows)
        colours = np.asarray(values, dtype=np.float64)
        largest = float(colours.max()) or 1.0
        norm = LogNorm(1e-4 * largest, largest)
        longest = float(np.linalg.norm(along, axis=1).max()) or 1.0
        shown = np.maximum(colours, 1e-4 * largest)
        picture = axes.scatter(at[:, 0], at[:, 1], c=shown, norm=norm, s=26, cmap="viridis")
        spacing = float(np.ptp(at[:, 0])) / 12 or 1.0
        axes.quiver(
            at[:, 0],
            at[:, 1],
            *(along / longest * spacing).T,
            angles="xy",
            scale_units="xy",
            scale=1,
            width=0.003,
        )
        axes.set(aspect="equal", title=title, xlabel=f"x ({unit})", ylabel=f"y ({unit})")
        axes.grid(visible=False)
        figure.colorbar(picture, ax=axes, shrink=0.86, label=value)
    return _png(figure)
