"""Forces and stress at a given density, as derivatives of the discrete energy.

The Hellmann-Feynman force moves the ions under a density that stays as it is; at the discrete
minimum on a fixed space it is the exact derivative of the energy. The stress stretches space,
ions and density together with the coefficients of the root density held fixed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fedens.data.density import Density
from fedens.energy.functional import EnergyFunctional
from fedens.errors import FunctionalError
from fedens.structure import Structure


def hellmann_feynman_forces(
    functional: EnergyFunctional,
    structure: Structure,
    density: Density,
    positions: Tensor | None = None,
    create_graph: bool = False,
) -> Tensor:
    """Forces (n_atoms, 3), hartree/bohr, from the density and the ions' own energy.

    F_A = int phi db_A/dR_A - int n dv_sr,A/dR_A - dE_ion/dR_A. Linear in the density up to the
    ions' part; with ``create_graph`` differentiable in it.
    """
    if positions is None:
        positions = torch.tensor(structure.positions, device=density.space.device)
    positions = positions.detach().requires_grad_(True)
    with torch.enable_grad():
        ions = functional.electrostatics.bind(structure, density.space, positions=positions)
        energy = ions.energy(density)
    (gradient,) = torch.autograd.grad(energy, positions, create_graph=create_graph)
    return -gradient


@torch.enable_grad()
def moving_mesh_forces(
    functional: EnergyFunctional, structure: Structure, density: Density
) -> Tensor:
    """Forces (n_atoms, 3), hartree/bohr, on a mesh that follows its nuclei (a SimplexSpace).

    Exact derivative of the discrete energy at its minimum: nuclei and corners of the mesh move,
    the coefficients of the root density stay. The cusps move with the nuclei, so that the error
    is that of the energy, where the Hellmann-Feynman force on a fixed mesh is off in first order.
    """
    positions = torch.tensor(structure.positions, requires_grad=True)
    space = density.space.moved(positions)
    bound = functional.bind(structure, space, positions)
    root = density.root_coefficients.detach()
    energy = bound.energy(Density.from_root(space, root).normalised(bound.electrons))
    (gradient,) = torch.autograd.grad(energy, positions)
    return -gradient


@torch.enable_grad()
def normal_stress(functional: EnergyFunctional, structure: Structure, density: Density) -> Tensor:
    """Normal stresses (3,): (1/V) dE/d strain along x, y and z, hartree/bohr^3.

    Positive values pull the cell together (ASE's sign). Shear would leave the orthorhombic
    space and is not available.

    Raises:
        FunctionalError: for isolated systems.
    """
    if not density.space.is_periodic:
        raise FunctionalError("stress is defined for periodic cells only")
    stretch = torch.ones(3, dtype=torch.float64, device=density.space.device, requires_grad=True)
    space = density.space.scaled(stretch)
    positions = torch.tensor(structure.positions, device=space.device) * stretch
    bound = functional.bind(structure, space, positions)
    energy = bound.energy(Density.from_root(space, density.root_coefficients.detach()))
    (gradient,) = torch.autograd.grad(energy, stretch)
    return gradient / structure.volume
