"""The contract of models: every kind keeps it, and so does a toy of one file and one line."""

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from ase import Atoms
from molecules import WATER
from systems import GTHFIT, fcc

from fedens import (
    GMP,
    Calculator,
    EnergyFunctional,
    EnergyTrainingSettings,
    PointSet,
    Predictor,
    TensorSpace,
    TrainingSettings,
    solve_ground_state,
    train,
    train_energy_model,
)
from fedens.commands.info import describe_path
from fedens.errors import DeviceError, ModelError
from fedens.models.base import EnergyAndForces, Model
from fedens.models.registry import KINDS
from fedens.testing import check_model
from fedens.units import HARTREE_IN_EV

#: The handful of cells that these models are trained on leaves most others outside.
pytestmark = pytest.mark.filterwarnings("ignore::fedens.errors.ExtrapolationWarning")


@dataclass
class TiedAtoms(Model):
    """Atoms tied to their centre by springs: all that a new kind of model needs."""

    kind: ClassVar[str] = "tied"

    springs: torch.Tensor
    provenance: dict[str, Any] = field(default_factory=dict)

    def predict(self, structure, space=None, positions=None):  # noqa: ARG002
        positions = torch.tensor(structure.positions) if positions is None else positions
        return EnergyAndForces(float(self.energy_of(structure, positions)), np.zeros((0, 3)))

    def energy_of(self, structure, positions):
        away = positions - positions.mean(dim=0)
        return 0.5 * (self.springs[structure.numbers.tolist(), None] * away**2).sum()

    def describe(self):
        return {"descriptor": {"kind": "none"}, "provenance": self.provenance}

    def tensors(self):
        return {"springs": self.springs}

    @classmethod
    def restore(cls, tensors, description):
        if description["descriptor"] != {"kind": "none"}:
            raise ValueError("a descriptor")
        return cls(tensors["springs"], description["provenance"])

    @property
    def summary(self):
        return {"springs": len(self.springs)}


@pytest.fixture
def toy(monkeypatch):
    monkeypatch.setitem(KINDS, "tied", f"{__name__}:TiedAtoms")
    return TiedAtoms(torch.linspace(0.1, 0.5, 20).double(), {"n_samples": 0})


def test_a_toy_model_keeps_the_contract(toy, tmp_path):
    check_model(toy, WATER, tmp_path, tolerance=1e-9)


def test_a_toy_model_works_wherever_models_do(toy, tmp_path):
    toy.save(tmp_path)
    atoms = WATER.to_ase()
    atoms.calc = Calculator(tmp_path)
    energy = 0.5 * float(
        (
            toy.springs.numpy()[WATER.numbers, None]
            * (WATER.positions - WATER.positions.mean(0)) ** 2
        ).sum()
    )
    assert atoms.get_potential_energy() == pytest.approx(energy * HARTREE_IN_EV)
    assert atoms.get_forces().shape == (3, 3)
    assert describe_path(tmp_path) == {"model": tmp_path, "springs": 20}
    assert isinstance(Predictor.load(tmp_path), TiedAtoms)
    with pytest.raises(DeviceError, match="'tied' work on the CPU"):
        toy.to("cuda")
    with pytest.raises(ModelError, match="'tied' has no mesh"):
        atoms.calc.density(atoms)


class WrongForces(TiedAtoms):
    def energy_and_forces(self, structure):
        numbers = super().energy_and_forces(structure)
        return replace(numbers, forces=1.001 * numbers.forces)


class OtherEnergy(TiedAtoms):
    def energy(self, structure):
        return 1.001 * super().energy(structure)


class Forgetful(TiedAtoms):
    @classmethod
    def restore(cls, tensors, description):
        return cls(2 * tensors["springs"], description["provenance"])


class Careless(TiedAtoms):
    @classmethod
    def restore(cls, tensors, description):
        springs = tensors.get("springs", torch.ones(20).double())
        return cls(springs, description["provenance"])


class Boastful(TiedAtoms):
    def properties(self, route):
        return (*super().properties(route), "dipole")


WRONG = {
    WrongForces: "derivative",
    OtherEnergy: "energy gives",
    Forgetful: "another energy after saving",
    Careless: "no springs|another descriptor",
    Boastful: "dipole is offered",
}


@pytest.mark.parametrize(
    ("wrong", "words"), WRONG.items(), ids=lambda x: getattr(x, "__name__", "")
)
def test_the_contract_notices(wrong, words, toy, tmp_path, monkeypatch):
    monkeypatch.setitem(KINDS, "tied", f"{__name__}:{wrong.__name__}")
    with pytest.raises(AssertionError, match=words):
        check_model(wrong(toy.springs), WATER, tmp_path, tolerance=1e-6)


def test_a_broken_model_says_which_atoms(toy):
    broken = replace(toy, springs=torch.full_like(toy.springs, torch.nan))
    with pytest.raises(ModelError, match=r"OH2 is not finite: energy nan .*O 0, H 1, H 2"):
        broken.energy_and_forces(WATER)


FUNCTIONAL = EnergyFunctional.orbital_free("tfvw", pseudopotential=GTHFIT)


@pytest.fixture(scope="module")
def samples():
    shifted = [fcc(7.5).replace(positions=fcc(7.5).positions + s) for s in SHIFTS]
    spaces = [TensorSpace.for_structure(s, 0.7, 5) for s in shifted]
    return [
        solve_ground_state(s, space, FUNCTIONAL).to_sample()
        for s, space in zip(shifted, spaces, strict=True)
    ]


SHIFTS = np.random.default_rng(0).normal(0, 0.1, (2, 4, 3))
DESCRIPTOR = GMP([1.0, 2.0], 2, form="smooth")


def test_models_of_crystals_keep_the_contract(samples, tmp_path):
    settings = TrainingSettings(hidden=(8,), committee=2, steps=20, batch_points=500)
    model = train(samples, DESCRIPTOR, settings, device="cpu")
    # single-precision networks
    check_model(model, samples[0].structure, tmp_path, tolerance=2e-3, step=0.03)


def test_models_of_molecules_keep_the_contract(water_model, water_samples, tmp_path):
    check_model(water_model, water_samples[0].structure, tmp_path, tolerance=2e-3, step=0.02)


def test_models_of_reference_points_keep_the_contract(samples, tmp_path):
    settings = EnergyTrainingSettings(hidden=(8,), steps=10)
    model = train_energy_model(samples, DESCRIPTOR, [PointSet("atoms")], settings)
    check_model(model, samples[0].structure, tmp_path)
    atoms = Atoms(samples[0].structure.to_ase())
    atoms.calc = Calculator(tmp_path / "whole")
    expected = model.energy(samples[0].structure) * HARTREE_IN_EV
    assert atoms.get_potential_energy() == pytest.approx(expected, rel=1e-9)
    assert describe_path(tmp_path / "whole")["sums over"] == "atoms"
