"""Anderson mixing of densities, preconditioned by Kerker's screening."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import torch
from torch import Tensor

from fedens.fem.space import FunctionSpace

#: Residuals remembered.
_DEPTH = 8
#: Squared wave number below which the electrons screen a change of the density, bohr^-2.
_SCREENING = 0.64


class AndersonMixer:
    """Next input of a fixed-point iteration from all recent inputs and residuals.

    Anderson, J. ACM 12, 547 (1965): the combination of recent residuals that is smallest in the
    norm of ``inner``, followed by one damped, preconditioned step.
    """

    def __init__(
        self,
        inner: Callable[[Tensor, Tensor], Tensor],
        precondition: Callable[[Tensor], Tensor] | None = None,
        damping: float = 0.8,
    ):
        self.inner, self.precondition, self.damping = inner, precondition, damping
        self._history: deque[tuple[Tensor, Tensor]] = deque(maxlen=_DEPTH)

    def next(self, given: Tensor, residual: Tensor) -> Tensor:
        """The input to try next, from the one given (n,) and its residual (n,)."""
        x, r = given, residual
        if self._history:
            dx = torch.stack([given - old for old, _ in self._history])
            dr = torch.stack([residual - old for _, old in self._history])
            gram = torch.stack([torch.stack([self.inner(a, b) for b in dr]) for a in dr])
            right = torch.stack([self.inner(a, residual) for a in dr])
            # a residual that stayed the same has no length and no share
            scale = gram.diagonal().clamp(min=torch.finfo(gram.dtype).tiny).rsqrt()
            scaled = gram * scale[:, None] * scale
            inverse = torch.linalg.pinv(scaled, rtol=1e-10, hermitian=True)
            factors = scale * (inverse @ (scale * right))
            x, r = given - factors @ dx, residual - factors @ dr
        self._history.append((given, residual))
        return x + self.damping * (r if self.precondition is None else self.precondition(r))


def kerker(space: FunctionSpace) -> Callable[[Tensor], Tensor]:
    """Kerker's preconditioner q^2/(q^2 + q0^2), Phys. Rev. B 23, 3082 (1981).

    As one minus its long waves: what of a density no mode of the space holds passes unchanged.
    """
    return lambda residual: (
        residual - space.apply(lambda q2: _SCREENING / (q2 + _SCREENING), residual)
    )
