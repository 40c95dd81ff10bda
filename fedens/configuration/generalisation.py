"""The configuration of the generalisation analysis: a defect, a reference, models of it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from fedens.configuration.options import JobOptions, Lengths, Options, Symbol, refuse

Kind = Literal["energy", "forces", "virial", "force_constants"]
DefectKind = Literal["vacancy", "divacancy", "dumbbell"]


class GuptaOptions(Options):
    """A second-moment potential of an fcc metal; energies in eV and lengths in angstrom."""

    repulsion: PositiveFloat = Field(default=0.1221, description="A, eV")
    attraction: PositiveFloat = Field(default=1.316, description="xi, eV")
    repulsion_decay: PositiveFloat = Field(default=8.612, description="p")
    attraction_decay: PositiveFloat = Field(default=2.516, description="q")
    r0: PositiveFloat = Field(default=2.864, description="neighbour distance, angstrom")
    cutoff: tuple[PositiveFloat, PositiveFloat] = Field(
        default=(5.0, 6.2), strict=False, description="where it begins and ends, angstrom"
    )


class FarFieldOptions(Options):
    """Models that equal the reference within a radius and are wrong outside of it."""

    sizes: Lengths = Field(
        default=(1.3, 1.5, 1.7, 1.9, 2.1, 2.3, 2.5, 2.7, 2.9, 3.1, 3.3, 3.5),
        description="L, lattice constants",
    )
    force_constant_error: PositiveFloat = Field(
        default=0.02, description="relative error of the force constants outside"
    )


class BasisOptions(Options):
    """A basis of a linear model: polynomials of radial densities."""

    decays: Lengths = Field(description="of the exponentials, per r0")
    degree: PositiveInt = Field(description="of the polynomials")


class FitOptions(Options):
    """Linear models fitted in small training domains."""

    sizes: Lengths = Field(
        default=(0.75, 1.05, 1.3, 1.75, 2.3, 3.0), description="L, lattice constants"
    )
    snapshots: PositiveInt = Field(default=4, description="rattled copies of the relaxed defect")
    rattle: PositiveFloat = Field(
        default=0.1, description="standard deviation of their coordinates, bohr"
    )
    small: BasisOptions = BasisOptions(decays=(3.0, 6.5, 10.0), degree=1)
    sufficient: BasisOptions = BasisOptions(decays=(3.0, 5.3, 7.7, 10.0), degree=3)
    observations: tuple[Annotated[tuple[Kind, ...], Field(strict=False)], ...] = Field(
        default=(
            ("forces",),
            ("energy", "forces"),
            ("energy", "forces", "virial"),
            ("energy", "forces", "virial", "force_constants"),
        ),
        strict=False,
        min_length=1,
        description="sets of observations to fit",
    )
    targets: dict[Kind, PositiveFloat] = Field(
        default={"energy": 1e-3, "forces": 3e-3, "virial": 1e-3, "force_constants": 1e-3},
        description="accuracies wanted: eV, eV/angstrom, eV/atom, eV/angstrom^2",
    )
    ridge: NonNegativeFloat = Field(default=1e-14, description="damping, relative")

    @model_validator(mode="after")
    def _targets_for_all(self) -> FitOptions:
        for kinds in self.observations:
            missing = [kind for kind in kinds if kind not in self.targets]
            if missing or not kinds:
                refuse("targets", f"has none for {', '.join(missing) or 'an empty set'}")
        return self


class GeneralisationConfiguration(JobOptions):
    """Everything ``fedens run`` needs to know to analyse what generalises to a defect."""

    job: Literal["generalisation"] = Field(
        default="generalisation", description="what fedens run does"
    )
    element: Symbol = Field(default="Al", description="chemical symbol")
    lattice_constant: PositiveFloat = Field(
        default=7.65, description="guess of the cubic lattice constant, bohr"
    )
    reference: GuptaOptions = GuptaOptions()
    defect: DefectKind = Field(default="vacancy", description="the defect")
    ball: PositiveFloat = Field(
        default=7.0, description="radius of the large crystal, lattice constants"
    )
    decay_ball: PositiveFloat = Field(
        default=12.0, description="radius of the one whose strain is measured, lattice constants"
    )
    far_field: FarFieldOptions = FarFieldOptions()
    fits: FitOptions = FitOptions()
