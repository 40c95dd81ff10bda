"""Loss terms of whole structures: the functional's energy and Hellmann-Feynman forces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from fedens.data.sample import Sample
from fedens.energy.forces import hellmann_feynman_forces
from fedens.energy.functional import BoundFunctional
from fedens.errors import ModelError
from fedens.fem.tensor import TensorSpace
from fedens.models.crystal.model import Predictor
from fedens.models.crystal.prediction import density_from_root
from fedens.structure import Structure


@dataclass(frozen=True, eq=False)
class _Whole:
    """One structure with what its terms need."""

    structure: Structure
    bound: BoundFunctional
    baseline_root: Tensor
    energy: float
    forces: Tensor | None


@dataclass(frozen=True, eq=False)
class StructureLoss:
    """Energy and force terms of a root density predicted at all points of a structure.

    The parent functional's energy at the predicted density lies above the reference's by the
    density's error in the energy's own norm, so it needs no square. Hellmann-Feynman forces are
    linear in the density: one backward pass and no second derivative of a network.
    """

    wholes: Sequence[_Whole]
    scale: Tensor
    energy_weight: float
    force_weight: float

    @classmethod
    def of(
        cls,
        samples: Sequence[Sample],
        predictor: Predictor,
        energy_weight: float,
        force_weight: float,
    ) -> StructureLoss | None:
        """The terms for some samples, or None where both weights are zero.

        Raises:
            ModelError: a force term for samples without forces; a model without functional, or
                with samples that are not of its functional where the weighted term needs that.
        """
        if not energy_weight and not force_weight:
            return None
        weights = {"functional": energy_weight, "hellmann_feynman": force_weight}
        for route, weight in weights.items():
            if weight and predictor.labels is not None:
                predictor.labels.check(route)
        if force_weight and any(sample.forces is None for sample in samples):
            raise ModelError("force_weight is not 0, but there are samples without forces")
        wholes = []
        for sample in samples:
            space = sample.tensor_space(predictor.device)
            with torch.no_grad():
                bound = predictor.parent.bind(sample.structure, space)
                root = predictor.baseline.density(sample.structure, space).root
            forces = None if sample.forces is None else torch.tensor(sample.forces).to(space.device)
            wholes.append(_Whole(sample.structure, bound, root, sample.total_energy, forces))
        return cls(wholes, predictor.target_scales[0], energy_weight, force_weight)

    def __len__(self) -> int:
        return len(self.wholes)

    def __call__(self, index: int, outputs: Tensor) -> Tensor:
        """Scalar loss of a network's outputs (n_elements, n_quadrature, 1) for one structure."""
        whole = self.wholes[index]
        space = cast(TensorSpace, whole.bound.space)
        learned = space.from_element_blocks(outputs[..., 0].double())
        root = whole.baseline_root + self.scale * learned
        density = density_from_root(space, root, whole.bound.electrons)
        loss = torch.zeros((), dtype=torch.float64, device=space.device)
        if self.energy_weight:
            excess = (whole.bound.energy(density) - whole.energy) / space.volume
            loss = loss + self.energy_weight * excess / self.scale**2
        if self.force_weight:
            assert whole.forces is not None
            forces = hellmann_feynman_forces(
                whole.bound.functional, whole.structure, density, create_graph=True
            )
            error = ((forces - whole.forces) ** 2).mean()
            loss = loss + self.force_weight * error / self.scale**2
        return loss.float()
