"""Training of pointwise models on samples, element by element, with checkpoints and resume.

First the root density is learned as a difference to a baseline, then the energy densities as
differences to the known functional at the predicted density. Networks learn from whole elements
of the mesh, so that the gradient of the error is known inside each. The loss of the root density is
the squared error plus a multiple of the squared gradient of the error: to second order that is what
a density error costs in energy, where the von Weizsaecker term makes roughness dear.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from fedens.atoms.baseline import (
    Baseline,
    GaussianAtoms,
    SuperposedAtoms,
    baseline_of,
    default_baseline,
)
from fedens.data.sample import Sample
from fedens.energy.functional import EnergyFunctional
from fedens.energy.kohn_sham import KohnSham
from fedens.errors import ModelError
from fedens.features.descriptor import Descriptor
from fedens.fields import ENERGY_DENSITIES
from fedens.learning.committee import left_out
from fedens.learning.devices import resolve_device
from fedens.learning.domain import TrainingDomain
from fedens.learning.fit import Checkpoints, FitSettings, History, fit
from fedens.learning.pointwise import FieldNetwork, PointwiseNetwork
from fedens.models.crystal.data import TrainingData, energy_density_targets, sample_field
from fedens.models.crystal.labels import KohnShamLabels, is_kohn_sham
from fedens.models.crystal.losses import EnergyDensityLoss, RootDensityLoss
from fedens.models.crystal.model import Predictor
from fedens.models.crystal.objective import ElementObjective, TrainingSettings
from fedens.models.crystal.structure_loss import StructureLoss
from fedens.progress import Report, silent

_WARM_UP_STEPS = 100


def train(
    samples: Sequence[Sample],
    descriptor: Descriptor,
    settings: TrainingSettings | None = None,
    functional: EnergyFunctional | None = None,
    baseline: str | Baseline | None = None,
    device: str = "auto",
    checkpoint: str | Path | None = None,
    report: Report = silent,
    start_from: Predictor | None = None,
) -> Predictor:
    """Train a predictor of density and energy densities on samples.

    Args:
        samples: with ``density`` on a TensorSpace and, all of them or none, energy densities.
            Without them, as in imported data, the density alone is learned.
        functional: the parent functional; default the one in the samples' provenance. Data
            whose functional is not known need one with as many electrons, or a baseline that
            needs none: then the model has no functional. For Kohn-Sham data it is any
            orbital-free one, where the learned differences begin, or None: then the baseline is
            superposed atoms. See :class:`fedens.models.crystal.labels.KohnShamLabels` for the
            energies and forces that such a model knows.
        baseline: what the root density is learned as a difference to, or the name of one of the
            functional's: ``relaxed_response``, ``linear_response`` or ``superposed_atoms``, see
            :mod:`fedens.atoms.baseline`; default the first for periodic structures, the last for
            isolated ones.
        device: ``auto``, ``cpu`` or ``cuda``.
        checkpoint: folder for checkpoints; a training that was cut off goes on from there when
            it is called again with the same samples and settings.
        report: called as training goes on.
        start_from: a trained predictor whose weights to start from. It keeps its scaling of
            features and targets, so that they keep their meaning. Where it comes from a
            committee, put its samples first and in the same order: each member then goes on
            leaving out the structures it did not learn from.

    Raises:
        ModelError: samples that do not fit together, or have other numbers of electrons than
            the functional; ``start_from`` of another kind.
        DeviceError: a missing device.
    """
    settings, target = settings or TrainingSettings(), resolve_device(device)
    functional, baseline = _known(samples, functional, baseline)
    density_alone = _check(samples, functional or baseline)
    if start_from is not None:
        _check_same_kind(start_from, descriptor, settings, functional, baseline)
    data = TrainingData.from_samples(samples, descriptor, baseline, target, report, start_from)
    if start_from is None:
        shape = (descriptor.n_features, settings.hidden, len(ENERGY_DENSITIES))
        networks = [FieldNetwork(*shape) for _ in range(settings.committee)]
    else:
        networks = [copy.deepcopy(network) for network in start_from.networks]
    predictor = Predictor(
        descriptor=descriptor,
        scaling=data.scaling,
        networks=[network.to(target) for network in networks],
        target_scales=torch.cat([data.target_scales, data.target_scales.new_zeros(3)]),
        functional=functional,
        baseline=baseline,
        spacing=max(sample.tensor_space().finest_spacing for sample in samples),
        order=data.order,
        hidden=settings.hidden,
        domain=TrainingDomain.of(data.features, [sample.structure for sample in samples]),
        history=vars(History()) if start_from is None else copy.deepcopy(start_from.history),
        provenance={
            "settings": asdict(settings),
            "n_samples": len(samples),
            "formulas": [sample.structure.formula for sample in samples],
        },
        labels=KohnShamLabels.of(samples, functional),
    )
    tensors = [torch.tensor(sample.fields["density"]) for sample in samples]
    if start_from is not None:
        tensors += [tensor.cpu() for tensor in start_from.tensors().values()]
    labels = [predictor.describe(), [sample.energy for sample in samples]]
    places = Checkpoints.for_data(checkpoint, labels, tensors)
    training = _Training(predictor, settings, start_from is None, places, report)
    training.root_densities(samples, data)
    if not density_alone:
        scales = None if start_from is None else start_from.target_scales[1:].to(target)
        data = data.with_targets(energy_density_targets(samples, predictor), scales)
        training.energy_densities(data)
    return replace(predictor, calibration=left_out_calibration(predictor, samples))


def _known(
    samples: Sequence[Sample],
    functional: EnergyFunctional | None,
    baseline: str | Baseline | None,
) -> tuple[EnergyFunctional | None, Baseline]:
    """The functional, if there is one, and the baseline."""
    if not samples:
        raise ModelError("no samples to train on")
    first, *others = (sample.provenance.get("functional") for sample in samples)
    if functional is None:
        nameless = first is None and not any(others)
        if nameless and baseline is not None and not isinstance(baseline, str):
            return None, baseline
        if first is None or any(other != first for other in others):
            raise ModelError(
                "samples come from different functionals, or do not name theirs: train on data of "
                "one functional, or pass functional="
            )
        if is_kohn_sham(first):
            return None, _without_functional(samples, KohnSham.from_description(first), baseline)
        functional = EnergyFunctional.from_description(first)
    baseline = baseline or default_baseline(samples[0].structure, functional)
    return functional, baseline_of(baseline, functional) if isinstance(baseline, str) else baseline


def _without_functional(
    samples: Sequence[Sample], theory: KohnSham, baseline: str | Baseline | None
) -> Baseline:
    """The baseline of Kohn-Sham data: superposed atoms if none is given."""
    if not (baseline is None or isinstance(baseline, str)):
        return baseline
    if baseline not in (None, SuperposedAtoms.kind):
        raise ModelError(
            f"baseline {baseline!r} comes from an orbital-free functional, and Kohn-Sham data "
            f"have none: pass functional=, or use {SuperposedAtoms.kind!r}"
        )
    symbols = {symbol for sample in samples for symbol in sample.structure.symbols}
    return GaussianAtoms.of_ions({s: theory.pseudopotentials[s] for s in sorted(symbols)})


def _check(samples: Sequence[Sample], known: EnergyFunctional | Baseline) -> bool:
    """Whether there are densities alone; rather an error now than after an hour."""
    density_alone = not any(name in s.fields for s in samples for name in ENERGY_DENSITIES)
    for sample in samples:
        for name in ("density", *(() if density_alone else ENERGY_DENSITIES)):
            sample_field(sample, name)
        expected = known.number_of_electrons(sample.structure)
        if abs(sample.number_of_electrons - expected) > 0.5:
            raise ModelError(
                f"sample {sample.structure.formula} holds {sample.number_of_electrons:.4f} "
                f"electrons, the functional's pseudopotentials or the baseline's atoms make it "
                f"{expected:g}: choose some of the same valence"
            )
    return density_alone


def _check_same_kind(
    start_from: Predictor,
    descriptor: Descriptor,
    settings: TrainingSettings,
    functional: EnergyFunctional | None,
    baseline: Baseline,
) -> None:
    functionals = [f.describe() if f else None for f in (start_from.functional, functional)]
    asked: dict[str, tuple[Any, ...]] = {
        "descriptor": (start_from.descriptor.describe(), descriptor.describe()),
        "hidden units": (list(start_from.hidden), list(settings.hidden)),
        "committee": (len(start_from.networks), settings.committee),
        "functional": tuple(functionals),
        "baseline": (start_from.baseline.describe(), baseline.describe()),
    }
    for name, (there, wanted) in asked.items():
        if there != wanted:
            raise ModelError(
                f"cannot start from this predictor: its {name} is {there}, asked for is {wanted}"
            )


@dataclass(frozen=True, eq=False)
class _Training:
    """A predictor in training: what both kinds of its networks have in common."""

    predictor: Predictor
    settings: TrainingSettings
    fresh: bool
    checkpoints: Checkpoints | None
    report: Report

    def root_densities(self, samples: Sequence[Sample], data: TrainingData) -> None:
        """Learn the root density; the first member's losses go into the history."""
        settings, predictor = self.settings, self.predictor
        whole = StructureLoss.of(samples, predictor, settings.energy_weight, settings.force_weight)
        loss = RootDensityLoss(data.order, settings.gradient_weight, data.features.device)
        for member, network in enumerate(predictor.networks):
            objective = ElementObjective(data, loss, member, settings, self.fresh, whole)
            after = self._fit(network.root_density, objective, f"root density {member}", 1.0)
            if member == 0:  # a history that goes on counts its steps on
                history = predictor.history
                done = history["step"][-1] if history["step"] else 0
                history["step"] += [done + step for step in after.step]
                history["training_loss"] += after.training_loss
                history["validation_loss"] += after.validation_loss

    def energy_densities(self, data: TrainingData) -> None:
        """Learn what the functional's energy densities at the predicted density lack."""
        self.predictor.target_scales[1:] = data.target_scales
        loss = EnergyDensityLoss(data.target_scales, self.settings.integral_weight)
        share = self.settings.energy_density_share
        for member, network in enumerate(self.predictor.networks):
            objective = ElementObjective(data, loss, member, self.settings, self.fresh)
            self._fit(network.energy_densities, objective, f"energy densities {member}", share)

    def _fit(
        self, network: PointwiseNetwork, objective: ElementObjective, label: str, share: float
    ) -> History:
        """Fit one network in a share of the steps and of the time."""
        settings, limit = self.settings, self.settings.max_seconds
        return fit(
            network,
            objective,
            FitSettings(
                steps=max(1, round(share * settings.steps)),
                learning_rate=settings.learning_rate,
                max_seconds=None if limit is None else share * limit,
                warm_up_steps=_WARM_UP_STEPS,
                checkpoint_every=settings.checkpoint_every,
                seed=settings.seed,
            ),
            label,
            member=objective.member,
            device=self.predictor.device,
            checkpoints=self.checkpoints,
            report=self.report,
        )


@torch.no_grad()
def left_out_calibration(predictor: Predictor, samples: Sequence[Sample]) -> float:
    """Factor from the committee's spread of the density to the error of a member.

    The root of the mean squared error, over that of the spread, both integrated over the
    structures that a member was not trained on; 1 where there are none.
    """
    committee = len(predictor.networks)
    error = estimate = 0.0
    for member in range(committee):
        for index in left_out(len(samples), member, committee):
            sample = samples[index]
            space = sample.tensor_space(predictor.device)
            expected = sample_field(sample, "density", predictor.device)
            whole = predictor.predict(sample.structure, space)
            alone = whole.members()[member]
            assert whole.density_uncertainty is not None
            error += float(space.integrate((alone.density.values - expected) ** 2))
            estimate += float(space.integrate(whole.density_uncertainty**2))
    return math.sqrt(error / estimate) if estimate > 0 else 1.0
