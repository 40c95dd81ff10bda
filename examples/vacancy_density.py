"""A learned density of aluminium, trained on cells of 32 sites, around a vacancy in larger ones.

Two training sets of the same size: thermal cells alone; and with strained cells and cells with one
displaced atom among them. Errors of both around vacancies: formation energy, forces, density in
shells, and the energy's error against the squared error of the density. A run that is cut off goes
on when it is started again.
"""

import argparse
import json
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fedens import (
    GMP,
    Calculator,
    EnergyFunctional,
    GTHLocal,
    Predictor,
    Structure,
    TensorSpace,
    solve_ground_state,
    train,
    write_vtu,
)
from fedens.data.dataset import Dataset
from fedens.errors import ExtrapolationWarning
from fedens.features.descriptor import Concatenation
from fedens.features.response import ResponseFields
from fedens.files import write_atomically
from fedens.generalisation.defects import Crystal, defect_in_supercell
from fedens.generalisation.density import density_errors, shell_errors, squared_error
from fedens.generalisation.lattice import GreenOperator, force_constants
from fedens.generalisation.potential import AsePotential
from fedens.generalisation.relaxation import LOOSE, relax
from fedens.models.crystal.objective import TrainingSettings
from fedens.report.figures import power_law_plot
from fedens.sources.thermal_cells import ThermalCells
from fedens.units import (
    BOHR_IN_ANGSTROM,
    HARTREE_IN_EV,
    HARTREE_IN_MEV,
    HARTREE_PER_BOHR_IN_MEV_PER_ANGSTROM,
)

ALUMINIUM = GTHLocal(valence=3, r_loc=0.7473, c1=4.9546, c2=-0.8993)
FUNCTIONAL = EnergyFunctional.orbital_free(kinetic="wt", pseudopotential=ALUMINIUM)
#: Where the energy of this model metal is lowest, angstrom: see equation_of_state.py.
CRYSTAL = Crystal("Al", 4.032 / BOHR_IN_ANGSTROM)
#: Cubic cells along an edge of the training cells.
SMALL = 2
#: How far an atom's surroundings matter for its energy, bohr: in a metal, the response to a moved
#: atom has decayed there to a thousandth.
CUTOFF = 12.0


@dataclass(frozen=True)
class Size:
    """How much work: the full form, or the quick one of seconds."""

    folder: Path
    mesh: dict[str, Any]
    thermal: int
    extra: int
    supercells: tuple[int, ...]
    settings: TrainingSettings
    relaxed: bool


FULL = Size(
    Path("runs/vacancy_density"),
    {},
    thermal=12,
    extra=8,
    supercells=(3, 4),
    settings=TrainingSettings(steps=2000, committee=1),
    relaxed=True,
)
QUICK = Size(
    Path("runs/vacancy_density_quick"),
    {"spacing": 0.6, "order": 6},
    thermal=2,
    extra=2,
    supercells=(3,),
    settings=TrainingSettings(steps=150, committee=1),
    relaxed=False,
)


class Results:
    """Numbers found so far, by name, in a JSON file."""

    def __init__(self, path: Path):
        self._path = path
        self._found = json.loads(path.read_text()) if path.is_file() else {}

    def once(self, name: str, compute: Callable[[], Any]) -> Any:
        """A result of this name, computed only if it is not there yet."""
        if name not in self._found:
            self._found[name] = compute()
            write_atomically(self._path, json.dumps(self._found, indent=1))
        return self._found[name]


def thermal_cells(count: int) -> list[Structure]:
    """Displaced atoms and vacancies in cells of the crystal's own volume."""
    cells = ThermalCells(
        lattice_constant=CRYSTAL.lattice_constant,
        supercell=(SMALL,) * 3,
        count=count,
        strain=0.0,
    )
    return cells.structures()


def response_cells(count: int) -> list[Structure]:
    """Perfect cells, by turns with a stretched axis and with a displaced atom, in both senses."""
    perfect = CRYSTAL.cell(SMALL)
    cells = []
    for i in range(count):
        sign, size = (-1) ** (i // 2), 1 + i // 4
        if i % 2:
            positions = perfect.positions.copy()
            positions[0] += sign * size * np.array([0.15, 0.1, 0.05])
            cells.append(perfect.replace(positions=positions))
        else:
            change = np.array([1 + 0.01 * sign * size, 1.0, 1.0])
            cells.append(
                perfect.replace(
                    positions=perfect.positions * change, cell=np.asarray(perfect.cell) * change
                )
            )
    return cells


def training_sets(size: Size) -> dict[str, list[str]]:
    """Label all cells; names of the samples of each training set."""
    data = Dataset.open(size.folder / "data", create=True)
    structures = {f"thermal-{i}": s for i, s in enumerate(thermal_cells(size.thermal + size.extra))}
    structures |= {f"response-{i}": s for i, s in enumerate(response_cells(size.extra))}
    for name, structure in structures.items():
        if name not in data:
            space = TensorSpace.for_structure(structure, **size.mesh)
            data.add(solve_ground_state(structure, space, FUNCTIONAL).to_sample(), name)
            print(f"labelled {name}", flush=True)
    names = list(structures)
    thermal, all_thermal = names[: size.thermal], names[: size.thermal + size.extra]
    return {"thermal cells": all_thermal, "with responses": thermal + names[-size.extra :]}


def model_of(size: Size, label: str, names: list[str]) -> Predictor:
    """The model of a training set, trained if it is not there."""
    folder = size.folder / label.replace(" ", "_")
    if not (folder / "model.json").is_file():
        data = Dataset.open(size.folder / "data")
        descriptor = Concatenation(
            [GMP([0.7, 1.0, 1.4, 2.0, 2.8], 3, form="smooth"), ResponseFields(FUNCTIONAL)]
        )
        samples = [data[name] for name in names]
        checkpoint = folder / "checkpoints"
        train(samples, descriptor, size.settings, FUNCTIONAL, checkpoint=checkpoint).save(folder)
        print(f"trained on {len(names)}: {label}", flush=True)
    return Predictor.load(folder)


def save_array(path: Path, array: np.ndarray) -> None:
    """An array as a file of exactly this name."""
    with path.open("wb") as file:
        np.save(file, array)


def relaxed_vacancy(size: Size, repeats: int) -> Structure:
    """A vacancy, relaxed by the solver to 1e-3 eV/angstrom in the full form."""
    defect = defect_in_supercell(CRYSTAL, "vacancy", repeats)
    if not size.relaxed:
        return defect.structure
    path = size.folder / f"relaxed_{repeats}.npy"
    if not path.is_file():
        solver = AsePotential(Calculator(functional=FUNCTIONAL, **size.mesh), CUTOFF)
        constants = force_constants(solver, CRYSTAL, SMALL)

        def show(step: int, force: float) -> None:
            print(f"{repeats}^3 cells, step {step}: {force:.1e} hartree/bohr", flush=True)

        found = relax(
            solver, defect, GreenOperator(constants, defect), tolerance=LOOSE, report=show
        )
        write_atomically(path, lambda to: save_array(to, found.positions))
    return defect.structure.replace(positions=np.load(path))


def compare(size: Size, model: Predictor, repeats: int, label: str) -> dict[str, Any]:
    """Errors of a model for the vacancy and the perfect crystal, against the solver."""
    crystal, vacancy = CRYSTAL.cell(repeats), relaxed_vacancy(size, repeats)
    errors, squares, solved_energies = {}, {}, {}
    for name, structure in (("crystal", crystal), ("vacancy", vacancy)):
        space = TensorSpace.for_structure(structure, **size.mesh)
        solved = solve_ground_state(structure, space, FUNCTIONAL)
        numbers = model.energy_and_forces(structure, "functional", space)
        density = model.density(structure, space).values
        exact = solved.density.values
        errors[name] = numbers.energy - solved.energy
        solved_energies[name] = solved.energy
        squares[name] = squared_error(space, exact, density)
        force_error = np.abs(numbers.forces - solved.forces)
        print(f"{label}, {repeats}^3 cells, {name}: done", flush=True)
    limits = np.arange(0, 0.5 * repeats + 0.01, 0.5) * CRYSTAL.lattice_constant
    shells = shell_errors(space, exact, density, np.zeros(3), limits)
    fields = {"density": density, "density_error": density - exact}
    write_vtu(size.folder / f"{label.replace(' ', '_')}_{repeats}.vtu", space, fields, vacancy)
    share = len(vacancy) / len(crystal)
    unit = HARTREE_PER_BOHR_IN_MEV_PER_ANGSTROM
    return {
        "formation_energy_ev": HARTREE_IN_EV
        * (solved_energies["vacancy"] - share * solved_energies["crystal"]),
        "formation_error_mev": HARTREE_IN_MEV * (errors["vacancy"] - share * errors["crystal"]),
        "force_error_mev_per_angstrom": float(force_error.mean()) * unit,
        "energy_errors_mev": [HARTREE_IN_MEV * abs(e) for e in errors.values()],
        "squared_errors": list(squares.values()),
        "shell_distances": (shells[0] * BOHR_IN_ANGSTROM).tolist(),
        "shell_errors_percent": shells[1].tolist(),
    }


def crystal_errors(size: Size, model: Predictor) -> dict[str, float]:
    """Relative errors of the crystal's density and of its responses."""
    crystal = CRYSTAL.cell(SMALL)
    space = TensorSpace.for_structure(crystal, **size.mesh)
    return asdict(
        density_errors(
            lambda s, on: solve_ground_state(s, on, FUNCTIONAL).density.values,
            lambda s, on: model.density(s, on).values,
            crystal,
            space,
        )
    )


def pictures(size: Size, table: dict[tuple[str, int], dict[str, Any]]) -> None:
    """Density error in shells, and energy errors against squared density errors."""
    shells, energies = {}, {}
    for (label, repeats), row in table.items():
        shells[f"{label}, {repeats}^3"] = (row["shell_distances"], row["shell_errors_percent"])
        x, y = energies.setdefault(label, ([], []))
        x.extend(row["squared_errors"])
        y.extend(row["energy_errors_mev"])
    picture = power_law_plot(shells, "distance from the vacancy (angstrom)", "density error (%)")
    write_atomically(size.folder / "shells.png", picture)
    ordered = {
        label: tuple(np.array(sorted(zip(*xy, strict=True))).T) for label, xy in energies.items()
    }
    picture = power_law_plot(
        ordered,
        "squared density error (electrons^2/bohr^3)",
        "energy error (meV)",
        {"proportional": 1.0},
    )
    write_atomically(size.folder / "energy_errors.png", picture)


def main(quick: bool = False, seed: int = 0) -> float:
    """Largest error of a formation energy, of the model trained with responses, meV.

    The seed is that of networks that are not in the folder yet.
    """
    warnings.simplefilter("ignore", ExtrapolationWarning)
    size = QUICK if quick else FULL
    size = replace(size, settings=replace(size.settings, seed=seed))
    results, table = Results(size.folder / "results.json"), {}
    for label, names in training_sets(size).items():
        model = model_of(size, label, names)
        e = results.once(f"{label}, crystal", lambda m=model: crystal_errors(size, m))
        print(
            f"{label}: relative errors of the crystal's density {e['at_rest']:.1e}, its response "
            f"to a displaced atom {e['displacement']:.1e}, to strain {e['strain']:.1e}"
        )
        for n in size.supercells:
            table[label, n] = results.once(
                f"{label}, {n}", lambda m=model, n=n, to=label: compare(size, m, n, to)
            )
    pictures(size, table)
    print(f"\n{'':32}formation energy    error     force error   density error in shells")
    for (label, n), row in table.items():
        shown = " ".join(f"{error:.3f}" for error in row["shell_errors_percent"])
        print(
            f"{label:16} {n}x{n}x{n} {row['formation_energy_ev']:16.4f} eV "
            f"{row['formation_error_mev']:8.2f} meV {row['force_error_mev_per_angstrom']:8.2f} "
            f"meV/angstrom  {shown} %"
        )
    print(f"open {size.folder}/energy_errors.png, shells.png; the .vtu files in ParaView")
    return max(
        abs(row["formation_error_mev"])
        for (label, _), row in table.items()
        if label == "with responses"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="coarse and small: seconds")
    main(**vars(parser.parse_args()))
