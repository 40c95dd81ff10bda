"""Local pseudopotentials known in reciprocal space, at equal steps of q.

In periodic cells their sum over atoms is a Fourier series. In real space, for everything else,
they are a sine transform, kept as a spline.
"""

from __future__ import annotations

import hashlib
import math
import re
from abc import abstractmethod
from collections.abc import Callable
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.fft import dst
from scipy.interpolate import CubicSpline
from torch import Tensor

from fedens.energy.pseudopotential import LARGEST_CUTOFF, LocalPseudopotential, erf_over_r
from fedens.errors import PseudopotentialError
from fedens.units import BOHR_IN_ANGSTROM, HARTREE_IN_EV

Array = NDArray[np.float64]

#: Valence densities hold no shorter waves, 1/bohr (orbitals to 18 hartree make none).
_LARGEST_WAVE = 12.0


class TabulatedPseudopotential(LocalPseudopotential):
    """A potential known by its form factor v(q) at q = 0, step, 2 step, ..."""

    #: Width of the Gaussian charge beside which the sine transform is taken, bohr.
    _reference_width = 1.2
    _radial_step = 0.01

    @abstractmethod
    def samples(self) -> tuple[float, Array]:
        """Step of q, 1/bohr, and v(q), hartree bohr^3; the first without the pole -4 pi Z/q^2."""

    def form_factor(self, width: float) -> tuple[Callable[[Tensor], Tensor], float]:
        return _form_factor(self, width)

    def short_range_samples(self, width: float) -> tuple[Array, Array]:
        """q, 1/bohr, and v(q) + (4 pi Z/q^2) exp(-q^2 width^2/2); q as far as densities have it."""
        step, v = self.samples()
        v = v[: math.ceil(_LARGEST_WAVE / step)]
        q = np.arange(len(v), dtype=np.float64) * step
        coulomb = 4 * math.pi * self.valence * np.exp(-0.5 * (q[1:] * width) ** 2) / q[1:] ** 2
        origin = v[0] - 2 * math.pi * self.valence * width**2
        short_range: Array = np.append(origin, v[1:] + coulomb)
        return q, short_range

    def ended(self, r: Array, values: Array) -> Array:  # noqa: ARG002
        """The short-range part in real space, (n,), with an end where its tail is noise."""
        return values

    @cached_property
    def _spline(self) -> _Spline:
        r, values = _sine_transform(
            *self.short_range_samples(self._reference_width), self._radial_step
        )
        near = r <= LARGEST_CUTOFF
        return _Spline(float(r[1]), self.ended(r[near], values[near]))

    def potential(self, r: Tensor) -> Tensor:
        return self._spline(r) - self._charge(r, self._reference_width)

    def short_range(self, r: Tensor, width: float) -> Tensor:
        value = self._spline(r)
        if width == self._reference_width:
            return value
        return value + self._charge(r, width) - self._charge(r, self._reference_width)

    def _charge(self, r: Tensor, width: float) -> Tensor:
        return self.valence * erf_over_r(r, 1 / (math.sqrt(2) * width))


class _Spline:
    """Cubic spline through values (n,) at equal steps from 0 on; zero beyond them."""

    def __init__(self, step: float, values: Array):
        self.step = step
        spline = CubicSpline(step * np.arange(len(values)), values)
        self.coefficients = torch.tensor(spline.c.T.copy())

    def __call__(self, x: Tensor) -> Tensor:
        coefficients = self.coefficients.to(x.device)
        knot = torch.floor(x.detach() / self.step)
        inside = knot < len(coefficients)
        a, b, c, d = coefficients[knot.clamp(max=len(coefficients) - 1).long()].unbind(-1)
        offset = x - knot * self.step
        return torch.where(inside, ((a * offset + b) * offset + c) * offset + d, 0.0)


@lru_cache(maxsize=64)
def _form_factor(
    pseudopotential: TabulatedPseudopotential, width: float
) -> tuple[Callable[[Tensor], Tensor], float]:
    q, values = pseudopotential.short_range_samples(width)
    alive = np.flatnonzero(np.abs(values) > 1e-9)
    return _Spline(float(q[1]), values), float(q[alive[-1]])


def _sine_transform(q: Array, v: Array, step: float) -> tuple[Array, Array]:
    """r and v(r) = int q^2 v(q) sin(q r)/(q r) dq / (2 pi^2), at steps of about ``step`` bohr.

    By the trapezoidal rule, which is exact for what is smooth and even in q.
    """
    n = max(round(math.pi / (q[1] * step)), len(q) + 1)
    padded = np.zeros(n - 1)
    padded[: len(q) - 1] = q[1:] * v[1:]
    r = math.pi / (n * q[1]) * np.arange(n)
    origin = 2 * np.sum(q**2 * v)
    return r, q[1] / (4 * math.pi**2) * np.append(origin, dst(padded, type=1) / r[1:])


class GoodwinNeedsHeine(TabulatedPseudopotential):
    """Aluminium of Goodwin, Needs and Heine, J. Phys.: Condens. Matter 2, 351 (1990).

    v(q) = -(4 pi/q^2) [(Z - A R) cos(q R) + A sin(q R)/q] exp(-(q/q_c)^6)
    """

    kind = "goodwin_needs_heine"
    valence = 3.0
    _radius, _height, _q_cut = 1.15, 0.1107, 3.5

    def samples(self) -> tuple[float, Array]:
        step, radius, height = 0.005, self._radius, self._height
        q = np.arange(step, self._q_cut * 40 ** (1 / 6), step)
        rest = self.valence - height * radius
        bracket = rest * np.cos(q * radius) + height * np.sin(q * radius) / q
        values = -4 * math.pi / q**2 * bracket * np.exp(-((q / self._q_cut) ** 6))
        origin = 4 * math.pi * (rest * radius**2 / 2 + height * radius**3 / 6)
        return step, np.append(origin, values)


class Recpot(TabulatedPseudopotential):
    """A ``.recpot`` table (CASTEP; the bulk-derived library BLPS): v(q) in eV angstrom^3.

    Attributes:
        xc_family: ``lda`` or ``gga``, what the table was made for, by the file's name or, where
            that doesn't say, by its comment; None if neither does.

    Raises:
        PseudopotentialError: when the file is missing, truncated or not in the format.
    """

    kind = "recpot"
    #: In real space the tail is noise beyond these, bohr, and fades out between them (the longest
    #: of BLPS, silicon's LDA table, reaches 10.5).
    _fade = (10.5, 12.0)

    def __init__(self, path: str | Path):
        self.path = Path(path)
        comment, largest, self._v = _read_recpot(self.path)
        step = largest / (len(self._v) - 1)
        # the first entry is v(q) + 4 pi Z/q^2 at q = 0; the second still carries the pole
        charge = (self._v[0] - self._v[1]) * step**2 / (4 * math.pi)
        self.valence = float(round(charge))
        if self.valence < 1 or abs(charge - self.valence) > 0.1:
            raise PseudopotentialError(
                f"{self.path}: the Coulomb tail carries a charge of {charge:.3f}, expected a whole "
                "valence: not a .recpot table in eV angstrom^3"
            )
        self._step = _step_of_whole_charge(self._v, step, self.valence)
        self.xc_family = _xc_family(self.path.name) or _xc_family(comment)

    def samples(self) -> tuple[float, Array]:
        return self._step, self._v

    def ended(self, r: Array, values: Array) -> Array:
        low, high = self._fade
        x = ((r - low) / (high - low)).clip(0, 1)
        window = 1 - x**3 * (10 - 15 * x + 6 * x**2)
        shell = 4 * math.pi * r**2 * r[1]
        # what is left keeps the integral, v(q = 0) of the table: that shifts all energies
        _, form_factor = self.short_range_samples(self._reference_width)
        lost = form_factor[0] - shell @ (window * values)
        finite: Array = window * (values + lost / (shell @ window))
        return finite

    def describe(self) -> dict[str, Any]:
        digest = hashlib.sha256(self.path.read_bytes()).hexdigest()
        return {"kind": self.kind, "path": str(self.path), "sha256": digest}


def _step_of_whole_charge(v: Array, step: float, valence: float) -> float:
    """The step of q with which the pole -4 pi Z/q^2 of a table has a whole Z, 1/bohr.

    (Largest q)/(count - 1) is not always it: BLPS tables for GGA have one number too many.
    """
    k = np.arange(1.0, max(8, round(0.1 / step)))
    powers = np.stack([k**0, k**2, k**4, k**6], axis=1)
    pole = np.linalg.lstsq(powers, v[1 : len(k) + 1] * k**2)[0][0]
    return math.sqrt(4 * math.pi * valence / -pole)


def _xc_family(text: str) -> str | None:
    words = set(re.split(r"[^a-z]+", text.lower()))
    lda, gga = "lda" in words, not words.isdisjoint({"gga", "pbe"})
    if lda == gga:
        return None
    return "lda" if lda else "gga"


def _read_recpot(path: Path) -> tuple[str, float, Array]:
    """Comment, largest q in 1/bohr, and v(q) in hartree bohr^3."""
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
    values = np.array(numbers) / (HARTREE_IN_EV * BOHR_IN_ANGSTROM**3)
    return "\n".join(lines[:start]), largest * BOHR_IN_ANGSTROM, values
