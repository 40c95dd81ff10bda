"""What every model must do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from fedens.errors import ModelError
from fedens.models.base import EnergyAndForces, Model
from fedens.models.registry import model_class
from fedens.models.storage import DESCRIPTION_FILE, WEIGHTS_FILE
from fedens.structure import Structure
from fedens.testing.differences import central_difference


def check_model(
    model: Model,
    structure: Structure,
    folder: Path,
    tolerance: float = 1e-6,
    step: float = 1e-2,
    seed: int = 0,
) -> None:
    """Check that an object behaves as a :class:`fedens.models.base.Model`.

    One energy by all ways to it; forces that are minus its derivative; every property it offers;
    the same numbers after it was saved and read; a :class:`ModelError` for a damaged folder.

    Args:
        model: any model of a kind that the registry knows.
        structure: one that it is for, off its minimum, at least two atoms.
        folder: an empty one, to write to.
        tolerance: of the forces, relative to the largest. step: of finite differences, bohr.
        seed: of the directions in which atoms are moved.
    """
    numbers = _check_numbers(model, structure)
    _check_forces(model, structure, numbers.forces, tolerance, step, seed)
    _check_properties(model, structure, numbers)
    _check_stored(model, structure, numbers, folder / "whole")
    _check_damage(folder / "whole", folder / "damaged")


def _check_numbers(model: Model, structure: Structure) -> EnergyAndForces:
    """One energy, however it is asked for."""
    numbers = model.energy_and_forces(structure)
    assert isinstance(numbers, EnergyAndForces)
    assert numbers.forces.shape == (len(structure), 3)
    energy = model.energy(structure)
    assert isinstance(energy, float)
    with torch.no_grad():
        ways = {
            "energy_and_forces": numbers.energy,
            "energy_of": float(model.energy_of(structure, torch.tensor(structure.positions))),
            "predict": model.predict(structure).energy,
        }
    for name, value in ways.items():
        error = abs(value - energy)
        assert error <= 1e-7 * abs(energy), f"{name} gives {value}, energy gives {energy}"
    return numbers


def _check_forces(
    model: Model,
    structure: Structure,
    forces: np.ndarray,
    tolerance: float,
    step: float,
    seed: int,
) -> None:
    """Minus the derivative of the energy, along two directions of all atoms at once."""
    random, size = np.random.default_rng(seed), float(np.abs(forces).max())
    assert size > 0, "all forces vanish: choose another structure"
    for _ in range(2):
        direction = random.normal(size=forces.shape)
        direction /= np.linalg.norm(direction)

        def energy(shift: float, direction: np.ndarray = direction) -> float:
            positions = torch.tensor(structure.positions + shift * direction)
            with torch.no_grad():
                return float(model.energy_of(structure, positions))

        slope, expected = -central_difference(energy, step), float((forces * direction).sum())
        error = abs(slope - expected)
        assert error <= tolerance * size, f"forces are off the energy's derivative by {error:.1e}"


def _check_properties(model: Model, structure: Structure, numbers: EnergyAndForces) -> None:
    """All that is offered is there and finite; energy and forces are the model's."""
    offered = model.properties("functional")
    wanted = [name for name in offered if structure.periodic or name != "stress"]
    found = model.calculate(structure, wanted)
    missing = sorted(set(wanted) - set(found))
    assert not missing, f"{', '.join(missing)} is offered but not calculated"
    for name in wanted:
        assert np.isfinite(found[name]).all(), f"{name} is not finite"
    assert abs(found["energy"] - numbers.energy) <= 1e-9 * abs(numbers.energy)
    np.testing.assert_allclose(found["forces"], numbers.forces, rtol=1e-6, atol=1e-9)


def _check_stored(
    model: Model, structure: Structure, numbers: EnergyAndForces, folder: Path
) -> None:
    """The same kind with the same numbers, from files that hold all of it."""
    assert model_class(model.kind) is type(model), f"{model.kind!r} is registered as another class"
    json.dumps(model.describe())
    model.save(folder)
    again = Model.load(folder)
    assert type(again) is type(model)
    assert again.summary.keys() == model.summary.keys()
    assert again.provenance == json.loads(json.dumps(model.provenance))
    found = again.energy_and_forces(structure)
    assert found.energy == numbers.energy, "another energy after saving and loading"
    np.testing.assert_array_equal(found.forces, numbers.forces)


def _check_damage(whole: Path, damaged: Path) -> None:
    """Every damage to a model's folder is refused with an error of our own."""
    damages: dict[str, Callable[[Path], Any]] = {
        "no weights": lambda folder: (folder / WEIGHTS_FILE).unlink(),
        "no description": lambda folder: (folder / DESCRIPTION_FILE).unlink(),
        "truncated weights": lambda folder: _truncate(folder / WEIGHTS_FILE),
        "truncated description": lambda folder: _truncate(folder / DESCRIPTION_FILE),
        "an unknown kind": lambda folder: _describe(folder, kind="bananas"),
        "a newer schema": lambda folder: _describe(folder, schema_version=10**6),
    }
    if "descriptor" in json.loads((whole / DESCRIPTION_FILE).read_text()):
        damages["another descriptor"] = partial(_describe, descriptor={"kind": "bananas"})
    for name in load_file(whole / WEIGHTS_FILE):
        damages[f"no {name}"] = partial(_without, name=name)
    for what, damage in damages.items():
        shutil.rmtree(damaged, ignore_errors=True)
        shutil.copytree(whole, damaged)
        damage(damaged)
        try:
            Model.load(damaged)
        except ModelError:
            continue
        raise AssertionError(f"a model folder with {what} is read as if nothing were wrong")


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _describe(folder: Path, **changes: Any) -> None:
    path = folder / DESCRIPTION_FILE
    description = json.loads(path.read_text())
    path.write_text(json.dumps(description | changes))


def _without(folder: Path, name: str) -> None:
    tensors = load_file(folder / WEIGHTS_FILE)
    del tensors[name]
    save_file(tensors, folder / WEIGHTS_FILE)
