"""Normal equations of single labels: all that a fit of a learned kinetic energy needs of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from fedens.data.sample import Sample
from fedens.energy.functional import EnergyFunctional
from fedens.energy.learned_kinetic import LearnedKinetic
from fedens.energy.nonlocal_kinetic import NonlocalKinetic
from fedens.energy.terms import DensityTerm
from fedens.errors import ModelError
from fedens.models.functional.labels import kinetic_label
from fedens.models.functional.rows import label_rows


@dataclass(frozen=True, eq=False)
class LabelEquations:
    """How one label constrains the parameters of a learned kinetic energy.

    Attributes:
        name: formula of the cell. is_crystal: it has atoms.
        normal, right, base_excess: A^T A (n, n), A^T b (n,) and b^T b of the derivative's rows;
            the latter is the excess energy that the base functional leaves, meV per electron.
        energy_row, energy_target: of the energy, (n,) and a number, meV per electron.
        lowest, highest: of the variables at the label's points, (n_variables,).
    """

    name: str
    is_crystal: bool
    normal: Tensor
    right: Tensor
    base_excess: float
    energy_row: Tensor
    energy_target: float
    lowest: Tensor
    highest: Tensor

    @classmethod
    def of(
        cls, sample: Sample, base: Sequence[DensityTerm], learned: LearnedKinetic
    ) -> LabelEquations:
        """Equations of a sample; ``learned`` says which parameters, beside ``base``.

        Raises:
            DatasetError: a sample that is no label of the kinetic energy.
        """
        label = kinetic_label(sample)
        rows = label_rows(label, base, learned)
        variables = learned.variables(label.density).detach()
        a, b = rows.matrix, rows.targets
        return cls(
            name=sample.structure.formula,
            is_crystal=len(sample.structure) > 0,
            normal=a.T @ a,
            right=a.T @ b,
            base_excess=float(b @ b),
            energy_row=rows.energy_row,
            energy_target=rows.energy_target,
            lowest=variables.amin(dim=0),
            highest=variables.amax(dim=0),
        )

    def excess(self, parameters: Tensor) -> float:
        """Energy by which the density would still fall, meV per electron."""
        p = parameters
        return self.base_excess + float(p @ (self.normal @ p) - 2 * p @ self.right)

    def energy_error(self, parameters: Tensor) -> float:
        """Of A_s at the label's density, meV per electron: the label's less the functional's."""
        return self.energy_target - float(self.energy_row @ parameters)

    def row(self, parameters: Tensor) -> dict[str, Any]:
        """What a report shows, see :class:`.KineticFit`."""
        return {
            "name": self.name,
            "base_energy_error": self.energy_target,
            "energy_error": self.energy_error(parameters),
            "base_excess": self.base_excess,
            "excess": self.excess(parameters),
        }


def kinetic_base(functional: EnergyFunctional) -> list[DensityTerm]:
    """The kinetic terms of a functional, beside which something is learned anew."""
    kinetic = [t for t in functional.terms if t.group == "kinetic" and isinstance(t, DensityTerm)]
    return [t for t in kinetic if not isinstance(t, LearnedKinetic)]


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
