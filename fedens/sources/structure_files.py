"""Structures in files: any format that ASE reads, and extended XYZ written."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ase import Atoms

from fedens.errors import StructureError
from fedens.files import write_atomically
from fedens.structure import Structure


@dataclass(frozen=True)
class StructureFile:
    """Structures of one file, periodic or isolated.

    Attributes:
        path: the file. index: which of its structures, as in ASE.
    """

    path: str | Path
    index: int | str = ":"

    def structures(self, seed: int = 0) -> list[Structure]:  # noqa: ARG002
        """Those at the index, in the file's order; errors of :func:`read_structures`."""
        return read_structures(self.path, self.index)

    def further(self, count: int, seed: int = 0) -> dict[int, Structure]:  # noqa: ARG002
        """The first that the index leaves over; it must be a number or a slice."""
        every = read_structures(self.path, ":")
        used = self._selected(len(every))
        spare = [place for place in range(len(every)) if place not in used]
        if len(spare) < count:
            raise StructureError(
                f"{self.path} has {len(spare)} structures besides those at index {self.index!r}, "
                f"but {count} further ones are needed: narrow the index, or ask for fewer"
            )
        return {place: every[place] for place in spare[:count]}

    def _selected(self, length: int) -> range:
        """Places of the file that the index selects."""
        from ase.utils import string2index

        index = string2index(str(self.index))
        if isinstance(index, int):
            index = slice(index, index + 1 or None)
        if not isinstance(index, slice):
            raise StructureError(
                f"index is {self.index!r}: expected a number or a slice, to tell which structures "
                f"of {self.path} are left over"
            )
        return range(length)[index]


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
