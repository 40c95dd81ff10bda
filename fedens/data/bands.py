"""Kohn-Sham bands: eigenvalues and occupations at k-points."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedens.errors import DatasetError, SamplingError

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Bands:
    """Eigenvalues of one structure, hartree atomic units.

    Attributes:
        kpoints: (n_k, 3), in units of the reciprocal lattice vectors. weights: (n_k,), sum 1.
        eigenvalues: (n_k, n_bands), hartree. occupations: electrons, (n_k, n_bands), 0 to 2; a
            little beyond with Methfessel-Paxton or cold smearing.
        chemical_potential: hartree, against the zero of the eigenvalues and of the sample's field
            ``effective_potential``.

    Raises:
        DatasetError: shapes that do not fit together, numbers that are not finite.
    """

    kpoints: Array
    weights: Array
    eigenvalues: Array
    occupations: Array
    chemical_potential: float

    def __post_init__(self) -> None:
        n_k, shape = len(self.weights), self.eigenvalues.shape
        expected = {"kpoints": (n_k, 3), "weights": (n_k,), "occupations": shape}
        for name, wanted in expected.items():
            if getattr(self, name).shape != wanted:
                raise DatasetError(
                    f"bands: {name} have shape {getattr(self, name).shape}, expected {wanted}"
                )
        if len(shape) != 2 or shape[0] != n_k:
            raise DatasetError(f"bands: eigenvalues have shape {shape}, expected ({n_k}, n_bands)")
        for name in (*expected, "eigenvalues", "chemical_potential"):
            if not np.isfinite(getattr(self, name)).all():
                raise DatasetError(f"bands: {name} hold numbers that are not finite")

    def density_of_states(self, energies: ArrayLike, width: float) -> Array:
        """States per hartree, both spins, at ``energies`` (n,) in hartree.

        Every level is a Gaussian of standard deviation ``width``, hartree; the integral over all
        energies is twice the number of bands.

        Raises:
            SamplingError: a width that is not positive.
        """
        if not width > 0:
            raise SamplingError(f"the width of the levels is {width} hartree, expected more than 0")
        x = (np.asarray(energies)[:, None, None] - self.eigenvalues) / width
        peaks = np.exp(-(x**2) / 2) / (math.sqrt(2 * math.pi) * width)
        states: Array = 2 * np.einsum("ekb,k->e", peaks, self.weights)
        return states
