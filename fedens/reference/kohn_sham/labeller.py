"""Kohn-Sham samples of structures, from a handful of settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from fedens.data.sample import Sample
from fedens.energy.kohn_sham import KohnSham
from fedens.fem.modes import spacing_for_cutoff
from fedens.fem.tensor import TensorSpace
from fedens.reference.kohn_sham.cutoffs import default_cutoff
from fedens.reference.kohn_sham.kpoints import KPoints
from fedens.reference.kohn_sham.smearing import Smearing
from fedens.reference.kohn_sham.solver import solve_kohn_sham
from fedens.reference.labeller import StepReport
from fedens.structure import Structure


@dataclass(frozen=True)
class KohnShamLabeller:
    """Samples of Kohn-Sham ground states, a :class:`fedens.reference.labeller.Labeller`.

    Attributes:
        functional: the theory. spacing: element length over order, bohr; None: as fine as the
            cutoff needs. order: polynomial order.
        cutoff: of the orbitals, hartree; None: chosen from the pseudopotentials.
        kspacing: largest spacing of the k-points, 1/bohr; None: one point at Gamma.
        smearing: of the occupations.
        residual_tolerance, max_iterations, density_cutoff: see :func:`solve_kohn_sham`.
    """

    functional: KohnSham
    spacing: float | None
    order: int
    cutoff: float | None
    kspacing: float | None
    smearing: Smearing
    residual_tolerance: float
    max_iterations: int
    density_cutoff: float | None = None

    def __call__(
        self,
        structure: Structure,
        report: StepReport | None = None,
        checkpoint: Path | None = None,
    ) -> Sample:
        """The ground state's sample; errors of :func:`solve_kohn_sham`."""
        cutoff = self.cutoff or default_cutoff(structure, self.functional)
        spacing = self.spacing or spacing_for_cutoff(cutoff)
        kpoints = None
        if self.kspacing is not None:
            kpoints = KPoints.from_spacing(structure, self.kspacing)
        return solve_kohn_sham(
            structure,
            TensorSpace.for_structure(structure, spacing, self.order),
            self.functional,
            kpoints,
            self.smearing,
            cutoff,
            density_cutoff=self.density_cutoff,
            residual_tolerance=self.residual_tolerance,
            max_iterations=self.max_iterations,
            checkpoint=checkpoint,
            report=report,
        ).to_sample()

    def describe(self) -> dict[str, Any]:
        """Kind and attributes."""
        description = {name: getattr(self, name) for name in self.__dataclass_fields__}
        functional, smearing = self.functional.describe(), asdict(self.smearing)
        return (
            {"kind": "kohn_sham"} | description | {"functional": functional, "smearing": smearing}
        )

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> Self:
        """The labeller of :meth:`describe`."""
        functional = KohnSham.from_description(description["functional"])
        smearing = Smearing(**description["smearing"])
        return cls(**{**description, "functional": functional, "smearing": smearing})
