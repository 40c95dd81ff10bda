"""Electron densities of other codes into a data set: what ``fedens import`` does."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from fedens.data.dataset import Dataset
from fedens.errors import DatasetError, SpaceError, StructureError
from fedens.fem.tensor import DEFAULT_ORDER, DEFAULT_SPACING, TensorSpace
from fedens.progress import Progress
from fedens.reference.volumetric import ELECTRON_TOLERANCE, GridDensity, read_density
from fedens.sources.structure_files import read_structures
from fedens.structure import Structure
from fedens.units import HARTREE_IN_EV

_ENDING = re.compile(r"\.(cube|cub|xsf|vasp|chgcar)$", re.IGNORECASE)
#: File names that tell nothing: their folder names the sample.
_PLAIN = ("CHGCAR", "CHG")


def import_files(
    files: Sequence[Path],
    target: Path,
    progress: Progress,
    *,
    structures: Path | None = None,
    energies: Path | None = None,
    unit: str | None = None,
    periodic: bool = False,
    tolerance: float = ELECTRON_TOLERANCE,
    spacing: float = DEFAULT_SPACING,
    order: int = DEFAULT_ORDER,
) -> Dataset:
    """Add the densities of cube, CHGCAR and xsf files to the data set in the folder ``target``.

    A sample is named after its file, without the ending; after its folder, if the file is called
    CHGCAR. Samples that are there already are left as they are.

    Args:
        structures: those of all files, in their order. energies: a text file with lines of a
            sample's name and its total energy, eV. spacing, order: of the finite elements; bohr.
        unit, periodic, tolerance: see :func:`fedens.reference.volumetric.read_density`.

    Raises:
        DatasetError: a file that is refused, which ends the import with those before it in the
            data set; names, structures or energies that do not fit the files.
        StructureError: a file of structures that cannot be used.
    """
    names = _names(files)
    known = _structures(structures, files)
    table = {} if energies is None else _energies(energies, names)
    data = Dataset.open(target, create=True)
    with progress.stage("import", len(files)) as advance:
        for file, name, structure in zip(files, names, known, strict=True):
            if name in data:
                progress.say(f"{name} is already there; delete its file to import it again")
            else:
                try:
                    density = read_density(
                        file,
                        unit=unit,
                        periodic=periodic,
                        structure=structure,
                        tolerance=tolerance,
                    )
                    space = TensorSpace.for_structure(density.structure, spacing, order)
                    data.add(density.to_sample(space, table.get(name)), name)
                except (StructureError, SpaceError) as error:
                    raise DatasetError(f"{file}: {error}") from error
                progress.say(_described(name, density, space))
            advance(1)
    progress.say(f"{len(data)} samples in {target}")
    return data


def _described(name: str, density: GridDensity, space: TensorSpace) -> str:
    line = (
        f"{name}: {density.structure.formula}, {density.number_of_electrons:.6f} electrons, from "
        f"{' x '.join(map(str, density.values.shape))} grid points to {space.n_points}, error "
        f"about {100 * density.interpolation_error:.2g} %"
    )
    return "; ".join([line, *density.notes])


def _names(files: Sequence[Path]) -> list[str]:
    """One sample's name per file; two that are the same raise."""
    names = [_name(file) for file in files]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DatasetError(
            f"several files would be called {', '.join(twice)} in the data set: a sample is named "
            "after its file, or after its folder if that is CHGCAR; rename files or folders"
        )
    return names


def _name(file: Path) -> str:
    plain = file.name.upper() in _PLAIN
    name = file.resolve().parent.name if plain else _ENDING.sub("", file.name)
    return re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip("._-") or "sample"


def _structures(path: Path | None, files: Sequence[Path]) -> Sequence[Structure | None]:
    if path is None:
        return [None] * len(files)
    structures = read_structures(path)
    if len(structures) != len(files):
        raise DatasetError(
            f"{path} holds {len(structures)} structures for {len(files)} files; expected one for "
            "each, in the same order"
        )
    return structures


def _energies(path: Path, names: Sequence[str]) -> dict[str, float]:
    """Total energies in hartree by sample, from lines of a name and an energy in eV."""
    try:
        lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
        table = {name: float(energy) / HARTREE_IN_EV for name, energy in filter(None, lines)}
    except (OSError, ValueError) as error:
        raise DatasetError(
            f"{path} cannot be read: {error}; expected lines of a sample's name and an energy in eV"
        ) from error
    missing = [name for name in names if not math.isfinite(table.get(name, math.nan))]
    if missing:
        raise DatasetError(
            f"{path} has no finite energy for {', '.join(missing)}; it has {', '.join(table)}"
        )
    return table
