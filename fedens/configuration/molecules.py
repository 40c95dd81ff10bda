"""The configuration of the job that learns molecules from Kohn-Sham calculations."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from fedens.configuration.options import FilePath, Index, JobOptions, Options, refuse


class MoleculeOptions(Options):
    """Structures of one molecule: conformers drawn around its minimum, or those of a file."""

    molecule: str | None = Field(
        default=None,
        description="name in ASE's g2 collection, such as CH3CH2OH: conformers are drawn from the "
        "normal modes at its minimum, each as wide as at the temperature",
    )
    file: FilePath | None = Field(
        default=None, description="or any file that ASE reads: its structures, in random order"
    )
    index: Index = Field(default=":", description="which structures of the file, as in ASE")
    temperature: PositiveFloat = Field(default=500.0, description="of the normal modes, kelvin")
    train: NonNegativeInt = Field(default=50, description="structures to learn from")
    test: NonNegativeInt = Field(default=10, description="structures to compare with")

    @model_validator(mode="after")
    def _complete(self) -> MoleculeOptions:
        if (self.molecule is None) == (self.file is None):
            refuse("molecule", "give either molecule, a name, or file")
        if self.train + self.test == 0:
            refuse("train", "train and test are both 0: there is nothing to do")
        return self


class TheoryOptions(Options):
    """Level of theory of the reference, by PySCF; all electrons."""

    xc: str = Field(default="pbe", description="LDA, GGA or meta-GGA by PySCF's name")
    basis: str = Field(default="def2-svp", description="Gaussian basis set")
    grid_level: int = Field(default=4, ge=0, le=9, description="of PySCF's integration grid")
    conv_tol: PositiveFloat = Field(
        default=1e-10, description="change of the energy to stop at, hartree"
    )


class TetrahedraOptions(Options):
    """The mesh of each molecule."""

    finest: PositiveFloat = Field(
        default=0.35, description="cells at a nucleus of charge 1, bohr; divided by the charge"
    )
    growth: PositiveFloat = Field(default=0.8, description="of the cells, per distance")
    margin: PositiveFloat = Field(default=10.0, description="from nuclei to the walls, bohr")
    order: Literal[1, 2] = Field(default=2, description="polynomial order")


class MolecularTrainingOptions(Options):
    """How the networks are trained; see :class:`MolecularTrainingSettings`."""

    committee: PositiveInt = Field(
        default=3, description="networks of fields and of energies; their spread is the uncertainty"
    )
    channels: PositiveInt = Field(default=32, description="functions on the sphere of each kind")
    hidden: PositiveInt = Field(default=64, description="neurons per hidden layer")
    steps: PositiveInt = Field(default=4000, description="optimiser steps of a fields' network")
    energy_steps: PositiveInt = Field(default=4000, description="of an energies' network")
    batch: PositiveInt = Field(default=5, description="molecules per step")
    learning_rate: PositiveFloat = Field(default=2e-3, description="highest rate of AdamW")
    weight_decay: float = Field(default=0.5, ge=0, description="of the fields' networks")
    energy_weight_decay: float = Field(default=0.1, ge=0, description="of the energies' networks")
    dipole_weight: float = Field(
        default=0.1, ge=0, description="of the dipole moment's error^2 against the fields'"
    )
    energy_weight: float = Field(
        default=0.1, ge=0, description="of energies against forces, both in units of 2 mHa"
    )
    forces: bool = Field(default=True, description="learn forces too, not energies alone")
    points: PositiveInt = Field(
        default=40_000, description="of each molecule that its fields are fitted at"
    )


class MolecularEvaluationOptions(Options):
    """What held-out molecules are asked."""

    scf: NonNegativeInt = Field(
        default=10,
        description="molecules with a Harris step and self-consistent cycles from the prediction",
    )
    fields: NonNegativeInt = Field(default=2, description="molecules written for ParaView")


#: What files may be named after.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Sizes = Annotated[tuple[PositiveInt, ...], Field(strict=False)]


class MoleculesConfiguration(JobOptions):
    """Everything ``fedens run`` needs to know to learn molecules."""

    job: Literal["molecules"] = Field(default="molecules", description="what fedens run does")
    molecules: dict[Name, MoleculeOptions] = Field(
        min_length=1, description="by a name of your own, which begins those of the samples"
    )
    theory: TheoryOptions = TheoryOptions()
    space: TetrahedraOptions = TetrahedraOptions()
    training: MolecularTrainingOptions = MolecularTrainingOptions()
    learning_curve: Sizes = Field(
        default=(), description="further trainings with so many samples, one network each"
    )
    evaluation: MolecularEvaluationOptions = MolecularEvaluationOptions()

    @model_validator(mode="after")
    def _sections_agree(self) -> MoleculesConfiguration:
        train = sum(one.train for one in self.molecules.values())
        if train == 0:
            refuse("molecules", "no molecule has train above 0: nothing to learn from")
        if sum(one.test for one in self.molecules.values()) == 0:
            refuse("molecules", "no molecule has test above 0: nothing to compare with")
        if self.learning_curve and max(self.learning_curve) >= train:
            refuse(
                "learning_curve", f"is {self.learning_curve}: sizes must be below {train}, train"
            )
        return self
