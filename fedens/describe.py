"""What the command line does with files that are there: describe and export them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from fedens.dataset import Dataset, read_sample
from fedens.errors import FedensError, OutputError
from fedens.fem.tensor import TensorSpace
from fedens.models.predictor import Predictor
from fedens.output.chgcar import write_chgcar
from fedens.output.cube import write_cube
from fedens.output.files import is_density
from fedens.output.uniform_grid import uniform_grid
from fedens.output.vtk import write_vtu
from fedens.sample import Sample
from fedens.units import HARTREE_IN_EV

Say = Callable[[str], None]

#: Relative difference of electrons on a grid and in a sample that is worth a word.
GRID_TOLERANCE = 1e-3


def export_samples(
    source: Path,
    target: Path,
    kinds: Sequence[str] = ("vtu",),
    spacing: float | None = None,
    predictor: Predictor | None = None,
    say: Say = lambda _: None,
) -> list[Path]:
    """One sample, or all of a data set, as files in the folder ``target``, named after them.

    Args:
        kinds: ``vtu``, ``cube``, ``chgcar``. spacing, predictor, say: see :func:`export_sample`.

    Raises:
        DatasetError: no data set or sample. OutputError: a file that cannot be written.
    """
    endings = {"vtu": "vtu", "cube": "cube", "chgcar": "CHGCAR"}
    paths = []
    for name, sample in _samples(source):
        for kind in kinds:
            path = target / f"{name}.{endings[kind]}"
            paths += _export(sample, path, kind, spacing, predictor, say)
    return paths


def _samples(source: Path) -> Iterator[tuple[str, Sample]]:
    if source.suffix == ".h5":
        yield source.stem, read_sample(source)
        return
    data = Dataset.open(source)
    for name in data.names:
        yield name, data[name]


def export_sample(
    source: Path,
    target: Path,
    spacing: float | None = None,
    predictor: Predictor | None = None,
    say: Say = lambda _: None,
) -> list[Path]:
    """A sample's fields as ``.vtu``, or its density on a uniform grid as ``.cube`` or CHGCAR.

    Args:
        spacing: of the uniform grid, bohr; default: the finest of the sample's own space.
        predictor: writes its density too, beside the reference: another field of the VTU file,
            another file with ``_predicted`` in its name.
        say: called with a line about each file that is written.

    Returns:
        The files written.

    Raises:
        DatasetError: not a sample. OutputError: another name.
    """
    return _export(read_sample(source), target, _kind(target), spacing, predictor, say)


def _kind(target: Path) -> str:
    name = target.name.lower()
    if name.endswith((".vtu", ".cube")):
        return target.suffix[1:].lower()
    if "chgcar" in name:
        return "chgcar"
    raise OutputError(f"{target}: expected a name that ends in .vtu or .cube, or holds CHGCAR")


def _export(
    sample: Sample,
    target: Path,
    kind: str,
    spacing: float | None,
    predictor: Predictor | None,
    say: Say,
) -> list[Path]:
    structure, space = sample.structure, sample.space()
    fields = {name: torch.tensor(values) for name, values in sample.fields.items()}
    if predictor is not None:
        density = predictor.density(structure, space.to(predictor.device))
        fields["density_predicted"] = density.values.cpu()
    if kind == "vtu":
        forces = {} if sample.forces is None else {"forces": sample.forces}
        paths = write_vtu(target, space, fields, structure, atom_fields=forces)
        for path in paths:
            say(f"wrote {path}")
        return paths
    paths = []
    for name in [name for name in fields if is_density(name)]:
        path = target.with_stem(target.stem + name.removeprefix("density"))
        if kind == "cube":
            write_cube(path, structure, space, fields[name], name, spacing=spacing)
        else:
            write_chgcar(path, structure, space, fields[name], spacing=spacing)
        say(f"wrote {path}: {_electrons(space, fields[name], spacing)}")
        paths.append(path)
    return paths


def _electrons(space: TensorSpace, density: torch.Tensor, spacing: float | None) -> str:
    """How many electrons a uniform grid holds, and a word where it is too coarse."""
    expected = float(space.integrate(density))
    grid = uniform_grid(space, density, "density", spacing)
    found = float(grid.values.sum()) * grid.voxel
    text = f"{found:.6f} electrons on the grid, {expected:.6f} in the sample"
    if abs(found - expected) > GRID_TOLERANCE * expected:
        text += f", more than {100 * GRID_TOLERANCE:g} % apart: choose a smaller spacing"
    return text


def describe_path(path: Path) -> dict[str, Any]:
    """A few lines about a data set, a sample or a model.

    Raises:
        FedensError: when the path is none of them.
    """
    if (path / "model.json").is_file():
        return _describe_model(path)
    if path.suffix == ".h5":
        return _describe_sample(path)
    if path.is_dir():
        data = Dataset.open(path)
        return {
            "data set": path,
            "samples": len(data),
            "formulas": ", ".join(sorted({entry["formula"] for entry in data.index.values()})),
            "functional": data.functional,
        }
    raise FedensError(f"{path} is neither a data set, nor a sample (.h5), nor a model folder")


def _describe_model(path: Path) -> dict[str, Any]:
    predictor = Predictor.load(path)
    return {
        "model": path,
        "functional": predictor.functional.describe(),
        "differences to": predictor.baseline,
        "features": predictor.descriptor.n_features,
        "hidden units": list(predictor.hidden),
        "committee": len(predictor.networks),
        "spacing (bohr), order": f"{predictor.spacing:.4f}, {predictor.order}",
        "trained on": f"{predictor.provenance['n_samples']} structures",
    }


def _describe_sample(path: Path) -> dict[str, Any]:
    sample = read_sample(path)
    return {
        "sample": path,
        "structure": sample.structure,
        "points": len(sample.weights),
        "fields": ", ".join(sample.fields),
        "electrons": f"{sample.number_of_electrons:.6f}",
        "energy": _energy(sample),
        "converged": sample.converged,
        "code": sample.provenance.get("code"),
    }


def _energy(sample: Sample) -> str:
    if sample.energy is None:
        return "not known"
    return f"{sample.energy:.8f} hartree = {sample.energy * HARTREE_IN_EV:.6f} eV"
