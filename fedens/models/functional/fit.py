"""Bayesian least squares of a learned kinetic energy: parameters, their covariance, the prior."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fedens.data.sample import Sample
from fedens.energy.density_variables import DensityVariables
from fedens.energy.functional import EnergyFunctional
from fedens.energy.learned_kinetic import LearnedKinetic, Polynomial
from fedens.energy.nonlocal_kinetic import NonlocalKinetic
from fedens.energy.terms import DensityTerm
from fedens.errors import ModelError
from fedens.models.functional.labels import kinetic_label
from fedens.models.functional.rows import LabelRows, label_rows
from fedens.progress import Advance, Report, silent

#: Priors to choose from by cross-validation.
RIDGES = tuple(10.0**k for k in range(-6, 0))
#: Parts that the labels are divided into, of which each is left out once.
_FOLDS = 5
#: A label counts as much as its base functional is wrong by this, meV per electron; less beyond.
_TYPICAL_ERROR = 2.0


@dataclass(frozen=True)
class KineticFitSettings:
    """How a kinetic functional is learned.

    Attributes:
        variables: what the functional depends on. degree: of the polynomial in them.
        ridge: prior of all parameters: their expected size is 1/sqrt(ridge) in units of the rows'
            standard errors; None: chosen by cross-validation.
        energy_error: standard error of the labels' energies, meV per electron.
        model_weight: of model potentials where there are crystals too.
    """

    variables: DensityVariables = field(default_factory=DensityVariables)
    degree: int = 3
    ridge: float | None = None
    energy_error: float = 0.3
    model_weight: float = 0.1


@dataclass(frozen=True, eq=False)
class KineticFit:
    """A learned kinetic energy and how sure it is.

    Attributes:
        term: the functional. covariance: of its parameters, (n, n). ridge: the prior used.
        rows: for every label its name, and of the base functional and of the fit the error of the
            energy and the excess energy of the density, meV per electron.
        validation: for every prior tried the mean misfit of labels left out.
        calibration: of labels left out, errors of the energy over those that the covariance says.
        lowest, highest: of the variables in the labels, (n_variables,).
    """

    term: LearnedKinetic
    covariance: Tensor
    ridge: float
    rows: list[dict[str, Any]]
    validation: dict[float, float]
    calibration: float
    lowest: Tensor
    highest: Tensor


@dataclass(frozen=True, eq=False)
class _Equations:
    """Normal equations of one label, weighted."""

    name: str
    is_crystal: bool
    normal: Tensor
    right: Tensor
    constant: float
    energy_row: Tensor
    energy_target: float
    lowest: Tensor
    highest: Tensor

    @classmethod
    def of(cls, sample: Sample, rows: LabelRows, variables: Tensor) -> _Equations:
        a, b = rows.matrix, rows.targets
        return cls(
            name=sample.structure.formula,
            is_crystal=len(sample.structure) > 0,
            normal=a.T @ a,
            right=a.T @ b,
            constant=float(b @ b),
            energy_row=a[0].clone(),
            energy_target=float(b[0]),
            lowest=variables.amin(dim=0),
            highest=variables.amax(dim=0),
        )

    def misfit(self, parameters: Tensor) -> float:
        """Squared residuals, summed."""
        p = parameters
        return self.constant + float(p @ (self.normal @ p) - 2 * p @ self.right)

    def base_error(self, energy_error: float) -> float:
        """Of the base functional, energy and excess energy together, meV per electron."""
        excess = self.constant - self.energy_target**2
        return excess + abs(self.energy_target) * energy_error

    def row(self, parameters: Tensor, energy_error: float) -> dict[str, Any]:
        """What a report shows, see :class:`KineticFit`."""
        energy = self.energy_misfit(parameters)
        return {
            "name": self.name,
            "base_energy_error": self.energy_target * energy_error,
            "energy_error": energy * energy_error,
            "base_excess": self.constant - self.energy_target**2,
            "excess": self.misfit(parameters) - energy**2,
        }

    def energy_misfit(self, parameters: Tensor) -> float:
        """Residual of the energy over its standard error."""
        return self.energy_target - float(self.energy_row @ parameters)


def fit_kinetic(
    samples: Sequence[Sample],
    functional: EnergyFunctional,
    settings: KineticFitSettings | None = None,
    report: Report = silent,
) -> KineticFit:
    """Fit a learned kinetic energy beside the kinetic terms of a functional.

    Args:
        samples: Kohn-Sham crystals with local pseudopotentials and model potentials, mixed.
        functional: its kinetic terms are the base; its non-local one has a fixed mean density,
            which is the learned term's unit.

    Raises:
        ModelError: no samples, or a base without a fixed mean density.
        DatasetError: a sample that is no label of the kinetic energy.
    """
    settings = settings or KineticFitSettings()
    if not samples:
        raise ModelError("no samples to learn from")
    base = [t for t in functional.terms if t.group == "kinetic" and isinstance(t, DensityTerm)]
    start = LearnedKinetic(
        Polynomial(settings.variables, settings.degree), reference_density(functional)
    )
    equations = []
    for i, sample in enumerate(samples):
        report(Advance("equations of the labels", i, len(samples)))
        label = kinetic_label(sample)
        rows = label_rows(label, base, start, settings.energy_error)
        equations.append(_Equations.of(sample, rows, start.variables(label.density)))
    report(Advance("equations of the labels", len(samples), len(samples)))
    return _solve(equations, start, settings)


def reference_density(functional: EnergyFunctional) -> float:
    """The fixed mean density of a functional's non-local kinetic term, electron/bohr^3.

    Raises:
        ModelError: there is none.
    """
    for term in functional.terms:
        if isinstance(term, NonlocalKinetic) and term.mean_density is not None:
            return float(term.mean_density)
    raise ModelError(
        "the functional under a learned kinetic energy has no fixed mean density: make it with "
        "EnergyFunctional.orbital_free('wt', ..., mean_density=electrons per volume of the bulk)"
    )


def _solve(
    equations: Sequence[_Equations], start: LearnedKinetic, settings: KineticFitSettings
) -> KineticFit:
    weights = _weights(equations, settings)
    ridges = RIDGES if settings.ridge is None else (settings.ridge,)
    judged = {r: _left_out(equations, weights, r) for r in ridges} if len(equations) > 1 else {}
    ridge = min(judged, key=lambda r: judged[r][0], default=ridges[0])
    parameters, inverse = _solution(equations, weights, ridge)
    correction = start.correction.with_parameters(parameters.tolist())
    return KineticFit(
        term=LearnedKinetic(correction, start.mean_density),
        # as it is read back, so that sums over it are the same to the last bit
        covariance=(_noise(equations, weights, parameters) * inverse).contiguous(),
        calibration=judged[ridge][1] if judged else 1.0,
        ridge=ridge,
        rows=[one.row(parameters, settings.energy_error) for one in equations],
        validation={r: misfit for r, (misfit, _) in judged.items()},
        lowest=torch.stack([one.lowest for one in equations]).amin(dim=0),
        highest=torch.stack([one.highest for one in equations]).amax(dim=0),
    )


def _weights(equations: Sequence[_Equations], settings: KineticFitSettings) -> list[float]:
    """Of each label: less where the base is far off, for its misfit will be larger too."""
    mixed = len({one.is_crystal for one in equations}) == 2
    result = []
    for one in equations:
        wrong = one.base_error(settings.energy_error)
        weight = _TYPICAL_ERROR / (_TYPICAL_ERROR + wrong)
        result.append(weight * (settings.model_weight if mixed and not one.is_crystal else 1.0))
    return result


def _solution(
    equations: Sequence[_Equations], weights: Sequence[float], ridge: float
) -> tuple[Tensor, Tensor]:
    """Parameters and the inverse of the normal matrix with its prior."""
    pairs = list(zip(equations, weights, strict=True))
    normal = torch.stack([w * one.normal for one, w in pairs]).sum(dim=0)
    right = torch.stack([w * one.right for one, w in pairs]).sum(dim=0)
    identity = torch.eye(len(normal), dtype=normal.dtype)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(normal + ridge * identity))
    return inverse @ right, inverse


def _noise(equations: Sequence[_Equations], weights: Sequence[float], parameters: Tensor) -> float:
    """Variance of the rows in units of their standard errors: the mean misfit of a label."""
    misfits = [w * one.misfit(parameters) for one, w in zip(equations, weights, strict=True)]
    return sum(misfits) / sum(weights)


def _left_out(
    equations: Sequence[_Equations], weights: Sequence[float], ridge: float
) -> tuple[float, float]:
    """Of labels (crystals, where there are some) that the parameters were not fitted to:

    the mean misfit, and the root mean square of energy errors over their estimates.
    """
    judged = any(one.is_crystal for one in equations)
    misfits, ratios = [], []
    for fold in range(min(_FOLDS, len(equations))):
        kept = [i for i in range(len(equations)) if i % _FOLDS != fold]
        parameters, inverse = _solution(
            [equations[i] for i in kept], [weights[i] for i in kept], ridge
        )
        noise = _noise([equations[i] for i in kept], [weights[i] for i in kept], parameters)
        for i in range(fold, len(equations), _FOLDS):
            one = equations[i]
            if one.is_crystal or not judged:
                misfits.append(weights[i] * one.misfit(parameters))
                variance = noise * float(one.energy_row @ inverse @ one.energy_row)
                ratios.append(one.energy_misfit(parameters) ** 2 / variance)
    return sum(misfits) / len(misfits), math.sqrt(sum(ratios) / len(ratios))
