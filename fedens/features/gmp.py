r"""Gaussian multipole features: rotational invariants of the density of superposed atoms.

After X. Lei and A. J. Medford, J. Phys. Chem. Lett. 13, 7911 (2022). Each element has a density
sum_g B_g exp(-beta_g r^2). A probe A exp(-alpha r^2) S_n(r) of width sigma = (2 alpha)^(-1/2),
A = (sigma sqrt(2 pi))^-3, at a point r_p sees it through Maxwell-Cartesian solid harmonics S_n of
order n. Harmonics are only shifted by a Gaussian, so one atomic Gaussian at d = R - r_p gives

    c = A B (pi/(alpha+beta))^(3/2) exp(-alpha beta d^2/(alpha+beta)),   v = beta d/(alpha+beta),

and with the sum over all Gaussians of all atoms, periodic images included,

    F_n^2 = (2n-1)!! n! (4 pi/(2n+1)) sum_m |sum_i c_i R_nm(v_i)|^2,

where R_nm = r^n Y_nm are the orthonormal real solid harmonics. Two ways to the same numbers: a sum
over pairs of points and atoms, and on a tensor-product space a product over the three axes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import combinations_with_replacement, product
from typing import Any

import torch
from ase.data import atomic_numbers
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from fedens.errors import DescriptorError
from fedens.features.descriptor import Descriptor, Points, atom_tensors, point_tensor
from fedens.features.harmonics import harmonic_coefficients, monomials
from fedens.features.pairs import Images, wrapped
from fedens.fem.separable import gaussian_factors
from fedens.fem.tensor import TensorSpace
from fedens.species import all_element_gaussians
from fedens.structure import Structure

#: Without a cutoff, the pair sum follows Gaussians until exp(-30) = 1e-13 of their height.
_REACH_EXPONENT = 30.0
#: Entries of one block of the pair sum (points x neighbours x Gaussians).
_PAIR_ENTRIES = 800_000
#: Entries of one block on a space (monomials x points, or x Gaussians of a plane).
_BLOCK_ENTRIES = 1_000_000

#: Gaussians below this share of their height, times powers of the distance, are left out.
_NEGLIGIBLE = 1e-13

#: Largest order of the features.
MAX_ORDER = 20

_SCALINGS = ("radial", "both")
_FORMS = ("root", "squared", "smooth")
_CHANNELS = ("sum", "element")

#: Density (...) and, for each order n, moments (n_widths, 2n + 1, ...) at points.
_Moments = tuple[Tensor, list[Tensor]]
#: What is kept of the moments of each channel, as rows (n_rows, ...).
_Reduction = Callable[[Sequence[_Moments]], Tensor]


class GMP(Descriptor):
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
    ):
        if gaussians is None and channels == "element":
            raise DescriptorError(
                'channels="element" makes columns for each element in gaussians: pass them, for '
                'example gaussians={"Al": element_gaussians("Al")} with fedens.species'
            )
        self.widths = _checked_widths(widths)
        self.max_order = _checked_order(max_order)
        self.gaussians = _checked_gaussians(
            all_element_gaussians() if gaussians is None else gaussians
        )
        self.scaling = _one_of("scaling", scaling, _SCALINGS)
        self.form = _one_of("form", form, _FORMS)
        self.channels = _one_of("channels", channels, _CHANNELS)
        self.cutoff = None if cutoff is None else _positive("cutoff", cutoff)
        self.cross_widths = bool(cross_widths)
        self.smoothing = _positive("smoothing", smoothing)

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
        """All parameters, the element Gaussians as numbers."""
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
        }

    def __call__(
        self,
        points: Points,
        structure: Structure,
        positions: Tensor | None = None,
        cell: Tensor | None = None,
        occupancies: Tensor | None = None,
    ) -> Tensor:
        """Features at the points, (n_points, n_features), in bohr^(n-3) ("squared": its square).

        Differentiable in points, positions, cell and occupancies; memory stays bounded by
        working in blocks of points, which are computed again for derivatives. The work is done
        on the processor; the result is on the device of the points.

        Args:
            points: (n_points, 3), bohr, or a function space for its quadrature points. On a
                TensorSpace the sum over atoms factors over the axes; derivatives with respect
                to the cell are then those of the space: pass ``space.scaled(factors)``.
            structure, positions, cell, occupancies: see :meth:`Descriptor.__call__`.

        Raises:
            DescriptorError: for elements without Gaussians, shapes that do not fit, or a cell
                given together with a TensorSpace.
            SpaceError: for a TensorSpace that does not fit the structure.
        """
        return self._rows(self._features, points, structure, positions, cell, occupancies).T

    def moments(
        self,
        points: Points,
        structure: Structure,
        positions: Tensor | None = None,
        cell: Tensor | None = None,
        occupancies: Tensor | None = None,
    ) -> list[Tensor]:
        """Equivariant moments A_nm, whose squares summed over m are the features F_n^2.

        Returns:
            for each order n from 0 to ``max_order`` a tensor (n_channels * n_widths, 2n + 1,
            n_points), channels slowest, in bohr^(n-3): ("element": channels in the order of
            ``gaussians``). They turn as the real solid harmonics, m = -n to n, of
            :func:`fedens.features.harmonics.harmonic_coefficients`; products with those of
            another descriptor, summed over m, are invariants of both.

        Arguments, derivatives and errors are those of the call.
        """
        rows = self._rows(_moment_rows, points, structure, positions, cell, occupancies)
        n_series = len(self.widths) * (1 if self.channels == "sum" else len(self.gaussians))
        sizes = [n_series * (2 * n + 1) for n in range(self.max_order + 1)]
        return [
            part.reshape(n_series, 2 * n + 1, rows.shape[1])
            for n, part in enumerate(rows.split(sizes))
        ]

    def _rows(
        self,
        reduction: _Reduction,
        points: Points,
        structure: Structure,
        positions: Tensor | None,
        cell: Tensor | None,
        occupancies: Tensor | None,
    ) -> Tensor:
        """What a reduction makes of the moments of each channel, (n_rows, n_points)."""
        self._check_elements(structure)
        atoms = _Atoms(structure, *atom_tensors(structure, positions, cell, occupancies))
        if not isinstance(points, TensorSpace):
            seen = point_tensor(points)
            return self._near_points(reduction, seen.cpu(), atoms).to(seen.device)
        if cell is not None:
            raise DescriptorError(
                "a TensorSpace brings its own cell: to differentiate in it pass "
                "space.scaled(factors) and scaled positions instead of cell"
            )
        points.check_matches(structure)
        return self._on_space(reduction, points.to("cpu"), atoms).to(points.device)

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

    def _probes(self, elements: Sequence[str]) -> _Probes:
        """All Gaussians of some elements as the probes see them."""
        table = [(b, beta) for s in elements for b, beta in self.gaussians[s]]
        amplitudes, betas = torch.tensor(table, dtype=torch.float64).reshape(-1, 2).T
        alphas = 0.5 / torch.tensor(self.widths, dtype=torch.float64)[:, None] ** 2
        joint = alphas + betas
        overlap = amplitudes * (alphas / joint) ** 1.5  # A B (pi/(alpha+beta))^(3/2)
        strengths = []
        for n in range(self.max_order + 1):
            strength = math.sqrt(_invariant_factor(n)) * overlap * (betas / joint) ** n
            norm = _probe_norm(alphas, n) if self.scaling == "both" else 1.0
            strengths.append(strength / norm)
        return _Probes(amplitudes, betas, alphas * betas / joint, torch.stack(strengths))

    def _features(self, channels: Sequence[_Moments]) -> Tensor:
        """Columns (n_features, ...) from the moments of each channel."""
        columns = []
        for density, moments in channels:
            columns.append(density.abs()[None])
            for order, values in enumerate(moments):
                first, second = map(list, zip(*self._width_pairs(order), strict=True))
                products = values**2 if first == second else values[first] * values[second]
                columns.append(self._formed(products.sum(dim=1)))
        return torch.cat(columns)

    def _formed(self, product: Tensor) -> Tensor:
        if self.form == "squared":
            return product
        size = product.abs()
        if self.form == "smooth":
            return product / (torch.sqrt(size + self.smoothing**2) + self.smoothing)
        vanishes = size == 0
        root = torch.sqrt(torch.where(vanishes, 1.0, size))
        return torch.where(vanishes, 0.0, torch.sign(product) * root)

    def _channels(self, atoms: _Atoms) -> list[list[str]]:
        """Elements that are present, by the channel that they add to."""
        if self.channels == "sum":
            return [list(atoms.of_element)]
        return [[s] if s in atoms.of_element else [] for s in self.gaussians]

    # --- at any points: a sum over pairs ----------------------------------------------------

    def _near_points(self, reduction: _Reduction, points: Tensor, atoms: _Atoms) -> Tensor:
        points = wrapped(points, atoms.cell)
        cutoff = self._reach(atoms) if self.cutoff is None else self.cutoff
        sources = {
            s: (
                Images(where, atoms.positions, atoms.cell, atoms.occupancies, points, cutoff),
                self._probes([s]),
            )
            for s, where in atoms.of_element.items()
        }
        channels = self._channels(atoms)
        work = max(i.typical_neighbours * p.n_exponentials for i, p in sources.values())
        run = _economical if _differentiated(points, *atoms.tensors) else _plain
        columns = []
        for part in points.split(max(16, _PAIR_ENTRIES // work)):
            near = {s: images.near(part) for s, (images, _) in sources.items()}
            columns.append(run(self._pair_block, reduction, part, channels, sources, near))
        return torch.cat(columns, dim=1)

    def _pair_block(
        self,
        reduction: _Reduction,
        points: Tensor,
        channels: Sequence[Sequence[str]],
        sources: Mapping[str, tuple[Images, _Probes]],
        near: Mapping[str, Tensor],
    ) -> Tensor:
        """Rows (n_rows, n_points) of one block of points."""
        nothing = points.new_zeros(len(points))
        result = []
        for elements in channels:
            moments = _no_moments(nothing, len(self.widths), self.max_order)
            for s in elements:
                moments = _added(moments, _pair_moments(points, *sources[s], near[s]))
            result.append(moments)
        return reduction(result)

    def _reach(self, atoms: _Atoms) -> float:
        """Where the widest Gaussian has fallen to exp(-_REACH_EXPONENT), bohr."""
        smallest = float(self._probes(list(atoms.of_element)).exponents.min())
        return math.sqrt(_REACH_EXPONENT / smallest)

    # --- on a space: products over the axes -------------------------------------------------

    def _on_space(self, reduction: _Reduction, space: TensorSpace, atoms: _Atoms) -> Tensor:
        channels = [self._axis_products(space, atoms, e) for e in self._channels(atoms)]
        n_x, n_y, n_z = space.shape
        n_terms = (self.max_order + 1) * (self.max_order + 2) // 2
        n_gaussians = max(len(c.amplitudes) for c in channels if c is not None)
        rows = max(1, _BLOCK_ENTRIES // (n_terms * n_z * max(n_x, n_gaussians)))
        moved = _differentiated(*atoms.tensors, *(axis.points for axis in space.axes))
        run = _economical if moved and rows < n_y else _plain
        parts = [[None] * -(-n_y // rows) if c is None else c.in_rows(rows) for c in channels]
        columns = [
            run(self._space_block, reduction, space, block) for block in zip(*parts, strict=True)
        ]
        return torch.cat(columns, dim=2).flatten(1)

    def _axis_products(
        self, space: TensorSpace, atoms: _Atoms, elements: Sequence[str]
    ) -> _AxisProducts | None:
        """Per-axis factors of all Gaussians of some elements, seen through each probe."""
        if not elements:
            return None
        owners = [i for s in elements for i in atoms.of_element[s] for _ in self.gaussians[s]]
        repeated = [s for s in elements for _ in atoms.of_element[s]]
        probes = self._probes(repeated)
        centres, filled = atoms.positions[owners], atoms.occupancies[owners]
        factors = [
            [gaussian_factors(axis, centres[:, i], e, self.max_order) for e in probes.exponents]
            for i, axis in enumerate(space.axes)
        ]
        bare = [
            gaussian_factors(axis, centres[:, i], probes.betas)[0]
            for i, axis in enumerate(space.axes)
        ]
        return _AxisProducts(factors, bare, probes.strengths * filled, probes.amplitudes * filled)

    def _space_block(
        self,
        reduction: _Reduction,
        space: TensorSpace,
        channels: Sequence[_AxisProducts | None],
    ) -> Tensor:
        """Rows (n_rows, n_x, n_y of the block, n_z) of some points along y."""
        n_rows = next(len(c.bare[1]) for c in channels if c is not None)
        nothing = space.axes[0].points.new_zeros(space.shape[0], n_rows, space.shape[2])
        empty = _no_moments(nothing, len(self.widths), self.max_order)
        return reduction([empty if c is None else c.moments() for c in channels])


@dataclass(frozen=True, eq=False)
class _Atoms:
    """What is summed over, as tensors that may carry derivatives."""

    structure: Structure
    positions: Tensor
    cell: Tensor | None
    occupancies: Tensor

    @property
    def tensors(self) -> list[Tensor]:
        return [t for t in (self.positions, self.cell, self.occupancies) if t is not None]

    @property
    def of_element(self) -> dict[str, list[int]]:
        """Indices of the atoms of each element, in order of appearance."""
        groups: dict[str, list[int]] = {}
        for i, symbol in enumerate(self.structure.symbols):
            groups.setdefault(symbol, []).append(i)
        return groups


@dataclass(frozen=True, eq=False)
class _Probes:
    """Gaussians as the probes see them.

    Seen through probe w, Gaussian i at d adds strengths[n, w, i] exp(-exponents[w, i] d^2)
    R_nm(d) to the moments of order n, whose squares sum to F_n^2. Bare, it is
    amplitudes[i] exp(-betas[i] d^2).
    """

    amplitudes: Tensor
    betas: Tensor
    exponents: Tensor
    strengths: Tensor

    @property
    def n_exponentials(self) -> int:
        """Exponentials to compute for each atom, seen through the probes and bare."""
        return self.exponents.numel() + self.betas.numel()


@dataclass(frozen=True, eq=False)
class _AxisProducts:
    """Gaussians on a space: ``factors[axis][width]`` (power, n_points of the axis, n)."""

    factors: list[list[Tensor]]
    bare: list[Tensor]
    strengths: Tensor
    amplitudes: Tensor

    def in_rows(self, size: int) -> list[_AxisProducts]:
        """The same for blocks of ``size`` points along y."""
        (x, y, z), (bare_x, bare_y, bare_z) = self.factors, self.bare
        blocks = zip(*(of_width.split(size, dim=1) for of_width in y), strict=True)
        return [
            replace(self, factors=[x, list(block), z], bare=[bare_x, bare_block, bare_z])
            for block, bare_block in zip(blocks, bare_y.split(size), strict=True)
        ]

    def moments(self) -> _Moments:
        """Density (n_x, n_y, n_z) and moments at the points."""
        x, y, z = self.bare
        zeroth = _monomial_sums(x[None], y[None], z[None], self.amplitudes[None])
        density = zeroth[0, 0, 0]
        moments: list[list[Tensor]] = [[] for _ in self.strengths]
        for width, factors in enumerate(zip(*self.factors, strict=True)):
            # Gaussians that have died out at these rows
            near = torch.nonzero(factors[1].detach().abs().amax(dim=(0, 1)) > _NEGLIGIBLE)[:, 0]
            x, y, z = (factor.index_select(2, near) for factor in factors)
            terms = _monomial_sums(x, y, z, self.strengths[:, width, near])
            for order, of_width in enumerate(moments):
                monomial = torch.stack([terms[powers] for powers in monomials(order)])
                # the factors count from the atom to the point, moments from the point
                harmonics = (-1) ** order * harmonic_coefficients(order)
                of_width.append(torch.tensordot(harmonics, monomial, dims=1))
        return density, [torch.stack(of_width) for of_width in moments]


def _monomial_sums(
    x: Tensor, y: Tensor, z: Tensor, strengths: Tensor
) -> dict[tuple[int, int, int], Tensor]:
    """sum over i of strengths[a+b+c, i] x[a, :, i] y[b, :, i] z[c, :, i], (n_x, n_y, n_z).

    By powers (a, b, c) up to the highest order. Each product of y and z serves all powers of x.
    """
    n_orders = len(strengths)
    along_x, along_y, along_z = x.unbind(), y.unbind(), z.unbind()
    sums: dict[tuple[int, int, int], Tensor] = {}
    for b, c in product(range(n_orders), repeat=2):
        if b + c >= n_orders:
            continue
        plane = (along_y[b][:, None, :] * along_z[c]).flatten(0, 1)
        powers = range(n_orders - b - c)
        rows = torch.cat([along_x[a] * strengths[a + b + c] for a in powers])
        summed = (rows @ plane.T).reshape(len(powers), x.shape[1], y.shape[1], z.shape[1])
        sums |= {(a, b, c): values for a, values in zip(powers, summed.unbind(), strict=True)}
    return sums


def _pair_moments(points: Tensor, images: Images, probes: _Probes, near: Tensor) -> _Moments:
    """Density (n_points,) and moments of the images near (n_points, k) each point."""
    n_orders, n_widths, n_gaussians = probes.strengths.shape
    d = images.positions[near] - points[:, None, :]
    exponents = torch.cat([probes.exponents.flatten(), probes.betas])
    x, y, z = d.unbind(dim=2)
    decay = torch.exp(-exponents[:, None] * (x * x + y * y + z * z)[:, None, :])
    harmonics = _solid_harmonics(n_orders - 1)(d.reshape(-1, 3)).reshape(*near.shape, n_orders**2)
    sums = decay @ (harmonics * images.occupancies[near][:, :, None])
    probed = sums[:, : n_widths * n_gaussians].unflatten(1, (n_widths, n_gaussians))
    moments = [
        torch.einsum("wg,pwgm->wmp", strength, probed[..., n * n : (n + 1) ** 2])
        for n, strength in enumerate(probes.strengths)
    ]
    bare = sums[:, n_widths * n_gaussians :, 0]  # R_00 = (4 pi)^(-1/2)
    return math.sqrt(4 * math.pi) * bare @ probes.amplitudes, moments


def _moment_rows(channels: Sequence[_Moments]) -> Tensor:
    """All moments, order by order, then channels, widths and m: (n_rows, ...)."""
    of_order = zip(*(moments for _, moments in channels), strict=True)
    return torch.cat([m.flatten(0, 1) for moments in of_order for m in moments])


def _no_moments(density: Tensor, n_widths: int, max_order: int) -> _Moments:
    shape = tuple(density.shape)
    return density, [density.new_zeros(n_widths, 2 * n + 1, *shape) for n in range(max_order + 1)]


def _added(first: _Moments, second: _Moments) -> _Moments:
    return first[0] + second[0], [a + b for a, b in zip(first[1], second[1], strict=True)]


@lru_cache(maxsize=16)
def _solid_harmonics(max_order: int) -> Callable[[Tensor], Tensor]:
    """(n, 3) -> (n, (max_order + 1)^2), orthonormal real solid harmonics."""
    from sphericart.torch import SolidHarmonics

    return SolidHarmonics(max_order)


def _differentiated(*tensors: Tensor) -> bool:
    return torch.is_grad_enabled() and any(t.requires_grad for t in tensors)


def _plain(function: Callable[..., Tensor], *arguments: Any) -> Tensor:
    return function(*arguments)


def _economical(function: Callable[..., Tensor], *arguments: Any) -> Tensor:
    """The function's value without its intermediate results, made again for derivatives."""
    return checkpoint(function, *arguments, use_reentrant=False, preserve_rng_state=False)


def _double_factorial(n: int) -> int:
    return math.prod(range(n, 0, -2))


def _invariant_factor(n: int) -> float:
    """(2n-1)!! n! 4 pi/(2n+1): from squared harmonics to the published invariant."""
    return _double_factorial(2 * n - 1) * math.factorial(n) * 4 * math.pi / (2 * n + 1)


def _probe_norm(alphas: Tensor, n: int) -> Tensor:
    """Norm of exp(-alpha r^2) S_n, all components together ("both" scaling)."""
    factor = _double_factorial(2 * n - 1) * math.factorial(n) * _double_factorial(2 * n + 1)
    return torch.sqrt((math.pi / (2 * alphas)) ** 1.5 * alphas**-n * factor / 4**n)


def _positive(name: str, value: float) -> float:
    number = float(value)
    if not (math.isfinite(number) and number > 0):
        raise DescriptorError(f"{name} is {value}: expected a positive number")
    return number


def _one_of(name: str, value: str, allowed: Sequence[str]) -> str:
    if value not in allowed:
        raise DescriptorError(f"{name} is {value!r}: expected one of {', '.join(allowed)}")
    return value


def _checked_widths(widths: Sequence[float]) -> tuple[float, ...]:
    result = tuple(_positive("a width", width) for width in widths)
    if not result or len(set(result)) != len(result):
        raise DescriptorError(f"widths are {list(widths)}: expected different positive lengths")
    return result


def _checked_order(order: int) -> int:
    if isinstance(order, bool) or int(order) != order or not 0 <= order <= MAX_ORDER:
        raise DescriptorError(f"max_order is {order}: expected a whole number, 0 to {MAX_ORDER}")
    return int(order)


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
            (_finite(f"B of {symbol}", b), _positive(f"beta of {symbol}", beta))
            for b, beta in pairs
        )
    if not result:
        raise DescriptorError("gaussians is empty: no element has a density")
    return result


def _finite(name: str, value: float) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise DescriptorError(f"{name} is {value}: not a finite number")
    return number
