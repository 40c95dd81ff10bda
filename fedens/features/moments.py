"""What the ways to compute Gaussian multipole features share: moments, and what is kept of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

#: For each channel, the elements that it adds up.
Channels: TypeAlias = Sequence[Sequence[str]]
#: Density (...) and, for each order n, moments (n_widths, 2n + 1, ...) at points.
Moments: TypeAlias = tuple[Tensor, list[Tensor]]
#: What is kept of the moments of each channel, as rows (n_rows, ...).
Reduction: TypeAlias = Callable[[Sequence[Moments]], Tensor]


def no_moments(nothing: Tensor, n_widths: int, max_order: int) -> Moments:
    """Moments of zero, of the shape of a density."""
    shape = nothing.shape
    return nothing, [nothing.new_zeros(n_widths, 2 * n + 1, *shape) for n in range(max_order + 1)]


def added(first: Moments, second: Moments) -> Moments:
    """Sum of two."""
    return first[0] + second[0], [a + b for a, b in zip(first[1], second[1], strict=True)]


def moment_rows(channels: Sequence[Moments]) -> Tensor:
    """All moments, order by order, then channels, widths and m: (n_rows, ...)."""
    of_order = zip(*(moments for _, moments in channels), strict=True)
    return torch.cat([m.flatten(0, 1) for moments in of_order for m in moments])
