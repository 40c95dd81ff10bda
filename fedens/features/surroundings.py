"""Points and the atoms around them, as checked tensors that may carry derivatives."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedens.errors import DescriptorError
from fedens.fem.space import FunctionSpace
from fedens.fem.tensor import TensorSpace
from fedens.structure import Structure

#: Reference points: (n_points, 3) in bohr, or a function space for its quadrature points.
Points: TypeAlias = Tensor | NDArray[np.float64] | FunctionSpace


@dataclass(frozen=True, eq=False)
class Surroundings:
    """What a descriptor describes; all tensors are float64, on the device of the points.

    Attributes:
        structure: the atoms.
        space: the TensorSpace whose quadrature points are meant, or None.
        points: (n_points, 3), bohr. dtype: of the features.
        positions: (n_atoms, 3), bohr. cell: (3, 3), bohr, or None. occupancies: (n_atoms,).
        occupancies_given: whether they are others than the structure's own.
    """

    structure: Structure
    space: TensorSpace | None
    points: Tensor
    dtype: torch.dtype
    positions: Tensor
    cell: Tensor | None
    occupancies: Tensor
    occupancies_given: bool

    @classmethod
    def at(
        cls,
        points: Points,
        structure: Structure,
        positions: Tensor | None = None,
        cell: Tensor | None = None,
        occupancies: Tensor | None = None,
    ) -> Surroundings:
        """Of points; see :meth:`fedens.features.Descriptor.__call__`.

        Raises:
            DescriptorError: for shapes that do not fit, numbers that are not finite, a cell for
                an isolated structure or beside a TensorSpace, which has its own.
            SpaceError: for a TensorSpace that does not fit the structure.
        """
        space = points if isinstance(points, TensorSpace) else None
        if space is not None:
            if cell is not None:
                raise DescriptorError(
                    "a TensorSpace brings its own cell: to differentiate in it pass "
                    "space.scaled(factors) and scaled positions instead of cell"
                )
            space.check_matches(structure)
        where = point_tensor(points)
        tensors = atom_tensors(structure, positions, cell, occupancies, where.device)
        atoms, vectors, filled = tensors
        if space is not None and space.is_periodic:
            vectors = space.cell
        given = occupancies is not None
        return cls(structure, space, where, _dtype(points), atoms, vectors, filled, given)

    @property
    def tensors(self) -> list[Tensor | None]:
        """All of the atoms that may be differentiated."""
        return [self.positions, self.cell, self.occupancies]

    @cached_property
    def of_element(self) -> dict[str, list[int]]:
        """Indices of the atoms of each element, in order of appearance."""
        groups: dict[str, list[int]] = {}
        for i, symbol in enumerate(self.structure.symbols):
            groups.setdefault(symbol, []).append(i)
        return groups


def point_tensor(points: Points) -> Tensor:
    """Points as a (n_points, 3) float64 tensor, bohr; a function space gives its own."""
    result = torch.as_tensor(getattr(points, "points", points), dtype=torch.float64)
    if result.ndim != 2 or result.shape[1] != 3:
        raise DescriptorError(f"points have shape {tuple(result.shape)}, expected (n_points, 3)")
    if not torch.isfinite(result).all():
        raise DescriptorError("points contain numbers that are not finite")
    return result


def _dtype(points: Points) -> torch.dtype:
    """Of features at these points: float32 if the points have it."""
    given = getattr(points, "points", points)
    single = isinstance(given, Tensor | np.ndarray) and given.dtype in (torch.float32, np.float32)
    return torch.float32 if single else torch.float64


def atom_tensors(
    structure: Structure,
    positions: Tensor | None = None,
    cell: Tensor | None = None,
    occupancies: Tensor | None = None,
    device: torch.device | str = "cpu",
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Positions (n_atoms, 3), cell (3, 3) or None, occupancies (n_atoms,), float64.

    What is given replaces the structure's own and keeps its history for differentiation.
    The cell is None for structures that are not periodic. Raises as :meth:`Surroundings.at`.
    """
    n_atoms = len(structure)
    atoms = _given_or(positions, structure.positions, (n_atoms, 3), "positions")
    filled = _given_or(occupancies, structure.occupancies, (n_atoms,), "occupancies")
    if structure.periodic:
        vectors = _given_or(cell, structure.cell, (3, 3), "cell")
        return atoms.to(device), vectors.to(device), filled.to(device)
    if cell is not None:
        raise DescriptorError("a cell was given for a structure that is not periodic; leave it out")
    return atoms.to(device), None, filled.to(device)


def _given_or(
    given: Tensor | None, own: NDArray[np.float64] | None, shape: tuple[int, ...], name: str
) -> Tensor:
    value = torch.as_tensor(np.array(own) if given is None else given, dtype=torch.float64)
    if tuple(value.shape) != shape:
        raise DescriptorError(f"{name} have shape {tuple(value.shape)}, expected {shape}")
    if not torch.isfinite(value).all():
        raise DescriptorError(f"{name} contain numbers that are not finite")
    return value
