"""The orbital-free energy functional: a choice of terms, bound to a structure and a space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from fedens.data.density import Density
from fedens.energy.electrostatics import (
    DEFAULT_GAUSSIAN_WIDTH,
    Ions,
    ion_energy,
    number_of_electrons,
    place_ions,
)
from fedens.energy.kinetic import ThomasFermi, VonWeizsaecker
from fedens.energy.minimise import Hessian, descend_on_sphere
from fedens.energy.nonlocal_kinetic import WANG_TETER, NonlocalKinetic
from fedens.energy.pseudopotential import LocalPseudopotential, pseudopotential_from_description
from fedens.energy.terms import DensityTerm, LocalTerm, local_energy_density
from fedens.energy.xc import exchange_correlation
from fedens.errors import FunctionalError
from fedens.fem.simplex import SimplexSpace
from fedens.fem.space import FunctionSpace
from fedens.fem.tensor import TensorSpace
from fedens.structure import Structure

#: Exponents (alpha, beta) of the non-local kinetic energies, by name.
_NONLOCAL_EXPONENTS = {
    "wt": (WANG_TETER, WANG_TETER),
    "wgc": ((5 + 5**0.5) / 6, (5 - 5**0.5) / 6),
}


@dataclass(frozen=True, eq=False)
class EnergyFunctional:
    """E[n; R] of orbital-free density-functional theory; make one with :meth:`orbital_free`.

    Attributes:
        kinetic: ``tfvw``, ``wt`` or ``wgc``. vw_weight: lambda of the von Weizsaecker term.
        xc: name of the exchange-correlation functional.
        pseudopotentials: by chemical symbol; a single object serves every element.
        widths: widths of the ions' Gaussian charges by symbol, bohr.
        mean_density: n0 of the non-local kernels where N/V is not to be used, electron/bohr^3.
    """

    kinetic: str
    vw_weight: float
    xc: str
    pseudopotentials: Mapping[str, LocalPseudopotential]
    widths: Mapping[str, float]
    mean_density: float | None = None
    xc_term: DensityTerm = field(repr=False, kw_only=True)

    @classmethod
    def orbital_free(
        cls,
        kinetic: str = "tfvw",
        vw_weight: float = 1.0,
        xc: str = "lda_pz",
        pseudopotential: LocalPseudopotential | Mapping[str, LocalPseudopotential] | None = None,
        gaussian_width: float | Mapping[str, float] = DEFAULT_GAUSSIAN_WIDTH,
        mean_density: float | None = None,
    ) -> EnergyFunctional:
        """Thomas-Fermi + lambda von Weizsaecker (+ non-local kinetic) + xc + electrostatics.

        Args:
            kinetic: ``tfvw``; ``wt`` (Wang-Teter) or ``wgc`` (density-independent
                Wang-Govind-Carter), which contain the whole von Weizsaecker term.
            vw_weight: lambda; must be 1 for ``wt`` and ``wgc``.
            xc: ``lda_pz``, ``lda_x``, ``lda_pw``, ``pbe`` or any LDA or GGA name of libxc.
            pseudopotential: one object for all atoms or ``{symbol: object}``.
            gaussian_width: width of the ions' Gaussian charges, bohr, or ``{symbol: width}``.
            mean_density: n0 of the non-local kernel, electron/bohr^3; default N/V of the cell.

        Raises:
            FunctionalError: a combination that is not defined.
        """
        if kinetic != "tfvw" and kinetic not in _NONLOCAL_EXPONENTS:
            raise FunctionalError(f"kinetic is {kinetic!r}; expected 'tfvw', 'wt' or 'wgc'")
        if kinetic != "tfvw" and vw_weight != 1.0:
            raise FunctionalError(
                f"vw_weight is {vw_weight} with kinetic={kinetic!r}: that kernel contains the "
                "whole von Weizsaecker term; use vw_weight=1"
            )
        if not vw_weight > 0:
            raise FunctionalError(f"vw_weight is {vw_weight}; must be positive")
        if pseudopotential is None:
            raise FunctionalError(
                "no pseudopotential given: pass pseudopotential=GTHLocal(...) or "
                "{'Al': GTHLocal(...)}"
            )
        return cls(
            kinetic,
            float(vw_weight),
            xc,
            _by_symbol(pseudopotential),
            _by_symbol(gaussian_width),
            mean_density,
            xc_term=exchange_correlation(xc),
        )

    def describe(self) -> dict[str, Any]:
        """Everything that defines the functional, as a JSON-able dict."""
        return {
            "kinetic": self.kinetic,
            "vw_weight": self.vw_weight,
            "xc": self.xc,
            "pseudopotentials": {k: p.describe() for k, p in self.pseudopotentials.items()},
            "gaussian_widths_bohr": dict(self.widths),
            "mean_density": self.mean_density,
        }

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> EnergyFunctional:
        """The functional of :meth:`describe`."""
        pseudopotentials = {
            symbol: pseudopotential_from_description(p)
            for symbol, p in description["pseudopotentials"].items()
        }
        return cls.orbital_free(
            description["kinetic"],
            description["vw_weight"],
            description["xc"],
            _by_symbol(pseudopotentials),
            _by_symbol(description["gaussian_widths_bohr"]),
            description["mean_density"],
        )

    def number_of_electrons(self, structure: Structure) -> float:
        """Electrons the functional puts around a structure's ions."""
        return number_of_electrons(structure, self.pseudopotentials)

    def ion_energy(self, structure: Structure, positions: Tensor | None = None) -> Tensor:
        """E_ion(R), hartree: the part of the energy that no energy density carries.

        Differentiable in positions (n_atoms, 3), bohr, which replace the structure's own.
        """
        if positions is None:
            positions = torch.tensor(structure.positions)
        return ion_energy(structure, self.pseudopotentials, self.widths, positions)

    def bind(
        self, structure: Structure, space: FunctionSpace, positions: Tensor | None = None
    ) -> BoundFunctional:
        """The functional for one structure on one space, ready to be evaluated.

        ``positions`` (n_atoms, 3) overrides the structure's, to differentiate; so may the
        space be a scaled one.

        Raises:
            FunctionalError: a non-local kernel without a mean density, a charged periodic cell.
            PseudopotentialError, SpaceError: see :func:`place_ions`.
        """
        electrons = self.number_of_electrons(structure)
        if electrons <= 0:
            raise FunctionalError(f"{structure.formula} would have {electrons} electrons")
        if structure.periodic and structure.charge:
            raise FunctionalError(
                f"charge is {structure.charge}: charged periodic cells are not supported"
            )
        ions = place_ions(structure, space, self.pseudopotentials, self.widths, positions)
        terms = self._density_terms(space, electrons)
        return BoundFunctional(self, space, ions, terms, electrons)

    def _density_terms(self, space: FunctionSpace, electrons: float) -> list[DensityTerm]:
        terms: list[DensityTerm] = [ThomasFermi(), VonWeizsaecker(self.vw_weight)]
        if self.kinetic in _NONLOCAL_EXPONENTS:
            if not space.is_periodic:
                raise FunctionalError(
                    f"kinetic={self.kinetic!r} needs an average density and is not defined in "
                    "vacuum; use kinetic='tfvw' for isolated systems"
                )
            mean = self.mean_density or electrons / space.weights.sum()
            terms.append(NonlocalKinetic(mean, *_NONLOCAL_EXPONENTS[self.kinetic]))
        return [*terms, self.xc_term]


#: -2 mu of an isolated piece of metal, hartree; halves the evaluations against the uniform gas.
_VACUUM_STIFFNESS = 0.35


class _EveryElement(Mapping[str, Any]):
    """One value for whichever element is asked for; described under ``*``."""

    def __init__(self, value: Any):
        self._value = value

    def __getitem__(self, symbol: str) -> Any:
        return self._value

    def __contains__(self, symbol: object) -> bool:
        return True

    def __iter__(self) -> Any:
        return iter(["*"])

    def __len__(self) -> int:
        return 1


def _by_symbol(value: Any) -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        return _EveryElement(value["*"]) if set(value) == {"*"} else dict(value)
    return _EveryElement(value)


class BoundFunctional:
    """An energy functional with its ions in place on a space.

    Attributes:
        functional, space, ions, terms: what it is made of.
        electrons: number of electrons N. xc_term: the exchange-correlation term.
    """

    def __init__(
        self,
        functional: EnergyFunctional,
        space: FunctionSpace,
        ions: Ions,
        terms: list[DensityTerm],
        electrons: float,
    ):
        self.functional, self.ions = functional, ions
        self.space: Any = space
        self.terms, self.electrons = terms, electrons
        self.xc_term = terms[-1]
        self._local = [term for term in terms if isinstance(term, LocalTerm)]
        self._others = [term for term in terms if not isinstance(term, LocalTerm)]

    def energy(self, density: Density) -> Tensor:
        """Total energy, hartree; differentiable."""
        local = self.space.integrate(
            local_energy_density(self._local, density.values, density.cube_root)
        )
        others = sum((term.energy(density) for term in self._others), local)
        return others + self.ions.energy_with(density)

    def energies(self, density: Density) -> dict[str, float]:
        """Parts of the energy by term, ``electrostatic`` (ions included) and ``total``; hartree."""
        parts = {term.name: float(term.energy(density)) for term in self.terms}
        parts["electrostatic"] = float(self.ions.energy_with(density))
        parts["total"] = sum(parts.values())
        return parts

    def energy_densities(self, density: Density) -> dict[str, Tensor]:
        """``kinetic``, ``xc`` and ``electrostatic``, each (n_points,), hartree/bohr^3.

        Their integrals and the ions' own energy add up to the total energy.
        """
        nothing = torch.zeros_like(density.values)
        result = {"kinetic": nothing, "xc": nothing}
        for term in self.terms:
            result[term.group] = result[term.group] + term.energy_density(density)
        return {**result, "electrostatic": self.ions.energy_density(density)}

    @torch.enable_grad()
    def energy_and_gradient(self, root_coefficients: Tensor) -> tuple[float, Tensor]:
        """Total energy (hartree) and its derivative in the root density's coefficients."""
        c = root_coefficients.detach().requires_grad_(True)
        energy = self.energy(Density.from_root(self.space, c))
        (gradient,) = torch.autograd.grad(energy, c)
        return float(energy.detach()), gradient

    def refined(self, density: Density, steps: int) -> Density:
        """The density after some quasi-Newton steps towards the minimum; N electrons.

        No steps leave it as it is.

        Differentiable in whatever density and ions depend on, so that forces stay exact.

        Raises:
            FunctionalError: where derivatives are wanted and a term has no second one.
            ConvergenceError: when the energy rises above the start's.
        """
        if not steps:
            return density
        refined = descend_on_sphere(
            self._recorded_gradient,
            density.root_coefficients,
            self.electrons,
            self.hessian,
            steps,
            self.space,
        )
        return Density.from_root(self.space, refined)

    def stepped(self, density: Density, lengths: Sequence[float]) -> Density:
        """The density after preconditioned gradient steps of given lengths; N electrons.

        Unlike quasi-Newton steps they know nothing of the system as a whole: far atoms do not
        change what happens here. Differentiable as :meth:`refined`.
        """
        density = density.normalised(self.electrons)
        for length in lengths:
            c = density.root_coefficients
            _, gradient = self._recorded_gradient(c)
            residual = gradient - torch.dot(gradient, c) / self.electrons * c
            c = c - length * residual / self.hessian_diagonal
            density = Density.from_root(self.space, c).normalised(self.electrons)
        return density

    def _recorded_gradient(self, root_coefficients: Tensor) -> tuple[Tensor, Tensor]:
        """Energy and gradient, with their history where something is being differentiated."""
        moves = root_coefficients.requires_grad or self.ions.energy.requires_grad
        recorded = torch.is_grad_enabled() and moves
        if recorded and not self.twice_differentiable:
            raise FunctionalError(
                f"steps of the minimisation cannot be differentiated: {self.functional.xc!r} has "
                "no second derivative here; use no refinement, or an LDA"
            )
        c = root_coefficients
        c = c if c.requires_grad else c.detach().requires_grad_(True)
        with torch.enable_grad():
            energy = self.energy(Density.from_root(self.space, c))
            (gradient,) = torch.autograd.grad(energy, c, create_graph=recorded)
        return energy, gradient

    @property
    def twice_differentiable(self) -> bool:
        """Whether the derivative of the energy has a derivative itself."""
        return all(term.twice_differentiable for term in self.terms)

    @property
    def mean_density(self) -> Tensor:
        """Electrons over the volume, electron/bohr^3; differentiable in the space's scaling."""
        return self.electrons / self.space.weights.sum()

    @cached_property
    def hessian(self) -> Hessian:
        """Estimate of the energy's second derivative in u's coefficients: the preconditioner.

        :attr:`hessian_diagonal`, or where that basis is not at hand a multigrid cycle for it.
        """
        if isinstance(self.space, SimplexSpace):
            weight = self.functional.vw_weight
            return self.space.helmholtz_preconditioner(weight, _VACUUM_STIFFNESS)
        return self.hessian_diagonal

    @cached_property
    def hessian_diagonal(self) -> Tensor:
        """Estimate of the energy's second derivative in u, (n_coefficients,), hartree.

        A preconditioner in the basis of the Laplacian's eigenmodes. In periodic cells that of the
        uniform gas of the mean density n0: 4 n0 times the response of every term and of the
        Coulomb interaction, kept positive where local terms are not. In vacuum that of the
        density's tail, lambda q^2 - 2 mu, with a chemical potential typical of metals.
        """
        assert isinstance(self.space, TensorSpace)
        q2 = self.space.laplacian_eigenvalues
        if not self.space.is_periodic:
            return self.functional.vw_weight * q2 + _VACUUM_STIFFNESS
        q2 = torch.cat([q2[1:].min()[None], q2[1:]])
        response = [term.uniform_response(q2, self.mean_density) for term in self.terms]
        return (4 * self.mean_density * sum(response, 4 * torch.pi / q2)).clamp(min=0.1)
