"""Bases for orbitals: products of the axes' modes whose kinetic energy stays below a cutoff.

The modes of a periodic axis carry a Bloch phase, those of another one vanish at its ends; either
way the products are orthonormal and diagonalise the kinetic energy. The modes above the cutoff,
which a mesh holds badly, are left out: below it the spectrum is that of plane waves.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from numbers import Real

import torch
from torch import Tensor

from fedens.errors import SpaceError
from fedens.fem.axis import Axis
from fedens.fem.product_grid import ProductGrid
from fedens.fem.separable import REACH_EXPONENT, Axes
from fedens.fem.tensor import DEFAULT_MARGIN, TensorSpace, kronecker_product, kronecker_sum
from fedens.structure import Structure, check_is_structure
from fedens.units import HARTREE_IN_EV

#: A wave q = sqrt(2 cutoff) advances by q times the spacing from one node of the mesh to the next.
#: Beyond 2.2 the modes of a mesh are no waves any more; up to 1.6 it also integrates densities,
#: which have waves of 2 q.
_LARGEST_PHASE, _GOOD_PHASE = 2.2, 1.6
#: Polynomial orders to choose from, so that small cells get no more points than they need.
_ORDERS = (10, 9, 8, 7)
#: Entries of one block of fields: what the processor's cache holds is twice as fast.
_BLOCK_ENTRIES = 100_000


def largest_cutoff(space: TensorSpace) -> float:
    """Kinetic energy (hartree) of the shortest waves that a mesh holds where it is finest."""
    return 0.5 * (_LARGEST_PHASE / space.finest_spacing) ** 2


def spacing_for_cutoff(cutoff: float) -> float:
    """Mesh spacing (bohr) good for orbitals up to a cutoff (hartree) and their density."""
    if not isinstance(cutoff, Real) or not 0 < cutoff < math.inf:
        raise SpaceError(f"the cutoff is {cutoff!r} hartree, expected a positive number")
    return _GOOD_PHASE / math.sqrt(2 * cutoff)


def space_for_cutoff(
    structure: Structure,
    cutoff: float,
    margin: float = DEFAULT_MARGIN,
    device: torch.device | str = "cpu",
) -> TensorSpace:
    """The space with the fewest points that is good for orbitals up to a cutoff (hartree).

    Args:
        margin: from the outermost atoms to the walls of an isolated box, bohr.
    """
    check_is_structure(structure)
    spacing = spacing_for_cutoff(cutoff)
    if not structure.periodic:
        return TensorSpace.for_structure(structure, spacing, margin=margin, device=device)
    lengths = structure.orthorhombic_lengths()
    meshes = [
        (math.prod(n * (order + 1) for n in elements), order, elements)
        for order in _ORDERS
        for elements in [[math.ceil(x / (spacing * order) - 1e-6) for x in lengths]]
    ]
    _, order, elements = min(meshes, key=lambda mesh: mesh[0])
    return TensorSpace(lengths.tolist(), elements, order, device=device)


@dataclass(frozen=True, eq=False)
class ModeBasis:
    """Orthonormal products of modes; coefficients (..., n), real or complex.

    Attributes:
        axes: with the modes in use. index: place of each product among all, (n,).
        grid: where products of orbitals are taken; None for the points of the space.
    """

    axes: Axes
    index: Tensor
    grid: ProductGrid | None = None

    @classmethod
    def below(
        cls,
        space: TensorSpace,
        cutoff: float,
        kpoint: Sequence[float] = (0.0, 0.0, 0.0),
        grid: ProductGrid | None = None,
    ) -> ModeBasis:
        """All modes with kinetic energies below a cutoff.

        Args:
            cutoff: hartree. kpoint: phases of the axes over 2 pi, in units of the reciprocal
                lattice vectors. grid: for products of orbitals, coarser than the space's points.

        Raises:
            SpaceError: the mesh cannot hold the cutoff; a phase along an axis that ends; no mode.
        """
        largest, spacing = largest_cutoff(space), spacing_for_cutoff(cutoff)
        if cutoff > largest * 1.0001:
            raise SpaceError(
                f"the cutoff is {cutoff:.4g} hartree ({cutoff * HARTREE_IN_EV:.4g} eV), but the "
                f"mesh, of spacing {space.finest_spacing:.3f} bohr, holds 0 to {largest:.4g}: use "
                f"a spacing of {spacing:.3f} bohr or less, such as that of "
                "space_for_cutoff(structure, cutoff), or a lower cutoff"
            )
        axes = [axis.with_phase(kappa) for axis, kappa in zip(space.axes, kpoint, strict=True)]
        lowest = sum(float(axis.eigenvalues[0]) for axis in axes)
        x, y, z = (
            axis.lowest(int((axis.eigenvalues - axis.eigenvalues[0] + lowest < 2 * cutoff).sum()))
            for axis in axes
        )
        eigenvalues = kronecker_sum(*(axis.eigenvalues for axis in (x, y, z)))
        index = torch.nonzero(eigenvalues < 2 * cutoff)[:, 0]
        if not len(index):
            raise SpaceError(
                f"no orbital has a kinetic energy below {cutoff:.4g} hartree: raise the cutoff"
            )
        return cls((x, y, z), index, grid)

    def scaled(self, factors: Tensor) -> ModeBasis:
        """The same products on axes stretched by three factors (3,), differentiable in them."""
        x, y, z = (axis.scaled(factors[i]) for i, axis in enumerate(self.axes))
        return replace(self, axes=(x, y, z))

    @property
    def n_modes(self) -> int:
        return len(self.index)

    @cached_property
    def dtype(self) -> torch.dtype:
        """float64 where all phases are 1 or -1, else complex128."""
        dtypes = [axis.values.dtype for axis in self.axes]
        return torch.complex128 if torch.complex128 in dtypes else torch.float64

    @cached_property
    def kinetic(self) -> Tensor:
        """Kinetic energies (n,), hartree; differentiable in the axes' scaling."""
        return 0.5 * kronecker_sum(*(axis.eigenvalues for axis in self.axes))[self.index]

    @cached_property
    def places(self) -> tuple[Tensor, Tensor, Tensor]:
        """Number of each product's mode along x, y and z, (n,) each."""
        _, my, mz = self._shape
        return self.index // (my * mz), self.index // mz % my, self.index % mz

    def evaluate(self, coefficients: Tensor) -> Tensor:
        """Fields (b, n_points) of coefficients (b, n), at the points of the grid."""
        return kronecker_product(self._boxed(coefficients), *self._values)

    def gradient(self, coefficients: Tensor) -> Iterator[Tensor]:
        """Derivatives along x, y and z, each (b, n_points) at the space's points, of (b, n)."""
        boxed = self._boxed(coefficients)
        for i in range(3):
            matrices = [axis.values.to(self.dtype) for axis in self.axes]
            matrices[i] = self.axes[i].derivatives.to(self.dtype)
            yield kronecker_product(boxed, *matrices)

    def test(self, fields: Tensor) -> Tensor:
        """Integrals (b, n) of fields (b, n_points) on the grid with the basis functions."""
        return kronecker_product(fields, *self._adjoint)[:, self.index]

    def on_grid(self, potential: Tensor) -> Tensor:
        """A real field (n_points,) of the space as :meth:`multiply` takes it."""
        return potential if self.grid is None else self.grid.restrict(potential)

    def multiply(self, potential: Tensor, coefficients: Tensor) -> Tensor:
        """Coefficients (b, n) of a real field on the grid times the fields of coefficients."""
        blocks = self.blocks(coefficients)
        return torch.cat([self.test(self.evaluate(block) * potential) for block in blocks])

    def blocks(self, rows: Tensor) -> tuple[Tensor, ...]:
        """Rows (b, ...) in groups whose fields a processor's cache holds; large on a GPU."""
        entries = _BLOCK_ENTRIES if rows.device.type == "cpu" else 500 * _BLOCK_ENTRIES
        n_points = math.prod(len(values) for values in self._values)
        parts: tuple[Tensor, ...] = rows.split(max(1, entries // n_points))
        return parts

    def _boxed(self, coefficients: Tensor) -> Tensor:
        box = coefficients.new_zeros(*coefficients.shape[:-1], math.prod(self._shape))
        return box.index_copy(-1, self.index, coefficients)

    @cached_property
    def _shape(self) -> tuple[int, int, int]:
        x, y, z = (len(axis.eigenvalues) for axis in self.axes)
        return x, y, z

    def squares(self, coefficients: Tensor, factors: Tensor) -> Tensor:
        """sum_i factor_i |field_i|^2 at the space's points, (n_points,), of rows (b, n)."""
        total = self.kinetic.new_zeros(math.prod(len(values) for values in self._values))
        blocks = self.blocks(coefficients), self.blocks(factors)
        for rows, shares in zip(*blocks, strict=True):
            total = total + shares @ absolute_square(self.evaluate(rows))
        return total if self.grid is None else self.grid.interpolate(total)

    @cached_property
    def _values(self) -> tuple[Tensor, Tensor, Tensor]:
        """The modes on the grid, (n_i, n_modes_i) along each axis."""
        x, y, z = (
            (axis.values if self.grid is None else self.grid.modes(i, axis)).to(self.dtype)
            for i, axis in enumerate(self.axes)
        )
        return x, y, z

    @cached_property
    def _adjoint(self) -> tuple[Tensor, Tensor, Tensor]:
        weights = [axis.weights for axis in self.axes] if self.grid is None else self.grid.weights
        x, y, z = (
            (values * w[:, None]).mH.resolve_conj().contiguous()
            for values, w in zip(self._values, weights, strict=True)
        )
        return x, y, z


def absolute_square(rows: Tensor) -> Tensor:
    """|z|^2, without the square root of an absolute value."""
    return rows.real**2 + rows.imag**2 if rows.is_complex() else rows**2


def gaussian_overlaps(axis: Axis, centres: Tensor, exponent: float, max_power: int) -> Tensor:
    """Integrals of (x - c)^k exp(-exponent (x - c)^2) with the modes, over all space.

    Args:
        axis: the modes; on a periodic axis they go on beyond the cell with their phase.
        centres: (n,), bohr. exponent: bohr^-2.
        max_power: largest k.

    Returns:
        (max_power + 1, n, n_modes), differentiable in the centres and the axis' scaling.
    """
    stretch = axis.weights.sum() / axis.weights.detach().sum()
    longest = float(torch.diff(axis.edges.detach()).max())
    # so many Gauss points follow the narrowest Gaussian to rounding
    count = axis.order + math.ceil(6 * longest * math.sqrt(2 * exponent))
    points, weights, modes = axis.refined(count)
    points, weights, modes = points * stretch, weights * stretch, modes / stretch**0.5
    images = torch.zeros(1, dtype=points.dtype, device=points.device)
    cells = torch.zeros_like(centres.detach())
    length = axis.edges[-1] - axis.edges[0]
    if axis.periodic:
        cells = torch.floor((centres.detach() - axis.edges[0].detach()) / axis.length)
        reach = math.ceil(math.sqrt(REACH_EXPONENT / exponent) / axis.length)
        images = torch.arange(-reach, reach + 1, dtype=points.dtype, device=points.device)
    d = points[:, None] + length * images - (centres - length * cells)[:, None, None]
    gaussian = torch.exp(-exponent * d**2) * weights[:, None]
    powers = torch.stack([gaussian * d**k for k in range(max_power + 1)]).to(modes.dtype)
    home = axis.bloch_factors(cells)[:, None]
    return home * ((powers @ axis.bloch_factors(images)) @ modes)
