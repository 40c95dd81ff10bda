"""The configuration of the job that learns a kinetic functional from small Kohn-Sham cells."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import (
    Field,
    NonNegativeFloat,
    PositiveFloat,
    model_validator,
)

from fedens.configuration.crystals import MeshOptions, OutputOptions
from fedens.configuration.functional_training import ComparisonOptions, KineticTrainingOptions
from fedens.configuration.material import (
    Pseudopotentials,
    SolverOptions,
    Structures,
    ThermalCellsOptions,
    default_pseudopotentials,
)
from fedens.configuration.options import (
    JobOptions,
    Options,
    refuse,
)
from fedens.configuration.theory import KohnShamOptions
from fedens.energy.pseudopotential import LocalPseudopotential
from fedens.energy.xc import exchange_correlation
from fedens.errors import FunctionalError
from fedens.structure import Structure

Sources = Annotated[tuple[Structures, ...], Field(strict=False)]
#: Atoms of a cubic fcc cell.
_FCC_SITES = 4


def _small_cells() -> Sources:
    whole = ThermalCellsOptions(supercell=(1, 1, 1), count=15, vacancy_fraction=0.0)
    return (whole, whole.model_copy(update={"count": 5, "vacancy_fraction": 1.0}))


class CutoffMeshOptions(MeshOptions):
    """The finite-element space of labels and functionals."""

    spacing: PositiveFloat | None = Field(
        default=None,
        description="element length over order, bohr; null: as fine as the cutoff needs",
    )


class BaseFunctionalOptions(Options):
    """The orbital-free functional that the learned part stands beside."""

    kinetic: Literal["wt", "wgc"] = Field(default="wt", description="its kinetic energy")
    xc: str | None = Field(default=None, description="null: that of the theory")
    pseudopotentials: Pseudopotentials | None = Field(
        default=None,
        description="local ones by chemical symbol; null: those of the theory, of which only the "
        "local part is taken",
    )
    temperature: NonNegativeFloat | None = Field(
        default=None,
        description="k_B T of the electrons, hartree; null: the width of a Fermi-Dirac smearing of "
        "the theory, 0 for others, which are near zero temperature",
    )
    mean_density: PositiveFloat | None = Field(
        default=None,
        description="n0, unit of all densities, electron/bohr^3, the same for every cell; null: "
        "of the fcc crystal with the lattice constant of the first structures",
    )


class FunctionalsConfiguration(JobOptions):
    """Everything ``fedens run`` needs to know to learn a kinetic functional."""

    job: Literal["functional"] = Field(default="functional", description="what fedens run does")
    structures: Annotated[Sources, Field(min_length=1)] = Field(
        default_factory=_small_cells, description="sources of small cells, to train on and held out"
    )
    larger: Sources = Field(default=(), description="sources of cells that are only evaluated")
    theory: KohnShamOptions = KohnShamOptions(
        kind="kohn_sham", xc="lda_pz", pseudopotentials=default_pseudopotentials()
    )
    space: CutoffMeshOptions = CutoffMeshOptions()
    functional: BaseFunctionalOptions = BaseFunctionalOptions()
    solver: SolverOptions = SolverOptions()
    training: KineticTrainingOptions = KineticTrainingOptions()
    comparison: ComparisonOptions = ComparisonOptions()
    output: OutputOptions = OutputOptions()

    @property
    def local_pseudopotentials(self) -> dict[str, LocalPseudopotential]:
        """Those of the orbital-free functionals, by chemical symbol."""
        given = self.functional.pseudopotentials or self.theory.pseudopotentials
        found = {symbol: one.pseudopotential(symbol) for symbol, one in given.items()}
        return {symbol: getattr(one, "local", one) for symbol, one in found.items()}

    @property
    def mean_density(self) -> float:
        """n0, electron/bohr^3."""
        if self.functional.mean_density is not None:
            return self.functional.mean_density
        first = self.structures[0]
        assert isinstance(first, ThermalCellsOptions)
        valence = self.local_pseudopotentials[first.element].valence
        return _FCC_SITES * valence / first.lattice_constant**3

    @property
    def temperature(self) -> float:
        """k_B T of the orbital-free functionals, hartree: that of the labels."""
        smearing = self.theory.smearing
        if self.functional.temperature is not None:
            return self.functional.temperature
        return smearing.width if smearing.kind == "fermi_dirac" else 0.0

    def cells(self) -> dict[str, Structure]:
        """The small cells by name: source, place in it, formula; errors of the sources."""
        return _named("cells", self.structures, self._seeds())

    def larger_cells(self) -> dict[str, Structure]:
        """The same of the larger ones."""
        return _named("larger", self.larger, self._seeds()[len(self.structures) :])

    def _seeds(self) -> list[int]:
        """One for each source, so that no two displace their atoms alike."""
        count = len(self.structures) + len(self.larger)
        return [int(seed) for seed in np.random.SeedSequence(self.seed).generate_state(count)]

    @model_validator(mode="after")
    def _sections_agree(self) -> FunctionalsConfiguration:
        self._functional_is_known()
        self._elements_are_known()
        self._something_is_held_out()
        self._labels_serve()
        return self

    def _functional_is_known(self) -> None:
        for place in ("theory", "functional"):
            xc = getattr(self, place).xc
            try:
                exchange_correlation(xc or self.theory.xc)
            except FunctionalError as error:
                refuse(f"{place}.xc", str(error))
        first = self.structures[0]
        if self.functional.mean_density is None and not isinstance(first, ThermalCellsOptions):
            refuse(
                "functional.mean_density",
                "is null, but structures come from a file: give electrons over volume of the "
                "undistorted crystal, electron/bohr^3",
            )

    def _elements_are_known(self) -> None:
        sources = [*self.structures, *self.larger]
        elements = {one.element for one in sources if isinstance(one, ThermalCellsOptions)}
        for place in ("theory", "functional"):
            known = getattr(self, place).pseudopotentials
            missing = sorted(elements - set(elements if known is None else known))
            if missing:
                refuse(f"{place}.pseudopotentials", f"has none for {', '.join(missing)}: give one")

    def _something_is_held_out(self) -> None:
        training, curve = self.training, self.comparison.learning_curve
        counts = [getattr(one, "count", None) for one in self.structures]
        if None not in counts and training.train_count >= sum(c for c in counts if c):
            refuse(
                "training.train_count",
                f"is {training.train_count}, but structures hold {sum(c for c in counts if c)} "
                "cells: at least one must be held out",
            )
        if max(curve.sizes, default=0) > training.train_count:
            refuse(
                "comparison.learning_curve.sizes",
                f"go to {max(curve.sizes)}, but training.train_count is {training.train_count}",
            )

    def _labels_serve(self) -> None:
        training, models = self.training, self.training.model_potentials
        theirs = {s: one.pseudopotential(s) for s, one in self.theory.pseudopotentials.items()}
        with_projectors = [symbol for symbol, one in theirs.items() if one.projectors]
        if training.crystals and with_projectors:
            refuse(
                "training.crystals",
                f"is true, but the pseudopotential of {', '.join(with_projectors)} has projectors, "
                "which a density cannot see: set false, to learn the functional from model "
                "potentials and a correction from the crystals, or take a local pseudopotential",
            )
        counts = models.model_dump(exclude={"densities"})
        if not (training.crystals or any(counts.values())):
            refuse("training.model_potentials", "hold none, and crystals is false: no labels")


def _named(word: str, sources: tuple[Structures, ...], seeds: list[int]) -> dict[str, Structure]:
    return {
        f"{word}{place}-{index:04d}-{one.formula}": one
        for place, (source, seed) in enumerate(zip(sources, seeds, strict=False))
        for index, one in enumerate(source.source().structures(seed))
    }
