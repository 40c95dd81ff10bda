"""Rotational invariants from two expansions in solid harmonics: power spectra and their forms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fedens.errors import DescriptorError
from fedens.features.descriptor import Descriptor, Expansion, descriptor_from_description
from fedens.features.surroundings import Surroundings

FORMS = ("root", "squared", "smooth")


def in_form(product: Tensor, form: str, smoothing: float) -> Tensor:
    """A sum of products of moments as it is ("squared"), or its root, with its sign.

    "root": zero where the product vanishes, where it has no derivative; "smooth":
    sqrt(|product| + e^2) - e with e = ``smoothing``, differentiable where the product is a square.
    """
    if form == "squared":
        return product
    size = product.abs()
    if form == "smooth":
        return product / (torch.sqrt(size + smoothing**2) + smoothing)
    vanishes = size == 0
    root = torch.sqrt(torch.where(vanishes, 1.0, size))
    return torch.where(vanishes, 0.0, torch.sign(product) * root)


class PowerSpectrum(Descriptor):
    """Invariants of two descriptors together: sum over m of A_lm B_lm, with its sign.

    For example the local density (:class:`GMP`) times the long-range field (:class:`LODE`), the
    multiscale features of Grisafi, Nigam and Ceriotti, Chem. Sci. 12, 2078 (2021). One column for
    every order that both have, every row of the first and every row of the second.

    Args:
        first, second: descriptors with ``moments``, such as GMP and LODE; their own ``form`` and
            ``scaling`` are those of the moments.

    Raises:
        DescriptorError: for a descriptor without moments.
    """

    kind = "power_spectrum"

    def __init__(self, first: Descriptor, second: Descriptor):
        self.first, self.second = _expansion(first), _expansion(second)

    @property
    def names(self) -> list[str]:
        """Names such as ``gmp_w0.7_lode_p1_s1_l2``."""
        orders = range(min(self.first.max_order, self.second.max_order) + 1)
        return [
            f"{self.first.kind}_{a}_{self.second.kind}_{b}_l{order}"
            for order in orders
            for a in self.first.moment_names
            for b in self.second.moment_names
        ]

    def features(self, around: Surroundings) -> Tensor:
        orders = zip(self.first.expand(around), self.second.expand(around), strict=False)
        products = [torch.einsum("amp,bmp->abp", a, b).flatten(0, 1) for a, b in orders]
        return torch.cat(products).T

    def describe(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "first": self.first.describe(),
            "second": self.second.describe(),
        }

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> PowerSpectrum:
        first = descriptor_from_description(description["first"])
        second = descriptor_from_description(description["second"])
        return cls(first, second)


def _expansion(part: Descriptor) -> Expansion:
    if not isinstance(part, Expansion):
        raise DescriptorError(
            f"{type(part).__name__} has no moments: a power spectrum needs two descriptors that "
            "expand in harmonics, such as GMP and LODE"
        )
    return part
