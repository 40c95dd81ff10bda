"""Gaussian functions on atoms, in which fields are expanded: smooth ones, as differences to atoms.

    phi_jlm(r) = R_lm(r - R_A) sum_k C_kj N_kl exp(-a_k |r - R_A|^2)

R_lm are solid harmonics, N_kl makes each Gaussian's square integrate to 1, and the exponents a_k
are even-tempered: each is the one before times a constant. Everything is in closed form at any
point: values, integrals, dipoles; a mesh is needed only to fit a field (:meth:`AtomicBasis.test`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from ase.data import atomic_numbers
from torch import Tensor

from fedens.errors import ModelError
from fedens.fem.boys import boys_functions
from fedens.fem.harmonics import solid_harmonics
from fedens.structure import Structure

#: Exponents, r^2 (n_points,), largest l -> for each l functions of r (n_exponents, n_points).
_Radial = Callable[[Tensor, Tensor, int], list[Tensor]]

#: Points whose functions are in memory at once.
_BLOCK = 5_000
#: Smallest and largest exponent (bohr^-2) and their ratio for each l: hydrogen and helium, carbon.
_LIGHT = ((0.08, 40, 2.2), (0.1, 8, 2.2), (0.15, 4, 2.4), (0.3, 2, 2.5))
_CARBON = ((0.08, 600, 2.2), (0.1, 100, 2.2), (0.12, 60, 2.2), (0.15, 20, 2.2), (0.2, 10, 2.2))
#: Densities of an atom narrow with its charge to this power, from carbon on along its row.
_NARROWING = 1.6


class AtomicBasis:
    """Functions on every atom of a structure, the same for all atoms of an element.

    Functions are numbered by atom, then l, then radial function j, then m = -l to l.

    Args:
        exponents: for each element and l = 0, 1, ..., bohr^-2.
        contractions: for each element and l the matrix C (n_exponents, n_radial); the unit matrix
            by default.

    Raises:
        ModelError: no exponents, or matrices that do not fit them.
    """

    def __init__(
        self,
        exponents: Mapping[str, Sequence[Sequence[float]]],
        contractions: Mapping[str, Sequence[Tensor]] | None = None,
    ):
        if not exponents or not all(map(_usable, exponents.values())):
            raise ModelError(
                f"exponents are {dict(exponents)}: expected some for each element and l, above 0"
            )
        self.exponents = {
            symbol: [torch.tensor(shell, dtype=torch.float64) for shell in shells]
            for symbol, shells in exponents.items()
        }
        if contractions is None:
            contractions = {
                s: [torch.eye(len(a)).double() for a in x] for s, x in exponents.items()
            }
        for symbol, shells in self.exponents.items():
            counts = [len(shell) for shell in shells]
            rows = [len(matrix) for matrix in contractions.get(symbol, [])]
            if rows != counts:
                raise ModelError(
                    f"{symbol}: contractions of {rows} exponents for l = 0, 1, ..., expected "
                    f"{counts}"
                )
        self.contractions = {symbol: list(contractions[symbol]) for symbol in exponents}
        self._distinct = {symbol: _distinct(shells) for symbol, shells in self.exponents.items()}

    @classmethod
    def even_tempered(cls, symbols: Sequence[str]) -> AtomicBasis:
        """The default functions of some elements."""
        return cls({symbol: _default_exponents(symbol) for symbol in sorted(set(symbols))})

    @property
    def max_order(self) -> int:
        """Largest l."""
        return max(map(len, self.exponents.values())) - 1

    def n_radial(self, symbol: str) -> list[int]:
        """Number of radial functions of each l."""
        return [matrix.shape[1] for matrix in self.contractions[symbol]]

    def size(self, symbol: str) -> int:
        """Number of functions on an atom."""
        return sum((2 * l + 1) * n for l, n in enumerate(self.n_radial(symbol)))

    def offsets(self, structure: Structure) -> list[int]:
        """Number of the first function of each atom, and at the end that of all functions."""
        self.check(structure)
        result = [0]
        for symbol in structure.symbols:
            result.append(result[-1] + self.size(symbol))
        return result

    def check(self, structure: Structure) -> None:
        """Raise ModelError for elements without functions."""
        missing = sorted(set(structure.symbols) - set(self.exponents))
        if missing:
            raise ModelError(
                f"{structure.formula}: no functions for {', '.join(missing)}; the model knows "
                f"{', '.join(self.exponents)}: train it on molecules with those elements"
            )

    def shells(self, structure: Structure) -> Iterator[tuple[int, int, slice]]:
        """(atom, l, its functions) for every atom and l."""
        start = 0
        for atom, symbol in enumerate(structure.symbols):
            for l, n in enumerate(self.n_radial(symbol)):
                stop = start + n * (2 * l + 1)
                yield atom, l, slice(start, stop)
                start = stop

    def _factors(
        self, structure: Structure, points: Tensor, positions: Tensor
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """For every atom and l radial functions and harmonics, (n_points, n_radial or 2l+1)."""
        harmonics = solid_harmonics(self.max_order)
        for symbol, position in zip(structure.symbols, positions, strict=True):
            away = points - position
            angular, squared = harmonics(away), (away * away).sum(dim=1, keepdim=True)
            for l, (exponents, matrix) in enumerate(
                zip(self.exponents[symbol], self.contractions[symbol], strict=True)
            ):
                gaussians = torch.exp(-squared * exponents)
                radial = gaussians @ (_norms(exponents, l)[:, None] * matrix)
                yield radial, angular[:, l * l : (l + 1) ** 2]

    def functions(self, structure: Structure, points: Tensor) -> Tensor:
        """All functions at points (n_points, 3), bohr: (n_points, n_functions)."""
        self.check(structure)
        positions = torch.tensor(structure.positions)
        columns = [
            (radial[:, :, None] * angular[:, None]).flatten(1)
            for radial, angular in self._factors(structure, points, positions)
        ]
        return torch.cat(columns, dim=1)

    def evaluate(self, structure: Structure, points: Tensor, coefficients: Tensor) -> Tensor:
        """Fields of coefficients (n_fields, n_functions) at points (n_points, 3), bohr.

        Returns:
            (n_fields, n_points); differentiable in the points.
        """
        return self._sum(structure, points, coefficients, _gaussians)

    def potential(self, structure: Structure, points: Tensor, coefficients: Tensor) -> Tensor:
        """Coulomb potential (n_points,) of the field of coefficients (n_functions,); hartree.

        In closed form at points (n_points, 3), bohr, with Boys functions F_l: that of
        R_lm exp(-a r^2) is (2 pi / a) F_l(a r^2) R_lm. Differentiable in the points.
        """
        return self._sum(structure, points, coefficients[None], _potentials)[0]

    def _sum(
        self, structure: Structure, points: Tensor, coefficients: Tensor, radial: _Radial
    ) -> Tensor:
        """Sums over functions whose Gaussians are replaced by what ``radial`` gives.

        Returns:
            (n_fields, n_points).
        """
        self.check(structure)
        local = self._by_exponent(structure, coefficients)
        positions = torch.tensor(structure.positions)
        harmonics, ones = solid_harmonics(self.max_order), points.new_ones(3)
        parts = []
        for part in points.split(_BLOCK):
            total = part.new_zeros(len(coefficients), len(part))
            for symbol, position, shells in zip(structure.symbols, positions, local, strict=True):
                away = part - position
                angular = harmonics(away)[:, : len(shells) ** 2].T.contiguous()
                exponents, places = self._distinct[symbol]
                rows = radial(exponents, (away * away) @ ones, len(shells) - 1)
                values = [f @ r[where] for f, r, where in zip(shells, rows, places, strict=True)]
                total = total + (torch.cat(values, dim=1) * angular).sum(dim=1)
            parts.append(total)
        return torch.cat(parts, dim=1)

    def _by_exponent(self, structure: Structure, coefficients: Tensor) -> list[list[Tensor]]:
        """For each atom and l what multiplies R_lm exp(-a r^2), (n_fields, 2l+1, n_exponents)."""
        result: list[list[Tensor]] = [[] for _ in structure.symbols]
        for atom, l, where in self.shells(structure):
            symbol = structure.symbols[atom]
            norms = _norms(self.exponents[symbol][l], l)
            own = coefficients[:, where].unflatten(1, (-1, 2 * l + 1))
            primitive = (norms[:, None] * self.contractions[symbol][l]) @ own
            result[atom].append(primitive.transpose(1, 2))
        return result

    def test(self, structure: Structure, points: Tensor, fields: Tensor) -> Tensor:
        """Sums over points of fields (n_fields, n_points) times each function.

        With quadrature weights in the fields these are the integrals, (n_fields, n_functions).
        """
        positions = torch.tensor(structure.positions)
        total = fields.new_zeros(len(fields), self.offsets(structure)[-1])
        for block, part in zip(points.split(_BLOCK), fields.split(_BLOCK, dim=1), strict=True):
            factors = self._factors(structure, block, positions)
            for (radial, angular), (_, _, where) in zip(
                factors, self.shells(structure), strict=True
            ):
                weighted = part[:, :, None] * angular
                total[:, where] += (radial.T @ weighted).flatten(1)
        return total

    def integrals(self, structure: Structure) -> Tensor:
        """Integral of each function over space, (n_functions,): only those of l = 0 have one."""
        total = torch.zeros(self.offsets(structure)[-1], dtype=torch.float64)
        for atom, l, where in self.shells(structure):
            if l == 0:
                total[where] = self._moment(structure.symbols[atom], 0)
        return total

    def dipoles(self, structure: Structure, positions: Tensor | None = None) -> Tensor:
        """Integral of r times each function, (n_functions, 3), bohr; differentiable."""
        positions = torch.tensor(structure.positions) if positions is None else positions
        rows = []
        for atom, l, where in self.shells(structure):
            symbol = structure.symbols[atom]
            if l == 0:
                rows.append(self._moment(symbol, 0)[:, None] * positions[atom])
            elif l == 1:
                # m = -1, 0, 1 are y, z, x
                axes = torch.eye(3, dtype=torch.float64)[[1, 2, 0]]
                moments = self._moment(symbol, 1)[:, None, None] * axes
                rows.append(moments.flatten(0, 1))
            else:
                rows.append(positions.new_zeros(where.stop - where.start, 3))
        return torch.cat(rows)

    def _moment(self, symbol: str, l: int) -> Tensor:
        """Integral of each radial function times r^l times one harmonic's own, (n_radial,)."""
        exponents = self.exponents[symbol][l]
        # int R_00 exp(-a r^2), or int x R_11 exp(-a r^2)
        bare = (math.pi / exponents) ** 1.5 * math.sqrt((2 * l + 1) / (4 * math.pi))
        if l == 1:
            bare = bare / (2 * exponents)
        return (_norms(exponents, l) * bare) @ self.contractions[symbol][l]

    def describe(self) -> dict[str, Any]:
        """The exponents by element and l; contractions are in :meth:`tensors`."""
        return {s: [shell.tolist() for shell in x] for s, x in self.exponents.items()}

    def tensors(self) -> dict[str, Tensor]:
        """The contractions by names such as ``C.1``."""
        return {f"{s}.{l}": m for s, x in self.contractions.items() for l, m in enumerate(x)}

    @classmethod
    def restore(cls, exponents: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> AtomicBasis:
        """From what :meth:`describe` and :meth:`tensors` gave."""
        return cls(
            exponents,
            {s: [tensors[f"{s}.{l}"] for l in range(len(x))] for s, x in exponents.items()},
        )


def _usable(shells: Sequence[Sequence[float]]) -> bool:
    return bool(shells) and all(shell and all(a > 0 for a in shell) for shell in shells)


def _norms(exponents: Tensor, l: int) -> Tensor:
    """Factors that make the squares of r^l Y_lm exp(-a r^2) integrate to 1."""
    squared = math.gamma(l + 1.5) / 2 / (2 * exponents) ** (l + 1.5)
    return squared**-0.5


def _distinct(shells: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Exponents of all l, each once, and the places of each l's own among them."""
    exponents, places = torch.unique(torch.cat(list(shells)), return_inverse=True)
    return exponents, list(places.split([len(shell) for shell in shells]))


def _gaussians(exponents: Tensor, squared: Tensor, max_order: int) -> list[Tensor]:
    """exp(-a r^2) for each l, (n_exponents, n_points)."""
    return (max_order + 1) * [torch.exp(-torch.outer(exponents, squared))]


def _potentials(exponents: Tensor, squared: Tensor, max_order: int) -> list[Tensor]:
    """Of the Gaussians, without R_lm, for each l, (n_exponents, n_points)."""
    factors = 2 * math.pi / exponents[:, None]
    return [factors * f for f in boys_functions(torch.outer(exponents, squared), max_order)]


def _default_exponents(symbol: str) -> list[list[float]]:
    number = atomic_numbers[symbol]
    if number <= 2:
        return [_even_tempered(*limits) for limits in _LIGHT]
    in_row = number if number <= 10 else number - 8
    outer, inner = (in_row / 6) ** _NARROWING, (number / 6) ** 2
    return [_even_tempered(low * outer, high * inner, ratio) for low, high, ratio in _CARBON]


def _even_tempered(low: float, high: float, ratio: float) -> list[float]:
    count = math.ceil(math.log(high / low) / math.log(ratio)) + 1
    return [low * ratio**i for i in range(count)]
