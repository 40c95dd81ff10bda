"""Self-consistent Kohn-Sham calculations of crystals and molecules on a TensorSpace."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fedens.data.density import Density
from fedens.energy.kohn_sham import BoundKohnSham, KohnSham
from fedens.energy.nonlocal_potential import bind_projectors
from fedens.errors import ConvergenceError, FunctionalError, SamplingError, SpaceError
from fedens.fem.modes import ModeBasis
from fedens.fem.product_grid import ProductGrid
from fedens.fem.tensor import TensorSpace
from fedens.reference.kohn_sham.checkpoint import Checkpoint
from fedens.reference.kohn_sham.cutoffs import default_cutoff
from fedens.reference.kohn_sham.hamiltonian import SPARE, Orbitals
from fedens.reference.kohn_sham.kpoints import KPoints, as_kpoints
from fedens.reference.kohn_sham.mixing import AndersonMixer, kerker
from fedens.reference.kohn_sham.smearing import HIGHEST_TOP_OCCUPATION, Occupation, Smearing
from fedens.reference.kohn_sham.start import starting_density
from fedens.reference.kohn_sham.state import KohnShamState
from fedens.reference.kohn_sham.symmetry import Symmetry
from fedens.reference.labeller import StepReport
from fedens.structure import Structure, check_is_structure

#: What the first density's residual is taken to be; that of a given one.
_FIRST_RESIDUAL, _GUESS_RESIDUAL = 0.3, 1e-4
#: Expansions of the eigensolver's subspace: for an orbital-free or a given density, and later.
_FIRST_EXPANSIONS, _GUESS_EXPANSIONS, _EXPANSIONS = 6, 16, 3
#: Residuals of the orbitals, hartree, end below this share of the density's residual.
_ORBITAL_SHARE = 0.02
#: Orbitals with fewer electrons need not converge.
_NEGLIGIBLE = 1e-6
#: Below it, hartree, levels that change places keep a calculation from converging.
_SMALL_GAP = 0.02
#: Electrons per bohr^3 below which an insulating cell is taken for molecules in vacuum.
_THIN = 0.015
#: Electrons per bohr^3 of the metal with the fewest, caesium.
_THINNEST_METAL = 0.0013
#: A mixed density is at least this, electron/bohr^3.
_FLOOR = 1e-12


def solve_kohn_sham(
    structure: Structure,
    space: TensorSpace,
    functional: KohnSham,
    kpoints: KPoints | tuple[Any, Any] | None = None,
    smearing: Smearing | float = 0.0,
    cutoff: float | None = None,
    *,
    density_cutoff: float | None = None,
    residual_tolerance: float = 1e-6,
    max_iterations: int = 60,
    bands: int | None = None,
    symmetry: bool = True,
    guess: Density | None = None,
    checkpoint: str | Path | None = None,
    require_convergence: bool = True,
    report: StepReport | None = None,
) -> KohnShamState:
    """The self-consistent density and orbitals of a structure, spin-unpolarised.

    Args:
        kpoints: a mesh (:func:`monkhorst_pack`), or points (n, 3) in units of the reciprocal
            lattice vectors and weights (n,) that sum to 1; default Gamma.
        smearing: a :class:`Smearing`, or the width of Fermi-Dirac smearing, kT in hartree; 0 for
            insulators.
        cutoff: largest kinetic energy of the orbitals' modes, hartree; chosen from the
            pseudopotentials by default (``state.cutoff``).
        density_cutoff: of the waves kept in products of orbitals along periodic axes, hartree.
            4 ``cutoff`` keeps all, 1.44 is quicker and mostly good enough; default: products are
            taken at the points of the space.
        residual_tolerance: stop when the density that comes out of a step differs from the one
            that went in by less, as the integral of the absolute difference over the number of
            electrons. The free energy's error is second order in it, that of forces first order.
        max_iterations: steps before giving up.
        bands: number of bands; chosen from the smearing by default, and raised where too few.
        symmetry: use only one of k-points that the structure's symmetry makes equal.
        guess: starting density on the same space; default: the orbital-free one, or superposed
            atoms where there are projectors.
        checkpoint: a file that holds the last density, from which a calculation that was
            stopped goes on; removed at the end.
        require_convergence: raise when the tolerance is not met; otherwise the state says so.

    Raises:
        ConvergenceError: not converged (the unfinished state is in ``.result``).
        SamplingError: k-points on an isolated axis, a negative smearing, an odd number of
            electrons or a metal without smearing, too few bands.
        SpaceError: a mesh that does not fit the structure, or cannot hold the cutoff.
        PseudopotentialError, FunctionalError: what does not fit together.
    """
    _check(space, residual_tolerance, max_iterations)
    calculation = _Calculation.prepare(
        structure, space, functional, kpoints, smearing, cutoff, density_cutoff, bands, symmetry
    )
    saved = Checkpoint.of(checkpoint, structure, space, functional)
    density = saved.density() if saved else None
    expected = _FIRST_RESIDUAL if density is None and guess is None else _GUESS_RESIDUAL
    if density is None:
        density = starting_density(structure, space, functional, guess)
    last = _iterate(
        calculation, density, expected, residual_tolerance, max_iterations, saved, report
    )
    state = calculation.state(last, residual_tolerance)
    if require_convergence and not state.converged:
        raise ConvergenceError(f"{structure.formula}: {state.message}", state)
    if saved:
        saved.remove()
    return state


@dataclass(frozen=True, eq=False)
class _Step:
    """One self-consistent step.

    Attributes:
        given, density: what went in and what came out, (n_points,), electron/bohr^3.
        potential: of the density that went in, (n_points,), hartree.
        eigenvalues, occupation, free_energy: of its orbitals. residual: relative difference of
            the densities. iterations: steps so far.
    """

    given: Tensor
    density: Tensor
    potential: Tensor
    eigenvalues: Tensor
    occupation: Occupation
    free_energy: float
    residual: float
    iterations: int


@dataclass(eq=False)
class _Calculation:
    """All that stays the same from step to step, and the orbitals, which do not."""

    structure: Structure
    space: TensorSpace
    functional: KohnSham
    bound: BoundKohnSham
    sampled: KPoints
    kpoints: KPoints
    smearing: Smearing
    symmetry: Symmetry
    cutoff: float
    density_cutoff: float | None
    electrons: float
    orbitals: list[Orbitals]
    bands_given: bool

    @classmethod
    def prepare(
        cls,
        structure: Structure,
        space: TensorSpace,
        functional: KohnSham,
        kpoints: KPoints | tuple[Any, Any] | None,
        smearing: Smearing | float,
        cutoff: float | None,
        density_cutoff: float | None,
        bands: int | None,
        use_symmetry: bool,
    ) -> _Calculation:
        check_is_structure(structure)
        if not isinstance(functional, KohnSham):
            raise FunctionalError(
                f"functional is {type(functional).__name__}, expected KohnSham(xc, pseudopotential)"
            )
        space.check_matches(structure)
        electrons = functional.number_of_electrons(structure)
        smearing = smearing if isinstance(smearing, Smearing) else Smearing(smearing)
        sampled, symmetry = _sampling(structure, space, kpoints, use_symmetry)
        reduced = symmetry.reduced(sampled)
        cutoff = default_cutoff(structure, functional) if cutoff is None else cutoff
        n_bands = _number_of_bands(bands, smearing, electrons, space)
        return cls(
            structure=structure,
            space=space,
            functional=functional,
            bound=functional.bind(structure, space),
            sampled=sampled,
            kpoints=reduced,
            smearing=smearing,
            symmetry=symmetry,
            cutoff=cutoff,
            density_cutoff=density_cutoff,
            electrons=electrons,
            orbitals=_free_orbitals(
                structure, space, functional, reduced, cutoff, density_cutoff, n_bands
            ),
            bands_given=bands is not None,
        )

    @property
    def weights(self) -> Tensor:
        """Of the k-points, (n_k,)."""
        return torch.tensor(self.kpoints.weights, device=self.space.device)

    @property
    def n_bands(self) -> int:
        return len(self.orbitals[0].coefficients)

    @property
    def screens(self) -> bool:
        """Whether electrons fill the cell and keep long waves of the density small."""
        dense = self.electrons / self.space.volume > _THIN
        return self.space.is_periodic and (dense or self.smearing.width > 0)

    def step(self, given: Tensor, tolerance: float, before: _Step | None) -> _Step:
        """Orbitals in the potential of a density, and the density that they have."""
        potential = self.bound.potential(given)
        eigenvalues = self._diagonalise(potential, tolerance, before)
        occupation = self.smearing.occupations(eigenvalues, self.weights, self.electrons)
        shares = self.weights[:, None] * occupation.occupations
        total = sum(o.density(share) for o, share in zip(self.orbitals, shares, strict=True))
        density = self.symmetry.symmetrised_field(torch.as_tensor(total))
        difference = self.space.integrate((density - given).abs())
        bands = float((shares * eigenvalues).sum())
        return _Step(
            given=given,
            density=density,
            potential=potential,
            eigenvalues=eigenvalues,
            occupation=occupation,
            free_energy=bands + self._rest(density, potential) + occupation.entropy_energy,
            residual=float(difference) / self.electrons,
            iterations=before.iterations + 1 if before else 1,
        )

    def _diagonalise(self, potential: Tensor, tolerance: float, before: _Step | None) -> Tensor:
        expansions = _EXPANSIONS
        if before is None:
            from_guess = tolerance <= _ORBITAL_SHARE * _GUESS_RESIDUAL
            expansions = _GUESS_EXPANSIONS if from_guess else _FIRST_EXPANSIONS
        wanted = torch.ones(len(self.orbitals), self.n_bands, dtype=torch.bool)
        wanted[:, self.n_bands - SPARE :] = False
        if before and before.eigenvalues.shape[1] == self.n_bands:
            wanted = before.occupation.occupations.abs().cpu() > _NEGLIGIBLE
        found = [
            orbitals.solve(potential, tolerance, expansions, chosen.to(potential.device))
            for orbitals, chosen in zip(self.orbitals, wanted, strict=True)
        ]
        return torch.stack([pairs.values for pairs in found])

    def _rest(self, density: Tensor, potential: Tensor) -> float:
        """What E has beside the bands, which hold the density's energy in their potential."""
        with torch.no_grad():
            energy = float(self.bound.energy(Density(self.space, values=density)))
        return energy - float(self.space.integrate(potential * density))

    def enough_bands(self, step: _Step) -> bool:
        """Whether the topmost band is as good as empty; adds bands where it is not."""
        if self.smearing.width == 0 or step.occupation.top <= HIGHEST_TOP_OCCUPATION:
            return True
        if self.bands_given:
            step.occupation.check()
        for orbitals in self.orbitals:
            orbitals.add_bands(2 + self.n_bands // 8)
        return False

    def state(self, step: _Step, tolerance: float) -> KohnShamState:
        """What the last step found, for the user."""
        converged = step.residual <= tolerance
        words = "converged" if converged else "not converged"
        message = f"{words}: residual {step.residual:.2e} after {step.iterations} steps"
        if not converged:
            message += f" (tolerance {tolerance:.1e}); {self._advice(step.occupation)}"
        else:
            step.occupation.check()
        return KohnShamState(
            structure=self.structure,
            space=self.space,
            functional=self.functional,
            bound=self.bound,
            sampled_kpoints=self.sampled,
            kpoints=self.kpoints,
            smearing=self.smearing,
            symmetry=self.symmetry,
            cutoff=self.cutoff,
            density_cutoff=self.density_cutoff,
            density=Density.from_values(self.space, step.density.clamp(min=0)),
            free_energy=step.free_energy,
            occupation=step.occupation,
            local_potential=step.potential,
            orbitals=tuple(self.orbitals),
            converged=converged,
            residual=step.residual,
            tolerance=tolerance,
            iterations=step.iterations,
            message=message,
        )

    def _advice(self, occupation: Occupation) -> str:
        if occupation.gap is not None and occupation.gap < _SMALL_GAP:
            return f"the gap is {occupation.gap:.1e} hartree: give a smearing such as 0.01 hartree"
        return "raise max_iterations, or smear more"


def _iterate(
    calculation: _Calculation,
    density: Tensor,
    residual: float,
    tolerance: float,
    max_iterations: int,
    saved: Checkpoint | None,
    report: StepReport | None,
) -> _Step:
    space = calculation.space
    screening = kerker(space) if calculation.screens else None
    mixer = AndersonMixer(lambda a, b: space.integrate(a * b), screening)
    step: _Step | None = None
    while True:
        step = calculation.step(density, _ORBITAL_SHARE * residual, step)
        residual = step.residual
        if report is not None:
            report(step.iterations, step.free_energy, residual)
        if step.iterations >= max_iterations:
            return step  # with the bands that its occupations are of
        if calculation.enough_bands(step) and residual <= tolerance:
            return step
        mixed = mixer.next(step.given, step.density - step.given).clamp(min=_FLOOR)
        density = mixed * (calculation.electrons / space.integrate(mixed))
        if saved:
            saved.write(density)


def _check(space: Any, residual_tolerance: float, max_iterations: int) -> None:
    if not isinstance(space, TensorSpace):
        raise SpaceError(
            f"orbitals live on boxes of elements, not on {space}: give "
            "space_for_cutoff(structure, cutoff) or TensorSpace.for_structure(structure)"
        )
    if not (residual_tolerance > 0 and max_iterations >= 1):
        raise ConvergenceError(
            f"residual_tolerance is {residual_tolerance}, max_iterations {max_iterations}: "
            "expected a positive number, such as 1e-6, and at least one step"
        )


def _sampling(
    structure: Structure,
    space: TensorSpace,
    kpoints: KPoints | tuple[Any, Any] | None,
    use_symmetry: bool,
) -> tuple[KPoints, Symmetry]:
    """The k-points asked for, and the operations that keep them."""
    sampled = as_kpoints(kpoints)
    sampled.check_matches(space.periodic)
    symmetry = Symmetry.of(structure, space) if use_symmetry else Symmetry()
    return sampled, symmetry.keeping(sampled)


def _number_of_bands(
    asked_for: int | None, smearing: Smearing, electrons: float, space: TensorSpace
) -> int:
    """Filled bands and empty ones; these are counted without the vacuum around a metal."""
    filled = math.ceil(electrons / 2 - 1e-9)
    if asked_for is None:
        occupied = min(space.volume, electrons / _THINNEST_METAL)
        return filled + smearing.empty_bands(electrons, occupied)
    if asked_for < filled or asked_for != int(asked_for):
        raise SamplingError(
            f"{asked_for} bands cannot hold {electrons:g} electrons: give bands={filled} or more, "
            "or none, so that they are chosen"
        )
    return asked_for


def _free_orbitals(
    structure: Structure,
    space: TensorSpace,
    functional: KohnSham,
    kpoints: KPoints,
    cutoff: float,
    density_cutoff: float | None,
    n_bands: int,
) -> list[Orbitals]:
    grid = None
    if density_cutoff is not None:
        grid = ProductGrid.holding(space, density_cutoff, cutoff)
    result = []
    for point in kpoints.points:
        basis = ModeBasis.below(space, cutoff, point, grid)
        if basis.n_modes < n_bands:
            raise SamplingError(
                f"{n_bands} bands, but only {basis.n_modes} modes below the cutoff of "
                f"{cutoff:.4g} hartree: raise the cutoff, or smear less (hartree, not eV)"
            )
        projectors = bind_projectors(functional.pseudopotentials, structure, basis)
        result.append(Orbitals.free(basis, projectors, n_bands))
    return result
