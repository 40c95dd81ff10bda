"""Worker processes: each code runs in its own, kept alive, pinned to one core.

A request is one JSON line, ``{"system": ..., "setting": ...}``, and so is its answer. The clock
and the memory are read inside the worker, around the one call that solves a structure.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def stay_on_core(core: int) -> None:
    """Pin this process, and the workers it starts from now on, to one core."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})


class Worker:
    """The driver's end of a worker process.

    Args:
        python: interpreter that has the code installed. script: its side, beside this file.

    It runs on the cores of the driver (:func:`stay_on_core`) with one thread.
    """

    def __init__(self, python: str, script: str):
        path = Path(__file__).with_name(script)
        self._process = subprocess.Popen(
            [python, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **dict.fromkeys(_THREADS, "1"), "DFTPY_LOGLEVEL": "5"},
        )
        self.versions = self._read()

    def solve(self, system: dict[str, Any], setting: dict[str, Any]) -> dict[str, Any]:
        """Energy, seconds, evaluations and memory of one structure; ``error`` when it failed."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"system": system, "setting": setting}) + "\n")
        self._process.stdin.flush()
        return self._read()

    def close(self) -> None:
        """End the process by closing its input."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"worker ended without an answer: {self._process.args}")
        return json.loads(line)


Solve = Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]]


def serve(solve: Solve, versions: dict[str, str]) -> None:
    """Answer requests from standard input until it closes; whatever the code prints is dropped."""
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        _write(answers, versions)
        for line in sys.stdin:
            _write(answers, _measure(solve, **json.loads(line)))


def _write(stream: Any, answer: dict[str, Any]) -> None:
    stream.write(json.dumps(answer) + "\n")
    stream.flush()


def _measure(solve: Solve, system: dict[str, Any], setting: dict[str, Any]) -> dict[str, Any]:
    gc.collect()
    _reset_peak()
    idle = _memory("VmRSS")
    start, start_cpu = time.perf_counter(), time.process_time()
    try:
        result = solve(system, setting)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}
    times = {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - start_cpu,
        "process_seconds": time.process_time(),
    }
    # a side that runs a program of its own answers with that program's seconds and memory
    return {**times, "idle_mb": idle, "peak_mb": _memory("VmHWM"), **result}


def _reset_peak() -> None:
    """Forget the peak memory so far (Linux only)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _memory(key: str) -> float:
    """``VmRSS`` or ``VmHWM`` of this process, MB; NaN where there is no /proc."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(key):
                return int(line.split()[1]) / 1024
    return float("nan")
