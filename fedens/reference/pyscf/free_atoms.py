"""Spherical free atoms at the level of theory of a Kohn-Sham calculation, kept on disk.

Open shells are filled evenly, spin-unpolarised, in the ground-state configuration, so that the
density is a sphere's: it need not be the atom's ground state, only the same for every molecule.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from fedens.atoms.spherical import SphericalAtom
from fedens.errors import ConvergenceError, OutputError
from fedens.fields import LOCAL_FIELDS
from fedens.files import write_atomically
from fedens.reference.pyscf.molecule import bare_molecule, build_mean_field
from fedens.reference.pyscf.orbital_fields import local_fields

#: Radii, bohr. A spline through so many is good to 1e-11 of the functions.
_SMALLEST, _LARGEST, _POINTS = 1e-8, 50.0, 4096
#: PySCF's grid for the atom: radial shells and points on each, enough for products of g shells.
_GRID = (200, 50)
_CONV_TOL, _MAX_CYCLES = 1e-11, 200
#: Part of the names of cached files; raise it when what they hold changes.
_SCHEMA = 1


def free_atoms(symbols: Iterable[str], xc: str, basis: str) -> dict[str, SphericalAtom]:
    """The free atom of each element, by symbol; see :func:`free_atom`."""
    return {symbol: free_atom(symbol, xc, basis) for symbol in dict.fromkeys(symbols)}


@lru_cache(maxsize=256)
def free_atom(symbol: str, xc: str, basis: str) -> SphericalAtom:
    """The spherical atom of an element with all its electrons.

    Read from the cache folder (``fedens/free_atoms`` in ``$XDG_CACHE_HOME``, else ``~/.cache``)
    if it is there and whole, else computed and stored.

    Raises:
        FunctionalError: a functional or basis that cannot be used.
        ConvergenceError: the self-consistent field did not converge.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    path = cache / "fedens" / "free_atoms" / f"{symbol}-{_key(symbol, xc, basis)}.atom"
    atom = _read(path)
    if atom is None:
        atom = _table(solve_atom(symbol, xc, basis))
        with suppress(OutputError):  # without a cache it only takes longer
            write_atomically(path, _packed(atom))
    return atom


def solve_atom(symbol: str, xc: str, basis: str) -> Any:
    """PySCF's converged spherical atom.

    Raises:
        ConvergenceError: it did not converge; PySCF's object is in ``.result``.
    """
    from pyscf.data.elements import CONFIGURATION
    from pyscf.scf.atom_ks import AtomSphericAverageRKS

    molecule = bare_molecule([symbol], [[0.0, 0.0, 0.0]], basis, None)
    atom = build_mean_field(AtomSphericAverageRKS, molecule, xc)
    atom.atomic_configuration = CONFIGURATION
    atom.grids.atom_grid = _GRID
    atom.grids.prune = None
    atom.conv_tol = _CONV_TOL
    atom.max_cycle = _MAX_CYCLES
    atom.kernel()
    if not atom.converged:
        raise ConvergenceError(
            f"free atom of {symbol} ({xc}, {basis}): no self-consistent field after "
            f"{_MAX_CYCLES} cycles; try another basis",
            atom,
        )
    return atom


def _table(atom: Any) -> SphericalAtom:
    """The atom along a ray: all directions are the same."""
    r = np.geomspace(_SMALLEST, _LARGEST, _POINTS)
    points = np.column_stack([0 * r, 0 * r, r])
    fields = local_fields(atom.mol, atom.make_rdm1(), atom.xc, points)
    return SphericalAtom(float(atom.mol.atom_charge(0)), r, **{n: fields[n] for n in LOCAL_FIELDS})


def _key(symbol: str, xc: str, basis: str) -> str:
    """Short digest of all that the atom depends on."""
    from pyscf import __version__

    settings = [_SCHEMA, __version__, symbol, xc, basis]
    settings += [_SMALLEST, _LARGEST, _POINTS, *_GRID, _CONV_TOL]
    return hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:16]


def _packed(atom: SphericalAtom) -> bytes:
    """Checksum and arrays of an atom."""
    buffer = io.BytesIO()
    arrays = {name: getattr(atom, name) for name in ("r", *LOCAL_FIELDS)}
    np.savez(buffer, charge=atom.charge, **arrays)
    return hashlib.sha256(buffer.getvalue()).digest() + buffer.getvalue()


def _read(path: Path) -> SphericalAtom | None:
    """The atom in a file; None if there is none, or a broken one."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    if hashlib.sha256(content[32:]).digest() != content[:32]:
        return None
    with np.load(io.BytesIO(content[32:]), allow_pickle=False) as arrays:
        return SphericalAtom(
            float(arrays["charge"]), *(arrays[name] for name in ("r", *LOCAL_FIELDS))
        )
