"""Learning aluminium: fedens from fields, MACE from energies and forces, the same processor time.

Both learn the same 12 structures of the demo's data set and predict the other 12. fedens knows the
parent functional of the data and sees the whole fields of each structure, at some 100,000 points;
MACE sees one energy and some 96 force components of it. The comparison says what learning fields
with a known functional buys. It says nothing about architectures.

Budget: processor time (user and system, all threads) from reading the structures to the trained
model, without imports, so that other work on the machine does not count. A short trial, not
charged, tells how many epochs (MACE) or steps (fedens) fit, so that schedules end with the budget;
a training that misses it by more than 5 % is done again.

Every result is stored as soon as it is there, and not computed again.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ase.io
import numpy as np

from fedens import Dataset
from fedens.errors import DatasetError
from fedens.files import write_atomically
from fedens.units import HARTREE_IN_EV, HARTREE_PER_BOHR_IN_EV_PER_ANGSTROM

HERE = Path(__file__).parent
TRAINING_SIZE, SEED = 12, 0  # as in examples/aluminium.yaml
SIZES = (1, 2, 4, 8, 12)
#: Share of the budget that is planned for: the time of a round varies by some percent.
MARGIN = 0.98
#: A training that misses its budget, or is cut off before its last rounds, by this share is done
#: again with the time of a round as it was: other work on the machine can spoil the trial.
TOLERANCE, ATTEMPTS = 0.05, 3
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
EXPLANATION = """
fedens knows the parent functional of the data and learns from the whole fields of each structure
({points:,} points); MACE knows energies and forces only. The ratio is what learning fields with a
known functional buys. It is not a statement about architectures.
"""
EPILOG = """
examples:
  python benchmarks/learning_vs_mace.py                 # about 1 h 15 min of processor time
  python benchmarks/learning_vs_mace.py --quick         # does it run? a few minutes
  python benchmarks/learning_vs_mace.py --codes mace    # MACE's results only; fedens' later

MACE has its own environment (see benchmarks/README.md):
  python -m venv benchmarks/.venv-mace
  benchmarks/.venv-mace/bin/pip install -r benchmarks/requirements-mace.txt
"""


@dataclass(frozen=True)
class Code:
    """One of the two codes.

    Attributes:
        name: as printed. script: its side, beside this file. rounds: what its training counts.
        trial: rounds of the trial, from the number of structures. Two validations in its second
            half for MACE; for fedens two reports, 50 steps apart, on the energy densities, which
            take a fifth of the steps.
    """

    name: str
    script: str
    rounds: str
    trial: Callable[[int], int]


CODES = {
    "mace": Code("MACE", "mace_side.py", "epochs", lambda size: 10 * math.ceil(6 / size) + 1),
    "fedens": Code("fedens", "fedens_learning_side.py", "steps", lambda _: 500),
}


@dataclass(frozen=True)
class Point:
    """One training: ``kind`` ``main`` or ``curve``, number of structures, processor minutes."""

    kind: str
    size: int
    minutes: float


def count(point: Point) -> str:
    """How many structures a point trains on, in words."""
    return f"{point.size} structure{'s' if point.size > 1 else ''}"


class Benchmark:
    """The data, the interpreters, and the folder with the results."""

    def __init__(self, data: Dataset, pythons: dict[str, str], output: Path, threads: int):
        self.data, self._pythons, self._output, self._threads = data, pythons, output, threads
        self._training, self._held_out = data.split(TRAINING_SIZE, SEED)

    def result(self, code: str, point: Point) -> dict[str, Any]:
        """The stored result of one code at one point, made now if it is not there."""
        file = self._output / f"{point.kind}-{code}-{point.size:02d}.json"
        key = self._key(code, point)
        if file.is_file():
            stored = json.loads(file.read_text())
            if stored["key"] != key:
                raise SystemExit(
                    f"{file} is the result of other data or another budget: choose another "
                    "--output, or delete the file"
                )
            return stored
        result = {"key": key, **self._learn(code, point)}
        write_atomically(file, json.dumps(result, indent=1) + "\n")
        return result

    def _key(self, code: str, point: Point) -> dict[str, Any]:
        """What a result depends on."""
        index = self.data.index
        energies = {
            "training": {name: index[name]["energy_hartree"] for name in self._training},
            "held_out": {name: index[name]["energy_hartree"] for name in self._held_out},
        }
        return {"code": code, "size": point.size, "minutes": point.minutes, "seed": SEED} | energies

    def _learn(self, code: str, point: Point) -> dict[str, Any]:
        """Trial, training with as many rounds as fit the budget, and errors of its predictions."""
        task = self._task(point)
        say(f"{CODES[code].name}, {count(point)}, {point.minutes:g} processor minutes")
        answer = self._run(code, {**task, "rounds": CODES[code].trial(point.size)}, "trial")
        for _ in range(ATTEMPTS):
            rounds = fitting_rounds(answer, task["budget"])
            say(f"  {rounds} {CODES[code].rounds} of {answer['seconds_per_round']:.3g} s")
            answer = self._run(code, {**task, "rounds": rounds}, point.kind)
            if fits(answer, rounds, task["budget"]):
                break
        result = {**answer, **self._errors(answer), "threads": self._threads}
        say(
            f"  {result['training_cpu_seconds']:.0f} s, energy {result['energy_mae']:.3g} "
            f"meV/atom, forces {result['force_mae']:.3g} meV/angstrom"
        )
        return result

    def _task(self, point: Point) -> dict[str, Any]:
        names = self._training[: point.size]
        return {
            "data": str(self.data.path.resolve()),
            "training": names,
            "held_out": self._held_out,
            "training_file": self._write_structures(f"training-{point.size:02d}", names),
            "held_out_file": self._write_structures("held_out", self._held_out),
            "budget": 60 * point.minutes,
            "threads": self._threads,
            "seed": SEED,
        }

    def _write_structures(self, name: str, samples: list[str]) -> str:
        """Structures, energies (eV) and forces (eV/angstrom) in a file for MACE; its path."""
        structures = []
        for sample in samples:
            atoms = self.data[sample].structure.to_ase()
            energy, forces = self._reference(sample)
            atoms.info["REF_energy"] = energy
            atoms.arrays["REF_forces"] = forces
            structures.append(atoms)
        path = self._output.resolve() / f"{name}.xyz"
        ase.io.write(path, structures, format="extxyz")
        return str(path)

    def _reference(self, name: str) -> tuple[float, np.ndarray]:
        """Energy, eV, and forces, eV/angstrom, (n_atoms, 3), of a sample."""
        sample = self.data[name]
        if sample.forces is None:
            raise SystemExit(f"sample {name} of {self.data.path} has no forces: make the data anew")
        return sample.energy * HARTREE_IN_EV, sample.forces * HARTREE_PER_BOHR_IN_EV_PER_ANGSTROM

    def _run(self, code: str, task: dict[str, Any], label: str) -> dict[str, Any]:
        """Answer of a side, run in its own environment; what it prints goes to a log."""
        log = self._output / f"{label}-{code}-{len(task['training']):02d}.log"
        command = [self._pythons[code], str(HERE / CODES[code].script)]
        # a thread that waits for others would otherwise burn processor time that is not work
        environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
        environment |= dict.fromkeys(THREAD_VARIABLES, str(self._threads))
        with tempfile.TemporaryDirectory() as folder, log.open("w") as stream:
            answer = Path(folder) / "answer.json"
            done = subprocess.run(
                [*command, str(answer)],
                input=json.dumps(task),
                text=True,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=environment,
            )
            if done.returncode:
                raise SystemExit(f"{CODES[code].name} failed; see the end of {log}")
            return json.loads(answer.read_text())

    def _errors(self, answer: dict[str, Any]) -> dict[str, float]:
        """Mean absolute errors of the held-out structures: meV/atom and meV/angstrom."""
        energies, forces = [], []
        for i, name in enumerate(self._held_out):
            energy, force = self._reference(name)
            energies.append(1000 * abs(answer["energies_ev"][i] - energy) / len(force))
            forces.append(1000 * np.abs(answer["forces_ev_per_angstrom"][i] - force))
        return {
            "energy_mae": float(np.mean(energies)),
            "force_mae": float(np.concatenate(forces).mean()),
        }

    def spread(self) -> tuple[float, float]:
        """Standard deviation of the held-out energies, meV/atom, and forces, meV/angstrom."""
        references = [self._reference(name) for name in self._held_out]
        energies = [energy / len(forces) for energy, forces in references]
        forces = np.concatenate([forces for _, forces in references])
        return 1000 * float(np.std(energies)), 1000 * float(np.std(forces))


def fitting_rounds(before: dict[str, Any], budget: float) -> int:
    """Rounds that fit a budget of processor seconds, by the times of a training before."""
    per_round = before["seconds_per_round"]
    fixed = max(0.0, before["training_cpu_seconds"] - before["rounds"] * per_round)
    return max(10, int((MARGIN * budget - fixed) / per_round))


def fits(answer: dict[str, Any], rounds: int, budget: float) -> bool:
    """Whether a training did its rounds, and took its budget of processor seconds for them."""
    on_time = abs(answer["training_cpu_seconds"] / budget - 1) < TOLERANCE
    return on_time and answer["rounds"] > (1 - TOLERANCE) * rounds


def main() -> None:
    arguments = parse_arguments()
    output = arguments.output
    output.mkdir(parents=True, exist_ok=True)
    pythons = {"mace": find_mace(arguments), "fedens": sys.executable}
    benchmark = Benchmark(open_data(arguments.data), pythons, output, arguments.threads)
    main_point = Point("main", max(arguments.sizes), arguments.minutes)
    curve = [Point("curve", size, arguments.curve_minutes) for size in sorted(arguments.sizes)]
    results = {
        (code, point): benchmark.result(code, point)
        for point in [main_point, *curve]
        for code in arguments.codes
    }
    print_main(results, main_point, arguments.codes)
    print_curve(results, curve, arguments.codes)
    energy, force = benchmark.spread()
    print(f"\nspread of the held-out data: {energy:.0f} meV/atom, {force:.0f} meV/angstrom")
    points = max(entry["n_points"] for entry in benchmark.data.index.values())
    print(EXPLANATION.format(points=points))
    picture = output / "learning_curve.png"
    draw_curve(picture, results, curve, arguments.codes)
    print(f"picture: {picture}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, default=Path("runs/aluminium/data"), metavar="FOLDER",
        help="fedens data set (default runs/aluminium/data, which examples/aluminium.yaml makes)",
    )  # fmt: skip
    parser.add_argument(
        "--output", type=Path, metavar="FOLDER",
        help="results, logs and picture (default runs/learning_vs_mace, or ..._quick)",
    )  # fmt: skip
    parser.add_argument(
        "--minutes", type=float, metavar="X",
        help="processor minutes of the main comparison (default 10: 5 minutes of two cores)",
    )  # fmt: skip
    parser.add_argument(
        "--curve-minutes", type=float, metavar="X",
        help="processor minutes of each point of the learning curve (default 4)",
    )  # fmt: skip
    parser.add_argument(
        "--sizes", type=int, nargs="+", metavar="N", choices=range(1, TRAINING_SIZE + 1),
        help="structures to train on; the main comparison takes the most (default 1 2 4 8 12)",
    )  # fmt: skip
    parser.add_argument(
        "--codes", nargs="+", choices=list(CODES), default=list(CODES), metavar="CODE",
        help="mace and/or fedens (default both)",
    )  # fmt: skip
    parser.add_argument(
        "--threads", type=int, default=available_cores(), metavar="N",
        help="threads of each code (default: all cores)",
    )  # fmt: skip
    parser.add_argument(
        "--mace-python", type=Path, default=HERE / ".venv-mace" / "bin" / "python", metavar="PATH",
        help="interpreter with MACE (default benchmarks/.venv-mace/bin/python)",
    )  # fmt: skip
    parser.add_argument(
        "--quick", action="store_true",
        help="1 and 2 structures, a fraction of a minute each: only to see that it runs",
    )  # fmt: skip
    arguments = parser.parse_args()
    quick = arguments.quick
    arguments.sizes = arguments.sizes or ((1, 2) if quick else SIZES)
    arguments.minutes = arguments.minutes or (0.5 if quick else 10.0)
    arguments.curve_minutes = arguments.curve_minutes or (0.3 if quick else 4.0)
    folder = "learning_vs_mace_quick" if quick else "learning_vs_mace"
    arguments.output = arguments.output or Path("runs") / folder
    return arguments


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def find_mace(arguments: argparse.Namespace) -> str:
    """The interpreter with MACE, if it is needed."""
    if "mace" in arguments.codes and not arguments.mace_python.exists():
        raise SystemExit(
            f"no interpreter {arguments.mace_python}: make MACE's environment (see --help), or "
            "name another with --mace-python"
        )
    return str(arguments.mace_python)


def open_data(folder: Path) -> Dataset:
    """The data set, with more samples than training takes."""
    try:
        data = Dataset.open(folder)
    except DatasetError as error:
        raise SystemExit(
            f"{error}\n`fedens generate examples/aluminium.yaml` makes runs/aluminium/data"
        ) from error
    if len(data) <= TRAINING_SIZE:
        raise SystemExit(f"{folder} holds {len(data)} samples; more than {TRAINING_SIZE} needed")
    return data


Results = dict[tuple[str, Point], dict[str, Any]]

#: Rows of the main table: what is compared, its key, its format.
ROWS = (
    ("forces, MAE, meV/angstrom", "force_mae", ".3g"),
    ("energy, MAE, meV/atom", "energy_mae", ".3g"),
    ("training, processor s", "training_cpu_seconds", ".0f"),
    ("energy and forces of one structure, processor s", "prediction_cpu_seconds", ".3g"),
)


def print_main(results: Results, point: Point, codes: list[str]) -> None:
    """The main comparison as a Markdown table."""
    versions = {k: v for code in codes for k, v in results[code, point]["versions"].items()}
    said = ", ".join(f"{package} {version}" for package, version in versions.items())
    print_header(f"{count(point)}; {said}", codes)
    for title, key, form in ROWS:
        print_row(title, [results[code, point][key] for code in codes], form)
    rounds = [f"{results[code, point]['rounds']} {CODES[code].rounds}" for code in codes]
    print(f"| training, rounds | {' | '.join(rounds)} | |")


def print_curve(results: Results, curve: list[Point], codes: list[str]) -> None:
    """The learning curve as a Markdown table."""
    print_header(f"{curve[0].minutes:g} processor minutes each", codes)
    for title, key, form in ROWS[:2]:
        for point in curve:
            values = [results[code, point][key] for code in codes]
            print_row(f"{count(point)}: {title}", values, form)


def print_header(title: str, codes: list[str]) -> None:
    """The first lines of a table."""
    names = [CODES[code].name for code in codes]
    ratio = " / ".join(names) if len(names) == 2 else ""
    print(f"\n| {title} | {' | '.join(names)} | {ratio} |")
    print("|---" * (len(codes) + 2) + "|")


def print_row(title: str, values: list[float], form: str) -> None:
    """One row: a value of each code, and the first over the second."""
    ratio = f"{values[0] / values[1]:.2g}" if len(values) == 2 else ""
    print(f"| {title} | {' | '.join(format(value, form) for value in values)} | {ratio} |")


def draw_curve(path: Path, results: Results, curve: list[Point], codes: list[str]) -> None:
    """Energy and force errors against the number of structures, both axes logarithmic."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.6), layout="constrained")
    sizes = [point.size for point in curve]
    panels = figure.subplots(1, 2)
    for panel, (title, key, _) in zip(panels, (ROWS[1], ROWS[0]), strict=True):
        for code, marker in zip(codes, "os", strict=False):
            errors = [results[code, point][key] for point in curve]
            panel.loglog(sizes, errors, marker=marker, label=CODES[code].name)
        panel.set(xlabel="structures trained on", ylabel=title)
        panel.set_xticks(sizes, [str(size) for size in sizes])
        panel.minorticks_off()
        panel.legend()
    figure.suptitle(
        f"{curve[0].minutes:g} processor minutes each; fedens: fields and the functional, "
        "MACE: energies and forces",
        fontsize="medium",
    )
    figure.savefig(path, dpi=150)


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
