"""What Kohn-Sham electrons feel: exchange-correlation, ions, and their projectors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fedens.data.density import Density
from fedens.energy.electrostatics import DEFAULT_GAUSSIAN_WIDTH, Electrostatics, Ions
from fedens.energy.pseudopotential import LocalPseudopotential
from fedens.energy.terms import DensityTerm
from fedens.energy.xc import exchange_correlation, warn_of_mixture
from fedens.errors import FunctionalError
from fedens.fem.space import FunctionSpace
from fedens.structure import Structure


class KohnSham:
    """Density functional of Kohn-Sham calculations, spin-unpolarised.

    Args:
        xc: ``lda_pz``, ``lda_pw``, ``lda_teter``, ``pbe``, or any LDA or GGA of libxc.
        pseudopotential: one object for all atoms or ``{symbol: object}``; a :class:`GTH` brings
            its projectors, any other is local.
        gaussian_width: width of the ions' Gaussian charges, bohr, or ``{symbol: width}``.

    Attributes:
        xc, xc_term: name and term. electrostatics: the ions' local part and the electrons'
            Coulomb energy. pseudopotentials, widths: by chemical symbol; widths in bohr.

    Raises:
        FunctionalError: an xc functional that is not known, a width that is not positive.

    Warns:
        MixtureWarning: a pseudopotential was made for another kind of functional.
    """

    def __init__(
        self,
        xc: str,
        pseudopotential: LocalPseudopotential | Mapping[str, LocalPseudopotential],
        gaussian_width: float | Mapping[str, float] = DEFAULT_GAUSSIAN_WIDTH,
    ):
        self.xc = xc
        self.xc_term = exchange_correlation(xc)
        self.electrostatics = Electrostatics(pseudopotential, gaussian_width)
        self.pseudopotentials = self.electrostatics.pseudopotentials
        self.widths = self.electrostatics.widths
        warn_of_mixture(self.xc_term, self.pseudopotentials)

    def __repr__(self) -> str:
        return f"KohnSham({self.xc!r}, {dict(self.pseudopotentials)})"

    def describe(self) -> dict[str, Any]:
        """Everything that defines the functional, as JSON can hold it."""
        ions = self.electrostatics.describe()
        return {"kind": "kohn_sham", "xc": self.xc} | {k: ions[k] for k in ions if k != "kind"}

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> KohnSham:
        """The functional of :meth:`describe`."""
        ions = Electrostatics.from_description(description)
        return cls(description["xc"], ions.pseudopotentials, ions.widths)

    def number_of_electrons(self, structure: Structure) -> float:
        """Electrons around a structure's ions.

        Raises:
            FunctionalError: none are left, a charged periodic cell, or a magnetic structure.
        """
        electrons = self.electrostatics.number_of_electrons(structure)
        if electrons <= 0:
            raise FunctionalError(f"{structure.formula} would have {electrons} electrons")
        if structure.periodic and structure.charge:
            raise FunctionalError(
                f"charge is {structure.charge}: charged periodic cells are not supported"
            )
        if structure.spin:
            raise FunctionalError(
                f"spin is {structure.spin}: Kohn-Sham here is spin-unpolarised; set spin=0"
            )
        return electrons

    def bind(
        self, structure: Structure, space: FunctionSpace, positions: Tensor | None = None
    ) -> BoundKohnSham:
        """The functional for one structure on one space; errors of :meth:`.Electrostatics.bind`.

        ``positions`` (n_atoms, 3), bohr, replace the structure's own, to differentiate.
        """
        ions = self.electrostatics.bind(structure, space, positions=positions)
        return BoundKohnSham(space, self.xc_term, ions)


@dataclass(frozen=True, eq=False)
class BoundKohnSham:
    """The part of the Kohn-Sham energy that the density decides, for ions in place."""

    space: FunctionSpace
    xc: DensityTerm
    ions: Ions

    def energy(self, density: Density) -> Tensor:
        """Exchange-correlation and electrostatic energy, ions' own included, hartree."""
        return self.xc.energy(density) + self.ions.energy(density)

    @torch.enable_grad()
    def potential(self, values: Tensor) -> Tensor:
        """Effective local potential (n_points,), hartree, of a density (n_points,).

        The derivative of :meth:`energy` in the density at each point over its weight; in periodic
        cells the Coulomb part has zero mean.
        """
        n = values.detach().requires_grad_(True)
        (gradient,) = torch.autograd.grad(self.energy(Density(self.space, values=n)), n)
        return gradient / self.space.weights
