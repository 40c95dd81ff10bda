"""What every job of ``fedens run`` is: a folder, a configuration, and sections done once.

A run lives in one folder::

    config.yaml     resolved configuration        sections.json  what has been done, and from what
    failures.json   structures left out, and why  lock.json      the process at work in it
    data/           samples, if there are any     model/         a model, if there is one
    report.html     one page to read              fields/        files for ParaView
    unfinished/     where a label goes on that was cut off

A section is skipped while nothing that it was made from has changed: parts of the configuration,
structures, samples, models. Whatever is written is written whole, so that a run that was killed at
any moment goes on when it is started again, and ends with the same files.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

import torch

from fedens.configuration import JobOptions
from fedens.configuration.loading import read_options
from fedens.data.dataset import Dataset
from fedens.data.sample import Sample
from fedens.errors import ConfigurationError
from fedens.files import write_atomically
from fedens.jobs.labelling import Outcome, local_cluster, outcomes_here, outcomes_of_workers
from fedens.jobs.lock import release_lock, take_lock
from fedens.jobs.sections import Sections, digest
from fedens.jobs.summary import HELD_OUT_FIELDS, Summary
from fedens.models.base import Model
from fedens.models.storage import DESCRIPTION_FILE, read_model
from fedens.output.vtk import write_pvd
from fedens.progress import Count, Progress
from fedens.reference.labeller import Labeller, labeller_from_description
from fedens.report.page import ReportTable
from fedens.structure import Structure

Options = TypeVar("Options", bound=JobOptions)
Result = TypeVar("Result")

FAILURES = "failures.json"


@dataclass(frozen=True)
class Section:
    """A part of a run that is done once for the same inputs.

    Attributes:
        inputs: all that the result depends on, by words for it.
        compute: the result, as JSON can hold it.
        files: that it writes, paths in the run's folder.
    """

    inputs: Mapping[str, Any]
    compute: Callable[[], Any]
    files: Sequence[str] = ()


class Run(ABC, Generic[Options]):
    """One configuration with its folder; a job is a subclass and a line in the registry.

    Its steps, for the command line, are :meth:`generate`, :meth:`train` and :meth:`evaluate`.

    Attributes:
        configuration: what to do. folder: where everything goes. progress: shows how far it is.
        leaves: step -> words about what it leaves behind, and where that is in the folder.
    """

    leaves: ClassVar[Mapping[str, tuple[str, str]]] = {
        "generate": ("reference data", "data"),
        "train": ("model", "model"),
    }

    def __init__(self, configuration: Options, folder: Path, progress: Progress):
        self.configuration, self.folder, self.progress = configuration, folder, progress

    @classmethod
    def open(cls, configuration: Options, folder: str | Path, progress: Progress) -> Self:
        """Prepare a run folder, or take one up again; it is this process's until it is closed.

        Raises:
            ConfigurationError: the folder holds data of another configuration.
            RunLockedError: another process is at work in it.
            DeviceError: a device that is missing or that the job does not use.
            OutputError: a folder that cannot be written.
        """
        run = cls(configuration, Path(folder), progress)
        _ = run.device  # refused before anything is written
        take_lock(run.folder)
        try:
            run._refuse_other_data()
            configuration.write(run.folder / "config.yaml")
        except BaseException:
            run.close()
            raise
        return run

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the folder to other processes."""
        release_lock(self.folder)

    @property
    def device(self) -> torch.device:
        """Where models are trained and asked.

        Raises:
            DeviceError: the configuration's is missing, or the job does not use it.
        """
        return torch.device("cpu")

    @property
    @abstractmethod
    def data_sections(self) -> tuple[str, ...]:
        """Parts of the configuration that the data depend on; a folder holds one choice."""

    def _refuse_other_data(self) -> None:
        path, now = self.folder / "config.yaml", self.configuration
        if not path.is_file():
            return
        advice = "choose another folder with --output, or delete it"
        try:
            before = read_options(path, {now.job: type(now)})
        except ConfigurationError as error:
            raise ConfigurationError(
                f"{self.folder} holds another run ({error}): {advice}"
            ) from error
        old, new = before.model_dump(mode="json"), now.model_dump(mode="json")
        differing = [name for name in self.data_sections if old[name] != new[name]]
        if differing:
            verb = "differs" if len(differing) == 1 else "differ"
            raise ConfigurationError(
                f"{self.folder} holds data of another configuration ({', '.join(differing)} "
                f"{verb}): {advice}"
            )

    def do(self) -> None:
        """Everything: data, training, comparison, report."""
        self.generate()
        self.evaluate()

    @abstractmethod
    def generate(self) -> Any:
        """The data, as far as they are not there yet."""

    @abstractmethod
    def train(self) -> Any:
        """The model or models of the data there are; what has been done is not done again."""

    def evaluate(self) -> None:
        """Compare, write results and report, and show the summary."""
        self.compared().show(self.failures, self.folder, self.progress)

    @abstractmethod
    def compared(self) -> Summary:
        """The comparison, its results and report; :meth:`train` goes before."""

    def chosen(self, *names: str) -> dict[str, Any]:
        """Parts of the configuration by their dotted names, as inputs of a section."""
        values, every = {}, self.configuration.model_dump(mode="json")
        for name in names:
            value: Any = every
            for part in name.split("."):
                value = value[part]
            values[name] = value
        return values

    # --- sections

    @cached_property
    def sections(self) -> Sections:
        """The record of what has been done."""
        return Sections(self.folder)

    def once(self, name: str, section: Section) -> Any:
        """Result of a section, as JSON holds it; done only if it must be, and that is said."""
        changed = self.sections.change(name, section.inputs, section.files)
        if changed is None:
            self.progress.say(f"{name}: skipped, nothing it depends on has changed")
            return self.sections.result(name)
        if changed:
            self.progress.say(f"{name}: done again ({_words_of(changed)})")
        return self.sections.store(name, section.inputs, section.compute())

    def each(self, title: str, cases: Mapping[str, Section]) -> list[Any]:
        """Results of many sections, by name, under one bar."""
        changes = {n: self.sections.change(n, s.inputs, s.files) for n, s in cases.items()}
        pending = [name for name, change in changes.items() if change is not None]
        self._say_skipped(title, len(cases) - len(pending), len(cases))
        again = [part for name in pending for part in changes[name] or ()]
        if again:
            self.progress.say(f"{title}: done again ({_words_of(again)})")
        if pending:
            with self.progress.stage(title, len(cases)) as advance:
                advance(len(cases) - len(pending))
                for name in pending:
                    self.sections.store(name, cases[name].inputs, cases[name].compute())
                    advance(1)
        return [self.sections.result(name) for name in cases]

    def _say_skipped(self, title: str, done: int, total: int) -> None:
        if done:
            self.progress.say(f"{title}: {done} of {total} skipped, they are there already")

    # --- data

    @cached_property
    def data(self) -> Dataset:
        """The data set of the run."""
        return Dataset.open(self.folder / "data", create=True)

    @property
    def labelling(self) -> dict[str, Any]:
        """Kind and settings of the labeller, see :data:`fedens.reference.labeller.LABELLERS`."""
        raise NotImplementedError

    @cached_property
    def labeller(self) -> Labeller:
        """Reference data of a structure: a function of it and the configuration alone."""
        return labeller_from_description(self.labelling)

    @property
    def failures(self) -> dict[str, str]:
        """Structures that could not be labelled: name -> reason."""
        return {name: record["reason"] for name, record in self._failures.items()}

    @cached_property
    def _failures(self) -> dict[str, dict[str, str]]:
        return read_failures(self.folder)

    def generate_data(self, structures: Mapping[str, Structure]) -> dict[str, str]:
        """:meth:`label` the structures that the data are to hold, and remove all others."""
        asked_for = self.sections.result("reference data") or []
        for name in asked_for:
            if name not in structures:
                self._remove(name, "the structures no longer hold it")
        self.sections.store("reference data", {}, list(structures))
        return self.label("reference data", structures)

    def label(self, title: str, structures: Mapping[str, Structure]) -> dict[str, str]:
        """Add structures to the data set, those that it does not hold, or holds otherwise.

        Returns:
            name -> reason of those that could not be labelled; they are not in the data set.
        """
        index = self.data.index
        for name, structure in structures.items():
            if name in index and index[name]["structure_digest"] != structure.digest:
                self._remove(name, "its structure has changed")
        pending = [n for n, structure in structures.items() if not self._known(n, structure)]
        done = len(structures) - len(pending)
        self._say_skipped(title, done, len(structures))
        with (
            self.progress.stage(title, len(structures)) as count,
            self._labelled({name: structures[name] for name in pending}, count) as outcomes,
        ):
            count(done)
            for name, outcome in outcomes:
                self._keep(name, structures[name], outcome)
                count(1)
        with suppress(OSError):  # where there is none, or a checkpoint in it
            (self.folder / "unfinished").rmdir()
        failed = {name: reason for name, reason in self.failures.items() if name in structures}
        for name, reason in failed.items():
            self.progress.say(f"{name} left out: {reason}")
        return failed

    def _known(self, name: str, structure: Structure) -> bool:
        """Whether a structure is in the data, or known to fail."""
        failure = self._failures.get(name, {})
        return name in self.data or failure.get("structure") == structure.digest

    @contextmanager
    def _labelled(
        self, structures: Mapping[str, Structure], count: Count
    ) -> Iterator[Iterator[Outcome]]:
        """Samples, or why there are none, as they are made: here, or by workers if there are."""
        tasks = {name: (one, self._checkpoint(one)) for name, one in structures.items()}
        workers = min(self.configuration.workers, len(tasks))
        if workers > 1:
            with local_cluster(workers) as client:
                yield outcomes_of_workers(client, workers, self.labelling, tasks, count)
        else:
            yield outcomes_here(self.labeller, tasks, count)

    def _checkpoint(self, structure: Structure) -> Path:
        return (self.folder / "unfinished" / f"{structure.digest}.npz").absolute()

    def _keep(self, name: str, structure: Structure, outcome: Sample | str) -> None:
        if isinstance(outcome, str):
            self._failures[name] = {"structure": structure.digest, "reason": outcome}
            self.write_json(FAILURES, dict(sorted(self._failures.items())))
        else:
            self.data.add(outcome, name)
            self._forget_failure(name)
        self._checkpoint(structure).unlink(missing_ok=True)

    def _forget_failure(self, name: str) -> None:
        if self._failures.pop(name, None) is not None:
            self.write_json(FAILURES, self._failures)

    def _remove(self, name: str, reason: str) -> None:
        if name in self.data:
            self.progress.say(f"{name} removed from the data: {reason}")
            (self.folder / "data" / f"{name}.h5").unlink()
            del self.data  # opened anew, its index follows the files
        self._forget_failure(name)

    def checksums(self, names: Sequence[str]) -> dict[str, str]:
        """Of samples, as inputs of a section."""
        index = self.data.index
        return {name: index[name]["checksum"] for name in names}

    # --- models

    def model(
        self,
        folder: Path,
        inputs: Mapping[str, Any],
        fit: Callable[[], Any],
        elsewhere: Path | None = None,
    ) -> Any:
        """The model of some inputs: of the folder if it is there, else trained and saved there.

        Args:
            elsewhere: another folder that may hold it.
        """
        key = {part: digest(value) for part, value in inputs.items()}
        known = self._key_in(folder)
        if known == key:
            self.progress.say(f"model is already trained; delete {folder} to train it again")
            return self._loaded(folder)
        if known:
            changed = [part for part in {**known, **key} if known.get(part) != key.get(part)]
            self.progress.say(f"model of {folder} trained again ({_words_of(changed)})")
        if elsewhere is not None and self._key_in(elsewhere) == key:
            model = self._loaded(elsewhere)
        else:
            model = fit()
            model.provenance["key"] = key
        self.save_model(model, folder)
        return model

    def save_model(self, model: Any, folder: Path) -> None:
        """Save a model unless the folder holds it; a kill leaves no halves of two of them."""
        if self._key_in(folder) != model.provenance["key"]:
            (folder / DESCRIPTION_FILE).unlink(missing_ok=True)
            model.save(folder)

    def _key_in(self, folder: Path) -> dict[str, str]:
        if not (folder / DESCRIPTION_FILE).is_file():
            return {}
        _, description = read_model(folder)
        key = description["provenance"].get("key")
        return key if isinstance(key, dict) else {}

    def _loaded(self, folder: Path) -> Any:
        return Model.load(folder, self.device)

    # --- comparison

    def compare_each(
        self,
        title: str,
        names: Sequence[str],
        compare: Callable[[int, str], tuple[Result, Sequence[Path]]],
    ) -> list[Result]:
        """Compare with every sample of a name; its files become a time series for ParaView.

        Args:
            compare: of place and name, the result and the VTK files it has written, if any.
        """
        results: list[Result] = []
        entries: list[tuple[float, list[Path]]] = []
        with self.progress.stage(title, len(names)) as advance:
            for place, name in enumerate(names):
                result, files = compare(place, name)
                results.append(result)
                if files:
                    entries.append((place, list(files)))
                advance(1)
        if entries:
            write_pvd(self.folder / HELD_OUT_FIELDS, entries)
        return results

    def write_json(self, name: str, content: Any) -> None:
        """Write results into the run's folder, whole."""
        write_atomically(self.folder / name, json.dumps(content, indent=1))

    def summarised(self, name: str, section: Section) -> Summary:
        """The summary that a section computes, which shows name and structures left out too."""
        inputs = {**section.inputs, **self.chosen("name"), "structures left out": self.failures}
        shown = replace(section, inputs=inputs, compute=lambda: asdict(section.compute()))
        found = self.once(name, shown)
        return Summary(ReportTable(**found["table"]), found["sentences"], section.files)


def read_failures(folder: Path) -> dict[str, dict[str, str]]:
    """Structures of a run without labels: name -> digest of ``structure``, ``reason``."""
    path = folder / FAILURES
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _words_of(changed: Sequence[str]) -> str:
    """What changed, in a few words."""
    different = dict.fromkeys(changed)
    parts = [part if part.endswith("missing") else f"{part} changed" for part in different]
    return ", ".join(parts[:5]) + (", ..." if len(parts) > 5 else "")
