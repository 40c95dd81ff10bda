"""Potentials that vary along z alone: the two free directions in closed form.

Levels of an axis are the bottoms of bands of free motion in the plane, with 1/pi levels for two
electrons per bohr^2 and twice a hartree. With x = (eps - mu)/width, g and s of the smearing and
s' = -x g', the integrals over the lateral energy are

    G(x) = int_x^inf g = -(s + x g),  H(x) = int_x^inf G,  int_x^inf s = -(2 H + x G):

electrons width G/pi, lateral kinetic energy width^2 H/pi, entropy -width^2 (2 H + x G)/pi.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.optimize import brentq
from torch import Tensor

from fedens.fem.tensor import TensorSpace
from fedens.reference.kohn_sham.smearing import KINDS, Smearing
from fedens.reference.model_potentials.axis import AxisBands, AxisLevels, AxisPotential
from fedens.reference.model_potentials.separable import NEGLIGIBLE
from fedens.reference.model_potentials.state import (
    ModelState,
    check_axis,
    check_electrons,
    chosen_cutoff,
    provenance,
)

#: Beyond so many widths levels are full or empty.
_REACH = 40.0


def solve_planar(
    space: TensorSpace,
    potential: AxisPotential,
    electrons: float,
    smearing: Smearing,
    kpoints: int,
    cutoff: float | None = None,
) -> ModelState:
    """Density and energies of electrons in a potential along z, free along x and y.

    Args:
        space: periodic; along x and y of any length, with as few points as there can be.
        potential: with the period of z. electrons: per cell, any positive number.
        smearing: of any width, 0 too. kpoints: along z, a shifted mesh.
        cutoff: of the plane waves, hartree; default: what the mesh can hold.

    Raises:
        SpaceError: a space that is not periodic, a cutoff that is not positive.
        SamplingError: no electrons, no k-points; a cutoff too low for the filled levels.
        FunctionalError: a potential with another period than z.
    """
    check_electrons(space, electrons)
    check_axis(space, 2, potential, kpoints)
    cutoff = chosen_cutoff(space, cutoff)
    bands = AxisBands.solve(potential, kpoints, cutoff)
    area = space.lengths[0] * space.lengths[1]
    mu = _chemical_potential(bands, electrons / area, smearing)
    ceiling = max(mu + smearing.reach(NEGLIGIBLE) if smearing.width else mu, bands.lowest)
    levels = bands.below(ceiling, space.axes[2].points)
    filled, lateral, entropy = (
        levels.weights * part for part in _lateral_integrals(levels.energies - mu, smearing)
    )
    kinetic = float(filled @ levels.kinetic + lateral.sum())
    energies = {
        "kinetic": area * kinetic,
        "entropy": area * float(entropy.sum()),
        "external": area * float(filled @ (levels.energies - levels.kinetic)),
    }
    model = {
        "kind": "planar",
        "potentials": [potential.describe()],
        "electrons": electrons,
        "kpoints": [kpoints],
    }
    kspacing = 2 * math.pi / (kpoints * potential.length)
    return ModelState(
        space=space,
        potential=_everywhere(space, potential.at(space.axes[2].points)),
        density=_everywhere(space, levels.squares @ filled),
        kinetic_energy_density=_everywhere(space, _kinetic(levels, filled, lateral)),
        energies=energies | {"total": sum(energies.values())},
        chemical_potential=mu,
        provenance=provenance(space, model, kspacing, kpoints, smearing, cutoff),
    )


def _kinetic(levels: AxisLevels, filled: Tensor, lateral: Tensor) -> Tensor:
    """Positive kinetic energy density along z, (n_z,)."""
    return levels.slopes @ filled / 2 + levels.squares @ lateral


def _everywhere(space: TensorSpace, along_z: Tensor) -> Tensor:
    """A field that varies along z alone at all points, (n_points,)."""
    return along_z.expand(space.shape).reshape(-1).contiguous()


def _chemical_potential(bands: AxisBands, electrons: float, smearing: Smearing) -> float:
    """mu, hartree, with so many electrons per bohr^2."""
    weights = bands.weights[:, None]

    def excess(mu: float) -> float:
        filled = _electrons(bands.energies - mu, smearing)
        return float((weights * filled).sum()) - electrons

    step = math.pi * electrons + smearing.width
    low, high = bands.lowest - _REACH * smearing.width, bands.lowest + step
    while excess(high) < 0:
        high += step
    return float(brentq(excess, low, high, xtol=1e-15, rtol=1e-14))


def _electrons(energies: Tensor, smearing: Smearing) -> Tensor:
    """Per bohr^2 in bands that begin at energies of any shape, hartree, less mu."""
    if smearing.width == 0:
        return (-energies).clamp(min=0) / math.pi
    return smearing.width * _integral(energies / smearing.width, smearing.kind) / math.pi


def _lateral_integrals(energies: Tensor, smearing: Smearing) -> tuple[Tensor, Tensor, Tensor]:
    """Electrons, their lateral kinetic energy and -T S per bohr^2 in bands that begin at energies.

    ``energies``: of any shape, hartree, less mu.
    """
    width, filled = smearing.width, _electrons(energies, smearing)
    if width == 0:
        return filled, math.pi * filled**2 / 2, torch.zeros_like(filled)
    x = energies / width
    first, second = _integral(x, smearing.kind), _second_integral(x, smearing.kind)
    entropy = -(2 * second + x * first)
    lateral, entropies = width**2 * second / math.pi, width**2 * entropy / math.pi
    return filled, lateral, entropies


def _integral(x: Tensor, name: str) -> Tensor:
    """G(x)."""
    kind = KINDS[name]
    inside = x.clamp(-_REACH, _REACH)
    return torch.where(x < -_REACH, -x, -(kind.entropy(inside) + inside * kind.occupation(inside)))


def _second_integral(x: Tensor, name: str) -> Tensor:
    """H(x), by Gauss and Legendre's rule; where levels are full G is -x."""
    start = x.clamp(-_REACH, _REACH)
    t, w = (torch.tensor(a) for a in np.polynomial.legendre.leggauss(200))
    halves = (_REACH - start[..., None]) / 2
    inside = (_integral(start[..., None] + halves * (1 + t), name) * halves * w).sum(dim=-1)
    return inside + (x.clamp(max=-_REACH) ** 2 - _REACH**2) / 2
