"""Potentials v = v_1(x) + v_2(y) + v_3(z): orbitals are products, their energies sums.

n(r) = sum_ijk f(e_i + e_j + e_k) |phi_i(x)|^2 |phi_j(y)|^2 |phi_k(z)|^2 over the bands and k-points
of each axis is three matrix products, so that dense meshes of k-points cost next to nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from fedens.errors import SamplingError
from fedens.fem.tensor import TensorSpace, kronecker_product, kronecker_sum
from fedens.reference.kohn_sham.smearing import Occupation, Smearing
from fedens.reference.model_potentials.axis import AxisBands, AxisLevels, AxisPotential
from fedens.reference.model_potentials.state import (
    ModelState,
    check_axis,
    check_electrons,
    chosen_cutoff,
    provenance,
)

#: Levels with fewer electrons are left out.
NEGLIGIBLE = 1e-12

Potentials = Sequence[AxisPotential]


def solve_separable(
    space: TensorSpace,
    potentials: Potentials,
    electrons: float,
    smearing: Smearing,
    kpoints: int | Sequence[int],
    cutoff: float | None = None,
) -> ModelState:
    """Density and energies of electrons in a sum of three potentials along the axes.

    Args:
        space: periodic. potentials: along x, y and z, with the periods of the space.
        electrons: per cell, any positive number.
        smearing: of a width above zero; Methfessel-Paxton is near zero temperature.
        kpoints: along each axis, or along all; shifted meshes.
        cutoff: of the plane waves along each axis, hartree; default: what the mesh can hold.

    Raises:
        SpaceError: a space that is not periodic, a cutoff that is not positive.
        SamplingError: no electrons, no k-points, no smearing; a cutoff too low for the filled
            levels.
        FunctionalError: potentials with other periods than the space.
    """
    counts = (kpoints,) * 3 if isinstance(kpoints, int) else tuple(kpoints)
    _check(space, potentials, electrons, smearing, counts)
    cutoff = chosen_cutoff(space, cutoff)
    bands = [AxisBands.solve(v, n, cutoff) for v, n in zip(potentials, counts, strict=True)]
    levels, occupation = _fill(bands, space, electrons, smearing)
    density, kinetic = _fields(levels, occupation.occupations)
    filled = occupation.occupations
    kinetic_energy = float(filled @ kronecker_sum(*(one.kinetic for one in levels)))
    band_energy = float(filled @ kronecker_sum(*(one.energies for one in levels)))
    energies = {
        "kinetic": kinetic_energy,
        "entropy": occupation.entropy_energy,
        "external": band_energy - kinetic_energy,
    }
    model = {
        "kind": "separable",
        "potentials": [potential.describe() for potential in potentials],
        "electrons": electrons,
        "kpoints": list(counts),
    }
    pairs = list(zip(counts, space.lengths, strict=True))
    kspacing = max(2 * math.pi / (n * length) for n, length in pairs)
    x, y, z = (v.at(axis.points) for v, axis in zip(potentials, space.axes, strict=True))
    return ModelState(
        space=space,
        potential=kronecker_sum(x, y, z),
        density=density,
        kinetic_energy_density=kinetic,
        energies=energies | {"total": sum(energies.values())},
        chemical_potential=occupation.chemical_potential,
        provenance=provenance(space, model, kspacing, math.prod(counts), smearing, cutoff),
    )


def _check(
    space: TensorSpace,
    potentials: Potentials,
    electrons: float,
    smearing: Smearing,
    counts: tuple[int, ...],
) -> None:
    check_electrons(space, electrons)
    if len(potentials) != 3 or len(counts) != 3:
        raise SamplingError(
            f"{len(potentials)} potentials and {len(counts)} numbers of k-points: expected one "
            "for each of three axes"
        )
    for axis, (potential, count) in enumerate(zip(potentials, counts, strict=True)):
        check_axis(space, axis, potential, count)
    if smearing.width == 0:
        raise SamplingError(
            "separable potentials need a smearing of some width: Smearing(0.04, "
            "'methfessel_paxton') is near zero temperature"
        )


def _fill(
    bands: Sequence[AxisBands], space: TensorSpace, electrons: float, smearing: Smearing
) -> tuple[list[AxisLevels], Occupation]:
    """Levels of each axis that matter, and electrons in each product of three, weights included."""
    bottom = sum(one.lowest for one in bands)
    reach = smearing.reach(NEGLIGIBLE)
    fermi_energy = (3 * math.pi**2 * electrons / space.volume) ** (2 / 3) / 2
    ceiling = bottom + reach + fermi_energy
    while True:
        levels = [
            one.below(ceiling - bottom + one.lowest, axis.points)
            for one, axis in zip(bands, space.axes, strict=True)
        ]
        energies = kronecker_sum(*(one.energies for one in levels))
        weights = _products(*(one.weights for one in levels))
        kept = energies <= ceiling
        if 2 * float(weights[kept].sum()) < 1.01 * electrons:
            ceiling += fermi_energy
            continue
        found = smearing.fill(energies[kept], weights[kept], electrons)
        # with a level missing mu is only too high
        if found.chemical_potential + reach <= ceiling:
            filled = torch.zeros_like(energies)
            filled[kept] = weights[kept] * found.occupations
            return levels, Occupation(filled, found.chemical_potential, found.entropy_energy)
        ceiling = found.chemical_potential + reach


def _products(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    return (x[:, None, None] * y[:, None] * z).reshape(-1)


def _fields(levels: Sequence[AxisLevels], filled: Tensor) -> tuple[Tensor, Tensor]:
    """Density and positive kinetic energy density, (n_points,) each."""
    x, y, z = (one.squares for one in levels)
    dx, dy, dz = (one.slopes for one in levels)
    kinetic = (
        kronecker_product(filled, dx, y, z)
        + kronecker_product(filled, x, dy, z)
        + kronecker_product(filled, x, y, dz)
    )
    return kronecker_product(filled, x, y, z), kinetic / 2
