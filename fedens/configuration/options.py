"""What every section of a configuration is made of: strict, frozen models and checked types."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import yaml
from ase.data import atomic_numbers
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationInfo,
)
from pydantic_core import PydanticCustomError

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


class JobOptions(Options):
    """What every configuration of ``fedens run`` holds, whatever the job."""

    job: str = Field(default="learning", description="what fedens run does")
    name: str = Field(default="run", min_length=1, description="default: the name of the file")
    seed: int = Field(default=0, ge=0, description="of everything random")
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="where to compute")
    workers: PositiveInt = Field(default=1, description="processes that label structures")

    def write(self, path: str | Path) -> None:
        """Write all keys, defaults included, as YAML that :func:`load_configuration` reads.

        Raises:
            OutputError: the file cannot be written.
        """
        write_atomically(path, yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False))


def refuse(place: str, message: str) -> None:
    """Refuse a value that does not go with others; ``place`` is its dotted name in the section."""
    raise PydanticCustomError("disagreement", "{message}", {"place": place, "message": message})
