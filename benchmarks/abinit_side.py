"""ABINIT's side of ``kohn_sham.py``: a worker that runs the program once per structure.

Settings (a dict): ``ecut`` in hartree, ``bands``, ``tolvrs`` (residual of the potential), and
any other variable of ABINIT by its name. No symmetry is used but time reversal.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from worker import serve

_ATOMIC_NUMBERS = {"Al": 13, "Si": 14}
_XC = {"lda_teter": 1, "lda_pw": 7, "pbe": 11}
#: Files that nobody asked for; the stress is not timed.
_QUIET = ["prtwf 0", "prtden 0", "prtebands 0", "prteig 0", "prtgsr 0", "optstress 0"]


def solve(system: dict[str, Any], setting: dict[str, Any]) -> dict[str, Any]:
    """Free energy and forces of one structure, with the seconds and memory of the program."""
    with tempfile.TemporaryDirectory() as folder:
        potential = Path(folder, "ion.gth")
        potential.write_text(gth_file(system["element"], system["pseudopotential"]))
        Path(folder, "run.abi").write_text(input_file(system, setting))
        usage = _run(folder)
        text = Path(folder, "run.abo").read_text()
    return {**read_output(text), **usage}


def input_file(system: dict[str, Any], setting: dict[str, Any]) -> str:
    """ABINIT's input of one structure."""
    natom, metal = len(system["positions"]), system["smearing"] > 0
    shift = [0.5 if n > 1 else 0.0 for n in system["mesh"]]
    named = {"bands": "nband"}
    lines = [
        f"natom {natom}  ntypat 1  typat {natom}*1  znucl {_ATOMIC_NUMBERS[system['element']]}",
        'pseudos "ion.gth"',
        f"ixc {_XC[system['xc']]}",
        f"acell 3*{system['length']!r}",
        "xcart",
        *(_numbers(position) for position in system["positions"]),
        "nsym 1  chkprim 0  kptopt 2  nshiftk 1",
        f"ngkpt {_numbers(system['mesh'])}",
        f"shiftk {_numbers(shift)}",
        f"occopt 3  tsmear {system['smearing']}" if metal else "occopt 1",
        *(f"{named.get(k, k)} {value}" for k, value in {"nstep": 60, **setting}.items()),
        *_QUIET,
    ]
    return "\n".join(lines) + "\n"


def gth_file(element: str, pseudopotential: dict[str, Any]) -> str:
    """The closed form in ABINIT's format 10, off-diagonal strengths as they stand."""
    coefficients, channels = pseudopotential["coefficients"], pseudopotential["channels"]
    number = _ATOMIC_NUMBERS[element]
    lines = [
        f"{element} {pseudopotential['name']}",
        f"{number} {pseudopotential['valence']} 0  zatom, zion, pspdat",
        f"10 1 {len(channels) - 1} 0 2001 0  pspcod, pspxc, lmax, lloc, mmax, r2well",
        f"{pseudopotential['r_loc']} {len(coefficients)} {_numbers(coefficients)}",
        f"{len(channels)}",
    ]
    for order, channel in enumerate(channels):
        h = channel["h"]
        rows = [_numbers(row[i:]) for i, row in enumerate(h)]
        lines += [f"{channel['radius']} {len(h)} {rows[0]}", *rows[1:]]
        if order > 0:  # no spin-orbit coupling
            lines += [_numbers([0.0] * (len(h) - i)) for i in range(len(h))]
    return "\n".join(lines) + "\n"


def read_output(text: str) -> dict[str, Any]:
    """Free energy, forces and self-consistent steps from ABINIT's main output."""
    final = text.split("echo values of variables after computation")[1]
    forces = re.search(r"^\s+fcart((?:\s+-?\d\.\d+E[+-]\d+)+)", final, re.MULTILINE)
    energy = re.search(r"^\s+etotal\s+(\S+)", final, re.MULTILINE)
    if forces is None or energy is None:
        raise RuntimeError("ABINIT wrote no energy or no forces")
    values = [float(word) for word in forces[1].split()]
    waves = re.search(r"mpw\s*=\s*(\d+)", text)
    return {
        "energy": float(energy[1]),
        "forces": [values[i : i + 3] for i in range(0, len(values), 3)],
        "evaluations": len(re.findall(r"^ ETOT\s*\d+", text, re.MULTILINE)),
        "converged": "not enough SCF cycles" not in text,
        "size": int(waves[1]) if waves else 0,
    }


def _run(folder: str) -> dict[str, float]:
    """Run the program; its own processor seconds and peak memory, as the kernel counts them."""
    with Path(folder, "log").open("w") as log:
        process = subprocess.Popen(["abinit", "run.abi"], cwd=folder, stdout=log, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        message = Path(folder, "log").read_text().partition("message: |")[2]
        raise RuntimeError(f"abinit ended with {process.returncode}: {message[:300].strip()}")
    seconds = usage.ru_utime + usage.ru_stime
    return {"cpu_seconds": seconds, "process_seconds": seconds, "peak_mb": usage.ru_maxrss / 1024}


def _numbers(values: list[float]) -> str:
    return " ".join(repr(value) for value in values)


if __name__ == "__main__":
    found = subprocess.run(["abinit", "--version"], capture_output=True, text=True, check=True)
    serve(solve, {"abinit": found.stdout.strip()})
