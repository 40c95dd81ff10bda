"""Energy of one Kohn-Sham step from a given density, which need not be self-consistent.

With the potential of the density n and the orbitals' energies e_i in it,

E[n] = sum_i f_i e_i - int n (v_H + v_xc) + E_H[n] + E_xc[n] + E_nuclei

(Harris, Phys. Rev. B 31, 1770 (1985); Foulkes and Haydock, Phys. Rev. B 39, 12520 (1989)). Its
error is of second order in that of n, also where n has a wrong number of electrons.

Matrix elements and int n v are sums on PySCF's grid, whose error cancels where the orbitals'
density is n; for E_H see :mod:`fedens.reference.pyscf.step_density`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedens.atoms.spherical import SphericalAtom
from fedens.data.density import Density
from fedens.errors import FunctionalError, StructureError
from fedens.fem.space import FunctionSpace
from fedens.reference.pyscf.free_atoms import free_atoms
from fedens.reference.pyscf.molecule import build_mean_field, build_molecule
from fedens.reference.pyscf.step_density import (
    DensityAt,
    DensityGrid,
    density_of_matrix,
    potential_matrix,
)
from fedens.structure import Structure

Array = NDArray[np.float64]

#: Share of the electrons that may be missing; units mixed up miss more.
_MISSING = 0.05


@dataclass(frozen=True, eq=False)
class HarrisStep:
    """What :func:`harris` found; Hartree atomic units.

    Attributes:
        energy: total energy. orbital_energies: (n,).
        density_matrix: of its orbitals, (n, n); a start for PySCF, ``mean_field.kernel(dm0=...)``,
            for which a coarse grid will do.
        dipole: moment of nuclei and its orbitals, (3,), elementary charge x bohr.
    """

    energy: float
    orbital_energies: Array
    density_matrix: Array
    dipole: Array


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
    if callable(density) or isinstance(density, Density):
        atoms = free_atoms(structure.symbols, xc, basis) if atoms is None else atoms
        grid = DensityGrid(mean_field, structure, atoms)
        if isinstance(density, Density):
            given = grid.density_on_space(density)
        else:
            given = grid.density_of_function(density, space)
    else:
        given = density_of_matrix(mean_field, density)
    _refuse_missing_electrons(mean_field, given.rho[0])
    weights = mean_field.grids.weights
    rho = given.rho[0] if len(given.rho) == 1 else given.rho  # as PySCF wants it
    exc, vxc = mean_field._numint.eval_xc_eff(mean_field.xc, rho, deriv=1)[:2]
    effective = mean_field.get_hcore() + given.coulomb
    effective += potential_matrix(mean_field.mol, mean_field.grids.coords, weights * vxc)
    energies, orbitals = mean_field.eig(effective, mean_field.get_ovlp())
    occupations = mean_field.get_occ(energies, orbitals)
    of_xc = weights @ (np.einsum("xn,xn->n", given.rho, vxc) - given.rho[0] * exc)
    energy = occupations @ energies - given.counted_twice - of_xc + mean_field.energy_nuc()
    matrix = np.array(mean_field.make_rdm1(orbitals, occupations))
    dipole = np.asarray(mean_field.dip_moment(unit="AU", dm=matrix, verbose=0))
    return HarrisStep(float(energy), energies, matrix, dipole)


def _mean_field(structure: Structure, xc: str, basis: str, grid_level: int) -> Any:
    """PySCF's object with its grid, not run."""
    from pyscf import dft

    if structure.spin:
        raise StructureError(
            f"spin is {structure.spin}: the step needs a density for each spin, which is not there "
            "yet; use a molecule without unpaired electrons"
        )
    mean_field = build_mean_field(dft.RKS, build_molecule(structure, basis, None), xc)
    if dft.libxc.xc_type(mean_field.xc) == "MGGA":
        raise FunctionalError(
            f"xc functional {xc!r} is a meta-GGA, whose potential the density alone does not "
            "define: use an LDA or GGA such as 'pbe'"
        )
    mean_field.grids.level = grid_level
    mean_field.grids.build()
    return mean_field


def _refuse_missing_electrons(mean_field: Any, density: Array) -> None:
    expected = mean_field.mol.nelectron
    found = float(mean_field.grids.weights @ density)
    if not abs(found - expected) < _MISSING * expected:
        raise FunctionalError(
            f"density integrates to {found:.4f} electrons, the molecule has {expected}: check its "
            "units (electron/bohr^3 at points in bohr) and the structure it belongs to"
        )
