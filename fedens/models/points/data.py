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
        features_by_position: (n_points * n_features, 3 n_atoms), single precision, per bohr; or
            None where no forces are learned.
        weights_by_position: (n_points, 3 n_atoms) for points that move with atoms, or None.
    """

    features: Tensor
    weights: Tensor
    fields: Tensor | None = None
    features_by_position: Tensor | None = None
    weights_by_position: Tensor | None = None

    def forces(self, energies: Tensor, slopes: Tensor) -> Tensor:
        """Forces (3 n_atoms,) of energies (n_points,) with slopes (n_points, n_features) in the
        features; differentiable in both."""
        assert self.features_by_position is not None
        pulls = (self.weights[:, None] * slopes).flatten()
        forces = -(pulls.to(self.features_by_position) @ self.features_by_position).to(slopes)
        if self.weights_by_position is not None:
            forces = forces - energies @ self.weights_by_position
        return forces


@dataclass(frozen=True, eq=False)
class StructureData:
    """What an energy model learns from one structure.

    Attributes:
        structure: the atoms. sets: one per set of reference points.
        energy: without the ions' closed energy, hartree.
        forces: (3 n_atoms,), likewise, hartree/bohr, or None.
    """

    structure: Structure
    sets: Sequence[PointsData]
    energy: float
    forces: Tensor | None


def prepare_structure(
    sample: Sample,
    descriptor: Descriptor,
    sets: Sequence[PointSet],
    functional: EnergyFunctional | None = None,
    *,
    with_forces: bool = True,
    with_fields: bool = False,
) -> StructureData:
    """Features, labels and, for forces, derivatives of a sample at sets of reference points.

    Args:
        sample: with an energy; with forces and fields where these are asked for.
        functional: where given, the closed energy of its ions is taken off the labels.

    Raises:
        ModelError: labels that the sample lacks, fields at points that fill no volume, or
            derivatives that take more than 2 GiB.
    """
    positions = torch.tensor(sample.structure.positions, requires_grad=True)
    energy, forces = _labels(sample, functional, positions, with_forces)
    data = [_points(sample, descriptor, one, positions, with_forces) for one in sets]
    if with_fields:
        data[0] = replace(data[0], fields=_smoothed_fields(data[0].weights, sample, sets[0]))
    return StructureData(sample.structure, data, energy, forces)


def _labels(
    sample: Sample, functional: EnergyFunctional | None, positions: Tensor, with_forces: bool
) -> tuple[float, Tensor | None]:
    if with_forces and sample.forces is None:
        raise ModelError(f"sample {sample.structure.formula} has no forces to learn")
    forces = torch.tensor(sample.forces).flatten() if with_forces else None
    if functional is None:
        return sample.total_energy, forces
    ions = functional.electrostatics.ion_energy(sample.structure, positions)
    return without_closed(sample.total_energy, forces, ions, positions)


def without_closed(
    energy: float, forces: Tensor | None, closed: Tensor, positions: Tensor
) -> tuple[float, Tensor | None]:
    """Energy and forces (3 n_atoms,) less a closed energy of positions and its forces."""
    if forces is not None:
        (gradient,) = torch.autograd.grad(closed, positions)
        forces = forces + gradient.flatten()
    return energy - float(closed.detach()), forces


def _points(
    sample: Sample,
    descriptor: Descriptor,
    chosen: PointSet,
    positions: Tensor,
    with_forces: bool,
) -> PointsData:
    structure = sample.structure
    if not with_forces:
        with torch.no_grad():
            where, weights = chosen.points_and_weights(structure)
            return PointsData(descriptor(where, structure), weights)
    where, weights = chosen.points_and_weights(structure, positions)
    size = 4 * len(weights) * descriptor.n_features * positions.numel()
    if size > MAX_BYTES:
        raise ModelError(
            f"derivatives of {descriptor.n_features} features at {len(weights)} points by "
            f"{len(positions)} atoms take {size / 2**30:.1f} GiB, at most {MAX_BYTES / 2**30:.0f} "
            "are kept: learn forces at fewer points (a wider spacing), or fields without forces"
        )
    features = descriptor(where, structure, positions)
    moves = weights.requires_grad
    return PointsData(
        features.detach(),
        weights.detach(),
        features_by_position=jacobian(features.flatten(), positions).float(),
        weights_by_position=jacobian(weights, positions) if moves else None,
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
