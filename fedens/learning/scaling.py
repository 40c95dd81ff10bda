"""Scaling of features to zero mean and unit spread."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedens.errors import DescriptorError

#: Columns that vary by less than this share of their size count as constant.
_CONSTANT = 1e-10


@dataclass(frozen=True, eq=False)
class Standardise:
    """(features - mean) / scale, column by column.

    Attributes:
        mean: (n_features,), float64.
        scale: (n_features,), float64: standard deviation, 1 for constant columns.
    """

    mean: Tensor
    scale: Tensor

    def __post_init__(self) -> None:
        if self.mean.ndim != 1 or self.mean.shape != self.scale.shape or (self.scale <= 0).any():
            raise DescriptorError(
                f"mean has shape {tuple(self.mean.shape)}, scale {tuple(self.scale.shape)}: "
                "expected the same (n_features,), and positive scales"
            )

    @classmethod
    def fit(cls, chunks: Iterable[Tensor | NDArray[np.float64]]) -> Standardise:
        """Mean and standard deviation of all rows of some (n_rows, n_features) chunks.

        Each chunk is read once and none is kept, so they may come from a generator. Sums are
        merged as in Chan, Golub and LeVeque, Am. Stat. 37, 242 (1983), equation 2.1, without
        cancellation when the mean is large.

        Raises:
            DescriptorError: without any row, for shapes that differ, or for NaN and infinity.
        """
        count, mean, squares = 0, torch.zeros(0), torch.zeros(0)
        for chunk in chunks:
            rows = torch.as_tensor(chunk).detach().to(torch.float64)
            _check_rows(rows, len(mean) if count else None)
            if not len(rows):
                continue
            centre = rows.mean(dim=0)
            spread = ((rows - centre) ** 2).sum(dim=0)
            if not count:
                count, mean, squares = len(rows), centre, spread
                continue
            step, total = centre - mean, count + len(rows)
            mean = mean + step * (len(rows) / total)
            squares = squares + spread + step**2 * (count * len(rows) / total)
            count = total
        if not count:
            raise DescriptorError("no features to learn a scale from: all chunks are empty")
        deviation = (squares / count).sqrt()
        return cls(mean, torch.where(deviation > _CONSTANT * mean.abs(), deviation, 1.0))

    @property
    def n_features(self) -> int:
        """Number of columns."""
        return len(self.mean)

    def __call__(self, features: Tensor) -> Tensor:
        """Scaled features (..., n_features), in the dtype and on the device of the input."""
        if features.ndim == 0 or features.shape[-1] != self.n_features:
            raise DescriptorError(
                f"features have shape {tuple(features.shape)}, but the scale was learned for "
                f"{self.n_features} columns: use the descriptor it was learned with"
            )
        return (features - self.mean.to(features)).div_(self.scale.to(features))


def _check_rows(rows: Tensor, n_features: int | None) -> None:
    if rows.ndim != 2 or (n_features is not None and rows.shape[1] != n_features):
        expected = "(n_rows, n_features)" if n_features is None else f"(n_rows, {n_features})"
        raise DescriptorError(f"features have shape {tuple(rows.shape)}, expected {expected}")
    if not torch.isfinite(rows).all():
        raise DescriptorError("features contain numbers that are not finite: no scale from them")
