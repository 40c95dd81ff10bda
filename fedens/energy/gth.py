"""Pseudopotentials of Goedecker, Teter and Hutter, Phys. Rev. B 54, 1703 (1996)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.polynomial.legendre import leggauss
from torch import Tensor

from fedens.energy.projectors import ProjectorChannel
from fedens.energy.pseudopotential import LocalPseudopotential, erf_over_r
from fedens.errors import PseudopotentialError

#: In the library's names: made for an LDA; the others for a GGA.
_LDA_NAMES = ("gth-pade", "gth-lda")


class GTHLocal(LocalPseudopotential):
    """Local part of Goedecker, Teter and Hutter, Phys. Rev. B 54, 1703 (1996).

    v(r) = -(Z/r) erf(r/(sqrt2 r_loc)) + exp(-x^2/2) (c1 + c2 x^2 + c3 x^4 + c4 x^6), x = r/r_loc
    """

    kind = "gth_local"
    parameters = ("valence", "r_loc", "c1", "c2", "c3", "c4")

    def __init__(
        self,
        valence: float,
        r_loc: float,
        c1: float = 0.0,
        c2: float = 0.0,
        c3: float = 0.0,
        c4: float = 0.0,
    ):
        if not (valence > 0 and r_loc > 0 and math.isfinite(sum((valence, r_loc, c1, c2, c3, c4)))):
            raise PseudopotentialError(
                f"valence {valence} and r_loc {r_loc} bohr must be positive, and c1 to c4, "
                f"{c1, c2, c3, c4} hartree, finite"
            )
        self.valence, self.r_loc = float(valence), float(r_loc)
        self.c1, self.c2, self.c3, self.c4 = map(float, (c1, c2, c3, c4))

    def describe(self) -> dict[str, Any]:
        # without what is zero of c3 and c4: data sets hold descriptions from before there were any
        zero = {name for name in ("c3", "c4") if getattr(self, name) == 0}
        return {name: value for name, value in super().describe().items() if name not in zero}

    def potential(self, r: Tensor) -> Tensor:
        x2 = (r / self.r_loc) ** 2
        polynomial = self.c1 + x2 * (self.c2 + x2 * (self.c3 + x2 * self.c4))
        coulomb = self.valence * erf_over_r(r, 1 / (math.sqrt(2) * self.r_loc))
        return torch.exp(-0.5 * x2) * polynomial - coulomb

    def gaussians(self, width: float) -> tuple[Tensor, Tensor]:
        # erf(a r)/r = (2/sqrt(pi)) int_0^a exp(-t^2 r^2) dt, by Gauss-Legendre nodes
        low, high = 1 / (math.sqrt(2) * width), 1 / (math.sqrt(2) * self.r_loc)
        # so many nodes leave an error below 1e-10 hartree for ratios of the widths up to 12
        ratio = max(width / self.r_loc, self.r_loc / width)
        nodes, weights = leggauss(math.ceil(3 + 2.7 * ratio))
        t = low + (high - low) * (nodes + 1) / 2
        core = np.array([self.c1, self.c2, self.c3, self.c4])
        core = core[: 1 + max(np.flatnonzero(core), default=0)]
        amplitudes = np.zeros((len(t) + 1, len(core)))
        amplitudes[:-1, 0] = -self.valence * (high - low) / math.sqrt(math.pi) * weights
        amplitudes[-1] = core / self.r_loc ** (2 * np.arange(len(core)))
        exponents = np.append(t**2, 0.5 / self.r_loc**2)
        return torch.tensor(exponents), torch.tensor(amplitudes)


class GTH(GTHLocal):
    """Pseudopotential of Goedecker, Teter and Hutter with its projectors.

    V = v(r) + sum_lm sum_ij |p_i^l Y_lm> h_ij^l <p_j^l Y_lm|, v(r) of :class:`GTHLocal`;
    Hartwigsen, Goedecker and Hutter, Phys. Rev. B 58, 3641 (1998). :meth:`load` reads one.

    Args:
        valence, r_loc, c1, c2, c3, c4: of the local part; bohr, hartree.
        projectors: channels of different l, or their descriptions.

    Raises:
        PseudopotentialError: for parameters that are not positive, or two channels of one l.
    """

    kind = "gth"

    def __init__(
        self,
        valence: float,
        r_loc: float,
        c1: float = 0.0,
        c2: float = 0.0,
        c3: float = 0.0,
        c4: float = 0.0,
        *,
        projectors: Iterable[ProjectorChannel | Mapping[str, Any]] = (),
    ):
        super().__init__(valence, r_loc, c1, c2, c3, c4)
        self.projectors = tuple(
            one if isinstance(one, ProjectorChannel) else ProjectorChannel.from_description(one)
            for one in projectors
        )
        orders = [one.order for one in self.projectors]
        if len(set(orders)) < len(orders):
            raise PseudopotentialError(f"projectors of l = {orders}: expected one channel of each")

    @property
    def local(self) -> GTHLocal:
        """The local part alone."""
        return GTHLocal(**{name: getattr(self, name) for name in self.parameters})

    def describe(self) -> dict[str, Any]:
        return super().describe() | {"projectors": [one.describe() for one in self.projectors]}

    def coarsest_spacing(self, width: float) -> float:
        limits = [one.coarsest_spacing() for one in self.projectors]
        return min([super().coarsest_spacing(width), *limits])

    @classmethod
    def load(cls, symbol: str, name: str) -> GTH:
        """A pseudopotential from the library of CP2K that PySCF ships.

        Args:
            symbol: chemical symbol.
            name: functional and valence, such as ``gth-pade-q3`` or ``gth-pbe-q4``; without the
                valence the library's usual one.

        Raises:
            PseudopotentialError: the library holds no such name for the element.
        """
        from pyscf.pbc.gto import pseudo

        names = _names(Path(pseudo.__file__).parent, symbol)
        if name.lower() not in names:
            found = ", ".join(names) or "none of that element: expected a symbol such as 'Al'"
            raise PseudopotentialError(
                f"PySCF's library has no pseudopotential {name!r} of {symbol!r}; it has {found}"
            )
        electrons, r_loc, _, core, _, *channels = pseudo.load(name.lower(), symbol)
        projectors = [
            ProjectorChannel(order, radius, tuple(map(tuple, strengths)))
            for order, (radius, count, strengths) in enumerate(channels)
            if count
        ]
        loaded = cls(sum(electrons), r_loc, *core, projectors=projectors)
        loaded.element = symbol
        loaded.xc_family = "lda" if name.lower().startswith(_LDA_NAMES) else "gga"
        return loaded


def _names(library: Path, symbol: str) -> list[str]:
    """Names of an element's pseudopotentials, read from lines such as ``Al GTH-PBE-q3 GTH-PBE``."""
    text = "\n".join(path.read_text() for path in library.glob("gth-*.dat"))
    lines = (line.split() for line in text.splitlines() if line.startswith(f"{symbol} GTH-"))
    return sorted({name.lower() for _, *names in lines for name in names})
