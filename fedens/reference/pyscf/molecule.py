"""A structure as PySCF's molecule, and what is refused before anything is computed.

Fields at points carry the energy of functionals of the density, its gradient and the kinetic
energy density only. Exact exchange, non-local correlation and dispersion corrections have none.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from fedens.errors import FunctionalError, PseudopotentialError, StructureError
from fedens.structure import Structure

if TYPE_CHECKING:
    from pyscf.gto import Mole

#: Names that fedens uses elsewhere, as libxc has them.
_LIBXC_NAMES = {"lda_pw": "lda_x,lda_c_pw", "lda_pz": "lda_x,lda_c_pz"}


def functional_code(xc: str) -> str:
    """Name of a functional for libxc.

    Raises:
        FunctionalError: unknown, or with energy that no semilocal field carries.
    """
    from pyscf.dft import libxc

    code = _LIBXC_NAMES.get(xc, xc)
    try:
        kind = libxc.xc_type(code)
    except (KeyError, ValueError) as error:
        raise FunctionalError(
            f"xc functional {xc!r} is not known: use a name of PySCF or libxc such as 'pbe', "
            f"'r2scan' or 'lda_x,lda_c_pw' ({error})"
        ) from error
    missing = {
        "exact exchange": kind == "HF" or libxc.is_hybrid_xc(code),
        "non-local correlation": libxc.is_nlc(code),
        "a dispersion correction": re.search("-(d3|d4|3c)", code.lower()),
        "the Laplacian of the density": libxc.needs_laplacian(code),
    }
    parts = " and ".join(name for name, there in missing.items() if there)
    if parts:
        raise FunctionalError(
            f"xc functional {xc!r} contains {parts}, which no field at points carries here: use "
            "an LDA, GGA or meta-GGA such as 'pbe' or 'r2scan'"
        )
    return code


def build_molecule(structure: Structure, basis: str, pseudopotential: str | None) -> Mole:
    """PySCF's molecule of an isolated structure.

    Args:
        basis: name of a Gaussian basis set. pseudopotential: name of a GTH set, or None for all
            electrons.

    Raises:
        StructureError: periodic axes, partial occupancies, fractional charge, or a spin that
            does not fit the number of electrons.
        FunctionalError: an element that the basis lacks, or a basis made for a pseudopotential.
        PseudopotentialError: an element that the pseudopotential lacks.
    """
    _refuse_structure(structure)
    molecule = bare_molecule(
        structure.symbols, structure.positions.tolist(), basis, pseudopotential, structure.charge
    )
    electrons, spin = molecule.nelectron, structure.spin
    if electrons < 1:
        raise StructureError(
            f"{structure.formula} with charge {structure.charge:g} has {electrons} electrons: "
            "at least one is needed"
        )
    if spin > electrons or (electrons - spin) % 2:
        odd = "an odd" if electrons % 2 else "an even"
        raise StructureError(
            f"{structure.formula} has {electrons} electrons, {odd} number, and spin = {spin} of "
            f"them unpaired: give Structure(..., spin=...) {odd} number up to {electrons}, or "
            "another charge"
        )
    molecule.spin = spin
    return molecule


def _refuse_structure(structure: Structure) -> None:
    if structure.pbc.any():
        raise StructureError(
            f"pbc is {structure.pbc.tolist()}: Kohn-Sham calculations of periodic cells need "
            "k-points, which are not there yet; use an isolated molecule or the orbital-free "
            "solve_ground_state"
        )
    if (structure.occupancies != 1).any():
        raise StructureError("orbitals need whole atoms: all occupancies must be 1")
    if not float(structure.charge).is_integer():
        raise StructureError(f"charge is {structure.charge}: orbitals need a whole number")


def bare_molecule(
    symbols: Sequence[str],
    positions: Sequence[Sequence[float]],
    basis: str,
    pseudopotential: str | None,
    charge: float = 0.0,
) -> Mole:
    """PySCF's molecule, its spin the lowest possible; see :func:`build_molecule` for the errors."""
    from pyscf import gto

    _refuse_basis(symbols, basis, pseudopotential)
    molecule = gto.Mole(
        atom=list(zip(symbols, positions, strict=True)),
        unit="Bohr",
        basis=basis,
        charge=int(charge),
        spin=None,
        verbose=0,
    )
    if pseudopotential is not None:
        molecule.pseudo = pseudopotential
    return molecule.build(dump_input=False, parse_arg=False)


def _refuse_basis(symbols: Sequence[str], basis: str, pseudopotential: str | None) -> None:
    from pyscf.gto import basis as library

    if pseudopotential is None and basis.lower().startswith("gth"):
        raise FunctionalError(
            f"basis {basis!r} is made for a pseudopotential: pass pseudopotential='gth-pbe', or a "
            "basis for all electrons such as 'def2-svp'"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PySCF's advice to install another package
        for symbol in dict.fromkeys(symbols):
            try:
                library.load(basis, symbol)
            except (RuntimeError, KeyError) as error:
                raise FunctionalError(
                    f"basis {basis!r} has nothing for {symbol}: choose another basis set"
                ) from error
            if pseudopotential is None:
                _refuse_core_basis(symbol, basis)
                continue
            try:
                library.load_pseudo(pseudopotential, symbol)
            except (RuntimeError, KeyError) as error:
                raise PseudopotentialError(
                    f"pseudopotential {pseudopotential!r} has nothing for {symbol}: use a GTH set "
                    "of PySCF such as 'gth-pbe'"
                ) from error


def _refuse_core_basis(symbol: str, basis: str) -> None:
    """A basis whose core is replaced gives nonsense with all electrons, without an error."""
    from pyscf.gto import basis as library

    try:
        core = library.load_ecp(basis, symbol)
    except (RuntimeError, KeyError):
        return
    if core:
        raise FunctionalError(
            f"basis {basis!r} leaves {core[0]} core electrons of {symbol} to an effective core "
            "potential, which is not supported: use an all-electron basis"
        )


def build_mean_field(kind: Callable[[Mole], Any], molecule: Mole, xc: str) -> Any:
    """An object of one of PySCF's classes with a functional; it keeps no file open.

    Raises:
        FunctionalError: see :func:`functional_code`.
    """
    code = functional_code(xc)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PySCF about itself
        mean_field = kind(molecule)
    if mean_field.chkfile is not None:
        mean_field._chkfile.close()
        mean_field.chkfile = None
    mean_field.xc = code
    return mean_field
