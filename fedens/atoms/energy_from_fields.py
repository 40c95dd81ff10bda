"""Total energy from fields, as a difference to superposed atoms; exact for exact fields.

With n = sum_A n_A + d over spherical neutral atoms of energies T_A, E_xc,A, E_es,A,

T    = sum_A T_A    + int (tau - sum_A tau_A)
E_xc = sum_A E_xc,A + int (e_xc - sum_A e_xc,A)
E_es = sum_A E_es,A + sum_{A<B} E_AB + int d sum_A phi_A + (1/2) int int d(r) d(r') / |r - r'|

phi_A is an atom's potential with its nucleus, E_AB the energy of two undeformed atoms
(:mod:`fedens.atoms.spherical`). What atoms have is known to many digits; only differences,
which are small and smooth near the nuclei, meet the mesh.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from fedens.atoms.charge_near_atoms import coulomb_energy, coulomb_potential
from fedens.atoms.spherical import SphericalAtom, find_atom, pair_energy, superposed_fields
from fedens.errors import FunctionalError
from fedens.fem.space import FunctionSpace
from fedens.fields import LOCAL_FIELDS
from fedens.structure import Structure


def energy_from_fields(
    structure: Structure,
    space: FunctionSpace,
    fields: Mapping[str, Tensor],
    atoms: Mapping[str, SphericalAtom],
    positions: Tensor | None = None,
) -> dict[str, Tensor]:
    """Energies of a molecule from its fields at the points of a space.

    Args:
        fields: ``density``, ``kinetic``, ``xc``, each (n_points,), atomic units.
        atoms: by chemical symbol, at the level of theory of the fields.
        positions: (n_atoms, 3), bohr; replaces the structure's own, to differentiate.

    Returns:
        ``kinetic``, ``xc``, ``electrostatic`` (with that of the nuclei) and ``total``, hartree.

    Raises:
        FunctionalError: a field or an atom is missing.
    """
    _check(fields, space)
    superposed = superposed_fields(structure, space.points, atoms, positions)
    kinetic, xc = (
        _sum_over_atoms(structure, atoms, name) + space.integrate(fields[name] - superposed[name])
        for name in ("kinetic", "xc")
    )
    difference = fields["density"] - superposed["density"]
    at = structure if positions is None else structure.replace(positions=positions.detach().numpy())
    electrostatic = (
        _sum_over_atoms(structure, atoms, "nuclear_attraction")
        + _sum_over_atoms(structure, atoms, "hartree")
        + pair_energy(structure, atoms, positions)
        + space.integrate(difference * superposed["potential"])
        + coulomb_energy(at, space, difference)
    )
    total = kinetic + xc + electrostatic
    return {"kinetic": kinetic, "xc": xc, "electrostatic": electrostatic, "total": total}


def electrostatic_potential(
    structure: Structure,
    space: FunctionSpace,
    density: Tensor,
    atoms: Mapping[str, SphericalAtom],
    points: Tensor | None = None,
) -> Tensor:
    """Potential of electrons and nuclei as an electron feels it, (n_points,), hartree.

    That of superposed atoms in closed form, that of the difference to them by
    :mod:`fedens.atoms.charge_near_atoms`.

    Args:
        density: (n_points,) at the points of the space. atoms: by chemical symbol; any basis will
            do.
        points: (n, 3) where the potential is wanted, bohr; those of the space by default.
    """
    own = superposed_fields(structure, space.points, atoms, names=["density"])["density"]
    potential = coulomb_potential(structure, space, density - own, points)
    there = space.points if points is None else points
    names = ["potential"]
    return superposed_fields(structure, there, atoms, names=names)["potential"] + potential


def _sum_over_atoms(structure: Structure, atoms: Mapping[str, SphericalAtom], name: str) -> float:
    return sum(find_atom(atoms, symbol).energies[name] for symbol in structure.symbols)


def _check(fields: Mapping[str, Tensor], space: FunctionSpace) -> None:
    for name in LOCAL_FIELDS:
        if name not in fields:
            raise FunctionalError(
                f"no field {name!r} among {', '.join(fields) or 'none'}: the energy needs "
                f"{', '.join(LOCAL_FIELDS)}"
            )
        if fields[name].shape != (space.n_points,):
            raise FunctionalError(
                f"field {name!r} has shape {tuple(fields[name].shape)}, expected "
                f"({space.n_points},), one value per point of the space"
            )
