"""Make ``fedens/tables/element_gaussians.json``: free-atom valence densities as few Gaussians.

Recipe. Each neutral atom is computed with PySCF as a spherical, spin-restricted atom with
fractional occupations of its ground-state configuration (PBE):

- H to Kr: all electrons, def2-QZVPP;
- Rb to La and Hf to Rn: relativistic pseudopotential def2-ECP, def2-QZVPP;
- Ce to Lu and Fr to U, which that basis lacks: all electrons, spin-free X2C, ANO-RCC.

Its valence density is the sum over the orbitals outside the core: ns for groups 1 and 2, (n-1)d ns
for groups 3 to 12, ns np for groups 13 to 18 (filled d and f shells below are core), and f, d and
s for Ce to Yb (4f 5d 6s) and Ac to U (5f 6d 7s). It is fitted by
f(r) = sum_g B_g exp(-beta_g r^2) so that the integral of [4 pi r^2 (n - f)]^2 over r is smallest,
with

- the integral of f exactly the number of valence electrons,
- f not negative,
- exponents at least a factor of 2 apart, so that no large terms cancel.

Two Gaussians are taken where they misplace less than 5 % of the charge (half the integral of
|n - f|, over the number of valence electrons), else three.

    python scripts/element_gaussians.py
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray
from scipy.optimize import least_squares

FUNCTIONAL = "pbe"
TARGET = Path(__file__).parents[1] / "fedens" / "data" / "element_gaussians.json"
#: Cores: last element that has it, name, number of s, p, d and f shells.
CORES = (
    ("He", "", (0, 0, 0, 0)),
    ("Ne", "He", (1, 0, 0, 0)),
    ("Ar", "Ne", (2, 1, 0, 0)),
    ("Zn", "Ar", (3, 2, 0, 0)),
    ("Kr", "Ar 3d10", (3, 2, 1, 0)),
    ("Cd", "Kr", (4, 3, 1, 0)),
    ("Xe", "Kr 4d10", (4, 3, 2, 0)),
    ("Yb", "Xe", (5, 4, 2, 0)),
    ("Hg", "Xe 4f14", (5, 4, 2, 1)),
    ("Rn", "Xe 4f14 5d10", (5, 4, 3, 1)),
    ("U", "Rn", (6, 5, 3, 1)),
)
LAST_ALL_ELECTRON = "Kr"
#: First and last elements without def2-QZVPP.
WITHOUT_DEF2 = (("Ce", "Lu"), ("Fr", "U"))
LARGEST_RADIUS = 20.0
ACCEPTED_ERROR = 0.05
SMALLEST_RATIO = 2.0
SMALLEST_EXPONENT, LARGEST_EXPONENT = 0.03, 20.0
#: Weight of negative densities in the fit, relative to the error.
POSITIVITY = 1e3
#: Density below this (electrons/bohr^3) counts as negative in the fit: a margin.
MARGIN = 1e-6

Array = NDArray[np.float64]


def radial_grid(n: int = 400) -> tuple[Array, Array]:
    """Radii (bohr) dense near the nucleus, and weights of integrals over r."""
    x, w = np.polynomial.legendre.leggauss(n)
    t = (x + 1) / 2
    return LARGEST_RADIUS * t**2, LARGEST_RADIUS * t * w


def number_of(symbol: str) -> int:
    """Atomic number."""
    return chemical_symbols.index(symbol)


def core_of(symbol: str) -> tuple[str, tuple[int, ...]]:
    """Name of the element's core, and its number of s, p, d and f shells."""
    return next(core[1:] for core in CORES if number_of(symbol) <= number_of(core[0]))


def electrons_by_l(shells: Sequence[int]) -> Array:
    """Electrons in filled s, p, d and f shells, (4,)."""
    return np.multiply([2.0, 6.0, 10.0, 14.0], shells)


def core_electrons(symbol: str) -> int:
    """Electrons that are not valence."""
    return int(electrons_by_l(core_of(symbol)[1]).sum())


def method_of(symbol: str) -> dict[str, str]:
    """Basis, treatment of the core, and relativity of the element's atom."""
    number = number_of(symbol)
    if any(number_of(first) <= number <= number_of(last) for first, last in WITHOUT_DEF2):
        return {"basis": "ano-rcc", "pseudopotential": "", "relativity": "spin-free X2C"}
    if number <= number_of(LAST_ALL_ELECTRON):
        return {"basis": "def2-qzvpp", "pseudopotential": "", "relativity": "none"}
    return {"basis": "def2-qzvpp", "pseudopotential": "def2-ecp", "relativity": "pseudopotential"}


def removed_shells(molecule: Any) -> list[int]:
    """Numbers of s, p, d and f shells that the pseudopotential replaces."""
    from pyscf.gto.ecp import core_configuration

    return core_configuration(molecule.atom_nelec_core(0))


def spherical_atom(symbol: str) -> Any:
    """The converged atom, a PySCF object."""
    from pyscf import gto
    from pyscf.data.elements import CONFIGURATION
    from pyscf.scf.atom_ks import AtomSphericAverageRKS
    from pyscf.x2c.sfx2c1e import SpinFreeX2CHelper

    method = method_of(symbol)
    # shells that no electron of a spherical atom occupies only cost time
    basis = [shell for shell in gto.basis.load(method["basis"], symbol) if shell[0] <= 3]
    molecule = gto.M(
        atom=f"{symbol} 0 0 0",
        basis={symbol: basis},
        ecp=method["basis"] if method["pseudopotential"] else {},
        spin=None,
        verbose=0,
    )
    atom = AtomSphericAverageRKS(molecule)
    electrons = CONFIGURATION[number_of(symbol)] - electrons_by_l(removed_shells(molecule))
    filled = occupations(molecule, electrons)
    atom.get_occ = lambda *_, **__: filled
    atom.xc = FUNCTIONAL
    atom.grids.level = 5
    atom.init_guess = "minao"
    atom.max_cycle = 200
    if method["relativity"] == "spin-free X2C":
        hamiltonian = SpinFreeX2CHelper(molecule).get_hcore()
        atom.get_hcore = lambda *_: hamiltonian
    atom.kernel()
    if not atom.converged:
        raise RuntimeError(f"the calculation of {symbol} did not converge")
    return atom


def occupations(molecule: Any, electrons: Array) -> Array:
    """Of all orbitals, by angular momentum and then energy: open shells are filled evenly."""
    momenta = [molecule.bas_angular(i) for i in range(molecule.nbas)]
    contractions = [molecule.bas_nctr(i) for i in range(molecule.nbas)]
    n_shells = np.bincount(momenta, weights=contractions, minlength=4).astype(int)
    result = []
    for momentum, left in enumerate(electrons):
        full = 2 * (2 * momentum + 1)
        filled = np.clip(left / full - np.arange(n_shells[momentum]), 0.0, 1.0)
        result.append(np.repeat(2 * filled, 2 * momentum + 1))
    return np.concatenate(result)


def valence_density(symbol: str, r: Array) -> Array:
    """Spherical valence density of the free atom at radii r, electrons/bohr^3."""
    atom = spherical_atom(symbol)
    in_core = electrons_by_l(core_of(symbol)[1]) - electrons_by_l(removed_shells(atom.mol))
    valence = atom.mo_occ - occupations(atom.mol, in_core)
    points = np.column_stack([0 * r, 0 * r, r])
    return (atom.mol.eval_gto("GTOval", points) @ atom.mo_coeff) ** 2 @ valence


def gaussians_of(steps: Array, density: Array, r: Array, w: Array, charge: int) -> Array:
    """Best (B, beta) rows for exponents exp(cumsum(steps)), with the integral exact."""
    betas = np.exp(np.cumsum(steps))
    unit = (betas / math.pi) ** 1.5
    shapes = unit * np.exp(-betas * r[:, None] ** 2)
    weight = 4 * math.pi * r**2 * np.sqrt(w)
    # charges of all but the first; the first takes the rest
    basis = (shapes[:, 1:] - shapes[:, :1]) * weight[:, None]
    rest = np.linalg.lstsq(basis, (density - charge * shapes[:, 0]) * weight, rcond=None)[0]
    return np.column_stack([np.r_[charge - rest.sum(), rest] * unit, betas])


def evaluate(gaussians: Array, r: Array) -> Array:
    """sum of B exp(-beta r^2)."""
    return np.exp(-gaussians[:, 1] * r[:, None] ** 2) @ gaussians[:, 0]


def fit(density: Array, r: Array, w: Array, charge: int, n: int) -> Array:
    """The best of several least-squares fits by ``n`` Gaussians, (n, 2) rows (B, beta)."""

    def residuals(steps: Array) -> Array:
        values = evaluate(gaussians_of(steps, density, r, w, charge), r)
        error = 4 * math.pi * r**2 * np.sqrt(w) * (values - density)
        return np.r_[error, POSITIVITY * np.minimum(values - MARGIN * np.exp(-r), 0.0)] / charge

    low = np.r_[math.log(SMALLEST_EXPONENT), np.full(n - 1, math.log(SMALLEST_RATIO))]
    high = np.full(n, math.log(LARGEST_EXPONENT))
    starts = [np.r_[a, np.full(n - 1, b)] for a in (-2.5, -1.5, -0.5) for b in (0.8, 1.2, 2.0)]
    fits = [least_squares(residuals, x, bounds=(low, high), ftol=1e-12, xtol=1e-12) for x in starts]
    best = min(fits, key=lambda result: result.cost)
    return gaussians_of(best.x, density, r, w, charge)


def entry(symbol: str) -> dict:
    """The element's part of the table."""
    r, w = radial_grid()
    charge = number_of(symbol) - core_electrons(symbol)
    density = valence_density(symbol, r)
    found = float((4 * math.pi * r**2 * w * density).sum())
    if abs(found - charge) > 1e-3 * charge:
        raise RuntimeError(f"the valence density of {symbol} holds {found} of {charge} electrons")
    for n in (2, 3):
        gaussians = fit(density, r, w, charge, n)
        difference = np.abs(evaluate(gaussians, r) - density)
        error = float((4 * math.pi * r**2 * w * difference).sum() / (2 * charge))
        if error < ACCEPTED_ERROR:
            break
    return {
        "valence_electrons": charge,
        "core_electrons": core_electrons(symbol),
        "core": core_of(symbol)[0],
        **method_of(symbol),
        "misplaced_charge": round(error, 5),
        "gaussians": gaussians.tolist(),
    }


def table(elements: dict[str, dict]) -> dict:
    """The whole file: recipe, versions, elements by atomic number."""
    import pyscf

    assert __doc__ is not None
    return {
        "schema": 2,
        "unit": "B in electrons/bohr^3, beta in bohr^-2; gaussians are [B, beta]",
        "recipe": __doc__.split("    python")[0].strip(),
        "made_by": "scripts/element_gaussians.py",
        "functional": FUNCTIONAL,
        "pyscf": pyscf.__version__,
        "elements": {symbol: elements[symbol] for symbol in sorted(elements, key=number_of)},
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--elements",
        nargs="+",
        default=chemical_symbols[1 : number_of(CORES[-1][0]) + 1],
        metavar="SYMBOL",
        help="those to make (default: all); others in the file are kept",
    )
    parser.add_argument("--output", type=Path, default=TARGET, help="file to write")
    arguments = parser.parse_args()
    elements = {}
    if arguments.output.exists():
        elements = json.loads(arguments.output.read_text("utf-8"))["elements"]
    for symbol in arguments.elements:
        elements[symbol] = entry(symbol)
        print(f"{symbol:2s} {json.dumps(elements[symbol])}", flush=True)
        text = json.dumps(table(elements), indent=1)
        arguments.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
