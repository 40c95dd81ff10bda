"""A density as one Kohn-Sham step needs it: on PySCF's grid, with its Coulomb potential.

The Hartree energy is that of superposed free atoms in closed form and of the difference to them on
a space (:mod:`fedens.atoms.charge_near_atoms`). Matrix elements are sums on PySCF's grid.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fedens.atoms.charge_near_atoms import split_charge
from fedens.atoms.spherical import SphericalAtom, find_atom, superposed_fields
from fedens.data.density import Density
from fedens.errors import FunctionalError
from fedens.fem.simplex import SimplexSpace
from fedens.fem.space import FunctionSpace
from fedens.reference.pyscf.orbital_fields import local_fields
from fedens.structure import Structure

if TYPE_CHECKING:
    from pyscf.gto import Mole

Array = NDArray[np.float64]
#: A density at any points (n, 3), bohr, under the names of :meth:`PySCFState.fields`.
DensityAt = Callable[[Array], Mapping[str, ArrayLike]]

_NAMES = ("density", "gradient_x", "gradient_y", "gradient_z")
#: Points whose basis functions are in memory at once.
_CHUNK = 10_000


@dataclass(frozen=True, eq=False)
class StepDensity:
    """What a step takes from a density n.

    Attributes:
        rho: at the grid's points, (1 or 4, n_points); the gradient for a GGA.
        coulomb: matrix (n, n) of its potential v_H. counted_twice: int n v_H - E_H.
    """

    rho: Array
    coulomb: Array
    counted_twice: float


def density_of_matrix(mean_field: Any, density: ArrayLike) -> StepDensity:
    """From a density matrix (n, n) in the basis, for which nothing is approximated."""
    matrix = np.asarray(density, dtype=np.float64)
    n = mean_field.mol.nao
    if matrix.shape != (n, n) or not np.isfinite(matrix).all():
        raise FunctionalError(
            f"density has shape {matrix.shape}: expected finite numbers ({n}, {n}) in the basis, a "
            "Density, or a function of points"
        )
    names, coords = _names(mean_field), mean_field.grids.coords
    fields = local_fields(mean_field.mol, matrix, mean_field.xc, coords, gradient=True)
    coulomb = mean_field.get_j(dm=matrix)
    rho = np.array([fields[name] for name in names])
    return StepDensity(rho, coulomb, 0.5 * float(np.vdot(matrix, coulomb)))


@dataclass(frozen=True, eq=False)
class DensityGrid:
    """PySCF's grid around a molecule, and the free atoms that differences are taken to.

    Attributes:
        mean_field: PySCF's object with its grid. structure: the molecule.
        atoms: by chemical symbol.
    """

    mean_field: Any
    structure: Structure
    atoms: Mapping[str, SphericalAtom]

    @property
    def points(self) -> Tensor:
        """(n_points, 3), bohr."""
        return torch.tensor(self.mean_field.grids.coords)

    def density_of_function(self, density: DensityAt, space: FunctionSpace | None) -> StepDensity:
        """From a function of points; see :func:`fedens.reference.pyscf.harris.harris`."""
        fields = density(self.mean_field.grids.coords)
        rho = _checked(fields, _names(self.mean_field), len(self.points))
        if "difference_potential" in fields:
            (own,) = _checked(fields, ("difference_potential",), len(self.points))
            difference = rho[0] - self._superposed(self.points).numpy()
            energy = 0.5 * float(self.mean_field.grids.weights @ (difference * own))
            return self._with_potential(rho, torch.tensor(own), energy)
        space = SimplexSpace.for_structure(self.structure) if space is None else space
        space.check_matches(self.structure)
        (values,) = _checked(density(space.points.detach().numpy()), _NAMES[:1], space.n_points)
        return self._with_difference(
            rho, space, torch.tensor(values) - self._superposed(space.points)
        )

    def density_on_space(self, density: Density) -> StepDensity:
        """From a density on a space, whose difference to superposed atoms is interpolated."""
        space = density.space
        space.check_matches(self.structure)
        difference = density.values.detach() - self._superposed(space.points)
        return self._with_difference(self._interpolated(space, difference), space, difference)

    def _with_difference(self, rho: Array, space: FunctionSpace, difference: Tensor) -> StepDensity:
        """From the density on the grid and its difference to superposed atoms on a space."""
        if isinstance(space, SimplexSpace):
            split = split_charge(self.structure, space, difference)
            own, energy = split.potential(self.points).detach(), float(split.energy().detach())
        else:
            potential = space.solve_poisson(difference).detach()
            own = _interpolate(space, potential[None], self.points)[0]
            energy = 0.5 * float(space.integrate(difference * potential).detach())
        return self._with_potential(rho, own, energy)

    def _with_potential(self, rho: Array, own: Tensor, own_energy: float) -> StepDensity:
        """From the density n and the potential v_d of its difference d to atoms a, on the grid.

        int n v_H - E_H[n] = int a v_H - E_H[a] + (1/2) int d v_d: int d v_H[a] is in both. The
        last term is ``own_energy``.
        """
        grids = self.mean_field.grids
        weighted = grids.weights * (self._atoms_potential() + own).numpy()
        # on the grid, where its error cancels that of the orbitals' density
        counted_twice = float(weighted @ self._superposed(self.points).numpy())
        counted_twice -= self._atoms_energy()
        counted_twice += own_energy
        rho = np.where(rho[0] > 0, rho, 0.0)  # what is fitted undershoots where little is left
        matrix = potential_matrix(self.mean_field.mol, grids.coords, weighted[None])
        return StepDensity(rho, matrix, counted_twice)

    def _superposed(self, points: Tensor) -> Tensor:
        return superposed_fields(self.structure, points.detach(), self.atoms)["density"]

    def _atoms_potential(self) -> Tensor:
        """Of the electrons of superposed atoms on the grid, (n_points,), hartree."""
        points = self.points
        total = points.new_zeros(len(points))
        for atom, position in self._placed_atoms():
            total += atom.hartree_potential((points - torch.tensor(position)).norm(dim=1))
        return total

    def _atoms_energy(self) -> float:
        """Coulomb energy of the electrons of superposed atoms, hartree."""
        placed = self._placed_atoms()
        energy = sum(atom.energies["hartree"] for atom, _ in placed)
        for (a, here), (b, there) in combinations(placed, 2):
            distance = torch.tensor([np.linalg.norm(here - there)])
            energy += float(a.overlap_energy(b, distance))
        return float(energy)

    def _placed_atoms(self) -> list[tuple[SphericalAtom, Array]]:
        symbols, positions = self.structure.symbols, self.structure.positions
        return [(find_atom(self.atoms, s), x) for s, x in zip(symbols, positions, strict=True)]

    def _interpolated(self, space: FunctionSpace, difference: Tensor) -> Array:
        """Density, and gradient for a GGA, on the grid: superposed atoms and what a space knows."""
        points = self.points.requires_grad_()
        density = superposed_fields(self.structure, points, self.atoms)["density"]
        slope = torch.autograd.grad(density.sum(), points)[0]
        fields = [difference]
        if len(_names(self.mean_field)) > 1:
            coefficients = space.project(difference)
            fields += space.evaluate_gradient(coefficients).detach().unbind(-1)
        start = torch.column_stack([density.detach(), slope]).T[: len(fields)]
        return (start + _interpolate(space, torch.stack(fields), points.detach())).numpy()


def potential_matrix(molecule: Mole, coords: Array, weighted: Array) -> Array:
    """Matrix (n, n) of a potential times weights (rows, n_points); 4 rows act on the gradient too.

    Row 0 multiplies the product of two basis functions, rows 1 to 3 its gradient.
    """
    from pyscf.dft.numint import NumInt

    half = np.zeros((molecule.nao, molecule.nao))
    factors = weighted * np.array([0.5, 1, 1, 1])[: len(weighted), None]
    for start in range(0, len(coords), _CHUNK):
        part = slice(start, start + _CHUNK)
        values = NumInt().eval_ao(molecule, coords[part], deriv=int(len(weighted) > 1))
        values = values.reshape(len(weighted), -1, molecule.nao)
        half += values[0].T @ np.einsum("xn,xnm->nm", factors[:, part], values)
    return half + half.T


def _names(mean_field: Any) -> tuple[str, ...]:
    """Fields that the functional needs."""
    return _NAMES[:1] if mean_field._numint._xc_type(mean_field.xc) == "LDA" else _NAMES


def _checked(fields: Mapping[str, ArrayLike], names: Sequence[str], count: int) -> Array:
    """Some of the fields that a function gave at ``count`` points, (n_names, count)."""
    missing = ", ".join(name for name in names if name not in fields)
    if missing:
        raise FunctionalError(
            f"density gave {', '.join(fields) or 'nothing'}, but no {missing}: the xc functional "
            f"needs {', '.join(names)}"
        )
    for name in names:
        values = np.asarray(fields[name])
        if values.shape != (count,) or not np.isfinite(values).all():
            raise FunctionalError(
                f"density gave {name} of shape {values.shape} at {count} points: expected "
                f"finite numbers ({count},)"
            )
    return np.array([np.asarray(fields[name], dtype=np.float64) for name in names])


def _interpolate(space: FunctionSpace, fields: Tensor, points: Tensor) -> Tensor:
    """Fields (n_fields, n_points) of the space at other points (n, 3); zero outside."""
    corners = space.nodes[0].detach()
    low, high = corners.min(dim=0).values, corners.max(dim=0).values
    inside = ((points > low) & (points < high)).all(dim=1)
    result = points.new_zeros(len(fields), len(points))
    coefficients = torch.stack([space.project(field) for field in fields])
    result[:, inside] = space.interpolate_at(coefficients, points[inside])
    return result
