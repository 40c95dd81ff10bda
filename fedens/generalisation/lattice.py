"""Force constants of the perfect crystal, and the lattice Green's function made of them.

The Hessian of a perfect crystal is a convolution over its sites; in Fourier space it is a 3 x 3
matrix H(k) for each wave vector. Its inverse, applied by fast Fourier transforms to forces in a box
a little larger than the defect's surroundings, preconditions the Hessian of the defect: the two
differ at the defect and at the clamped boundary only. A sparse factorisation would do the same, but
fills in as N^(4/3) in three dimensions where this costs N log N.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfftn, next_fast_len, rfftn

from fedens.errors import ModelError
from fedens.generalisation.defects import Crystal, Defect, minimum_image
from fedens.generalisation.potential import Array, Potential
from fedens.units import BOHR_IN_ANGSTROM, HARTREE_IN_EV

#: Part of the largest eigenvalue of H(k) that a positive one must exceed.
_SMALLEST = 1e-8


@dataclass(frozen=True, eq=False)
class ForceConstants:
    """Second derivatives of a crystal's energy by the displacements of two atoms.

    Attributes:
        offsets: from the first atom to the second, in half lattice constants, (n, 3).
        values: (n, 3, 3), hartree/bohr^2.
    """

    offsets: NDArray[np.int64]
    values: Array

    def fourier(self, shape: tuple[int, int, int]) -> Array:
        """H(k) on the wave vectors of a box of half lattice constants, (..., 3, 3)."""
        kernel = np.zeros((*shape, 3, 3))
        np.add.at(kernel, tuple((self.offsets % shape).T), self.values)
        # every site is a centre of inversion, so that the transform is real
        return rfftn(kernel, axes=(0, 1, 2)).real


def force_constants(
    potential: Potential, crystal: Crystal, repeats: int | None = None
) -> ForceConstants:
    """Forces on all atoms of a supercell by a displacement of one.

    Args:
        repeats: cubic cells along an edge; default: so many that no image is felt.
    """
    if repeats is None:
        repeats = crystal.repeats_beyond(4 * potential.cutoff)
    cell = crystal.cell(repeats)
    product = potential.bind(cell).hessian(cell.positions)
    values = np.zeros((len(cell), 3, 3))
    for axis in range(3):
        direction = np.zeros((len(cell), 3))
        direction[0, axis] = 1.0
        values[:, axis] = product(direction)
    values = (values + values.transpose(0, 2, 1)) / 2
    values[0] -= values.sum(axis=0)  # no force on a crystal that is moved as a whole
    return ForceConstants(half_units(minimum_image(cell.positions, cell), crystal), values)


def half_units(sites: Array, crystal: Crystal) -> NDArray[np.int64]:
    """Sites (n, 3) in units of half a lattice constant."""
    return np.round(2 * sites / crystal.lattice_constant).astype(np.int64)


class GreenOperator:
    """Displacements that forces on the atoms of a defect cause in the perfect crystal.

    Args:
        constants: of the perfect crystal. defect: whose free atoms are meant. Atoms that share a
            site, as in a dumbbell, answer with their own stiffness only.

    Raises:
        ModelError: a crystal that is not stable against some wave, with its eigenvalue.
    """

    def __init__(self, constants: ForceConstants, defect: Defect):
        index = half_units(defect.sites, defect.crystal)
        self._shape = _box(index[defect.free], defect)
        self._cells = tuple((index % self._shape).T)
        _, first, counts = np.unique(
            np.ravel_multi_index(self._cells, self._shape), return_index=True, return_counts=True
        )
        single = np.zeros(len(index), dtype=bool)
        single[first[counts == 1]] = True
        self._on_lattice = defect.free & single
        self._others = defect.free & ~single
        self._stiffness = float(np.trace(constants.values[0])) / 3
        self._green = _inverse(constants.fourier(self._shape))

    def __call__(self, forces: Array) -> Array:
        """Forces (n_atoms, 3), hartree/bohr, to displacements (n_atoms, 3), bohr."""
        grid = np.zeros((*self._shape, 3))
        on = self._on_lattice
        cells = tuple(axis[on] for axis in self._cells)
        grid[cells] = forces[on]
        waves = rfftn(grid, axes=(0, 1, 2))
        waves = np.einsum("xyzab,xyzb->xyza", self._green, waves)
        result = np.zeros_like(forces)
        result[on] = irfftn(waves, s=self._shape, axes=(0, 1, 2))[cells]
        result[self._others] = forces[self._others] / self._stiffness
        return result


def _box(index: NDArray[np.int64], defect: Defect) -> tuple[int, int, int]:
    """Edges of the box, in half lattice constants; even, so that it is periodic."""
    if defect.structure.periodic:
        lengths = defect.structure.orthorhombic_lengths()
        edges = [round(2 * x / defect.crystal.lattice_constant) for x in lengths]
    else:
        widths = index.max(axis=0) - index.min(axis=0) + 3
        edges = [2 * next_fast_len((int(w) + 1) // 2, real=True) for w in widths]
    return edges[0], edges[1], edges[2]


def _inverse(matrices: Array) -> Array:
    """Inverse of H(k); where it vanishes, at k = 0 and its equals, that of the softest wave."""
    values, vectors = np.linalg.eigh(matrices)
    largest = values.max()
    if values.min() < -_SMALLEST * largest:
        raise ModelError(unstable_message("crystal", values.min()))
    soft = values < _SMALLEST * largest
    inverse = 1 / np.where(soft, values[~soft].min(), values)
    return np.einsum("...ab,...b,...cb->...ac", vectors, inverse, vectors)


def unstable_message(what: str, eigenvalue: float) -> str:
    """What is said of a negative eigenvalue of a Hessian, hartree/bohr^2."""
    value = eigenvalue * HARTREE_IN_EV / BOHR_IN_ANGSTROM**2
    return (
        f"the {what} is not stable: its Hessian has the eigenvalue {value:.4g} eV/angstrom^2, and "
        "all should be positive; the model needs force constants or more data near here, or a "
        "smaller basis"
    )


def relative_error(reference: ForceConstants, model: ForceConstants) -> float:
    """Largest relative error of the energy of a wave in the perfect crystal, e_FC.

    The largest absolute eigenvalue of H^(-1/2) (H_model - H) H^(-1/2) over the wave vectors of a
    supercell of 8 x 8 x 8 cubic cells: |<v, (H_model - H) v>| <= e_FC <v, H v> for every v in it.
    """
    shape = (16, 16, 16)  # half lattice constants
    exact, error = reference.fourier(shape), model.fourier(shape) - reference.fourier(shape)
    values, vectors = np.linalg.eigh(exact)
    moving = values[..., 0] > _SMALLEST * values.max()
    root = vectors[moving] / np.sqrt(values[moving])[:, None, :]
    relative = np.einsum("kba,kbc,kcd->kad", root, error[moving], root)
    return float(np.abs(np.linalg.eigvalsh(relative)).max())
