"""A vacancy in aluminium, relaxed with a learned density and with the solver beside it."""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

from _model import example_model
from ase import Atoms
from ase.build import bulk
from ase.optimize import BFGS

from fedens import Calculator, Structure, write_vtu

FOLDER = Path("runs/vacancy")
#: Where the energy of this model metal is lowest, angstrom: see equation_of_state.py.
LATTICE_CONSTANT = 4.032
#: Largest force left in a relaxed structure, eV/angstrom.
FMAX = 0.01


@dataclass
class Vacancy:
    """The relaxed atoms, and formation energies before and after relaxation, eV."""

    atoms: Atoms
    unrelaxed: float
    relaxed: float
    steps: int
    seconds: float


def relax_vacancy(crystal: Atoms, calculator: Calculator) -> Vacancy:
    """Take one atom out of a perfect crystal of N and relax the others in the same cell.

    The formation energy is E(N - 1) - (N - 1)/N E(N).
    """
    start = time.monotonic()
    crystal.calc = calculator
    atoms = crystal.copy()
    del atoms[0]
    bulk_energy = len(atoms) / len(crystal) * crystal.get_potential_energy()
    atoms.calc = calculator
    unrelaxed = atoms.get_potential_energy() - bulk_energy
    optimiser = BFGS(atoms)
    optimiser.run(fmax=FMAX)
    relaxed = atoms.get_potential_energy() - bulk_energy
    return Vacancy(atoms, unrelaxed, relaxed, optimiser.nsteps, time.monotonic() - start)


def write_density(atoms: Atoms, crystal: Atoms, calculators: dict[str, Calculator]) -> Path:
    """The predicted density, its change from the perfect crystal, and its error, for ParaView."""
    density = calculators["predicted"].density(atoms)
    perfect = calculators["predicted"].density(crystal)
    exact = calculators["solved"].density(atoms)
    fields = {
        "density": density.values,
        "density_change": density.values - perfect.values,
        "density_error": density.values - exact.values,
    }
    path = FOLDER / "density.vtu"
    write_vtu(path, density.space, fields, Structure.from_ase(atoms))
    return path


def main(sites: int = 32, model: str | None = None, quick: bool = False) -> float:
    """Difference of the two formation energies, meV."""
    predictor = example_model(model, quick)
    mesh = {"spacing": predictor.spacing, "order": predictor.order}
    calculators = {
        "solved": Calculator(functional=predictor.functional, **mesh),
        "predicted": Calculator(predictor, route="functional"),
    }
    repeats = round((sites / 4) ** (1 / 3))
    crystal = bulk("Al", "fcc", a=LATTICE_CONSTANT, cubic=True) * (repeats, repeats, repeats)
    vacancies = {}
    for name, calculator in calculators.items():
        print(f"{name}: {len(crystal) - 1} atoms")
        vacancies[name] = relax_vacancy(crystal, calculator)
    print("\nformation energy, eV   unrelaxed   relaxed   steps   seconds")
    for name, v in vacancies.items():
        print(f"{name:20} {v.unrelaxed:11.5f} {v.relaxed:9.5f} {v.steps:7} {v.seconds:9.1f}")
    path = write_density(vacancies["predicted"].atoms, crystal, calculators)
    difference = 1000 * abs(vacancies["predicted"].relaxed - vacancies["solved"].relaxed)
    print(f"difference of the relaxed formation energies: {difference:.2f} meV")
    print(f"open {path} in ParaView")
    return difference


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sites", type=int, choices=(32, 108), default=32)
    parser.add_argument("--model", help="folder of a model; default: that of aluminium.yaml")
    parser.add_argument("--quick", action="store_true", help="a small model: seconds")
    main(**vars(parser.parse_args()))
