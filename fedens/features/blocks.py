"""Work in blocks, whose intermediate results are made again where derivatives are wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def runner(tensors: Iterable[Tensor | None]) -> Callable[..., Tensor]:
    """Calls a function of a block.

    If one of the tensors is differentiated the function runs again for the derivatives, so that
    the memory held in between is that of its results.
    """
    wanted = any(t is not None and t.requires_grad for t in tensors)
    return _economical if wanted and torch.is_grad_enabled() else _plain


def _plain(function: Callable[..., Tensor], *arguments: Any) -> Tensor:
    return function(*arguments)


def _economical(function: Callable[..., Tensor], *arguments: Any) -> Tensor:
    result: Tensor = checkpoint(function, *arguments, use_reentrant=False, preserve_rng_state=False)
    return result
