"""Local pseudopotentials v(r) of an ion, and their short-range rest beside a Gaussian charge.

Each ion is a Gaussian charge of width sigma with integral Z, plus
v_sr(r) = v(r) + Z erf(r / (sqrt(2) sigma)) / r, which is smooth and short-ranged.
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from functools import cached_property, lru_cache
from pkgutil import resolve_name
from typing import Any, ClassVar

import numpy as np
import torch
from ase.data import atomic_numbers
from torch import Tensor

from fedens.energy.projectors import ProjectorChannel, spacing_for_waves
from fedens.errors import PseudopotentialError

LARGEST_CUTOFF = 30.0


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
    #: Exchange and correlation it was made for: ``lda``, ``gga``, or None where that is open.
    xc_family: str | None = None
    #: Chemical symbol it was made for, or None where that is open.
    element: str | None = None
    #: What acts on orbitals beside v(r); empty for a potential that a density alone can carry.
    projectors: tuple[ProjectorChannel, ...] = ()

    @abstractmethod
    def potential(self, r: Tensor) -> Tensor:
        """v(r), hartree, at distances r > 0 in bohr."""

    def describe(self) -> dict[str, Any]:
        """Parameters as a JSON-able dict with the key ``kind``."""
        return {"kind": self.kind} | {name: getattr(self, name) for name in self.parameters}

    def short_range(self, r: Tensor, width: float) -> Tensor:
        """v(r) + Z erf(r / (sqrt(2) width)) / r, hartree."""
        return self.potential(r) + self.valence * erf_over_r(r, 1 / (math.sqrt(2) * width))

    def gaussians(self, width: float) -> tuple[Tensor, Tensor] | None:  # noqa: ARG002
        """The short-range part as a sum of Gaussians times polynomials of r^2, if it is one.

        Returns:
            exponents (n,) and amplitudes (n, k) as :meth:`.FunctionSpace.gaussian_sum` takes
            them; or None.
        """
        return None

    def form_factor(self, width: float) -> tuple[Callable[[Tensor], Tensor], float] | None:  # noqa: ARG002
        """The short-range part's Fourier transform, if it is known better than v(r).

        Returns:
            function of q in 1/bohr, hartree bohr^3, and the q beyond which it is negligible.
        """
        return None

    def cutoff(self, width: float) -> float:
        """Distance beyond which the short-range part is negligible, bohr."""
        r = torch.linspace(0.05, LARGEST_CUTOFF, 3000, dtype=torch.float64)
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


def erf_over_r(r: Tensor, a: float) -> Tensor:
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
    return spacing_for_waves(q, q * form_factor)


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


#: Kind -> "module:class".
PSEUDOPOTENTIALS: dict[str, str] = {
    "gth_local": "fedens.energy.gth:GTHLocal",
    "gth": "fedens.energy.gth:GTH",
    "all_electron": "fedens.energy.pseudopotential:AllElectron",
    "evanescent_core": "fedens.energy.pseudopotential:EvanescentCore",
    "goodwin_needs_heine": "fedens.energy.tabulated:GoodwinNeedsHeine",
    "recpot": "fedens.energy.tabulated:Recpot",
}


def pseudopotential_from_description(description: dict[str, Any]) -> LocalPseudopotential:
    """The pseudopotential of :meth:`LocalPseudopotential.describe`."""
    parameters = {k: v for k, v in description.items() if k not in ("kind", "sha256")}
    kind = description.get("kind")
    if kind not in PSEUDOPOTENTIALS:
        raise PseudopotentialError(
            f"pseudopotential kind {kind!r}; known: {', '.join(PSEUDOPOTENTIALS)}"
        )
    made: LocalPseudopotential = resolve_name(PSEUDOPOTENTIALS[kind])(**parameters)
    if description.get("sha256") not in (None, made.describe().get("sha256")):
        raise PseudopotentialError(
            f"{description['path']} is not the file it was: its checksum has changed"
        )
    return made
