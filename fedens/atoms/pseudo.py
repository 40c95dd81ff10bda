"""Isolated pseudo-atoms and their superposition.

An isolated pseudo-atom is spherical, so r u(r) lives on one finite-element axis, and so does
r phi(r): the same axis, terms and minimiser as in three dimensions solve it to many digits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedens.energy.electrostatics import find_pseudopotential
from fedens.energy.functional import EnergyFunctional
from fedens.energy.kinetic import ThomasFermi
from fedens.energy.minimise import minimise_on_sphere
from fedens.energy.pseudopotential import LocalPseudopotential
from fedens.energy.terms import LocalTerm, local_energy_density
from fedens.errors import ConvergenceError, FunctionalError
from fedens.fem.axis import Axis
from fedens.fem.space import FunctionSpace
from fedens.fem.tensor import TensorSpace
from fedens.structure import Structure

_RADIUS = 60.0
_ELEMENTS = 24
_ORDER = 10
_INNERMOST = 0.25
_ROOT_EXPONENTS = 0.03 * 2.0 ** np.arange(7)


@dataclass(frozen=True, eq=False)
class FreeAtom:
    """An isolated spherical pseudo-atom.

    Attributes:
        r: radial points, bohr, ascending. density: n(r) there, electron/bohr^3.
        energy: hartree. chemical_potential: hartree.
        exponents, amplitudes: Gaussians sum a exp(-b r^2) fitted to n(r), normalised to the
            valence charge.
    """

    r: Tensor
    density: Tensor
    energy: float
    chemical_potential: float
    exponents: Tensor
    amplitudes: Tensor

    def density_at(self, r: Tensor) -> Tensor:
        """n(r) at any distances, bohr; the logarithm is interpolated linearly."""
        logarithm = torch.log(self.density.clamp(min=1e-200))
        i = torch.searchsorted(self.r, r.detach().contiguous()).clamp(1, len(self.r) - 1)
        slope = (logarithm[i] - logarithm[i - 1]) / (self.r[i] - self.r[i - 1])
        return torch.exp(logarithm[i] + slope * (r - self.r[i]))


#: Atoms already solved in this process.
_SOLVED: dict[tuple[Hashable, ...], FreeAtom] = {}


def free_atom(functional: EnergyFunctional, symbol: str) -> FreeAtom:
    """The isolated atom of an element, by Thomas-Fermi, von Weizsaecker's term and xc.

    Other kinetic terms are left out: non-local kernels are not defined in vacuum, and at a
    temperature an atom does not hold its electrons there.

    Raises:
        FunctionalError: when xc is not a local functional.
        ConvergenceError: when the radial minimisation fails.
    """
    if not isinstance(functional.xc_term, LocalTerm):
        raise FunctionalError(
            f"free atoms need a local xc functional, not {functional.xc!r}: give the starting "
            "density yourself"
        )
    pseudopotential = find_pseudopotential(functional.pseudopotentials, symbol)
    key = (pseudopotential, functional.widths[symbol], functional.vw_weight, functional.xc)
    if key not in _SOLVED:
        _SOLVED[key] = _solve(functional, symbol)
    return _SOLVED[key]


def _solve(functional: EnergyFunctional, symbol: str) -> FreeAtom:
    pseudopotential = find_pseudopotential(functional.pseudopotentials, symbol)
    axis = _radial_axis(pseudopotential, functional.vw_weight)
    evaluate = _radial_energy(functional, symbol, axis)
    electrons = pseudopotential.valence
    hessian = functional.vw_weight * axis.eigenvalues + 1.0
    start = axis.values.T @ (axis.weights * axis.points * torch.exp(-axis.points))
    minimum = minimise_on_sphere(evaluate, start, electrons, hessian, 1e-10, 2000)
    if minimum.residual > 1e-8:
        raise ConvergenceError(f"free atom of {symbol}: {minimum.message}", minimum)
    r = axis.points
    density = (axis.values @ minimum.x) ** 2 / (4 * math.pi * r**2)
    gaussians = _fit_gaussians(axis, density, electrons)
    return FreeAtom(r, density, minimum.energy, minimum.multiplier / 2, *gaussians)


def _radial_axis(pseudopotential: LocalPseudopotential, vw_weight: float) -> Axis:
    """Elements growing geometrically from the nucleus outwards, where a cusp needs a small one."""
    innermost = _INNERMOST
    if pseudopotential.singular:
        innermost = min(innermost, vw_weight / pseudopotential.valence)
    growth = np.exp(np.linspace(0, math.log(_RADIUS / innermost), _ELEMENTS))
    return Axis.build(np.concatenate([[0.0], innermost * growth]), _ORDER, periodic=False)


def _radial_energy(
    functional: EnergyFunctional, symbol: str, axis: Axis
) -> Callable[[Tensor], tuple[float, Tensor]]:
    """Energy of w = sqrt(4 pi) r u in its coefficients, with its gradient."""
    pseudopotential = functional.pseudopotentials[symbol]
    valence, width = pseudopotential.valence, functional.widths[symbol]
    r, shell = axis.points, 4 * math.pi * axis.points**2 * axis.weights
    ion = valence * (2 * math.pi * width**2) ** -1.5 * torch.exp(-(r**2) / (2 * width**2))
    short_range = pseudopotential.short_range(r, width)
    self_energy = valence**2 / (2 * math.sqrt(math.pi) * width)
    xc = functional.xc_term
    assert isinstance(xc, LocalTerm)
    local = [ThomasFermi(), xc]

    @torch.enable_grad()
    def evaluate(x: Tensor) -> tuple[float, Tensor]:
        c = x.detach().requires_grad_(True)
        n = (axis.values @ c) ** 2 / (4 * math.pi * r**2)
        moments = axis.values.T @ (axis.weights * r * (n - ion))
        hartree = 8 * math.pi**2 * (moments**2 / axis.eigenvalues).sum()
        energy = (
            0.5 * functional.vw_weight * (axis.eigenvalues * c**2).sum()
            + shell @ (local_energy_density(local, n) + n * short_range)
            + hartree
            - self_energy
        )
        (gradient,) = torch.autograd.grad(energy, c)
        return float(energy.detach()), gradient

    return evaluate


def _fit_gaussians(axis: Axis, density: Tensor, electrons: float) -> tuple[Tensor, Tensor]:
    """Gaussians for a radial density: those of its root, squared, so that the sum is positive."""
    r, n = axis.points.numpy(), density.numpy()
    shell = 4 * math.pi * r**2 * axis.weights.numpy()
    functions = np.exp(-np.outer(r**2, _ROOT_EXPONENTS))
    weight = np.sqrt(shell)[:, None]
    root_amplitudes = np.linalg.lstsq(functions * weight, np.sqrt(n * shell), rcond=1e-7)[0]
    first, second = np.triu_indices(len(_ROOT_EXPONENTS))
    exponents = _ROOT_EXPONENTS[first] + _ROOT_EXPONENTS[second]
    amplitudes = root_amplitudes[first] * root_amplitudes[second] * np.where(first == second, 1, 2)
    scale = electrons / float(amplitudes @ (math.pi / exponents) ** 1.5)
    return torch.tensor(exponents), torch.tensor(scale * amplitudes)


def superposed_density(
    functional: EnergyFunctional,
    structure: Structure,
    space: FunctionSpace,
    positions: Tensor | None = None,
) -> Tensor:
    """Density (n_points,) of superposed free atoms, as fitted by Gaussians, electron/bohr^3.

    Smooth, positive and differentiable in the positions. On a SimplexSpace the radial densities
    are interpolated, as cusps are no sums of Gaussians.
    """
    if positions is None:
        positions = torch.tensor(structure.positions, device=space.device)
    if not isinstance(space, TensorSpace):
        total = positions.new_zeros(space.n_points)
        for symbol, position in zip(structure.symbols, positions, strict=True):
            density = free_atom(functional, symbol).density_at
            total = total + space.radial_sum(position[None], density, _RADIUS)
        return total
    atoms = {symbol: free_atom(functional, symbol) for symbol in structure.symbols}
    gaussians = {symbol: (atom.exponents, atom.amplitudes) for symbol, atom in atoms.items()}
    return superposed_gaussians(gaussians, structure, space, positions)


def superposed_gaussians(
    atoms: Mapping[str, tuple[Tensor, Tensor]],
    structure: Structure,
    space: TensorSpace,
    positions: Tensor,
) -> Tensor:
    """Sum (n_points,) of Gaussians a exp(-b r^2) on the atoms; differentiable in the positions.

    Args:
        atoms: exponents b and amplitudes a by chemical symbol.
    """
    exponents, amplitudes = zip(*(atoms[symbol] for symbol in structure.symbols), strict=True)
    counts = torch.tensor([len(one) for one in exponents], device=space.device)
    occupancies = torch.tensor(structure.occupancies, device=space.device)
    return space.gaussian_sum(
        positions.repeat_interleave(counts, dim=0),
        torch.cat(exponents).to(space.device),
        torch.cat(amplitudes).to(space.device) * occupancies.repeat_interleave(counts),
    )
