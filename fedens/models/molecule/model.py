"""Models of molecules: fields, energies and forces from what each atom sees.

Density n, kinetic and xc energy densities are those of superposed free atoms plus differences,
expanded in functions on the atoms (:mod:`fedens.atoms.gaussian_basis`). The total energy is that of
the free atoms, of all pairs of them undeformed, and a learned one per atom. What is left of it
beside the integrals of the kinetic and xc fields is electrostatic. Everything is in closed form, so
that a prediction needs no mesh, has no egg-box effect, and forces are exact derivatives.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Self, Unpack

import numpy as np
import torch
from torch import Tensor

from fedens.atoms.gaussian_basis import AtomicBasis
from fedens.atoms.spherical import SphericalAtom, pair_energy
from fedens.errors import ModelError
from fedens.features.descriptor import descriptor_from_description
from fedens.features.gmp import GMP
from fedens.fields import LOCAL_FIELDS
from fedens.learning.checkpoints import under
from fedens.learning.equivariant import ElementNetwork, EquivariantNetwork, Whitening
from fedens.models.base import How, Model, Uncertainty, not_finite
from fedens.models.molecule.data import atomic_moments, atoms_energy
from fedens.models.molecule.prediction import Calibration, MolecularPrediction
from fedens.structure import Structure

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
class MolecularModel(Model):
    """Made by :func:`fedens.models.molecule.training.train_molecules`; :meth:`load` reads one.

    Attributes:
        descriptor: what each atom sees. basis: functions of the fields.
        atoms: free atoms by chemical symbol, at the level of theory of the training data.
        field_networks, energy_networks: the committee.
        ranges: lowest and highest of the l = 0 moments in the training, by element,
            (2, n_series); atoms far outside cause an ExtrapolationWarning.
        charge: of the molecules of the training.
        calibration: factors from the committee's spread to errors.
        history: losses of the training, by network. provenance: level of theory, settings, data.
    """

    kind: ClassVar[str] = "molecule"

    descriptor: GMP
    basis: AtomicBasis
    atoms: Mapping[str, SphericalAtom]
    field_networks: Sequence[EquivariantNetwork]
    energy_networks: Sequence[EquivariantNetwork]
    ranges: Mapping[str, Tensor]
    charge: float = 0.0
    calibration: Calibration = field(default_factory=Calibration)
    history: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    @torch.no_grad()
    def predict(
        self, structure: Structure, space: Any = None, positions: Tensor | None = None
    ) -> MolecularPrediction:
        """Fields and energies of a molecule, in closed form, without a space.

        Raises:
            ModelError: periodic, another charge, unpaired electrons, elements not trained on, or a
                result that is not finite.
        """
        del space
        if positions is not None:
            structure = structure.replace(positions=positions.numpy())
        where = torch.tensor(structure.positions)
        moments = self._moments(structure, where)
        coefficients = self.coefficients(structure, moments)
        energies = self._energies(structure, moments, where)
        if not (torch.isfinite(coefficients).all() and torch.isfinite(energies).all()):
            raise not_finite(structure)
        return MolecularPrediction(
            structure, self.basis, self.atoms, coefficients, energies, self.calibration
        )

    def energy_of(self, structure: Structure, positions: Tensor) -> Tensor:
        moments = self._moments(structure, positions)
        return self._energies(structure, moments, positions).mean()

    def check(self, structure: Structure) -> None:
        """Raise ModelError for what the model was not made for."""
        self.basis.check(structure)
        if structure.pbc.any() or structure.spin or structure.charge != self.charge:
            raise ModelError(
                f"{structure.formula}: pbc {structure.pbc.tolist()}, spin {structure.spin}, charge "
                f"{structure.charge:g}; this model is for isolated molecules of charge "
                f"{self.charge:g} without unpaired electrons"
            )

    def _moments(self, structure: Structure, positions: Tensor) -> Tensor:
        """Of a structure that the model is for; a warning where they leave its range."""
        self.check(structure)
        moments = atomic_moments(self.descriptor, structure, positions)
        outside = []
        for atom, symbol in enumerate(structure.symbols):
            low, high = self.ranges[symbol]
            slack = _SLACK * (high - low)
            own = moments[atom, : len(low)]
            if ((own < low - slack) | (own > high + slack)).any():
                outside.append(f"{symbol} {atom}")
        complaints = [f"the surroundings of {', '.join(outside)}"] if outside else []
        certainty = "look at the committee's spread before you trust it"
        self.warn_outside(structure, complaints, certainty)
        return moments

    def coefficients(self, structure: Structure, moments: Tensor) -> Tensor:
        """Of the fields by each network, with the right charge, (n_members, 3, n_functions).

        Args:
            moments: of the atoms, (n_atoms, n_components).
        """
        charges, members = self.basis.integrals(structure), []
        for network in self.field_networks:
            outputs = network(moments, structure.symbols)
            bare = torch.cat(assembled(outputs, self.basis, structure.symbols), dim=1).double()
            members.append(with_charge(bare, charges, -self.charge))
        return torch.stack(members)

    def learned_energies(self, structure: Structure, moments: Tensor) -> Tensor:
        """By each network, without those of atoms and neutral pairs, (n_members,), hartree."""
        networks = (network(moments, structure.symbols) for network in self.energy_networks)
        return torch.stack([torch.cat([y for _, y in found]).double().sum() for found in networks])

    def _energies(self, structure: Structure, moments: Tensor, positions: Tensor) -> Tensor:
        closed = atoms_energy(structure, self.atoms) + pair_energy(structure, self.atoms, positions)
        return closed + self.learned_energies(structure, moments)

    def properties(self, route: str) -> tuple[str, ...]:
        """Beside energy and forces the dipole moment, and an uncertainty where there are several
        networks."""
        known = (*super().properties(route), "dipole", "hellmann_feynman_forces")
        return (*known, "energy_uncertainty") if len(self.energy_networks) > 1 else known

    def calculate(
        self, structure: Structure, wanted: Collection[str], **how: Unpack[How]
    ) -> dict[str, Any]:
        """As in the base; the dipole moment in elementary charge x bohr."""
        results = super().calculate(structure, wanted, **how)
        if set(wanted) & {"dipole", "hellmann_feynman_forces", "energy_uncertainty"}:
            prediction = self.predict(structure)
            results["dipole"] = prediction.dipole
            if "hellmann_feynman_forces" in wanted:
                results["hellmann_feynman_forces"] = prediction.hellmann_feynman_forces
            results |= Uncertainty(prediction.energy_uncertainty).by_name
        return results

    def tensors(self) -> dict[str, Tensor]:
        tensors = {f"basis.{name}": value for name, value in self.basis.tensors().items()}
        for symbol, atom in self.atoms.items():
            table = np.stack([getattr(atom, name) for name in _TABLE])
            tensors[f"atoms.{symbol}"] = torch.tensor(table)
            tensors[f"ranges.{symbol}"] = self.ranges[symbol]
        for kind, networks in self._networks.items():
            for i, network in enumerate(networks):
                state = network.state_dict()
                tensors |= {f"{kind}.{i}.{name}": value for name, value in state.items()}
        return tensors

    def describe(self) -> dict[str, Any]:
        return {
            "descriptor": self.descriptor.describe(),
            "exponents_per_bohr2": self.basis.describe(),
            "nuclear_charges": {s: atom.charge for s, atom in self.atoms.items()},
            "networks": {k: [_shape(n) for n in nets] for k, nets in self._networks.items()},
            "charge": self.charge,
            "calibration": asdict(self.calibration),
            "history": self.history,
            "provenance": self.provenance,
        }

    @property
    def _networks(self) -> dict[str, Sequence[EquivariantNetwork]]:
        return {"fields": self.field_networks, "energy": self.energy_networks}

    @classmethod
    def restore(cls, tensors: dict[str, Tensor], description: Mapping[str, Any]) -> Self:
        networks = {
            kind: [_restored(one, under(tensors, f"{kind}.{i}.")) for i, one in enumerate(shapes)]
            for kind, shapes in description["networks"].items()
        }
        descriptor = descriptor_from_description(description["descriptor"])
        assert isinstance(descriptor, GMP)
        charges = description["nuclear_charges"]
        return cls(
            descriptor,
            AtomicBasis.restore(description["exponents_per_bohr2"], under(tensors, "basis.")),
            {s: SphericalAtom(z, *tensors[f"atoms.{s}"].numpy()) for s, z in charges.items()},
            networks["fields"],
            networks["energy"],
            {s: tensors[f"ranges.{s}"] for s in charges},
            description["charge"],
            Calibration(**description["calibration"]),
            description["history"],
            description["provenance"],
        )

    @property
    def summary(self) -> dict[str, Any]:
        samples, formulas = self.provenance["n_samples"], self.provenance["formulas"]
        return {
            "of molecules of": ", ".join(self.basis.exponents),
            "functional": self.provenance["functional"],
            "committee": len(self.field_networks),
            "trained on": f"{samples} samples of {', '.join(formulas)}",
        }


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
    networks = {}
    for symbol, one in shape.items():
        whitening = Whitening([tuple(size) for size in one["whitening"]])
        rest = (one["channels"], one["outputs"], one["hidden"])
        networks[symbol] = ElementNetwork(whitening, *rest)
    network = EquivariantNetwork(networks)
    network.load_state_dict(state)
    return network
