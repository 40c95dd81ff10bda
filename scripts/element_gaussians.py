"""Make ``fedens/data/element_gaussians.json``: free-atom valence densities as few Gaussians.

Recipe. Each neutral atom is computed with PySCF as a spherical, spin-restricted atom with
fractional occupations (PBE). Its valence density is the sum over the orbitals outside the
noble-gas core. It is fitted by f(r) = sum_g B_g exp(-beta_g r^2) so that the integral of
[4 pi r^2 (n - f)]^2 over r is smallest, with

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
from pathlib import Path

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray
from scipy.optimize import least_squares

BASIS = "def2-qzvpp"
FUNCTIONAL = "pbe"
TARGET = Path(__file__).parents[1] / "fedens" / "data" / "element_gaussians.json"
#: Electrons and orbitals of the noble-gas cores.
CORES = {2: 1, 10: 5, 18: 9}
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


def core_electrons(symbol: str) -> int:
    """Electrons of the largest noble-gas core below the element."""
    number = chemical_symbols.index(symbol)
    return max((core for core in CORES if core < number), default=0)


def valence_density(symbol: str, r: Array) -> Array:
    """Spherical valence density of the free atom at radii r, electrons/bohr^3."""
    from pyscf import gto
    from pyscf.data.elements import NRSRHFS_CONFIGURATION
    from pyscf.scf import atom_ks

    molecule = gto.M(atom=f"{symbol} 0 0 0", basis=BASIS, spin=None, verbose=0)
    atom = atom_ks.AtomSphericAverageRKS(molecule)
    atom.atomic_configuration = NRSRHFS_CONFIGURATION
    atom.xc = FUNCTIONAL
    atom.grids.level = 5
    atom.kernel()
    if not atom.converged:
        raise RuntimeError(f"the calculation of {symbol} did not converge")
    occupations = atom.mo_occ.copy()
    by_energy = np.argsort(np.where(occupations > 0, atom.mo_energy, np.inf), kind="stable")
    occupations[by_energy[: CORES.get(core_electrons(symbol), 0)]] = 0.0
    points = np.column_stack([0 * r, 0 * r, r])
    return (molecule.eval_gto("GTOval", points) @ atom.mo_coeff) ** 2 @ occupations


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
    charge = chemical_symbols.index(symbol) - core_electrons(symbol)
    density = valence_density(symbol, r)
    for n in (2, 3):
        gaussians = fit(density, r, w, charge, n)
        difference = np.abs(evaluate(gaussians, r) - density)
        error = float((4 * math.pi * r**2 * w * difference).sum() / (2 * charge))
        if error < ACCEPTED_ERROR:
            break
    return {
        "valence_electrons": charge,
        "core_electrons": core_electrons(symbol),
        "misplaced_charge": round(error, 5),
        "gaussians": gaussians.tolist(),
    }


def table(symbols: list[str]) -> dict:
    """The whole file: recipe, versions, elements."""
    import pyscf

    assert __doc__ is not None
    elements = {}
    for symbol in symbols:
        elements[symbol] = entry(symbol)
        print(f"{symbol:2s} {json.dumps(elements[symbol])}", flush=True)
    return {
        "schema": 1,
        "unit": "B in electrons/bohr^3, beta in bohr^-2; gaussians are [B, beta]",
        "recipe": __doc__.split("    python")[0].strip(),
        "made_by": "scripts/element_gaussians.py",
        "functional": FUNCTIONAL,
        "basis": BASIS,
        "pyscf": pyscf.__version__,
        "elements": elements,
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--elements", nargs="+", default=chemical_symbols[1:19], metavar="SYMBOL")
    parser.add_argument("--output", type=Path, default=TARGET, help="file to write")
    arguments = parser.parse_args()
    text = json.dumps(table(arguments.elements), indent=1)
    arguments.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
