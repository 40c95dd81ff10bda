"""What every descriptor of atomic surroundings offers, and the joining of several."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeAlias

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

_KINDS: dict[str, type[Descriptor]] = {}


class Descriptor(ABC):
    """Numbers that describe the atoms as seen from reference points.

    Subclasses set :attr:`kind`, a name that is stored with models and unique among descriptors.
    """

    kind: ClassVar[str]

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        if "kind" in vars(cls):
            _KINDS[cls.kind] = cls

    @property
    @abstractmethod
    def names(self) -> list[str]:
        """One name per feature, in the order of the columns."""

    @property
    def n_features(self) -> int:
        """Number of columns."""
        return len(self.names)

    @abstractmethod
    def __call__(
        self,
        points: Points,
        structure: Structure,
        positions: Tensor | None = None,
        cell: Tensor | None = None,
        occupancies: Tensor | None = None,
    ) -> Tensor:
        """Features at the points, (n_points, n_features).

        On the device of the points; float32 for points in float32, else float64.

        Args:
            points: (n_points, 3), bohr, or a function space for its quadrature points.
            structure: the atoms.
            positions: (n_atoms, 3), bohr; replaces the structure's own, to differentiate.
            cell: (3, 3), bohr; replaces the structure's own, to differentiate.
            occupancies: (n_atoms,); replaces the structure's own, to differentiate.
        """

    def dilated(self, factor: float) -> tuple[Descriptor, Tensor] | None:  # noqa: ARG002
        """What it is when all lengths are multiplied by a factor, where that can be said.

        Returns:
            the descriptor with its own lengths multiplied, and the factors (n_features,) by which
            its features at multiplied points and positions differ; or None.
        """
        return None

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Everything needed to build the same descriptor again, as JSON can hold it."""

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> Descriptor:
        """The descriptor that :meth:`describe` described."""
        return cls(**{key: value for key, value in description.items() if key != "kind"})


def descriptor_from_description(description: Mapping[str, Any]) -> Descriptor:
    """Build the descriptor described by :meth:`Descriptor.describe`, whatever its kind.

    Raises:
        DescriptorError: for a kind that is not known or arguments that do not fit it.
    """
    kind = description.get("kind")
    if kind not in _KINDS:
        raise DescriptorError(
            f"descriptor kind {kind!r} is not known; expected one of {sorted(_KINDS)}: "
            "the description may come from a newer version"
        )
    try:
        return _KINDS[kind].from_description(description)
    except (TypeError, KeyError) as error:
        raise DescriptorError(
            f"description of a {kind!r} descriptor does not fit: {error}"
        ) from error


class Concatenation(Descriptor):
    """Several descriptors side by side.

    Args:
        parts: the descriptors, in the order of their columns; no feature name may occur twice.
    """

    kind = "concatenation"

    def __init__(self, parts: Sequence[Descriptor]):
        if not parts:
            raise DescriptorError("a concatenation needs at least one descriptor")
        self.parts = tuple(parts)
        names = [name for part in self.parts for name in part.names]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise DescriptorError(f"features named {repeated} occur in more than one descriptor")
        self._names = names

    @property
    def names(self) -> list[str]:
        """Names of all parts, in order."""
        return list(self._names)

    def __call__(
        self,
        points: Points,
        structure: Structure,
        positions: Tensor | None = None,
        cell: Tensor | None = None,
        occupancies: Tensor | None = None,
    ) -> Tensor:
        """Features of all parts, (n_points, n_features); see :meth:`Descriptor.__call__`."""
        parts = [part(points, structure, positions, cell, occupancies) for part in self.parts]
        return torch.cat(parts, dim=1)

    def describe(self) -> dict[str, Any]:
        """The descriptions of the parts, in order."""
        return {"kind": self.kind, "parts": [part.describe() for part in self.parts]}

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> Concatenation:
        """The concatenation that :meth:`describe` described."""
        return cls([descriptor_from_description(part) for part in description["parts"]])


def point_tensor(points: Points) -> Tensor:
    """Points as a (n_points, 3) float64 tensor, bohr; a function space gives its own.

    Raises:
        DescriptorError: for another shape or numbers that are not finite.
    """
    result = torch.as_tensor(getattr(points, "points", points), dtype=torch.float64)
    if result.ndim != 2 or result.shape[1] != 3:
        raise DescriptorError(f"points have shape {tuple(result.shape)}, expected (n_points, 3)")
    if not torch.isfinite(result).all():
        raise DescriptorError("points contain numbers that are not finite")
    return result


def feature_dtype(points: Points) -> torch.dtype:
    """Type of the numbers that features at these points have: float32 if the points do."""
    given = getattr(points, "points", points)
    single = isinstance(given, Tensor | np.ndarray) and given.dtype in (torch.float32, np.float32)
    return torch.float32 if single else torch.float64


def check_space(space: TensorSpace, structure: Structure, cell: Tensor | None) -> None:
    """Raise unless a space can stand for the points of a structure.

    Raises:
        DescriptorError: for a cell beside the space, which has its own.
        SpaceError: for a space that does not fit the structure.
    """
    if cell is not None:
        raise DescriptorError(
            "a TensorSpace brings its own cell: to differentiate in it pass "
            "space.scaled(factors) and scaled positions instead of cell"
        )
    space.check_matches(structure)


def atom_tensors(
    structure: Structure,
    positions: Tensor | None = None,
    cell: Tensor | None = None,
    occupancies: Tensor | None = None,
    device: torch.device | str = "cpu",
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Positions (n_atoms, 3), cell (3, 3) or None, occupancies (n_atoms,), float64.

    What is given replaces the structure's own and keeps its history for differentiation.
    The cell is None for structures that are not periodic.

    Raises:
        DescriptorError: for shapes that do not fit the structure, numbers that are not finite,
            or a cell for a structure that is not periodic.
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
