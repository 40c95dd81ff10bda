"""Fields of a PySCF calculation at any points, from its density matrix."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

if TYPE_CHECKING:
    from pyscf.gto import Mole

Array = NDArray[np.float64]

#: Numbers that one chunk of points may keep in memory.
_CHUNK = 8_000_000


def _chunks(points: Array, numbers_per_point: int) -> Iterator[Array]:
    size = max(1, _CHUNK // numbers_per_point)
    return (points[i : i + size] for i in range(0, len(points), size))


def local_fields(
    molecule: Mole, density_matrix: Array, xc: str, points: Array, gradient: bool = False
) -> dict[str, Array]:
    """Density, positive kinetic energy density, xc energy density and perhaps the gradient.

    Args:
        density_matrix: (n, n), or (2, n, n) for both spins. xc: functional of libxc.
        points: (n_points, 3), bohr.

    Returns:
        ``density``, ``kinetic`` = (1/2) sum f_i |grad psi_i|^2, ``xc``; with ``gradient`` also
        ``gradient_x``, ``gradient_y``, ``gradient_z``; each (n_points,), atomic units.
    """
    parts = [
        _local_fields(molecule, density_matrix, xc, chunk)
        for chunk in _chunks(points, 5 * molecule.nao)
    ]
    rho, exc = (np.concatenate(values, axis=-1) for values in zip(*parts, strict=True))
    fields = {"density": rho[0], "kinetic": rho[4], "xc": exc}
    if gradient:
        fields |= {f"gradient_{axis}": rho[1 + i] for i, axis in enumerate("xyz")}
    return fields


def _local_fields(
    molecule: Mole, density_matrix: Array, xc: str, points: Array
) -> tuple[Array, Array]:
    """Density, gradient and tau, (5, n_points), summed over spins; xc energy density."""
    from pyscf.dft.numint import NumInt

    numint = NumInt()
    values = numint.eval_ao(molecule, points, deriv=1)
    matrices = density_matrix.reshape(-1, molecule.nao, molecule.nao)
    rho = np.stack(
        [
            numint.eval_rho(molecule, values, matrix, xctype="MGGA", hermi=1, with_lapl=False)
            for matrix in matrices
        ]
    )
    kind = numint.libxc.xc_type(xc)
    rows: Any = {"LDA": 0, "GGA": slice(4), "MGGA": slice(5)}[kind]
    spin = len(matrices) - 1
    given = rho[:, rows] if spin else rho[0, rows]
    per_electron = numint.eval_xc_eff(xc, given, deriv=0, xctype=kind, spin=spin)[0]
    total = rho.sum(axis=0)
    return total, total[0] * per_electron


def hartree_potential(molecule: Mole, density_matrix: Array, points: Array) -> Array:
    """Potential (n_points,) of the electrons by exact integrals, hartree; slow.

    Args:
        density_matrix: (n, n), of both spins. points: (n_points, 3), bohr.
    """
    parts = [
        np.einsum("nij,ij->n", molecule.intor("int1e_grids", grids=chunk, hermi=1), density_matrix)
        for chunk in _chunks(points, molecule.nao**2)
    ]
    return np.concatenate(parts) if parts else np.zeros(0)


def ionic_potential(molecule: Mole, points: Array) -> Array:
    """Potential (n_points,) of the nuclei, or the local part of their pseudopotentials; hartree."""
    total = np.zeros(len(points))
    for atom in range(molecule.natm):
        r = np.linalg.norm(points - molecule.atom_coord(atom), axis=1)
        with np.errstate(divide="ignore"):
            coulomb = -molecule.atom_charge(atom) / r
        parameters = molecule._pseudo.get(molecule.atom_symbol(atom))
        total += coulomb if parameters is None else _gth_local(coulomb, parameters, r)
    return total


def _gth_local(coulomb: Array, parameters: list[Any], r: Array) -> Array:
    """Goedecker, Teter and Hutter, Phys. Rev. B 54, 1703 (1996), equation 1."""
    radius, _, coefficients = parameters[1:4]
    s = r / radius
    polynomial = np.polynomial.polynomial.polyval(s**2, coefficients or [0.0])
    return coulomb * erf(s / math.sqrt(2)) + polynomial * np.exp(-(s**2) / 2)
