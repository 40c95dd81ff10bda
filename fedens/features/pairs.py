"""Atoms near points, periodic images included, as padded blocks for sums over pairs.

Which atoms are near is found outside of the derivatives, with a search tree; distances are then
computed again from tensors that carry derivatives.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor


class Images:
    """Atoms and those of their periodic images near points.

    Args:
        atoms: indices of the atoms to take, (n,).
        positions: (n_atoms, 3), bohr. cell: (3, 3), bohr, or None. occupancies: (n_atoms,).
        points: (n_points, 3), bohr; only images near these are kept.
        cutoff: distance up to which atoms count, bohr.

    Attributes:
        positions: (n_images + 1, 3), bohr; the last is padding, where no atom is.
        occupancies: (n_images + 1,), zero for the padding.
    """

    def __init__(
        self,
        atoms: Sequence[int],
        positions: Tensor,
        cell: Tensor | None,
        occupancies: Tensor,
        points: Tensor,
        cutoff: float,
    ):
        chosen = torch.as_tensor(atoms, dtype=torch.int64)
        self.cutoff = cutoff
        self._volume = math.inf if cell is None else abs(float(torch.linalg.det(cell.detach())))
        self._n_atoms = len(chosen)
        owner, shifts = _near_images(positions[chosen], cell, points, cutoff)
        images = positions[chosen][owner]
        if cell is not None:
            images = images + shifts @ cell
        self._tree = cKDTree(images.detach().cpu().numpy())
        self.positions = torch.cat([images, images.new_zeros(1, 3)])
        self.occupancies = torch.cat([occupancies[chosen][owner], images.new_zeros(1)])

    @property
    def typical_neighbours(self) -> int:
        """About how many images a point has within the cutoff, at least 1."""
        mean = self._n_atoms * 4 / 3 * math.pi * self.cutoff**3 / self._volume
        return max(1, min(len(self.positions) - 1, math.ceil(mean) if mean else self._n_atoms))

    def near(self, points: Tensor) -> Tensor:
        """Indices (n_points, k) of the images within the cutoff of each point, padded."""
        return self.nearest(points, self.cutoff)[0]

    def nearest(self, points: Tensor, cutoff: float) -> tuple[Tensor, Tensor]:
        """Indices and distances (n_points, k) of the images within a cutoff, nearest first.

        Where there are none left the index is that of the padding, the distance infinite. The
        cutoff must not be larger than that of the images.
        """
        where = points.detach().cpu().numpy()
        n_images = len(self.positions) - 1
        if not n_images:
            padding = torch.zeros(len(points), 1, dtype=torch.int64, device=points.device)
            return padding, torch.full(padding.shape, math.inf, device=points.device)
        most = min(n_images, 1 + 5 * self.typical_neighbours // 4)
        while True:
            distances, indices = self._tree.query(
                where,
                k=range(1, most + 1),
                distance_upper_bound=cutoff,
                workers=torch.get_num_threads(),
            )
            used = int((indices < n_images).any(axis=0).sum())
            if used < most or most == n_images:
                kept = slice(max(1, used))
                found = torch.as_tensor(indices[:, kept]), torch.as_tensor(distances[:, kept])
                return found[0].to(points.device), found[1].to(points.device)
            most = min(n_images, 2 * most)


def compact_groups(points: Tensor, radius: float, most: int) -> NDArray[np.int64]:
    """Indices of points in groups that lie close together, of equal size, (n_groups, size).

    Halved along their longest side until the groups' mean radius is below ``radius``, bohr, and
    none has more than ``most``; where a group cannot be halved its last point counts twice.
    """
    where = points.detach().cpu().numpy()
    groups = np.arange(len(where)).reshape(1, -1)
    while groups.shape[1] > 1:
        members = where[groups]
        sides = members.max(axis=1) - members.min(axis=1)
        if groups.shape[1] <= most and np.linalg.norm(sides, axis=1).mean() / 2 < radius:
            break
        if groups.shape[1] % 2:
            groups = np.concatenate([groups, groups[:, -1:]], axis=1)
            members = where[groups]
        along = np.take_along_axis(members, sides.argmax(axis=1)[:, None, None], axis=2)[:, :, 0]
        groups = np.take_along_axis(groups, along.argsort(axis=1), axis=1)
        groups = groups.reshape(2 * len(groups), -1)
    return groups


def wrapped(points: Tensor, cell: Tensor | None) -> Tensor:
    """Points moved into the cell by whole lattice vectors; differentiable in both."""
    if cell is None:
        return points
    shifts = torch.floor(torch.linalg.solve(cell.detach().T, points.detach().T).T)
    return points - shifts @ cell


def _near_images(
    atoms: Tensor, cell: Tensor | None, points: Tensor, cutoff: float
) -> tuple[Tensor, Tensor]:
    """Which atom (n_images,) and cell (n_images, 3) each image near the points comes from."""
    if cell is None:
        return torch.arange(len(atoms)), atoms.new_zeros(len(atoms), 3)
    where, vectors = atoms.detach().cpu().numpy(), cell.detach().cpu().numpy()
    at = points.detach().cpu().numpy()
    inverse = np.linalg.inv(vectors)
    reach = cutoff * np.linalg.norm(inverse, axis=0)  # in units of the distance of cell planes
    fractions, homes = at @ inverse, where @ inverse
    first = np.floor(fractions.min(axis=0) - homes.max(axis=0) - reach)
    last = np.ceil(fractions.max(axis=0) - homes.min(axis=0) + reach)
    ranges = [np.arange(a, b + 1) for a, b in zip(first, last, strict=True)]
    shifts = np.stack(np.meshgrid(*ranges, indexing="ij"), axis=-1).reshape(-1, 3)
    images = where[:, None, :] + shifts @ vectors
    low, high = at.min(axis=0) - cutoff, at.max(axis=0) + cutoff
    owner, shift = np.nonzero(((images >= low) & (images <= high)).all(axis=2))
    return torch.as_tensor(owner), torch.as_tensor(shifts[shift], dtype=atoms.dtype)
