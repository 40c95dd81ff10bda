"""A run killed (SIGKILL) at random moments ends with the files of one that was not.

Each kill is a run of its own: killed once, started again, compared file by file. Two kills of each
kind of job by default; thirty, with other moments, by

    FEDENS_KILLS=30 FEDENS_KILL_SEED=1 python -m pytest tests/test_kill.py

and one kind alone with ``-k molecules``.
"""

import json
import os
import random
import shutil
import subprocess
import sys
import time

import h5py
import molecules
import pytest
import yaml
from ase.io import write

KILLS = int(os.environ.get("FEDENS_KILLS", "2"))
SEED = int(os.environ.get("FEDENS_KILL_SEED", "0"))

COARSE = {"spacing": 0.6, "order": 4}
CELL = {"supercell": [1, 1, 1], "vacancy_fraction": 0}
GMP = {"widths": [1.0, 2.0], "max_order": 1}
#: Every kind of job in its smallest form; nothing in them is ended by time.
SMALL = {
    "learning": {
        "structures": CELL | {"count": 3},
        "space": COARSE,
        "training": {
            "train_count": 2,
            "network": {"hidden": [4], "committee": 2},
            "descriptors": {"gmp": GMP, "response_fields": False},
            "steps": 30,
            "checkpoint_every": 7,
            "batch_points": 500,
            "learning_curve": [1],
        },
        "rounds": {"count": 1, "add": 1, "candidates": 2, "steps": 10},
        "output": {"figures": False},
    },
    "molecules": {
        "molecules": {"water": {"file": "water.xyz", "train": 2, "test": 1}},
        "theory": {"basis": "sto-3g", "grid_level": 0, "conv_tol": 1e-8},
        "space": {"finest": 0.8},
        "training": {
            "committee": 1,
            "steps": 2,
            "energy_steps": 2,
            "points": 2000,
            "channels": 4,
            "hidden": 8,
        },
        "evaluation": {"scf": 0, "fields": 1},
        "learning_curve": [1],
    },
    "reference_points": {
        "structures": CELL | {"count": 2},
        "space": COARSE,
        "functional": {"kinetic": "tfvw"},
        "gmp": GMP,
        "points": {"atoms": [{"kind": "atoms"}], "grid": [{"kind": "grid", "spacing": 2.0}]},
        "sizes": [1],
        "held_out": 1,
        "seeds": 1,
        "seconds": 1e6,
        "steps": 5,
        "hidden": [4],
    },
    "functional": {
        "structures": [CELL | {"cell": "tetragonal", "count": 2}],
        "theory": {
            "kind": "kohn_sham",
            "xc": "lda_pz",
            "pseudopotentials": {
                "Al": {
                    "kind": "gth_local",
                    "valence": 3,
                    "r_loc": 0.7473,
                    "c1": 4.9546,
                    "c2": -0.8993,
                }
            },
            "kspacing": 0.6,
            "smearing": {"width": 0.05},
            "cutoff": 4.0,
            "residual_tolerance": 1e-4,
        },
        "space": {"order": 6},
        "training": {
            "train_count": 1,
            "degree": 1,
            "model_potentials": {"separable": 1, "planar": 1},
            "direct": {"gmp": GMP, "hidden": [4], "steps": 5},
            "correction": {"gmp": GMP},
        },
        "comparison": {"learning_curve": {"sizes": [1]}},
    },
    "generalisation": {
        "ball": 2,
        "decay_ball": 3,
        "far_field": {"sizes": [0.75, 1.05]},
        "fits": {
            "sizes": [1.05],
            "snapshots": 1,
            "small": {"decays": [4.0], "degree": 1},
            "sufficient": {"decays": [4.0, 9.0], "degree": 1},
            "observations": [["forces"]],
        },
    },
}
#: Beside these, results hold times; a page of results with times cannot be compared.
TIMED_PAGES = {"reference_points": ["report.html"], "functional": ["report.html"]}


def start(config, folder):
    """The process of ``fedens run``."""
    code = "from fedens.commands.cli import main; main()"
    arguments = [sys.executable, "-c", code, "run", str(config), "-o", str(folder), "-q"]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process):
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output


def without_times(value):
    """JSON without the numbers that are seconds, and without what was made from such.

    These are digests of inputs, and sentences about results.
    """
    if isinstance(value, list):
        return [without_times(one) for one in value]
    if not isinstance(value, dict):
        return value
    timed = {"sentences"} | ({"inputs"} if set(value) == {"inputs", "result"} else set())
    return {k: without_times(v) for k, v in value.items() if "seconds" not in k and k not in timed}


def contents(folder, kind):
    """What each file holds, times left out."""
    shown = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = str(path.relative_to(folder))
        if name in TIMED_PAGES.get(kind, ()):
            shown[name] = "a page with times"
        elif path.suffix == ".json":
            shown[name] = without_times(json.loads(path.read_text()))
        elif path.suffix == ".h5":
            with h5py.File(path) as file:
                shown[name] = file.attrs["checksum"]
        else:
            shown[name] = path.read_bytes()
    return shown


@pytest.mark.slow
@pytest.mark.parametrize("kind", SMALL)
def test_killed_run_ends_like_one_that_was_not(kind, tmp_path):
    config = tmp_path / "small.yaml"
    config.write_text(yaml.safe_dump({"job": kind, **SMALL[kind]}))
    images = [molecules.rattled(molecules.WATER, i).to_ase() for i in range(3)]
    write(tmp_path / "water.xyz", images, format="extxyz")
    begin = time.monotonic()
    finish(start(config, tmp_path / "whole"))
    seconds = time.monotonic() - begin
    expected = contents(tmp_path / "whole", kind)
    assert len(expected) > 5
    moments = random.Random(f"{kind} {SEED}")
    for number in range(KILLS):
        folder = tmp_path / str(number)
        process = start(config, folder)
        moment = moments.uniform(0.2, 1.0) * seconds
        time.sleep(moment)
        process.kill()
        process.communicate()
        finish(start(config, folder))
        found = contents(folder, kind)
        differing = [n for n in {**expected, **found} if expected.get(n) != found.get(n)]
        assert differing == [], f"kill {number}, after {moment:.2f} of {seconds:.2f} s"
        shutil.rmtree(folder)


def test_smallest_forms_are_of_all_jobs():
    from fedens.jobs.registry import JOBS

    assert set(SMALL) == set(JOBS)
