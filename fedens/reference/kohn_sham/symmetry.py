"""Operations that take a periodic structure and the points of its mesh onto themselves.

The density of the irreducible k-points, averaged over them, is that of all k-points. No field is
interpolated: only operations that take mesh points onto mesh points are used.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
import spglib
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from fedens.errors import SamplingError
from fedens.fem.tensor import TensorSpace
from fedens.reference.kohn_sham.kpoints import KPoints
from fedens.structure import Structure

Array = NDArray[np.float64]
Integers = NDArray[np.int64]

#: An operation takes an atom onto an equal one when they end closer than this, in units of the
#: cell's edges. Averaging takes operations for exact: with a tolerance of 1e-4, forces that belong
#: to displacements of 1e-4 would be averaged away.
SAME_POSITION = 1e-8
#: The search for candidates is coarser, bohr: each is then put on the mesh, and checked there.
_SEARCH = 1e-5
#: Points of the mesh, and edges of the cell, are the same within this, in units of the edges.
_SAME_COORDINATE = 1e-10


@dataclass(frozen=True, eq=False)
class Operation:
    """An operation of the space group: x goes to x' with x'_i = +-x_j + t_i.

    Attributes:
        rotation: (3, 3), the axes that change places, with their signs.
        axes: for every axis i of the image, the axis j it comes from.
        points: for every axis of the image, which point of the old axis comes to each place.
        atoms: which atom comes to the place of each one, (n_atoms,).
    """

    rotation: Tensor
    axes: tuple[int, int, int]
    points: tuple[Tensor, Tensor, Tensor]
    atoms: Tensor

    def move_field(self, field: Tensor) -> Tensor:
        """The values (..., n_points) taken along to the images of the points."""
        lengths = [len(points) for points in self.points]
        grid = field.unflatten(-1, lengths).movedim([axis - 3 for axis in self.axes], [-3, -2, -1])
        for axis, points in enumerate(self.points):
            grid = grid.index_select(axis - 3, points)
        return grid.flatten(-3)

    def move_forces(self, forces: Tensor) -> Tensor:
        """The forces (n_atoms, 3) turned, and taken along to the images of the atoms."""
        return forces[self.atoms] @ self.rotation.T

    def move_stress(self, stress: Tensor) -> Tensor:
        """The normal stresses (3,) along the images of the axes."""
        return stress[list(self.axes)]


@dataclass(frozen=True)
class Symmetry:
    """The space group of a structure, as far as the mesh has it; ``Symmetry()`` is the identity.

    Attributes:
        translations: by parts of lattice vectors, and the one by nothing.
        rotations: one operation of every rotation. All of them followed by all translations are
            the group, so that an average over both is one over the group.
    """

    translations: tuple[Operation, ...] = ()
    rotations: tuple[Operation, ...] = ()

    @classmethod
    def of(cls, structure: Structure, space: TensorSpace) -> Symmetry:
        """The operations that spglib finds and that keep the mesh.

        Atoms must be of one element and occupancy to change places. Isolated and partly periodic
        boxes have the identity alone.
        """
        if not space.is_periodic:
            return cls()
        crystal = _Crystal(structure, space)
        translations: list[Operation] = []
        rotations: list[Operation] = []
        for rotation, shifts in _space_group(crystal):
            operations = crystal.operations(rotation, shifts)
            if (rotation == np.eye(3)).all():
                translations = list(operations)
                operations = iter(translations)
            rotations.extend(itertools.islice(operations, 1))
        return cls(tuple(translations), tuple(rotations))

    @property
    def order(self) -> int:
        """Number of operations."""
        return max(1, len(self.translations)) * max(1, len(self.rotations))

    def keeping(self, kpoints: KPoints) -> Symmetry:
        """The operations that, with time reversal, take a list of k-points onto itself.

        A shifted mesh can have fewer of them than the structure.
        """
        halved = kpoints.reduced_by_time_reversal()
        kept = [r for r in self.rotations if _images(r, halved) is not None]
        return replace(self, rotations=tuple(kept))

    def reduced(self, kpoints: KPoints) -> KPoints:
        """The first of all k-points that the operations and time reversal join; weights are added.

        Raises:
            SamplingError: where an operation does not keep the k-points, see :meth:`keeping`.
        """
        halved = kpoints.reduced_by_time_reversal()
        images = [np.arange(len(halved))]
        for rotation in self.rotations:
            image = _images(rotation, halved)
            if image is None:
                raise SamplingError(
                    "an operation of the symmetry takes the k-points to others: use "
                    "symmetry.keeping(kpoints), for fields and forces too"
                )
            images.append(image)
        return halved.joined(np.min(images, axis=0))

    def symmetrised_field(self, field: Tensor) -> Tensor:
        """Average over the operations of a scalar field (..., n_points)."""
        return self._average(Operation.move_field, field)

    def symmetrised_forces(self, forces: Tensor) -> Tensor:
        """Average of forces (n_atoms, 3)."""
        return self._average(Operation.move_forces, forces)

    def symmetrised_stress(self, stress: Tensor) -> Tensor:
        """Average of normal stresses (3,)."""
        return self._average(Operation.move_stress, stress)

    def _average(self, move: Callable[[Operation, Tensor], Tensor], value: Tensor) -> Tensor:
        for operations in (self.translations, self.rotations):
            if len(operations) > 1:
                moved = (move(operation, value) for operation in operations)
                value = reduce(torch.add, moved) / len(operations)
        return value


class _Crystal:
    """A structure and its mesh in a periodic box, in units of the box's edges."""

    def __init__(self, structure: Structure, space: TensorSpace):
        self.device = space.device
        self.lengths = np.array(space.lengths)
        self.positions = structure.positions / self.lengths
        atoms = np.stack([structure.numbers, structure.occupancies], axis=1)
        self.kinds = np.unique(atoms, axis=0, return_inverse=True)[1].reshape(-1)
        # the kind is a fourth coordinate, one that does not repeat
        self._atoms = cKDTree(self._sites(self.positions), boxsize=[1, 1, 1, 0])
        self._points = [
            axis.points.detach().cpu().numpy()[:, None] / length
            for axis, length in zip(space.axes, space.lengths, strict=True)
        ]
        self._meshes = [cKDTree(_wrapped(points), boxsize=1) for points in self._points]

    def _sites(self, positions: Array) -> Array:
        return np.column_stack([_wrapped(positions), self.kinds])

    def operations(self, rotation: Integers, shifts: Array) -> Iterator[Operation]:
        """Those of one rotation (3, 3) and translations (n, 3) that keep atoms and mesh."""
        axes = np.abs(rotation).argmax(axis=1)  # a box has no rotations but those of its axes
        if not np.allclose(self.lengths[axes], self.lengths, rtol=_SAME_COORDINATE, atol=0):
            return
        for shift in shifts:
            operation = self._operation(rotation, axes, shift)
            if operation is not None:
                yield operation

    def _operation(self, rotation: Integers, axes: Integers, shift: Array) -> Operation | None:
        signs = rotation.sum(axis=1)
        onto = [self._onto_mesh(i, signs[i] * self._points[axes[i]], shift[i]) for i in range(3)]
        exact = np.array([exact for exact, _ in onto])
        atoms = self._onto_atoms(self.positions @ rotation.T + exact)
        if atoms is None or any(points is None for _, points in onto):
            return None
        x, y, z = (torch.as_tensor(points, device=self.device) for _, points in onto)
        return Operation(
            torch.tensor(rotation, dtype=torch.float64, device=self.device),
            (int(axes[0]), int(axes[1]), int(axes[2])),
            (x, y, z),
            torch.as_tensor(atoms, device=self.device),
        )

    def _onto_mesh(self, axis: int, source: Array, shift: float) -> tuple[float, Integers | None]:
        """The nearest shift that brings points (n, 1) onto those of an axis, and which come there.

        The shift that was found from the atoms has their errors.
        """
        mesh, points = self._meshes[axis], self._points[axis]
        _, nearest = mesh.query(_wrapped(source[0] + shift))
        exact = float(points[nearest, 0] - source[0, 0])
        distances, images = mesh.query(_wrapped(source + exact))
        return exact, np.argsort(images) if distances.max() < _SAME_COORDINATE else None

    def _onto_atoms(self, images: Array) -> Integers | None:
        """Which atom comes to the place of each one; ``None`` if not all come to one."""
        _, found = self._atoms.query(self._sites(images), distance_upper_bound=SAME_POSITION)
        return np.argsort(found) if (found < len(images)).all() else None


def _wrapped(positions: Array) -> Array:
    # twice, since a tiny negative number modulo 1 is 1
    return positions % 1 % 1


def _space_group(crystal: _Crystal) -> Iterator[tuple[Integers, Array]]:
    """Every rotation (3, 3) of the space group with its translations (n, 3)."""
    cell = (
        np.diag(crystal.lengths).tolist(),
        crystal.positions.tolist(),
        crystal.kinds.tolist(),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # spglib 2.8 gives one on every call
        try:
            found = spglib.get_symmetry(cell, symprec=_SEARCH)
        except spglib.SpglibError:  # which it raises or returns None for, by its settings
            return
    if found is None:
        return
    rotations, which = np.unique(found["rotations"], axis=0, return_inverse=True)
    for index, rotation in enumerate(rotations):
        yield rotation, found["translations"][which.reshape(-1) == index]


def _images(operation: Operation, kpoints: KPoints) -> Integers | None:
    """Where k-points, of which k stands for -k too, are taken to; ``None`` if they change.

    exp(2 pi i k x) becomes exp(2 pi i k W^-1 x'), and W^-1 is the transpose of W.
    """
    turned = kpoints.points @ operation.rotation.cpu().numpy().T
    image, opposite = kpoints.index_of(turned), kpoints.index_of(-turned)
    image = np.where(image < 0, opposite, image)
    if (image < 0).any() or not np.allclose(kpoints.weights[image], kpoints.weights, rtol=1e-9):
        return None
    return image
