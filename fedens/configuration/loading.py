"""YAML files checked by pydantic: errors name the file, the line and the key."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from fedens.configuration.material import PSEUDOPOTENTIALS, STRUCTURES, ThermalCellsOptions
from fedens.configuration.options import Options
from fedens.configuration.theory import THEORIES
from fedens.errors import ConfigurationError

#: pydantic puts these tags into the place of an error, but the file does not hold them.
TAGGED: dict[str, type[Options]] = {**PSEUDOPOTENTIALS, **STRUCTURES, **THEORIES}

AnyOptions = TypeVar("AnyOptions", bound=Options)


def read_options(
    path: str | Path,
    kinds: Mapping[str, type[AnyOptions]],
    overrides: Mapping[str, Any] | None = None,
) -> AnyOptions:
    """Read and check a YAML file as the kind of options that its key ``job`` names.

    As :func:`fedens.configuration.load_configuration` of any job.

    Args:
        kinds: the models by job; the first is meant where the file names none.
    """
    path = Path(path)
    node, values = _read_yaml(path)
    if not isinstance(values, dict):
        raise ConfigurationError(f"{path}: expected keys and values, found {values!r}")
    job = values.get("job", next(iter(kinds)))
    if not isinstance(job, str) or job not in kinds:
        line, _ = _locate(node, ["job"])
        raise ConfigurationError(
            f"{path}, line {line}: job: should be one of {', '.join(kinds)}, not {job!r}"
        )
    context = {"folder": path.resolve().parent}
    given = {key: value for key, value in (overrides or {}).items() if value is not None}
    try:
        return kinds[job].model_validate({"name": path.stem} | values | given, context=context)
    except ValidationError as error:
        problems = sorted(_explain(node, details, kinds[job]) for details in error.errors())
        lines = [f"{path}, line {line}: {problem}" for line, problem in problems]
        raise ConfigurationError("\n".join(lines)) from error


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


def _explain(node: yaml.Node | None, details: ErrorDetails, root: type[Options]) -> tuple[int, str]:
    """One error: its line, and key and what is wrong in words."""
    place: Sequence[int | str] = details["loc"]
    context = details.get("ctx", {})
    if details["type"] == "disagreement":
        place, message = [*place, *context["place"].split(".")], context["message"]
    elif details["type"] == "extra_forbidden":
        message = _unknown_key(place, root)
    elif details["type"] == "missing":
        message = "is missing"
    elif details["type"] in ("model_type", "model_attributes_type", "dict_type"):
        message = f"should be a section with keys of its own, not {details['input']!r}"
    elif details["type"] == "path_type":
        message = f"should be the path of a file, not {details['input']!r}"
    elif details["type"].startswith("union_tag"):
        known = THEORIES if place[-1] == "theory" else PSEUDOPOTENTIALS
        message = f"needs a kind: one of {context.get('expected_tags', ', '.join(known))}"
    else:
        plain = details["msg"].removeprefix("Value error, ").removeprefix("Input ")
        message = f"{plain}, not {details['input']!r}"
    line, key = _locate(node, place)
    return line, f"{key}: {message}"


def _unknown_key(place: Sequence[int | str], root: type[Options]) -> str:
    model: type[BaseModel] = root
    for part in place[:-1]:
        if part in TAGGED:
            model = TAGGED[str(part)]
        elif str(part) in model.model_fields:
            annotation = model.model_fields[str(part)].annotation
            for kind in (annotation, *get_args(annotation)):
                if isinstance(kind, type) and issubclass(kind, BaseModel):
                    model = kind
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
        if part in entries or (part not in TAGGED and part != "[key]"):
            parts.append(str(part))
    return line, ".".join(parts)
