"""What a density alone cannot see: a correction of the energies that a functional leaves.

    E(R) = E[n*(R); R] + sum over atoms of e(D(R)),

n* the functional's ground state, e a function of the atom's element and surroundings D. n* is a
minimum: forces are those of Hellmann and Feynman plus the derivative of the sum, and nothing is
differentiated through the solver. It holds what no functional of the density has: the offset of a
truncated basis, and the projectors of the truth's pseudopotentials.

With projectors as truth the functional needs a local potential, and model and correction become
conditional: of these elements only. The local part of such a pseudopotential is none to take, since
it is far too deep without its projectors; one made for densities alone is. Seven displaced cells of
2 aluminium atoms with GTH-PADE projectors (forces of 530 meV/angstrom): Wang-Teter leaves 2400
meV/angstrom with the local part and 18 with the table of BLPS, and 6 in cells that the correction
had not seen.

Few structures are enough for an e linear in few features, damped such that structures left out are
predicted well. The features must not look further than the structures' own waves are long: wide
ones, fitted to cells of 4 sites, are wrong in every larger cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from fedens.data.sample import Sample
from fedens.energy.functional import EnergyFunctional
from fedens.errors import ModelError
from fedens.features.descriptor import Descriptor
from fedens.features.gmp import GMP
from fedens.features.points import PointSet
from fedens.fem.tensor import TensorSpace
from fedens.models.points.data import StructureData, prepare_structure
from fedens.models.points.model import EnergyModel, PointModels
from fedens.models.points.objective import EnergyObjective, EnergyTrainingSettings
from fedens.models.points.training import fit_energy_model
from fedens.progress import Advance, Report, silent
from fedens.reference.orbital_free import solve_ground_state

#: Parts of the structures, of which each is left out once to judge a network.
_FOLDS = 4


@dataclass(frozen=True)
class CorrectionSettings:
    """How a correction is learned.

    Attributes:
        descriptor: of the atoms. Squares are smooth at symmetric sites too, where roots are not
            and leave three times the errors. The widths are for first neighbours in aluminium.
        training: weights of energies, forces and stresses (those where all samples have one), and
            ``hidden`` units of a network, which is kept only if it predicts structures that are
            left out better than its linear start.
    """

    descriptor: Descriptor = field(
        default_factory=lambda: GMP([0.7, 1.0, 1.4], max_order=6, form="squared")
    )
    training: EnergyTrainingSettings = field(
        default_factory=lambda: EnergyTrainingSettings(hidden=(), ridge=None, with_stress=True)
    )


def train_correction(
    samples: Sequence[Sample],
    functional: EnergyFunctional | None,
    settings: CorrectionSettings | None = None,
    report: Report = silent,
    *,
    spacing: float | None = None,
    order: int | None = None,
) -> EnergyModel:
    """Learn the energies, forces and stresses of samples that a functional leaves.

    Args:
        samples: of any theory, with energies and forces.
        functional: what the correction is added to; None: energies are learned directly.
        spacing, order: of the spaces its ground states are solved on; default the samples' own.

    Raises:
        ModelError: no samples, or labels that a sample lacks.
        ConvergenceError: a ground state that is not found.
    """
    left = []
    for i, sample in enumerate(samples):
        report(Advance("ground states", i, len(samples)))
        left.append(what_is_left(sample, functional, spacing, order))
    report(Advance("ground states", len(samples), len(samples)))
    return fit_correction(left, functional, settings, report)


def what_is_left(
    sample: Sample,
    functional: EnergyFunctional | None,
    spacing: float | None = None,
    order: int | None = None,
) -> Sample:
    """Energy, forces and stress of a sample less those of the functional's ground state; no fields.

    Args and errors as in :func:`train_correction`.
    """
    bare = replace(
        sample, points=np.zeros((0, 3)), weights=np.zeros(0), fields={}, energies={}, ion_energy=0.0
    )
    if functional is None:
        return bare
    if spacing is None or order is None:
        space = sample.tensor_space()
    else:
        space = TensorSpace.for_structure(sample.structure, spacing, order)
    state = solve_ground_state(sample.structure, space, functional)
    return replace(
        bare,
        energy=sample.total_energy - state.energy,
        forces=None if sample.forces is None else sample.forces - state.forces,
        stress=None if sample.stress is None else sample.stress - state.stress,
    )


def fit_correction(
    left: Sequence[Sample],
    functional: EnergyFunctional | None,
    settings: CorrectionSettings | None = None,
    report: Report = silent,
) -> EnergyModel:
    """The correction of what :func:`what_is_left` left; errors as in :func:`train_correction`."""
    settings = settings or CorrectionSettings()
    if not left:
        raise ModelError("no samples to learn from")
    fitting = Fitting.of(left, settings, report)
    chosen, errors = fitting.choice()
    model = fitting.fitted(fitting.structures, chosen)
    provenance = {
        "functional": None if functional is None else functional.describe(),
        "errors_left_out": errors,
    }
    return replace(model, provenance=model.provenance | provenance)


@dataclass(frozen=True, eq=False)
class Fitting:
    """Structures, sets of points (one for each element), and how to learn from them."""

    structures: Sequence[StructureData]
    sets: Sequence[PointSet]
    descriptor: Descriptor
    training: EnergyTrainingSettings
    report: Report

    @classmethod
    def of(cls, left: Sequence[Sample], settings: CorrectionSettings, report: Report) -> Fitting:
        training = settings.training
        has_stress = all(sample.stress is not None for sample in left)
        training = replace(training, with_stress=training.with_stress and has_stress)
        elements = sorted({symbol for sample in left for symbol in sample.structure.symbols})
        sets = [PointSet("atoms", element=element) for element in elements]
        structures = [
            prepare_structure(
                sample,
                settings.descriptor,
                sets,
                with_forces=training.learns_forces,
                with_stress=training.with_stress,
            )
            for sample in left
        ]
        return cls(weighted(structures), sets, settings.descriptor, training, report)

    def choice(self) -> tuple[EnergyTrainingSettings, dict[str, float]]:
        """A network where it predicts what is left out better than its linear start; both losses.

        One of them alone is not judged.
        """
        linear = replace(self.training, hidden=())
        if not self.training.hidden or len(self.structures) == 1:
            return linear, {}
        errors = {"linear": self.error(linear), "network": self.error(self.training)}
        gains = errors["network"] < errors["linear"]
        return (self.training if gains else linear), errors

    def fitted(
        self, structures: Sequence[StructureData], training: EnergyTrainingSettings
    ) -> EnergyModel:
        return fit_energy_model(
            structures, self.descriptor, self.sets, training, report=self.report
        )

    def error(self, training: EnergyTrainingSettings) -> float:
        """Mean loss of structures that are left out."""
        losses = []
        for first in range(min(_FOLDS, len(self.structures))):
            out = self.structures[first::_FOLDS]
            rest = [one for one in self.structures if one not in out]
            network = PointModels(self.fitted(rest, training).parts)
            objective = EnergyObjective(out, training)
            losses += [float(objective.loss(network, (one, None)).detach()) for one in out]
        return sum(losses) / len(losses)


def weighted(structures: Sequence[StructureData]) -> list[StructureData]:
    """Structures that count less the larger their forces f are: 1/(1 + (f/median)^2).

    What is left has errors in proportion to the atoms' displacements, and few wild structures would
    decide alone.
    """
    forces = [torch.zeros(1) if one.forces is None else one.forces for one in structures]
    squares = torch.stack([f.square().mean().double() for f in forces])
    typical = squares.median() if squares.median() > 0 else 1.0
    weights = 1 / (1 + squares / typical)
    return [
        replace(one, weight=float(weight)) for one, weight in zip(structures, weights, strict=True)
    ]
