"""Gaussian functions on atoms, in which fields are expanded: smooth ones, as differences to atoms.

    phi_jlm(r) = R_lm(r - R_A) sum_k C_kj N_kl exp(-a_k |r - R_A|^2)

R_lm are solid harmonics, N_kl makes each Gaussian's square integrate to 1, and the exponents a_k
are even-tempered: each is the one before times a constant. Everything is in closed form at any
point: values, integrals, dipoles; a mesh is needed only to fit a field (:meth:`AtomicBasis.test`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from ase.data import atomic_numbers
from torch import Tensor

from fedens.errors import ModelError
from fedens.fem.harmonics import solid_harmonics
from fedens.structure import Structure

#: Points whose functions are in memory at once.
_BLOCK = 20_000
#: At a nucleus the closed form of the potential is 0/0: r^2 is at least this, bohr^2.
_SMALLEST_SQUARE = 1e-16
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

    def _seen(
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
            for radial, angular in self._seen(structure, points, positions)
        ]
        return torch.cat(columns, dim=1)

    def evaluate(self, structure: Structure, points: Tensor, coefficients: Tensor) -> Tensor:
        """Fields of coefficients (n_fields, n_functions) at points (n_points, 3), bohr.

        Returns:
            (n_fields, n_points); differentiable in the points.
        """
        positions = torch.tensor(structure.positions)
        parts = [
            self._evaluate(structure, part, positions, coefficients)
            for part in points.split(_BLOCK)
        ]
        return torch.cat(parts, dim=1)

    def _evaluate(
        self, structure: Structure, points: Tensor, positions: Tensor, coefficients: Tensor
    ) -> Tensor:
        total = points.new_zeros(len(coefficients), len(points))
        seen = self._seen(structure, points, positions)
        for (radial, angular), (_, l, where) in zip(seen, self.shells(structure), strict=True):
            local = coefficients[:, where].unflatten(1, (-1, 2 * l + 1))
            total = total + torch.einsum("fpm,pm->fp", radial @ local, angular)
        return total

    def potential(self, structure: Structure, points: Tensor, coefficients: Tensor) -> Tensor:
        """Coulomb potential (n_points,) of the field of coefficients (n_functions,); hartree.

        In closed form at points (n_points, 3), bohr: outside and inside of r the Gaussian acts as
        4 pi/(2l+1) R_lm (r^-(2l+1) int_0^r s^(2l+2) exp(-a s^2) ds + int_r^oo s exp(-a s^2) ds).
        """
        self.check(structure)
        harmonics = solid_harmonics(self.max_order)
        shells = iter(self.shells(structure))
        total = points.new_zeros(len(points))
        for symbol, position in zip(
            structure.symbols, torch.tensor(structure.positions), strict=True
        ):
            away = points - position
            angular, squared = harmonics(away), (away * away).sum(dim=1, keepdim=True)
            for exponents, matrix in zip(
                self.exponents[symbol], self.contractions[symbol], strict=True
            ):
                _, l, where = next(shells)
                radial = _coulomb(squared, exponents, l) @ (_norms(exponents, l)[:, None] * matrix)
                local = radial @ coefficients[where].unflatten(0, (-1, 2 * l + 1))
                total = total + (local * angular[:, l * l : (l + 1) ** 2]).sum(dim=1)
        return total

    def test(self, structure: Structure, points: Tensor, fields: Tensor) -> Tensor:
        """Sums over points of fields (n_fields, n_points) times each function.

        With quadrature weights in the fields these are the integrals, (n_fields, n_functions).
        """
        positions = torch.tensor(structure.positions)
        total = fields.new_zeros(len(fields), self.offsets(structure)[-1])
        for block, part in zip(points.split(_BLOCK), fields.split(_BLOCK, dim=1), strict=True):
            seen = self._seen(structure, block, positions)
            for (radial, angular), (_, _, where) in zip(seen, self.shells(structure), strict=True):
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


def _coulomb(squared: Tensor, exponents: Tensor, l: int) -> Tensor:
    """What R_lm is to be multiplied by, (n_points, n_exponents); r^2 is (n_points, 1)."""
    order = torch.tensor(l + 1.5, dtype=torch.float64)
    squared = squared.clamp(min=_SMALLEST_SQUARE)
    inside = torch.special.gammainc(order, exponents * squared) * math.gamma(l + 1.5)
    inside = inside / (2 * exponents ** (l + 1.5) * squared ** (l + 0.5))
    outside = torch.exp(-exponents * squared) / (2 * exponents)
    return 4 * math.pi / (2 * l + 1) * (inside + outside)


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
