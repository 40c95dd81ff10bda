"""What the command line does with files that are there: describe and export them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from fedens.dataset import Dataset, read_sample
from fedens.errors import FedensError, OutputError
from fedens.models.predictor import Predictor
from fedens.output.cube import write_cube
from fedens.output.vtk import write_vtu
from fedens.units import HARTREE_IN_EV


def export_sample(source: Path, target: Path) -> list[Path]:
    """A sample's fields as ``.vtu``, or its density as ``.cube``; returns the files written.

    Raises:
        DatasetError: not a sample. OutputError: another ending.
    """
    sample = read_sample(source)
    space = sample.space()
    fields = {name: torch.tensor(values) for name, values in sample.fields.items()}
    if target.suffix == ".vtu":
        forces = {} if sample.forces is None else {"forces": sample.forces}
        return write_vtu(target, space, fields, sample.structure, atom_fields=forces)
    if target.suffix == ".cube":
        return [write_cube(target, sample.structure, space, fields["density"])]
    raise OutputError(f"{target}: expected a name that ends in .vtu or .cube")


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
        "energy": f"{sample.energy:.8f} hartree = {sample.energy * HARTREE_IN_EV:.6f} eV",
        "converged": sample.converged,
        "code": sample.provenance.get("code"),
    }
