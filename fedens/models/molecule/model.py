"""Models of molecules: fields, energies and forces from what each atom sees.

Density n, kinetic and xc energy densities are those of superposed free atoms plus differences,
expanded in functions on the atoms (:mod:`fedens.atoms.gaussian_basis`). The total energy is that of
the free atoms, of all pairs of them undeformed, and a learned one per atom. What is left of it
beside the integrals of the kinetic and xc fields is electrostatic. Everything is in closed form, so
that a prediction needs no mesh, has no egg-box effect, and forces are exact derivatives.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fedens.atoms.gaussian_basis import AtomicBasis
from fedens.atoms.spherical import SphericalAtom, pair_energy, superposed_fields
from fedens.errors import ExtrapolationWarning, ModelError
from fedens.features.descriptor import descriptor_from_description
from fedens.features.gmp import GMP
from fedens.fields import LOCAL_FIELDS
from fedens.learning.equivariant import (
    ElementNetwork,
    EquivariantNetwork,
    Whitening,
)
from fedens.models.molecule.data import atomic_moments, atoms_energy
from fedens.models.storage import read_model, write_model
from fedens.structure import Structure

Array = NDArray[np.float64]

KIND = "molecule"
#: Displacement of the central differences of a potential at a nucleus, bohr.
_STEP = 1e-3
#: Share of the range of a moment by which an atom may lie outside before it counts.
_SLACK = 1.0
_TABLE = ("r", *LOCAL_FIELDS)


def assembled(
    outputs: Sequence[tuple[Tensor, Tensor]], basis: AtomicBasis, symbols: Sequence[str]
) -> list[Tensor]:
    """Coefficients of each atom from the outputs of a network, a list of (3, n_functions of it)."""
    result: list[Tensor] = [torch.zeros(0)] * len(symbols)
    for atoms, numbers in outputs:
        counts = basis.n_radial(symbols[int(atoms[0])])
        widths = [len(LOCAL_FIELDS) * n * (2 * l + 1) for l, n in enumerate(counts)]
        parts = [
            part.unflatten(1, (len(LOCAL_FIELDS), -1)) for part in numbers.split(widths, dim=1)
        ]
        for atom, own in zip(atoms.tolist(), torch.cat(parts, dim=2), strict=True):
            result[atom] = own
    return result


def with_charge(coefficients: Tensor, charges: Tensor, excess: float) -> Tensor:
    """Coefficients (3, n_functions) whose first field integrates to ``excess``, changed least.

    Args:
        charges: integrals of the functions, (n_functions,).
    """
    missing = excess - coefficients[0] @ charges
    change = missing * charges / (charges @ charges)
    return torch.cat([(coefficients[0] + change)[None], coefficients[1:]])


@dataclass(frozen=True, eq=False)
class MolecularPrediction:
    """Fields and energies of one molecule; Hartree atomic units.

    Attributes:
        structure: the molecule. basis, atoms: of the model.
        coefficients: of each network of the committee, (n_members, 3, n_functions).
        energies_of_members: total energies, (n_members,).
    """

    structure: Structure
    basis: AtomicBasis
    atoms: Mapping[str, SphericalAtom]
    coefficients: Tensor
    energies_of_members: Tensor

    @property
    def energy(self) -> float:
        """Total energy."""
        return float(self.energies_of_members.mean())

    @property
    def energy_uncertainty(self) -> float | None:
        """Spread of the committee's energies; None for a single network."""
        several = len(self.energies_of_members) > 1
        return float(self.energies_of_members.std()) if several else None

    @cached_property
    def energies(self) -> dict[str, float]:
        """``kinetic``, ``xc``, ``electrostatic`` (with the nuclei's), ``total``.

        The first two are the integrals of their fields; electrostatic is the rest of the total.
        """
        of_fields = self.coefficients.mean(dim=0) @ self.basis.integrals(self.structure)
        symbols = self.structure.symbols
        result = {
            name: sum(self.atoms[s].energies[name] for s in symbols) + float(of_fields[row])
            for row, name in enumerate(LOCAL_FIELDS)
            if name != "density"
        }
        result["electrostatic"] = self.energy - sum(result.values())
        return result | {"total": self.energy}

    @property
    def dipole(self) -> Array:
        """Dipole moment about the origin, (3,), elementary charge x bohr."""
        density = self.coefficients.mean(dim=0)[0]
        return (-(density @ self.basis.dipoles(self.structure))).numpy()

    def differences(self, points: Tensor) -> dict[str, Tensor]:
        """``density``, ``kinetic``, ``xc`` minus those of superposed atoms, (n_points,) each.

        Args:
            points: (n_points, 3), bohr.
        """
        fields = self.basis.evaluate(self.structure, points, self.coefficients.mean(dim=0))
        return dict(zip(LOCAL_FIELDS, fields, strict=True))

    def fields(self, points: Tensor) -> dict[str, Tensor]:
        """``density``, ``kinetic``, ``xc`` at points (n_points, 3) in bohr, (n_points,) each."""
        superposed = superposed_fields(self.structure, points, self.atoms, names=LOCAL_FIELDS)
        return {name: superposed[name] + d for name, d in self.differences(points).items()}

    def density_uncertainty(self, points: Tensor) -> Tensor | None:
        """Spread of the committee's densities, (n_points,); None for a single network."""
        if len(self.coefficients) == 1:
            return None
        return self.basis.evaluate(self.structure, points, self.coefficients[:, 0]).std(dim=0)

    def density_at(self, points: ArrayLike) -> dict[str, Array]:
        """What :func:`fedens.reference.pyscf.harris.harris` takes: density, its gradient, and the
        potential of its difference to superposed atoms at points (n_points, 3), bohr."""
        where = torch.tensor(np.asarray(points), requires_grad=True)
        with torch.enable_grad():
            density = self.fields(where)["density"]
            (slope,) = torch.autograd.grad(density.sum(), where)
        names = ("gradient_x", "gradient_y", "gradient_z")
        result = {"density": density.detach().numpy()}
        result["difference_potential"] = self.difference_potential(where.detach()).numpy()
        return result | dict(zip(names, slope.numpy().T, strict=True))

    def difference_potential(self, points: Tensor) -> Tensor:
        """Coulomb potential of the density minus superposed atoms, (n_points,), hartree."""
        density = self.coefficients.mean(dim=0)[0]
        return self.basis.potential(self.structure, points, density)

    def electrostatic(self, points: Tensor) -> Tensor:
        """Electrostatic energy density minus that of superposed atoms, (n_points,).

        d (phi_atoms + phi_d / 2) of the predicted difference d; unlike :attr:`energies` it knows
        of no learned total energy.
        """
        superposed = superposed_fields(self.structure, points, self.atoms, names=["potential"])
        own = self.difference_potential(points)
        return self.differences(points)["density"] * (superposed["potential"] + 0.5 * own)

    @property
    def hellmann_feynman_forces(self) -> Array:
        """Force of the predicted density and the other nuclei on each nucleus, (n_atoms, 3)."""
        charges = [self.atoms[s].charge for s in self.structure.symbols]
        forces = np.zeros_like(self.structure.positions)
        for atom, axis in np.ndindex(forces.shape):
            there = torch.tensor(self.structure.positions[atom]).repeat(2, 1)
            there[:, axis] += torch.tensor([_STEP, -_STEP], dtype=torch.float64)
            ahead, behind = self._potential_of_others(atom, there)
            forces[atom, axis] = charges[atom] * float(ahead - behind) / (2 * _STEP)
        return forces

    def _potential_of_others(self, atom: int, points: Tensor) -> Tensor:
        """As an electron feels it, without one nucleus and its spherical atom, which exert no
        force on themselves."""
        total = self.difference_potential(points)
        for other, symbol in enumerate(self.structure.symbols):
            if other != atom:
                away = points - torch.tensor(self.structure.positions[other])
                total = total + self.atoms[symbol].potential(away.norm(dim=1))
        return total


@dataclass(frozen=True, eq=False)
class MolecularModel:
    """Made by :func:`fedens.models.molecule.training.train_molecules`; :meth:`load` reads one.

    Attributes:
        descriptor: what each atom sees. basis: functions of the fields.
        atoms: free atoms by chemical symbol, at the level of theory of the training data.
        field_networks, energy_networks: the committee.
        ranges: lowest and highest of the l = 0 moments seen in the training, by element,
            (2, n_series); atoms far outside cause an ExtrapolationWarning.
        charge: of the molecules of the training.
        history: losses of the training. provenance: level of theory, settings, data.
    """

    descriptor: GMP
    basis: AtomicBasis
    atoms: Mapping[str, SphericalAtom]
    field_networks: Sequence[EquivariantNetwork]
    energy_networks: Sequence[EquivariantNetwork]
    ranges: Mapping[str, Tensor]
    charge: float = 0.0
    history: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    def predict(self, structure: Structure) -> MolecularPrediction:
        """Fields and energies of a molecule.

        Raises:
            ModelError: periodic, another charge, unpaired electrons, elements not trained on, or a
                result that is not finite.
        """
        self.check(structure)
        positions = torch.tensor(structure.positions)
        components = atomic_moments(self.descriptor, structure, positions)
        self._warn_outside(structure, components)
        charges = self.basis.integrals(structure)
        with torch.no_grad():
            bare = [self._coefficients(net, components, structure) for net in self.field_networks]
            coefficients = torch.stack([with_charge(c, charges, -self.charge) for c in bare])
            energies = self._energies(structure, components, positions)
        prediction = MolecularPrediction(structure, self.basis, self.atoms, coefficients, energies)
        if not (torch.isfinite(coefficients).all() and torch.isfinite(energies).all()):
            raise ModelError(
                f"prediction for {structure.formula} is not finite: the structure is far from "
                "those of the training"
            )
        return prediction

    def energy(self, structure: Structure) -> float:
        """Total energy, hartree; errors as :meth:`predict`."""
        return self.predict(structure).energy

    def energy_and_forces(self, structure: Structure) -> tuple[float, Array]:
        """Energy, hartree, and forces (n_atoms, 3), hartree/bohr, minus its exact gradient.

        Raises:
            ModelError: as :meth:`predict`.
        """
        self.check(structure)
        positions = torch.tensor(structure.positions, requires_grad=True)
        components = atomic_moments(self.descriptor, structure, positions)
        self._warn_outside(structure, components.detach())
        energy = self._energies(structure, components, positions).mean()
        (gradient,) = torch.autograd.grad(energy, positions)
        if not (torch.isfinite(energy) and torch.isfinite(gradient).all()):
            raise ModelError(
                f"energy or forces of {structure.formula} are not finite: the structure is far "
                "from those of the training"
            )
        return float(energy.detach()), -gradient.numpy()

    def check(self, structure: Structure) -> None:
        """Raise ModelError for what the model was not made for."""
        self.basis.check(structure)
        if structure.pbc.any() or structure.spin or structure.charge != self.charge:
            raise ModelError(
                f"{structure.formula}: pbc {structure.pbc.tolist()}, spin {structure.spin}, charge "
                f"{structure.charge:g}; this model is for isolated molecules of charge "
                f"{self.charge:g} without unpaired electrons"
            )

    def _warn_outside(self, structure: Structure, components: Tensor) -> None:
        outside = []
        for atom, symbol in enumerate(structure.symbols):
            low, high = self.ranges[symbol]
            slack = _SLACK * (high - low)
            seen = components[atom, : len(low)]
            if ((seen < low - slack) | (seen > high + slack)).any():
                outside.append(f"{symbol} {atom}")
        if outside:
            warnings.warn(
                f"{structure.formula} leaves the range of the training: the surroundings of "
                f"{', '.join(outside)}; look at the committee's spread before you trust it",
                ExtrapolationWarning,
                stacklevel=3,
            )

    def _coefficients(
        self, network: EquivariantNetwork, components: Tensor, structure: Structure
    ) -> Tensor:
        outputs = network(components, structure.symbols)
        return torch.cat(assembled(outputs, self.basis, structure.symbols), dim=1).double()

    def _energies(self, structure: Structure, components: Tensor, positions: Tensor) -> Tensor:
        closed = atoms_energy(structure, self.atoms) + pair_energy(structure, self.atoms, positions)
        learned = [
            sum(numbers.double().sum() for _, numbers in net(components, structure.symbols))
            for net in self.energy_networks
        ]
        return closed + torch.stack(learned)

    def save(self, path: str | Path) -> None:
        """Write the model's folder: safetensors and JSON.

        Raises:
            OutputError: when it cannot be written.
        """
        tensors = {f"basis.{name}": value for name, value in self.basis.tensors().items()}
        for symbol, atom in self.atoms.items():
            table = np.stack([getattr(atom, name) for name in _TABLE])
            tensors[f"atoms.{symbol}"] = torch.tensor(table)
            tensors[f"ranges.{symbol}"] = self.ranges[symbol]
        for kind, networks in self._networks.items():
            for i, network in enumerate(networks):
                state = network.state_dict()
                tensors |= {f"{kind}.{i}.{name}": value for name, value in state.items()}
        write_model(
            Path(path),
            tensors,
            {
                "kind": KIND,
                "descriptor": self.descriptor.describe(),
                "exponents_per_bohr2": self.basis.describe(),
                "nuclear_charges": {s: atom.charge for s, atom in self.atoms.items()},
                "networks": {k: [_shape(n) for n in nets] for k, nets in self._networks.items()},
                "charge": self.charge,
                "history": self.history,
                "provenance": self.provenance,
            },
        )

    @property
    def _networks(self) -> dict[str, Sequence[EquivariantNetwork]]:
        return {"fields": self.field_networks, "energy": self.energy_networks}

    @classmethod
    def load(cls, path: str | Path) -> MolecularModel:
        """Read a model's folder; nothing in it is executed.

        Raises:
            ModelError: missing or broken files, or another kind of model.
        """
        tensors, description = read_model(Path(path))
        if description.get("kind") != KIND:
            raise ModelError(f"{path} holds no model of molecules: read it with Predictor.load")
        try:
            networks = {
                kind: [
                    _restored(shape, _under(tensors, f"{kind}.{i}."))
                    for i, shape in enumerate(shapes)
                ]
                for kind, shapes in description["networks"].items()
            }
            descriptor = descriptor_from_description(description["descriptor"])
            assert isinstance(descriptor, GMP)
            return cls(
                descriptor,
                AtomicBasis.restore(description["exponents_per_bohr2"], _under(tensors, "basis.")),
                {
                    symbol: SphericalAtom(charge, *tensors[f"atoms.{symbol}"].numpy())
                    for symbol, charge in description["nuclear_charges"].items()
                },
                networks["fields"],
                networks["energy"],
                {s: tensors[f"ranges.{s}"] for s in description["nuclear_charges"]},
                description["charge"],
                description["history"],
                description["provenance"],
            )
        except (KeyError, TypeError, ValueError, RuntimeError, AssertionError) as error:
            raise ModelError(f"the model in {path} is broken: {error}") from error


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _shape(network: EquivariantNetwork) -> dict[str, Any]:
    """What is needed to make a network of the same shape, by element."""
    return {
        symbol: {
            "whitening": one.whitening.sizes,
            "channels": one.channels,
            "outputs": list(one.outputs),
            "hidden": one.hidden,
        }
        for symbol, one in network.by_element().items()
    }


def _restored(shape: Mapping[str, Any], state: dict[str, Tensor]) -> EquivariantNetwork:
    network = EquivariantNetwork(
        {
            symbol: ElementNetwork(
                Whitening([tuple(size) for size in one["whitening"]]),
                one["channels"],
                one["outputs"],
                one["hidden"],
            )
            for symbol, one in shape.items()
        }
    )
    network.load_state_dict(state)
    return network.eval()
