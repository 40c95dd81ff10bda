"""The density with which a self-consistent calculation begins."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedens.data.density import Density
from fedens.energy.functional import EnergyFunctional
from fedens.energy.kohn_sham import KohnSham
from fedens.errors import FedensError, MixtureWarning, SpaceError
from fedens.fem.tensor import TensorSpace
from fedens.reference.kohn_sham.cutoffs import atomic_density
from fedens.reference.orbital_free import solve_ground_state
from fedens.structure import Structure

#: hartree; the orbital-free density is 1 % off anyway.
_TOLERANCE = 1e-3
_EVALUATIONS = 30

Array = NDArray[np.float64]


def starting_density(
    structure: Structure, space: TensorSpace, functional: KohnSham, guess: Density | None = None
) -> Tensor:
    """Values (n_points,) that integrate to the number of electrons, electron/bohr^3.

    The guess; else the orbital-free density, which is 1 % off in a metal; or superposed atoms
    where that cannot be had, as with projectors.

    Raises:
        SpaceError: a guess on another space.
    """
    electrons = functional.number_of_electrons(structure)
    values = (
        _given(guess, space) if guess is not None else _orbital_free(structure, space, functional)
    )
    return values * (electrons / space.integrate(values))


def _given(guess: Density, space: TensorSpace) -> Tensor:
    if guess.values.shape != (space.n_points,) or guess.space.describe() != space.describe():
        raise SpaceError(
            f"the starting density lives on {guess.space}, the calculation on {space}: give a "
            "density on the same space, or none"
        )
    return guess.values.detach().to(space.device)


def _orbital_free(structure: Structure, space: TensorSpace, functional: KohnSham) -> Tensor:
    kinetic = "wt" if space.is_periodic else "tfvw"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", MixtureWarning)  # an LDA is good enough here
            orbital_free = EnergyFunctional.orbital_free(
                kinetic, 1.0, "lda_pz", functional.pseudopotentials, functional.widths
            )
        return solve_ground_state(
            structure,
            space,
            orbital_free,
            residual_tolerance=_TOLERANCE,
            max_evaluations=_EVALUATIONS,
            require_convergence=False,
        ).density.values
    except FedensError:  # of what the orbital-free functional cannot do
        return _atoms(structure, space, functional)


def _atoms(structure: Structure, space: TensorSpace, functional: KohnSham) -> Tensor:
    """Superposed atoms, each confined to its room in a solid."""
    total = torch.zeros(space.n_points, dtype=torch.float64, device=space.device)
    positions = torch.tensor(structure.positions, device=space.device)
    symbols = np.array(structure.symbols)
    # in the order of the atoms, so that sums are the same every time
    for symbol, share in dict.fromkeys(zip(structure.symbols, structure.occupancies, strict=True)):
        r, density = atomic_density(functional.pseudopotentials[symbol])

        def at(distances: Tensor, r: Array = r, density: Array = density) -> Tensor:
            return torch.tensor(np.interp(distances.cpu(), r, density)).to(distances)

        chosen = (symbols == symbol) & (structure.occupancies == share)
        total += share * space.radial_sum(positions[torch.tensor(chosen)], at, float(r[-1]))
    return total.clamp(min=0)
