"""Two eigensolvers on the same Kohn-Sham problems: block Davidson and filtered subspaces.

    python benchmarks/eigensolvers.py

Each problem is one k-point in a self-consistent potential. Both solvers start from the vectors a
calculation starts from (the lowest modes with a little noise) and end when the residuals of all
bands but an eighth are below 1e-4 hartree. Printed are the applications of the Hamiltonian per
band, the processor seconds of one thread, the degree of the filter, and the largest difference of
the eigenvalues.

The filter is that of Zhou, Saad, Tiago and Chelikowsky, J. Comput. Phys. 219, 172 (2006): a
Chebyshev polynomial that is small from the highest band to the end of the spectrum and grows below
it. Its degree is the lowest that enlarges the lowest band by the factor --growth. Only bands that
are not converged, and the spare ones, are filtered.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from ase import Atoms
from ase.build import bulk
from torch import Tensor

from fedens import GTH, KohnSham, KPoints, Structure, solve_kohn_sham
from fedens.fem.modes import space_for_cutoff
from fedens.reference.kohn_sham.eigensolver import Eigenpairs, orthonormal
from fedens.reference.kohn_sham.hamiltonian import Orbitals
from fedens.units import BOHR_IN_ANGSTROM

#: Residuals of all bands but the spare ones end below it, hartree.
TOLERANCE = 1e-4
#: One band of so many, at the top, need not converge, and 4 at least: a filter needs distance.
SPARE = 8
#: Of the self-consistent potentials; kT in hartree.
DENSITY_TOLERANCE, SMEARING = 1e-3, 0.005
MOST_STEPS = 200
LANCZOS_STEPS = 10

Operator = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Problem:
    """A crystal, its pseudopotential, cutoff (hartree), and k-point."""

    atoms: Atoms
    pseudopotential: str
    cutoff: float
    kpoint: tuple[float, float, float]


def problems() -> dict[str, Problem]:
    aluminium = bulk("Al", "fcc", a=7.65 * BOHR_IN_ANGSTROM, cubic=True)
    silicon = bulk("Si", "diamond", a=10.26 * BOHR_IN_ANGSTROM, cubic=True)
    large = aluminium * (2, 2, 2)
    for seed, atoms in enumerate((aluminium, silicon, large)):
        atoms.rattle(0.05, seed=seed)
    quarter = (0.25, 0.25, 0.25)
    return {
        "Al4, 24 hartree, k = 1/4": Problem(aluminium, "gth-pade-q3", 24.0, quarter),
        "Si8, 24 hartree, Gamma": Problem(silicon, "gth-pade-q4", 24.0, (0, 0, 0)),
        "Al32, 12 hartree, Gamma": Problem(large, "gth-pade-q3", 12.0, (0, 0, 0)),
    }


def prepared(problem: Problem) -> tuple[Orbitals, Tensor]:
    """Orbitals to start from, and a self-consistent potential (n_points,), hartree."""
    structure = Structure.from_ase(problem.atoms)
    symbol = structure.symbols[0]
    state = solve_kohn_sham(
        structure,
        space_for_cutoff(structure, problem.cutoff),
        KohnSham("lda_pw", GTH.load(symbol, problem.pseudopotential)),
        KPoints([problem.kpoint], [1.0]),
        SMEARING,
        problem.cutoff,
        residual_tolerance=DENSITY_TOLERANCE,
    )
    (solved,) = state.orbitals
    n_bands = len(solved.coefficients)
    return Orbitals.free(solved.basis, solved.projectors, n_bands), state.local_potential


def hamiltonian(orbitals: Orbitals, potential: Tensor) -> Operator:
    basis, projectors = orbitals.basis, orbitals.projectors
    assert projectors is not None

    def apply(rows: Tensor) -> Tensor:
        return basis.kinetic * rows + basis.multiply(potential, rows) + projectors.apply(rows)

    return apply


def filtered_subspace(
    apply: Operator, start: Tensor, wanted: Tensor, growth: float
) -> tuple[Eigenpairs, int]:
    """Eigenpairs, and the degree of the last filter."""
    top = spectral_bound(apply, start[:1])
    rows, images = start, apply(start)
    applications, degree = LANCZOS_STEPS + len(start), 0
    for _ in range(MOST_STEPS):
        projected = rows.conj() @ images.T
        values, vectors = torch.linalg.eigh((projected + projected.mH) / 2)
        rows, images = vectors.T @ rows, vectors.T @ images
        lengths = torch.linalg.vector_norm(images - values[:, None] * rows, dim=1)
        if not (lengths[wanted] > TOLERANCE).any():
            break
        chosen = (lengths > TOLERANCE) | ~wanted
        lowest, highest = float(values[0]), float(values[-1])
        degree = lowest_degree(lowest, highest, top, growth)
        filtered = chebyshev(apply, rows[chosen], degree, lowest, highest, top)
        rows = orthonormal(torch.cat([rows[~chosen], filtered]))
        images = apply(rows)
        applications += degree * int(chosen.sum()) + len(rows)
    return Eigenpairs(values, rows, lengths, applications), degree


def lowest_degree(lowest: float, highest: float, top: float, growth: float) -> int:
    """Of a filter that enlarges the lowest level by a factor."""
    argument = 1 + 2 * (highest - lowest) / (top - highest)
    return math.ceil(math.acosh(growth) / math.acosh(argument))


def chebyshev(
    apply: Operator, rows: Tensor, degree: int, lowest: float, highest: float, top: float
) -> Tensor:
    """Rows filtered by a polynomial within 1 from ``highest`` to ``top``; scaled to 1 at lowest."""
    half, centre = (top - highest) / 2, (top + highest) / 2
    first = half / (lowest - centre)
    scale = first
    before, now = rows, (apply(rows) - centre * rows) * (first / half)
    for _ in range(degree - 1):
        following = 1 / (2 / first - scale)
        after = (2 * following / half) * (apply(now) - centre * now) - scale * following * before
        before, now, scale = now, after, following
    return now


def spectral_bound(apply: Operator, start: Tensor) -> float:
    """Largest Ritz value of a few Lanczos steps plus the last residual's length."""
    row = start / torch.linalg.vector_norm(start)
    before, beta = torch.zeros_like(row), 0.0
    diagonal, off_diagonal = [], []
    for _ in range(LANCZOS_STEPS):
        image = apply(row) - beta * before
        diagonal.append(float((row.conj() * image).sum().real))
        image = image - diagonal[-1] * row
        beta = float(torch.linalg.vector_norm(image))
        off_diagonal.append(beta)
        before, row = row, image / beta
    matrix = torch.diag(torch.tensor(diagonal)) + torch.diag(torch.tensor(off_diagonal[:-1]), 1)
    return float(torch.linalg.eigvalsh(matrix, UPLO="U").max()) + beta


def compare(name: str, problem: Problem, growth: float) -> str:
    orbitals, potential = prepared(problem)
    start = orbitals.coefficients
    wanted = torch.arange(len(start)) < len(start) - max(4, len(start) // SPARE)
    apply = hamiltonian(orbitals, potential)
    apply(start)  # whatever is made once
    begin = time.process_time()
    other, degree = filtered_subspace(apply, start, wanted, growth)
    seconds = [time.process_time() - begin]
    begin = time.process_time()
    found = orbitals.solve(potential, TOLERANCE, MOST_STEPS, wanted)
    seconds.append(time.process_time() - begin)
    difference = float((found.values - other.values)[wanted].abs().max())
    return (
        f"{name:26s} {start.shape[1]:6d} {len(start):5d} {found.applications / len(start):8.1f} "
        f"{seconds[1]:7.2f} {other.applications / len(start):8.1f} {seconds[0]:7.2f} "
        f"{degree:6d} {difference:10.1e}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--growth", type=float, default=100.0, help="of the lowest band in a filter"
    )
    growth = parser.parse_args().growth
    torch.set_num_threads(1)
    print(
        f"{'':26s} {'':6s} {'':5s} {'Davidson':>16s} {'filtered subspace':>16s}\n"
        f"{'':26s} {'modes':>6s} {'bands':>5s} {'per band':>8s} {'s':>7s} {'per band':>8s} "
        f"{'s':>7s} {'degree':>6s} {'difference':>10s}"
    )
    for name, problem in problems().items():
        print(compare(name, problem, growth), flush=True)


if __name__ == "__main__":
    main()
