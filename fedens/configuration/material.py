"""Sections that several jobs share: structures, space, functional, solver."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    Tag,
)

from fedens.configuration.options import (
    FilePath,
    Index,
    Options,
    Range,
    Repeats,
    Symbol,
    refuse,
)
from fedens.energy.gth import GTH
from fedens.energy.pseudopotential import LocalPseudopotential, pseudopotential_from_description
from fedens.errors import PseudopotentialError
from fedens.sources.source import Source
from fedens.sources.structure_files import StructureFile
from fedens.sources.thermal_cells import ThermalCells


class ThermalCellsOptions(Options):
    """fcc supercells with random displacements, strains and vacancies."""

    element: Symbol = Field(default=ThermalCells.element, description="chemical symbol")
    lattice_constant: PositiveFloat = Field(
        default=ThermalCells.lattice_constant, description="cubic lattice constant, bohr"
    )
    supercell: Repeats = Field(
        default=ThermalCells.supercell, description="cubic cells of 4 sites along x, y, z"
    )
    count: PositiveInt = Field(default=ThermalCells.count, description="number of structures")
    displacement: Range = Field(
        default=ThermalCells.displacement,
        description="smallest and largest standard deviation per coordinate, bohr",
    )
    strain: float = Field(
        default=ThermalCells.strain, ge=0, lt=0.5, description="largest change of length of an axis"
    )
    vacancy_fraction: float = Field(
        default=ThermalCells.vacancy_fraction,
        ge=0,
        le=1,
        description="share with one atom missing",
    )

    def source(self) -> Source:
        """What makes the structures."""
        return ThermalCells(**self.model_dump())


class StructureFileOptions(Options):
    """Structures from any file that ASE reads, periodic or isolated."""

    file: FilePath = Field(description="the file")
    index: Index = Field(default=":", description="which structures of the file, as in ASE")

    def source(self) -> Source:
        """What reads the structures."""
        return StructureFile(self.file, self.index)


class SpaceOptions(Options):
    """The finite-element space."""

    spacing: PositiveFloat = Field(default=0.34, description="element length over order, bohr")
    order: int = Field(default=10, ge=1, le=10, description="polynomial order")


class PseudopotentialOptions(Options):
    """Base of the pseudopotentials."""

    def pseudopotential(self, symbol: str) -> LocalPseudopotential:  # noqa: ARG002
        """That of an element.

        Raises:
            PseudopotentialError: there is none.
        """
        return pseudopotential_from_description(self.model_dump(mode="json"))


class GTHOptions(PseudopotentialOptions):
    """A Goedecker-Teter-Hutter pseudopotential from the library that PySCF ships."""

    kind: Literal["gth"]
    name: str = Field(description="functional and valence, such as gth-pade-q3")

    def pseudopotential(self, symbol: str) -> LocalPseudopotential:
        return GTH.load(symbol, self.name)


class GTHLocalOptions(PseudopotentialOptions):
    """Local part of a Goedecker-Teter-Hutter pseudopotential."""

    kind: Literal["gth_local"]
    valence: PositiveFloat = Field(description="electrons per atom")
    r_loc: PositiveFloat = Field(description="bohr")
    c1: float = Field(default=0.0, description="hartree")
    c2: float = Field(default=0.0, description="hartree")
    c3: float = Field(default=0.0, description="hartree")
    c4: float = Field(default=0.0, description="hartree")


class EvanescentCoreOptions(PseudopotentialOptions):
    """Evanescent core of Fiolhais et al."""

    kind: Literal["evanescent_core"]
    valence: PositiveFloat = Field(description="electrons per atom")
    r: PositiveFloat = Field(description="core radius, bohr")
    alpha: float = Field(gt=1, description="decay, dimensionless")


class GoodwinNeedsHeineOptions(PseudopotentialOptions):
    """Goodwin, Needs and Heine, for aluminium."""

    kind: Literal["goodwin_needs_heine"]


class RecpotOptions(PseudopotentialOptions):
    """A table in the .recpot format of CASTEP and BLPS."""

    kind: Literal["recpot"]
    path: FilePath = Field(description="the file")


Pseudopotential = Annotated[
    GTHOptions | GTHLocalOptions | EvanescentCoreOptions | GoodwinNeedsHeineOptions | RecpotOptions,
    BeforeValidator(
        lambda given: {"kind": "gth", "name": given} if isinstance(given, str) else given
    ),
    Discriminator("kind"),
]


def _named_in_the_library(found: dict[str, Pseudopotential]) -> dict[str, Pseudopotential]:
    for symbol, one in found.items():
        if isinstance(one, GTHOptions):
            try:
                one.pseudopotential(symbol)
            except PseudopotentialError as error:
                refuse(f"{symbol}.name", str(error))
    return found


Pseudopotentials = Annotated[dict[Symbol, Pseudopotential], AfterValidator(_named_in_the_library)]


def _default_pseudopotentials() -> dict[str, Pseudopotential]:
    fit = GTHLocalOptions(kind="gth_local", valence=3, r_loc=0.7473, c1=4.9546, c2=-0.8993)
    return {"Al": fit}


class FunctionalOptions(Options):
    """The orbital-free functional."""

    kinetic: Literal["wt", "wgc", "lkt", "tfvw"] = Field(
        default="wt", description="kinetic functional"
    )
    vw_weight: PositiveFloat = Field(
        default=1.0, description="von Weizsaecker factor; 1 for all but tfvw"
    )
    xc: str = Field(default="lda_pz", description="exchange and correlation")
    pseudopotentials: Pseudopotentials = Field(
        default_factory=_default_pseudopotentials, description="by chemical symbol"
    )
    gaussian_width: PositiveFloat = Field(
        default=1.2, description="of the ions' Gaussian charges, bohr"
    )
    temperature: NonNegativeFloat = Field(
        default=0.0, description="k_B T of the uniform gas' electrons, hartree; 0: none"
    )


class SolverOptions(Options):
    """The minimisation of the energy."""

    residual_tolerance: PositiveFloat = Field(
        default=1e-6, description="|g - mu c| / sqrt(N), hartree"
    )
    max_evaluations: PositiveInt = Field(default=200, description="energy evaluations")


def _structures_kind(value: Any) -> str:
    file_given = "file" in value if isinstance(value, dict) else hasattr(value, "file")
    return "from_file" if file_given else "thermal_cells"


Structures = Annotated[
    Annotated[StructureFileOptions, Tag("from_file")]
    | Annotated[ThermalCellsOptions, Tag("thermal_cells")],
    Discriminator(_structures_kind),
]

PSEUDOPOTENTIALS: dict[str, type[Options]] = {
    "gth": GTHOptions,
    "gth_local": GTHLocalOptions,
    "evanescent_core": EvanescentCoreOptions,
    "goodwin_needs_heine": GoodwinNeedsHeineOptions,
    "recpot": RecpotOptions,
}
#: By the tag of :data:`Structures`.
STRUCTURES: dict[str, type[Options]] = {
    "thermal_cells": ThermalCellsOptions,
    "from_file": StructureFileOptions,
}
