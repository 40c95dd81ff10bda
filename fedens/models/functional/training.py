"""From Kohn-Sham labels to a model that minimises a learned functional."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import asdict

from fedens.data.sample import Sample
from fedens.energy.electrostatics import Electrostatics
from fedens.energy.functional import EnergyFunctional
from fedens.energy.learned_kinetic import LearnedKinetic
from fedens.learning.domain import TrainingDomain
from fedens.models.functional.equations import (
    LabelEquations,
    kinetic_base,
    reference_density,
)
from fedens.models.functional.fit import KineticFitSettings, fit_kinetic
from fedens.models.functional.model import FunctionalModel
from fedens.progress import Advance, Report, silent


def label_equations(
    samples: Mapping[str, Sample],
    functional: EnergyFunctional,
    settings: KineticFitSettings,
    report: Report = silent,
    known: MutableMapping[str, LabelEquations] | None = None,
) -> list[LabelEquations]:
    """Equations of samples by name: seconds each, so that ``known`` ones are taken and kept.

    Raises:
        ModelError: a functional without a fixed mean density, the learned term's unit.
        DatasetError: a sample that is no label of the kinetic energy.
    """
    known = {} if known is None else known
    base, learned = kinetic_base(functional), settings.start(reference_density(functional))
    for i, (name, sample) in enumerate(samples.items()):
        report(Advance("equations of the labels", i, len(samples)))
        if name not in known:
            known[name] = LabelEquations.of(sample, base, learned)
    report(Advance("equations of the labels", len(samples), len(samples)))
    return [known[name] for name in samples]


def train_functional(
    labels: Sequence[LabelEquations],
    functional: EnergyFunctional,
    settings: KineticFitSettings | None = None,
    *,
    spacing: float,
    order: int,
) -> FunctionalModel:
    """Learn a kinetic energy beside that of a functional, with error bars.

    Args:
        labels: of :func:`label_equations`, with the same functional and settings.
        functional: with a fixed mean density, and with the xc energy and the local
            pseudopotentials that the model will work with.
        spacing, order: of the spaces it will work on; spacing in bohr.

    Raises:
        ModelError: no labels, or a functional without a fixed mean density.
    """
    settings = settings or KineticFitSettings()
    fit = fit_kinetic(labels, reference_density(functional), settings)
    return FunctionalModel(
        functional=with_learned(functional, fit.term),
        spacing=spacing,
        order=order,
        covariance=fit.covariance,
        calibration=fit.calibration,
        domain=TrainingDomain(
            fit.lowest, fit.highest, tuple(sorted(functional.pseudopotentials)), None
        ),
        provenance={
            "settings": asdict(settings),
            "ridge": fit.ridge,
            "validation": {f"{ridge:g}": misfit for ridge, misfit in fit.validation.items()},
            "labels": fit.rows,
        },
    )


def with_learned(functional: EnergyFunctional, term: LearnedKinetic) -> EnergyFunctional:
    """A functional with a learned kinetic energy beside its own."""
    others = [t for t in functional.terms if not isinstance(t, LearnedKinetic | Electrostatics)]
    return EnergyFunctional([*others, term, functional.electrostatics])
