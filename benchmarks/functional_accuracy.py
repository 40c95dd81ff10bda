"""How good learned kinetic functionals are for aluminium, against Kohn-Sham: a table.

    python benchmarks/functional_accuracy.py --labels runs/aluminium_labels

Labels are made unless the folder holds them: 9 cells of 4 atoms and 3 of 3 to train on; held out
8 of 4 atoms, 2 of 16, 3 of 31 with a vacancy, and the perfect crystal with and without one. They
take 75 minutes of a core; the rest takes 10.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from fedens.data.sample import Sample
from fedens.data.sample_file import read_sample, write_sample
from fedens.energy.functional import EnergyFunctional
from fedens.energy.gth import GTHLocal
from fedens.energy.kohn_sham import KohnSham
from fedens.errors import ConvergenceError
from fedens.fem.modes import spacing_for_cutoff
from fedens.fem.tensor import TensorSpace
from fedens.models.functional.correction import train_correction
from fedens.models.functional.equations import LabelEquations
from fedens.models.functional.fit import KineticFitSettings
from fedens.models.functional.model import FunctionalModel
from fedens.models.functional.training import label_equations, train_functional
from fedens.models.points.model import EnergyModel
from fedens.reference.kohn_sham.kpoints import KPoints
from fedens.reference.kohn_sham.smearing import Smearing
from fedens.reference.kohn_sham.solver import solve_kohn_sham
from fedens.reference.model_potentials.labels import ModelPotentialLabels
from fedens.structure import Structure
from fedens.units import BOHR_IN_ANGSTROM, HARTREE_IN_EV

EDGE = 7.65
DENSITY = 12 / EDGE**3
CUTOFF = 16.0
POTENTIAL = GTHLocal(valence=3, r_loc=0.7473, c1=4.9546, c2=-0.8993)
SITES = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
#: Model potentials of each kind.
POTENTIALS = {"separable": 40, "planar": 20, "planes": 20, "cores": 40}
_MEV = 1000 * HARTREE_IN_EV


def crystal(repeat: Sequence[int], vacancy: int | None = None) -> Structure:
    """Perfect fcc aluminium, without one atom if asked for."""
    corners = np.stack(np.meshgrid(*map(np.arange, repeat), indexing="ij"), axis=-1)
    positions = (corners.reshape(-1, 1, 3) + SITES).reshape(-1, 3) * EDGE
    if vacancy is not None:
        positions = np.delete(positions, vacancy, axis=0)
    return Structure(["Al"] * len(positions), positions, np.array(repeat) * EDGE, pbc=True)


def displaced(
    seed: int,
    repeat: Sequence[int],
    vacancy: bool,
    displacement: tuple[float, float],
    strain: float,
) -> Structure:
    """A cell with strained axes and random displacements of random size, bohr."""
    random = np.random.default_rng(seed)
    perfect = crystal(repeat)
    assert perfect.cell is not None
    stretch = 1 + random.uniform(-strain, strain, 3)
    positions, lengths = perfect.positions * stretch, np.diag(perfect.cell) * stretch
    if vacancy:
        positions = np.delete(positions, random.integers(len(positions)), axis=0)
    positions = positions + random.normal(size=positions.shape) * random.uniform(*displacement)
    return Structure(["Al"] * len(positions), positions % lengths, lengths, pbc=True)


def structures() -> dict[str, Structure]:
    """Everything that is labelled, by name."""
    cube, large = (1, 1, 1), (2, 2, 2)
    named = {
        f"train4_{i:02d}": displaced(100 + i, cube, False, (0.05, 0.45), 0.03) for i in range(9)
    }
    named |= {
        f"train3_{i:02d}": displaced(200 + i, cube, True, (0.05, 0.35), 0.03) for i in range(3)
    }
    named |= {
        f"test4_{i:02d}": displaced(300 + i, cube, False, (0.05, 0.45), 0.03) for i in range(8)
    }
    named |= {
        f"long16_{i}": displaced(400 + i, (1, 1, 4), False, (0.1, 0.35), 0.02) for i in range(2)
    }
    named |= {f"vac31_{i}": displaced(500 + i, large, True, (0.1, 0.3), 0.0) for i in range(3)}
    return named | {"perfect4": crystal(cube), "vac31_perfect": crystal(large, vacancy=0)}


def labels(folder: Path) -> dict[str, Sample]:
    """Kohn-Sham samples of :func:`structures`, made where they are missing."""
    folder.mkdir(parents=True, exist_ok=True)
    result = {}
    for name, structure in structures().items():
        path = folder / f"{name}.h5"
        if not path.exists():
            print(f"labelling {name}", flush=True)
            state = solve_kohn_sham(
                structure,
                TensorSpace.for_structure(structure, spacing_for_cutoff(CUTOFF), 10),
                KohnSham("lda_pz", POTENTIAL),
                KPoints.from_spacing(structure, 0.105),
                Smearing(0.04, "methfessel_paxton"),
                CUTOFF,
                residual_tolerance=1e-6,
            )
            write_sample(state.to_sample(), path)
        result[name] = read_sample(path)
    return result


def classical(kinetic: str) -> FunctionalModel:
    """A functional without anything learned, as a model."""
    functional = EnergyFunctional.orbital_free(
        kinetic, pseudopotential=POTENTIAL, mean_density=DENSITY
    )
    return FunctionalModel(functional, spacing_for_cutoff(CUTOFF), 10)


def learned(equations: Sequence[LabelEquations]) -> FunctionalModel:
    """A functional learned beside Wang-Teter."""
    base = classical("wt")
    return train_functional(equations, base.functional, spacing=base.spacing, order=base.order)


def errors(model: FunctionalModel, sample: Sample) -> tuple[float, float, float, float]:
    """Density, %; energy, meV/atom; forces, meV/angstrom; stress, GPa."""
    structure = sample.structure
    found = model.predict(structure, TensorSpace.from_description(sample.provenance["space"]))
    assert sample.energy is not None
    assert sample.forces is not None
    assert sample.stress is not None
    difference = np.abs(found.density.values.numpy() - sample.fields["density"])
    density = 100 * sample.weights @ difference / (sample.weights @ sample.fields["density"])
    numbers = model.calculate(structure, {"energy", "forces", "stress"}, space=found.density.space)
    energy = _MEV * (numbers["energy"] - sample.energy) / len(structure)
    forces = _MEV / BOHR_IN_ANGSTROM * np.abs(numbers["forces"] - sample.forces).mean()
    pressure = HARTREE_IN_EV / BOHR_IN_ANGSTROM**3 * 160.21766
    return density, energy, forces, pressure * np.abs(numbers["stress"] - sample.stress).mean()


def report(name: str, model: FunctionalModel, samples: dict[str, Sample]) -> None:
    """One line of the table for each group of cells."""
    for group in ("test4", "long16", "vac31_"):
        chosen = [s for n, s in samples.items() if n.startswith(group) and "perfect" not in n]
        try:
            rows = np.array([errors(model, sample) for sample in chosen])
        except ConvergenceError as error:
            print(f"{name:24} {group:8} {error}", flush=True)
            continue
        density, energy, forces, stress = rows.T
        print(
            f"{name:24} {group:8} {density.mean():.3f} %  {energy.mean():+7.2f} +- "
            f"{energy.std(ddof=1):5.2f} meV/atom  {forces.mean():5.1f} (median "
            f"{np.median(forces):4.1f}) meV/A  {stress.mean():.2f} GPa",
            flush=True,
        )
    print(
        f"{name:24} vacancy formation energy {vacancy_energy(model, samples):+.3f} eV off",
        flush=True,
    )


def report_direct(model: EnergyModel, samples: dict[str, Sample]) -> None:
    """The same of energies and forces learned directly; there is no density."""
    for group in ("test4", "long16", "vac31_"):
        energies, forces = [], []
        for name, sample in samples.items():
            if name.startswith(group) and "perfect" not in name:
                found = model.energy_and_forces(sample.structure)
                energies.append(_MEV * (found.energy - sample.energy) / len(sample.structure))
                wrong = np.abs(found.forces - sample.forces).mean()
                forces.append(_MEV / BOHR_IN_ANGSTROM * wrong)
        print(
            f"{'energies directly':24} {group:8} {np.mean(energies):+7.2f} +- "
            f"{np.std(energies, ddof=1):5.2f} meV/atom  {np.mean(forces):5.1f} (median "
            f"{np.median(forces):4.1f}) meV/A",
            flush=True,
        )


def vacancy_energy(model: FunctionalModel, samples: dict[str, Sample]) -> float:
    """Error of E(31) - 31/4 E(4), perfect positions, eV."""
    wrong = {}
    for name in ("vac31_perfect", "perfect4"):
        sample = samples[name]
        space = TensorSpace.from_description(sample.provenance["space"])
        assert sample.energy is not None
        wrong[name] = model.predict(sample.structure, space).energy - sample.energy
    return HARTREE_IN_EV * (wrong["vac31_perfect"] - 31 / 4 * wrong["perfect4"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--labels", type=Path, default=Path("runs/aluminium_labels"))
    parser.add_argument("--model", type=Path, help="write the best model to this folder")
    arguments = parser.parse_args()
    samples = labels(arguments.labels)
    for kinetic in ("wt", "wgc", "lkt"):
        report(kinetic, classical(kinetic), samples)
    train = {name: sample for name, sample in samples.items() if name.startswith("train")}
    start = time.monotonic()
    drawn = ModelPotentialLabels(DENSITY, Smearing(0.04, "methfessel_paxton"))
    settings, base = KineticFitSettings(), classical("wt").functional
    crystals = label_equations(train, base, settings)
    print(f"equations of {len(crystals)} crystals: {time.monotonic() - start:.0f} s", flush=True)
    models = label_equations(dict(drawn.samples(POTENTIALS)), base, settings)
    print(f"and {len(models)} model potentials: {time.monotonic() - start:.0f} s", flush=True)
    for name, equations in {
        "models alone": models,
        "crystals alone": crystals,
        "crystals and models": [*crystals, *models],
    }.items():
        model = learned(equations)
        print(f"{name}: ridge {model.provenance['ridge']:g}", flush=True)
        report(name, model, samples)
    if arguments.model:
        model.save(arguments.model)
    correction = train_correction(list(train.values()), model.functional)
    report("with a correction", replace(model, correction=correction), samples)
    report_direct(train_correction(list(train.values()), None), samples)
    correction = train_correction(list(train.values()), base)
    report("correction on wt", replace(classical("wt"), correction=correction), samples)


if __name__ == "__main__":
    main()
