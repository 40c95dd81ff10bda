"""Sections of the job that learns a kinetic functional: training and comparison."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from fedens.configuration.crystals import GMPOptions
from fedens.configuration.options import FilePath, Lengths, Options, Range
from fedens.energy.density_variables import DensityVariables

Method = Literal["wang_teter", "wgc", "lkt", "line", "direct", "delta", "learned", "learned_delta"]
#: What can be compared, in the order of the report.
METHODS: tuple[Method, ...] = get_args(Method)
Multiples = Annotated[tuple[PositiveFloat, ...], Field(strict=False)]


class VariablesOptions(Options):
    """What the learned functional sees of the density."""

    gaussian_widths: Multiples = Field(
        default=DensityVariables.gaussian_widths, description="in units of 1/k_F of n0, ascending"
    )
    lindhard_densities: Multiples = Field(
        default=DensityVariables.lindhard_densities,
        description="whose k_F the Lindhard kernels have, in units of n0, descending",
    )


class ModelPotentialOptions(Options):
    """Exactly solvable potentials without atoms, as further labels of the kinetic energy."""

    separable: NonNegativeInt = Field(default=36, description="of three dimensions")
    planar: NonNegativeInt = Field(default=10, description="varying along one axis")
    planes: NonNegativeInt = Field(
        default=0, description="wells like a crystal's lattice planes, of which one may be missing"
    )
    slab: NonNegativeInt = Field(default=0, description="lattice planes with vacuum beside them")
    cores: NonNegativeInt = Field(
        default=0, description="planes that repel like the cores of pseudopotentials"
    )
    densities: Range = Field(
        default=(0.75, 1.2), description="smallest and largest mean density, in units of n0"
    )


class AtomsOptions(Options):
    """Energies and forces by a sum over the atoms of a function of their surroundings."""

    gmp: GMPOptions = GMPOptions()
    hidden: Annotated[tuple[PositiveInt, ...], Field(strict=False)] = Field(
        default=(64, 64), description="neurons per hidden layer; none: a linear function"
    )
    steps: PositiveInt = Field(default=2000, description="optimiser steps of the network")
    learning_rate: PositiveFloat = Field(default=1e-3, description="at the start")
    energy_weight: NonNegativeFloat = Field(default=1.0, description="in the loss")
    force_weight: NonNegativeFloat = Field(default=1.0, description="in the loss")


class NearGMPOptions(GMPOptions):
    """Gaussian multipoles of the first neighbours: what small cells hold."""

    widths: Lengths = Field(default=(0.7, 1.0, 1.4), description="probe widths, bohr")
    max_order: int = Field(default=6, ge=0, le=9, description="highest multipole order")


class CorrectionOptions(AtomsOptions):
    """Energies and forces that a functional leaves, on top of it."""

    enabled: bool = Field(default=False, description="whether the model of the run has one")
    gmp: NearGMPOptions = NearGMPOptions()
    hidden: Annotated[tuple[PositiveInt, ...], Field(strict=False)] = Field(
        default=(), description="neurons per hidden layer; none: a linear function"
    )


class KineticTrainingOptions(Options):
    """What is learned, and from what."""

    train_count: PositiveInt = Field(
        default=12, description="cells to train on, of every source its share; the rest is held out"
    )
    crystals: bool = Field(
        default=True, description="whether the functional learns from them; else they only test it"
    )
    variables: VariablesOptions = VariablesOptions()
    degree: PositiveInt = Field(default=3, description="of the polynomial in the variables")
    ridge: PositiveFloat | None = Field(
        default=None, description="prior of all parameters; null: chosen by cross-validation"
    )
    energy_error: PositiveFloat = Field(
        default=0.3, description="standard error of the labels' energies, meV per electron"
    )
    model_weight: PositiveFloat = Field(
        default=0.1, description="of model potentials where crystals are learned from too"
    )
    model_potentials: ModelPotentialOptions = ModelPotentialOptions()
    correction: CorrectionOptions = CorrectionOptions()
    direct: AtomsOptions = AtomsOptions()


class CurveOptions(Options):
    """The learning curve: every learning method on fewer cells."""

    sizes: tuple[PositiveInt, ...] = Field(
        default=(), strict=False, description="cells to train on; none: no curve"
    )
    draws: PositiveInt = Field(default=1, description="random choices of the cells")


class OtherCodeOptions(Options):
    """MACE, in an interpreter of its own: left out where that is not there."""

    python: FilePath = Field(description="the interpreter, benchmarks/.venv-mace/bin/python")
    script: FilePath = Field(description="what learns there, benchmarks/mace_side.py")
    epochs: PositiveInt = Field(default=500, description="of the training")
    minutes: PositiveFloat = Field(default=10.0, description="it ends sooner after these")


class ComparisonOptions(Options):
    """What is evaluated on the held-out and the larger cells."""

    methods: tuple[Method, ...] = Field(
        default=METHODS,
        strict=False,
        min_length=1,
        description="wang_teter, wgc, lkt: alone; line: a straight line fitted to Wang-Teter's "
        "energies; direct: energies and forces from the atoms; delta: Wang-Teter and a correction; "
        "learned: the learned functional; learned_delta: with a correction",
    )
    mace: OtherCodeOptions | None = Field(default=None, description="null: without MACE")
    learning_curve: CurveOptions = CurveOptions()
