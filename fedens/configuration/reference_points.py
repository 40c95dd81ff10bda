"""The configuration of the experiment that compares reference points."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from fedens.configuration.crystals import GMPOptions
from fedens.configuration.material import (
    FunctionalOptions,
    SolverOptions,
    SpaceOptions,
    ThermalCellsOptions,
)
from fedens.configuration.options import JobOptions, Layers, Options, refuse
from fedens.features.points import PointSet


class PointSetOptions(Options):
    """Reference points of one kind."""

    kind: Literal["atoms", "bonds", "grid", "quadrature", "nodes"]
    cutoff: PositiveFloat | None = Field(default=None, description="of bonds, bohr")
    spacing: PositiveFloat | None = Field(
        default=None, description="of a grid, or element length over order of a space, bohr"
    )
    order: PositiveInt | None = Field(default=None, description="polynomial order of a space")

    @model_validator(mode="after")
    def _complete(self) -> PointSetOptions:
        self.points()
        return self

    def points(self) -> PointSet:
        """The set; a :class:`fedens.errors.DescriptorError` where something is missing."""
        return PointSet(**self.model_dump())


PointSets = Annotated[tuple[PointSetOptions, ...], Field(strict=False, min_length=1)]


def _default_points() -> dict[str, PointSets]:
    atoms = PointSetOptions(kind="atoms")
    bonds = PointSetOptions(kind="bonds", cutoff=9.0)
    return {
        "atoms": (atoms,),
        "bonds": (bonds,),
        "atoms and bonds": (atoms, bonds),
        "grid, coarse": (PointSetOptions(kind="grid", spacing=1.72),),
        "grid, fine": (PointSetOptions(kind="grid", spacing=1.29),),
        "quadrature": (PointSetOptions(kind="quadrature", spacing=1.02, order=5),),
    }


class ReferencePointsConfiguration(JobOptions):
    """Everything ``fedens run`` needs to know to compare reference points."""

    job: Literal["reference_points"] = Field(
        default="reference_points", description="what fedens run does"
    )
    structures: ThermalCellsOptions = ThermalCellsOptions()
    space: SpaceOptions = SpaceOptions()
    functional: FunctionalOptions = FunctionalOptions()
    solver: SolverOptions = SolverOptions()
    gmp: GMPOptions = GMPOptions()
    points: dict[str, PointSets] = Field(
        default_factory=_default_points,
        min_length=1,
        description="sets of reference points by name; several kinds in one set are a union",
    )
    sizes: tuple[PositiveInt, ...] = Field(
        default=(1, 2, 4, 8, 16), strict=False, min_length=1, description="training structures"
    )
    held_out: PositiveInt = Field(default=8, description="structures for errors only")
    seeds: PositiveInt = Field(
        default=3, description="trainings of each kind: choices of structures and first weights"
    )
    seconds: PositiveFloat = Field(
        default=8.0, description="processor time of each training after the features are known"
    )
    steps: PositiveInt | None = Field(
        default=None,
        description="optimiser steps of each training, if it has not ended before; null: the time "
        "alone ends it, and results depend on the machine",
    )
    hidden: Layers = Field(default=(64, 64), description="neurons per hidden layer")
    learning_rate: PositiveFloat = Field(default=1e-3, description="at the start")
    ridge: PositiveFloat = Field(
        default=1e-6, description="damping of the least-squares start of each network"
    )

    @model_validator(mode="after")
    def _sections_agree(self) -> ReferencePointsConfiguration:
        needed = max(self.sizes) + self.held_out
        if needed > self.structures.count:
            refuse(
                "structures.count",
                f"is {self.structures.count}, but the largest of sizes and held_out need {needed}",
            )
        return self
