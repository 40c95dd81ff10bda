"""Find the cheapest setting of a code that is within a tolerance of its converged limit.

A mesh counts as good enough when it *and every finer mesh of its family* are within the
tolerance with the minimiser converged, so that no lucky crossing is taken for convergence.
The minimiser's own settings are then scanned on the cheapest of the good meshes, where any
result within the tolerance counts. Settings are compared by processor time, which other
processes on the machine disturb less than the clock.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from systems import HARTREE_IN_MEV, LATTICE_CONSTANT
from worker import Worker

Setting = dict[str, Any]
System = dict[str, Any]

_MESHES_TRIED = 2
_FINALISTS = 6
_RUNS_OF_FINALISTS = 3


@dataclass(frozen=True)
class Mesh:
    """A resolution: ``rank`` grows with fineness in each entry, within one family."""

    setting: Setting
    rank: tuple[int, ...]
    family: Any = None

    def is_finer_than(self, other: Mesh) -> bool:
        return self.family == other.family and all(
            a >= b for a, b in zip(self.rank, other.rank, strict=True)
        )


@dataclass(frozen=True)
class Catalogue:
    """The settings of one code for one system.

    Attributes:
        limit: the converged limit. tight: converged minimiser for the scan of meshes.
        meshes: resolutions to scan. minimisers: settings tried in full on the good meshes.
        switches: single changes then tried one after another, kept when they help.
    """

    limit: Setting
    tight: Setting
    meshes: list[Mesh]
    minimisers: list[Setting]
    switches: list[Setting] = field(default_factory=list)


@dataclass(frozen=True)
class Candidate:
    """A setting that is good enough, with its processor time."""

    setting: Setting
    seconds: float


def meV_per_atom(difference: float, system: System) -> float:  # noqa: N802
    """An energy difference in hartree as meV/atom."""
    return difference * HARTREE_IN_MEV / len(system["positions"])


class Search:
    """Cheapest setting of one code for one system.

    Args:
        reference: energy that errors are measured against, hartree.
        tolerance: meV/atom. report: called with a line of text per setting tried.
    """

    def __init__(
        self,
        worker: Worker,
        system: System,
        reference: float,
        tolerance: float,
        report: Callable[[str], None],
    ):
        self.worker, self.system, self.report = worker, system, report
        self.reference, self.tolerance = reference, tolerance

    def cheapest(self, catalogue: Catalogue, meshes: list[Setting]) -> Setting:
        """Scan the minimisers on the meshes, then the switches; the fastest within tolerance."""
        good = self._good([{**mesh, **m} for mesh in meshes for m in catalogue.minimisers])
        if not good:
            good = self._good([{**mesh, **catalogue.tight} for mesh in meshes])
        best = self._fastest(good)
        for switch in catalogue.switches:
            best = self._fastest([best, *self._good([{**best.setting, **switch}])])
        return best.setting

    def good_meshes(self, catalogue: Catalogue) -> list[Setting]:
        """The cheapest of the meshes that are converged together with all finer ones."""
        good: list[Candidate] = []
        bad: list[Mesh] = []
        for mesh in sorted(catalogue.meshes, key=lambda m: -sum(m.rank)):
            if any(failed.is_finer_than(mesh) for failed in bad):
                continue
            tried = self._try({**mesh.setting, **catalogue.tight})
            if tried is None:
                bad.append(mesh)
            else:
                good.append(Candidate(mesh.setting, tried.seconds))
        if not good:
            raise SystemExit(
                f"{self.system['name']}: no mesh of the list is within {self.tolerance} meV/atom"
            )
        good.sort(key=lambda c: c.seconds)
        return [candidate.setting for candidate in good[:_MESHES_TRIED]]

    def _good(self, settings: list[Setting]) -> list[Candidate]:
        tried = [self._try(setting) for setting in settings]
        return sorted((t for t in tried if t is not None), key=lambda c: c.seconds)

    def _try(self, setting: Setting) -> Candidate | None:
        """Solve once; None when it failed, stopped early or is not within the tolerance."""
        answer = self.worker.solve(self.system, setting)
        if "error" in answer:
            self.report(f"  {describe(setting)}: {answer['error'][:90]}")
            return None
        error = meV_per_atom(answer["energy"] - self.reference, self.system)
        good = answer["converged"] and abs(error) <= self.tolerance
        self.report(
            f"  {describe(setting)}: {error:+.3f} meV/atom, {answer['evaluations']} evaluations, "
            f"{answer['cpu_seconds']:.3f} s{'' if good else '  (no)'}"
        )
        return Candidate(setting, answer["cpu_seconds"]) if good else None

    def _fastest(self, candidates: list[Candidate]) -> Candidate:
        """The fastest, judged by the best of a few more runs of the most promising."""
        finalists = sorted(candidates, key=lambda c: c.seconds)[:_FINALISTS]
        return min((self._again(c) for c in finalists), key=lambda c: c.seconds)

    def _again(self, candidate: Candidate) -> Candidate:
        answers = [
            self.worker.solve(self.system, candidate.setting) for _ in range(_RUNS_OF_FINALISTS)
        ]
        return Candidate(candidate.setting, min(answer["cpu_seconds"] for answer in answers))


def describe(setting: Setting) -> str:
    """A setting in a few words."""
    return ", ".join(f"{key} {_short(value)}" for key, value in setting.items())


def _short(value: Any) -> str:
    if isinstance(value, list):
        return "x".join(map(str, value)) if len(set(value)) > 1 else f"{value[0]}^3"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def dftpy_catalogue(system: System, quick: bool, from_atoms: bool = False) -> Catalogue:
    """Grids, optimisers and switches of DFTpy.

    ``from_atoms``: start from superposed free atoms, which DFTpy is given for nothing, instead
    of its own uniform density.
    """
    isolated = system["cell"] is None
    meshes, limit = _dftpy_isolated(system) if isolated else _dftpy_bulk(system)
    methods = ["TN", "CG-HS"] if quick or isolated else ["TN", "CG-HS", "CG-DY", "LBFGS"]
    ion_sums = [{"particle_mesh": False}] if isolated else _ION_SUMS
    start = {"guess": "atomic"} if from_atoms else {}
    return Catalogue(
        limit={**limit, "particle_mesh": False, "method": "TN", "energy_change": 1e-8},
        tight={"particle_mesh": False, "method": "TN", "energy_change": 1e-7},
        meshes=meshes,
        minimisers=[
            {**ion_sum, "method": method, **stop, **start}
            for ion_sum, method, stop in itertools.product(ion_sums, methods, _DFTPY_STOPS)
        ],
        switches=[*_DFTPY_SWITCHES, *(_ION_SUMS[1:] if isolated else [])],
    )


_ION_SUMS = [{"particle_mesh": False}, {"particle_mesh": True}]
_DFTPY_STOPS = [
    {"energy_change": change, "checks": checks}
    for change, checks in ((1e-3, 2), (1e-4, 1), (1e-4, 2), (1e-5, 1), (1e-5, 2))
]
_DFTPY_SWITCHES = [
    {"signed_root": True},
    {"vector": "Scaling"},
    {"levels": 2},
    {"fft": "pyfftw"},
]


def _dftpy_bulk(system: System) -> tuple[list[Mesh], Setting]:
    repeats = round(system["cell"][0] / LATTICE_CONSTANT)
    numbers = [n for n in range(9 * repeats, 18 * repeats + 1) if _is_smooth(n)]
    meshes = [Mesh({"points": [n] * 3}, rank=(n,)) for n in numbers]
    return meshes, {"points": [24 * repeats] * 3}


def _dftpy_isolated(system: System) -> tuple[list[Mesh], Setting]:
    spacings = [0.75, 0.7, 0.65, 0.6, 0.55, 0.5]
    meshes = [
        Mesh({"points": _points(system, m, h), "margin": m}, rank=(i, j))
        for (i, m), (j, h) in itertools.product(enumerate(_margins(system)), enumerate(spacings))
    ]
    return meshes, {"points": _points(system, 16.0, 0.45), "margin": 16.0}


def _margins(system: System) -> list[float]:
    """Distances from the outermost atom to the wall, bohr; a lone atom's density reaches far."""
    if len(system["positions"]) == 1:
        return [12.0, 13.0, 13.5, 14.0, 16.0]
    return [9.0, 10.0, 11.0, 12.0, 13.0]


def _points(system: System, margin: float, spacing: float) -> list[int]:
    """Points per axis of an isolated system's box: numbers that Fourier transforms like."""
    axes = zip(*system["positions"], strict=True)
    lengths = [max(axis) - min(axis) + 2 * margin for axis in axes]
    return [
        next(n for n in itertools.count(math.ceil(x / spacing)) if _is_smooth(n)) for x in lengths
    ]


def _is_smooth(number: int) -> bool:
    """Whether 2, 3, 5 and 7 are the only prime factors."""
    for prime in (2, 3, 5, 7):
        while number % prime == 0:
            number //= prime
    return number == 1


def fedens_catalogue(system: System, quick: bool) -> Catalogue:
    """Elements and tolerances of fedens."""
    isolated = system["cell"] is None
    guesses = [{}] if isolated else [{}, {"guess": "superposed_atoms"}]
    orders = [8, 10] if quick else [5, 6, 7, 8, 9, 10]
    meshes, limit = (_fedens_isolated if isolated else _fedens_bulk)(system, orders)
    return Catalogue(
        limit={**limit, "residual": 1e-6},
        tight={"residual": 1e-5},
        meshes=meshes,
        minimisers=[
            {"residual": residual, **guess}
            for residual, guess in itertools.product((3e-2, 1e-2, 3e-3, 1e-3, 3e-4), guesses)
        ],
    )


def _fedens_bulk(system: System, orders: list[int]) -> tuple[list[Mesh], Setting]:
    length = system["cell"][0]
    meshes = [
        Mesh({"order": order, "elements": elements}, rank=(elements,), family=order)
        for order in orders
        for elements in range(
            max(1, math.ceil(length / (0.85 * order))), math.ceil(length / (0.42 * order)) + 1
        )
    ]
    return meshes, {"order": 10, "elements": 3 * round(length / LATTICE_CONSTANT)}


def _fedens_isolated(system: System, orders: list[int]) -> tuple[list[Mesh], Setting]:
    spacings = [0.6, 0.5, 0.45, 0.4, 0.35]
    growths = [4.0, 2.5]
    meshes = [
        Mesh(
            {"order": order, "spacing": h, "margin": margin, "growth": growth},
            rank=(i, j, k),
            family=order,
        )
        for order in orders
        for (i, margin), (j, h), (k, growth) in itertools.product(
            enumerate(_margins(system)), enumerate(spacings), enumerate(growths)
        )
    ]
    return meshes, {"order": 10, "spacing": 0.3, "margin": 20.0, "growth": 2.0}
