"""Training of energy models: least squares first, then gradient descent on the same loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from fedens.data.sample import Sample
from fedens.energy.functional import EnergyFunctional
from fedens.errors import ModelError
from fedens.features.descriptor import Descriptor
from fedens.features.points import PointSet
from fedens.learning.domain import TrainingDomain
from fedens.learning.fit import Checkpoints, FitSettings, fit
from fedens.learning.scaling import Standardise
from fedens.models.points.data import StructureData, prepare_structure
from fedens.models.points.model import EnergyModel, PointModel, PointModels
from fedens.models.points.objective import EnergyObjective, EnergyTrainingSettings
from fedens.progress import Advance, Report, silent

_WEIGHT_DECAY, _RECORD_EVERY, _CHECKPOINT_EVERY = 0.01, 20, 500
#: Gradients of the loss are cut to this norm: single structures can be far off at first.
_LARGEST_GRADIENT = 10.0


def train_energy_model(
    samples: Sequence[Sample],
    descriptor: Descriptor,
    sets: Sequence[PointSet],
    settings: EnergyTrainingSettings | None = None,
    functional: EnergyFunctional | None = None,
    report: Report = silent,
    checkpoints: str | Path | None = None,
) -> EnergyModel:
    """Train E = sum of w e(D) over sets of reference points.

    Args:
        samples: with energies, and with forces and fields where their weights are not zero.
        functional: where given, the model adds the closed energy of its ions: needed for energy
            densities, which do not hold it.
        checkpoints: folder where the training leaves what it has done: with the same settings and
            samples, one that was cut off goes on from there.

    Raises:
        ModelError: no samples, no labels, or labels that a sample lacks; a training that diverges.
    """
    settings = settings or EnergyTrainingSettings()
    how = {
        "with_forces": settings.learns_forces,
        "with_stress": settings.learns_forces and settings.with_stress,
        "with_fields": settings.learns_fields,
    }
    structures = []
    for i, sample in enumerate(samples):
        structures.append(prepare_structure(sample, descriptor, sets, functional, **how))
        report(Advance("descriptors", i + 1, len(samples)))
    return fit_energy_model(structures, descriptor, sets, settings, functional, report, checkpoints)


def fit_energy_model(
    structures: Sequence[StructureData],
    descriptor: Descriptor,
    sets: Sequence[PointSet],
    settings: EnergyTrainingSettings,
    functional: EnergyFunctional | None = None,
    report: Report = silent,
    checkpoints: str | Path | None = None,
) -> EnergyModel:
    """Train on what :func:`fedens.models.points.data.prepare_structure` made of the samples."""
    if not structures:
        raise ModelError("no samples to train on")
    if max(settings.energy_weight, settings.force_weight, settings.field_weight) <= 0:
        raise ModelError("all weights of the loss are zero: nothing would be learned")
    torch.manual_seed(settings.seed)
    parts = []
    for i, points in enumerate(sets):
        scaling = Standardise.fit(one.sets[i].features for one in structures)
        n_outputs = 2 if settings.learns_fields and i == 0 else 1
        parts.append(PointModel(points, scaling, settings.hidden, n_outputs))
    labels = [asdict(settings), *(one.energy for one in structures)]
    tensors = [one.forces for one in structures]
    tensors += [
        t for one in structures for p in one.sets for t in (p.features, p.weights, p.fields)
    ]
    fitting = FitSettings(
        settings.steps if settings.hidden else 0,  # a linear model takes none
        settings.learning_rate,
        max_seconds=settings.max_seconds,
        weight_decay=_WEIGHT_DECAY,
        largest_gradient=_LARGEST_GRADIENT,
        record_every=_RECORD_EVERY,
        checkpoint_every=_CHECKPOINT_EVERY,
        seed=settings.seed,
    )
    history = fit(
        PointModels(parts),
        EnergyObjective(structures, settings),
        fitting,
        "training",
        checkpoints=Checkpoints.for_data(checkpoints, labels, tensors),
        report=report,
    )
    features = torch.cat([points.features for one in structures for points in one.sets])
    return EnergyModel(
        descriptor,
        parts,
        functional,
        TrainingDomain.of(features, [one.structure for one in structures]),
        vars(history),
        {
            "settings": asdict(settings),
            "n_samples": len(structures),
            "steps": history.step[-1] if history.step else 0,
        },
    )
