"""Bayesian least squares of a learned kinetic energy: parameters, their covariance, the prior."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fedens.energy.density_variables import DensityVariables
from fedens.energy.learned_kinetic import LearnedKinetic, Polynomial
from fedens.errors import ModelError
from fedens.models.functional.equations import LabelEquations

#: Priors to choose from by cross-validation.
RIDGES = tuple(10.0**k for k in range(-7, 0))
#: Parts that the labels are divided into, of which each is left out once.
_FOLDS = 5
#: Excess energy, meV per electron, beyond which a label counts the less the more the base misses:
#: there the fit misses more too.
_TYPICAL_EXCESS = 0.5
#: Energies of model potentials are fitted this loosely, over what the base misses: functionals
#: that are right for their derivatives are not for both.
_LOOSE = 3.0
#: Smallest misfit that is more than rounding.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class KineticFitSettings:
    """How a kinetic functional is learned.

    Attributes:
        variables: what the functional depends on. degree: of the polynomial in them.
        ridge: prior of all parameters, over the rows' variance; None: cross-validated.
        energy_error: standard error of the crystals' energies, meV per electron.
        model_weight: of model potentials where there are crystals too.
    """

    variables: DensityVariables = field(default_factory=DensityVariables)
    degree: int = 3
    ridge: float | None = None
    energy_error: float = 0.3
    model_weight: float = 0.1

    def start(self, mean_density: float) -> LearnedKinetic:
        """The functional with all parameters zero; mean_density: electron/bohr^3."""
        return LearnedKinetic(Polynomial(self.variables, self.degree), mean_density)


@dataclass(frozen=True, eq=False)
class KineticFit:
    """A learned kinetic energy and how sure it is.

    Attributes:
        term: the functional. covariance: of its parameters, (n, n). ridge: the prior used.
        rows: for every label its name, and of the base functional and of the fit the error of the
            energy and the excess energy of the density, meV per electron.
        validation: for every prior tried the typical misfit of labels left out.
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
class _Weighted:
    """Equations of one label with the weights of its derivative and of its energy."""

    label: LabelEquations
    weight: float
    energy_weight: float

    @property
    def normal(self) -> Tensor:
        row = self.label.energy_row
        return self.weight * self.label.normal + self.energy_weight * torch.outer(row, row)

    @property
    def right(self) -> Tensor:
        energy = self.energy_weight * self.label.energy_target * self.label.energy_row
        return self.weight * self.label.right + energy

    def misfit(self, parameters: Tensor) -> float:
        """Squared residuals, weighted and summed."""
        energy = self.label.energy_error(parameters) ** 2
        return self.weight * self.label.excess(parameters) + self.energy_weight * energy


def fit_kinetic(
    labels: Sequence[LabelEquations],
    mean_density: float,
    settings: KineticFitSettings | None = None,
) -> KineticFit:
    """Fit a learned kinetic energy to the equations of labels.

    Args:
        labels: of crystals and of model potentials, mixed; made with the same base functional,
            variables and degree.
        mean_density: the learned term's unit, electron/bohr^3.

    Raises:
        ModelError: no labels.
    """
    settings = settings or KineticFitSettings()
    if not labels:
        raise ModelError("no samples to learn from")
    equations = _weighted(labels, settings)
    ridges = RIDGES if settings.ridge is None else (settings.ridge,)
    judged = {r: _left_out(equations, r) for r in ridges} if len(equations) > 1 else {}
    ridge = min(judged, key=lambda r: judged[r][0], default=ridges[0])
    parameters, inverse = _solution(equations, ridge)
    start = settings.start(mean_density)
    return KineticFit(
        term=LearnedKinetic(start.correction.with_parameters(parameters.tolist()), mean_density),
        # as it is read back, so that sums over it are the same to the last bit
        covariance=(_noise(equations, parameters) * inverse).contiguous(),
        calibration=judged[ridge][1] if judged else 1.0,
        ridge=ridge,
        rows=[one.row(parameters) for one in labels],
        validation={r: misfit for r, (misfit, _) in judged.items()},
        lowest=torch.stack([one.lowest for one in labels]).amin(dim=0),
        highest=torch.stack([one.highest for one in labels]).amax(dim=0),
    )


def _weighted(labels: Sequence[LabelEquations], settings: KineticFitSettings) -> list[_Weighted]:
    mixed = len({one.is_crystal for one in labels}) == 2
    result = []
    for one in labels:
        share = 1.0 if one.is_crystal or not mixed else settings.model_weight
        loose = 0.0 if one.is_crystal else _LOOSE * abs(one.energy_target)
        weight = _TYPICAL_EXCESS / (_TYPICAL_EXCESS + one.base_excess)
        result.append(_Weighted(one, share * weight, share / (settings.energy_error**2 + loose**2)))
    return result


def _solution(equations: Sequence[_Weighted], ridge: float) -> tuple[Tensor, Tensor]:
    """Parameters and the inverse of the normal matrix with its prior."""
    normal = torch.stack([one.normal for one in equations]).sum(dim=0)
    right = torch.stack([one.right for one in equations]).sum(dim=0)
    identity = torch.eye(len(normal), dtype=normal.dtype)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(normal + ridge * identity))
    return inverse @ right, inverse


def _noise(equations: Sequence[_Weighted], parameters: Tensor) -> float:
    """Variance of the rows in units of their standard errors: the mean misfit of a label."""
    return sum(one.misfit(parameters) for one in equations) / len(equations)


def _left_out(equations: Sequence[_Weighted], ridge: float) -> tuple[float, float]:
    """Of labels (crystals, where there are some) that the parameters were not fitted to:

    the geometric mean of misfits, for one label far from the others would decide any other mean,
    and the root mean square of energy errors over their estimates.
    """
    judged = any(one.label.is_crystal for one in equations)
    misfits, ratios = [], []
    for fold in range(min(_FOLDS, len(equations))):
        kept = [one for i, one in enumerate(equations) if i % _FOLDS != fold]
        parameters, inverse = _solution(kept, ridge)
        noise = _noise(kept, parameters)
        for one in equations[fold::_FOLDS]:
            if one.label.is_crystal or not judged:
                row = one.label.energy_row
                misfits.append(max(one.misfit(parameters), _ROUNDING))
                variance = noise * float(row @ inverse @ row)
                ratios.append(one.label.energy_error(parameters) ** 2 / variance)
    typical = math.exp(sum(map(math.log, misfits)) / len(misfits))
    return typical, math.sqrt(sum(ratios) / len(ratios))
