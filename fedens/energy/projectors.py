"""Projectors of separable pseudopotentials, and how fine a mesh their waves need."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import eval_genlaguerre, gamma

from fedens.errors import PseudopotentialError


@dataclass(frozen=True)
class ProjectorChannel:
    """Projectors p_1, p_2, ... of one angular momentum l, as Hartwigsen et al. define them.

    p_i(r) = sqrt2 r^(l+2(i-1)) exp(-(r/r_l)^2/2) / (r_l^(l+(4i-1)/2) sqrt(Gamma(l+(4i-1)/2))),
    of norm int p_i^2 r^2 dr = 1; Phys. Rev. B 58, 3641 (1998).

    Attributes:
        order: l.
        radius: r_l, bohr.
        strengths: h, the full symmetric matrix (n, n), hartree.

    Raises:
        PseudopotentialError: for a negative l, a radius that is not positive, or a matrix that is
            empty, not square, not symmetric or not finite.
    """

    order: int
    radius: float
    strengths: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        count = len(self.strengths)
        square = count > 0 and all(len(row) == count for row in self.strengths)
        if not (
            square
            and np.isfinite(self.strengths).all()
            and tuple(zip(*self.strengths, strict=True)) == self.strengths
        ):
            raise PseudopotentialError(
                f"strengths of l = {self.order} are {self.strengths}: expected a full symmetric "
                "matrix of finite numbers, as a tuple of its rows"
            )
        if self.order < 0 or not 0 < self.radius < math.inf:
            raise PseudopotentialError(
                f"projectors of l = {self.order} and radius {self.radius} bohr: expected l of 0, "
                "1, ... and a positive radius"
            )

    def describe(self) -> dict[str, Any]:
        """The attributes as a JSON-able dict."""
        strengths = [list(row) for row in self.strengths]
        return {"order": self.order, "radius": self.radius, "strengths": strengths}

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> ProjectorChannel:
        """The channel of :meth:`describe`."""
        strengths = tuple(tuple(map(float, row)) for row in description["strengths"])
        return cls(int(description["order"]), float(description["radius"]), strengths)

    def radial(self, r: NDArray[np.float64]) -> NDArray[np.float64]:
        """p_1, p_2, ... at radii (n_r,), bohr: (n, n_r)."""
        powers = self.order + 2 * np.arange(len(self.strengths))[:, None]
        norm = np.sqrt(self.radius ** (2 * powers + 3) * gamma(powers + 1.5) / 2)
        values: NDArray[np.float64] = r**powers * np.exp(-((r / self.radius) ** 2) / 2) / norm
        return values

    def coarsest_spacing(self) -> float:
        """The spacing whose shortest wave holds all but a hundredth of every projector, bohr."""
        q = np.linspace(0.0, 20.0, 4000)  # times r_l
        # r^(l+2k) exp(-r^2/2) has the transform q^l L_k^(l+1/2)(q^2/2) exp(-q^2/2)
        envelope = q ** (self.order + 1) * np.exp(-(q**2) / 2)
        waves = [
            envelope * eval_genlaguerre(k, self.order + 0.5, q**2 / 2)
            for k in range(len(self.strengths))
        ]
        return self.radius * min(spacing_for_waves(q, wave) for wave in waves)


def spacing_for_waves(q: NDArray[np.float64], amplitude: NDArray[np.float64]) -> float:
    """Spacing whose shortest wave, q = pi / spacing, holds all but a hundredth of a norm, bohr.

    Args:
        q: equidistant wave numbers from near zero on, 1/bohr.
        amplitude: q times the form factor there.
    """
    norm = np.cumsum(amplitude**2)
    lost = 1 - np.sqrt(norm / norm[-1])
    return math.pi / float(q[np.argmax(lost < 1e-2)])
