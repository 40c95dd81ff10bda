"""What every descriptor of atomic surroundings offers, and the joining of several."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from fedens.errors import DescriptorError
from fedens.features.surroundings import Points, Surroundings
from fedens.structure import Structure

_KINDS: dict[str, type[Descriptor]] = {}


class Descriptor(ABC):
    """Numbers that describe the atoms as seen from reference points.

    Subclasses set :attr:`kind`, a name that is stored with models and unique among descriptors,
    and implement :meth:`features`.
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
    def features(self, around: Surroundings) -> Tensor:
        """Features (n_points, n_features) of the atoms around the points."""

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

        Raises:
            DescriptorError: see :meth:`.Surroundings.at`, and each descriptor.
            SpaceError: for a TensorSpace that does not fit the structure.
        """
        return self.features(Surroundings.at(points, structure, positions, cell, occupancies))

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


class Expansion(Descriptor):
    """A descriptor whose features are made from moments that turn as harmonics.

    The rows of the moments are named by :attr:`moment_names`. All is differentiable in points,
    positions, cell and occupancies, also twice; memory stays bounded by working in blocks of
    points, which are computed again for derivatives. On a TensorSpace derivatives with respect to
    the cell are those of the space: pass ``space.scaled(factors)``.
    """

    max_order: int

    @property
    @abstractmethod
    def moment_names(self) -> list[str]:
        """One name per row."""

    @abstractmethod
    def expand(self, around: Surroundings) -> list[Tensor]:
        """For each order l from 0 on, the moments (n_rows, 2l + 1, n_points)."""

    def moments(
        self, points: Points, structure: Structure, **replaced: Tensor | None
    ) -> list[Tensor]:
        """The moments at points; arguments, derivatives and errors are those of the call.

        Returns:
            for each order l from 0 to ``max_order`` a tensor (n_rows, 2l + 1, n_points). They
            turn as the real solid harmonics, m = -l to l, of
            :func:`fedens.fem.harmonics.harmonic_coefficients`; products with those of another
            descriptor, summed over m, are invariants of both.
        """
        return self.expand(Surroundings.at(points, structure, **replaced))


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
        return list(self._names)

    def features(self, around: Surroundings) -> Tensor:
        return torch.cat([part.features(around) for part in self.parts], dim=1)

    def describe(self) -> dict[str, Any]:
        return {"kind": self.kind, "parts": [part.describe() for part in self.parts]}

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> Concatenation:
        return cls([descriptor_from_description(part) for part in description["parts"]])
