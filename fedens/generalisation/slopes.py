"""Exponents of a model's errors against the size of its training domain, beside the theory's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import linregress, t

from fedens.errors import FedensError

#: Probability with which a slope lies in its interval.
CONFIDENCE = 0.95
#: Exponents of L in the theory: what is wrong beyond L, and the error's quantity.
THEORY = {
    ("force constants", "geometry"): -1.5,
    ("force constants", "formation_energy"): -3.0,
    ("third order", "geometry"): -4.5,
    ("third order", "formation_energy"): -6.0,
}

Row: TypeAlias = Mapping[str, Any]


def slope(x: ArrayLike, y: ArrayLike) -> tuple[float, float]:
    """The exponent s of a power law y = C x^s, by least squares of the logarithms.

    Returns:
        s, and half the width of its 95 % confidence interval.

    Raises:
        FedensError: fewer than three pairs, or numbers that are not positive.
    """
    xs, ys = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if len(xs) < 3 or len(xs) != len(ys) or not ((xs > 0) & (ys > 0)).all():
        raise FedensError(
            f"a slope needs three pairs of positive numbers or more, got x = {xs.tolist()} and "
            f"y = {ys.tolist()}"
        )
    fit = linregress(np.log(xs), np.log(ys))
    quantile = t.ppf((1 + CONFIDENCE) / 2, len(xs) - 2)
    return float(fit.slope), float(quantile * fit.stderr)


def slopes(far_field: Sequence[Row], fits: Sequence[Row]) -> list[dict[str, Any]]:
    """One row per kind of model and quantity, None where three errors are not known.

    Args:
        far_field: errors of models that are ``wrong`` beyond ``size_lattice_constants``.
        fits: of those fitted within, by ``basis`` and ``observations``.
    """
    rows = []
    for (wrong, quantity), theory in THEORY.items():
        errors = [row for row in far_field if row["wrong"] == wrong]
        rows.append(_row(f"wrong {wrong} beyond L", quantity, errors, theory))
    for basis in ("small", "sufficient"):
        same = [row for row in fits if row["basis"] == basis]
        for kinds in dict.fromkeys(row["observations"] for row in same):
            errors = [row for row in same if row["observations"] == kinds]
            rows.append(_row(f"{basis} basis, {kinds}", "geometry", errors, None))
    return rows


def _row(model: str, quantity: str, rows: Sequence[Row], theory: float | None) -> dict[str, Any]:
    sizes = np.array([row["size_lattice_constants"] for row in rows])
    errors = np.abs([row[quantity] for row in rows])
    good = np.isfinite(errors) & (errors > 0)
    found = slope(sizes[good], errors[good]) if good.sum() >= 3 else (None, None)
    columns = {"model": model, "quantity": quantity, "theory": theory}
    return columns | {"slope": found[0], "half_width_95": found[1]}
