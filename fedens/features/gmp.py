r"""Gaussian multipole features: rotational invariants of the density of superposed atoms.

After X. Lei and A. J. Medford, J. Phys. Chem. Lett. 13, 7911 (2022). Each element has a density
sum_g B_g exp(-beta_g r^2). A probe A exp(-alpha r^2) S_n(r) of width sigma = (2 alpha)^(-1/2),
A = (sigma sqrt(2 pi))^-3, at a point r_p sees it through Maxwell-Cartesian solid harmonics S_n of
order n. Harmonics are only shifted by a Gaussian, so one atomic Gaussian at d = R - r_p gives

    c = A B (pi/(alpha+beta))^(3/2) exp(-alpha beta d^2/(alpha+beta)),   v = beta d/(alpha+beta),

and with the sum over all Gaussians of all atoms, periodic images included,

    F_n^2 = (2n-1)!! n! (4 pi/(2n+1)) sum_m |sum_i c_i R_nm(v_i)|^2,

where R_nm = r^n Y_nm are the orthonormal real solid harmonics. Three ways to the same numbers: a
sum over pairs of points and atoms (:mod:`fedens.features.pair_sum`), and on a tensor-product space
a product over the three axes (:mod:`fedens.features.axis_products`) or functions of the Laplacian
(:mod:`fedens.features.laplacian`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations_with_replacement
from typing import Any

import torch
from ase.data import atomic_numbers
from torch import Tensor

from fedens.errors import DescriptorError
from fedens.features.axis_products import separable_rows
from fedens.features.descriptor import Descriptor, Expansion
from fedens.features.laplacian import laplacian_rows
from fedens.features.moments import Moments, Reduction, moment_rows
from fedens.features.pair_sum import pair_rows
from fedens.features.parameters import different, finite, one_of, positive, whole
from fedens.features.probes import SCALINGS, Probes
from fedens.features.spectrum import FORMS, in_form
from fedens.features.surroundings import Surroundings
from fedens.species import all_element_gaussians
from fedens.structure import Structure

#: Largest order of the features.
MAX_ORDER = 20

_CHANNELS = ("sum", "element")
_PATHS = {"separable": separable_rows, "laplacian": laplacian_rows}


class GMP(Expansion):
    """Gaussian multipole features of order -1 (the density) and 0 to ``max_order``.

    Args:
        widths: widths sigma of the probes, bohr.
        max_order: largest order n.
        gaussians: {element symbol: [(B, beta), ...]}, densities sum B exp(-beta r^2) in
            bohr^-3 and bohr^-2; default: the table of :mod:`fedens.species`.
        scaling: "radial" for probes whose Gaussian has integral 1; "both" also divides by the
            norm of the probe, so that orders are of similar size.
        form: "root" for F_n as published (where F_n = 0, at symmetric sites, it has no
            derivative; zero is returned); "squared" for F_n^2; "smooth" for
            sqrt(F_n^2 + e^2) - e, differentiable everywhere, with e = ``smoothing``.
        channels: "sum" for one density of all elements, "element" for features of each
            element in ``gaussians`` by itself (zero where a structure has none).
        cutoff: distance at which the pair sum ends, bohr. The features jump there, by the size
            of what is neglected. Default: far enough for errors below 1e-9 of the largest value
            to order 3, and 1e-7 to order 8. A TensorSpace neglects nothing, whatever the cutoff.
        cross_widths: also, for n > 0, the products of two widths, sum over m of
            A_nm(sigma) A_nm(sigma'), with their sign; in the forms "root" and "smooth" the
            root of their size is taken.
        smoothing: the e of the form "smooth", in the unit of F_n (bohr^(n-3)).
        path: how sums over atoms are done on a TensorSpace: "separable" exactly, as a product
            over the axes, at a cost that grows with the number of atoms; "laplacian", periodic
            only, with functions of the space's Laplacian for the wider widths, at a cost that does
            not, and with a root-mean-square error below 1e-4 of each feature's spread to order 3.

    Raises:
        DescriptorError: for parameters out of range, at calls also for elements without data.

    The density itself is its absolute value, once per channel, whatever the form. Source:
    Lei and Medford, J. Phys. Chem. Lett. 13, 7911 (2022); the closed form is the module's.
    """

    kind = "gmp"

    def __init__(
        self,
        widths: Sequence[float],
        max_order: int,
        gaussians: Mapping[str, Sequence[Sequence[float]]] | None = None,
        scaling: str = "radial",
        form: str = "root",
        channels: str = "sum",
        cutoff: float | None = None,
        cross_widths: bool = False,
        smoothing: float = 1e-4,
        path: str = "separable",
    ):
        if gaussians is None and channels == "element":
            raise DescriptorError(
                'channels="element" makes columns for each element in gaussians: pass them, for '
                'example gaussians={"Al": element_gaussians("Al")} with fedens.species'
            )
        self.widths = different("widths", widths)
        self.max_order = whole("max_order", max_order, MAX_ORDER)
        self.gaussians = _checked_gaussians(
            all_element_gaussians() if gaussians is None else gaussians
        )
        self.scaling = one_of("scaling", scaling, SCALINGS)
        self.form = one_of("form", form, FORMS)
        self.channels = one_of("channels", channels, _CHANNELS)
        self.cutoff = None if cutoff is None else positive("cutoff", cutoff)
        self.cross_widths = bool(cross_widths)
        self.smoothing = positive("smoothing", smoothing)
        self.path = one_of("path", path, list(_PATHS))

    @property
    def names(self) -> list[str]:
        """Names such as ``gmp_density`` and ``gmp_2_w0.7`` (order 2, width 0.7 bohr)."""
        columns = ["density"]
        for order in range(self.max_order + 1):
            for i, j in self._width_pairs(order):
                pair = f"w{self.widths[i]:g}" + ("" if i == j else f"_w{self.widths[j]:g}")
                columns.append(f"{order}_{pair}")
        if self.channels == "sum":
            return [f"gmp_{column}" for column in columns]
        return [f"gmp_{element}_{column}" for element in self.gaussians for column in columns]

    @property
    def moment_names(self) -> list[str]:
        """One name per channel and width, such as ``w0.7`` or ``Al_w0.7``; see :meth:`moments`."""
        widths = [f"w{width:g}" for width in self.widths]
        if self.channels == "sum":
            return widths
        return [f"{element}_{width}" for element in self.gaussians for width in widths]

    def describe(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "widths": list(self.widths),
            "max_order": self.max_order,
            "gaussians": {s: [list(pair) for pair in g] for s, g in self.gaussians.items()},
            "scaling": self.scaling,
            "form": self.form,
            "channels": self.channels,
            "cutoff": self.cutoff,
            "cross_widths": self.cross_widths,
            "smoothing": self.smoothing,
            "path": self.path,
        }

    def dilated(self, factor: float) -> tuple[Descriptor, Tensor] | None:
        """Widths grow, densities keep their charge; see :meth:`Descriptor.dilated`.

        None in the form "smooth", whose smoothing has another unit for each order.
        """
        if self.form == "smooth":
            return None
        larger = self.describe() | {
            "widths": [factor * width for width in self.widths],
            "cutoff": None if self.cutoff is None else factor * self.cutoff,
            "gaussians": {
                s: [(b / factor**3, beta / factor**2) for b, beta in pairs]
                for s, pairs in self.gaussians.items()
            },
        }
        powers = []
        for order in range(self.max_order + 1):
            power = order - 3 if self.scaling == "radial" else -4.5
            power *= 2 if self.form == "squared" else 1
            powers += [power] * len(self._width_pairs(order))
        n_channels = 1 if self.channels == "sum" else len(self.gaussians)
        powers = [-3, *powers] * n_channels
        return self.from_description(larger), factor ** torch.tensor(powers, dtype=torch.float64)

    def features(self, around: Surroundings) -> Tensor:
        """Features at the points, (n_points, n_features), in bohr^(n-3) ("squared": its square).

        Points in float32 give errors of about 1e-5 of the largest values to order 3. On a
        TensorSpace ``path`` says how the sum over atoms is done.

        Raises:
            DescriptorError: for elements without Gaussians, or functions of the Laplacian in an
                isolated space.
        """
        return self._rows(self._columns, around).T

    def expand(self, around: Surroundings) -> list[Tensor]:
        """Moments A_nm, whose squares summed over m are the features F_n^2.

        Rows (n_channels * n_widths), channels slowest, in bohr^(n-3) ("element": channels in the
        order of ``gaussians``).
        """
        rows = self._rows(moment_rows, around)
        n_series = len(self.widths) * (1 if self.channels == "sum" else len(self.gaussians))
        sizes = [n_series * (2 * n + 1) for n in range(self.max_order + 1)]
        return [
            part.reshape(n_series, 2 * n + 1, rows.shape[1])
            for n, part in enumerate(rows.split(sizes))
        ]

    def _rows(self, reduction: Reduction, around: Surroundings) -> Tensor:
        """What a reduction makes of the moments of each channel, (n_rows, n_points)."""
        self._check_elements(around.structure)
        probes = Probes(self.gaussians, self.widths, self.max_order, self.scaling)
        channels = self._channels(around)
        if around.space is not None:
            return _PATHS[self.path](reduction, around.space, around, channels, probes)
        return pair_rows(
            reduction, around.points, around, channels, probes, self.cutoff, around.dtype
        )

    def _check_elements(self, structure: Structure) -> None:
        missing = [s for s in dict.fromkeys(structure.symbols) if s not in self.gaussians]
        if missing:
            raise DescriptorError(
                f"no Gaussians for element {', '.join(missing)}; there are some for "
                f"{', '.join(self.gaussians)}: pass gaussians={{symbol: [(B, beta), ...]}}"
            )

    def _width_pairs(self, order: int) -> list[tuple[int, int]]:
        """Pairs of widths whose product is a feature of this order."""
        indices = range(len(self.widths))
        if self.cross_widths and order > 0:
            return list(combinations_with_replacement(indices, 2))
        return [(i, i) for i in indices]

    def _columns(self, channels: Sequence[Moments]) -> Tensor:
        """Columns (n_features, ...) from the moments of each channel."""
        columns = []
        for density, moments in channels:
            columns.append(density.abs()[None])
            for order, values in enumerate(moments):
                first, second = map(list, zip(*self._width_pairs(order), strict=True))
                products = values**2 if first == second else values[first] * values[second]
                columns.append(in_form(products.sum(dim=1), self.form, self.smoothing))
        return torch.cat(columns)

    def _channels(self, atoms: Surroundings) -> list[list[str]]:
        """Elements that are present, by the channel that they add to."""
        if self.channels == "sum":
            return [list(atoms.of_element)]
        return [[s] if s in atoms.of_element else [] for s in self.gaussians]


def _checked_gaussians(
    gaussians: Mapping[str, Sequence[Sequence[float]]],
) -> dict[str, tuple[tuple[float, float], ...]]:
    result = {}
    for symbol, pairs in gaussians.items():
        if atomic_numbers.get(symbol, 0) < 1:
            raise DescriptorError(f"gaussians has the key {symbol!r}: expected chemical symbols")
        if len(pairs) == 0 or any(len(pair) != 2 for pair in pairs):
            raise DescriptorError(f"gaussians of {symbol} are {pairs}: expected [(B, beta), ...]")
        result[symbol] = tuple(
            (finite(f"B of {symbol}", b), positive(f"beta of {symbol}", beta)) for b, beta in pairs
        )
    if not result:
        raise DescriptorError("gaussians is empty: no element has a density")
    return result
