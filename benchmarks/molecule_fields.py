"""Kohn-Sham fields of molecules on tetrahedra against PySCF's own numbers; PBE, geometries of g2.

integrals  water, def2-TZVP: integrals over the default mesh of differences to superposed free
           atoms, against Gaussian integrals (xc: PySCF's grid of level 5).
energies   eight molecules, def2-SVP: energy_from_fields against PySCF's total energy, and the
           errors of its parts; ``es`` is all electrostatics, ``Hartree`` the part of it that
           the difference to superposed atoms has with itself. On the default mesh.
potential  ethanol, two bases: electrostatic_potential on a mesh against PySCF's exact integrals of
           the electrons at 50,000 random quadrature points of it, then at all. Runs alternate;
           medians count. Ours includes reading the free atoms, superposing them, the fit to the
           difference, matrices, multigrid, Poisson and the potential at the points compared; not
           what is there anyway: the mesh and the density at its points, whose times are given
           apart.

Seconds are processor seconds. One thread:

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python benchmarks/molecule_fields.py --json result.json
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import resource
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import numpy as np
import torch
from ase.build import molecule
from scipy.linalg import block_diag
from scipy.spatial import cKDTree
from torch import Tensor

from fedens.atoms.charge_near_atoms import coulomb_energy
from fedens.atoms.energy_from_fields import electrostatic_potential, energy_from_fields
from fedens.atoms.spherical import SphericalAtom, superposed_fields
from fedens.fem.simplex import SimplexSpace
from fedens.files import write_atomically
from fedens.reference.pyscf.free_atoms import free_atom, free_atoms, solve_atom
from fedens.reference.pyscf.kohn_sham import PySCFState, solve_with_pyscf
from fedens.reference.pyscf.orbital_fields import hartree_potential, ionic_potential
from fedens.structure import Structure

Settings = Mapping[str, Any]
Row = dict[str, Any]
Comparisons = list[tuple[int, int]]
Result = TypeVar("Result")

PARTS = ("integrals", "energies", "potential")
XC, GRID_LEVEL = "pbe", 5
MOLECULES = ("H2O", "NH3", "HCN", "HCl", "SO2", "CH3Cl", "CH3CH2OH", "C6H6")
#: Arguments of SimplexSpace.for_structure: the default, and the coarsest tried whose potential is
#: within the target away from the nuclei.
POTENTIAL_MESHES: list[Settings] = [
    {},
    {"growth": 1.0, "finest": {"H": 0.35, "C": 0.07, "O": 0.05}},
]
BASES = ("def2-svp", "def2-tzvp")
#: How many points of the mesh (0: all), and pairs of runs.
COMPARISONS: Comparisons = [(50_000, 3), (0, 1)]
#: Points farther than this from all nuclei count as away from them, bohr.
AWAY = 0.5
#: In electrons and mHa, mHa, and mHa/e.
INTEGRAL_TARGETS = {"electrons": 1e-6, "kinetic": 0.05, "xc": 0.02, "nuclear": 0.1}
ENERGY_TARGET, POTENTIAL_TARGET, SPEED_TARGET = 0.2, 1.0, 5.0


@dataclass(frozen=True)
class Reference:
    """A molecule's Kohn-Sham state and its free atoms.

    ``exact`` are integrals of what they differ by, hartree: ``kinetic``, ``xc``, ``nuclear``
    (attraction to the nuclei), ``hartree`` (energy of the difference with itself).
    """

    state: PySCFState
    atoms: Mapping[str, SphericalAtom]
    exact: Mapping[str, float]

    @property
    def structure(self) -> Structure:
        """The molecule."""
        return self.state.structure

    def fields(self, space: SimplexSpace) -> dict[str, Tensor]:
        """Reference fields at the points of a space."""
        fields = self.state.fields(space.points.numpy())
        return {name: torch.tensor(values) for name, values in fields.items()}


def solve(name: str, basis: str) -> Reference:
    """The reference of a molecule of g2."""
    from pyscf.scf.hf import get_jk

    state = solve_with_pyscf(Structure.from_ase(molecule(name)), XC, basis, grid_level=GRID_LEVEL)
    symbols, gaussians = state.structure.symbols, state.mean_field.mol
    atoms = free_atoms(symbols, XC, basis)
    own = {symbol: solve_atom(symbol, XC, basis).make_rdm1() for symbol in atoms}
    difference = state.density_matrix - block_diag(*(own[symbol] for symbol in symbols))
    exact = {
        "kinetic": (gaussians.intor("int1e_kin") * difference).sum(),
        "nuclear": (gaussians.intor("int1e_nuc") * difference).sum(),
        "hartree": 0.5 * (get_jk(gaussians, difference)[0] * difference).sum(),
        "xc": state.energies["xc"] - sum(atoms[symbol].energies["xc"] for symbol in symbols),
    }
    return Reference(state, atoms, exact)


def timed(function: Callable[[], Result]) -> tuple[Result, float]:
    """Result and processor seconds."""
    start = time.process_time()
    result = function()
    return result, time.process_time() - start


def make_space(structure: Structure, settings: Settings) -> SimplexSpace:
    """A space with its points and weights."""
    space = SimplexSpace.for_structure(structure, **settings)
    _ = space.points, space.weights
    return space


def label(settings: Settings) -> str:
    """Settings of a mesh in words."""
    words = [f"{name} {value}" for name, value in settings.items() if name != "finest"]
    finest = [f"{symbol} {size}" for symbol, size in settings.get("finest", {}).items()]
    return ", ".join(words + finest) or "default"


def verdict(met: bool) -> str:
    """For the last column."""
    return "met" if met else "MISSED"


def report_integrals() -> list[Row]:
    """Integrals of differences to superposed atoms in water."""
    reference = solve("H2O", "def2-tzvp")
    structure = reference.structure
    space = make_space(structure, {})
    fields = reference.fields(space)
    superposed = superposed_fields(structure, space.points, reference.atoms)
    difference = {name: fields[name] - superposed[name] for name in fields}
    nuclei = torch.tensor(ionic_potential(reference.state.mean_field.mol, space.points.numpy()))
    found = {name: float(space.integrate(difference[name])) for name in ("kinetic", "xc")}
    found["nuclear"] = float(space.integrate(difference["density"] * nuclei))
    errors = {name: 1e3 * (value - reference.exact[name]) for name, value in found.items()}
    errors["electrons"] = float(space.integrate(difference["density"]))

    print(f"\nIntegrals: H2O, PBE/def2-TZVP, {space.n_points} points")
    print(f"{'difference to superposed atoms':<32}{'error':>12}{'target':>9}")
    for name, target in INTEGRAL_TARGETS.items():
        unit = "e" if name == "electrons" else "mHa"
        met = verdict(abs(errors[name]) < target)
        print(f"{name + ', ' + unit:<32}{errors[name]:>12.2g}{target:>9g}  {met}")
    return [{"points": space.n_points, "errors": errors}]


def energy_row(reference: Reference) -> Row:
    """Errors of the energy and its parts in mHa, and seconds."""
    space, mesh = timed(lambda: make_space(reference.structure, {}))
    fields, evaluation = timed(lambda: reference.fields(space))
    arguments = reference.structure, space, fields, reference.atoms
    energies, summation = timed(lambda: energy_from_fields(*arguments))
    exact = dict(reference.state.energies)
    electrostatic = ("nuclear_attraction", "hartree", "nuclear_repulsion")
    exact["electrostatic"] = sum(exact[name] for name in electrostatic)
    errors = {name: 1e3 * (float(value) - exact[name]) for name, value in energies.items()}
    superposed = superposed_fields(reference.structure, space.points, reference.atoms)
    difference = fields["density"] - superposed["density"]
    hartree = float(coulomb_energy(reference.structure, space, difference))
    errors["hartree"] = 1e3 * (hartree - reference.exact["hartree"])
    seconds = {"mesh": mesh, "fields": evaluation, "energy": summation}
    return {"points": space.n_points, "errors": errors, "seconds": seconds}


def report_energies(names: tuple[str, ...]) -> list[Row]:
    """Total energies from fields."""
    shown = ("total", "kinetic", "xc", "electrostatic", "hartree")
    rows = []
    print(f"\nEnergies: PBE/def2-SVP, errors in mHa (target {ENERGY_TARGET:g})")
    heads = (
        "points",
        "total",
        "kinetic",
        "xc",
        "es",
        "Hartree",
        "mesh, s",
        "fields, s",
        "energy, s",
    )
    print(f"{'molecule':<10}" + "".join(f"{head:>10}" for head in heads))
    for name in names:
        reference = solve(name, "def2-svp")
        row: Row = {"molecule": name, **energy_row(reference)}
        rows.append(row)
        errors = "".join(f"{row['errors'][part]:>10.3f}" for part in shown)
        seconds = "".join(f"{value:>10.1f}" for value in row["seconds"].values())
        met = verdict(abs(row["errors"]["total"]) < ENERGY_TARGET)
        print(f"{name:<10}{row['points']:>10}{errors}{seconds}  {met}", flush=True)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak memory {memory:.1f} GiB")
    return rows


def run_pair(reference: Reference, settings: Settings, n_compared: int) -> tuple[Row, Row]:
    """Processor seconds of both paths; points of the mesh, errors in mHa/e of those compared."""
    structure, state = reference.structure, reference.state
    # a new space each time, as it keeps its matrices, and atoms from their files
    space, mesh = timed(lambda: make_space(structure, settings))
    fields, density = timed(lambda: reference.fields(space))
    free_atom.cache_clear()
    some = np.sort(np.random.default_rng(0).permutation(space.n_points)[: n_compared or None])
    points, gaussians = space.points.numpy()[some], state.mean_field.mol
    found, ours = timed(
        lambda: electrostatic_potential(
            structure,
            space,
            fields["density"],
            free_atoms(structure.symbols, XC, state.basis),
            torch.tensor(points) if n_compared else None,
        )
    )
    electrons, pyscf = timed(lambda: hartree_potential(gaussians, state.density_matrix, points))
    errors = 1e3 * np.abs(found.numpy() - electrons - ionic_potential(gaussians, points))
    away = cKDTree(structure.positions).query(points)[0] > AWAY
    seconds = {"mesh": mesh, "density": density, "ours": ours, "pyscf": pyscf}
    return seconds, {
        "points": space.n_points,
        "compared": len(points),
        "largest_error": errors.max(),
        "largest_error_away": errors[away].max(),
        "median_error_away": float(np.median(errors[away])),
    }


def potential_row(reference: Reference, settings: Settings, n_compared: int, pairs: int) -> Row:
    """Medians over pairs of runs."""
    runs = [run_pair(reference, settings, n_compared) for _ in range(pairs)]
    all_seconds = {name: [seconds[name] for seconds, _ in runs] for name in runs[0][0]}
    seconds = {name: median(values) for name, values in all_seconds.items()}
    return {
        "mesh": label(settings),
        "pairs": pairs,
        **runs[-1][1],
        "seconds": seconds,
        "all_seconds": all_seconds,
        "ratio": seconds["pyscf"] / seconds["ours"],
    }


def report_potential(bases: tuple[str, ...], comparisons: Comparisons) -> list[Row]:
    """Hartree potential on a mesh and by exact integrals."""
    rows: list[Row] = []
    print(
        f"\nPotential: CH3CH2OH, PBE, errors in mHa/e, away: beyond {AWAY:g} bohr from nuclei "
        f"(target {POTENTIAL_TARGET:g}); target of PySCF / ours {SPEED_TARGET:g}"
    )
    times = ("mesh, s", "density, s", "ours, s", "PySCF, s", "ratio")
    heads = ("points", "compared", "pairs", *times, "largest", "away", "median")
    print(f"{'basis':<11}{'mesh':<36}" + "".join(f"{head:>11}" for head in heads))
    for basis in bases:
        reference = solve("CH3CH2OH", basis)
        for settings, (n_compared, pairs) in itertools.product(POTENTIAL_MESHES, comparisons):
            row = potential_row(reference, settings, n_compared, pairs)
            rows.append({"basis": basis, **row})
            print(f"{basis:<11}{row['mesh']:<36}{potential_line(row)}", flush=True)
    return rows


def potential_line(row: Row) -> str:
    """Numbers of a row, and whether they meet the targets."""
    counts = "".join(f"{row[name]:>11}" for name in ("points", "compared", "pairs"))
    seconds = "".join(f"{value:>11.2f}" for value in row["seconds"].values())
    names = ("largest_error", "largest_error_away", "median_error_away")
    errors = "".join(f"{row[name]:>11.3f}" for name in names)
    fast = verdict(row["ratio"] > SPEED_TARGET)
    close = verdict(row["largest_error_away"] < POTENTIAL_TARGET)
    return f"{counts}{seconds}{row['ratio']:>11.2f}{errors}  speed {fast}, error {close}"


def store(path: Path | None, part: str, rows: list[Row]) -> None:
    """Replace a part in the file, leaving the others."""
    if path is None:
        return
    stored = json.loads(path.read_text()) if path.exists() else {}
    write_atomically(path, json.dumps(stored | {part: rows}, indent=1) + "\n")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--part", choices=[*PARTS, "all"], default="all", help="which table (default all)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="two small molecules, 2000 points, one pair"
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write every number here, part by part"
    )
    arguments = parser.parse_args()
    logging.getLogger("skfem").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    quick = arguments.quick
    reports: dict[str, Callable[[], list[Row]]] = {
        "integrals": report_integrals,
        "energies": lambda: report_energies(MOLECULES[:2] if quick else MOLECULES),
        "potential": lambda: (
            report_potential(BASES[:1], [(2000, 1)])
            if quick
            else report_potential(BASES, COMPARISONS)
        ),
    }
    for part in PARTS if arguments.part == "all" else (arguments.part,):
        store(arguments.json, part, reports[part]())


if __name__ == "__main__":
    main()
