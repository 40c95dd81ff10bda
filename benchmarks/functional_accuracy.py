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
from functionals import CUTOFF, MEAN_DENSITY, POTENTIAL, classical, fcc

from fedens import KohnSham, Structure
from fedens.analysis.functionals import Answer, atoms_answer, compare, model_answer, summary
from fedens.data.sample import Sample
from fedens.data.sample_file import read_sample, write_sample
from fedens.errors import ConvergenceError
from fedens.fem.modes import spacing_for_cutoff
from fedens.models.functional.correction import train_correction
from fedens.models.functional.equations import LabelEquations
from fedens.models.functional.fit import KineticFitSettings
from fedens.models.functional.model import FunctionalModel
from fedens.models.functional.training import label_equations, train_functional
from fedens.models.points.model import EnergyModel
from fedens.reference.kohn_sham.labeller import KohnShamLabeller
from fedens.reference.kohn_sham.smearing import Smearing
from fedens.reference.model_potentials.labels import ModelPotentialLabels
from fedens.units import HARTREE_IN_EV

SMEARING = Smearing(0.04, "methfessel_paxton")
#: Model potentials of each kind.
POTENTIALS = {"separable": 40, "planar": 20, "planes": 20, "cores": 40}


def without_one(structure: Structure, atom: int) -> Structure:
    """A structure with a vacancy."""
    return structure.replace(
        numbers=np.delete(structure.numbers, atom),
        positions=np.delete(structure.positions, atom, axis=0),
        occupancies=np.delete(structure.occupancies, atom),
    )


def displaced(
    seed: int,
    repeat: tuple[int, int, int],
    vacancy: bool,
    displacement: tuple[float, float],
    strain: float,
) -> Structure:
    """A cell with strained axes and random displacements of random size, bohr."""
    random = np.random.default_rng(seed)
    perfect = fcc(repeat)
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
    return named | {"perfect4": fcc(cube), "vac31_perfect": without_one(fcc(large), 0)}


def labels(folder: Path) -> dict[str, Sample]:
    """Kohn-Sham samples of :func:`structures`, made where they are missing."""
    folder.mkdir(parents=True, exist_ok=True)
    labeller = KohnShamLabeller(
        functional=KohnSham("lda_pz", POTENTIAL),
        spacing=None,
        order=10,
        cutoff=CUTOFF,
        kspacing=0.105,
        smearing=SMEARING,
        residual_tolerance=1e-6,
        max_iterations=60,
    )
    result = {}
    for name, structure in structures().items():
        path = folder / f"{name}.h5"
        if not path.exists():
            print(f"labelling {name}", flush=True)
            write_sample(labeller(structure), path)
        result[name] = read_sample(path)
    return result


def unlearned(kinetic: str) -> FunctionalModel:
    """A classical functional on the mesh of the labels."""
    return replace(classical(kinetic), spacing=spacing_for_cutoff(CUTOFF))


def learned(equations: Sequence[LabelEquations]) -> FunctionalModel:
    """A functional learned beside Wang-Teter."""
    base = unlearned("wt")
    return train_functional(equations, base.functional, spacing=base.spacing, order=base.order)


def report(name: str, model: FunctionalModel | EnergyModel, samples: dict[str, Sample]) -> None:
    """One line of the table for each group of cells."""
    for group in ("test4", "long16", "vac31_"):
        chosen = [s for n, s in samples.items() if n.startswith(group) and "perfect" not in n]
        try:
            rows = [compare(answer(model, sample), sample) for sample in chosen]
        except ConvergenceError as error:
            print(f"{name:24} {group:8} {error}", flush=True)
            continue
        found = summary(rows)
        median = np.median([row["force_mae_mev_per_angstrom"] for row in rows])
        density = found["nmape_percent"]
        print(
            f"{name:24} {group:8} {'' if density is None else f'{density:.3f} %':8} "
            f"{found['energy_mean_error_mev_per_atom']:+7.2f} +- "
            f"{found['energy_sd_mev_per_atom']:5.2f} meV/atom  "
            f"{found['force_mae_mev_per_angstrom']:5.1f} (median {median:4.1f}) meV/A  "
            f"{found['stress_error_gpa']:.2f} GPa",
            flush=True,
        )
    if isinstance(model, FunctionalModel):
        off = vacancy_energy(model, samples)
        print(f"{name:24} vacancy formation energy {off:+.3f} eV off", flush=True)


def answer(model: FunctionalModel | EnergyModel, sample: Sample) -> Answer:
    """What a model says of a cell, on the mesh of the label; without error bars."""
    if isinstance(model, FunctionalModel):
        return model_answer(model, sample, error_bars=False)
    return atoms_answer(model, sample)


def vacancy_energy(model: FunctionalModel, samples: dict[str, Sample]) -> float:
    """Error of E(31) - 31/4 E(4), perfect positions, eV."""
    wrong = {}
    for name in ("vac31_perfect", "perfect4"):
        sample = samples[name]
        found = model_answer(model, sample, error_bars=False)
        wrong[name] = found.energy - sample.total_energy
    return HARTREE_IN_EV * (wrong["vac31_perfect"] - 31 / 4 * wrong["perfect4"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--labels", type=Path, default=Path("runs/aluminium_labels"))
    parser.add_argument("--model", type=Path, help="write the best model to this folder")
    arguments = parser.parse_args()
    samples = labels(arguments.labels)
    for kinetic in ("wt", "wgc", "lkt"):
        report(kinetic, unlearned(kinetic), samples)
    train = {name: sample for name, sample in samples.items() if name.startswith("train")}
    start = time.monotonic()
    drawn = ModelPotentialLabels(MEAN_DENSITY, SMEARING)
    settings, base = KineticFitSettings(), unlearned("wt").functional
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
    report("energies directly", train_correction(list(train.values()), None), samples)
    correction = train_correction(list(train.values()), base)
    report("correction on wt", replace(unlearned("wt"), correction=correction), samples)


if __name__ == "__main__":
    main()
