"""The configuration of the main job: data, training, held-out evaluation, report."""

from __future__ import annotations

from typing import Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from fedens.configuration.material import (
    FunctionalOptions,
    SolverOptions,
    Structures,
    ThermalCellsOptions,
)
from fedens.configuration.options import JobOptions, Layers, Lengths, Options, refuse
from fedens.configuration.theory import KohnShamOptions, OrbitalFreeOptions, Theory
from fedens.energy.xc import exchange_correlation
from fedens.errors import FunctionalError


class MeshOptions(Options):
    """The finite-element space."""

    spacing: PositiveFloat | None = Field(
        default=0.34,
        description="element length over order, bohr; null, for theory kohn_sham: as fine as the "
        "cutoff needs",
    )
    order: int = Field(default=10, ge=1, le=10, description="polynomial order")


class GMPOptions(Options):
    """Gaussian multipole descriptors."""

    widths: Lengths = Field(default=(0.7, 1.0, 1.4, 2.0, 2.8), description="probe widths, bohr")
    max_order: int = Field(default=3, ge=0, le=9, description="highest multipole order")


class DescriptorOptions(Options):
    """What the models see at a point."""

    gmp: GMPOptions = GMPOptions()
    response_fields: bool = Field(
        default=True, description="linear-response fields; periodic cells only"
    )


class NetworkOptions(Options):
    """Pointwise multilayer perceptrons."""

    hidden: Layers = Field(default=(64, 64), description="neurons per hidden layer")
    committee: PositiveInt = Field(
        default=4,
        description="number of networks; each leaves out a share of the structures",
    )


class TrainingOptions(Options):
    """Descriptors, networks and their training."""

    train_count: PositiveInt = Field(
        default=12, description="structures to train on; the rest is held out"
    )
    descriptors: DescriptorOptions = DescriptorOptions()
    network: NetworkOptions = NetworkOptions()
    baseline: Literal["auto", "relaxed_response", "linear_response", "superposed_atoms"] = Field(
        default="auto",
        description="density that differences are learned to; auto: relaxed response in cells",
    )
    steps: PositiveInt = Field(default=2000, description="optimiser steps of each network")
    max_seconds: PositiveFloat | None = Field(
        default=None,
        description="stop sooner after this processor time; the result then depends on the machine",
    )
    batch_points: PositiveInt = Field(default=8192, description="points per step")
    learning_rate: PositiveFloat = Field(default=3e-3, description="at the start")
    energy_weight: NonNegativeFloat = Field(
        default=0.0, description="weight of the functional's energy at the predicted density"
    )
    force_weight: NonNegativeFloat = Field(
        default=0.0, description="weight of the Hellmann-Feynman forces of whole structures"
    )
    checkpoint_every: PositiveInt = Field(default=500, description="steps between checkpoints")
    learning_curve: tuple[PositiveInt, ...] = Field(
        default=(1, 2, 4, 8),
        strict=False,
        description="sizes of smaller training sets; each model gets a quarter of the steps",
    )


class RoundsOptions(Options):
    """Active learning: label structures that the model knows least about, and train on."""

    count: NonNegativeInt = Field(
        default=0, description="rounds after the first training; 0: no active learning"
    )
    add: PositiveInt = Field(
        default=4, description="structures labelled per round: those of the most uncertain energy"
    )
    candidates: PositiveInt = Field(
        default=24, description="further structures that a round chooses from"
    )
    steps: PositiveInt = Field(
        default=1000, description="optimiser steps of each network in a round"
    )


class OutputOptions(Options):
    """What is written beside data, model and metrics."""

    fields: bool = Field(default=True, description="VTU files of the held-out structures and a PVD")
    subdivisions: PositiveInt | None = Field(
        default=None, description="VTU cells per element and axis; null: chosen from the order"
    )
    figures: bool = Field(default=True, description="curves, parity plots and slices in the report")


class Configuration(JobOptions):
    """Everything ``fedens run`` needs to know for the main job."""

    job: Literal["learning"] = Field(default="learning", description="what fedens run does")
    structures: Structures = ThermalCellsOptions()
    theory: Theory = OrbitalFreeOptions()
    space: MeshOptions = MeshOptions()
    functional: FunctionalOptions | None = FunctionalOptions()
    solver: SolverOptions = SolverOptions()
    training: TrainingOptions = TrainingOptions()
    rounds: RoundsOptions = RoundsOptions()
    output: OutputOptions = OutputOptions()

    @model_validator(mode="after")
    def _sections_agree(self) -> Configuration:
        functional, structures = self.functional, self.structures
        self._theory_agrees()
        if functional and functional.kinetic != "tfvw" and functional.vw_weight != 1.0:
            refuse("functional.vw_weight", f"must be 1 for kinetic: {functional.kinetic}")
        if self.rounds.add > self.rounds.candidates:
            refuse(
                "rounds.add",
                f"is {self.rounds.add}, but rounds.candidates is {self.rounds.candidates}: "
                "there must be at least as many to choose from",
            )
        if not isinstance(structures, ThermalCellsOptions):
            return self
        if self.training.train_count >= structures.count:
            refuse(
                "training.train_count",
                f"is {self.training.train_count}, but structures.count is {structures.count}: "
                "at least one structure must be held out",
            )
        self._pseudopotentials_serve(structures.element)
        return self

    def _pseudopotentials_serve(self, element: str) -> None:
        kohn_sham = isinstance(self.theory, KohnShamOptions)
        for place, hint in {
            "functional": ", or functional: null" * kohn_sham,
            "theory": "",
        }.items():
            known = getattr(getattr(self, place), "pseudopotentials", None)
            if known is not None and element not in known:
                refuse(
                    f"{place}.pseudopotentials",
                    f"has no pseudopotential for structures.element {element}: give one{hint}",
                )

    def _theory_agrees(self) -> None:
        if isinstance(self.theory, KohnShamOptions):
            try:
                exchange_correlation(self.theory.xc)
            except FunctionalError as error:
                refuse("theory.xc", str(error))
            self._kohn_sham_agrees()
        elif self.functional is None:
            refuse("functional", "is null, but theory orbital_free needs one")
        elif self.space.spacing is None:
            refuse("space.spacing", "is null, but theory orbital_free has no cutoff to choose it")

    def _kohn_sham_agrees(self) -> None:
        """The functional is no part of the labels, and may be missing."""
        training = self.training
        if self.rounds.count:
            refuse(
                "rounds.count",
                f"is {self.rounds.count}: rounds choose structures by the energy of the "
                "functional, which is not that of theory kohn_sham; set 0",
            )
        if training.energy_weight:
            refuse(
                "training.energy_weight",
                "is the weight of the functional's energy, which is not that of theory "
                "kohn_sham; set 0",
            )
        if self.functional is not None:
            return
        if training.descriptors.response_fields:
            refuse("training.descriptors.response_fields", "need a functional; set false")
        if training.force_weight:
            refuse("training.force_weight", "needs a functional, which knows the ions; set 0")
        if training.baseline not in ("auto", "superposed_atoms"):
            refuse("training.baseline", "needs a functional; set auto or superposed_atoms")
