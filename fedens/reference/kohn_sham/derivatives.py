"""Forces and stress of Kohn-Sham calculations: derivatives at fixed orbitals and occupations.

The free energy is stationary in both, so that what depends on positions and cell explicitly is
the whole derivative (Hellmann and Feynman).
"""

from __future__ import annotations

import torch
from torch import Tensor

from fedens.data.density import Density
from fedens.energy.kohn_sham import KohnSham
from fedens.energy.nonlocal_potential import bind_projectors
from fedens.errors import FunctionalError
from fedens.fem.modes import absolute_square
from fedens.reference.kohn_sham.hamiltonian import Orbitals
from fedens.structure import Structure


@torch.enable_grad()
def local_forces(functional: KohnSham, structure: Structure, density: Density) -> Tensor:
    """Forces (n_atoms, 3), hartree/bohr, of the local potentials and the other ions."""
    positions = torch.tensor(structure.positions, device=density.space.device, requires_grad=True)
    ions = functional.electrostatics.bind(structure, density.space, positions=positions)
    (gradient,) = torch.autograd.grad(ions.energy(density), positions)
    return -gradient


@torch.enable_grad()
def nonlocal_forces(
    functional: KohnSham, structure: Structure, orbitals: Orbitals, share: Tensor
) -> Tensor:
    """Forces (n_atoms, 3), hartree/bohr, of the projectors on the orbitals of one k-point.

    ``share``: electrons of each band times the k-point's weight, (n_bands,).
    """
    positions = torch.tensor(structure.positions, device=share.device, requires_grad=True)
    if orbitals.projectors is None:
        return torch.zeros_like(positions)
    projectors = bind_projectors(functional.pseudopotentials, structure, orbitals.basis, positions)
    assert projectors is not None
    filled = torch.nonzero(share)[:, 0]
    energy = share[filled] @ projectors.expectation(orbitals.coefficients[filled])
    (gradient,) = torch.autograd.grad(energy, positions)
    return -gradient


@torch.enable_grad()
def local_stress(functional: KohnSham, structure: Structure, density: Density) -> Tensor:
    """Normal stresses (3,), hartree/bohr^3, of all that the density decides.

    Raises:
        FunctionalError: for isolated systems.
    """
    if not density.space.is_periodic:
        raise FunctionalError("stress is defined for periodic cells only")
    stretch = _no_stretch(density.values)
    space = density.space.scaled(stretch)
    positions = torch.tensor(structure.positions, device=stretch.device) * stretch
    bound = functional.bind(structure, space, positions)
    stretched = Density(space, values=density.values / stretch.prod())
    (gradient,) = torch.autograd.grad(bound.energy(stretched), stretch)
    return gradient / structure.volume


@torch.enable_grad()
def orbital_stress(
    functional: KohnSham, structure: Structure, orbitals: Orbitals, share: Tensor
) -> Tensor:
    """Normal stresses (3,), hartree/bohr^3, of the kinetic and non-local energy of one k-point."""
    stretch = _no_stretch(share)
    basis = orbitals.basis.scaled(stretch)
    filled = torch.nonzero(share)[:, 0]
    rows, share = orbitals.coefficients[filled], share[filled]
    energy = (share @ absolute_square(rows)) @ basis.kinetic
    if orbitals.projectors is not None:
        positions = torch.tensor(structure.positions, device=stretch.device) * stretch
        projectors = bind_projectors(functional.pseudopotentials, structure, basis, positions)
        assert projectors is not None
        energy = energy + share @ projectors.expectation(rows)
    (gradient,) = torch.autograd.grad(energy, stretch)
    return gradient / structure.volume


def _no_stretch(like: Tensor) -> Tensor:
    return torch.ones(3, dtype=torch.float64, device=like.device, requires_grad=True)
