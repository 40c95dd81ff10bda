"""Samples and predictions as files of other programs: what ``fedens export`` does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from fedens.atoms.spherical import SphericalAtom
from fedens.data.dataset import Dataset
from fedens.data.sample import Sample
from fedens.data.sample_file import read_sample
from fedens.errors import ModelError, OutputError
from fedens.fields import is_density
from fedens.models.base import Model
from fedens.models.molecule.model import MolecularModel
from fedens.output.all_electron_grid import DEFAULT_SPACING, sample_grid
from fedens.output.chgcar import write_chgcar_grid
from fedens.output.cube import write_cube_grid
from fedens.output.uniform_grid import UniformGrid, uniform_grid
from fedens.output.vtk import write_vtu
from fedens.reference.pyscf.free_atoms import free_atoms

Say = Callable[[str], None]

_ENDINGS = {"vtu": "vtu", "cube": "cube", "chgcar": "CHGCAR"}
_WRONG_MODEL = "{} is on a mesh of {}, the model is for {}: choose the model of its data"
#: Relative difference of electrons on a grid and in a sample that is worth a word.
GRID_TOLERANCE = 1e-3


def export(
    source: Path,
    target: Path,
    kinds: Sequence[str] = (),
    spacing: float | None = None,
    predictor: Model | None = None,
    say: Say = lambda _: None,
) -> list[Path]:
    """Fields of samples as ``.vtu``, or their densities on uniform grids as ``.cube`` or CHGCAR.

    Args:
        source: a data set, or one sample (.h5) of it.
        target: folder for files named after the samples; for one sample without ``kinds`` the
            file, whose name says its kind.
        kinds: ``vtu`` (the default), ``cube``, ``chgcar``.
        spacing: of the uniform grid, bohr; default: the finest of the sample's own space, for
            molecules on tetrahedra :data:`fedens.output.all_electron_grid.DEFAULT_SPACING`.
        predictor: writes its density too, beside the reference: another field of the VTU file,
            another file with ``_predicted`` in its name.
        say: called with a line about each file that is written.

    Returns:
        The files written.

    Raises:
        DatasetError: no data set or sample. OutputError: a file that cannot be written.
    """
    if source.suffix == ".h5" and not kinds:
        return _export(read_sample(source), {_kind(target): target}, spacing, predictor, say)
    paths = []
    for name, sample in _samples(source):
        targets = {kind: target / f"{name}.{_ENDINGS[kind]}" for kind in kinds or ["vtu"]}
        paths += _export(sample, targets, spacing, predictor, say)
    return paths


def _samples(source: Path) -> Iterator[tuple[str, Sample]]:
    if source.suffix == ".h5":
        yield source.stem, read_sample(source)
        return
    data = Dataset.open(source)
    for name in data.names:
        yield name, data[name]


def _kind(target: Path) -> str:
    name = target.name.lower()
    if name.endswith((".vtu", ".cube")):
        return target.suffix[1:].lower()
    if "chgcar" in name:
        return "chgcar"
    raise OutputError(f"{target}: expected a name that ends in .vtu or .cube, or holds CHGCAR")


def _export(
    sample: Sample,
    targets: Mapping[str, Path],
    spacing: float | None,
    predictor: Model | None,
    say: Say,
) -> list[Path]:
    """The files of a sample, by kind, each with the densities it holds."""
    paths = []
    if "vtu" in targets:
        fields, space = _fields(sample, predictor), sample.space()
        forces = {} if sample.forces is None else {"forces": sample.forces}
        paths += write_vtu(targets["vtu"], space, fields, sample.structure, atom_fields=forces)
        for path in paths:
            say(f"wrote {path}")
    grid_files = {kind: path for kind, path in targets.items() if kind != "vtu"}
    if not grid_files:
        return paths
    for name, grid, electrons in _density_grids(sample, spacing, predictor):
        for kind, target in grid_files.items():
            path = target.with_stem(target.stem + name.removeprefix("density"))
            if kind == "cube":
                write_cube_grid(path, sample.structure, grid, name)
            else:
                write_chgcar_grid(path, sample.structure, grid)
            say(f"wrote {path}: {_electrons(grid, electrons)}")
            paths.append(path)
    return paths


def _density_grids(
    sample: Sample, spacing: float | None, predictor: Model | None
) -> Iterator[tuple[str, UniformGrid, float]]:
    """Name, values on a uniform grid and number of electrons of each density."""
    if _on_cells(sample):
        spacing = DEFAULT_SPACING if spacing is None else spacing
        electrons = sample.number_of_electrons
        yield "density", sample_grid(sample, free_atoms_of(sample), spacing=spacing), electrons
        if predictor is not None:
            prediction = _of_molecules(predictor).predict(sample.structure)
            grid = sample_grid(
                sample, prediction.atoms, lambda x: prediction.differences(x)["density"], spacing
            )
            yield "density_predicted", grid, electrons
        return
    space = sample.tensor_space()
    space.check_matches(sample.structure)
    for name, values in _fields(sample, predictor).items():
        if is_density(name):
            electrons = float(space.integrate(values))
            yield name, uniform_grid(space, values, name, spacing), electrons


def free_atoms_of(sample: Sample) -> dict[str, SphericalAtom]:
    """The free atoms of a molecule, at the level of its Kohn-Sham sample.

    Raises:
        OutputError: a sample that does not name functional and basis, or not of all electrons.
    """
    level: Any = sample.provenance.get("functional")
    named = isinstance(level, Mapping) and {"xc", "basis"} <= set(level)
    if not named or level.get("pseudopotential") is not None:
        raise OutputError(
            f"sample {sample.structure.formula}: functional is {level!r}; a grid of all electrons "
            "needs xc and basis of a Kohn-Sham calculation without pseudopotential: make the "
            "sample with kohn_sham(structure, SimplexSpace.for_structure(structure))"
        )
    return free_atoms(sample.structure.symbols, level["xc"], level["basis"])


def _on_cells(sample: Sample) -> bool:
    """Whether a sample is of a molecule on tetrahedra or hexahedra."""
    return "nuclei_bohr" in sample.provenance.get("space", {})


def _fields(sample: Sample, predictor: Model | None) -> dict[str, torch.Tensor]:
    """The fields of a sample, and the density predicted for it."""
    fields = {name: torch.tensor(values) for name, values in sample.fields.items()}
    if predictor is None:
        return fields
    if _on_cells(sample):
        prediction = _of_molecules(predictor).predict(sample.structure)
        predicted = prediction.fields(torch.tensor(sample.points))
        fields |= {f"{name}_predicted": values for name, values in predicted.items()}
    else:
        if predictor.resolution is None:
            raise ModelError(_WRONG_MODEL.format(sample.structure.formula, "a box", "molecules"))
        density = predictor.density(sample.structure, sample.tensor_space(predictor.device))
        fields["density_predicted"] = density.values.cpu()
    return fields


def _of_molecules(predictor: Model) -> MolecularModel:
    if not isinstance(predictor, MolecularModel):
        raise ModelError(_WRONG_MODEL.format("the sample", "tetrahedra", "boxes"))
    return predictor


def _electrons(grid: UniformGrid, expected: float) -> str:
    """How many electrons a uniform grid holds, and a word where it is too coarse."""
    found = float(grid.values.sum()) * grid.voxel
    text = f"{found:.6f} electrons on the grid, {expected:.6f} in the sample"
    if abs(found - expected) > GRID_TOLERANCE * expected:
        text += f", more than {100 * GRID_TOLERANCE:g} % apart: choose a smaller spacing"
    return text
