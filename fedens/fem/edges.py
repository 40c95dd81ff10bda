"""Where the elements of an axis begin and end."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedens.errors import SpaceError

Array = NDArray[np.float64]


def uniform_edges(
    lengths: Sequence[float] | None, elements: int | Sequence[int], origin: Sequence[float]
) -> list[Array]:
    """Edges of equal elements along three axes, bohr."""
    counts = (elements,) * 3 if isinstance(elements, int | np.integer) else tuple(elements)
    if lengths is None or len(lengths) != 3 or len(counts) != 3:
        raise SpaceError("give 3 box lengths (bohr) and 1 or 3 element counts, or edges")
    if min(lengths) <= 0 or min(counts) < 1:
        raise SpaceError(f"box {list(lengths)} bohr with {list(counts)} elements: not positive")
    return [
        o + np.linspace(0.0, length, n + 1)
        for o, length, n in zip(origin, lengths, counts, strict=True)
    ]


def whole_elements(elements: float) -> int:
    """Whole number of elements: rounded up unless a fifth of one is at stake."""
    return max(1, math.ceil(elements - 0.2))


def graded_edges(low: float, high: float, inner: float, margin: float, growth: float) -> Array:
    """Equal elements over the atoms' range, geometrically longer ones out to the margin."""
    if growth < 1.0 or margin <= 0:
        raise SpaceError(f"growth is {growth}, margin {margin} bohr: need growth >= 1, margin > 0")
    core = max(2, math.ceil((high - low + 2 * inner) / inner))
    core += core % 2  # an edge in the middle keeps a single atom on an element boundary
    half = core * inner / 2
    centre = (low + high) / 2
    wall = (high - low) / 2 + margin
    outer = []
    position, size = half, inner
    while position < wall - 1e-9:
        size *= growth
        position += size
        outer.append(position)
    if outer:
        # shrink the outer elements together so that the last one ends on the wall
        shrink = (wall - half) / (outer[-1] - half)
        outer = [half + (p - half) * shrink for p in outer]
    inside = np.linspace(-half, half, core + 1)
    return centre + np.concatenate([-np.array(outer[::-1]), inside, np.array(outer)])
