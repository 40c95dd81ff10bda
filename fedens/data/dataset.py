"""Data sets: a folder with one HDF5 file per sample and an index that the files can rebuild."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fedens.data.sample import Sample
from fedens.data.sample_file import (
    SCHEMA_VERSION,
    as_json,
    check_schema,
    read_sample,
    stored_checksum,
    write_sample,
)
from fedens.data.sampling import sampling_differences, sampling_of
from fedens.errors import DatasetError, OutputError
from fedens.files import write_atomically

INDEX = "index.json"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class Dataset:
    """Samples in a folder, all from the same functional and sampled alike; see :meth:`open`.

    Samples are ordered by name. The folder's files are the truth and the index only spares
    reading them: files that are not in the index are read, verified and added on opening.
    """

    def __init__(self, path: Path, entries: dict[str, dict[str, Any]], functional: Any):
        self.path = path
        self._entries = entries
        self._functional = functional

    @classmethod
    def open(cls, path: str | Path, create: bool = False) -> Dataset:
        """Open a data set's folder; with ``create``, make it if it is missing.

        Raises:
            DatasetError: no data set there; a broken, foreign or newer file in it; samples of
                different functionals or samplings.
            OutputError: the folder cannot be made.
        """
        folder = Path(path)
        if create:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise OutputError(f"cannot make the folder {folder}: {error}") from error
        files = {file.stem: file for file in folder.glob("*.h5")}
        if not (create or files or (folder / INDEX).exists()):
            raise DatasetError(
                f"{folder} holds no data set: expected a folder with .h5 samples or {INDEX}; "
                "check the path, or make a new data set with create=True"
            )
        dataset = cls(folder, *_read_index(folder / INDEX))
        dataset._synchronise(files)
        return dataset

    def _synchronise(self, files: Mapping[str, Path]) -> None:
        """Bring the index in line with the files in the folder."""
        known = {
            name: entry
            for name, entry in self._entries.items()
            if name in files and {"structure_digest", "checksum"} <= entry.keys()
        }
        unchanged = known.keys() == self._entries.keys() == files.keys()
        self._entries = known
        for name in sorted(files.keys() - known.keys()):
            self._register(name, read_sample(files[name]))
        if not unchanged:
            self._write_index()

    def _register(self, name: str, sample: Sample) -> None:
        self._check_functional(name, sample)
        self._check_sampling(name, sample)
        self._functional = sample.provenance.get("functional")
        sampling = sampling_of(sample)
        self._entries[name] = {
            "formula": sample.structure.formula,
            "n_atoms": len(sample.structure),
            "n_points": len(sample.weights),
            "energy_hartree": sample.energy,
            "converged": sample.converged,
            "structure_digest": sample.structure.digest,
            "checksum": stored_checksum(self._file(name)),
        } | ({} if sampling is None else {"sampling": sampling})

    def _check_functional(self, name: str, sample: Sample) -> None:
        if not self._entries:
            return
        differences = _differences(self._functional, sample.provenance.get("functional"))
        if differences:
            raise DatasetError(
                f"sample {name!r} is from another functional than the data set {self.path}: "
                + "; ".join(differences)
                + ". Energy densities of different functionals, pseudopotentials or Gaussian "
                "widths cannot be mixed: keep them in separate data sets"
            )

    def _check_sampling(self, name: str, sample: Sample) -> None:
        here = sampling_of(sample)
        if here is None:
            return
        for other, entry in self._entries.items():
            there = entry.get("sampling", here)
            differences = [] if there == here else sampling_differences(here, there)
            if differences:
                raise DatasetError(
                    f"samples {name!r} and {other!r} of the data set {self.path} are sampled "
                    f"differently: {'; '.join(differences)}. Labels of different k-points or "
                    "smearing cannot be mixed: label all structures alike, or keep them in "
                    "separate data sets"
                )

    def _write_index(self) -> None:
        content = {
            "schema_version": SCHEMA_VERSION,
            "functional": self._functional,
            "samples": self.index,
        }
        write_atomically(self.path / INDEX, json.dumps(content, indent=1, sort_keys=True))

    @property
    def names(self) -> list[str]:
        """Names of the samples, sorted."""
        return sorted(self._entries)

    @property
    def index(self) -> dict[str, dict[str, Any]]:
        """By name, what can be known of each sample without reading its file.

        ``formula``, ``n_atoms``, ``n_points``, ``energy_hartree``, ``converged``;
        ``structure_digest``, see :attr:`Structure.digest`; ``checksum``, of all that its
        file holds; ``sampling``, see :func:`fedens.data.sampling.sampling_of`, where there is
        one.
        """
        return {name: dict(self._entries[name]) for name in self.names}

    @property
    def functional(self) -> Any:
        """Description of the functional that all samples share; None if there is none."""
        return self._functional if self._entries else None

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[Sample]:
        return (self[name] for name in self.names)

    def __repr__(self) -> str:
        return f"Dataset({str(self.path)!r}, {len(self)} samples)"

    def __getitem__(self, key: int | str) -> Sample:
        """Read a sample by its name, or by its place in :attr:`names`.

        Raises:
            DatasetError: no sample of that name, or a file that cannot be trusted.
            IndexError: a place beyond the end.
        """
        name = key if isinstance(key, str) else self.names[key]
        if name not in self._entries:
            some = ", ".join(self.names[:8] + ["..."] * (len(self) > 8)) or "none"
            raise DatasetError(f"data set {self.path} has no sample {name!r}; it has {some}")
        sample = read_sample(self._file(name))
        self._check_functional(name, sample)
        self._check_sampling(name, sample)
        return sample

    def _file(self, name: str) -> Path:
        return self.path / f"{name}.h5"

    def add(self, sample: Sample, name: str | None = None, allow_unconverged: bool = False) -> str:
        """Store a sample and return its name; either the whole sample is there or nothing.

        Args:
            sample: what to store; ``sample.provenance`` must be JSON, and its entry
                ``functional`` equal to that of the samples already here.
            name: letters, digits, ``.``, ``_`` and ``-``; default the formula and a number.
            allow_unconverged: store an unconverged sample too, marked as such.

        Raises:
            DatasetError: name taken or unusable, sample not converged, another functional or
                sampling, a field without a known unit.
            OutputError: the file cannot be written.
        """
        name = self._free_name(sample) if name is None else name
        if not _NAME.fullmatch(name):
            raise DatasetError(
                f"{name!r} cannot name a sample: expected letters, digits, '.', '_' and '-', "
                "beginning with a letter or digit"
            )
        if self._file(name).exists():
            raise DatasetError(
                f"data set {self.path} already has a sample {name!r}: choose another name, or "
                "delete its file first"
            )
        if not (sample.converged or allow_unconverged):
            raise DatasetError(
                f"sample {name!r} is not converged: tighten or prolong the calculation, or store "
                "it marked as unconverged with allow_unconverged=True"
            )
        self._check_functional(name, sample)
        self._check_sampling(name, sample)
        write_sample(sample, self._file(name))
        self._register(name, sample)
        self._write_index()
        return name

    def _free_name(self, sample: Sample) -> str:
        number = len(self)
        while self._file(f"{sample.structure.formula}-{number:04d}").exists():
            number += 1
        return f"{sample.structure.formula}-{number:04d}"

    def split(
        self, train: int, seed: int = 0, names: Sequence[str] | None = None
    ) -> tuple[list[str], list[str]]:
        """Names of ``train`` samples drawn at random, and of the rest.

        The same names, ``train`` and ``seed`` give the same split; with the same seed, a smaller
        training set is the beginning of a larger one.

        Args:
            names: the samples to split; default all of them.

        Raises:
            DatasetError: ``train`` is not between 1 and the number of samples.
        """
        names = self.names if names is None else sorted(names)
        if not 1 <= train <= len(names):
            raise DatasetError(
                f"cannot train on {train} samples: the data set {self.path} has {len(names)}; "
                f"expected 1 to {len(names)}"
            )
        order = np.random.default_rng(seed).permutation(len(names))
        drawn = [names[i] for i in order]
        return drawn[:train], drawn[train:]


def _read_index(path: Path) -> tuple[dict[str, dict[str, Any]], Any]:
    """Entries and functional of an index; nothing if it is missing or broken."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        check_schema(path, content)
        entries = {name: dict(entry) for name, entry in content["samples"].items()}
        return entries, content["functional"]
    except DatasetError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}, None


def _differences(expected: Any, given: Any, place: str = "functional") -> list[str]:
    """Where two JSON-able descriptions differ, in words."""
    if isinstance(expected, Mapping) and isinstance(given, Mapping):
        keys = sorted(expected.keys() | given.keys())
        if "sha256" in keys:  # the contents of a file count, not where it lies
            keys = [key for key in keys if key != "path"]
        parts = [_differences(expected.get(k), given.get(k), f"{place}.{k}") for k in keys]
        return [difference for part in parts for difference in part]
    if as_json({"": expected}) == as_json({"": given}):
        return []
    return [f"{place} is {given!r} here and {expected!r} in the data set"]
