"""Points of the Brillouin zone, in units of the reciprocal lattice vectors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from fedens.errors import SamplingError

if TYPE_CHECKING:
    from fedens.structure import Structure

Array = NDArray[np.float64]

#: Points closer than this, in units of the reciprocal lattice vectors, are the same.
SAME_POINT = 1e-7
#: Along an axis.
_MOST_POINTS = 10_000


@dataclass(frozen=True, eq=False)
class KPoints:
    """A weighted list of k-points; arrays are float64 and read-only.

    Args:
        points: (n, 3), in units of the reciprocal lattice vectors; kept in (-1/2, 1/2].
        weights: (n,), positive, with the sum 1.

    Raises:
        SamplingError: for wrong shapes, numbers that are not finite, weights that are not
            positive or do not add up to 1, a point that comes twice.
    """

    points: Array
    weights: Array

    def __init__(self, points: ArrayLike, weights: ArrayLike):
        given = _numbers("points", points, 2)
        for name, value in {
            "points": _folded(given),
            "weights": _numbers("weights", weights, 1),
        }.items():
            value.setflags(write=False)
            object.__setattr__(self, name, value)
        self._validate()

    def _validate(self) -> None:
        n = len(self.points)
        if n == 0 or self.points.shape != (n, 3) or self.weights.shape != (n,):
            raise SamplingError(
                f"k-points have shape {self.points.shape}, weights {self.weights.shape}; "
                "expected (n, 3) and (n,) with at least one point"
            )
        if (self.weights <= 0).any():
            worst = int(np.argmin(self.weights))
            raise SamplingError(
                f"weight of k-point {worst} is {self.weights[worst]:g}: weights must be positive; "
                "leave out points without weight"
            )
        if abs(self.weights.sum() - 1) > 1e-9:
            raise SamplingError(
                f"weights of the k-points add up to {self.weights.sum():.12g}, expected 1: "
                "divide them by their sum"
            )
        pairs = _tree(self.points).query_pairs(SAME_POINT)
        if pairs:
            first, second = min(pairs)
            raise SamplingError(
                f"k-points {first} and {second} are the same, {self.points[first].tolist()}: "
                "keep one and add the weights"
            )

    def __len__(self) -> int:
        return len(self.points)

    @classmethod
    def from_spacing(cls, structure: Structure, spacing: float) -> KPoints:
        """The shifted mesh whose points are at most ``spacing`` (1/bohr) apart along each axis.

        Isolated structures get the one point 0.

        Raises:
            SamplingError: a spacing that is no positive number.
        """
        if not 0 < spacing < math.inf:
            raise SamplingError(f"k-spacing is {spacing} per bohr, expected a positive number")
        if structure.cell is None or not structure.periodic:
            return monkhorst_pack((1, 1, 1))
        # a spacing written with a few digits asks for no further point
        counts = _reciprocal_lengths(structure.cell) / spacing - 1e-6
        return monkhorst_pack([max(1, math.ceil(count)) for count in counts])

    def spacing(self, cell: ArrayLike | None) -> float | None:
        """Largest distance of neighbours along the axes of a whole mesh, 1/bohr.

        ``cell``: (3, 3) rows are lattice vectors, bohr. ``None`` where there is no cell, or where
        the points are no whole mesh of equal weights.
        """
        if cell is None or np.ptp(self.weights) > 1e-9:
            return None
        counts = [_count_equidistant(self.points[:, axis]) for axis in range(3)]
        if math.prod(counts) != len(self):
            return None
        lengths = _reciprocal_lengths(np.asarray(cell, dtype=np.float64))
        return float((lengths / counts).max())

    def index_of(self, points: Array) -> NDArray[np.int64]:
        """Index (n,) of each of ``points`` (n, 3), modulo 1, in this list; -1 where it is not."""
        _, found = _tree(self.points).query(points, distance_upper_bound=SAME_POINT)
        return np.where(found < len(self), found, -1)

    def joined(self, representatives: NDArray[np.int64]) -> KPoints:
        """The points that represent others: weights are added, the order is kept.

        ``representatives``: index (n,) of the point that stands for each one.
        """
        kept = np.unique(representatives)
        weights = np.bincount(representatives, weights=self.weights, minlength=len(self))
        return KPoints(self.points[kept], weights[kept])

    def reduced_by_time_reversal(self) -> KPoints:
        """Of k and -k, whose orbitals are complex conjugates, the one that comes first."""
        partner = self.index_of(-self.points)
        itself = np.arange(len(self))
        return self.joined(np.where(partner < 0, itself, np.minimum(partner, itself)))

    def check_matches(self, periodic: Sequence[bool]) -> None:
        """Raise a :class:`SamplingError` for a coordinate along an axis that does not repeat."""
        wrong = (np.abs(self.points) > SAME_POINT) & ~np.asarray(periodic, dtype=bool)
        if wrong.any():
            point, axis = np.argwhere(wrong)[0]
            raise SamplingError(
                f"k-point {point} is {self.points[point].tolist()}, but nothing repeats along "
                f"{'xyz'[axis]}: on an isolated axis give one point with the coordinate 0"
            )


def monkhorst_pack(size: Sequence[int], gamma_centred: bool = False) -> KPoints:
    """The whole mesh of Monkhorst and Pack, Phys. Rev. B 13, 5188 (1976).

    Args:
        size: number q of points along each of the three axes.
        gamma_centred: coordinates r/q, r = 0 to q - 1, instead of (2 r - q - 1)/(2 q),
            r = 1 to q. They differ where q is even.

    Raises:
        SamplingError: anything but three whole numbers from 1 on.
    """
    counts = np.asarray(size).tolist()
    if np.shape(size) != (3,) or any(q not in range(1, _MOST_POINTS) for q in counts):
        raise SamplingError(
            f"k-point mesh is {counts}, expected three whole numbers from 1 on, such as (4, 4, 4)"
        )
    axes = []
    for q in map(int, counts):
        r = np.arange(1, q + 1)
        axes.append((r - 1) / q if gamma_centred else (2 * r - q - 1) / (2 * q))
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    return KPoints(points, np.full(len(points), 1 / len(points)))


def as_kpoints(kpoints: KPoints | tuple[Any, Any] | None) -> KPoints:
    """A mesh as it is, points and weights as a list of k-points, nothing as Gamma."""
    if kpoints is None:
        return KPoints([[0.0, 0.0, 0.0]], [1.0])
    if isinstance(kpoints, KPoints):
        return kpoints
    try:
        points, weights = kpoints
    except (TypeError, ValueError) as error:
        raise SamplingError(
            f"kpoints are {kpoints!r}: expected a mesh, such as monkhorst_pack((4, 4, 4)), or "
            "(points, weights)"
        ) from error
    return KPoints(points, weights)


def _numbers(name: str, values: ArrayLike, ndim: int) -> Array:
    try:
        array = np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise SamplingError(f"{name} of the k-points must be numbers: {error}") from error
    if array.ndim != ndim or not np.isfinite(array).all():
        raise SamplingError(
            f"{name} of the k-points have shape {array.shape}, expected {ndim} dimensions and "
            "finite numbers"
        )
    return array


def _folded(points: Array) -> Array:
    """Coordinates in (-1/2, 1/2], modulo 1."""
    return points - np.ceil(points - 0.5 - SAME_POINT)


def _tree(points: Array) -> cKDTree:
    # twice, since a tiny negative number modulo 1 is 1
    return cKDTree(points % 1 % 1, boxsize=1.0)


def _reciprocal_lengths(cell: Array) -> Array:
    """Lengths (3,) of the reciprocal lattice vectors, 1/bohr."""
    return 2 * math.pi * np.linalg.norm(np.linalg.inv(cell), axis=0)


def _count_equidistant(coordinates: Array) -> int:
    """Number of different coordinates of one axis; 0 unless they divide the circle evenly."""
    levels = np.sort(coordinates)
    levels = levels[np.diff(levels, prepend=-np.inf) > SAME_POINT]
    gaps = np.diff(levels, append=levels[0] + 1)
    return len(levels) if np.ptp(gaps) < SAME_POINT else 0
