"""Another code that learns energies and forces, such as MACE, in an interpreter of its own.

Its script reads a task as JSON from standard input and writes its answer as JSON into the file that
it is given: see ``benchmarks/mace_side.py``.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from fedens.analysis.functionals import Answer
from fedens.configuration.functional_training import OtherCodeOptions
from fedens.data.sample import Sample
from fedens.errors import ModelError
from fedens.sources.structure_files import write_xyz
from fedens.units import HARTREE_IN_EV, HARTREE_PER_BOHR_IN_EV_PER_ANGSTROM

#: Characters of its log that a message shows.
_SHOWN = 500


def learn_elsewhere(
    options: OtherCodeOptions,
    training: Sequence[Sample],
    cells: Sequence[Sample],
    seed: int,
    log: Path,
) -> list[Answer]:
    """Train on samples and predict cells, one after the other.

    Args:
        log: file for what it prints.

    Raises:
        ModelError: the script failed.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        task = {
            "training_file": _write(folder / "training.xyz", training),
            "held_out_file": _write(folder / "cells.xyz", cells),
            "rounds": options.epochs,
            "budget": 60 * options.minutes,
            "threads": 1,
            "seed": seed,
        }
        answer = _run(options, task, folder / "answer.json", log)
    return [
        Answer(
            energy / HARTREE_IN_EV,
            np.array(forces) / HARTREE_PER_BOHR_IN_EV_PER_ANGSTROM,
            seconds=answer["prediction_wall_seconds"],
        )
        for energy, forces in zip(
            answer["energies_ev"], answer["forces_ev_per_angstrom"], strict=True
        )
    ]


def _run(options: OtherCodeOptions, task: dict[str, Any], answer: Path, log: Path) -> Any:
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    with log.open("w") as stream:
        done = subprocess.run(
            [options.python, options.script, answer],
            input=json.dumps(task),
            text=True,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env={**os.environ, **threads},
        )
    if done.returncode:
        raise ModelError(f"{options.script} failed; the end of {log}: {log.read_text()[-_SHOWN:]}")
    return json.loads(answer.read_text())


def _write(path: Path, samples: Sequence[Sample]) -> str:
    """Structures with energies, eV, and forces, eV/angstrom, under the names that MACE reads."""
    images: list[Atoms] = []
    for sample in samples:
        atoms = sample.structure.to_ase()
        atoms.info["REF_energy"] = sample.total_energy * HARTREE_IN_EV
        assert sample.forces is not None
        atoms.arrays["REF_forces"] = sample.forces * HARTREE_PER_BOHR_IN_EV_PER_ANGSTROM
        images.append(atoms)
    write_xyz(path, images)
    return str(path)
