"""What an energy term is: an energy, an energy density, and a uniform-gas response."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from fedens.data.density import Density
from fedens.errors import FunctionalError
from fedens.fem.space import FunctionSpace
from fedens.structure import Structure

_KINDS: dict[str, type[EnergyTerm]] = {}


class EnergyTerm(ABC):
    """A part of an energy functional, for any structure and space.

    Attributes:
        name: key of the term among the parts of an energy.
        group: stored energy density it belongs to: ``kinetic``, ``xc`` or ``electrostatic``.
        kind: name under which it is stored with models, unique among terms; a class without one
            of its own cannot be stored.
        parameters: names of the constructor's arguments, kept as attributes, that describe it.
    """

    name: str
    group: str
    kind: ClassVar[str]
    parameters: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        if "kind" in vars(cls):
            _KINDS[cls.kind] = cls

    @abstractmethod
    def bind(
        self,
        structure: Structure,
        space: FunctionSpace,
        electrons: float,
        positions: Tensor | None = None,
    ) -> DensityTerm:
        """The term for one structure with so many electrons on one space.

        ``positions`` (n_atoms, 3), bohr, replace the structure's own, to differentiate.
        """

    def describe(self) -> dict[str, Any]:
        """All that defines the term, as JSON can hold it.

        Raises:
            FunctionalError: a class without a kind of its own.
        """
        if "kind" not in vars(type(self)):
            raise FunctionalError(
                f"the term {self.name!r} ({type(self).__name__}) has no kind of its own, so that "
                "it cannot be stored: give its class a kind, and parameters where it has some"
            )
        return {"kind": self.kind} | {name: getattr(self, name) for name in self.parameters}

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> EnergyTerm:
        """The term that :meth:`describe` described."""
        return cls(**{key: value for key, value in description.items() if key != "kind"})


def term_from_description(description: Mapping[str, Any]) -> EnergyTerm:
    """The term of :meth:`EnergyTerm.describe`, whatever its kind.

    Raises:
        FunctionalError: for a kind that is not known.
    """
    kind = description.get("kind")
    if kind not in _KINDS:
        raise FunctionalError(
            f"energy term {kind!r} is not known; expected one of {', '.join(sorted(_KINDS))}: "
            "import the module that defines it"
        )
    return _KINDS[kind].from_description(description)


class DensityTerm(EnergyTerm):
    """A functional of the density alone.

    Attributes:
        twice_differentiable: whether the derivative of its energy has a derivative itself.
    """

    twice_differentiable: bool = True

    def bind(self, *_: Any, **__: Any) -> DensityTerm:
        """The term itself: it asks for nothing but the density."""
        return self

    @abstractmethod
    def energy_density(self, density: Density) -> Tensor:
        """Energy per volume at the space's points, (n_points,), hartree/bohr^3."""

    def energy(self, density: Density) -> Tensor:
        """Energy, hartree; differentiable in whatever the density depends on."""
        return density.space.integrate(self.energy_density(density))

    @abstractmethod
    def uniform_response(self, q2: Tensor, density: Tensor) -> Tensor:
        """Second derivative of the energy in the density of the uniform gas at wave numbers q.

        Args:
            q2: squared wave numbers, bohr^-2. density: scalar, electron/bohr^3. The result is
                differentiable in both, for the stress.
        """


class LocalTerm(DensityTerm):
    """A functional whose energy density depends on n at the same point only."""

    @abstractmethod
    def energy_density_and_potential(self, n: Tensor, cube_root: Tensor) -> tuple[Tensor, Tensor]:
        """e(n) and de/dn in closed form, from n (n_points,) > 0 and its cube root.

        de/dn is differentiable in n and the cube root.
        """

    def energy_density(self, density: Density) -> Tensor:
        return local_energy_density([self], density.values, density.cube_root)

    def uniform_response(self, q2: Tensor, density: Tensor) -> Tensor:
        step = 1e-4
        n = density * torch.tensor([1 - step, 1 + step], dtype=q2.dtype, device=q2.device)
        _, potential = self.energy_density_and_potential(n, n ** (1 / 3))
        return torch.zeros_like(q2) + (potential[1] - potential[0]) / (2 * step * density)


def local_energy_density(
    terms: list[LocalTerm], n: Tensor, cube_root: Tensor | None = None
) -> Tensor:
    """Summed energy density (n_points,) of local terms; one cube root serves all of them."""
    if not terms:
        return torch.zeros_like(n)
    energy_density: Tensor = _LocalEnergyDensity.apply(n, cube_root, terms)
    return energy_density


#: Below this density (electron/bohr^3) local functionals are evaluated at it: nothing is lost.
_FLOOR = 1e-30


class _LocalEnergyDensity(torch.autograd.Function):
    """Energy density with its closed-form derivative, so that no cube root is taken twice."""

    @staticmethod
    def forward(ctx, n, cube_root, terms):  # type: ignore[no-untyped-def]
        floored = n.clamp(min=_FLOOR)
        cube_root = (
            floored ** (1 / 3) if cube_root is None else cube_root.clamp(min=_FLOOR ** (1 / 3))
        )
        pairs = [term.energy_density_and_potential(floored, cube_root) for term in terms]
        ctx.terms = terms
        ctx.save_for_backward(n, sum(v for _, v in pairs))
        return sum(e for e, _ in pairs)

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        n, potential = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative is wanted: keep its history
            n = n.clamp(min=_FLOOR)
            pairs = [term.energy_density_and_potential(n, n ** (1 / 3)) for term in ctx.terms]
            potential = sum(v for _, v in pairs)
        return gradient * potential, None, None
