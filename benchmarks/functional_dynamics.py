"""Energy drift of a learned functional in molecular dynamics, and how it meets odd structures.

NVE runs of 108 atoms from velocities of 300 and 1000 K: slope of the total energy in meV/atom/ps
with the standard error of the straight line (the points are taken as independent). Then random
structures within 5 % strain and 0.5 bohr: converged, or refused and why. Last, three starting
densities that must end in the same minimum.

    fedens run examples/aluminium_kohn_sham.yaml
    python benchmarks/functional_dynamics.py
"""

from __future__ import annotations

import time
import warnings
from collections import Counter

import numpy as np
import torch
from ase import units
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution, Stationary
from ase.md.verlet import VelocityVerlet
from functionals import arguments, classical, fcc, learned

from fedens import Structure
from fedens.calculator import Calculator
from fedens.errors import ExtrapolationWarning, FedensError
from fedens.models.functional.model import FunctionalModel
from fedens.units import HARTREE_IN_EV

TIME_STEP = 2.0
STARTS = ("superposed_atoms", "linear_response", None)


def total_energies(model: FunctionalModel, kelvin: float, steps: int) -> np.ndarray:
    """meV/atom after each step."""
    atoms = fcc((3, 3, 3)).to_ase()
    atoms.calc = Calculator(model)
    # half of the kinetic energy goes into the potential
    generator = np.random.default_rng(1)
    MaxwellBoltzmannDistribution(atoms, temperature_K=2 * kelvin, rng=generator)
    Stationary(atoms)
    dynamics = VelocityVerlet(atoms, TIME_STEP * units.fs)
    energies = []
    for _ in range(steps):
        dynamics.run(1)
        energies.append(1e3 * atoms.get_total_energy() / len(atoms))
    return np.array(energies)


def slope(energies: np.ndarray) -> tuple[float, float]:
    """Of a straight line, meV/atom/ps, and its standard error."""
    times = TIME_STEP * 1e-3 * np.arange(len(energies))
    coefficients, covariance = np.polyfit(times, energies, 1, cov=True)
    return float(coefficients[0]), float(np.sqrt(covariance[0, 0]))


def random_structure(seed: int) -> Structure:
    """Four sites: each axis strained by up to 5 %, each coordinate moved by up to 0.5 bohr."""
    generator = np.random.default_rng(seed)
    perfect = fcc((1, 1, 1))
    stretch = 1 + generator.uniform(-0.05, 0.05, 3)
    moves = generator.uniform(-0.5, 0.5, perfect.positions.shape)
    lengths = perfect.orthorhombic_lengths() * stretch
    return perfect.replace(positions=perfect.positions * stretch + moves, cell=np.diag(lengths))


def outcome(model: FunctionalModel, structure: Structure) -> str:
    """What became of a structure."""
    try:
        energy = float(model.energy_and_forces(structure).energy)
    except FedensError as error:
        return f"refused: {type(error).__name__}"
    return "converged" if np.isfinite(energy) else "silently wrong"


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--femtoseconds", type=float, default=2000.0)
    parser.add_argument("--structures", type=int, default=100)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore", ExtrapolationWarning)
    model = classical("wt") if options.no_model else learned(options.model)
    counts = Counter(outcome(model, random_structure(seed)) for seed in range(options.structures))
    for result, count in counts.items():
        print(f"{count:4d} of {options.structures} structures {result}")
    print("\nenergies from three starts, meV/atom from the first")
    structure = fcc((2, 2, 2), 0.15)
    energies = [float(model.predict(structure, guess=start).energy) for start in STARTS]
    for start, energy in zip(STARTS, energies, strict=True):
        difference = 1e3 * HARTREE_IN_EV * (energy - energies[0]) / len(structure)
        print(f"{start or 'default':20s}{difference:12.2e}")
    print("\n| K at first | fs | slope, meV/atom/ps | error | s |\n|---|---|---|---|---|")
    for kelvin in (300.0, 1000.0):
        begin = time.process_time()
        steps = round(options.femtoseconds / TIME_STEP)
        value, error = slope(total_energies(model, kelvin, steps))
        seconds = time.process_time() - begin
        print(f"| {kelvin:.0f} | {options.femtoseconds:.0f} | {value:.3f} | {error:.3f} | "
              f"{seconds:.0f} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
