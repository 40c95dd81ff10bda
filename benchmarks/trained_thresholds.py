"""How far the errors of the tests' trained networks scatter, and whether their limits allow it.

Training is chaotic: another seed, or a processor that rounds otherwise, ends in another network.
Every test that bounds the error of a trained network does so with the fixture ``bounded`` of
``tests/conftest.py``. Here those tests run with several seeds and arithmetics, and each bounded
quantity is shown with its worst value and the factor of the limit above it. A limit is good if the
factor is 2 or more, or if it is above the worst by twice the whole scatter (ratios that are to be
below 1).

    python benchmarks/trained_thresholds.py                     # everything: some minutes
    python benchmarks/trained_thresholds.py tests/test_models.py --seeds 0 1
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
#: What torch and MKL take from the environment when they are loaded.
ARITHMETICS = {
    "default": {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE"},
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "MKL_CBWR": "AVX2"},
}
FACTOR, SCATTERS = 2.0, 2.0


@dataclass
class Bound:
    """A quantity of a test: its limit, and the worst value of each run of the tests."""

    limit: float
    values: dict[str, float] = field(default_factory=dict)

    @property
    def worst(self) -> float:
        return max(self.values.values())

    @property
    def holds(self) -> bool:
        scatter = self.worst - min(self.values.values())
        room = self.limit - self.worst
        clear = room > 0 and room > SCATTERS * scatter - 1e-9
        return clear or self.limit >= FACTOR * self.worst


def measured(tests: list[str], seed: int, arithmetic: str) -> list[dict]:
    """What the tests bound, one record for each value."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "measured"
        file.touch()
        command = [sys.executable, "-m", "pytest", "-q", "-m", "trained", "-p", "no:cacheprovider"]
        command += [f"--training-seed={seed}", f"--measure={file}", *tests]
        threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        environment = os.environ | threads | ARITHMETICS[arithmetic]
        result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        print(f"seed {seed}, {arithmetic}: exit {result.returncode}", flush=True)
        if result.returncode:
            print(result.stdout, result.stderr, flush=True)
        return [json.loads(line) for line in file.read_text().splitlines()]


def bounds_of(runs: dict[str, list[dict]]) -> dict[tuple[str, str], Bound]:
    """The records of all runs by test and quantity."""
    bounds: dict[tuple[str, str], Bound] = {}
    for run, records in runs.items():
        for record in records:
            key = record["test"].removeprefix("tests/"), record["quantity"]
            values = bounds.setdefault(key, Bound(record["limit"])).values
            values[run] = max(record["value"], values.get(run, record["value"]))
    return bounds


def print_table(bounds: dict[tuple[str, str], Bound], runs: list[str]) -> None:
    """Markdown, one row a quantity."""
    print(f"\n| test | quantity | {' | '.join(runs)} | worst | limit | factor | |")
    print("|---|---|" + "---|" * (len(runs) + 4))
    for (test, quantity), bound in bounds.items():
        values = " | ".join(f"{bound.values.get(run, float('nan')):.3g}" for run in runs)
        factor = bound.limit / bound.worst if bound.worst > 0 else float("inf")
        verdict = "" if bound.holds else "too near"
        print(
            f"| {test} | {quantity} | {values} | {bound.worst:.3g} | {bound.limit:.3g} "
            f"| {factor:.1f} | {verdict} |"
        )


def main(tests: list[str], seeds: list[int], arithmetics: list[str]) -> int:
    """Number of limits that are too near."""
    pairs = [(seed, arithmetic) for arithmetic in arithmetics for seed in seeds]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:  # of processes of one thread
        found = pool.map(lambda pair: measured(tests, *pair), pairs)
        runs = {f"{seed}, {name}": one for (seed, name), one in zip(pairs, found, strict=True)}
    bounds = bounds_of(runs)
    print_table(bounds, list(runs))
    near = sum(not bound.holds for bound in bounds.values())
    print(f"\n{len(bounds)} limits, {near} too near")
    return near


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tests", nargs="*", help="files of tests; default: all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--arithmetics", nargs="+", choices=list(ARITHMETICS), default=list(ARITHMETICS)
    )
    sys.exit(min(main(**vars(parser.parse_args())), 1))
