"""Work in blocks, whose intermediate results are made again where derivatives are wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def runner(tensors: Iterable[Tensor | None]) -> Callable[..., Tensor]:
    """Calls a function of a block.

    If one of the tensors is differentiated the function runs again for the derivatives, so that
    the memory held in between is that of its results.
    """
    wanted = any(t is not None and t.requires_grad for t in tensors)
    if wanted and torch.is_grad_enabled():
        return partial(checkpoint, use_reentrant=False, preserve_rng_state=False)
    return lambda function, *arguments: function(*arguments)
