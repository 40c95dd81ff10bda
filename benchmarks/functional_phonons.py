"""Phonons of fcc aluminium by the learned functional, Wang-Teter and, if wanted, Kohn-Sham.

One atom of n x n x n cubic cells is displaced by 0.06 bohr along x; cubic symmetry gives the rest.
Frequencies (THz) on Gamma-X and Gamma-L at the wave vectors that fit into the cell.

    fedens run examples/aluminium_kohn_sham.yaml
    python benchmarks/functional_phonons.py [--kohn-sham]
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import torch
from ase.units import _amu, _aut, _me
from functionals import LATTICE, arguments, classical, fcc, kohn_sham, learned

from fedens import Structure
from fedens.errors import ExtrapolationWarning
from fedens.models.functional.model import FunctionalModel

ForcesOf = Callable[[Structure], np.ndarray]
STEP = 0.06
MASS = 26.9815385 * _amu / _me
THZ = 1e-12 / (2 * np.pi * _aut)
DIRECTIONS = {"X": np.array([1.0, 0, 0]), "L": np.array([0.5, 0.5, 0.5])}


def force_constants(forces: ForcesOf, repeat: int) -> tuple[np.ndarray, np.ndarray]:
    """Vectors from the displaced atom (n, 3) and -dF_b(vector)/du_x (n, 3) (central)."""
    perfect = fcc((repeat,) * 3)
    step = np.zeros_like(perfect.positions)
    step[0, 0] = STEP
    plus, minus = (forces(perfect.replace(positions=perfect.positions + s)) for s in (step, -step))
    return perfect.positions, (minus - plus) / (2 * STEP)


def dynamical_matrix(sites: np.ndarray, constants: np.ndarray, q: np.ndarray) -> np.ndarray:
    """D(q), (3, 3), of one atom in the primitive cell; q in 1/bohr fits into the cell.

    Column x is known; the rotation that takes x to y (or z) about [111] gives the others.
    """
    columns = []
    for axis in range(3):
        turned = np.roll(q, -axis)  # the same wave seen with the displaced axis as x
        column = np.cos(sites @ turned) @ constants
        columns.append(np.roll(column, axis))
    matrix = np.stack(columns, axis=1) / MASS
    return (matrix + matrix.T) / 2


def frequencies(sites: np.ndarray, constants: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Ascending, THz; imaginary ones negative. The acoustic sum rule is imposed at q = 0."""
    squares = np.linalg.eigvalsh(
        dynamical_matrix(sites, constants, q) - dynamical_matrix(sites, constants, np.zeros(3))
    )
    return np.sign(squares) * np.sqrt(np.abs(squares)) * THZ


def of_model(model: FunctionalModel) -> ForcesOf:
    return lambda structure: np.asarray(model.energy_and_forces(structure).forces)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--repeats", type=int, nargs="+", default=[2, 3])
    parser.add_argument("--kohn-sham", action="store_true", help="also, in the 2x2x2 cell")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore", ExtrapolationWarning)
    model = None if options.no_model else learned(options.model)
    methods = {"Wang-Teter": of_model(classical("wt", model))}
    if model is not None:
        methods["learned"] = of_model(model)
    for repeat in options.repeats:
        if options.kohn_sham and repeat == 2:
            methods = {"Kohn-Sham": lambda s: np.asarray(kohn_sham(s).forces), **methods}
        found = {name: force_constants(forces, repeat) for name, forces in methods.items()}
        methods.pop("Kohn-Sham", None)
        print(f"\n{repeat}x{repeat}x{repeat} cells: THz")
        for end, direction in DIRECTIONS.items():
            for m in range(1, repeat + 1):
                # m/repeat of the way needs whole waves in the cell
                q = 2 * np.pi / LATTICE * direction * m / repeat
                if np.abs((q * LATTICE * repeat / (2 * np.pi)) % 1).max() > 1e-9:
                    continue
                for name, (sites, constants) in found.items():
                    values = frequencies(sites, constants, q)
                    shown = " ".join(f"{v:8.3f}" for v in values)
                    print(f"{m}/{repeat} Gamma-{end}  {name:12s} {shown}", flush=True)


if __name__ == "__main__":
    main()
