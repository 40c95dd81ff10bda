"""What an energy model is trained on: features at reference points and their derivatives.

Energies are sums over points and forces are linear in the derivatives of the features, so both are
computed once for each structure. Training then needs derivatives of the networks only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fedens.data.sample import Sample
from fedens.energy.functional import EnergyFunctional
from fedens.errors import ModelError
from fedens.features.descriptor import Descriptor
from fedens.features.points import PointSet
from fedens.fem.tensor import TensorSpace
from fedens.fields import ENERGY_DENSITIES
from fedens.models.crystal.data import sample_field
from fedens.models.points.coordinates import area_of_an_atom, moved
from fedens.structure import Structure

#: Stored derivatives of the features of one set of points may take this much memory, bytes.
MAX_BYTES = 2**31


@dataclass(frozen=True, eq=False)
class PointsData:
    """One set of reference points of one structure.

    Attributes:
        features: (n_points, n_features). weights: (n_points,).
        fields: total energy density and density (n_points, 2), smoothed over the distance of the
            points, hartree/bohr^3 and electron/bohr^3; or None.
        features_by_coordinate: (n_points * n_features, n_coordinates), single precision, per
            bohr; or None where no forces are learned.
        weights_by_coordinate: (n_points, n_coordinates) for weights that change, or None.
    """

    features: Tensor
    weights: Tensor
    fields: Tensor | None = None
    features_by_coordinate: Tensor | None = None
    weights_by_coordinate: Tensor | None = None

    def forces(self, energies: Tensor, slopes: Tensor) -> Tensor:
        """Forces (n_coordinates,) of energies (n_points,) with slopes (n_points, n_features) in the
        features; differentiable in both."""
        assert self.features_by_coordinate is not None
        pulls = (self.weights[:, None] * slopes).flatten()
        forces = -(pulls.to(self.features_by_coordinate) @ self.features_by_coordinate).to(slopes)
        if self.weights_by_coordinate is not None:
            forces = forces - energies @ self.weights_by_coordinate
        return forces


@dataclass(frozen=True, eq=False)
class StructureData:
    """What an energy model learns from one structure.

    Attributes:
        structure: the atoms. sets: one per set of reference points.
        energy: without the ions' closed energy, hartree.
        forces: on the coordinates, (3 n_atoms,) or with the cell's (3 n_atoms + 3,), likewise,
            hartree/bohr, or None.
        weight: how much the structure counts in the loss.
    """

    structure: Structure
    sets: Sequence[PointsData]
    energy: float
    forces: Tensor | None
    weight: float = 1.0


def prepare_structure(
    sample: Sample,
    descriptor: Descriptor,
    sets: Sequence[PointSet],
    functional: EnergyFunctional | None = None,
    *,
    with_forces: bool = True,
    with_stress: bool = False,
    with_fields: bool = False,
) -> StructureData:
    """Features, labels and, for forces, derivatives of a sample at sets of reference points.

    Args:
        sample: with an energy; with forces, stress and fields where these are asked for.
        functional: where given, the closed energy of its ions is taken off the labels.
        with_stress: of the cell beside the forces.

    Raises:
        ModelError: labels that the sample lacks, fields at points that fill no volume, stress at
            points of a mesh, or derivatives that take more than 2 GiB.
    """
    if with_stress and any(one.on_space for one in sets):
        raise ModelError(
            "stresses cannot be learned at points of a mesh, which is made anew for every cell: "
            "choose atoms, bonds or a grid"
        )
    n_coordinates = 3 * len(sample.structure) + (3 if with_stress else 0)
    coordinates = torch.zeros(n_coordinates, dtype=torch.float64, requires_grad=True)
    energy, forces = _labels(sample, functional, coordinates, with_forces)
    data = [_points(sample, descriptor, one, coordinates, with_forces) for one in sets]
    if with_fields:
        data[0] = replace(data[0], fields=_smoothed_fields(data[0].weights, sample, sets[0]))
    return StructureData(sample.structure, data, energy, forces)


def _labels(
    sample: Sample, functional: EnergyFunctional | None, coordinates: Tensor, with_forces: bool
) -> tuple[float, Tensor | None]:
    """Energy and forces on the coordinates, without the ions' closed energy."""
    forces = _forces(sample, len(coordinates)) if with_forces else None
    if functional is None:
        return sample.total_energy, forces
    where = moved(sample.structure, coordinates)
    ions = functional.electrostatics.ion_energy(sample.structure, *where)
    return without_closed(sample.total_energy, forces, ions, coordinates)


def _forces(sample: Sample, n_coordinates: int) -> Tensor:
    structure = sample.structure
    if sample.forces is None:
        raise ModelError(f"sample {structure.formula} has no forces to learn")
    forces = torch.tensor(sample.forces).flatten()
    if n_coordinates == len(forces):
        return forces
    if sample.stress is None:
        raise ModelError(f"sample {structure.formula} has no stress to learn")
    return torch.cat([forces, -area_of_an_atom(structure) * torch.tensor(sample.stress)])


def without_closed(
    energy: float, forces: Tensor | None, closed: Tensor, coordinates: Tensor
) -> tuple[float, Tensor | None]:
    """Energy and forces (n_coordinates,) less a closed energy of the coordinates and its forces."""
    if forces is not None:
        (gradient,) = torch.autograd.grad(closed, coordinates)
        forces = forces + gradient.flatten()
    return energy - float(closed.detach()), forces


def _points(
    sample: Sample,
    descriptor: Descriptor,
    chosen: PointSet,
    coordinates: Tensor,
    with_forces: bool,
) -> PointsData:
    structure = sample.structure
    if not with_forces:
        with torch.no_grad():
            where, weights = chosen.points_and_weights(structure)
            return PointsData(descriptor(where, structure), weights)
    positions, cell = moved(structure, coordinates)
    where, weights = chosen.points_and_weights(structure, positions, cell)
    size = 4 * len(weights) * descriptor.n_features * len(coordinates)
    if size > MAX_BYTES:
        raise ModelError(
            f"derivatives of {descriptor.n_features} features at {len(weights)} points by "
            f"{len(structure)} atoms take {size / 2**30:.1f} GiB, at most {MAX_BYTES / 2**30:.0f} "
            "are kept: learn forces at fewer points (a wider spacing), or fields without forces"
        )
    features = descriptor(where, structure, positions, cell)
    moves = weights.requires_grad
    return PointsData(
        features.detach(),
        weights.detach(),
        features_by_coordinate=jacobian(features.flatten(), coordinates).float(),
        weights_by_coordinate=jacobian(weights, coordinates) if moves else None,
    )


def jacobian(outputs: Tensor, inputs: Tensor) -> Tensor:
    """Derivatives (n_outputs, n_inputs) of many outputs (n_outputs,) by few inputs.

    One product of the Jacobian with a direction per input: the derivative, in the cotangent, of
    the reverse-mode derivative.
    """
    cotangent = torch.zeros_like(outputs, requires_grad=True)
    (pulled,) = torch.autograd.grad(outputs, inputs, cotangent, create_graph=True)
    columns = [
        torch.autograd.grad(one, cotangent, retain_graph=True)[0] for one in pulled.flatten()
    ]
    return torch.stack(columns, dim=1)


def _smoothed_fields(weights: Tensor, sample: Sample, chosen: PointSet) -> Tensor:
    """Energy density and density at the points (n_points, 2), smoothed with a Gaussian as wide as
    the points are apart.

    That leaves their integrals as they are and takes away what so few points cannot integrate.
    """
    if not chosen.per_volume:
        raise ModelError(
            f"fields cannot be learned at {chosen.kind}, which fill no volume: choose grid, "
            "quadrature or nodes for the first set, or learn energies and forces alone"
        )
    where, _ = chosen.points_and_weights(sample.structure)
    points = where.points if isinstance(where, TensorSpace) else torch.as_tensor(where)
    space = sample.tensor_space()
    width = float(weights.mean()) ** (1 / 3)
    smooth = torch.exp(-0.5 * width**2 * space.laplacian_eigenvalues)
    energy_density = torch.stack([sample_field(sample, n) for n in ENERGY_DENSITIES]).sum(dim=0)
    columns = [
        space.interpolate_at(smooth * space.test(values), points)
        for values in (energy_density, sample_field(sample, "density"))
    ]
    return torch.stack(columns, dim=1)
