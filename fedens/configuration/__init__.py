"""Configurations of ``fedens run``: YAML in, checked by pydantic, every key with a default.

Lengths are in bohr, energies in hartree. Paths are relative to the configuration's file. The key
``job`` says what is to be done, and with it which keys there are; without it, the main job.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedens.configuration.crystals import (
    Configuration,
    MeshOptions,
    NetworkOptions,
    TrainingOptions,
)
from fedens.configuration.functionals import FunctionalsConfiguration
from fedens.configuration.generalisation import GeneralisationConfiguration
from fedens.configuration.loading import read_options
from fedens.configuration.material import (
    EvanescentCoreOptions,
    GoodwinNeedsHeineOptions,
    GTHLocalOptions,
    GTHOptions,
    RecpotOptions,
    SpaceOptions,
    StructureFileOptions,
    ThermalCellsOptions,
)
from fedens.configuration.molecules import MoleculeOptions, MoleculesConfiguration
from fedens.configuration.options import JobOptions, Options
from fedens.configuration.reference_points import PointSetOptions, ReferencePointsConfiguration
from fedens.configuration.theory import KohnShamOptions, OrbitalFreeOptions, SmearingOptions

__all__ = [
    "Configuration",
    "EvanescentCoreOptions",
    "FunctionalsConfiguration",
    "GTHLocalOptions",
    "GTHOptions",
    "GeneralisationConfiguration",
    "GoodwinNeedsHeineOptions",
    "JobOptions",
    "KohnShamOptions",
    "MeshOptions",
    "MoleculeOptions",
    "MoleculesConfiguration",
    "NetworkOptions",
    "Options",
    "OrbitalFreeOptions",
    "PointSetOptions",
    "RecpotOptions",
    "ReferencePointsConfiguration",
    "SmearingOptions",
    "SpaceOptions",
    "StructureFileOptions",
    "ThermalCellsOptions",
    "TrainingOptions",
    "load_configuration",
]


def load_configuration(
    path: str | Path, overrides: Mapping[str, Any] | None = None
) -> Configuration:
    """Read and check a configuration of the main job; overrides that are not None replace keys.

    ``name`` defaults to the file's name without its ending; relative paths in the file are taken
    from the file's folder.

    Raises:
        ConfigurationError: no such file, no YAML, another job, an unknown key, a wrong type or a
            value out of range; the message names every such key and its line.
    """
    return read_options(path, {"learning": Configuration}, overrides)
