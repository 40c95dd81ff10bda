"""The structures of a run: random thermal cells of a crystal, or any file that ASE reads."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase import Atoms

from fedens.configuration import StructureFileOptions, ThermalCellsOptions
from fedens.errors import ConfigurationError, StructureError
from fedens.files import write_atomically
from fedens.structure import Structure
from fedens.units import BOHR_IN_ANGSTROM

_GOLDEN_RATIO = (5**0.5 - 1) / 2


def make_structures(
    options: ThermalCellsOptions | StructureFileOptions, seed: int = 0
) -> list[Structure]:
    """The structures that the ``structures`` section of a configuration asks for.

    Args:
        options: the section. seed: of the random cells; files do not need it.

    Raises:
        StructureError: a file that cannot be read, or a structure that cannot be used.
    """
    if isinstance(options, StructureFileOptions):
        return read_structures(options.file, options.index)
    return [thermal_cell(options, index, seed) for index in range(options.count)]


def further_structures(
    options: ThermalCellsOptions | StructureFileOptions, count: int, seed: int = 0
) -> dict[int, Structure]:
    """Structures beyond those of :func:`make_structures`: their place in series or file -> each.

    Random cells go on where the series ends; of a file, they are those its ``index`` leaves over.

    Raises:
        ConfigurationError: a file with fewer than ``count`` left over.
    """
    if isinstance(options, ThermalCellsOptions):
        places = range(options.count, options.count + count)
        return {place: thermal_cell(options, place, seed) for place in places}
    every = read_structures(options.file, ":")
    used = set(_selected(options, len(every)))
    spare = {place: every[place] for place in range(len(every)) if place not in used}
    if len(spare) < count:
        raise ConfigurationError(
            f"{options.file} has {len(spare)} structures besides those at structures.index "
            f"{options.index!r}, but rounds.count x rounds.candidates is {count}: narrow the "
            "index, or ask for fewer rounds or candidates"
        )
    return {place: spare[place] for place in list(spare)[:count]}


def _selected(options: StructureFileOptions, length: int) -> range:
    """Places that the index of a file's options selects."""
    from ase.io.formats import string2index

    index = string2index(options.index)
    if isinstance(index, int):
        index = slice(index, index + 1 or None)
    if not isinstance(index, slice):
        raise ConfigurationError(
            f"structures.index is {options.index!r}: rounds need a number or a slice, to tell "
            f"which structures of {options.file} are left over"
        )
    return range(length)[index]


def thermal_cell(options: ThermalCellsOptions, index: int, seed: int = 0) -> Structure:
    """One fcc supercell with strained axes, Gaussian displacements and perhaps a vacancy.

    Depends on nothing but ``options``, ``index`` and ``seed``, and not on ``options.count``: a
    longer series begins with the same structures. Each axis changes its length by at most
    ``options.strain``, independently; angles stay right.

    Args:
        index: number of the structure in the series, from 0.

    Raises:
        StructureError: displacements so large that atoms overlap.
    """
    from ase.build import bulk

    lattice_constant = options.lattice_constant * BOHR_IN_ANGSTROM
    crystal = bulk(options.element, "fcc", a=lattice_constant, cubic=True) * options.supercell
    sites = Structure.from_ase(crystal)
    assert sites.cell is not None
    random = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(index,)))
    stretch = 1 + random.uniform(-options.strain, options.strain, 3)
    shifts = displacement_amplitude(options, index) * random.standard_normal((len(sites), 3))
    missing = [random.integers(len(sites))] if has_vacancy(options, index) else []
    return Structure(
        np.delete(sites.numbers, missing),
        np.delete(sites.positions * stretch + shifts, missing, axis=0),
        cell=sites.cell * stretch,
        pbc=True,
    )


def displacement_amplitude(options: ThermalCellsOptions, index: int) -> float:
    """Standard deviation of each coordinate of structure ``index``, bohr.

    Multiples of the golden ratio cover ``options.displacement`` evenly in every stretch of the
    series, with and without vacancies, however long the series is.
    """
    low, high = options.displacement
    return low + (high - low) * ((0.5 + index * _GOLDEN_RATIO) % 1)


def has_vacancy(options: ThermalCellsOptions, index: int) -> bool:
    """Whether structure ``index`` misses an atom; with a fraction of 0.5, every second one."""
    share, rounding = options.vacancy_fraction, 1e-9
    return int((index + 1) * share + rounding) > int(index * share + rounding)


def read_structures(path: str | Path, index: int | str = ":") -> list[Structure]:
    """Structures from a file in any format that ASE reads, periodic or isolated.

    Args:
        path: the file, in angstrom as ASE has it. index: which of its structures, as in ASE:
            a number or a slice such as ``"::10"``.

    Raises:
        StructureError: no such file, a format ASE does not know, an index that selects nothing,
            or a structure that cannot be used (which one is said).
    """
    from ase.io import read

    path = Path(path)
    if not path.is_file():
        raise StructureError(f"there is no structure file {path}: check the path")
    try:
        images = read(path, index)
    except Exception as error:  # ASE's readers raise anything
        raise StructureError(f"ASE cannot read {path} at index {index}: {error!r}") from error
    images = images if isinstance(images, list) else [images]
    if not images:
        raise StructureError(f"{path} has no structures at index {index}")
    structures = []
    for number, atoms in enumerate(images):
        try:
            structures.append(Structure.from_ase(atoms))
        except StructureError as error:
            raise StructureError(f"{path}, structure {number} of {index}: {error}") from error
    return structures


def write_xyz(path: str | Path, images: Sequence[Atoms]) -> None:
    """Write ASE's atoms, and what their calculators hold, as one extended XYZ file.

    Raises:
        OutputError: the file cannot be written.
    """
    from ase.io import write

    text = io.StringIO()
    write(text, list(images), format="extxyz")
    write_atomically(path, text.getvalue())
