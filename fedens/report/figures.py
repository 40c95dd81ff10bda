"""Curves and clouds of points as PNG bytes. matplotlib is used without its global state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedens.errors import OutputError
from fedens.units import HARTREE_IN_EV

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREY = "#1f5fa8", "#d9722e", "#8a94a3"
#: Colours of several curves, distinguishable for the colour-blind (Okabe and Ito).
CURVES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MARKERS = "osD^vP"
PIXELS_PER_INCH = 150


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
    return as_png(figure)


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
    return as_png(figure)


def _against_each_other(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    limits: tuple[float, float],
    notes: Sequence[str],
) -> tuple[Figure, Axes]:
    """A square picture of points, the line where both are equal, and notes in the corner."""
    figure, (axes,) = new_figure(4.6, 4.6)
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


def loss_curve(steps: ArrayLike, training: ArrayLike, validation: ArrayLike = ()) -> bytes:
    """Loss against training step, logarithmic, with the validation loss where it is known. PNG.

    Args:
        validation: as many as steps, NaN where it was not measured; or none.
    """
    figure, (axes,) = new_figure(5.6, 3.8)
    x, held_out = np.asarray(steps), np.asarray(validation, dtype=np.float64)
    axes.plot(x, np.asarray(training), color=BLUE, linewidth=1.2, label="training")
    known = np.isfinite(held_out)
    if known.any():
        style: dict[str, Any] = {"color": ORANGE, "linewidth": 1.6, "marker": "o", "markersize": 3}
        axes.plot(x[known], held_out[known], label="validation", **style)
        axes.legend(frameon=False)
    axes.set(xlabel="step", ylabel="loss", yscale="log")
    return as_png(figure)


def learning_curve(
    sizes: ArrayLike, errors: Mapping[str, ArrayLike], unit: str, label: str = "error"
) -> bytes:
    """Errors (name -> one value per size) against the number of training structures. PNG."""
    figure, (axes,) = new_figure(5.6, 3.8)
    x = np.asarray(sizes)
    for i, (name, values) in enumerate(errors.items()):
        colour, marker = CURVES[i % len(CURVES)], MARKERS[i % len(MARKERS)]
        axes.plot(x, np.asarray(values), color=colour, marker=marker, label=name)
    axes.set(xscale="log", yscale="log")
    axes.set_xticks(x, [f"{value:g}" for value in x])
    axes.set_xticks([], minor=True)
    axes.set(xlabel="training structures", ylabel=f"{label} ({unit})")
    axes.legend(frameon=False)
    return as_png(figure)


def density_of_states_plot(
    energies: ArrayLike, states: ArrayLike, chemical_potential: float
) -> bytes:
    """Density of states against the energy above the chemical potential, filled below it. PNG.

    Args:
        energies: (n,), hartree, ascending. states: (n,), states per hartree.
        chemical_potential: hartree.

    Raises:
        OutputError: for arrays of different shapes, fewer than two numbers, or such that are not
            finite.
    """
    x = (np.asarray(energies, dtype=np.float64) - chemical_potential) * HARTREE_IN_EV
    y = np.asarray(states, dtype=np.float64) / HARTREE_IN_EV
    if x.shape != y.shape or x.ndim != 1 or len(x) < 2 or not np.isfinite([x, y]).all():
        raise OutputError(
            f"density of states: {x.size} energies and {y.size} values; expected as many of each, "
            "at least two, all finite"
        )
    figure, (axes,) = new_figure(5.6, 3.8)
    axes.plot(x, y, color=BLUE, linewidth=1.6)
    axes.fill_between(x, y, where=(x <= 0).tolist(), color=BLUE, alpha=0.25, linewidth=0)
    axes.axvline(0.0, color=GREY, linestyle="--", linewidth=1.2)
    axes.set(xlabel="energy above the chemical potential (eV)", ylabel="states per eV and cell")
    axes.set_ylim(bottom=0.0)
    return as_png(figure)


def new_figure(width: float, height: float, columns: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure of some inches with axes side by side."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=PIXELS_PER_INCH, layout="constrained")
    all_axes = list(np.atleast_1d(figure.subplots(1, columns)))
    for axes in all_axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#e8ebf0", linewidth=0.8)
        axes.set_axisbelow(True)
    return figure, all_axes


def as_png(figure: Figure) -> bytes:
    """The figure's PNG file."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", bbox_inches="tight", pad_inches=0.08)
    return buffer.getvalue()


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
    figure, (axes,) = new_figure(5.6, 4.2)
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
    return as_png(figure)


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

    figure, all_axes = new_figure(5.4 * len(panels), 4.6, len(panels))
    for axes, (title, (points, arrows, values)) in zip(all_axes, panels.items(), strict=True):
        (x, y), along = np.asarray(points).T, np.asarray(arrows)
        colours = np.asarray(values, dtype=np.float64)
        largest = float(colours.max()) or 1.0
        norm = LogNorm(1e-4 * largest, largest)
        longest = float(np.linalg.norm(along, axis=1).max()) or 1.0
        shown = np.maximum(colours, 1e-4 * largest)
        picture = axes.scatter(x, y, c=shown, norm=norm, s=26, cmap="viridis")
        dx, dy = along.T / longest * (float(np.ptp(x)) / 12 or 1.0)
        axes.quiver(x, y, dx, dy, angles="xy", scale_units="xy", scale=1, width=0.003)
        axes.set(aspect="equal", title=title, xlabel=f"x ({unit})", ylabel=f"y ({unit})")
        axes.grid(visible=False)
        figure.colorbar(picture, ax=axes, shrink=0.86, label=value)
    return as_png(figure)
