"""Spherical neutral atoms, all electrons, as tables over the radius, and what they add up to.

Functions of r are cubic splines in ln r on a uniform grid. Integrals over space are sums on it,
int f d^3r = 4 pi int f r^3 d(ln r), exact to rounding for what vanishes towards both ends.

Two neutral atoms at the distance R interact with the energy

E_AB(R) = Z_A Z_B / R - Z_A V_B(R) - Z_B V_A(R) + int n_A V_B d^3r

where V is the Hartree potential of one of them; in bipolar coordinates the last term is

(2 pi / R) int r n_A(r) [F_B(R + r) - F_B(|R - r|)] dr,    F(x) = int_0^x s V(s) ds
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from torch import Tensor

from fedens.errors import FunctionalError
from fedens.fields import LOCAL_FIELDS
from fedens.structure import Structure

Array = NDArray[np.float64]


class RadialTable:
    """Cubic splines through columns of values (n, n_columns) at radii uniform in their logarithm.

    Constant beyond both ends.
    """

    def __init__(self, r: Array, values: Array):
        logarithm = np.log(r)
        self._start, self._step = float(logarithm[0]), float(logarithm[1] - logarithm[0])
        self._range = float(r[0]), float(r[-1])
        coefficients = CubicSpline(logarithm, values).c
        self._coefficients = torch.tensor(np.ascontiguousarray(coefficients.swapaxes(0, 1)))

    def __call__(self, r: Tensor, columns: Sequence[int] | None = None) -> Tensor:
        """Values (n, n_columns) of some or all columns at radii (n,), bohr.

        Differentiable once and more.
        """
        coefficients = self._coefficients if columns is None else self._coefficients[..., columns]
        x = torch.log(r.clamp(*self._range)) - self._start
        i = (x.detach() / self._step).long().clamp(0, len(coefficients) - 1)
        t = (x - i.to(x) * self._step)[:, None]
        cubic, quadratic, linear, constant = coefficients[i].unbind(1)
        return ((cubic * t + quadratic) * t + linear) * t + constant


@dataclass(frozen=True, eq=False)
class SphericalAtom:
    """A neutral atom with all its electrons.

    Attributes:
        charge: of the nucleus.
        r: radii, bohr, ascending, uniform in their logarithm, from the nucleus to where nothing
            is left.
        density, kinetic, xc: n(r), positive tau(r) and xc energy density there.
    """

    charge: float
    r: Array
    density: Array
    kinetic: Array
    xc: Array

    @property
    def _step(self) -> float:
        """Distance of two radii in their logarithm."""
        return math.log(self.r[-1] / self.r[0]) / (len(self.r) - 1)

    @cached_property
    def _splines(self) -> RadialTable:
        return RadialTable(self.r, np.column_stack([getattr(self, name) for name in LOCAL_FIELDS]))

    @cached_property
    def _hartree(self) -> Array:
        """From the electrons within r and those beyond."""
        x, shell = np.log(self.r), 4 * math.pi * self.density * self.r**2
        within = CubicSpline(x, shell * self.r).antiderivative()(x)
        beyond = CubicSpline(x, shell).antiderivative()(x)
        return np.asarray(within / self.r + (beyond[-1] - beyond))

    @cached_property
    def _coulomb(self) -> RadialTable:
        """r V(r) and F(r)."""
        x, r = np.log(self.r), self.r
        moment = CubicSpline(x, self._hartree * r**2).antiderivative()(x)
        return RadialTable(r, np.column_stack([self._hartree * r, moment]))

    def fields(self, r: Tensor, names: Sequence[str] = LOCAL_FIELDS) -> dict[str, Tensor]:
        """``density``, ``kinetic``, ``xc``, or some of them, at radii (n,), bohr."""
        columns = [LOCAL_FIELDS.index(name) for name in names]
        return dict(zip(names, self._splines(r, columns).unbind(1), strict=True))

    def hartree_potential(self, r: Tensor) -> Tensor:
        """Potential V of the electrons at radii (n,), hartree."""
        return self._coulomb(r)[:, 0] / r

    def potential(self, r: Tensor) -> Tensor:
        """Potential of the whole atom as an electron feels it, V - Z/r, at radii (n,), hartree."""
        return (self._coulomb(r)[:, 0] - self.charge) / r

    def integral(self, values: Array) -> float:
        """4 pi int f r^2 dr of values f (n,) at the radii."""
        return float(4 * math.pi * self._step * (values * self.r**3).sum())

    @cached_property
    def energies(self) -> dict[str, float]:
        """``kinetic``, ``xc``, ``nuclear_attraction`` and ``hartree`` of the atom, hartree."""
        return {
            "kinetic": self.integral(self.kinetic),
            "xc": self.integral(self.xc),
            "nuclear_attraction": -self.charge * self.integral(self.density / self.r),
            "hartree": 0.5 * self.integral(self.density * self._hartree),
        }

    @property
    def number_of_electrons(self) -> float:
        """Integral of the density."""
        return self.integral(self.density)

    def overlap_energy(self, other: SphericalAtom, distance: Tensor) -> Tensor:
        """int n V_other d^3r with another atom at a distance (1,), bohr; (1,), hartree."""
        r = torch.tensor(self.r)
        shell = 2 * math.pi * self._step * r**2 * torch.tensor(self.density)
        difference = other.moment(distance + r) - other.moment((distance - r).abs())
        return (shell @ difference) / distance

    def moment(self, r: Tensor) -> Tensor:
        """F(r) = int_0^r s V(s) ds at radii (n,)."""
        inside = self._coulomb(r)[:, 1]
        # the potential is N/r out there
        return inside + self.number_of_electrons * (r - float(self.r[-1])).clamp(min=0)


def find_atom(atoms: Mapping[str, SphericalAtom], symbol: str) -> SphericalAtom:
    """The atom of an element, or an error that says what to pass."""
    if symbol not in atoms:
        raise FunctionalError(
            f"no free atom of {symbol}; there is one of {', '.join(sorted(atoms)) or 'nothing'}: "
            "make them with free_atoms(structure.symbols, xc, basis)"
        )
    return atoms[symbol]


def superposed_fields(
    structure: Structure,
    points: Tensor,
    atoms: Mapping[str, SphericalAtom],
    positions: Tensor | None = None,
    names: Sequence[str] = (*LOCAL_FIELDS, "potential"),
) -> dict[str, Tensor]:
    """``density``, ``kinetic``, ``xc`` and ``potential`` of superposed atoms, each (n_points,).

    Args:
        points: (n_points, 3), bohr. atoms: by chemical symbol.
        positions: (n_atoms, 3), bohr; replaces the structure's own, to differentiate.
        names: which of them; all by default.
    """
    positions = _positions(structure, positions)
    local = [name for name in names if name != "potential"]
    total = {name: points.new_zeros(len(points)) for name in names}
    for symbol, position in zip(structure.symbols, positions, strict=True):
        atom, r = find_atom(atoms, symbol), (points - position).norm(dim=1)
        fields = atom.fields(r, local) if local else {}
        if "potential" in names:
            fields["potential"] = atom.potential(r)
        total = {name: total[name] + fields[name] for name in names}
    return total


def pair_energy(
    structure: Structure,
    atoms: Mapping[str, SphericalAtom],
    positions: Tensor | None = None,
) -> Tensor:
    """Electrostatic energy between all pairs of undeformed neutral atoms, hartree."""
    positions = _positions(structure, positions)
    symbols = structure.symbols
    total = positions.new_zeros(())
    for j, second in enumerate(symbols):
        for i, first in enumerate(symbols[:j]):
            distance = (positions[i] - positions[j]).norm()[None]
            a, b = find_atom(atoms, first), find_atom(atoms, second)
            nuclei = a.charge * b.charge / distance
            of_b, of_a = b.hartree_potential(distance), a.hartree_potential(distance)
            attraction = a.charge * of_b + b.charge * of_a
            total = total + (nuclei - attraction + a.overlap_energy(b, distance))[0]
    return total


def _positions(structure: Structure, positions: Tensor | None) -> Tensor:
    return torch.tensor(structure.positions) if positions is None else positions
