"""Data sets: a folder with one HDF5 file per sample and an index that the files can rebuild.

A file is written under a temporary name and renamed when it is complete, so that a killed writer
leaves no half-written sample. Every array carries its unit; a checksum over arrays, units,
provenance and convergence flag is verified on reading. Nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from fedens.data.sample import Sample
from fedens.errors import DatasetError, FedensError, OutputError
from fedens.files import write_atomically
from fedens.structure import Structure
from fedens.units import FIELD_UNITS

SCHEMA_VERSION = 1
FILE_FORMAT = "fedens sample"
UNITS = "hartree atomic units"
INDEX = "index.json"

_DIMENSIONLESS = ("numbers", "pbc", "spin", "occupancies")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class Dataset:
    """Samples in a folder, all from the same functional. Open it with :meth:`open`.

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
                different functionals.
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
        known = {name: entry for name, entry in self._entries.items() if name in files}
        unchanged = known.keys() == self._entries.keys() == files.keys()
        self._entries = known
        for name in sorted(files.keys() - known.keys()):
            self._register(name, read_sample(files[name]))
        if not unchanged:
            self._write_index()

    def _register(self, name: str, sample: Sample) -> None:
        self._check_functional(name, sample)
        self._functional = sample.provenance.get("functional")
        self._entries[name] = {
            "formula": sample.structure.formula,
            "n_atoms": len(sample.structure),
            "n_points": len(sample.weights),
            "energy_hartree": sample.energy,
            "converged": sample.converged,
        }

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
        """By name: formula, n_atoms, n_points, energy_hartree, converged; no file is read."""
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
            raise DatasetError(
                f"data set {self.path} has no sample {name!r}; it has {self._list()}"
            )
        sample = read_sample(self._file(name))
        self._check_functional(name, sample)
        return sample

    def identity(self, name: str) -> tuple[Structure, str]:
        """Structure of a sample, and the checksum of all that its file holds; reads no fields.

        Raises:
            DatasetError: no sample of that name, or a file that cannot be read.
        """
        try:
            with h5py.File(self._file(name), "r") as file:
                arrays: dict[str, Any] = {k: np.asarray(v) for k, v in file["structure"].items()}
                return Structure(**arrays), str(file.attrs["checksum"])
        except (OSError, KeyError):
            return self[name].structure, ""  # raises, and says what is wrong

    def _list(self) -> str:
        names = self.names
        return ", ".join(names[:8] + ["..."] * (len(names) > 8)) or "none"

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
            DatasetError: name taken or unusable, sample not converged, another functional, a
                field without a known unit.
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


def write_sample(sample: Sample, path: str | Path) -> None:
    """Write one sample as an HDF5 file, replacing ``path`` only when all of it is on disk.

    Raises:
        DatasetError: provenance that is not JSON, a field without a known unit.
        OutputError: the file cannot be written.
    """
    arrays = _arrays_of(sample)
    units = {name: _unit(name) for name in arrays}
    provenance = _as_json(sample.provenance)
    attributes = {
        "format": FILE_FORMAT,
        "schema_version": SCHEMA_VERSION,
        "units": UNITS,
        "fedens_version": version("fedens"),
        "provenance": provenance,
        "converged": bool(sample.converged),
        "checksum": _checksum(arrays, units, provenance, bool(sample.converged)),
    }

    def write(temporary: Path) -> None:
        with h5py.File(temporary, "w") as file:
            file.attrs.update(attributes)
            for name, values in arrays.items():
                file.create_dataset(name, data=values).attrs["unit"] = units[name]

    write_atomically(Path(path), write)


def read_sample(path: str | Path) -> Sample:
    """Read one sample and verify it.

    Raises:
        DatasetError: no such file, truncated, not a sample of fedens, of a newer schema, an array
            without its unit, or contents that do not match the checksum.
    """
    path = Path(path)
    try:
        with h5py.File(path, "r") as file:
            _check_header(path, file.attrs)
            attributes = dict(file.attrs)
            arrays, units = _read_arrays(path, file)
        return _verified_sample(path, attributes, arrays, units)
    except FedensError:
        raise
    except FileNotFoundError as error:
        raise DatasetError(f"there is no sample {path}") from error
    except (OSError, RuntimeError, KeyError, TypeError, ValueError) as error:
        raise DatasetError(
            f"{path} cannot be read as a sample: expected a complete HDF5 file written by fedens, "
            f"but {error}. It is truncated, damaged or foreign: delete it and make it again"
        ) from error


def _check_header(path: Path, attributes: Mapping[str, Any]) -> None:
    if attributes.get("format") != FILE_FORMAT:
        raise DatasetError(
            f"{path} is an HDF5 file but not a sample: expected the attribute format "
            f"{FILE_FORMAT!r}, found {attributes.get('format')!r}; remove it from the data set"
        )
    schema = int(attributes["schema_version"])
    if schema > SCHEMA_VERSION:
        raise DatasetError(
            f"{path} has schema version {schema}, this fedens reads up to {SCHEMA_VERSION}: "
            "update fedens"
        )
    if attributes.get("units") != UNITS:
        raise DatasetError(
            f"{path}: expected the attribute units {UNITS!r}, found {attributes.get('units')!r}; "
            "a file without units is not used"
        )


def _read_arrays(path: Path, file: h5py.File) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    arrays: dict[str, NDArray[Any]] = {}
    units: dict[str, str] = {}

    def visit(name: str, item: h5py.Dataset | h5py.Group) -> None:
        if not isinstance(item, h5py.Dataset):
            return
        units[name] = item.attrs.get("unit")
        if units[name] != _unit(name):
            raise DatasetError(
                f"{path}: array {name!r} should be in {_unit(name)}, its unit attribute says "
                f"{units[name]!r}; a file without the right units is not used"
            )
        arrays[name] = np.asarray(item)

    file.visititems(visit)
    return arrays, units


def _verified_sample(
    path: Path,
    attributes: Mapping[str, Any],
    arrays: dict[str, NDArray[Any]],
    units: dict[str, str],
) -> Sample:
    provenance, converged = attributes["provenance"], bool(attributes["converged"])
    if _checksum(arrays, units, provenance, converged) != attributes["checksum"]:
        raise DatasetError(
            f"{path} does not match its checksum: its contents were changed or damaged after it "
            "was written; delete it and make it again"
        )
    return Sample(
        structure=Structure(**_group(arrays, "structure/")),
        points=arrays["points"],
        weights=arrays["weights"],
        fields=_group(arrays, "fields/"),
        energy=float(arrays["energy"]) if "energy" in arrays else None,
        energies={name: float(value) for name, value in _group(arrays, "energies/").items()},
        ion_energy=float(arrays["ion_energy"]),
        forces=arrays.get("forces"),
        stress=arrays.get("stress"),
        converged=converged,
        provenance=json.loads(provenance),
    )


def _group(arrays: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, Any]:
    return {
        name.removeprefix(prefix): values
        for name, values in arrays.items()
        if name.startswith(prefix)
    }


def _arrays_of(sample: Sample) -> dict[str, NDArray[Any]]:
    """All numbers of a sample, by their place in the file."""
    structure = sample.structure
    values: dict[str, Any] = {
        f"structure/{name}": getattr(structure, name) for name in structure.__dataclass_fields__
    }
    values |= {"points": sample.points, "weights": sample.weights}
    values |= {f"fields/{name}": field for name, field in sample.fields.items()}
    values |= {"energy": sample.energy, "ion_energy": sample.ion_energy}
    values |= {f"energies/{name}": energy for name, energy in sample.energies.items()}
    values |= {"forces": sample.forces, "stress": sample.stress}
    return {name: np.asarray(value) for name, value in values.items() if value is not None}


def _unit(name: str) -> str:
    """Unit of an array, by its place in the file; "1" for plain numbers."""
    group, _, field = name.rpartition("/")
    if group == "energies" or field == "ion_energy":
        return FIELD_UNITS["energy"]
    if field in _DIMENSIONLESS:
        return "1"
    if field not in FIELD_UNITS:
        raise DatasetError(
            f"no unit is known for the array {name!r}: expected one of {', '.join(FIELD_UNITS)}; "
            "a new field needs an entry in fedens.units.FIELD_UNITS"
        )
    return FIELD_UNITS[field]


def _checksum(
    arrays: Mapping[str, NDArray[Any]], units: Mapping[str, str], provenance: str, converged: bool
) -> str:
    """SHA-256 over arrays with their names, shapes, types and units, and over the history."""
    digest = hashlib.sha256(json.dumps([provenance, converged]).encode())
    for name in sorted(arrays):
        values = np.ascontiguousarray(arrays[name])
        header = [name, units[name], values.dtype.str, list(arrays[name].shape)]
        digest.update(json.dumps(header).encode())
        digest.update(values.tobytes())
    return digest.hexdigest()


def _as_json(provenance: Mapping[str, Any]) -> str:
    try:
        return json.dumps(provenance, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise DatasetError(
            f"provenance cannot be stored as JSON ({error}): use strings, finite numbers, lists "
            "and dictionaries"
        ) from error


def _read_index(path: Path) -> tuple[dict[str, dict[str, Any]], Any]:
    """Entries and functional of an index; nothing if it is missing or broken."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        schema, functional = int(content["schema_version"]), content["functional"]
        entries = {name: dict(entry) for name, entry in content["samples"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}, None
    if schema > SCHEMA_VERSION:
        raise DatasetError(
            f"{path} has schema version {schema}, this fedens reads up to {SCHEMA_VERSION}: "
            "update fedens"
        )
    return entries, functional


def _differences(expected: Any, given: Any, place: str = "functional") -> list[str]:
    """Where two JSON-able descriptions differ, in words."""
    if isinstance(expected, Mapping) and isinstance(given, Mapping):
        keys = sorted(expected.keys() | given.keys())
        if "sha256" in keys:  # the contents of a file count, not where it lies
            keys = [key for key in keys if key != "path"]
        parts = [_differences(expected.get(k), given.get(k), f"{place}.{k}") for k in keys]
        return [difference for part in parts for difference in part]
    if _as_json({"": expected}) == _as_json({"": given}):
        return []
    return [f"{place} is {given!r} here and {expected!r} in the data set"]
