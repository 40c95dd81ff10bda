"""Every job by the name that the key ``job`` of a configuration gives it; a new one is a line here.

The configuration comes first: it is read and checked before the job's own modules are loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from fedens.configuration import (
    Configuration,
    FunctionalsConfiguration,
    GeneralisationConfiguration,
    JobOptions,
    MoleculesConfiguration,
    ReferencePointsConfiguration,
)
from fedens.configuration.loading import read_options
from fedens.progress import Progress

if TYPE_CHECKING:
    from fedens.jobs.run import Run

#: Name -> ("module:class" of its run, its configuration); the main job first.
JOBS: dict[str, tuple[str, type[JobOptions]]] = {
    "learning": ("fedens.jobs.rounds:RoundsRun", Configuration),
    "functional": ("fedens.jobs.functionals:FunctionalsRun", FunctionalsConfiguration),
    "generalisation": ("fedens.jobs.generalisation:GeneralisationRun", GeneralisationConfiguration),
    "reference_points": ("fedens.jobs.reference_points:PointsRun", ReferencePointsConfiguration),
    "molecules": ("fedens.jobs.molecules:MoleculesRun", MoleculesConfiguration),
}


def load_job(path: str | Path, overrides: Mapping[str, Any] | None = None) -> JobOptions:
    """Read and check the configuration of any job; see :func:`load_configuration`."""
    return read_options(path, {name: options for name, (_, options) in JOBS.items()}, overrides)


def open_run(configuration: JobOptions, folder: str | Path | None, progress: Progress) -> Run[Any]:
    """The run of a configuration in a folder, by default ``runs/<name>``; see :meth:`Run.open`."""
    folder = Path("runs") / configuration.name if folder is None else Path(folder)
    run: type[Run[Any]] = resolve_name(JOBS[configuration.job][0])
    return run.open(configuration, folder, progress)
