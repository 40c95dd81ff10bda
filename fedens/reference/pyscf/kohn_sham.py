"""Kohn-Sham reference of molecules by PySCF: energy, forces, and fields at any points.

The Gaussian basis moves with the nuclei, so that the force, the derivative of the energy, is not
that of Hellmann and Feynman: on heavy nuclei they differ by tenths of hartree/bohr (Pulay, Mol.
Phys. 17, 197 (1969)). Both are given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedens.data.sample import Sample
from fedens.errors import ConvergenceError, PseudopotentialError, SpaceError
from fedens.fem.simplex import SimplexSpace
from fedens.fem.space import FunctionSpace
from fedens.reference.labeller import StepReport
from fedens.reference.pyscf.molecule import build_mean_field, build_molecule
from fedens.reference.pyscf.orbital_fields import hartree_potential, ionic_potential, local_fields
from fedens.structure import Structure

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class PySCFState:
    """What :func:`solve_with_pyscf` found; Hartree atomic units.

    Attributes:
        structure: the molecule. xc, basis, pseudopotential: names, the level of theory.
        mean_field: PySCF's own object.
    """

    structure: Structure
    xc: str
    basis: str
    pseudopotential: str | None
    mean_field: Any

    @property
    def converged(self) -> bool:
        """Whether the self-consistent field converged."""
        return bool(self.mean_field.converged)

    @property
    def cycles(self) -> int:
        """Cycles that the self-consistent field took."""
        return int(self.mean_field.cycles)

    @property
    def energy(self) -> float:
        """Total energy, hartree."""
        return float(self.mean_field.e_tot)

    @cached_property
    def density_matrix(self) -> Array:
        """Of both spins together, (n, n)."""
        matrix = np.asarray(self.spin_density_matrix)
        return matrix if matrix.ndim == 2 else matrix.sum(axis=0)

    @cached_property
    def spin_density_matrix(self) -> Array:
        """What PySCF starts from: (n, n), or (2, n, n) where there are unpaired electrons."""
        return np.array(self.mean_field.make_rdm1())

    @cached_property
    def energies(self) -> dict[str, float]:
        """Parts of the energy, hartree.

        ``kinetic``, ``nuclear_attraction``, ``hartree``, ``xc``, ``nuclear_repulsion`` and their
        ``total``; with a pseudopotential also ``projectors``, its non-local part.
        """
        molecule, matrix = self.mean_field.mol, self.density_matrix
        hartree, xc = (self.mean_field.scf_summary[name] for name in ("coul", "exc"))
        external = matrix.ravel() @ self.mean_field.get_hcore().ravel()
        kinetic = matrix.ravel() @ molecule.intor("int1e_kin").ravel()
        parts = {"kinetic": kinetic, "hartree": hartree, "xc": xc}
        if self.pseudopotential is not None:
            from pyscf.scf.atom_hf_pp import get_pp_nl

            parts["projectors"] = matrix.ravel() @ get_pp_nl(molecule).ravel()
        parts["nuclear_attraction"] = external - kinetic - parts.get("projectors", 0.0)
        parts["nuclear_repulsion"] = molecule.energy_nuc()
        parts["total"] = self.energy
        return {name: float(np.real(part)) for name, part in parts.items()}

    @cached_property
    def forces(self) -> Array:
        """Minus the derivative of the energy, (n_atoms, 3), hartree/bohr.

        Raises:
            PseudopotentialError: for pseudopotentials without projectors, as of hydrogen alone,
                which PySCF cannot differentiate.
        """
        if self._lacks_projectors:
            raise PseudopotentialError(
                f"PySCF has no forces for {self.structure.formula}, as {self.pseudopotential} has "
                "no projectors there: use an all-electron basis, or differences of energies"
            )
        gradients = self.mean_field.nuc_grad_method()
        gradients.grid_response = True  # the grid moves with the nuclei
        gradients.verbose = 0
        return -np.asarray(gradients.kernel())

    @property
    def _lacks_projectors(self) -> bool:
        potentials = self.mean_field.mol._pseudo
        return self.pseudopotential is not None and not any(p[4] for p in potentials.values())

    @cached_property
    def hellmann_feynman_forces(self) -> Array:
        """Electrostatic force of the density on each nucleus, (n_atoms, 3), hartree/bohr.

        Raises:
            PseudopotentialError: with a pseudopotential.
        """
        if self.pseudopotential is not None:
            raise PseudopotentialError(
                "the electrostatic force on nuclei needs all electrons: pass pseudopotential=None"
            )
        molecule = self.mean_field.mol
        forces = -self.mean_field.nuc_grad_method().grad_nuc()
        for atom, charge in enumerate(molecule.atom_charges()):
            with molecule.with_rinv_at_nucleus(atom):
                integrals = molecule.intor("int1e_iprinv", comp=3)
            forces[atom] += 2 * charge * np.einsum("xij,ij->x", integrals, self.density_matrix)
        return forces

    @cached_property
    def dipole(self) -> Array:
        """Dipole moment of nuclei and electrons, (3,), elementary charge x bohr."""
        moment = self.mean_field.dip_moment(unit="AU", dm=self.spin_density_matrix, verbose=0)
        return np.asarray(moment)

    def fields(
        self, points: ArrayLike, gradient: bool = False, potential: bool = False
    ) -> dict[str, Array]:
        """Fields at points (n_points, 3) in bohr, each (n_points,).

        ``density``, ``kinetic`` (the positive tau), ``xc``; with ``gradient`` the density's
        ``gradient_x``, ``gradient_y``, ``gradient_z``; with ``potential`` that of electrons and
        ions, ``potential``, hartree, as an electron feels it, by exact integrals: many times
        slower than :func:`fedens.atoms.energy_from_fields.electrostatic_potential`.
        """
        points, _ = _points_and_weights(points)
        molecule, matrix = self.mean_field.mol, self.spin_density_matrix
        fields = local_fields(molecule, matrix, self.mean_field.xc, points, gradient)
        if potential:
            electrons = hartree_potential(molecule, self.density_matrix, points)
            fields["potential"] = electrons + ionic_potential(molecule, points)
        return fields

    def to_sample(
        self, space: FunctionSpace | ArrayLike, gradient: bool = False, potential: bool = False
    ) -> Sample:
        """Fields, energies, forces and provenance as a :class:`Sample`.

        The provenance also holds the dipole and, for all electrons, the Hellmann-Feynman forces.

        Args:
            space: anything with ``points`` and ``weights``, or bare points (n_points, 3), whose
                weights are then not a number.
        """
        points, weights = _points_and_weights(space)
        return Sample(
            structure=self.structure,
            points=points,
            weights=weights,
            fields=self.fields(points, gradient, potential),
            energy=self.energy,
            energies=self.energies,
            ion_energy=self.energies["nuclear_repulsion"],
            forces=None if self._lacks_projectors else self.forces,
            converged=self.converged,
            provenance=self._provenance(space),
        )

    def _provenance(self, space: FunctionSpace | ArrayLike) -> dict[str, Any]:
        from pyscf import __version__

        result: dict[str, Any] = {
            "code": f"PySCF {__version__}",
            "functional": {
                "method": "Kohn-Sham",
                "xc": self.xc,
                "basis": self.basis,
                "pseudopotential": self.pseudopotential,
            },
            "grid_level": self.mean_field.grids.level,
            "conv_tol_hartree": self.mean_field.conv_tol,
            "dipole_electron_bohr": self.dipole.tolist(),
        }
        if self.pseudopotential is None:
            forces = self.hellmann_feynman_forces.tolist()
            result["hellmann_feynman_forces_hartree_per_bohr"] = forces
        if hasattr(space, "describe"):
            result["space"] = space.describe()
        return result


def solve_with_pyscf(
    structure: Structure,
    xc: str = "pbe",
    basis: str = "def2-svp",
    pseudopotential: str | None = None,
    conv_tol: float = 1e-10,
    grid_level: int = 4,
    max_cycles: int = 100,
    require_convergence: bool = True,
    density_matrix: ArrayLike | None = None,
) -> PySCFState:
    """Self-consistent Kohn-Sham orbitals of a molecule; spin-polarised where its spin is not 0.

    Args:
        xc: LDA, GGA or meta-GGA by PySCF's name. basis: name of a Gaussian basis set.
        pseudopotential: name of a GTH set such as ``gth-pbe``; None for all electrons.
        conv_tol: change of the energy to stop at, hartree.
        grid_level: of PySCF's integration grid, 0 to 9.
        require_convergence: raise when it is not met; otherwise the result says so.
        density_matrix: to start from; PySCF's superposed atoms (``minao``) by default.

    Raises:
        ConvergenceError: not converged (the unfinished :class:`PySCFState` is in ``.result``).
        StructureError, FunctionalError, PseudopotentialError: see
            :func:`fedens.reference.pyscf.molecule.build_molecule`.
    """
    from pyscf import dft

    molecule = build_molecule(structure, basis, pseudopotential)
    mean_field = build_mean_field(dft.UKS if structure.spin else dft.RKS, molecule, xc)
    mean_field.conv_tol = conv_tol
    mean_field.max_cycle = max_cycles
    mean_field.grids.level = grid_level
    mean_field.kernel(dm0=None if density_matrix is None else np.asarray(density_matrix))
    state = PySCFState(structure, xc, basis, pseudopotential, mean_field)
    if require_convergence and not state.converged:
        raise ConvergenceError(
            f"{structure.formula}: no self-consistent field within {conv_tol:g} hartree after "
            f"{max_cycles} cycles; try more, another spin or a looser conv_tol",
            state,
        )
    return state


def kohn_sham(
    structure: Structure,
    space: FunctionSpace | ArrayLike,
    xc: str = "pbe",
    basis: str = "def2-svp",
    pseudopotential: str | None = None,
    *,
    gradient: bool = False,
    potential: bool = False,
    **settings: Any,
) -> Sample:
    """Kohn-Sham fields of a molecule at the points of a space, or at bare points (n_points, 3).

    The arguments and errors of :func:`solve_with_pyscf` and :meth:`PySCFState.to_sample`.
    """
    _points_and_weights(space)
    if hasattr(space, "check_matches"):
        space.check_matches(structure)
    state = solve_with_pyscf(structure, xc, basis, pseudopotential, **settings)
    return state.to_sample(space, gradient, potential)


@dataclass(frozen=True)
class PySCFLabeller:
    """Kohn-Sham samples of molecules on tetrahedra; a :class:`fedens.reference.labeller.Labeller`.

    Attributes:
        xc, basis, grid_level, conv_tol: level of theory, see :func:`solve_with_pyscf`.
        finest: cells at a nucleus of charge 1, bohr; divided by the charge.
        growth, margin, order: see :meth:`SimplexSpace.for_structure`.
    """

    xc: str
    basis: str
    grid_level: int
    conv_tol: float
    finest: float
    growth: float
    margin: float
    order: int

    def __call__(
        self,
        structure: Structure,
        report: StepReport | None = None,
        checkpoint: Path | None = None,
    ) -> Sample:
        """The fields of all electrons; the errors of :func:`kohn_sham`."""
        del report, checkpoint  # PySCF has its own
        nuclei = zip(structure.symbols, structure.numbers, strict=True)
        finest = {symbol: self.finest / charge for symbol, charge in nuclei}
        space = SimplexSpace.for_structure(structure, finest, self.growth, self.margin, self.order)
        return kohn_sham(
            structure,
            space,
            self.xc,
            self.basis,
            grid_level=self.grid_level,
            conv_tol=self.conv_tol,
        )

    def describe(self) -> dict[str, Any]:
        """Kind and attributes."""
        return {"kind": "pyscf", **asdict(self)}

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> Self:
        """The labeller of :meth:`describe`."""
        return cls(**description)


def _points_and_weights(space: FunctionSpace | ArrayLike) -> tuple[Array, Array]:
    """Points (n, 3) and weights (n,) of a space; weights of bare points are not a number.

    Raises:
        SpaceError: other shapes, or points that are not finite.
    """
    points = np.asarray(getattr(space, "points", space), dtype=np.float64)
    unknown = np.full(points.shape[:1], np.nan)
    weights = np.asarray(getattr(space, "weights", unknown), dtype=np.float64)
    fits = points.ndim == 2 and len(points) > 0 and points.shape == (len(weights), 3)
    if not fits or not np.isfinite(points).all():
        raise SpaceError(
            f"points have shape {points.shape}, weights {weights.shape}: expected a space, or "
            "finite points (n_points, 3) in bohr"
        )
    return points, weights
