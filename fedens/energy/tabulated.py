"""Local pseudopotentials known in reciprocal space, brought to real space once as a spline."""

from __future__ import annotations

import hashlib
import math
from abc import abstractmethod
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from torch import Tensor

from fedens.energy.pseudopotential import LARGEST_CUTOFF, LocalPseudopotential, erf_over_r
from fedens.errors import PseudopotentialError
from fedens.units import BOHR_IN_ANGSTROM, HARTREE_IN_EV

Array = NDArray[np.float64]


class TabulatedPseudopotential(LocalPseudopotential):
    """A potential known by its form factor v(q); real space by a sine transform and a spline.

    The short-range part v_sr(q) = v(q) + (4 pi Z/q^2) exp(-q^2 width^2/2) is what is transformed.
    """

    _reference_width = 1.2
    _radial_step = 0.01

    @abstractmethod
    def quadrature(self) -> tuple[Array, Array, Array]:
        """Nodes q, weights, and q^2 v(q) there, covering all q where v(q) matters."""

    @cached_property
    def _table(self) -> tuple[Tensor, float]:
        q, weights, q2v = self.quadrature()
        q2v = q2v + 4 * math.pi * self.valence * np.exp(-0.5 * (q * self._reference_width) ** 2)
        r = np.arange(0.0, LARGEST_CUTOFF + 1, self._radial_step)
        values = np.sinc(np.outer(r, q) / math.pi) @ (weights * q2v) / (2 * math.pi**2)
        alive = np.flatnonzero(np.abs(values) > self.negligible)
        spline = CubicSpline(r, values)
        return torch.tensor(spline.c.T.copy()), float(r[alive[-1]])

    def potential(self, r: Tensor) -> Tensor:
        coefficients, _ = self._table
        knot = torch.floor(r.detach() / self._radial_step).clamp(max=len(coefficients) - 1)
        offset = r - knot * self._radial_step
        a, b, c, d = coefficients.to(r.device)[knot.long()].unbind(-1)
        value = ((a * offset + b) * offset + c) * offset + d
        value = torch.where(r < self._radial_step * len(coefficients), value, 0.0)
        return value - self.valence * erf_over_r(r, 1 / (math.sqrt(2) * self._reference_width))

    def cutoff(self, width: float) -> float:
        return min(super().cutoff(width), self._table[1])


def _panels(largest: float, count: int) -> tuple[Array, Array]:
    """Nodes and weights on [0, largest]: 50 Gauss points in each of ``count`` equal panels."""
    nodes, weights = np.polynomial.legendre.leggauss(50)
    half = largest / count / 2
    starts = 2 * half * np.arange(count)
    return (starts[:, None] + half * (nodes + 1)).ravel(), np.tile(half * weights, count)


class GoodwinNeedsHeine(TabulatedPseudopotential):
    """Aluminium of Goodwin, Needs and Heine, J. Phys.: Condens. Matter 2, 351 (1990).

    v(q) = -(4 pi/q^2) [(Z - A R) cos(q R) + A sin(q R)/q] exp(-(q/q_c)^6)
    """

    kind = "goodwin_needs_heine"
    valence = 3.0
    _radius, _height, _q_cut = 1.15, 0.1107, 3.5

    def quadrature(self) -> tuple[Array, Array, Array]:
        q, weights = _panels(self._q_cut * 40 ** (1 / 6), 8)
        bracket = (self.valence - self._height * self._radius) * np.cos(q * self._radius)
        bracket = bracket + self._height * np.sin(q * self._radius) / q
        return q, weights, -4 * math.pi * bracket * np.exp(-((q / self._q_cut) ** 6))


class Recpot(TabulatedPseudopotential):
    """A ``.recpot`` table (CASTEP; the bulk-derived library BLPS): v(q) in eV angstrom^3.

    Raises:
        PseudopotentialError: when the file is missing, truncated or not in the format.
    """

    kind = "recpot"
    negligible = 1e-8  # tables are not better than this, and noise has no end

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._q, self._v = _read_recpot(self.path)
        # the first entry is v(q) + 4 pi Z/q^2 at q = 0; the second still carries the pole
        charge = (self._v[0] - self._v[1]) * self._q[1] ** 2 / (4 * math.pi)
        self.valence = float(round(charge))
        if self.valence < 1 or abs(charge - self.valence) > 0.1:
            raise PseudopotentialError(
                f"{self.path}: the Coulomb tail carries a charge of {charge:.3f}, expected a whole "
                "valence: not a .recpot table in eV angstrom^3"
            )

    def quadrature(self) -> tuple[Array, Array, Array]:
        q2v = self._q**2 * self._v
        q2v[0] = -4 * math.pi * self.valence  # the file leaves the Coulomb pole out at q = 0
        spline = CubicSpline(self._q, q2v)
        q, weights = _panels(self._q[-1], 40)
        return q, weights, spline(q)

    def describe(self) -> dict[str, Any]:
        digest = hashlib.sha256(self.path.read_bytes()).hexdigest()
        return {"kind": self.kind, "path": str(self.path), "sha256": digest}


def _read_recpot(path: Path) -> tuple[Array, Array]:
    if not path.is_file():
        raise PseudopotentialError(f"no pseudopotential file {path}")
    lines = path.read_text(errors="replace").splitlines()
    try:
        start = next(i for i, line in enumerate(lines) if "END COMMENT" in line) + 1
        largest = float(lines[start + 1])
        numbers: list[float] = []
        for line in lines[start + 2 :]:
            words = line.split()
            if words == ["1000"]:
                break
            numbers.extend(float(word) for word in words)
        else:
            raise PseudopotentialError(f"{path} ends before its closing line '1000': truncated?")
    except (StopIteration, IndexError, ValueError) as error:
        raise PseudopotentialError(
            f"{path} is not a .recpot file: expected a comment block ending in 'END COMMENT', a "
            f"version line, the largest q (1/angstrom) and a table ({error})"
        ) from error
    if len(numbers) < 10:
        raise PseudopotentialError(f"{path} holds {len(numbers)} values: too few for a potential")
    q = np.linspace(0, largest * BOHR_IN_ANGSTROM, len(numbers))
    return q, np.array(numbers) / (HARTREE_IN_EV * BOHR_IN_ANGSTROM**3)
