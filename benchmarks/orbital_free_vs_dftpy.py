"""Orbital-free DFT of aluminium: fedens against DFTpy, same physics, one core each.

Each code runs at its cheapest setting that is within a tolerance (1 meV/atom) of its converged
limit, found by a scan that is part of the run, or read from an earlier result. The two codes
are then timed in turn, one structure each, and the median of the repeats is reported.

Each code has a worker process of its own; imports are not timed. Timed is what a user calls for
one structure: grid or space, pseudopotential and ions on it, and the minimisation.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import statistics
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cheapest import (
    Catalogue,
    Search,
    Setting,
    System,
    describe,
    dftpy_catalogue,
    fedens_catalogue,
    meV_per_atom,
)
from systems import EXACT_ATOM_ENERGY, NAMES, TITLES, make_system
from worker import Worker, stay_on_core

KINETIC_TITLES = {"tfvw": "TF+vW", "wt": "Wang-Teter", "lkt": "Luo-Karasiev-Trickey"}
EPILOG = """
examples:
  python benchmarks/orbital_free_vs_dftpy.py --json result.json
  python benchmarks/orbital_free_vs_dftpy.py --quick
  python benchmarks/orbital_free_vs_dftpy.py --settings result.json --repeats 9   # no scan again

DFTpy has its own environment (see benchmarks/README.md):
  python -m venv benchmarks/.venv && benchmarks/.venv/bin/pip install -r benchmarks/requirements.txt
"""


@dataclass
class Row:
    """One code on one system."""

    system: str
    kinetic: str
    code: str
    atoms: int
    setting: Setting
    energy_per_atom_hartree: float
    limit_per_atom_hartree: float
    error_mev_per_atom: float
    median_seconds: float
    seconds: list[float]
    first_call_seconds: float
    evaluations: int
    points: int
    memory_mb: float
    process_mb: float


class Codes:
    """The two codes: their interpreters and their live workers."""

    def __init__(self, dftpy_python: str):
        self._sides = {
            "dftpy": (dftpy_python, "dftpy_side.py"),
            "fedens": (sys.executable, "fedens_side.py"),
        }
        self._workers = {side: Worker(*how) for side, how in self._sides.items()}
        self.versions = {side: worker.versions for side, worker in self._workers.items()}

    def worker(self, code: str) -> Worker:
        """The live worker of a code."""
        return self._workers[code.split()[0]]

    def fresh(self, code: str) -> Worker:
        """A new worker process of a code."""
        return Worker(*self._sides[code.split()[0]])

    def close(self) -> None:
        """End the live workers."""
        for worker in self._workers.values():
            worker.close()


def main() -> None:
    arguments = parse_arguments()
    stay_on_core(arguments.core)
    codes = Codes(arguments.dftpy_python)
    atom = codes.worker("fedens").solve(make_system("atom", "tfvw"), {"task": "atomic_gaussians"})
    gaussians = (atom["exponents"], atom["amplitudes"])
    known = read_settings(arguments.settings)
    rows: list[Row] = []
    for name, kinetic in itertools.product(arguments.systems, arguments.functionals):
        system = {**make_system(name, kinetic), "atomic_gaussians": gaussians}
        if kinetic != "tfvw" and system["cell"] is None:
            continue
        say(f"\n{TITLES[name]}, {KINETIC_TITLES[kinetic]}")
        references, settings = prepare(codes, system, known, arguments)
        rows += time_side_by_side(codes, system, references, settings, arguments.repeats)
        print_rows(rows[-len(settings) :], rows)
        write_json(arguments.json, rows, codes, arguments)
    codes.close()
    print_table(rows)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--systems", nargs="+", choices=NAMES, metavar="NAME",
        help=f"systems to run, of: {', '.join(NAMES)} (default: all; cluster13 takes longest)",
    )  # fmt: skip
    parser.add_argument(
        "--functionals", nargs="+", choices=list(KINETIC_TITLES), default=list(KINETIC_TITLES),
        metavar="NAME", help="of tfvw, wt, lkt (default all; isolated systems have tfvw only)",
    )  # fmt: skip
    parser.add_argument(
        "--quick", action="store_true",
        help="al4, al32 and atom only, with shorter lists of settings; about four minutes",
    )  # fmt: skip
    parser.add_argument(
        "--dftpy-python", default=default_dftpy_python(), metavar="PATH",
        help="interpreter with DFTpy (default: $DFTPY_PYTHON, else benchmarks/.venv, else this)",
    )  # fmt: skip
    parser.add_argument(
        "--settings", type=Path, metavar="FILE",
        help="take settings and limits from an earlier --json file instead of scanning",
    )  # fmt: skip
    parser.add_argument(
        "--tolerance", type=float, default=1.0, metavar="X",
        help="allowed error against the converged limit, meV/atom (default 1)",
    )  # fmt: skip
    parser.add_argument(
        "--repeats", type=int, default=5, metavar="N",
        help="timed calls of each code, taken in turn (default 5; the median counts)",
    )  # fmt: skip
    parser.add_argument(
        "--core", type=int, default=0, metavar="N", help="core that everything runs on (default 0)"
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write every number here, after each system"
    )
    parser.add_argument(
        "--verbose", action="store_true", help="print every setting that the scan tries"
    )
    arguments = parser.parse_args()
    if arguments.systems is None:
        arguments.systems = ["al4", "al32", "atom"] if arguments.quick else list(NAMES)
    return arguments


def default_dftpy_python() -> str:
    local = Path(__file__).with_name(".venv") / "bin" / "python"
    return os.environ.get("DFTPY_PYTHON") or (str(local) if local.exists() else sys.executable)


def read_settings(path: Path | None) -> dict[tuple[str, str, str], dict[str, Any]]:
    """Rows of an earlier result by system, functional and code."""
    if path is None:
        return {}
    rows = json.loads(path.read_text())["rows"]
    return {(row["system"], row["kinetic"], row["code"]): row for row in rows}


def prepare(
    codes: Codes, system: System, known: dict[Any, Any], arguments: argparse.Namespace
) -> tuple[dict[str, float], dict[str, Setting]]:
    """Reference energies (hartree) and cheapest settings of the codes."""
    catalogues = make_catalogues(system, arguments.quick)
    rows = {code: known.get((system["name"], system["kinetic"], code)) for code in catalogues}
    if all(rows.values()):
        atoms = len(system["positions"])
        references = {c: row["limit_per_atom_hartree"] * atoms for c, row in rows.items()}
        return references, {code: row["setting"] for code, row in rows.items()}
    references = find_references(codes, system, catalogues)
    return references, find_settings(codes, system, catalogues, references, arguments)


def make_catalogues(system: System, quick: bool) -> dict[str, Catalogue]:
    """What each code may try."""
    catalogues = {
        "dftpy": dftpy_catalogue(system, quick),
        "dftpy from atoms": dftpy_catalogue(system, quick, from_atoms=True),
        "fedens": fedens_catalogue(system, quick),
    }
    if system["cell"] is not None:
        del catalogues["dftpy from atoms"]
    return catalogues


def find_references(
    codes: Codes, system: System, catalogues: dict[str, Catalogue]
) -> dict[str, float]:
    """Own limits for crystals; the exact value for the atom; the mean limit for the cluster."""
    limits = {}
    for side in ("dftpy", "fedens"):
        answer = codes.worker(side).solve(system, catalogues[side].limit)
        if "error" in answer:
            raise SystemExit(f"{side}, {system['name']}: {answer['error']}")
        limits[side] = answer["energy"]
        say(f" {side} limit: {limits[side]:.9f} hartree ({describe(catalogues[side].limit)})")
    gap = meV_per_atom(limits["fedens"] - limits["dftpy"], system)
    say(f" limits differ by {gap:+.4f} meV/atom (fedens minus DFTpy)")
    if system["name"] == "atom":
        return dict.fromkeys(catalogues, EXACT_ATOM_ENERGY)
    if system["cell"] is None:
        return dict.fromkeys(catalogues, statistics.mean(limits.values()))
    return limits


def find_settings(
    codes: Codes,
    system: System,
    catalogues: dict[str, Catalogue],
    references: dict[str, float],
    arguments: argparse.Namespace,
) -> dict[str, Setting]:
    """The cheapest settings within the tolerance; the meshes of one code are scanned once."""
    report = say if arguments.verbose else be_silent
    settings, meshes = {}, {}
    for code, catalogue in catalogues.items():
        say(f" {code}: cheapest setting within {arguments.tolerance:g} meV/atom")
        side = code.split()[0]
        search = Search(codes.worker(code), system, references[code], arguments.tolerance, report)
        if side not in meshes:
            meshes[side] = search.good_meshes(catalogue)
        settings[code] = search.cheapest(catalogue, meshes[side])
    return settings


def time_side_by_side(
    codes: Codes,
    system: System,
    references: dict[str, float],
    settings: dict[str, Setting],
    repeats: int,
) -> list[Row]:
    """Median times, the codes taken in turn after one untimed call each."""
    answers: dict[str, list[dict[str, Any]]] = {code: [] for code in settings}
    for repeat in range(repeats + 1):
        for code in settings:
            answer = codes.worker(code).solve(system, settings[code])
            if repeat:
                answers[code].append(answer)
    return [
        make_row(code, system, references[code], settings[code], answers[code], first_call)
        for code in settings
        for first_call in [solve_afresh(codes, code, system, settings[code])]
    ]


def solve_afresh(codes: Codes, code: str, system: System, setting: Setting) -> dict[str, Any]:
    """The same in a new process: first-call time, and memory that no earlier run has left."""
    worker = codes.fresh(code)
    answer = worker.solve(system, setting)
    worker.close()
    return answer


def make_row(
    code: str,
    system: System,
    reference: float,
    setting: Setting,
    answers: list[dict[str, Any]],
    first_call: dict[str, Any],
) -> Row:
    atoms, last = len(system["positions"]), answers[-1]
    seconds = [answer["seconds"] for answer in answers]
    return Row(
        system=system["name"],
        kinetic=system["kinetic"],
        code=code,
        atoms=atoms,
        setting=setting,
        energy_per_atom_hartree=last["energy"] / atoms,
        limit_per_atom_hartree=reference / atoms,
        error_mev_per_atom=meV_per_atom(last["energy"] - reference, system),
        median_seconds=statistics.median(seconds),
        seconds=seconds,
        first_call_seconds=first_call["seconds"],
        evaluations=last["evaluations"],
        points=last["size"],
        memory_mb=first_call["peak_mb"] - first_call["idle_mb"],
        process_mb=first_call["peak_mb"],
    )


def ratio(rows: list[Row], row: Row) -> float:
    """Median time of a row over that of fedens for the same system."""
    key = (row.system, row.kinetic, "fedens")
    fedens = next(r for r in rows if (r.system, r.kinetic, r.code) == key)
    return row.median_seconds / fedens.median_seconds


def print_rows(new: list[Row], rows: list[Row]) -> None:
    """Progress: the rows of one system."""
    for row in new:
        say(
            f" {row.code}: {row.median_seconds:.4f} s, {row.evaluations} evaluations, "
            f"{row.error_mev_per_atom:+.3f} meV/atom, {row.memory_mb:.0f} MB, "
            f"{ratio(rows, row):.2f} times fedens ({describe(row.setting)})"
        )


def print_table(rows: list[Row]) -> None:
    """The result as a Markdown table on standard output."""
    print(
        "\n| system | functional | code | setting | energy, hartree/atom | error, meV/atom | "
        "median, s | first call, s | evaluations | points | memory, MB | ratio |\n"
        "|---|---|---|---|---|---|---|---|---|---|---|---|"
    )
    for row in rows:
        print(
            f"| {TITLES[row.system]} | {KINETIC_TITLES[row.kinetic]} | {row.code} | "
            f"{describe(row.setting)} | {row.energy_per_atom_hartree:.7f} | "
            f"{row.error_mev_per_atom:+.3f} | {row.median_seconds:.4f} | "
            f"{row.first_call_seconds:.4f} | {row.evaluations} | {row.points} | "
            f"{row.memory_mb:.0f} | {ratio(rows, row):.2f} |"
        )
    print(
        "\nratio: median time over that of fedens; memory: peak above the idle process;\n"
        "dftpy from atoms: started from fedens' superposed free atoms, at no charge"
    )


def write_json(path: Path | None, rows: list[Row], codes: Codes, arguments: Any) -> None:
    if path is None:
        return
    result = {
        "machine": {"processor": processor(), "system": platform.platform()},
        "versions": codes.versions,
        "tolerance_mev_per_atom": arguments.tolerance,
        "repeats": arguments.repeats,
        "rows": [{**asdict(row), "times_fedens": ratio(rows, row)} for row in rows],
    }
    path.write_text(json.dumps(result, indent=1) + "\n")


def processor() -> str:
    """Name of the processor, as Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), "unknown")


def be_silent(_: str) -> None:
    pass


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
