"""Energy of one Kohn-Sham step from a given density, which need not be self-consistent.

With the potential of the density n and the orbitals' energies e_i in it,

E[n] = sum_i f_i e_i - int n (v_H + v_xc) + E_H[n] + E_xc[n] + E_nuclei

(Harris, Phys. Rev. B 31, 1770 (1985); Foulkes and Haydock, Phys. Rev. B 39, 12520 (1989)). Its
error is of second order in that of n, also where n has a wrong number of electrons.

Matrix elements and int n v are sums on PySCF's grid, whose error cancels where the orbitals'
density is n. E_H is that of superposed free atoms in closed form and of the difference to them on a
space (:mod:`fedens.atoms.charge_near_atoms`).
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
from fedens.errors import FunctionalError, StructureError
from fedens.fem.simplex import SimplexSpace
from fedens.fem.space import FunctionSpace
from fedens.reference.pyscf.free_atoms import free_atoms
from fedens.reference.pyscf.molecule import build_mean_field, build_molecule, functional_code
from fedens.structure import Structure

if TYPE_CHECKING:
    from pyscf.gto import Mole

Array = NDArray[np.float64]
#: A density at any points (n, 3), bohr, under the names of :meth:`KohnShamState.fields`.
DensityAt = Callable[[Array], Mapping[str, ArrayLike]]

_GRADIENT = ("gradient_x", "gradient_y", "gradient_z")
#: Share of the electrons that may be missing; units mixed up miss more.
_MISSING = 0.05
#: Points whose basis functions are in memory at once.
_CHUNK = 10_000


@dataclass(frozen=True, eq=False)
class HarrisStep:
    """What :func:`harris` found; Hartree atomic units.

    Attributes:
        energy: total energy. orbital_energies: (n,). density_matrix: of its orbitals, (n, n).
        dipole: moment of nuclei and its orbitals, (3,), elementary charge x bohr.
    """

    energy: float
    orbital_energies: Array
    density_matrix: Array
    dipole: Array


@dataclass(frozen=True, eq=False)
class _Input:
    """A density as the step needs it.

    Attributes:
        rho: at the grid's points, (1 or 4, n_points); the gradient for a GGA.
        coulomb: matrix (n, n) of its potential v_H. counted_twice: int n v_H - E_H.
    """

    rho: Array
    coulomb: Array
    counted_twice: float


def harris(
    structure: Structure,
    density: DensityAt | Density | ArrayLike,
    xc: str = "pbe",
    basis: str = "def2-svp",
    *,
    space: FunctionSpace | None = None,
    atoms: Mapping[str, SphericalAtom] | None = None,
    grid_level: int = 4,
) -> HarrisStep:
    """One Kohn-Sham step from a density, without self-consistency; all electrons, no spin.

    Args:
        density: of three kinds. A function of points (n, 3) in bohr that gives ``density`` and,
            for a GGA, ``gradient_x``, ``gradient_y``, ``gradient_z``, each (n,); where it also
            gives ``difference_potential``, the Coulomb potential (hartree) of its difference to
            superposed atoms, no Poisson's equation is solved. Or a
            :class:`Density` on a space, whose difference to superposed atoms is interpolated. Or
            a density matrix (n, n) in the basis, for which nothing is approximated.
        xc: LDA or GGA by PySCF's name. basis: name of a Gaussian basis set.
        space: where Poisson's equation is solved for a function;
            ``SimplexSpace.for_structure(structure)`` by default.
        atoms: by chemical symbol; ``free_atoms(structure.symbols, xc, basis)`` by default. The
            closer their sum to the density, the less is left to the space.
        grid_level: of PySCF's integration grid, 0 to 9.

    Raises:
        StructureError: periodic structures, or unpaired electrons.
        FunctionalError: meta-GGAs, which the density does not define; a density that is not
            finite, of wrong shape or without its gradient, or that misses electrons.
        SpaceError: a density on a space made for other positions.
    """
    mean_field = _mean_field(structure, xc, basis, grid_level)
    given = _input(mean_field, structure, density, space, atoms, basis, xc)
    _refuse_missing_electrons(mean_field, given.rho[0])
    weights = mean_field.grids.weights
    exc, vxc = mean_field._numint.eval_xc_eff(mean_field.xc, _squeezed(given.rho), deriv=1)[:2]
    effective = mean_field.get_hcore() + given.coulomb
    effective += _matrix(mean_field.mol, mean_field.grids.coords, weights * vxc)
    energies, orbitals = mean_field.eig(effective, mean_field.get_ovlp())
    occupations = mean_field.get_occ(energies, orbitals)
    of_xc = weights @ (np.einsum("xn,xn->n", given.rho, vxc) - given.rho[0] * exc)
    energy = occupations @ energies - given.counted_twice - of_xc + mean_field.energy_nuc()
    matrix = np.array(mean_field.make_rdm1(orbitals, occupations))
    dipole = np.asarray(mean_field.dip_moment(unit="AU", dm=matrix, verbose=0))
    return HarrisStep(float(energy), energies, matrix, dipole)


def starting_density_matrix(
    structure: Structure,
    density: DensityAt | Density,
    xc: str = "pbe",
    basis: str = "def2-svp",
    *,
    grid_level: int = 1,
    **options: Any,
) -> Array:
    """Density matrix (n, n) to start PySCF from: ``mean_field.kernel(dm0=...)``.

    That of the orbitals of one step, on a coarse grid. Arguments and errors of :func:`harris`.
    """
    step = harris(structure, density, xc, basis, grid_level=grid_level, **options)
    return step.density_matrix


def harris_forces(
    structure: Structure,
    density_of: Callable[[Structure], DensityAt | Density | ArrayLike],
    xc: str = "pbe",
    basis: str = "def2-svp",
    *,
    space: SimplexSpace | None = None,
    step: float = 0.01,
    **options: Any,
) -> Array:
    """Minus the derivative of the energy of :func:`harris`, (n_atoms, 3), hartree/bohr.

    Central differences, 6 energies per atom: PySCF's own gradients need self-consistency. The mesh
    follows the nuclei, so that its error hardly changes between both ends.

    Args:
        density_of: what to pass to :func:`harris` for a structure.
        space: for the structure, when ``density_of`` gives functions.
        step: displacement to either side, bohr. options: those of :func:`harris`.
    """

    def energy(positions: Array) -> float:
        moved = structure.replace(positions=positions)
        density = density_of(moved)
        there = None if start is None else start.moved(torch.tensor(positions))
        return harris(moved, density, xc, basis, space=there, **options).energy

    needs_space = callable(density_of(structure))
    start = (space or SimplexSpace.for_structure(structure)) if needs_space else None
    forces = np.zeros_like(structure.positions)
    for index in np.ndindex(forces.shape):
        shift = np.zeros_like(forces)
        shift[index] = step
        ahead, behind = (energy(structure.positions + sign * shift) for sign in (1, -1))
        forces[index] = (behind - ahead) / (2 * step)
    return forces


def _mean_field(structure: Structure, xc: str, basis: str, grid_level: int) -> Any:
    """PySCF's object with its grid, not run."""
    from pyscf import dft

    code = functional_code(xc)
    if dft.libxc.xc_type(code) == "MGGA":
        raise FunctionalError(
            f"xc functional {xc!r} is a meta-GGA, whose potential the density alone does not "
            "define: use an LDA or GGA such as 'pbe'"
        )
    if structure.spin:
        raise StructureError(
            f"spin is {structure.spin}: the step needs a density for each spin, which is not there "
            "yet; use a molecule without unpaired electrons"
        )
    mean_field = build_mean_field(dft.RKS, build_molecule(structure, basis, None))
    mean_field.xc = code
    mean_field.grids.level = grid_level
    mean_field.grids.build()
    return mean_field


def _input(
    mean_field: Any,
    structure: Structure,
    density: DensityAt | Density | ArrayLike,
    space: FunctionSpace | None,
    atoms: Mapping[str, SphericalAtom] | None,
    basis: str,
    xc: str,
) -> _Input:
    if not (callable(density) or isinstance(density, Density)):
        return _from_matrix(mean_field, density)
    atoms = free_atoms(structure.symbols, xc, basis) if atoms is None else atoms
    coords = mean_field.grids.coords
    if isinstance(density, Density):
        space = density.space
        space.check_matches(structure)
        difference = density.values.detach() - _superposed(structure, space.points, atoms)
        rho = _interpolated(mean_field, structure, space, difference, atoms)
    elif "difference_potential" in (fields := density(coords)):
        return _from_closed_form(mean_field, structure, fields, atoms)
    else:
        space = SimplexSpace.for_structure(structure) if space is None else space
        space.check_matches(structure)
        rho = _evaluated(density, coords, _rows(mean_field))
        values = torch.tensor(_evaluated(density, space.points.detach().numpy(), 1)[0])
        difference = values - _superposed(structure, space.points, atoms)
    return _from_difference(mean_field, structure, space, rho, difference, atoms)


def _rows(mean_field: Any) -> int:
    return 1 if mean_field._numint._xc_type(mean_field.xc) == "LDA" else 4


def _squeezed(rho: Array) -> Array:
    """PySCF wants the density alone without its first axis."""
    return rho[0] if len(rho) == 1 else rho


def _from_matrix(mean_field: Any, density: ArrayLike) -> _Input:
    matrix = np.asarray(density, dtype=np.float64)
    n = mean_field.mol.nao
    if matrix.shape != (n, n) or not np.isfinite(matrix).all():
        raise FunctionalError(
            f"density has shape {matrix.shape}: expected finite numbers ({n}, {n}) in the basis, a "
            "Density, or a function of points"
        )
    coulomb = mean_field.get_j(dm=matrix)
    numint, mol = mean_field._numint, mean_field.mol
    kind = numint._xc_type(mean_field.xc)
    parts = []
    for part in _slices(mean_field.grids.coords):
        values = numint.eval_ao(mol, mean_field.grids.coords[part], deriv=int(kind != "LDA"))
        parts.append(np.atleast_2d(numint.eval_rho(mol, values, matrix, xctype=kind, hermi=1)))
    energy = 0.5 * float(np.vdot(matrix, coulomb))
    return _Input(np.concatenate(parts, axis=1), coulomb, energy)


def _from_difference(
    mean_field: Any,
    structure: Structure,
    space: FunctionSpace,
    rho: Array,
    difference: Tensor,
    atoms: Mapping[str, SphericalAtom],
) -> _Input:
    """From the density on the grid and its difference to superposed atoms on a space."""
    grid = torch.tensor(mean_field.grids.coords)
    if isinstance(space, SimplexSpace):
        split = split_charge(structure, space, difference)
        there, energy = split.potential(grid).detach(), float(split.energy().detach())
    else:
        own = space.solve_poisson(difference).detach()
        there = _interpolate(space, own[None], grid)[0]
        energy = 0.5 * float(space.integrate(difference * own).detach())
    return _from_potential(mean_field, structure, rho, there, energy, atoms)


def _from_closed_form(
    mean_field: Any,
    structure: Structure,
    fields: Mapping[str, ArrayLike],
    atoms: Mapping[str, SphericalAtom],
) -> _Input:
    """From a function that also gave the potential of its difference to superposed atoms."""
    names = ("density", *_GRADIENT)[: _rows(mean_field)]
    grid, weights = torch.tensor(mean_field.grids.coords), mean_field.grids.weights
    rho = _checked(fields, names, len(grid))
    own = torch.tensor(_checked(fields, ("difference_potential",), len(grid))[0])
    difference = torch.tensor(rho[0]) - _superposed(structure, grid, atoms)
    energy = 0.5 * float(weights @ (difference * own).numpy())
    return _from_potential(mean_field, structure, rho, own, energy, atoms)


def _from_potential(
    mean_field: Any,
    structure: Structure,
    rho: Array,
    own: Tensor,
    own_energy: float,
    atoms: Mapping[str, SphericalAtom],
) -> _Input:
    """From the density n on the grid and the potential v_d of its difference d to atoms a there.

    int n v_H - E_H[n] = int a v_H - E_H[a] + (1/2) int d v_d: int d v_H[a] is in both. The last
    term is ``own_energy``.
    """
    coords, weights = mean_field.grids.coords, mean_field.grids.weights
    grid = torch.tensor(coords)
    potential = _atoms_potential(structure, grid, atoms) + own
    weighted = weights * potential.numpy()
    # on the grid, where its error cancels that of the orbitals' density
    counted_twice = float(weighted @ _superposed(structure, grid, atoms).numpy())
    counted_twice -= _atoms_energy(structure, atoms)
    counted_twice += own_energy
    rho = np.where(rho[0] > 0, rho, 0.0)  # what is fitted undershoots where little is left
    return _Input(rho, _matrix(mean_field.mol, coords, weighted[None]), counted_twice)


def _superposed(structure: Structure, points: Tensor, atoms: Mapping[str, SphericalAtom]) -> Tensor:
    return superposed_fields(structure, points.detach(), atoms)["density"]


def _atoms_potential(
    structure: Structure, points: Tensor, atoms: Mapping[str, SphericalAtom]
) -> Tensor:
    """Of the electrons of superposed atoms at points (n, 3); (n,), hartree."""
    total = points.new_zeros(len(points))
    for symbol, position in zip(structure.symbols, torch.tensor(structure.positions), strict=True):
        r = (points - position).norm(dim=1)
        total += find_atom(atoms, symbol).hartree_potential(r)
    return total


def _atoms_energy(structure: Structure, atoms: Mapping[str, SphericalAtom]) -> float:
    """Coulomb energy of the electrons of superposed atoms, hartree."""
    placed = [
        (find_atom(atoms, symbol), position)
        for symbol, position in zip(structure.symbols, structure.positions, strict=True)
    ]
    energy = sum(atom.energies["hartree"] for atom, _ in placed)
    for (a, here), (b, there) in combinations(placed, 2):
        distance = torch.tensor([np.linalg.norm(here - there)])
        energy += float(a.overlap_energy(b, distance))
    return float(energy)


def _evaluated(density: DensityAt, points: Array, rows: int) -> Array:
    """The function's density, and gradient for 4 rows, (rows, n)."""
    return _checked(density(points), ("density", *_GRADIENT)[:rows], len(points))


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


def _interpolated(
    mean_field: Any,
    structure: Structure,
    space: FunctionSpace,
    difference: Tensor,
    atoms: Mapping[str, SphericalAtom],
) -> Array:
    """Density, and gradient for a GGA, on the grid: superposed atoms and what a space knows."""
    points = torch.tensor(mean_field.grids.coords, requires_grad=True)
    density = superposed_fields(structure, points, atoms)["density"]
    slope = torch.autograd.grad(density.sum(), points)[0]
    fields = [difference]
    if _rows(mean_field) == 4:
        coefficients = space.project(difference)
        fields += space.evaluate_gradient(coefficients).detach().unbind(-1)
    start = torch.column_stack([density.detach(), slope]).T[: len(fields)]
    return (start + _interpolate(space, torch.stack(fields), points.detach())).numpy()


def _interpolate(space: FunctionSpace, fields: Tensor, points: Tensor) -> Tensor:
    """Fields (n_fields, n_points) of the space at other points (n, 3); zero outside."""
    corners = space.nodes[0].detach()
    low, high = corners.min(dim=0).values, corners.max(dim=0).values
    inside = ((points > low) & (points < high)).all(dim=1)
    result = points.new_zeros(len(fields), len(points))
    coefficients = torch.stack([space.project(field) for field in fields])
    result[:, inside] = space.interpolate_at(coefficients, points[inside])
    return result


def _refuse_missing_electrons(mean_field: Any, density: Array) -> None:
    expected = mean_field.mol.nelectron
    found = float(mean_field.grids.weights @ density)
    if not abs(found - expected) < _MISSING * expected:
        raise FunctionalError(
            f"density integrates to {found:.4f} electrons, the molecule has {expected}: check its "
            "units (electron/bohr^3 at points in bohr) and the structure it belongs to"
        )


def _matrix(molecule: Mole, coords: Array, weighted: Array) -> Array:
    """Matrix (n, n) of a potential times weights (rows, n_points); 4 rows act on the gradient too.

    Row 0 multiplies the product of two basis functions, rows 1 to 3 its gradient.
    """
    from pyscf.dft.numint import NumInt

    half = np.zeros((molecule.nao, molecule.nao))
    factors = weighted * np.array([0.5, 1, 1, 1])[: len(weighted), None]
    for part in _slices(coords):
        values = NumInt().eval_ao(molecule, coords[part], deriv=int(len(weighted) > 1))
        values = values.reshape(len(weighted), -1, molecule.nao)
        half += values[0].T @ np.einsum("xn,xnm->nm", factors[:, part], values)
    return half + half.T


def _slices(coords: Array) -> list[slice]:
    return [slice(start, start + _CHUNK) for start in range(0, len(coords), _CHUNK)]
