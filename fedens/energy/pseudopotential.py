"""Local pseudopotentials v(r) of an ion, and their short-range rest beside a Gaussian charge.

Each ion is a Gaussian charge of width sigma with integral Z, plus
v_sr(r) = v(r) + Z erf(r / (sqrt(2) sigma)) / r, which is smooth and short-ranged.
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from ase.data import atomic_numbers
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from torch import Tensor

from fedens.errors import PseudopotentialError
from fedens.units import BOHR_IN_ANGSTROM, HARTREE_IN_EV

Array = NDArray[np.float64]

_LARGEST_CUTOFF = 30.0


class LocalPseudopotential(ABC):
    """Local potential of an ion with ``valence`` electrons; lengths in bohr, hartree."""

    kind: ClassVar[str]
    #: Names of the constructor's arguments, kept as attributes, that describe it.
    parameters: ClassVar[tuple[str, ...]] = ()
    valence: float
    #: The short-range part ends where it stays below this, hartree.
    negligible: ClassVar[float] = 1e-11
    #: Whether v(r) is infinite at the nucleus.
    singular: ClassVar[bool] = False

    @abstractmethod
    def potential(self, r: Tensor) -> Tensor:
        """v(r), hartree, at distances r > 0 in bohr."""

    def describe(self) -> dict[str, Any]:
        """Parameters as a JSON-able dict with the key ``kind``."""
        return {"kind": self.kind} | {name: getattr(self, name) for name in self.parameters}

    def short_range(self, r: Tensor, width: float) -> Tensor:
        """v(r) + Z erf(r / (sqrt(2) width)) / r, hartree."""
        return self.potential(r) + self.valence * _erf_over_r(r, 1 / (math.sqrt(2) * width))

    def gaussians(self, width: float) -> tuple[Tensor, Tensor, Tensor] | None:  # noqa: ARG002
        """The short-range part as sum (amplitude + quadratic r^2) exp(-exponent r^2), if it is one.

        Returns:
            exponents, amplitudes, quadratic factors, each (n,); or None.
        """
        return None

    def cutoff(self, width: float) -> float:
        """Distance beyond which the short-range part is negligible, bohr."""
        r = torch.linspace(0.05, _LARGEST_CUTOFF, 3000, dtype=torch.float64)
        alive = torch.nonzero(self.short_range(r, width).abs() > self.negligible)
        return float(r[alive[-1, 0]]) + 0.05 if len(alive) else 0.1

    def coarsest_spacing(self, width: float) -> float:
        """Largest usable element length over order, bohr.

        The spacing at which the mesh's shortest wave, pi / spacing, still holds all but a
        hundredth of the short-range potential's norm.
        """
        return _coarsest_spacing(self, width)

    @cached_property
    def _key(self) -> str:
        return json.dumps(self.describe(), sort_keys=True)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LocalPseudopotential) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        inside = ", ".join(f"{k}={v}" for k, v in self.describe().items() if k != "kind")
        return f"{type(self).__name__}({inside})"


def _erf_over_r(r: Tensor, a: float) -> Tensor:
    """erf(a r)/r, with its limit 2 a / sqrt(pi) at r = 0."""
    x = a * r
    safe = torch.where(x < 1e-4, torch.full_like(x, 1e-4), x)
    series = 2 / math.sqrt(math.pi) * (1 - x**2 / 3)
    return a * torch.where(x < 1e-4, series, torch.erf(safe) / safe)


@lru_cache(maxsize=64)
def _coarsest_spacing(pseudopotential: LocalPseudopotential, width: float) -> float:
    cutoff = pseudopotential.cutoff(width)
    r, dr = np.linspace(1e-3, cutoff, 1500, retstep=True)
    values = pseudopotential.short_range(torch.tensor(r), width).numpy()
    q = np.linspace(0.1, 40.0, 400)
    form_factor = np.sin(np.outer(q, r)) @ (r * values) * dr / q
    norm = np.cumsum((q * form_factor) ** 2)
    lost = 1 - np.sqrt(norm / norm[-1])
    return math.pi / float(q[np.argmax(lost < 1e-2)])


class GTHLocal(LocalPseudopotential):
    """Local part of Goedecker, Teter and Hutter, Phys. Rev. B 54, 1703 (1996).

    v(r) = -(Z/r) erf(r/(sqrt2 r_loc)) + exp(-r^2/(2 r_loc^2)) [c1 + c2 (r/r_loc)^2]
    """

    kind = "gth_local"
    parameters = ("valence", "r_loc", "c1", "c2")

    def __init__(self, valence: float, r_loc: float, c1: float = 0.0, c2: float = 0.0):
        if r_loc <= 0 or valence <= 0:
            raise PseudopotentialError(f"valence {valence} and r_loc {r_loc} bohr must be positive")
        self.valence, self.r_loc, self.c1, self.c2 = map(float, (valence, r_loc, c1, c2))

    def potential(self, r: Tensor) -> Tensor:
        x2 = (r / self.r_loc) ** 2
        core = torch.exp(-0.5 * x2) * (self.c1 + self.c2 * x2)
        return core - self.valence * _erf_over_r(r, 1 / (math.sqrt(2) * self.r_loc))

    def gaussians(self, width: float) -> tuple[Tensor, Tensor, Tensor]:
        # erf(a r)/r = (2/sqrt(pi)) int_0^a exp(-t^2 r^2) dt, by Gauss-Legendre nodes
        low, high = 1 / (math.sqrt(2) * width), 1 / (math.sqrt(2) * self.r_loc)
        # so many nodes leave an error below 1e-10 hartree for ratios of the widths up to 12
        ratio = max(width / self.r_loc, self.r_loc / width)
        nodes, weights = np.polynomial.legendre.leggauss(math.ceil(3 + 2.7 * ratio))
        t = low + (high - low) * (nodes + 1) / 2
        amplitudes = -self.valence * (high - low) / math.sqrt(math.pi) * weights
        exponents = np.append(t**2, 0.5 / self.r_loc**2)
        amplitudes = np.append(amplitudes, self.c1)
        quadratic = np.append(np.zeros_like(t), self.c2 / self.r_loc**2)
        return torch.tensor(exponents), torch.tensor(amplitudes), torch.tensor(quadratic)


class AllElectron(LocalPseudopotential):
    """The bare nucleus, v(r) = -Z/r, with all electrons around it.

    Only for a mesh with a corner at each nucleus: a SimplexSpace.
    """

    kind = "all_electron"
    parameters = ("valence",)
    singular = True

    def __init__(self, valence: float):
        if valence <= 0:
            raise PseudopotentialError(f"the charge of a nucleus is {valence}; must be positive")
        self.valence = float(valence)

    @classmethod
    def by_symbol(cls, symbols: Iterable[str]) -> dict[str, AllElectron]:
        """The nuclei of some elements, as ``{symbol: AllElectron(atomic number)}``."""
        return {symbol: cls(atomic_numbers[symbol]) for symbol in symbols}

    def potential(self, r: Tensor) -> Tensor:
        return -self.valence / r

    def short_range(self, r: Tensor, width: float) -> Tensor:
        return -self.valence * torch.erfc(r / (math.sqrt(2) * width)) / r

    def coarsest_spacing(self, width: float) -> float:  # noqa: ARG002
        return math.inf


class EvanescentCore(LocalPseudopotential):
    """Evanescent core of Fiolhais et al., Phys. Rev. B 51, 14001 (1995).

    v(r) = -(Z/R) {[1 - (1 + b x) exp(-a x)]/x - A exp(-x)}, x = r/R, with
    b = (a^3 - 2a)/(4 (a^2 - 1)), A = a^2/2 - a b.
    """

    kind = "evanescent_core"
    parameters = ("valence", "r", "alpha")

    def __init__(self, valence: float, r: float, alpha: float):
        if r <= 0 or valence <= 0 or alpha <= 1:
            raise PseudopotentialError(
                f"valence {valence}, r {r} bohr and alpha {alpha}: need valence, r > 0, alpha > 1"
            )
        self.valence, self.r, self.alpha = float(valence), float(r), float(alpha)

    def potential(self, r: Tensor) -> Tensor:
        a, x = self.alpha, r / self.r
        b = (a**3 - 2 * a) / (4 * (a**2 - 1))
        hump = a**2 / 2 - a * b
        decay = torch.exp(-a * x)
        safe = x.clamp(min=1e-12)
        inside = -torch.expm1(-a * safe) / safe - b * decay - hump * torch.exp(-x)
        return -(self.valence / self.r) * inside


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
        r = np.arange(0.0, _LARGEST_CUTOFF + 1, self._radial_step)
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
        return value - self.valence * _erf_over_r(r, 1 / (math.sqrt(2) * self._reference_width))

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
        import hashlib

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


_KINDS: dict[str, type[LocalPseudopotential]] = {
    cls.kind: cls for cls in (GTHLocal, EvanescentCore, GoodwinNeedsHeine, Recpot, AllElectron)
}


def pseudopotential_from_description(description: dict[str, Any]) -> LocalPseudopotential:
    """The pseudopotential of :meth:`LocalPseudopotential.describe`."""
    parameters = {k: v for k, v in description.items() if k not in ("kind", "sha256")}
    kind = description.get("kind")
    if kind not in _KINDS:
        raise PseudopotentialError(f"pseudopotential kind {kind!r}; known: {', '.join(_KINDS)}")
    made = _KINDS[kind](**parameters)
    if description.get("sha256") not in (None, made.describe().get("sha256")):
        raise PseudopotentialError(
            f"{description['path']} is not the file it was: its checksum has changed"
        )
    return made
