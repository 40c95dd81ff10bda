"""Kohn-Sham DFT of crystals: fedens, ABINIT and PySCF, same pseudopotential and functional.

Each code runs on one core at its cheapest setting that is within 1 meV/atom of its own limit,
forces included, in turn, each time in a fresh process. PySCF's limit is that of its basis, which
is far from complete. No symmetry but time reversal is used. ABINIT runs where ``abinit`` is on
the path (Debian package ``abinit``). eminus has no forces and is left out.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import statistics
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from cheapest import Search, Setting, System, describe, meV_per_atom
from kohn_sham_settings import CODES, Choice, catalogue, choice, enlarged
from kohn_sham_systems import NAMES, TITLES, make_system
from worker import Worker, stay_on_core

SCRIPTS = {
    "fedens": "fedens_kohn_sham_side.py",
    "abinit": "abinit_side.py",
    "pyscf": "pyscf_side.py",
}
EPILOG = """
examples:
  python benchmarks/kohn_sham.py --json result.json
  python benchmarks/kohn_sham.py --systems si8 --codes fedens abinit
  python benchmarks/kohn_sham.py --search --codes fedens --verbose    # find the settings again
"""


@dataclass
class Row:
    """One code on one system; seconds are of the processor, medians of the repeats.

    ``forces_differ``: largest difference of a force component to ABINIT's, hartree/bohr.
    """

    system: str
    code: str
    setting: Setting
    free_energy_per_atom: float
    error_mev_per_atom: float | None
    forces_differ: float | None
    seconds: float
    process_seconds: float
    energy_seconds: float | None
    steps: int
    converged: bool
    peak_mb: float


def main() -> None:
    arguments = parse_arguments()
    stay_on_core(arguments.core)
    codes = [code for code in arguments.codes if is_installed(code)]
    found: dict[tuple[str, str], Choice] = {}
    rows: list[Row] = []
    versions: dict[str, str] = {}
    for name in arguments.systems:
        system = make_system(name)
        say(f"\n{TITLES[name]}")
        for code in codes if arguments.search and name != "al32" else []:
            found[name, code] = search(code, system, arguments)
        choices = {code: find_choice(code, name, found) for code in codes}
        rows += measure(system, choices, arguments.repeats, versions)
        write_json(arguments.json, rows, versions)
    print_table(rows)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--systems", nargs="+", choices=NAMES, default=list(NAMES), metavar="NAME",
        help=f"systems to run, of: {', '.join(NAMES)} (default: all)",
    )  # fmt: skip
    parser.add_argument(
        "--codes", nargs="+", choices=CODES, default=list(CODES), metavar="CODE",
        help=f"codes to run, of: {', '.join(map(repr, CODES))} (default: all)",
    )  # fmt: skip
    parser.add_argument(
        "--search", action="store_true",
        help="find the cheapest settings of Al4 and Si8 again; up to an hour for each code",
    )  # fmt: skip
    parser.add_argument(
        "--tolerance", type=float, default=1.0, metavar="X",
        help="allowed error of a search against the code's own limit, meV/atom (default 1)",
    )  # fmt: skip
    parser.add_argument(
        "--repeats", type=int, default=3, metavar="N",
        help="timed runs of each code, taken in turn (default 3; PySCF runs once)",
    )  # fmt: skip
    parser.add_argument(
        "--core", type=int, default=0, metavar="N", help="core that everything runs on (default 0)"
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write every number here, after each system"
    )
    parser.add_argument(
        "--verbose", action="store_true", help="print every setting that a search tries"
    )
    return parser.parse_args()


def is_installed(code: str) -> bool:
    """Whether the code can run here; says so where it can't."""
    if code == "abinit" and shutil.which("abinit") is None:
        say("abinit is not on the path (Debian: apt-get install abinit); it is left out")
        return False
    return True


def search(code: str, system: System, arguments: argparse.Namespace) -> Choice:
    """The cheapest setting within the tolerance of the code's limit."""
    tried = catalogue(code, system)
    worker = start(code)
    limit = solve(worker, code, system, tried.limit)["energy"]
    report = say if arguments.verbose else be_silent
    scan = Search(worker, system, limit, arguments.tolerance, report)
    setting = scan.cheapest(tried, scan.good_meshes(tried))
    worker.close()
    if code.startswith("pyscf"):
        setting = {**setting, "forces": True}
    say(f' ("{system["name"]}", "{code}"): Choice({setting!r}, {limit!r}),')
    return Choice(setting, limit)


def find_choice(code: str, name: str, found: dict[tuple[str, str], Choice]) -> Choice:
    """What the search found, or else the setting of an earlier search."""
    if name == "al32" and ("al4", code) in found:
        return enlarged(code, found["al4", code])
    return found.get((name, code)) or choice(code, name)


def measure(
    system: System, choices: dict[str, Choice], repeats: int, versions: dict[str, str]
) -> list[Row]:
    """Run the codes in turn, each time in a fresh process."""
    answers: dict[str, list[dict[str, Any]]] = {code: [] for code in choices}
    for repeat in range(repeats):
        for code, chosen in choices.items():
            if repeat and code.startswith("pyscf"):
                continue
            worker = start(code)
            versions.update(worker.versions)
            answers[code].append(solve(worker, code, system, chosen.setting))
            worker.close()
            say(f" {code}: {answers[code][-1]['cpu_seconds']:.2f} s")
    judge = answers.get("abinit", [{}])[-1].get("forces")
    return [make_row(system, code, choices[code], answers[code], judge) for code in choices]


def start(code: str) -> Worker:
    """A new worker process of a code."""
    return Worker(sys.executable, SCRIPTS[code.split()[0]])


def solve(worker: Worker, code: str, system: System, setting: Setting) -> dict[str, Any]:
    answer = worker.solve(system, setting)
    if "error" in answer:
        raise SystemExit(f"{code}, {system['name']}, {describe(setting)}: {answer['error']}")
    return answer


def make_row(
    system: System,
    code: str,
    chosen: Choice,
    answers: list[dict[str, Any]],
    judge: list[list[float]] | None,
) -> Row:
    last, limit, atoms = answers[-1], chosen.limit, len(system["positions"])
    return Row(
        system=system["name"],
        code=code,
        setting=chosen.setting,
        free_energy_per_atom=last["energy"] / atoms,
        error_mev_per_atom=None if limit is None else meV_per_atom(last["energy"] - limit, system),
        forces_differ=largest_difference(last.get("forces"), judge),
        seconds=statistics.median(answer["cpu_seconds"] for answer in answers),
        process_seconds=statistics.median(answer["process_seconds"] for answer in answers),
        energy_seconds=last.get("energy_seconds"),
        steps=last["evaluations"],
        converged=last["converged"],
        peak_mb=max(answer["peak_mb"] for answer in answers),
    )


def largest_difference(
    forces: list[list[float]] | None, others: list[list[float]] | None
) -> float | None:
    """Largest difference of a component, None where one of the codes gave no forces.

    ABINIT takes the mean force off, so it is taken off both.
    """
    if forces is None or others is None:
        return None
    a, b = (np.array(f) - np.mean(f, axis=0) for f in (forces, others))
    return float(np.abs(a - b).max())


def print_table(rows: list[Row]) -> None:
    """The result as a Markdown table on standard output."""
    print(
        "\n| system | code | setting | F, hartree/atom | error, meV/atom | "
        "forces less ABINIT's, hartree/bohr | processor, s | whole process, s | steps | "
        "peak, MB | ratio |\n|---|---|---|---|---|---|---|---|---|---|---|"
    )
    for row in rows:
        print(
            f"| {TITLES[row.system]} | {row.code} | {describe(row.setting)} | "
            f"{row.free_energy_per_atom:.7f} | {shown(row.error_mev_per_atom, '+.2f')} | "
            f"{shown(row.forces_differ, '.1e')} | {row.seconds:.2f}"
            f"{'' if row.energy_seconds is None else f' (energy {row.energy_seconds:.2f})'} | "
            f"{row.process_seconds:.2f} | {row.steps}{'' if row.converged else ', unconverged'} | "
            f"{row.peak_mb:.0f} | {shown(ratio(rows, row), '.2f')} |"
        )
    print(
        "\nratio: processor seconds over those of fedens; error: against the code's own limit,\n"
        "for PySCF that of its basis; peak: memory of the whole process"
    )


def ratio(rows: list[Row], row: Row) -> float | None:
    """Seconds of a row over those of fedens for the same system."""
    fedens = [r.seconds for r in rows if (r.system, r.code) == (row.system, "fedens")]
    return row.seconds / fedens[0] if fedens else None


def shown(value: float | None, form: str) -> str:
    return "" if value is None else f"{value:{form}}"


def write_json(path: Path | None, rows: list[Row], versions: dict[str, str]) -> None:
    if path is None:
        return
    result = {
        "machine": platform.platform(),
        "versions": versions,
        "rows": [{**asdict(row), "times_fedens": ratio(rows, row)} for row in rows],
    }
    path.write_text(json.dumps(result, indent=1) + "\n")


def be_silent(_: str) -> None:
    pass


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
