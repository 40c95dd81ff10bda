"""One sample as an HDF5 file.

A file is written under a temporary name and renamed when it is complete, so that a killed writer
leaves no half-written sample. Every array carries its unit; a checksum over arrays, units,
provenance and convergence flag is verified on reading. Nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from fedens.data.bands import Bands
from fedens.data.sample import Sample
from fedens.errors import DatasetError, FedensError
from fedens.fields import FIELDS, field_of
from fedens.files import write_atomically
from fedens.structure import Structure

SCHEMA_VERSION = 1
FILE_FORMAT = "fedens sample"
ATOMIC_UNITS = "hartree atomic units"

#: Units of the arrays beside fields.
_UNITS = {
    "points": "bohr",
    "weights": "bohr^3",
    "energy": "hartree",
    "ion_energy": "hartree",
    "chemical_potential": "hartree",
    "forces": "hartree/bohr",
    "stress": "hartree/bohr^3",
    "structure/numbers": "1",
    "structure/positions": "bohr",
    "structure/cell": "bohr",
    "structure/pbc": "1",
    "structure/charge": "elementary charge",
    "structure/spin": "1",
    "structure/occupancies": "1",
    "bands/kpoints": "1",
    "bands/weights": "1",
    "bands/eigenvalues": "hartree",
    "bands/occupations": "1",
    "bands/chemical_potential": "hartree",
}


def write_sample(sample: Sample, path: str | Path) -> None:
    """Write one sample as an HDF5 file, replacing ``path`` only when all of it is on disk.

    Raises:
        DatasetError: provenance that is not JSON, a field without a known unit.
        OutputError: the file cannot be written.
    """
    arrays = _arrays_of(sample)
    provenance = as_json(sample.provenance)
    attributes = {
        "format": FILE_FORMAT,
        "schema_version": SCHEMA_VERSION,
        "units": ATOMIC_UNITS,
        "fedens_version": version("fedens"),
        "provenance": provenance,
        "converged": bool(sample.converged),
        "checksum": _checksum(arrays, provenance, bool(sample.converged)),
    }

    def write(temporary: Path) -> None:
        with h5py.File(temporary, "w") as file:
            file.attrs.update(attributes)
            for name, values in arrays.items():
                file.create_dataset(name, data=values).attrs["unit"] = _unit(name)

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
            arrays = _read_arrays(path, file)
        return _verified_sample(path, attributes, arrays)
    except FedensError:
        raise
    except FileNotFoundError as error:
        raise DatasetError(f"there is no sample {path}") from error
    except (OSError, RuntimeError, KeyError, TypeError, ValueError) as error:
        raise DatasetError(
            f"{path} cannot be read as a sample: expected a complete HDF5 file written by fedens, "
            f"but {error}. It is truncated, damaged or foreign: delete it and make it again"
        ) from error


def stored_checksum(path: str | Path) -> str:
    """Checksum that stands in a sample's file, of all that it holds; nothing is verified."""
    with h5py.File(path, "r") as file:
        return str(file.attrs["checksum"])


def check_schema(path: Path, content: Mapping[str, Any]) -> None:
    """Refuse what a newer fedens has written: DatasetError."""
    schema = int(content["schema_version"])
    if schema > SCHEMA_VERSION:
        raise DatasetError(
            f"{path} has schema version {schema}, this fedens reads up to {SCHEMA_VERSION}: "
            "update fedens"
        )


def _check_header(path: Path, attributes: Mapping[str, Any]) -> None:
    if attributes.get("format") != FILE_FORMAT:
        raise DatasetError(
            f"{path} is an HDF5 file but not a sample: expected the attribute format "
            f"{FILE_FORMAT!r}, found {attributes.get('format')!r}; remove it from the data set"
        )
    check_schema(path, attributes)
    if attributes.get("units") != ATOMIC_UNITS:
        raise DatasetError(
            f"{path}: expected the attribute units {ATOMIC_UNITS!r}, found "
            f"{attributes.get('units')!r}; a file without units is not used"
        )


def _read_arrays(path: Path, file: h5py.File) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {}

    def visit(name: str, item: h5py.Dataset | h5py.Group) -> None:
        if not isinstance(item, h5py.Dataset):
            return
        unit = item.attrs.get("unit")
        if unit != _unit(name):
            raise DatasetError(
                f"{path}: array {name!r} should be in {_unit(name)}, its unit attribute says "
                f"{unit!r}; a file without the right units is not used"
            )
        arrays[name] = np.asarray(item)

    file.visititems(visit)
    return arrays


def _verified_sample(
    path: Path, attributes: Mapping[str, Any], arrays: dict[str, NDArray[Any]]
) -> Sample:
    provenance, converged = attributes["provenance"], bool(attributes["converged"])
    if _checksum(arrays, provenance, converged) != attributes["checksum"]:
        raise DatasetError(
            f"{path} does not match its checksum: its contents were changed or damaged after it "
            "was written; delete it and make it again"
        )
    bands = _bands_of(_group(arrays, "bands/"))
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
        bands=bands,
        chemical_potential=_chemical_potential(arrays, bands),
    )


def _chemical_potential(arrays: Mapping[str, NDArray[Any]], bands: Bands | None) -> float | None:
    if "chemical_potential" in arrays:
        return float(arrays["chemical_potential"])
    # samples written by fedens 0.1 have it with the bands only
    return None if bands is None else bands.chemical_potential


def _bands_of(arrays: dict[str, Any]) -> Bands | None:
    if not arrays:
        return None
    return Bands(chemical_potential=float(arrays.pop("chemical_potential")), **arrays)


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
    values |= {"chemical_potential": sample.chemical_potential}
    if sample.bands is not None:
        values |= {f"bands/{name}": numbers for name, numbers in vars(sample.bands).items()}
    return {name: np.asarray(value) for name, value in values.items() if value is not None}


def _unit(name: str) -> str:
    """Unit of an array, by its place in the file; "1" for plain numbers."""
    group, _, own_name = name.partition("/")
    field = field_of(own_name) if group == "fields" else None
    if field is not None:
        return field.unit.name
    unit = "hartree" if group == "energies" else _UNITS.get(name)
    if unit is None:
        raise DatasetError(
            f"no unit is known for the array {name!r}: the names of fields begin with one of "
            f"{', '.join(FIELDS)}; another kind of field needs an entry in fedens/fields.py"
        )
    return unit


def _checksum(arrays: Mapping[str, NDArray[Any]], provenance: str, converged: bool) -> str:
    """SHA-256 over arrays with their names, shapes, types and units, and over the history."""
    digest = hashlib.sha256(json.dumps([provenance, converged]).encode())
    for name in sorted(arrays):
        values = np.ascontiguousarray(arrays[name])
        header = [name, _unit(name), values.dtype.str, list(arrays[name].shape)]
        digest.update(json.dumps(header).encode())
        digest.update(values.tobytes())
    return digest.hexdigest()


def as_json(provenance: Mapping[str, Any]) -> str:
    """A history as text; the same for equal ones.

    Raises:
        DatasetError: something in it that JSON does not have.
    """
    try:
        return json.dumps(provenance, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise DatasetError(
            f"provenance cannot be stored as JSON ({error}): use strings, finite numbers, lists "
            "and dictionaries"
        ) from error
