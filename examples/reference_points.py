"""One descriptor, three choices of reference points: energies and forces from sums over each.

The whole experiment, with learning curves and seeds: fedens run examples/reference_points.yaml
"""

import argparse
import time

import numpy as np

from fedens import (
    GMP,
    EnergyFunctional,
    EnergyTrainingSettings,
    GTHLocal,
    PointSet,
    Sample,
    TensorSpace,
    solve_ground_state,
    train_energy_model,
)
from fedens.sources.thermal_cells import ThermalCells
from fedens.units import HARTREE_IN_EV, HARTREE_PER_BOHR_IN_EV_PER_ANGSTROM

#: Reference points, lengths in bohr.
POINTS = {
    "atoms": [PointSet("atoms")],
    "atoms and bonds": [PointSet("atoms"), PointSet("bonds", cutoff=9.0)],
    "quadrature": [PointSet("quadrature", spacing=1.02, order=5)],
}
DESCRIPTOR = GMP([0.7, 1.0, 1.4, 2.0, 2.8], 3, form="smooth")
ALUMINIUM = GTHLocal(valence=3, r_loc=0.7473, c1=4.9546, c2=-0.8993)
FUNCTIONAL = EnergyFunctional.orbital_free(kinetic="wt", pseudopotential=ALUMINIUM)


def reference_data(count: int, quick: bool) -> list[Sample]:
    """Thermal cells of aluminium with vacancies, solved; small and coarse for the quick form."""
    mesh = {"spacing": 0.425, "order": 6} if quick else {}
    cells = ThermalCells(count=count, supercell=(2, 1, 1) if quick else (2, 2, 2))
    samples = []
    for structure in cells.structures():
        space = TensorSpace.for_structure(structure, **mesh)
        samples.append(solve_ground_state(structure, space, FUNCTIONAL).to_sample())
    return samples


def main(quick: bool = False, seed: int = 0) -> float:
    """Force error at quadrature points taught everything, meV/angstrom."""
    n_train, n_test, steps = (3, 2, 100) if quick else (8, 4, 2000)
    samples = reference_data(n_train + n_test, quick)
    print(f"{'reference points':18}{'taught':22}{'energy error':>14}{'force error':>16}{'time':>8}")
    print(f"{'':40}{'meV/atom':>14}{'meV/angstrom':>16}{'s':>8}")
    for name, sets in POINTS.items():
        for fields in (False, True):
            if fields and not sets[0].per_volume:
                continue
            start = time.perf_counter()
            settings = EnergyTrainingSettings(
                steps=steps, field_weight=1.0 if fields else 0.0, seed=seed
            )
            model = train_energy_model(samples[:n_train], DESCRIPTOR, sets, settings, FUNCTIONAL)
            seconds = time.perf_counter() - start
            energy_errors, force_errors = [], []
            for sample in samples[n_train:]:
                found = model.energy_and_forces(sample.structure)
                energy_errors.append(abs(found.energy - sample.energy) / len(sample.structure))
                force_errors.append(np.abs(found.forces - sample.forces).mean())
            taught = "fields, " * fields + "energies, forces"
            force_error = 1000 * HARTREE_PER_BOHR_IN_EV_PER_ANGSTROM * np.mean(force_errors)
            energy_error = 1000 * HARTREE_IN_EV * np.mean(energy_errors)
            print(f"{name:18}{taught:22}{energy_error:14.2f}{force_error:16.1f}{seconds:8.0f}")
    return float(force_error)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="three small structures: seconds")
    parser.add_argument("--seed", type=int, default=0, help="of the networks")
    main(**vars(parser.parse_args()))
