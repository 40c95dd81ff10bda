"""A model trained on cells of 32 sites, used for 108 and 256 sites with two vacancies.

Energy and force errors against the solver on the same mesh, for the perfect crystal, two vacancies
in it, and the same with displaced atoms; and the formation energy of a vacancy,
(E(N - 2) - (N - 2)/N E(N)) / 2. Nothing is trained again.

    fedens run examples/aluminium.yaml
    python benchmarks/transfer.py
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from demo_run import DemoRun, arguments

from fedens import Predictor, Structure, solve_ground_state
from fedens.errors import ExtrapolationWarning
from fedens.sources.thermal_cells import ThermalCells
from fedens.units import HARTREE_IN_MEV, HARTREE_PER_BOHR_IN_MEV_PER_ANGSTROM

DISPLACEMENT = 0.2
SUPERCELLS = {108: (3, 3, 3), 256: (4, 4, 4)}


def perfect(sites: int) -> Structure:
    """The perfect crystal."""
    cells = ThermalCells(
        supercell=SUPERCELLS[sites],
        count=1,
        displacement=(0.0, 0.0),
        strain=0.0,
        vacancy_fraction=0.0,
    )
    return cells.structure(0)


def with_two_vacancies(crystal: Structure) -> Structure:
    """Without the first atom and the one a cubic cell and a half away along a diagonal."""
    distances = np.linalg.norm(crystal.positions - crystal.positions[0], axis=1)
    second = int(np.argmin(np.abs(distances - 1.5 * 7.65)))
    kept = np.delete(np.arange(len(crystal)), [0, second])
    return crystal.replace(
        numbers=crystal.numbers[kept],
        positions=crystal.positions[kept],
        occupancies=crystal.occupancies[kept],
    )


def displaced(structure: Structure) -> Structure:
    """The same with displaced atoms."""
    shifts = DISPLACEMENT * np.random.default_rng(1).standard_normal(structure.positions.shape)
    return structure.replace(positions=structure.positions + shifts)


@dataclass(frozen=True)
class Comparison:
    """Energies, hartree, and the mean absolute force error, meV/angstrom."""

    n_atoms: int
    predicted: float
    solved: float
    force_error: float

    @property
    def per_atom(self) -> float:
        """Energy error, meV/atom."""
        return (self.predicted - self.solved) / self.n_atoms * HARTREE_IN_MEV


def compare(predictor: Predictor, structure: Structure, steps: tuple[int, ...]) -> list[Comparison]:
    """Prediction after each number of refinement steps against the solver."""
    space = predictor.space_for(structure)
    state = solve_ground_state(structure, space, predictor.functional)
    result = []
    for step in steps:
        numbers = predictor.energy_and_forces(structure, "functional", space, step)
        error = np.abs(numbers.forces - state.forces).mean()
        error *= HARTREE_PER_BOHR_IN_MEV_PER_ANGSTROM
        result.append(Comparison(len(structure), numbers.energy, state.energy, float(error)))
    return result


def formation_energy(vacancies: float, crystal: float, sites: int) -> float:
    """Of one of two vacancies, meV, from total energies in hartree."""
    return (vacancies - (sites - 2) / sites * crystal) / 2 * HARTREE_IN_MEV


def main() -> None:
    """Print the table."""
    parser = arguments(__doc__)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore", ExtrapolationWarning)
    predictor = DemoRun.open(options.run).predictor
    steps = (0, 1)
    print(f"{'':30s}" + "".join(f"{f'{step} refinement steps':>26s}" for step in steps))
    print(f"{'':30s}" + f"{'meV/atom':>13s}{'meV/angstrom':>13s}" * len(steps))
    for sites in (108,) if options.quick else SUPERCELLS:
        crystal = perfect(sites)
        vacancies = with_two_vacancies(crystal)
        structures = {
            "perfect": crystal,
            "two vacancies": vacancies,
            "two vacancies, displaced": displaced(vacancies),
        }
        table = {name: compare(predictor, s, steps) for name, s in structures.items()}
        for name, row in table.items():
            cells = "".join(f"{c.per_atom:13.3f}{c.force_error:13.3f}" for c in row)
            print(f"{sites} sites, {name:19s}{cells}", flush=True)
        pairs = list(zip(table["two vacancies"], table["perfect"], strict=True))
        solved = formation_energy(pairs[0][0].solved, pairs[0][1].solved, sites)
        errors = [formation_energy(v.predicted, p.predicted, sites) - solved for v, p in pairs]
        print(
            f"formation energy of a vacancy: {solved:.1f} meV by the solver; errors "
            + ", ".join(f"{e:.2f}" for e in errors)
            + " meV",
            flush=True,
        )


if __name__ == "__main__":
    main()
