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


def main(n_structures: int = 24, n_train: int = 12, steps: int = 2000) -> float:
    """Mean energy error of the held-out structures by the functional route, meV/atom."""
    structures = ThermalCells(count=n_structures).structures()
    aluminium = GTHLocal(valence=3, r_loc=0.7473, c1=4.9546, c2=-0.8993)
    functional = EnergyFunctional.orbital_free(kinetic="wt", pseudopotential=aluminium)
    states = [solve_ground_state(s, TensorSpace.for_structure(s), functional) for s in structures]

    samples = [state.to_sample() for state in states[:n_train]]
    multipoles = GMP(widths=[0.7, 1.0, 1.4, 2.0, 2.8], max_order=3, form="smooth")
    descriptor = Concatenation([multipoles, ResponseFields(functional)])
    train(samples, descriptor, TrainingSettings(steps=steps)).save("runs/script/model")

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
    parser.add_argument("--quick", action="store_true", help="6 structures, 200 steps: seconds")
    main(*(6, 3, 200) if parser.parse_args().quick else ())
