"""The main job as a script: solve, train, predict, compare, look at it in ParaView."""

import argparse

from fedens import (
    GMP,
    Concatenation,
    EnergyFunctional,
    GTHLocal,
    Predictor,
    ResponseFields,
    TensorSpace,
    TrainingSettings,
    solve_ground_state,
    train,
    write_vtu,
)
from fedens.sources.thermal_cells import ThermalCells
from fedens.units import HARTREE_IN_MEV

#: Structures, how many of them to train on, and steps.
FULL, QUICK = (24, 12, 2000), (4, 2, 100)


def main(quick: bool = False, seed: int = 0) -> float:
    """Mean energy error of the held-out structures by the functional route, meV/atom."""
    n_structures, n_train, steps = QUICK if quick else FULL
    structures = ThermalCells(count=n_structures).structures()
    aluminium = GTHLocal(valence=3, r_loc=0.7473, c1=4.9546, c2=-0.8993)
    functional = EnergyFunctional.orbital_free(kinetic="wt", pseudopotential=aluminium)
    states = [solve_ground_state(s, TensorSpace.for_structure(s), functional) for s in structures]

    samples = [state.to_sample() for state in states[:n_train]]
    multipoles = GMP(widths=[0.7, 1.0, 1.4, 2.0, 2.8], max_order=3, form="smooth")
    descriptor = Concatenation([multipoles, ResponseFields(functional)])
    train(samples, descriptor, TrainingSettings(steps=steps, seed=seed)).save("runs/script/model")

    predictor = Predictor.load("runs/script/model")
    held_out = states[n_train:]
    errors = [
        abs(predictor.energy(s.structure) - s.energy) / len(s.structure) * HARTREE_IN_MEV
        for s in held_out
    ]
    last = held_out[-1]
    density = predictor.density(last.structure, last.space)
    fields = {"density": density.values, "density_error": density.values - last.density.values}
    write_vtu("runs/script/density.vtu", last.space, fields, last.structure)
    print(f"energy error, mean of {len(errors)} held-out: {sum(errors) / len(errors):.3f} meV/atom")
    print("open runs/script/density.vtu in ParaView")
    return sum(errors) / len(errors)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="4 structures, 100 steps: seconds")
    parser.add_argument("--seed", type=int, default=0, help="of the networks")
    main(**vars(parser.parse_args()))
