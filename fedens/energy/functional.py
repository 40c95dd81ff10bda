"""The energy functional: a list of terms, bound to a structure and a space."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor

from fedens.data.density import Density
from fedens.energy.electrostatics import DEFAULT_GAUSSIAN_WIDTH, Electrostatics, Ions
from fedens.energy.kinetic import LuoKarasievTrickey, ThomasFermi, VonWeizsaecker
from fedens.energy.minimise import Hessian, descend_on_sphere
from fedens.energy.nonlocal_kinetic import WANG_TETER, NonlocalKinetic
from fedens.energy.pseudopotential import LocalPseudopotential
from fedens.energy.terms import (
    DensityTerm,
    EnergyTerm,
    LocalTerm,
    local_energy_density,
    term_from_description,
)
from fedens.energy.thermal_kinetic import ThermalThomasFermi
from fedens.energy.xc import exchange_correlation, warn_of_mixture
from fedens.errors import FunctionalError
from fedens.fem.space import FunctionSpace
from fedens.fields import ENERGY_DENSITIES
from fedens.structure import Structure

#: Exponents (alpha, beta) of the non-local kinetic energies, by name.
_NONLOCAL_EXPONENTS = {
    "wt": (WANG_TETER, WANG_TETER),
    "wgc": ((5 + 5**0.5) / 6, (5 - 5**0.5) / 6),
}

_Term = TypeVar("_Term", bound=EnergyTerm)


class EnergyFunctional:
    """E[n; R] of orbital-free density-functional theory: a sum of terms.

    Args:
        terms: any, with different names. One is a :class:`VonWeizsaecker`, one an
            :class:`Electrostatics`, and one is named ``xc``. :meth:`orbital_free` makes the usual.

    Attributes:
        terms, electrostatics, xc_term: all of them, and those two.
        pseudopotentials, widths: of the ions by chemical symbol; widths in bohr.
        vw_weight: lambda of the von Weizsaecker term.
        xc: name of the exchange-correlation functional.

    Raises:
        FunctionalError: for other lists of terms, or a pseudopotential with projectors.

    Warns:
        MixtureWarning: a pseudopotential was made for another kind of functional.
    """

    def __init__(self, terms: Iterable[EnergyTerm]):
        self.terms = tuple(terms)
        names = [term.name for term in self.terms]
        for term in self.terms:
            if term.group not in ENERGY_DENSITIES or names.count(term.name) > 1:
                raise FunctionalError(
                    f"term {term.name!r} of group {term.group!r}: expected terms with different "
                    f"names, of the groups {', '.join(ENERGY_DENSITIES)}"
                )
        self.electrostatics = _only([t for t in self.terms if isinstance(t, Electrostatics)])
        self.pseudopotentials = self.electrostatics.pseudopotentials
        self.widths = self.electrostatics.widths
        _refuse_projectors(self.pseudopotentials)
        self.vw_weight = _only([t for t in self.terms if isinstance(t, VonWeizsaecker)]).weight
        density_terms = [t for t in self.terms if isinstance(t, DensityTerm)]
        self.xc_term = _only([t for t in density_terms if t.name == "xc"])
        self.xc = str(getattr(self.xc_term, "code", self.xc_term))
        warn_of_mixture(self.xc_term, self.pseudopotentials)
        self._options: dict[str, Any] | None = None

    @classmethod
    def orbital_free(
        cls,
        kinetic: str = "tfvw",
        vw_weight: float = 1.0,
        xc: str = "lda_pz",
        pseudopotential: LocalPseudopotential | Mapping[str, LocalPseudopotential] | None = None,
        gaussian_width: float | Mapping[str, float] = DEFAULT_GAUSSIAN_WIDTH,
        mean_density: float | None = None,
        temperature: float = 0.0,
    ) -> EnergyFunctional:
        """Thomas-Fermi + lambda von Weizsaecker (+ non-local kinetic) + xc + electrostatics.

        Args:
            kinetic: ``tfvw``; ``wt`` (Wang-Teter) or ``wgc`` (density-independent
                Wang-Govind-Carter); ``lkt`` (Luo-Karasiev-Trickey, in place of Thomas-Fermi).
                The last three contain the whole von Weizsaecker term.
            vw_weight: lambda; must be 1 for all but ``tfvw``.
            xc: ``lda_pz``, ``lda_x``, ``lda_pw``, ``lda_teter``, ``pbe`` or any LDA or GGA name of
                libxc.
            pseudopotential: one object for all atoms or ``{symbol: object}``.
            gaussian_width: width of the ions' Gaussian charges, bohr, or ``{symbol: width}``.
            mean_density: n0 of the non-local kernel, electron/bohr^3; default N/V of the cell.
            temperature: k_B T of the electrons, hartree: :class:`.ThermalThomasFermi` where it is
                not 0, so that the energy is a free energy.

        Raises:
            FunctionalError: a combination that is not defined.
        """
        _check_kinetic(kinetic, vw_weight)
        if pseudopotential is None:
            raise FunctionalError(
                "no pseudopotential given: pass pseudopotential=GTHLocal(...) or "
                "{'Al': GTHLocal(...)}"
            )
        local = LuoKarasievTrickey() if kinetic == "lkt" else ThomasFermi()
        terms: list[EnergyTerm] = [local, VonWeizsaecker(float(vw_weight))]
        if kinetic in _NONLOCAL_EXPONENTS:
            terms.append(NonlocalKinetic(mean_density, *_NONLOCAL_EXPONENTS[kinetic]))
        if temperature:
            terms.append(ThermalThomasFermi(temperature))
        ions = Electrostatics(pseudopotential, gaussian_width)
        functional = cls([*terms, exchange_correlation(xc), ions])
        functional._options = {
            "kinetic": kinetic,
            "vw_weight": float(vw_weight),
            "xc": xc,
            "pseudopotentials": ions.describe()["pseudopotentials"],
            "gaussian_widths_bohr": dict(ions.widths),
            "mean_density": mean_density,
            **({"temperature": temperature} if temperature else {}),
        }
        return functional

    @property
    def kinetic(self) -> str:
        """What :meth:`orbital_free` was asked for; else names of the kinetic terms."""
        names = [term.name for term in self.terms if term.group == "kinetic"]
        return str(self._options["kinetic"]) if self._options else ", ".join(names)

    def describe(self) -> dict[str, Any]:
        """Everything that defines the functional, as a JSON-able dict.

        The arguments of :meth:`orbital_free`, or the ``terms`` if it is not made by that.

        Raises:
            FunctionalError: a term that cannot be described.
        """
        if self._options is None:
            return {"terms": [term.describe() for term in self.terms]}
        return dict(self._options)

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> EnergyFunctional:
        """The functional of :meth:`describe`.

        Raises:
            FunctionalError: a term of a kind that is not known.
        """
        if "terms" in description:
            return cls([term_from_description(term) for term in description["terms"]])
        ions = Electrostatics.from_description(description)
        return cls.orbital_free(
            description["kinetic"],
            description["vw_weight"],
            description["xc"],
            ions.pseudopotentials,
            ions.widths,
            description["mean_density"],
            description.get("temperature", 0.0),
        )

    def number_of_electrons(self, structure: Structure) -> float:
        """Electrons the functional puts around a structure's ions."""
        return self.electrostatics.number_of_electrons(structure)

    def bind(
        self, structure: Structure, space: FunctionSpace, positions: Tensor | None = None
    ) -> BoundFunctional:
        """The functional for one structure on one space, ready to be evaluated.

        ``positions`` (n_atoms, 3) overrides the structure's, to differentiate; so may the
        space be a scaled one.

        Raises:
            FunctionalError: a non-local kernel without a mean density, a charged periodic cell.
            PseudopotentialError, SpaceError: see :meth:`.Electrostatics.bind`.
        """
        electrons = self.number_of_electrons(structure)
        if electrons <= 0:
            raise FunctionalError(f"{structure.formula} would have {electrons} electrons")
        if structure.periodic and structure.charge:
            raise FunctionalError(
                f"charge is {structure.charge}: charged periodic cells are not supported"
            )
        terms = [term.bind(structure, space, electrons, positions) for term in self.terms]
        return BoundFunctional(self, space, terms, electrons)


def _check_kinetic(kinetic: str, vw_weight: float) -> None:
    if kinetic not in ("tfvw", "lkt", *_NONLOCAL_EXPONENTS):
        raise FunctionalError(f"kinetic is {kinetic!r}; expected 'tfvw', 'wt', 'wgc' or 'lkt'")
    if kinetic != "tfvw" and vw_weight != 1.0:
        raise FunctionalError(
            f"vw_weight is {vw_weight} with kinetic={kinetic!r}: that functional contains the "
            "whole von Weizsaecker term; use vw_weight=1"
        )
    if not vw_weight > 0:
        raise FunctionalError(f"vw_weight is {vw_weight}; must be positive")


def _only(terms: list[_Term]) -> _Term:
    if len(terms) != 1:
        raise FunctionalError(
            f"found {[term.name for term in terms]}: a functional has exactly one Electrostatics, "
            "one VonWeizsaecker and one density term named 'xc'"
        )
    return terms[0]


def _refuse_projectors(pseudopotentials: Mapping[str, LocalPseudopotential]) -> None:
    for symbol, one in pseudopotentials.items():
        if one.projectors:
            orders = ", ".join(str(channel.order) for channel in one.projectors)
            raise FunctionalError(
                f"the pseudopotential of {symbol} has projectors (l = {orders}), which act on "
                "orbitals: a density alone needs a local one, such as a table of BLPS (Recpot) or "
                "the local part of this one, pseudopotential.local"
            )


#: -2 mu of an isolated piece of metal, hartree; halves the evaluations against the uniform gas.
_VACUUM_STIFFNESS = 0.35


@dataclass(eq=False)
class BoundFunctional:
    """An energy functional with its ions in place on a space.

    Attributes:
        functional, space, terms: what it is made of. ions: the electrostatic term.
        electrons: number of electrons N.
    """

    functional: EnergyFunctional
    space: FunctionSpace
    terms: Sequence[DensityTerm]
    electrons: float

    def __post_init__(self) -> None:
        self.ions = next(term for term in self.terms if isinstance(term, Ions))
        self._local = [term for term in self.terms if isinstance(term, LocalTerm)]
        self._others = [term for term in self.terms if not isinstance(term, LocalTerm)]

    def energy(self, density: Density) -> Tensor:
        """Total energy, hartree; differentiable."""
        local = self.space.integrate(
            local_energy_density(self._local, density.values, density.cube_root)
        )
        return sum((term.energy(density) for term in self._others), local)

    def energies(self, density: Density) -> dict[str, float]:
        """Parts of the energy by term, ``electrostatic`` (ions included) and ``total``; hartree."""
        parts = {term.name: float(term.energy(density)) for term in self.terms}
        parts["total"] = sum(parts.values())
        return parts

    def energy_densities(self, density: Density) -> dict[str, Tensor]:
        """``kinetic``, ``xc`` and ``electrostatic``, each (n_points,), hartree/bohr^3.

        Their integrals and the ions' own energy add up to the total energy.
        """
        result = dict.fromkeys(ENERGY_DENSITIES, torch.zeros_like(density.values))
        for term in self.terms:
            result[term.group] = result[term.group] + term.energy_density(density)
        return result

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
        moves = root_coefficients.requires_grad or self.ions.ion_energy.requires_grad
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

        In periodic cells :attr:`hessian_diagonal`. In vacuum that of the density's tail,
        lambda q^2 - 2 mu, with a chemical potential typical of metals.
        """
        if self.space.is_periodic:
            return self.hessian_diagonal
        return self.space.preconditioner(self.functional.vw_weight, _VACUUM_STIFFNESS)

    @cached_property
    def hessian_diagonal(self) -> Tensor:
        """Second derivative of the uniform gas' energy in u, (n_coefficients,), hartree; periodic.

        By modes of the Laplacian 4 n0 times the response of every term at the mean density n0,
        that of the electrons' Coulomb interaction first, kept positive where local terms are not.
        """
        q2 = self.space.laplacian_eigenvalues
        q2 = torch.cat([q2[1:].min()[None], q2[1:]])
        others = [term for term in self.terms if term is not self.ions]
        response = [term.uniform_response(q2, self.mean_density) for term in (self.ions, *others)]
        return (4 * self.mean_density * sum(response)).clamp(min=0.1)
