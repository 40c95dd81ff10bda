"""The configuration of ``fedens run``: YAML in, checked by pydantic, every key with a default.

Lengths are in bohr, energies in hartree. Paths are relative to the configuration's file.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from ase.data import atomic_numbers
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Tag,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from fedens.errors import ConfigurationError
from fedens.files import write_atomically


def _symbol(symbol: str) -> str:
    if atomic_numbers.get(symbol, 0) < 1:
        raise ValueError("should be the chemical symbol of an element, such as Al")
    return symbol


def _ascending(limits: tuple[float, float]) -> tuple[float, float]:
    if limits[0] > limits[1]:
        raise ValueError("should be the smaller number, then the larger one")
    return limits


def _beside_the_file(path: Path, info: ValidationInfo) -> Path:
    return (info.context or {}).get("folder", Path.cwd()) / path


Symbol = Annotated[str, AfterValidator(_symbol)]
FilePath = Annotated[Path, Field(strict=False), AfterValidator(_beside_the_file)]
Index = Annotated[str, BeforeValidator(lambda index: f"{index}" if type(index) is int else index)]
Range = Annotated[
    tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]],
    Field(strict=False),
    AfterValidator(_ascending),
]
Repeats = Annotated[tuple[PositiveInt, PositiveInt, PositiveInt], Field(strict=False)]
Lengths = Annotated[tuple[PositiveFloat, ...], Field(strict=False, min_length=1)]
Layers = Annotated[tuple[PositiveInt, ...], Field(strict=False, min_length=1)]


class Options(BaseModel):
    """Base of all sections: unknown keys and wrong types are errors, values cannot be changed."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class ThermalCellsOptions(Options):
    """fcc supercells with random displacements, strains and vacancies."""

    element: Symbol = Field(default="Al", description="chemical symbol")
    lattice_constant: PositiveFloat = Field(
        default=7.65, description="cubic lattice constant, bohr"
    )
    supercell: Repeats = Field(
        default=(2, 2, 2), description="cubic cells of 4 sites along x, y, z"
    )
    count: PositiveInt = Field(default=24, description="number of structures")
    displacement: Range = Field(
        default=(0.05, 0.4),
        description="smallest and largest standard deviation per coordinate, bohr",
    )
    strain: float = Field(
        default=0.02, ge=0, lt=0.5, description="largest change of length of an axis"
    )
    vacancy_fraction: float = Field(
        default=0.5, ge=0, le=1, description="share with one atom missing"
    )


class StructureFileOptions(Options):
    """Structures from any file that ASE reads, periodic or isolated."""

    file: FilePath = Field(description="the file")
    index: Index = Field(default=":", description="which structures of the file, as in ASE")


class SpaceOptions(Options):
    """The finite-element space."""

    spacing: PositiveFloat = Field(default=0.34, description="element length over order, bohr")
    order: int = Field(default=10, ge=1, le=10, description="polynomial order")


class GTHLocalOptions(Options):
    """Local part of a Goedecker-Teter-Hutter pseudopotential."""

    kind: Literal["gth_local"]
    valence: PositiveFloat = Field(description="electrons per atom")
    r_loc: PositiveFloat = Field(description="bohr")
    c1: float = Field(default=0.0, description="hartree")
    c2: float = Field(default=0.0, description="hartree")


class EvanescentCoreOptions(Options):
    """Evanescent core of Fiolhais et al."""

    kind: Literal["evanescent_core"]
    valence: PositiveFloat = Field(description="electrons per atom")
    r: PositiveFloat = Field(description="core radius, bohr")
    alpha: float = Field(gt=1, description="decay, dimensionless")


class GoodwinNeedsHeineOptions(Options):
    """Goodwin, Needs and Heine, for aluminium."""

    kind: Literal["goodwin_needs_heine"]


class RecpotOptions(Options):
    """A table in the .recpot format of CASTEP and BLPS."""

    kind: Literal["recpot"]
    path: FilePath = Field(description="the file")


Pseudopotential = Annotated[
    GTHLocalOptions | EvanescentCoreOptions | GoodwinNeedsHeineOptions | RecpotOptions,
    Discriminator("kind"),
]


def _default_pseudopotentials() -> dict[str, Pseudopotential]:
    fit = GTHLocalOptions(kind="gth_local", valence=3, r_loc=0.7473, c1=4.9546, c2=-0.8993)
    return {"Al": fit}


class FunctionalOptions(Options):
    """The orbital-free functional."""

    kinetic: Literal["wt", "wgc", "tfvw"] = Field(default="wt", description="kinetic functional")
    vw_weight: PositiveFloat = Field(
        default=1.0, description="von Weizsaecker factor; 1 for wt and wgc"
    )
    xc: str = Field(default="lda_pz", description="exchange and correlation")
    pseudopotentials: dict[Symbol, Pseudopotential] = Field(
        default_factory=_default_pseudopotentials, description="by chemical symbol"
    )
    gaussian_width: PositiveFloat = Field(
        default=1.2, description="of the ions' Gaussian charges, bohr"
    )


class SolverOptions(Options):
    """The minimisation of the energy."""

    residual_tolerance: PositiveFloat = Field(
        default=1e-6, description="|g - mu c| / sqrt(N), hartree"
    )
    max_evaluations: PositiveInt = Field(default=200, description="energy evaluations")


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
        description="stop sooner after this time; the result then depends on the machine",
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


def _structures_kind(value: Any) -> str:
    file_given = "file" in value if isinstance(value, dict) else hasattr(value, "file")
    return "from_file" if file_given else "thermal_cells"


Structures = Annotated[
    Annotated[StructureFileOptions, Tag("from_file")]
    | Annotated[ThermalCellsOptions, Tag("thermal_cells")],
    Discriminator(_structures_kind),
]


class Configuration(Options):
    """Everything ``fedens run`` needs to know."""

    name: str = Field(default="run", min_length=1, description="default: the name of the file")
    seed: int = Field(default=0, ge=0, description="of structures, split and training")
    structures: Structures = ThermalCellsOptions()
    space: SpaceOptions = SpaceOptions()
    functional: FunctionalOptions = FunctionalOptions()
    solver: SolverOptions = SolverOptions()
    training: TrainingOptions = TrainingOptions()
    rounds: RoundsOptions = RoundsOptions()
    output: OutputOptions = OutputOptions()
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="where to compute")

    @model_validator(mode="after")
    def _sections_agree(self) -> Configuration:
        functional, structures = self.functional, self.structures
        if functional.kinetic != "tfvw" and functional.vw_weight != 1.0:
            _disagree("functional.vw_weight", f"must be 1 for kinetic: {functional.kinetic}")
        if self.rounds.add > self.rounds.candidates:
            _disagree(
                "rounds.add",
                f"is {self.rounds.add}, but rounds.candidates is {self.rounds.candidates}: "
                "there must be at least as many to choose from",
            )
        if not isinstance(structures, ThermalCellsOptions):
            return self
        if self.training.train_count >= structures.count:
            _disagree(
                "training.train_count",
                f"is {self.training.train_count}, but structures.count is {structures.count}: "
                "at least one structure must be held out",
            )
        if structures.element not in functional.pseudopotentials:
            _disagree(
                "functional.pseudopotentials",
                f"has no pseudopotential for structures.element {structures.element}",
            )
        return self

    def write(self, path: str | Path) -> None:
        """Write all keys, defaults included, as YAML that :func:`load_configuration` reads.

        Raises:
            OutputError: the file cannot be written.
        """
        write_atomically(path, yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False))


def load_configuration(
    path: str | Path, overrides: Mapping[str, Any] | None = None
) -> Configuration:
    """Read and check a YAML configuration; ``overrides`` that are not None replace its keys.

    ``name`` defaults to the file's name without its ending; relative paths in the file are taken
    from the file's folder.

    Raises:
        ConfigurationError: no such file, no YAML, an unknown key, a wrong type or a value out of
            range; the message names every such key and its line.
    """
    path = Path(path)
    node, values = _read_yaml(path)
    if not isinstance(values, dict):
        raise ConfigurationError(f"{path}: expected keys and values, found {values!r}")
    context = {"folder": path.resolve().parent}
    given = {key: value for key, value in (overrides or {}).items() if value is not None}
    try:
        return Configuration.model_validate({"name": path.stem} | values | given, context=context)
    except ValidationError as error:
        problems = [_explain(node, details) for details in error.errors()]
        raise ConfigurationError("\n".join(f"{path}, {problem}" for problem in problems)) from error


class _Loader(yaml.SafeLoader):
    """YAML 1.2 scalars: 1e-6 is a number; yes, 010, 1:30 and dates are strings."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012


for _tag, _pattern in {
    "null": r"null|~|",
    "bool": r"[Tt]rue|[Ff]alse",
    "int": r"[-+]?(0|[1-9][0-9]*)",
    "float": r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+)([eE][-+]?[0-9]+)?",
}.items():
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"), None
    )


def _read_yaml(path: Path) -> tuple[yaml.Node | None, Any]:
    """The tree of nodes, which know their lines, and the values."""
    try:
        loader = _Loader(path.read_text(encoding="utf-8"))
        node = loader.get_single_node()
        _check_keys(path, node)
        return node, {} if node is None else loader.construct_document(node)
    except OSError as error:
        raise ConfigurationError(f"cannot read the configuration {path}: {error}") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigurationError(f"{path} is not valid YAML: {error}") from error


def _check_keys(path: Path, node: yaml.Node | None) -> None:
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _check_keys(path, item)
    if not isinstance(node, yaml.MappingNode):
        return
    seen = set()
    for key, value in node.value:
        line = f"{path}, line {key.start_mark.line + 1}"
        if not isinstance(key, yaml.ScalarNode):
            raise ConfigurationError(f"{line}: a key should be a word, not a list or a section")
        if key.value in seen:
            raise ConfigurationError(f"{line}: the key {key.value!r} is given twice")
        seen.add(key.value)
        _check_keys(path, value)


#: pydantic puts these into the place of an error, but the file does not hold them.
_TAGGED: dict[str, type[Options]] = {
    "from_file": StructureFileOptions,
    "thermal_cells": ThermalCellsOptions,
    "gth_local": GTHLocalOptions,
    "evanescent_core": EvanescentCoreOptions,
    "goodwin_needs_heine": GoodwinNeedsHeineOptions,
    "recpot": RecpotOptions,
}


def _disagree(place: str, message: str) -> None:
    raise PydanticCustomError("disagreement", "{message}", {"place": place, "message": message})


def _explain(node: yaml.Node | None, details: ErrorDetails) -> str:
    """One error in words: line, key, what is wrong."""
    place: Sequence[int | str] = details["loc"]
    context = details.get("ctx", {})
    if details["type"] == "disagreement":
        place, message = context["place"].split("."), context["message"]
    elif details["type"] == "extra_forbidden":
        message = _unknown_key(place)
    elif details["type"] == "missing":
        message = "is missing"
    elif details["type"] in ("model_type", "model_attributes_type", "dict_type"):
        message = f"should be a section with keys of its own, not {details['input']!r}"
    elif details["type"] == "path_type":
        message = f"should be the path of a file, not {details['input']!r}"
    elif details["type"].startswith("union_tag"):
        message = f"needs a kind: one of {context.get('expected_tags', ', '.join(_PSEUDO_KINDS))}"
    else:
        plain = details["msg"].removeprefix("Value error, ").removeprefix("Input ")
        message = f"{plain}, not {details['input']!r}"
    line, key = _locate(node, place)
    return f"line {line}: {key}: {message}"


_PSEUDO_KINDS = tuple(tag for tag in _TAGGED if tag not in ("from_file", "thermal_cells"))


def _unknown_key(place: Sequence[int | str]) -> str:
    model: type[BaseModel] = Configuration
    for part in place[:-1]:
        if part in _TAGGED:
            model = _TAGGED[str(part)]
        elif str(part) in model.model_fields:
            kind = model.model_fields[str(part)].annotation
            model = kind if isinstance(kind, type) and issubclass(kind, BaseModel) else model
    known = [*model.model_fields, *(["file"] if model is ThermalCellsOptions else [])]
    nearest = difflib.get_close_matches(str(place[-1]), known, n=1)
    hint = f"did you mean {nearest[0]!r}?" if nearest else f"known here: {', '.join(known)}"
    return f"unknown key; {hint}"


def _locate(node: yaml.Node | None, place: Sequence[int | str]) -> tuple[int, str]:
    """Line of the deepest part of a place that the file holds (else 1), and its dotted name."""
    line, parts = 1, []
    for part in place:
        entries: dict[Any, tuple[yaml.Node, yaml.Node]] = {}
        if isinstance(node, yaml.MappingNode):
            entries = {key.value: (key, value) for key, value in node.value}
        elif isinstance(node, yaml.SequenceNode):
            entries = {index: (value, value) for index, value in enumerate(node.value)}
        if part in entries:
            marked, node = entries[part]
            line = marked.start_mark.line + 1
        if part in entries or (part not in _TAGGED and part != "[key]"):
            parts.append(str(part))
    return line, ".".join(parts)
