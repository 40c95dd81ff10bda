"""How much energies change when a rigid crystal is moved through the mesh.

Peak-to-peak energy of 32 sites of aluminium (perfect, with a vacancy, displaced) over 8 shifts
along a general direction, for the solver and for the demo's model at its own resolution.

    fedens run examples/aluminium.yaml
    python benchmarks/egg_box.py
"""

from __future__ import annotations

import warnings

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk
from demo_run import DemoRun, arguments

from fedens import Calculator
from fedens.errors import ExtrapolationWarning
from fedens.units import BOHR_IN_ANGSTROM

EDGE = 7.65 * BOHR_IN_ANGSTROM
DIRECTION = np.array([1.0, 0.7, 0.4])


def crystals() -> dict[str, Atoms]:
    """The structures that are moved."""
    perfect = bulk("Al", "fcc", a=EDGE, cubic=True) * (2, 2, 2)
    vacancy = perfect.copy()
    del vacancy[0]
    displaced = perfect.copy()
    displaced.rattle(0.1, seed=3)
    return {"perfect": perfect, "vacancy": vacancy, "displaced": displaced}


def peak_to_peak(atoms: Atoms, calculator: Calculator, element: float, shifts: int) -> float:
    """Spread of the energy, meV/atom, over shifts along an element's length, angstrom."""
    energies = []
    for share in np.linspace(0, 1, shifts, endpoint=False):
        moved = atoms.copy()
        moved.positions += share * element * DIRECTION
        energies.append(calculator.get_property("energy", moved))
    return float(1000 * np.ptp(energies) / len(atoms))


def main() -> None:
    """Print the table."""
    options = arguments(__doc__).parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore", ExtrapolationWarning)
    predictor = DemoRun.open(options.run).predictor
    calculators = {
        "solver": Calculator(functional=predictor.functional),
        "functional route": Calculator(predictor),
        "refined once": Calculator(predictor, refinement_steps=1),
        "energy_density route": Calculator(predictor, "energy_density"),
    }
    space = calculators["solver"].density(crystals()["perfect"]).space
    element = float(space.element_lengths.max()) * BOHR_IN_ANGSTROM
    print(f"{space}\npeak to peak, meV/atom")
    print(f"{'':22s}" + "".join(f"{name:>12s}" for name in crystals()))
    for label, calculator in calculators.items():
        spreads = [
            peak_to_peak(atoms, calculator, element, 3 if options.quick else 8)
            for atoms in crystals().values()
        ]
        print(f"{label:22s}" + "".join(f"{spread:12.4f}" for spread in spreads), flush=True)


if __name__ == "__main__":
    main()
