"""The range of structures that a model was trained on, and how far a new one leaves it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fedens.structure import Structure

#: For crystals, whose points are many.
_SLACK = 0.1
#: Relative slack of the number of atoms per volume.
_DENSITY_SLACK = 0.02


@dataclass(frozen=True, eq=False)
class TrainingDomain:
    """Range of features and structures in a training.

    Attributes:
        lowest, highest: of each scaled feature, (n_features,).
        elements: chemical symbols. atoms_per_volume: lowest and highest of the periodic
            structures, bohr^-3, or None.
    """

    lowest: Tensor
    highest: Tensor
    elements: tuple[str, ...]
    atoms_per_volume: tuple[float, float] | None

    @classmethod
    def of(cls, features: Tensor, structures: Sequence[Structure]) -> TrainingDomain:
        """The domain of scaled features (..., n_features) of some structures."""
        rows = features.flatten(0, -2)
        densities = [len(s) / s.volume for s in structures if s.periodic]
        return cls(
            rows.amin(dim=0).double().cpu(),
            rows.amax(dim=0).double().cpu(),
            tuple(sorted({symbol for s in structures for symbol in s.symbols})),
            (min(densities), max(densities)) if densities else None,
        )

    @torch.no_grad()
    def points_outside(self, features: Tensor, slack: float = _SLACK) -> int:
        """How many of the points with scaled features (n_points, n_features) lie outside.

        Args:
            slack: share of a feature's range by which a point may lie outside before it counts.
        """
        room = slack * (self.highest - self.lowest)
        low, high = (t.to(features) for t in (self.lowest - room, self.highest + room))
        return int(((features < low) | (features > high)).any(dim=1).sum())

    def complaints(self, structure: Structure) -> list[str]:
        """How a structure as a whole leaves the training, in words."""
        result = []
        foreign = sorted(set(structure.symbols) - set(self.elements))
        if foreign:
            result.append(f"elements {', '.join(foreign)} (trained on {', '.join(self.elements)})")
        if structure.periodic and self.atoms_per_volume is not None:
            low, high = self.atoms_per_volume
            density = len(structure) / structure.volume
            if not low * (1 - _DENSITY_SLACK) <= density <= high * (1 + _DENSITY_SLACK):
                result.append(
                    f"{density:.5f} atoms per bohr^3 (trained on {low:.5f} to {high:.5f})"
                )
        return result

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What is stored with the weights."""
        return {"domain.lowest": self.lowest, "domain.highest": self.highest}

    def describe(self) -> dict[str, Any]:
        """What is stored as text."""
        return {"elements": list(self.elements), "atoms_per_volume": self.atoms_per_volume}

    @classmethod
    def restore(cls, tensors: dict[str, Tensor], description: Mapping[str, Any]) -> TrainingDomain:
        """The domain of :attr:`tensors`, which are taken out, and :meth:`describe`."""
        volume = description["atoms_per_volume"]
        return cls(
            tensors.pop("domain.lowest"),
            tensors.pop("domain.highest"),
            tuple(description["elements"]),
            None if volume is None else (volume[0], volume[1]),
        )
