"""Local and semilocal exchange and correlation, spin-unpolarised.

Perdew-Zunger in closed form; everything else from libxc through PySCF.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fedens.data.density import Density
from fedens.energy.pseudopotential import LocalPseudopotential
from fedens.energy.terms import DensityTerm, LocalTerm
from fedens.errors import FunctionalError, MixtureWarning

_EXCHANGE = -0.75 * (3 / math.pi) ** (1 / 3)
_WIGNER_SEITZ = (3 / (4 * math.pi)) ** (1 / 3)
# Perdew and Zunger, Phys. Rev. B 23, 5048 (1981), table XII, unpolarised
_GAMMA, _BETA1, _BETA2 = -0.1423, 1.0529, 0.3334
_A, _B, _C, _D = 0.0311, -0.048, 0.0020, -0.0116


class DiracExchange(LocalTerm):
    """Exchange of the uniform gas, -(3/4)(3/pi)^(1/3) n^(4/3)."""

    kind = code = "lda_x"
    name = group = "xc"

    def energy_density_and_potential(self, n: Tensor, cube_root: Tensor) -> tuple[Tensor, Tensor]:
        potential = (4 / 3) * _EXCHANGE * cube_root
        return 0.75 * potential * n, potential


class PerdewZunger(LocalTerm):
    """LDA of Perdew and Zunger, Phys. Rev. B 23, 5048 (1981), with Dirac exchange."""

    kind = code = "lda_pz"
    name = group = "xc"

    def energy_density_and_potential(self, n: Tensor, cube_root: Tensor) -> tuple[Tensor, Tensor]:
        rs = _WIGNER_SEITZ / cube_root
        energy, slope = _low_density(rs)
        dense = rs < 1
        if dense.any():
            high_energy, high_slope = _high_density(rs[dense])
            energy = energy.index_put((dense,), high_energy)
            slope = slope.index_put((dense,), high_slope)
        potential = (4 / 3) * _EXCHANGE * cube_root
        return (0.75 * potential + energy) * n, potential + energy - rs * slope / 3


def _low_density(rs: Tensor) -> tuple[Tensor, Tensor]:
    """Correlation energy per electron and its r_s derivative for r_s >= 1."""
    root = torch.sqrt(rs)
    denominator = 1 + _BETA1 * root + _BETA2 * rs
    energy = _GAMMA / denominator
    return energy, -energy / denominator * (0.5 * _BETA1 / root + _BETA2)


def _high_density(rs: Tensor) -> tuple[Tensor, Tensor]:
    """Correlation energy per electron and its r_s derivative for r_s < 1."""
    log = torch.log(rs)
    energy = _A * log + _B + _C * rs * log + _D * rs
    return energy, _A / rs + _C * (log + 1) + _D


#: Short names of functionals of libxc.
_SHORT = {"lda_pw": "lda_x,lda_c_pw", "lda_teter": "lda_xc_teter93", "pbe": "pbe,pbe"}


def _libxc(name: str, rho: Tensor, order: int = 1) -> tuple[Any, ...]:
    """Energy per electron and derivatives up to an order, as PySCF's ``eval_xc`` gives them."""
    from pyscf.dft import libxc

    result = libxc.eval_xc(_SHORT.get(name, name), rho.detach().cpu().numpy(), deriv=order)
    return tuple(result)


class _ByCode(DensityTerm):
    """A functional of libxc by its name there, evaluated through PySCF."""

    name = group = "xc"
    parameters = ("code",)

    def __init__(self, code: str):
        self.code = code


class LibxcLocal(_ByCode, LocalTerm):
    """Any LDA of libxc, such as ``lda_x,lda_c_pw``."""

    kind = "libxc_lda"

    def energy_density_and_potential(self, n: Tensor, cube_root: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        energy, potential = _LibxcLocal.apply(n, self.code)
        return energy, potential


class _LibxcLocal(torch.autograd.Function):
    """e(n) and v(n) of an LDA; v has a derivative, e is differentiated through v elsewhere."""

    @staticmethod
    def forward(ctx, n, code):  # type: ignore[no-untyped-def]
        per_electron, (potential, *_) = _libxc(code, n)[:2]
        energy = n * torch.as_tensor(per_electron).to(n)
        potential = torch.as_tensor(potential).to(n)
        ctx.code = code
        ctx.save_for_backward(n, potential)
        return energy, potential

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, energy_upstream, potential_upstream):  # type: ignore[no-untyped-def]
        n, potential = ctx.saved_tensors
        kernel = torch.as_tensor(_libxc(ctx.code, n, 2)[2][0]).to(n)
        return energy_upstream * potential + potential_upstream * kernel, None


class LibxcGradient(_ByCode):
    """Any GGA of libxc, such as ``pbe,pbe``."""

    kind = "libxc_gga"
    twice_differentiable = False

    def energy_density(self, density: Density) -> Tensor:
        values: Tensor = _GradientEnergyDensity.apply(density.values, density.gradient, self.code)
        return values

    def uniform_response(self, q2: Tensor, density: Tensor) -> Tensor:
        # the gradient's part only tunes a preconditioner; the local part is what matters
        return LibxcLocal("lda_x,lda_c_pw").uniform_response(q2, density)


class _GradientEnergyDensity(torch.autograd.Function):
    @staticmethod
    def forward(ctx, n, gradient, code):  # type: ignore[no-untyped-def]
        n = n.clamp(min=1e-20)
        per_electron, (v_rho, v_sigma, *_) = _libxc(code, torch.cat([n[None], gradient.T]))[:2]
        v_rho, v_sigma = (torch.as_tensor(v).to(n) for v in (v_rho, v_sigma))
        ctx.save_for_backward(v_rho, 2 * v_sigma[:, None] * gradient)
        return n * torch.as_tensor(per_electron).to(n)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, upstream):  # type: ignore[no-untyped-def]
        v_rho, v_gradient = ctx.saved_tensors
        return upstream * v_rho, upstream[:, None] * v_gradient, None


def exchange_correlation(name: str) -> DensityTerm:
    """The functional of a name: ``lda_pz``, ``lda_x`` in closed form; else a libxc name.

    ``lda_pw``, ``lda_teter`` and ``pbe`` are short for libxc's ``lda_x,lda_c_pw``,
    ``lda_xc_teter93`` (what GTH-PADE was made for) and ``pbe,pbe``.

    Raises:
        FunctionalError: when libxc does not know it, or it is neither an LDA nor a GGA.
    """
    for closed_form in (PerdewZunger, DiracExchange):
        if name == closed_form.code:
            return closed_form()
    if str(name).lower() == "lda":
        raise FunctionalError(
            "to libxc 'lda' is exchange alone: say which LDA, 'lda_pw', 'lda_pz' or 'lda_teter' "
            "with correlation, 'lda_x' without"
        )
    code = _SHORT.get(name, name)
    from pyscf.dft import libxc

    try:
        kind = libxc.xc_type(code)
    except (KeyError, ValueError) as error:
        raise FunctionalError(
            f"xc functional {name!r} is not known: use 'lda_pz', 'lda_x', 'lda_pw', 'lda_teter', "
            "'pbe' or a name that libxc knows, such as 'lda_x,lda_c_vwn'"
        ) from error
    if kind == "LDA":
        return LibxcLocal(name)
    if kind == "GGA" and not libxc.is_hybrid_xc(code):
        return LibxcGradient(name)
    raise FunctionalError(
        f"xc functional {name!r} is of type {kind}{' (hybrid)' if libxc.is_hybrid_xc(code) else ''}"
        ": a density alone can only carry an LDA or a GGA"
    )


def warn_of_mixture(xc: DensityTerm, pseudopotentials: Mapping[str, LocalPseudopotential]) -> None:
    """Warn where a pseudopotential was made for an LDA and ``xc`` is a GGA, or the reverse.

    Terms that are neither, and pseudopotentials that don't say, are passed over.
    """
    local, gradient = isinstance(xc, LocalTerm), isinstance(xc, LibxcGradient)
    family = "lda" if local else "gga" if gradient else None
    for symbol, pseudopotential in pseudopotentials.items():
        if None not in (family, made_for := pseudopotential.xc_family) and made_for != family:
            element = "every element" if symbol == "*" else symbol
            warnings.warn(
                f"the {pseudopotential.kind} pseudopotential of {element} was made for a "
                f"{str(made_for).upper()}, but xc is {getattr(xc, 'code', xc)!r}: take one made "
                f"for a {str(family).upper()}, or another xc",
                MixtureWarning,
                stacklevel=3,
            )
