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
    """Atoms and those of their periodic images that points within a region can see.

    Args:
        atoms: indices of the atoms to take, (n,).
        positions: (n_atoms, 3), bohr. cell: (3, 3), bohr, or None. occupancies: (n_atoms,).
        points: (n_points, 3), bohr; only images near these are kept.
        cutoff: distance up to which atoms are seen, bohr.

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
        where = points.detach().cpu().numpy()
        n_images = len(self.positions) - 1
        most = min(n_images, 1 + 5 * self.typical_neighbours // 4)
        while True:
            # nearest first; where there are none left, the tree gives the index of our padding
            _, indices = self._tree.query(
                where,
                k=range(1, most + 1),
                distance_upper_bound=self.cutoff,
                workers=torch.get_num_threads(),
            )
            used = int((indices < n_images).any(axis=0).sum())
            if used < most or most == n_images:
                return torch.as_tensor(indices[:, : max(1, used)], device=points.device)
            most = min(n_images, 2 * most)


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
    seen = points.detach().cpu().numpy()
    shifts = _shifts(where, vectors, seen, cutoff)
    images = where[:, None, :] + shifts @ vectors
    low, high = seen.min(axis=0) - cutoff, seen.max(axis=0) + cutoff
    owner, shift = np.nonzero(((images >= low) & (images <= high)).all(axis=2))
    return torch.as_tensor(owner), torch.as_tensor(shifts[shift], dtype=atoms.dtype)


def _shifts(
    atoms: NDArray[np.float64],
    cell: NDArray[np.float64],
    points: NDArray[np.float64],
    cutoff: float,
) -> NDArray[np.float64]:
    """All cells (n, 3) that may hold an image within the cutoff of a point."""
    inverse = np.linalg.inv(cell)
    reach = cutoff * np.linalg.norm(inverse, axis=0)  # in units of the distance of cell planes
    fractions, homes = points @ inverse, atoms @ inverse
    first = np.floor(fractions.min(axis=0) - homes.max(axis=0) - reach)
    last = np.ceil(fractions.max(axis=0) - homes.min(axis=0) + reach)
    ranges = [np.arange(a, b + 1) for a, b in zip(first, last, strict=True)]
    return np.stack(np.meshgrid(*ranges, indexing="ij"), axis=-1).reshape(-1, 3)
