"""Training data: descriptors and targets of whole elements of the mesh, kept in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fedens.atoms.baseline import Baseline
from fedens.data.sample import Sample
from fedens.errors import ModelError
from fedens.features.descriptor import Descriptor
from fedens.fields import ENERGY_DENSITIES
from fedens.learning.scaling import Standardise
from fedens.models.crystal.model import Predictor
from fedens.progress import Advance, Report, silent


@dataclass(eq=False)
class TrainingData:
    """Elements of all training structures, scaled, ready for a network; float32.

    Attributes:
        features: (n_elements, n_quadrature, n_features).
        targets: (n_elements, n_quadrature, n_outputs), in units of target_scales.
        weights: quadrature weights relative to the mean, (n_elements, n_quadrature).
        lengths: edges of the elements, (n_elements, 3), bohr. order: of the elements.
        owners: index of each element's structure, (n_elements,).
        scaling: of the features. target_scales: spread of each target, (n_outputs,), float64.
    """

    features: Tensor
    targets: Tensor
    weights: Tensor
    lengths: Tensor
    owners: Tensor
    order: int
    scaling: Standardise
    target_scales: Tensor

    @classmethod
    def from_samples(
        cls,
        samples: Sequence[Sample],
        descriptor: Descriptor,
        baseline: Baseline,
        device: torch.device | str = "cpu",
        report: Report = silent,
        known: Predictor | None = None,
    ) -> TrainingData:
        """Descriptors of samples, and root densities as differences to a baseline.

        Computed once and kept in memory. Features and targets are scaled to this data, or as they
        are for a ``known`` predictor.
        """
        features, targets, spaces = [], [], []
        for i, sample in enumerate(samples):
            space = sample.tensor_space(device)
            spaces.append(space)
            with torch.no_grad():
                base = baseline.density(sample.structure, space)
                root = sample_field(sample, "density", device).clamp(min=0).sqrt()
                features.append(space.element_blocks(descriptor(space, sample.structure)))
                targets.append(space.element_blocks((root - base.root)[:, None]))
            report(Advance("descriptors", i + 1, len(samples)))
        orders = {space.order for space in spaces}
        if len(orders) != 1:
            raise ModelError(f"samples have elements of orders {sorted(orders)}; expected one")
        scaling, scales = Standardise.fit(part.flatten(0, 1) for part in features), None
        if known is not None:
            scaling, scales = known.scaling, known.target_scales[:1].to(device)
        scaled, target_scales = _scaled(torch.cat(targets), scales)
        weights = torch.cat([space.element_blocks(space.weights) for space in spaces])
        return cls(
            features=torch.cat([scaling(part).float() for part in features]),
            targets=scaled,
            weights=(weights / weights.mean()).float(),
            lengths=torch.cat([space.element_lengths for space in spaces]).float(),
            owners=torch.cat([torch.full((len(p),), i) for i, p in enumerate(features)]),
            order=orders.pop(),
            scaling=scaling,
            target_scales=target_scales,
        )

    def with_targets(self, targets: Tensor, scales: Tensor | None = None) -> TrainingData:
        """The same elements with other targets (n_elements, n_quadrature, n_outputs).

        ``scales`` (n_outputs,): default the targets' spread.
        """
        targets, scales = _scaled(targets, scales)
        return replace(self, targets=targets, target_scales=scales)

    def __len__(self) -> int:
        return len(self.features)


def _scaled(targets: Tensor, scales: Tensor | None) -> tuple[Tensor, Tensor]:
    if scales is None:
        scales = targets.flatten(0, 1).std(dim=0).clamp(min=1e-12)
    return (targets / scales).float(), scales


def energy_density_targets(samples: Sequence[Sample], predictor: Predictor) -> Tensor:
    """Reference energy densities minus those known at the predicted density.

    (n_elements, n_quadrature, 3); ``predictor`` needs to know root densities only.
    """
    parts = []
    for sample in samples:
        space = sample.tensor_space(predictor.device)
        with torch.no_grad():
            prediction = predictor.predict(sample.structure, space)
            known = prediction.known_energy_densities
        columns = [sample_field(sample, n, predictor.device) - known[n] for n in ENERGY_DENSITIES]
        parts.append(space.element_blocks(torch.stack(columns, dim=1)))
    return torch.cat(parts)


def sample_field(sample: Sample, name: str, device: torch.device | str = "cpu") -> Tensor:
    """A field (n_points,) of a sample as a tensor, or an error that names it."""
    if name not in sample.fields:
        raise ModelError(f"sample {sample.structure.formula} has no field {name!r} to learn")
    return torch.tensor(sample.fields[name], device=device)
