"""From Kohn-Sham labels to a model that minimises a learned functional."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from fedens.data.sample import Sample
from fedens.energy.electrostatics import Electrostatics
from fedens.energy.functional import EnergyFunctional
from fedens.energy.learned_kinetic import LearnedKinetic
from fedens.learning.domain import TrainingDomain
from fedens.models.functional.fit import KineticFitSettings, fit_kinetic
from fedens.models.functional.model import FunctionalModel
from fedens.progress import Report, silent


def train_functional(
    samples: Sequence[Sample],
    functional: EnergyFunctional,
    settings: KineticFitSettings | None = None,
    *,
    spacing: float,
    order: int,
    report: Report = silent,
) -> FunctionalModel:
    """Learn a kinetic energy beside that of a functional, with error bars.

    Args:
        samples, functional, settings: see :func:`fit_kinetic`; the functional also has the xc
            energy and the local pseudopotentials that the model will work with.
        spacing, order: of the spaces it will work on; spacing in bohr.

    Raises:
        ModelError, DatasetError: see :func:`fit_kinetic`.
    """
    settings = settings or KineticFitSettings()
    fit = fit_kinetic(samples, functional, settings, report)
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
