"""Linear models of site energies: many-body features of radial densities, coefficients by ridge.

    E_i = sum_m c_m B_m(rho_i),    rho_ik = sum_j g_k(r_ij)

The features B are polynomials of the densities. Degree 1 is a pair potential; degree d sees up to d
neighbours at once. Energies, forces, virials and force constants are linear in the coefficients, so
that a basis can be blamed or cleared without an optimiser between.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations_with_replacement

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedens.errors import ModelError
from fedens.generalisation.embedded import (
    Bonds,
    BoundEmbedded,
    EmbeddedPotential,
    Embedding,
    Expansion,
    Radial,
)
from fedens.generalisation.gupta import Gupta, smooth_cutoff
from fedens.generalisation.potential import Array
from fedens.structure import Structure


class Basis(EmbeddedPotential, ABC):
    """Features of a site; their sum is itself a potential, but one of no use but for searching.

    Attributes: ``cutoff``, bohr.
    """

    @abstractmethod
    def features(self, densities: Tensor) -> Tensor:
        """B (n_sites, n_features) of densities (n_sites, K)."""

    def embedding(self, bonds: Bonds) -> Embedding:
        """The sum of the features."""
        del bonds
        return lambda densities: self.features(densities).sum(dim=-1)

    def bind(self, structure: Structure, free: NDArray[np.bool_] | None = None) -> BoundBasis:
        """Energies and forces of every feature at once."""
        return BoundBasis(self, structure, free)


class BoundBasis(BoundEmbedded):
    """As a bound potential, with one energy, force, virial per feature along a first axis."""

    potential: Basis

    def energy_and_forces(self, positions: Array) -> tuple[Array, Array]:  # type: ignore[override]
        """(n_features,) and (n_features, n_atoms, 3)."""
        expansion = self.expansion(positions)
        features, slopes = self._features(expansion)
        forces = torch.stack([-expansion.gradient(s) for s in slopes]).numpy()
        energies = features.sum(dim=0).numpy() + self._constants
        return energies, np.where(self._free[:, None], forces, 0.0)

    @cached_property
    def _constants(self) -> Array:
        """Features of the sites that cannot change, summed, (n_features,)."""
        everything = BoundBasis(self.potential, self.structure)
        positions = self.structure.positions
        features = self.potential.features(everything.expansion(positions).densities).numpy()
        features[self.expansion(positions).bonds.sites.numpy()] = 0.0
        return features.sum(axis=0)

    def virial(self, positions: Array) -> Array:
        """(n_features, 3, 3)."""
        expansion = self.expansion(positions)
        return torch.stack([expansion.virial(s) for s in self._features(expansion)[1]]).numpy()

    def _features(self, expansion: Expansion) -> tuple[Tensor, list[Tensor]]:
        """B (n_sites, n_features), and dB/drho (n_sites, K) of each feature."""
        where = expansion.densities.detach().requires_grad_(True)
        with torch.enable_grad():
            features = self.potential.features(where)
            weights = torch.zeros_like(features, requires_grad=True)
            (pulled,) = torch.autograd.grad(features, where, weights, create_graph=True)
            # each site's features depend on its own densities: one pass per density is enough
            columns = [
                torch.autograd.grad(column.sum(), weights, retain_graph=True)[0]
                for column in pulled.unbind(dim=1)
            ]
        return features.detach(), list(torch.stack(columns, dim=2).unbind(dim=1))


@dataclass(frozen=True, eq=False)
class DensityPolynomials(Basis):
    """Monomials up to a degree of densities g_k = exp(-alpha_k (r / r0 - 1)) f(r).

    Args:
        decays: alpha, (K,). degree: of the monomials. r0: length the decays refer to, bohr.
        cutoff_start, cutoff: where the cutoff function f begins to fall and is zero, bohr.
        centre, scale: densities (K,) that the monomials count from, and their spread: those of
            the training sites, see :meth:`scaled_to`.
    """

    decays: tuple[float, ...]
    degree: int
    r0: float
    cutoff_start: float
    cutoff: float
    centre: Tensor | None = None
    scale: Tensor | None = None

    def __post_init__(self) -> None:
        if not self.decays or self.degree < 1 or not 0 < self.cutoff_start < self.cutoff:
            raise ModelError(
                f"a basis with decays {self.decays}, degree {self.degree} and a cutoff from "
                f"{self.cutoff_start} to {self.cutoff} bohr: expected one decay or more, degree 1 "
                "or more, an ascending cutoff"
            )

    def radial(self, bonds: Bonds) -> Radial:
        """The exponentials times the cutoff function."""
        del bonds
        decays = torch.tensor(self.decays, dtype=torch.float64)

        def functions(r: Tensor) -> Tensor:
            f = smooth_cutoff(r, self.cutoff_start, self.cutoff)
            return torch.exp(-decays * (r / self.r0 - 1)[..., None]) * f[..., None]

        return functions

    def features(self, densities: Tensor) -> Tensor:
        """A constant, and all monomials of degree 1 to ``degree`` of the scaled densities."""
        z = densities
        if self.centre is not None and self.scale is not None:
            z = (densities - self.centre) / self.scale
        columns, places = [torch.ones_like(z[:, 0])], range(len(self.decays))
        products: dict[tuple[int, ...], Tensor] = {(k,): z[:, k] for k in places}
        for degree in range(1, self.degree + 1):
            for term in combinations_with_replacement(places, degree):
                if degree > 1:
                    products[term] = products[term[:-1]] * z[:, term[-1]]
                columns.append(products[term])
        return torch.stack(columns, dim=1)

    def scaled_to(self, densities: Tensor) -> DensityPolynomials:
        """The same basis for training sites with these densities, (n_sites, K)."""
        spread = densities.std(dim=0).clamp_min(1e-8)
        return replace(self, centre=densities.mean(dim=0), scale=spread)


@dataclass(frozen=True, eq=False)
class GuptaFeatures(Basis):
    """A basis that holds a second-moment potential: repulsion, root of the second moment, and more.

    The others are the second moment itself, the square of the repulsion and their product.

    Args:
        potential: whose radial functions are taken.
    """

    potential: Gupta

    @property
    def cutoff(self) -> float:  # type: ignore[override]
        """That of the potential, bohr."""
        return self.potential.cutoff

    def radial(self, bonds: Bonds) -> Radial:
        """Those of the potential."""
        return self.potential.radial(bonds)

    def features(self, densities: Tensor) -> Tensor:
        """Constant, a, sqrt(b), b, a^2, a sqrt(b)."""
        a, b = densities[:, 0], densities[:, 1]
        root = torch.sqrt(b.clamp_min(1e-300))
        return torch.stack([torch.ones_like(a), a, root, b, a**2, a * root], dim=1)


@dataclass(frozen=True, eq=False)
class LinearPotential(EmbeddedPotential):
    """Features with coefficients, (n_features,), hartree."""

    basis: Basis
    coefficients: Tensor

    @property
    def cutoff(self) -> float:  # type: ignore[override]
        """That of the basis, bohr."""
        return self.basis.cutoff

    def radial(self, bonds: Bonds) -> Radial:
        """Those of the basis."""
        return self.basis.radial(bonds)

    def embedding(self, bonds: Bonds) -> Embedding:
        """The linear combination of the features."""
        del bonds
        return lambda densities: self.basis.features(densities) @ self.coefficients
