"""Random model potentials in units of a gas: a cube of 12 of its electrons, its Fermi energy.

So the same seed gives the same potential for every metal, scaled.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fedens.reference.model_potentials.axis import AxisPotential

#: Electrons in the unit of volume: those of 4 sites of fcc aluminium.
ELECTRONS = 12.0
#: Period of planar potentials: 48 bohr for aluminium.
_PLANAR_LENGTH = 6.275
#: Largest number of waves along an axis; the shortest is 4 to the unit of length.
_MOST_WAVES, _SHORTEST = 5, 4
#: Smallest and largest strength of waves; three axes together, one alone.
_STRENGTHS = {"separable": (0.03, 0.25), "planar": (0.1, 1.0)}
#: Lattice planes of fcc (100) are half a unit apart; width of their wells, depths.
_PLANES, _WELL, _DEPTHS = 0.5, 0.12, (0.5, 3.0)
#: Cores: widths, heights, width of the well around them, which undoes half of them.
_CORES, _HEIGHTS, _CORE_WELL = (0.05, 0.09), (0.2, 2.2), 0.17
#: A slab: units along it, share that is filled, width and depth of its wells, which make a box.
_SLAB_LENGTH, _SLAB_FILLED, _SLAB_WELL, _SLAB_DEPTH = 4, 0.5, 0.22, (1.1, 1.6)


@dataclass(frozen=True)
class Unit:
    """The gas in whose units potentials are drawn. density: electron/bohr^3."""

    density: float

    @property
    def length(self) -> float:
        """Edge of a cube of 12 electrons, bohr."""
        return float((ELECTRONS / self.density) ** (1 / 3))

    @property
    def fermi_energy(self) -> float:
        """(3 pi^2 n)^(2/3)/2, hartree."""
        return float((3 * math.pi**2 * self.density) ** (2 / 3) / 2)


@dataclass(frozen=True)
class Drawn:
    """A model potential: along x, y, z, or along z alone; ``filled``: share of the cell that has
    the mean density."""

    potentials: tuple[AxisPotential, ...]
    filled: float = 1.0

    @property
    def planar(self) -> bool:
        return len(self.potentials) == 1


def draw_potential(kind: str, unit: Unit, rng: np.random.Generator) -> Drawn:
    """A random potential of one of :data:`KINDS`."""
    return KINDS[kind](unit, rng)


def _planar(unit: Unit, rng: np.random.Generator) -> Drawn:
    return Drawn((_waves(_PLANAR_LENGTH, "planar", unit, rng),))


def _separable(unit: Unit, rng: np.random.Generator) -> Drawn:
    """Random waves in cells of 4 and 8 sites."""
    lengths = _lengths(rng)
    return Drawn(tuple(_waves(length, "separable", unit, rng) for length in lengths))


def _planes(unit: Unit, rng: np.random.Generator) -> Drawn:
    """Wells at lattice planes that are a little displaced; along the longest axis one may miss."""
    lengths = _lengths(rng)
    missing = int(np.argmax(lengths)) if rng.random() < 0.5 else None
    depth = rng.uniform(*_DEPTHS)
    potentials = []
    for axis, length in enumerate(lengths):
        places = np.arange(0, length, _PLANES)[int(axis == missing and length > 1) :]
        places = places + 0.03 * rng.standard_normal(len(places))
        potentials.append(_wells(length, places, depth / 3, _WELL, unit))
    return Drawn(tuple(potentials))


def _slab(unit: Unit, rng: np.random.Generator) -> Drawn:
    """Planes whose wide wells make a box along z, vacuum outside it, and waves along x and y."""
    places = np.arange(0, _SLAB_LENGTH * _SLAB_FILLED, _PLANES)
    depth = rng.uniform(*_SLAB_DEPTH)
    wells = _wells(_SLAB_LENGTH, places, depth, _SLAB_WELL, unit)
    x, y = (_waves(1, "separable", unit, rng) for _ in range(2))
    return Drawn((x, y, wells), _SLAB_FILLED)


def _cores(unit: Unit, rng: np.random.Generator) -> Drawn:
    """Random waves, and planes that repel like the cores of pseudopotentials in a wider well."""
    height = math.exp(rng.uniform(*np.log(_HEIGHTS)))
    width = rng.uniform(*_CORES)
    potentials = []
    for length in _lengths(rng):
        waves = _waves(length, "separable", unit, rng)
        places = rng.uniform(0, length, rng.integers(0, 2 * int(length) + 1))
        core = _wells(length, places, -height, width, unit)
        well = _wells(length, places, height * width / (2 * _CORE_WELL), _CORE_WELL, unit)
        potentials.append(_added(waves, core, well))
    return Drawn(tuple(potentials))


def _added(*parts: AxisPotential) -> AxisPotential:
    """The sum of potentials of the same length."""
    total = np.zeros(max(len(part.coefficients) for part in parts), dtype=complex)
    for part in parts:
        total[: len(part.coefficients)] += part.coefficients
    return AxisPotential(parts[0].length, tuple(total.tolist()))


#: Kind -> how it is drawn.
KINDS: dict[str, Callable[[Unit, np.random.Generator], Drawn]] = {
    "planar": _planar,
    "separable": _separable,
    "planes": _planes,
    "slab": _slab,
    "cores": _cores,
}


def _lengths(rng: np.random.Generator) -> list[float]:
    """Edges of a cell of 4 or 8 sites, units; longer waves are those of planar potentials."""
    choices = [(1, 1, 1), (1, 1, 1), (1, 1, 2)]
    return [float(length) for length in choices[rng.integers(len(choices))]]


def _waves(length: float, kind: str, unit: Unit, rng: np.random.Generator) -> AxisPotential:
    """1 to 5 random waves of random strength."""
    low, high = _STRENGTHS[kind]
    strength = unit.fermi_energy * math.exp(rng.uniform(math.log(low), math.log(high)))
    highest = math.floor(_SHORTEST * length)
    count = int(rng.integers(1, min(_MOST_WAVES, highest) + 1))
    chosen = rng.choice(np.arange(1, highest + 1), count, replace=False)
    coefficients = np.zeros(chosen.max() + 1, dtype=complex)
    amplitudes = rng.standard_normal((count, 2)) @ [1, 1j]
    coefficients[chosen] = strength / math.sqrt(2 * count) * amplitudes
    return AxisPotential(length * unit.length, tuple(coefficients.tolist()))


def _wells(
    length: float, places: np.ndarray, depth: float, width: float, unit: Unit
) -> AxisPotential:
    """Periodic Gaussian wells; a wave beyond 6 / width has no part in them."""
    q = 2 * math.pi / length * np.arange(math.ceil(6 * length / (2 * math.pi * width)) + 1)
    one = np.exp(-((q * width) ** 2) / 2) * width * math.sqrt(2 * math.pi) / length
    coefficients = -depth * unit.fermi_energy * one * np.exp(-1j * np.outer(places, q)).sum(axis=0)
    return AxisPotential(length * unit.length, tuple(coefficients.tolist()))
