r"""Long-distance equivariants: the atoms' field of any inverse power of the distance, at any point.

After K. K. Huguenin-Dumittan, P. Loche, N. Haoran and M. Ceriotti, J. Phys. Chem. Lett. 14, 9612
(2023). Atoms of weight w_j make a potential that is smeared at short range,

    V_p(r) = sum_j w_j v_{p,s}(|r - r_j|),   v_{p,s}(r) = gamma(p/2, r^2/(2 s^2))/(Gamma(p/2) r^p),

which is 1/r^p beyond a few s: p = 1 electrostatics, p = 6 dispersion, any p between. Around each
point it is expanded in closed form, without a radial basis,

    F_lm(r) = S_lm(grad) V_p(r),   S_lm = r^l Y_lm with orthonormal real Y_lm,

and sums over m of products of two F_lm are rotational invariants. Sums over periodic images are in
:mod:`fedens.features.ewald`, kernels in :mod:`fedens.features.power_law`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import torch
from ase.data import atomic_numbers
from torch import Tensor

from fedens.errors import DescriptorError
from fedens.features.descriptor import Expansion
from fedens.features.ewald import Reduction, fields_at_points, fields_on_space
from fedens.features.pairs import wrapped
from fedens.features.parameters import different, finite, one_of, positive, whole
from fedens.features.power_law import PowerLaws, log_of_kernel_at_zero
from fedens.features.spectrum import FORMS, in_form
from fedens.features.surroundings import Surroundings
from fedens.features.waves import Sources
from fedens.structure import Structure

#: Largest l of the expansion.
MAX_ANGULAR = 6

#: Largest logarithm of a kernel, whose square is still a number.
_LARGEST_LOG = 300.0

_CHANNELS = ("element", "sum")


class LODE(Expansion):
    """Long-distance features of the fields of one or several exponents.

    Columns: for each field (a channel and an exponent) F_00, with its sign, and for l > 0 the
    power spectrum sum over m of F_lm^2.

    Args:
        exponent: p > 0, or several; whole or not.
        smearing: s > 0, bohr: nearer than about 3 s the kernel differs from 1/r^p. It is finite
            everywhere, also on an atom, which then sees itself.
        max_angular: largest l, 0 to 6.
        weights: {element symbol: w}, for example charges or valences; default for
            ``channels="sum"``: 1 for every element. They are multiplied by the occupancies, so
            weights of single atoms can be passed as ``occupancies`` to each call.
        channels: "element" for a field of each element in ``weights`` by itself (zero where a
            structure has none), "sum" for one field of all atoms.
        form: of the power spectra. "root" for the square root as in :class:`GMP` (where it is
            zero it has no derivative; zero is returned), "squared" for the sum of squares, "smooth"
            for sqrt(sum + e^2) - e, differentiable everywhere, with e = ``smoothing``.
        cross: also, for l > 0, the products of two different fields, sum over m of F_lm F'_lm,
            with their sign; in the forms "root" and "smooth" the root of their size is taken.
        smoothing: the e of the form "smooth", in the unit of F_lm (bohr^-(p+l)).

    Raises:
        DescriptorError: for parameters out of range, at calls also for elements without weight.

    In periodic cells the sum runs over all images. For p <= 3 it diverges unless the weights of a
    channel add up to zero; a uniform background then makes the cell neutral (the field has zero
    mean), as is usual for charges, so that F_00 also depends on the cell's size. Cells may have
    any shape; structures that are periodic along some axes only are refused. Source: Huguenin-
    Dumittan et al., J. Phys. Chem. Lett. 14, 9612 (2023); their F_lm differ by factors of l.
    """

    kind = "lode"

    def __init__(
        self,
        exponent: float | Sequence[float],
        smearing: float,
        max_angular: int,
        weights: Mapping[str, float] | None = None,
        channels: str = "element",
        form: str = "root",
        cross: bool = False,
        smoothing: float = 1e-4,
    ):
        self.channels = one_of("channels", channels, _CHANNELS)
        if weights is None and channels == "element":
            raise DescriptorError(
                'channels="element" makes columns for each element in weights: pass them, for '
                'example weights={"Na": 1.0, "Cl": 1.0}, or channels="sum" for one field of all'
            )
        self.exponents = different(
            "exponent", exponent if isinstance(exponent, Sequence) else [exponent]
        )
        self.max_order = whole("max_angular", max_angular, MAX_ANGULAR)
        self.smearing = self._checked_smearing(smearing)
        self.weights = None if weights is None else _checked_weights(weights)
        self.form = one_of("form", form, FORMS)
        self.cross = bool(cross)
        self.smoothing = positive("smoothing", smoothing)

    def _checked_smearing(self, smearing: float) -> float:
        result = positive("smearing", smearing)
        size = max(log_of_kernel_at_zero(p, result, self.max_order) for p in self.exponents)
        if size > _LARGEST_LOG:
            raise DescriptorError(
                f"smearing is {smearing} bohr: the kernel on an atom, exp({size:.0f}), is too "
                "large for a number; use a larger smearing"
            )
        return result

    @property
    def moment_names(self) -> list[str]:
        """One name per field, such as ``p1_s0.7`` or ``Na_p6_s0.7``; see :meth:`moments`."""
        fields = [f"p{p:g}_s{self.smearing:g}" for p in self.exponents]
        if self.channels == "sum":
            return fields
        return [f"{element}_{field}" for element in self.weights or {} for field in fields]

    @property
    def names(self) -> list[str]:
        """Names such as ``lode_0_p1_s0.7`` (l = 0) and, for products, ``lode_2_p1_p6_s0.7``."""
        fields = self.moment_names
        columns = [f"lode_0_{field}" for field in fields]
        for order in range(1, self.max_order + 1):
            for i, j in self._field_pairs:
                pair = fields[i] if i == j else f"{fields[i]}_{fields[j]}"
                columns.append(f"lode_{order}_{pair}")
        return columns

    def describe(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "exponent": list(self.exponents),
            "smearing": self.smearing,
            "max_angular": self.max_order,
            "weights": None if self.weights is None else dict(self.weights),
            "channels": self.channels,
            "form": self.form,
            "cross": self.cross,
            "smoothing": self.smoothing,
        }

    def features(self, around: Surroundings) -> Tensor:
        """Features at the points, (n_points, n_features), in bohr^-(p+l) ("squared": its square).

        Sums over images are good to about 1e-12 of the largest values, for points in float32 to a
        few 1e-5. On a periodic TensorSpace sums over waves factor over the axes.

        Raises:
            DescriptorError: for elements without weight, slabs and wires.
        """
        return self._rows(self._columns, around).T

    def expand(self, around: Surroundings) -> list[Tensor]:
        """The F_lm, fields in the order of :attr:`moment_names`, in bohr^-(p+l)."""
        rows = self._rows(lambda moments: moments.flatten(0, 1), around)
        n_harmonics = (self.max_order + 1) ** 2
        moments = rows.reshape(len(self.moment_names), n_harmonics, rows.shape[1])
        return list(moments.split([2 * n + 1 for n in range(self.max_order + 1)], dim=1))

    def _rows(self, reduction: Reduction, around: Surroundings) -> Tensor:
        """What a reduction makes of the moments, (n_rows, n_points)."""
        self._check_structure(around.structure)
        laws = PowerLaws(self.exponents, self.smearing, self.max_order)
        channels = self._weighted_atoms(around.structure, around.occupancies)
        sources = Sources(around.positions, channels, around.cell)
        if around.space is not None and around.space.is_periodic:
            return fields_on_space(laws, sources, around.space, reduction)
        points = wrapped(around.points, around.cell)
        return fields_at_points(laws, sources, points, reduction, dtype=around.dtype)

    def _check_structure(self, structure: Structure) -> None:
        if structure.pbc.any() and not structure.periodic:
            raise DescriptorError(
                f"pbc is {structure.pbc.tolist()}: long-range sums over slabs and wires are not "
                "supported; use a fully periodic cell with vacuum, or an isolated structure"
            )
        missing = [s for s in dict.fromkeys(structure.symbols) if s not in (self.weights or [s])]
        if missing:
            raise DescriptorError(
                f"no weight for element {', '.join(missing)}; there are some for "
                f"{', '.join(self.weights or {})}: pass weights={{symbol: w}} with all elements"
            )

    def _weighted_atoms(
        self, structure: Structure, filled: Tensor
    ) -> list[tuple[list[int], Tensor]]:
        """For each channel, indices of its atoms and their weights times occupancies."""
        symbols = structure.symbols
        table = self.weights or dict.fromkeys(symbols, 1.0)
        weighted = filled * filled.new_tensor([table[s] for s in symbols])
        groups = [list(range(len(symbols)))]
        if self.channels == "element":
            groups = [[i for i, s in enumerate(symbols) if s == element] for element in table]
        return [(group, weighted[group]) for group in groups]

    @property
    def _field_pairs(self) -> list[tuple[int, int]]:
        """Pairs of fields whose products are features."""
        fields = range(len(self.moment_names))
        return [(i, i) for i in fields] + (list(combinations(fields, 2)) if self.cross else [])

    def _columns(self, moments: Tensor) -> Tensor:
        """Columns (n_features, n_points) from moments (n_fields, n_harmonics, n_points)."""
        columns = [moments[:, 0]]
        first, second = (list(side) for side in zip(*self._field_pairs, strict=True))
        for n in range(1, self.max_order + 1):
            of_order = moments[:, n * n : (n + 1) ** 2]
            product = (of_order[first] * of_order[second]).sum(dim=1)
            columns.append(in_form(product, self.form, self.smoothing))
        return torch.cat(columns)


def _checked_weights(weights: Mapping[str, float]) -> dict[str, float]:
    if not weights:
        raise DescriptorError("weights are empty: no element makes a field")
    for symbol in weights:
        if atomic_numbers.get(symbol, 0) < 1:
            raise DescriptorError(f"weights have the key {symbol!r}: expected chemical symbols")
    return {symbol: finite(f"weight of {symbol}", weight) for symbol, weight in weights.items()}
