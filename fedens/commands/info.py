"""What a folder or file is: what ``fedens info`` does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedens.data.dataset import INDEX, Dataset
from fedens.data.sample import Sample
from fedens.data.sample_file import read_sample
from fedens.data.sampling import describe_samplings, sampling_of
from fedens.errors import FedensError
from fedens.jobs.lock import lock_owner
from fedens.jobs.registry import load_job
from fedens.jobs.run import read_failures
from fedens.jobs.sections import Sections
from fedens.models.base import Model
from fedens.models.storage import DESCRIPTION_FILE
from fedens.units import HARTREE_IN_EV


def describe_path(path: Path) -> dict[str, Any]:
    """A few lines about a run, a data set, a sample or a model.

    Raises:
        FedensError: when the path is none of them.
    """
    if (path / "config.yaml").is_file():
        return _describe_run(path)
    if (path / DESCRIPTION_FILE).is_file():
        return _describe_model(path)
    if path.suffix == ".h5":
        return _describe_sample(path)
    if _holds_samples(path):
        return {"data set": path, **_contents(Dataset.open(path))}
    raise FedensError(
        f"{path} is neither the folder of a run, nor a data set, nor a sample (.h5), nor a model "
        "folder"
    )


def _holds_samples(path: Path) -> bool:
    return (path / INDEX).is_file() or any(path.glob("*.h5"))


def _contents(data: Dataset) -> dict[str, Any]:
    return {
        "samples": len(data),
        "formulas": ", ".join(sorted({entry["formula"] for entry in data.index.values()})),
        "functional": data.functional,
        **describe_samplings(e["sampling"] for e in data.index.values() if "sampling" in e),
    }


def _describe_run(path: Path) -> dict[str, Any]:
    """What a run's folder holds so far."""
    configuration, owner = load_job(path / "config.yaml"), lock_owner(path)
    shown: dict[str, Any] = {"run": path, "job": configuration.job, "name": configuration.name}
    if owner is not None:
        shown["at work"] = f"process {owner['process']} on {owner['host']}"
    if _holds_samples(path / "data"):
        shown |= _contents(Dataset.open(path / "data"))
    shown |= {f"left out: {name}": one["reason"] for name, one in read_failures(path).items()}
    if (path / "model" / DESCRIPTION_FILE).is_file():
        shown |= _describe_model(path / "model")
    shown["done"] = "; ".join(Sections(path).names) or "nothing yet"
    report = path / "report.html"
    shown["report"] = report if report.is_file() else "not yet: go on with fedens run"
    return shown


def _describe_model(path: Path) -> dict[str, Any]:
    return {"model": path, **Model.load(path).summary}


def _describe_sample(path: Path) -> dict[str, Any]:
    sample = read_sample(path)
    sampling = sampling_of(sample)
    return {
        "sample": path,
        "structure": sample.structure,
        "points": len(sample.weights),
        "fields": ", ".join(sample.fields),
        "electrons": f"{sample.number_of_electrons:.6f}",
        "energy": _energy(sample),
        "converged": sample.converged,
        "code": sample.provenance.get("code"),
        **describe_samplings([sampling] if sampling else []),
        **_bands(sample),
    }


def _bands(sample: Sample) -> dict[str, str]:
    bands = sample.bands
    if bands is None:
        return {}
    n_k, n_bands = bands.eigenvalues.shape
    level = bands.chemical_potential
    return {
        "bands": f"{n_bands} at {n_k} k-points",
        "chemical potential": f"{level:.6f} hartree = {level * HARTREE_IN_EV:.6f} eV",
    }


def _energy(sample: Sample) -> str:
    if sample.energy is None:
        return "not known"
    return f"{sample.energy:.8f} hartree = {sample.energy * HARTREE_IN_EV:.6f} eV"
