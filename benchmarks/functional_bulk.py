"""Bulk aluminium: Kohn-Sham, classical functionals and the learned one beside each other.

Equation of state from 0.9 to 1.1 V0 (largest error after the mean difference is taken off), lattice
constant, bulk modulus, C11, C12, C44, energies of bcc and hcp over fcc at one volume per atom, and
the vacancy formation energy of 31 of 32 sites, unrelaxed. All cells have right angles; those of fcc
are body-centred tetragonal with two sites, whose axes a and b lie at 45 degrees to the cube's.

    fedens run examples/aluminium_kohn_sham.yaml
    python benchmarks/functional_bulk.py
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import torch
from functionals import LATTICE, arguments, classical, fcc, kohn_sham, learned

from fedens import Structure
from fedens.errors import ExtrapolationWarning
from fedens.models.functional.model import FunctionalModel
from fedens.units import BOHR_IN_ANGSTROM, HARTREE_IN_EV

EnergyOf = Callable[[Structure], float]
BCT = np.array([[0, 0, 0], [0.5, 0.5, 0.5]])
HCP = np.array([[0, 0, 0], [0.5, 0.5, 0], [0.5, 5 / 6, 0.5], [0, 1 / 3, 0.5]])
VOLUMES = np.linspace(0.9, 1.1, 7)
STRAIN = 0.02
GPA = HARTREE_IN_EV / BOHR_IN_ANGSTROM**3 * 160.2176634
MEV = 1e3 * HARTREE_IN_EV


def crystal(sites: np.ndarray, shape: np.ndarray, volume: float) -> Structure:
    """Aluminium with a cell of these proportions and this volume per atom, bohr^3."""
    cell = shape * (volume * len(sites) / np.prod(shape)) ** (1 / 3)
    return Structure(["Al"] * len(sites), sites * cell, cell=cell, pbc=True)


def fcc_cell(volume: float, stretch: tuple[float, float, float] = (1, 1, 1)) -> Structure:
    """Two sites of fcc, the axes stretched at a fixed volume per atom."""
    return crystal(BCT, np.array([1, 1, np.sqrt(2)]) * stretch, volume)


def per_atom(energy: EnergyOf, structure: Structure) -> float:
    return energy(structure) / len(structure)


def curvature(energy: EnergyOf, volume: float, axes: np.ndarray) -> float:
    """d2(E/V)/de2 at e = 0 of strains exp(e axes) without change of volume, hartree/bohr^3.

    The axes add up to 0; opposite signs need not be equal, so both are taken.
    """
    plus, zero, minus = (
        per_atom(energy, fcc_cell(volume, tuple(np.exp(e * axes)))) for e in (STRAIN, 0, -STRAIN)
    )
    return (plus - 2 * zero + minus) / (STRAIN**2 * volume)


def properties(energy: EnergyOf) -> tuple[dict[str, float], np.ndarray]:
    """The table's rows for a method, and its equation of state in meV/atom."""
    start = LATTICE**3 / 4
    volumes = start * VOLUMES
    curve = np.array([per_atom(energy, fcc_cell(v)) for v in volumes])
    # a polynomial in V^(-2/3), as of Birch and Murnaghan
    fit = np.polynomial.Polynomial.fit(volumes ** (-2 / 3), curve, 3)
    x = next(r.real for r in fit.deriv().roots() if abs(r.imag) < 1e-9 and fit.deriv(2)(r.real) > 0)
    volume = x ** (-3 / 2)
    bulk = 4 / 9 * fit.deriv(2)(x) * volume ** (-7 / 3)
    # E/V = 3/4 (C11 - C12) e^2 for (-e/2, -e/2, e), and 2 C44 e^2 for (e, -e, 0)
    difference = curvature(energy, volume, np.array([-0.5, -0.5, 1])) / 1.5
    shear = curvature(energy, volume, np.array([1.0, -1.0, 0])) / 4
    lowest = per_atom(energy, fcc_cell(start))
    bcc = per_atom(energy, crystal(BCT, np.ones(3), start))
    hcp = per_atom(energy, crystal(HCP, np.array([1, np.sqrt(3), np.sqrt(8 / 3)]), start))
    return {
        "a0, bohr": (4 * volume) ** (1 / 3),
        "B, GPa": bulk * GPA,
        "C11, GPa": (bulk + 2 / 3 * difference) * GPA,
        "C12, GPa": (bulk - 1 / 3 * difference) * GPA,
        "C44, GPa": shear * GPA,
        "bcc - fcc, meV/atom": (bcc - lowest) * MEV,
        "hcp - fcc, meV/atom": (hcp - lowest) * MEV,
    }, curve * MEV


def vacancy(energy: EnergyOf) -> float:
    """Formation energy of a vacancy in 32 sites, unrelaxed, eV."""
    whole = fcc((2, 2, 2))
    less = Structure(["Al"] * 31, whole.positions[1:], cell=whole.cell, pbc=True)
    return (energy(less) - 31 / 32 * energy(whole)) * HARTREE_IN_EV


def of_model(model: FunctionalModel) -> EnergyOf:
    return lambda structure: float(model.energy_and_forces(structure).energy)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--no-kohn-sham", action="store_true", help="functionals alone")
    parser.add_argument("--no-vacancy", action="store_true", help="leave out 32 sites")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore", ExtrapolationWarning)
    model = None if options.no_model else learned(options.model)
    methods: dict[str, EnergyOf] = {}
    if not options.no_kohn_sham:
        methods["Kohn-Sham"] = lambda structure: kohn_sham(structure).free_energy
    for name, kinetic in (("Wang-Teter", "wt"), ("WGC", "wgc"), ("LKT", "lkt")):
        methods[name] = of_model(classical(kinetic, model))
    if model is not None:
        methods["learned"] = of_model(model)
    reference: np.ndarray | None = None
    for name, energy in methods.items():
        rows, curve = properties(energy)
        if not options.no_vacancy:
            rows["vacancy, eV"] = vacancy(energy)
        reference = curve if reference is None else reference
        difference = curve - reference
        rows[f"largest error of the curve to {next(iter(methods))}, meV/atom"] = float(
            np.abs(difference - difference.mean()).max()
        )
        print(f"\n{name}")
        for label, value in rows.items():
            print(f"{label:60s}{value:12.4f}", flush=True)


if __name__ == "__main__":
    main()
