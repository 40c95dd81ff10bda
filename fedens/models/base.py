"""What every model is: one class to predict, save and load, whatever it learns.

A new kind of model is a subclass in one file and one line in :mod:`fedens.models.registry`.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self, TypedDict, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedens.data.density import Density
from fedens.errors import DeviceError, ExtrapolationWarning, ModelError
from fedens.fem.tensor import TensorSpace
from fedens.models.registry import model_class
from fedens.models.storage import read_model, write_model
from fedens.structure import Structure

Array = NDArray[np.float64]


def not_finite(structure: Structure, what: str = "") -> ModelError:
    """The error for results that are not finite."""
    return ModelError(
        f"prediction for {structure.formula} is not finite{what}; the structure may be far "
        "outside the training's range"
    )


@dataclass(frozen=True, eq=False)
class EnergyAndForces:
    """Numbers of one structure, atomic units.

    Attributes:
        energy: hartree. forces: (n_atoms, 3), hartree/bohr: minus its exact derivative.
        stress: normal stresses (3,), hartree/bohr^3, or None where not asked for.
    """

    energy: float
    forces: Array
    stress: Array | None = None

    @property
    def by_name(self) -> dict[str, Any]:
        """The numbers under ASE's names, as :meth:`Model.calculate` gives them."""
        numbers = {"energy": self.energy, "free_energy": self.energy, "forces": self.forces}
        return numbers if self.stress is None else numbers | {"stress": self.stress}

    def checked(self, structure: Structure) -> Self:
        """Itself, if all numbers are finite.

        Raises:
            ModelError: some are not; which atoms is said.
        """
        broken = np.flatnonzero(~np.isfinite(self.forces).all(axis=1))
        if len(broken) or not np.isfinite(self.energy):
            atoms = ", ".join(f"{structure.symbols[i]} {i}" for i in broken[:5]) or "no single atom"
            raise not_finite(structure, f": energy {self.energy} hartree, forces on {atoms}")
        return self


@dataclass(frozen=True, eq=False)
class Uncertainty:
    """Estimated errors: energy, hartree, None where there is none; forces (n_atoms, 3), or None."""

    energy: float | None
    forces: Array | None = None

    @property
    def by_name(self) -> dict[str, Any]:
        """Those that there are, as :meth:`Model.calculate` gives them."""
        both = {"energy_uncertainty": self.energy, "forces_uncertainty": self.forces}
        return {name: value for name, value in both.items() if value is not None}


class How(TypedDict, total=False):
    """Options of a prediction, for the kinds that know them: see the model of crystals."""

    route: str
    space: TensorSpace | None
    refinement_steps: int


class Model(ABC):
    """A trained model; one subclass for each kind.

    Attributes:
        kind: name of the kind, as stored in the folder and in the registry.
        provenance: settings and data of the training.
    """

    kind: ClassVar[str]
    provenance: dict[str, Any]

    @abstractmethod
    def predict(
        self, structure: Structure, space: Any = None, positions: Tensor | None = None
    ) -> Any:
        """All that the model says of a structure; the kind's own prediction.

        Args:
            space: where the model needs a mesh; default its own choice.
            positions: (n_atoms, 3), bohr; replaces the structure's own, to differentiate.

        Raises:
            ModelError: a structure that the model was not made for.
        """

    @abstractmethod
    def energy_of(self, structure: Structure, positions: Tensor) -> Tensor:
        """Total energy, hartree, a scalar; differentiable in positions (n_atoms, 3), bohr."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """All but the numbers of :meth:`tensors`, as JSON can hold it."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """Weights and other arrays, by name."""

    @classmethod
    @abstractmethod
    def restore(cls, tensors: dict[str, Tensor], description: Mapping[str, Any]) -> Self:
        """The model of :meth:`tensors` and :meth:`describe`."""

    @property
    @abstractmethod
    def summary(self) -> dict[str, Any]:
        """What ``fedens info`` shows, name -> value."""

    def warn_outside(
        self, structure: Structure, complaints: Sequence[str], certainty: str = ""
    ) -> None:
        """Issue one :class:`ExtrapolationWarning` for all complaints, if there are any."""
        if complaints:
            words = "; ".join(filter(None, [*complaints, certainty]))
            message = f"{structure.formula} leaves the range of the training: {words}"
            warnings.warn(message, ExtrapolationWarning, stacklevel=3)

    @torch.no_grad()
    def energy(self, structure: Structure) -> float:
        """Total energy, hartree."""
        return float(self.energy_of(structure, torch.tensor(structure.positions)))

    def energy_and_forces(self, structure: Structure) -> EnergyAndForces:
        """Energy and forces, minus its exact derivative, by one backward pass.

        Raises:
            ModelError: a structure that the model was not made for; numbers that are not finite.
        """
        positions = torch.tensor(structure.positions, requires_grad=True)
        energy = self.energy_of(structure, positions)
        (gradient,) = torch.autograd.grad(energy, positions)
        numbers = EnergyAndForces(float(energy.detach()), -gradient.numpy())
        return numbers.checked(structure)

    def forces(self, structure: Structure) -> Array:
        """Forces (n_atoms, 3), hartree/bohr."""
        return self.energy_and_forces(structure).forces

    def properties(self, route: str) -> tuple[str, ...]:
        """Names of what :meth:`calculate` can give by a route to the energy; most kinds have one.

        Beyond ASE's names there are ``hellmann_feynman_forces``, ``energy_uncertainty`` and
        ``forces_uncertainty``.
        """
        del route
        return ("energy", "free_energy", "forces")

    def calculate(
        self, structure: Structure, wanted: Collection[str], **how: Unpack[How]
    ) -> dict[str, Any]:
        """Properties by name, atomic units: those wanted, of :meth:`properties`, and what comes
        with them."""
        del wanted, how
        return self.energy_and_forces(structure).by_name

    def density(
        self, structure: Structure, space: Any = None, refinement_steps: int = 0
    ) -> Density:
        """Density on a mesh, for kinds that work on one.

        Raises:
            ModelError: a kind that does not.
        """
        del structure, space, refinement_steps
        raise ModelError(
            f"a model of the kind {self.kind!r} has no mesh: its fields are in "
            "model.predict(structure)"
        )

    @property
    def resolution(self) -> tuple[float, int] | None:
        """Spacing, bohr, and order of the meshes it works on by default; None: it needs none."""
        return None

    @property
    def device(self) -> torch.device:
        """Where it works."""
        return torch.device("cpu")

    def to(self, device: torch.device | str) -> Self:
        """The same model on a device; kinds that work on the CPU alone refuse others.

        Raises:
            DeviceError: a device that this kind does not use.
        """
        if torch.device(device).type != "cpu":
            raise DeviceError(f"models of the kind {self.kind!r} work on the CPU: use auto or cpu")
        return self

    def save(self, path: str | Path) -> None:
        """Write the model's folder: weights as safetensors, the rest as JSON.

        Raises:
            OutputError: it cannot be written.
        """
        write_model(Path(path), self.tensors(), {"kind": self.kind, **self.describe()})

    @classmethod
    def load(cls, path: str | Path, device: torch.device | str = "cpu") -> Model:
        """Read a model's folder, of whatever kind it is; nothing in it is executed.

        Raises:
            ModelError: missing or broken files, another schema, an unknown kind.
            DeviceError: a device that this kind does not use.
        """
        tensors, description = read_model(Path(path))
        kind = model_class(description.get("kind"))
        try:
            model = kind.restore(tensors, description)
        except (KeyError, TypeError, ValueError, RuntimeError, AssertionError) as error:
            raise ModelError(f"the model in {path} is broken: {error!r}") from error
        return model.to(device)
