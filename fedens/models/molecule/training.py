"""Training of models of molecules: first the fields, then the total energy and its derivative.

Two networks share nothing but what they see, so that neither is fitted at the other's cost. In
the sum of learned kinetic, xc and electrostatic energies the errors of the fields, which are of
first order in them, do not cancel: learned by itself, the total energy is several times better.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fedens.atoms.gaussian_basis import AtomicBasis
from fedens.atoms.spherical import SphericalAtom
from fedens.data.sample import Sample
from fedens.errors import ModelError
from fedens.features.gmp import GMP
from fedens.fields import LOCAL_FIELDS
from fedens.files import write_atomically
from fedens.learning.equivariant import (
    ElementNetwork,
    EquivariantNetwork,
    Whitening,
    split_orders,
)
from fedens.models.molecule.data import MAX_BYTES, SeenMolecule, see_molecule, whitened_basis
from fedens.models.molecule.model import MolecularModel, assembled, with_charge
from fedens.progress import Advance, Report, silent

#: Widths (bohr) and orders of what atoms see, of Gaussians of this amplitude and exponent.
WIDTHS, MAX_ORDER, PROBED = (0.5, 0.8, 1.2, 1.8, 2.7, 4.0), 3, (1.0, 2.0)
#: Variances below these shares of the largest are damped, for fields and energies.
_FIELD_FLOOR, _ENERGY_FLOOR = 1e-3, 1e-4
#: Units of the fields' outputs come from fits of the samples, stiffened by this.
_STIFFNESS = 3e-3
#: Smallest unit of an output against the largest of its field and l.
_SMALLEST_UNIT = 0.03
#: Size of an atom's learned energy and aims of energies and forces, hartree (per bohr).
_ENERGY_UNIT, _ENERGY_AIM, _FORCE_AIM = 0.02, 2e-3, 2e-3
_WARM_UP_STEPS, _LAST_RATE, _RECORD_EVERY = 50, 0.003, 50
#: Gradients are cut to this length.
_FIELD_CLIP, _ENERGY_CLIP = 0.01, 100.0


@dataclass(frozen=True)
class MolecularTrainingSettings:
    """How to train.

    Attributes:
        committee: networks of each kind, whose spread is the uncertainty.
        channels: products on the sphere of each kind. hidden: units of the perceptrons.
        steps, energy_steps: optimiser steps of each network. batch: molecules per step.
        learning_rate: highest rate of AdamW; it falls along a cosine.
        weight_decay, energy_weight_decay: of AdamW.
        dipole_weight: of the squared error of the dipole moment (e bohr)^2 against the fields'
            relative squared error.
        energy_weight: of energies against forces, both in units of 2 mHa (per bohr).
        forces: learn forces where the samples have them.
        points: drawn from each sample to fit its fields. seed: of weights, batches and draws.
    """

    committee: int = 3
    channels: int = 32
    hidden: int = 64
    steps: int = 4000
    energy_steps: int = 4000
    batch: int = 5
    learning_rate: float = 2e-3
    weight_decay: float = 0.5
    energy_weight_decay: float = 0.1
    dipole_weight: float = 0.1
    energy_weight: float = 0.1
    forces: bool = True
    points: int = 40_000
    seed: int = 0


def train_molecules(
    samples: Sequence[Sample],
    atoms: Mapping[str, SphericalAtom],
    settings: MolecularTrainingSettings | None = None,
    *,
    checkpoints: str | Path | None = None,
    report: Report = silent,
) -> MolecularModel:
    """A model of molecules from Kohn-Sham samples on tetrahedra.

    Args:
        samples: with density, kinetic and xc fields; all of one level of theory and charge.
        atoms: free atoms at that level, by chemical symbol.
        checkpoints: folder of finished networks, which are not trained again with the same
            settings and samples.

    Raises:
        ModelError: no samples, samples that differ, or too large ones.
    """
    settings = settings or MolecularTrainingSettings()
    charge = _common_charge(samples)
    _refuse_mixed_theory(samples)
    symbols = sorted({s for sample in samples for s in sample.structure.symbols})
    descriptor = GMP(
        WIDTHS, MAX_ORDER, gaussians={s: [PROBED] for s in symbols}, channels="element"
    )
    seen, basis = _see(samples, atoms, descriptor, settings, report)
    trainer = _Trainer(seen, basis, settings, checkpoints, report)
    return MolecularModel(
        descriptor,
        basis,
        {s: atoms[s] for s in symbols},
        [trainer.fields(member) for member in range(settings.committee)],
        [trainer.energy(member) for member in range(settings.committee)],
        {s: _range(moments[0].flatten(0, 1)) for s, moments in trainer.moments.items()},
        charge,
        trainer.history,
        {
            "settings": asdict(settings),
            "functional": samples[0].provenance.get("functional"),
            "n_samples": len(samples),
            "formulas": sorted({sample.structure.formula for sample in samples}),
        },
    )


def _range(rows: Tensor) -> Tensor:
    """Lowest and highest of each column, (2, n_columns)."""
    return torch.stack([rows.amin(dim=0), rows.amax(dim=0)])


def _common_charge(samples: Sequence[Sample]) -> float:
    if not samples:
        raise ModelError("no samples to learn from: expected one or more")
    charges = sorted({sample.structure.charge for sample in samples})
    if len(charges) > 1:
        raise ModelError(
            f"samples have charges {charges}: a model is for molecules of one charge; split them"
        )
    return charges[0]


def _refuse_mixed_theory(samples: Sequence[Sample]) -> None:
    levels = [sample.provenance.get("functional") for sample in samples]
    others = [level for level in levels if level != levels[0]]
    if others:
        raise ModelError(f"samples are of {levels[0]} and of {others[0]}: learn from one theory")


def _see(
    samples: Sequence[Sample],
    atoms: Mapping[str, SphericalAtom],
    descriptor: GMP,
    settings: MolecularTrainingSettings,
    report: Report,
) -> tuple[list[SeenMolecule], AtomicBasis]:
    """All samples in the functions of a whitened basis, and that basis."""
    bare = AtomicBasis.even_tempered([s for sample in samples for s in sample.structure.symbols])
    sizes = [4 * bare.offsets(sample.structure)[-1] ** 2 for sample in samples]
    if sum(sizes) > MAX_BYTES:
        raise ModelError(
            f"fitting the fields of {len(samples)} molecules takes {sum(sizes) / 2**30:.1f} GiB, "
            f"at most {MAX_BYTES / 2**30:.0f} are used: train on fewer or smaller molecules"
        )
    seen = []
    for i, sample in enumerate(samples):
        drawn = settings.seed + i
        seen.append(see_molecule(sample, bare, atoms, descriptor, settings.points, drawn))
        report(Advance("fields of the samples", i + 1, len(samples)))
    basis, contraction = whitened_basis(bare, seen)
    return [one.contracted(contraction(one.structure)) for one in seen], basis


class _Trainer:
    """Makes and trains the networks of a committee, or finds them finished."""

    def __init__(
        self,
        seen: Sequence[SeenMolecule],
        basis: AtomicBasis,
        settings: MolecularTrainingSettings,
        checkpoints: str | Path | None,
        report: Report,
    ):
        self.seen, self.basis, self.settings, self.report = seen, basis, settings, report
        self.folder = None if checkpoints is None else Path(checkpoints) / _digest(seen, settings)
        self.history: dict[str, list[tuple[int, float]]] = {}
        self.symbols = [s for one in seen for s in one.structure.symbols]
        moments = torch.cat([one.moments for one in seen])
        self.moments = {
            s: split_orders(moments[[i for i, t in enumerate(self.symbols) if t == s]], MAX_ORDER)
            for s in sorted(set(self.symbols))
        }

    def fields(self, member: int) -> EquivariantNetwork:
        """A network of the fields' coefficients."""
        settings, count = self.settings, len(LOCAL_FIELDS)
        outputs = {s: [count * n for n in self.basis.n_radial(s)] for s in self.moments}
        network = self._network(member, outputs, _FIELD_FLOOR)
        for symbol, (mean, scales) in self._field_units().items():
            network.set_units(symbol, mean, scales)
        loss = FieldLoss(self.seen, self.basis, settings.dipole_weight)
        fit = _Fit(settings.steps, settings.weight_decay, _FIELD_CLIP)
        return self._trained(f"fields {member + 1}", network, loss, fit)

    def energy(self, member: int) -> EquivariantNetwork:
        """A network of the atoms' energies."""
        settings = self.settings
        network = self._network(member, {s: [1] for s in self.moments}, _ENERGY_FLOOR)
        for symbol, mean in self._mean_energies().items():
            unit = torch.tensor([_ENERGY_UNIT])
            network.set_units(symbol, torch.tensor([mean]), [unit])
        loss = EnergyLoss(self.seen, settings.energy_weight, settings.forces)
        fit = _Fit(settings.energy_steps, settings.energy_weight_decay, _ENERGY_CLIP)
        return self._trained(f"energy {member + 1}", network, loss, fit)

    def _network(
        self, member: int, outputs: Mapping[str, Sequence[int]], floor: float
    ) -> EquivariantNetwork:
        torch.manual_seed(self.settings.seed + member)
        return EquivariantNetwork(
            {
                symbol: ElementNetwork(
                    Whitening.fit(moments, floor),
                    self.settings.channels,
                    outputs[symbol],
                    self.settings.hidden,
                )
                for symbol, moments in self.moments.items()
            }
        )

    @cached_property
    def _fitted(self) -> list[tuple[str, list[Tensor]]]:
        """Coefficients of each atom, (3, n_radial, 2l+1) for each l."""
        result = []
        for one in self.seen:
            stiff = one.gram.double() + _STIFFNESS * torch.eye(len(one.gram))
            found = torch.linalg.solve(stiff, one.loads.T).T
            atoms: dict[int, list[Tensor]] = {}
            for atom, l, where in self.basis.shells(one.structure):
                atoms.setdefault(atom, []).append(found[:, where].unflatten(1, (-1, 2 * l + 1)))
            result += [(one.structure.symbols[atom], parts) for atom, parts in atoms.items()]
        return result

    def _field_units(self) -> dict[str, tuple[Tensor, list[Tensor]]]:
        """Mean and spread of fitted coefficients, by element."""
        result = {}
        for symbol in self.moments:
            atoms = [parts for s, parts in self._fitted if s == symbol]
            stacked = [torch.stack(parts) for parts in zip(*atoms, strict=True)]
            mean = stacked[0].mean(dim=0)
            stacked[0] = stacked[0] - mean
            spreads = [values.pow(2).mean(dim=(0, 3)).sqrt() for values in stacked]
            scales = [s + _SMALLEST_UNIT * s.amax(dim=1, keepdim=True) for s in spreads]
            result[symbol] = (mean.flatten(), [scale.flatten() for scale in scales])
        return result

    def _mean_energies(self) -> dict[str, float]:
        """Energy per atom of each element, by least squares, hartree."""
        symbols = list(self.moments)
        counts = [[one.structure.symbols.count(s) for s in symbols] for one in self.seen]
        energies = [one.energy for one in self.seen]
        found = np.linalg.lstsq(np.array(counts, dtype=float), np.array(energies), rcond=None)[0]
        return dict(zip(symbols, found.tolist(), strict=True))

    def _trained(
        self, name: str, network: EquivariantNetwork, loss: Loss, fit: _Fit
    ) -> EquivariantNetwork:
        """The network after its steps, or as a finished run left it."""
        file = (
            None if self.folder is None else self.folder / f"{name.replace(' ', '-')}.safetensors"
        )
        if file is not None and file.exists():
            try:
                network.load_state_dict(load_file(file))
            except (SafetensorError, RuntimeError) as error:
                raise ModelError(f"{file} is broken ({error}): delete it") from error
            self.history[name] = []
            return network.eval()
        self.history[name] = self._optimise(name, network, loss, fit)
        if file is not None:
            state = {key: value.contiguous() for key, value in network.state_dict().items()}
            write_atomically(file, lambda temporary: save_file(state, temporary))
        return network.eval()

    def _optimise(
        self, name: str, network: EquivariantNetwork, loss: Loss, fit: _Fit
    ) -> list[tuple[int, float]]:
        settings, history = self.settings, []
        optimiser = torch.optim.AdamW(
            network.parameters(), settings.learning_rate, weight_decay=fit.weight_decay
        )
        size = min(settings.batch, len(self.seen))
        for step in range(1, fit.steps + 1):
            for group in optimiser.param_groups:
                group["lr"] = settings.learning_rate * _rate(step, fit.steps)
            random = np.random.default_rng((settings.seed, step))
            value = loss(network, random.choice(len(self.seen), size, replace=False).tolist())
            optimiser.zero_grad()
            value.backward()
            nn.utils.clip_grad_norm_(network.parameters(), fit.clip)
            optimiser.step()
            if step % _RECORD_EVERY == 0 or step == fit.steps:
                history.append((step, float(value.detach())))
                self._report(name, step, fit.steps, history[-1][1])
        return history

    def _report(self, name: str, done: int, total: int, loss: float) -> None:
        if not math.isfinite(loss):
            raise ModelError(f"training of {name} ran away at step {done}: lower learning_rate")
        self.report(Advance(name, done, total, loss))


@dataclass(frozen=True)
class _Fit:
    """How one network is trained: steps, weight decay, longest gradient."""

    steps: int
    weight_decay: float
    clip: float


#: A network and numbers of molecules in, a scalar out.
Loss = Callable[[EquivariantNetwork, Sequence[int]], Tensor]


class FieldLoss:
    """Mean relative squared error of the fields, plus those of charge and dipole moment.

    Args:
        seen: all molecules. basis: of the coefficients.
        dipole_weight: of (e bohr)^2 against the fields' relative squared error.
    """

    def __init__(self, seen: Sequence[SeenMolecule], basis: AtomicBasis, dipole_weight: float):
        self.seen, self.basis, self.dipole_weight = seen, basis, dipole_weight
        self.sizes = torch.stack([one.squares for one in seen]).mean(dim=0)
        self.charges = [basis.integrals(one.structure) for one in seen]
        self.dipoles = [basis.dipoles(one.structure) for one in seen]

    def __call__(self, network: EquivariantNetwork, chosen: Sequence[int]) -> Tensor:
        """Loss of some molecules."""
        molecules = [self.seen[i] for i in chosen]
        symbols = [s for one in molecules for s in one.structure.symbols]
        outputs = network(torch.cat([one.moments for one in molecules]), symbols)
        atoms = iter(assembled(outputs, self.basis, symbols))
        total = torch.zeros(())
        for i, one in zip(chosen, molecules, strict=True):
            own = torch.cat([next(atoms) for _ in one.structure.symbols], dim=1)
            total = total + self._of_molecule(i, own.double())
        return total / len(chosen)

    def _of_molecule(self, i: int, coefficients: Tensor) -> Tensor:
        one = self.seen[i]
        missing = one.excess - coefficients[0] @ self.charges[i]
        coefficients = with_charge(coefficients, self.charges[i], one.excess)
        product = (coefficients.float() @ one.gram).double()
        squared = (coefficients * (product - 2 * one.loads)).sum(dim=1) + one.squares
        dipole = -(coefficients[0] @ self.dipoles[i]) - one.dipole
        wrong = (dipole**2).mean()
        return (squared / self.sizes).mean() + missing**2 + self.dipole_weight * wrong


class EnergyLoss:
    """Mean squared errors of energies and forces, in units of their aims.

    Args:
        seen: all molecules. weight: of energies against forces. forces: learn them where known.
    """

    def __init__(self, seen: Sequence[SeenMolecule], weight: float, forces: bool):
        self.seen, self.weight, self.forces = seen, weight, forces

    def __call__(self, network: EquivariantNetwork, chosen: Sequence[int]) -> Tensor:
        """Loss of some molecules."""
        molecules = [self.seen[i] for i in chosen]
        symbols = [s for one in molecules for s in one.structure.symbols]
        moments = torch.cat([one.moments for one in molecules])
        moments.requires_grad_(self.forces)
        energies = torch.zeros(len(symbols), dtype=torch.float64)
        for atoms, numbers in network(moments, symbols):
            energies = energies.index_copy(0, atoms, numbers[:, 0].double())
        counts = [len(one.structure) for one in molecules]
        wrong = torch.stack([part.sum() for part in energies.split(counts)])
        wrong = wrong - torch.tensor([one.energy for one in molecules], dtype=torch.float64)
        total = self.weight * ((wrong / _ENERGY_AIM) ** 2).mean()
        if not self.forces:
            return total
        (slopes,) = torch.autograd.grad(energies.sum(), moments, create_graph=True)
        for one, slope in zip(molecules, slopes.split(counts), strict=True):
            if one.forces is not None:
                forces = -torch.einsum("af,afx->x", slope, one.moments_by_position)
                error = ((forces - one.forces) / _FORCE_AIM) ** 2
                total = total + error.mean() / len(molecules)
        return total


def _rate(step: int, steps: int) -> float:
    """Learning rate, as a share of the highest: it warms up, then falls along a cosine."""
    fall = 0.5 * (1 + math.cos(math.pi * step / steps))
    return min(1.0, step / _WARM_UP_STEPS) * max(_LAST_RATE, fall)


def _digest(seen: Sequence[SeenMolecule], settings: MolecularTrainingSettings) -> str:
    """Short name of settings and data."""
    digest = hashlib.sha256(json.dumps(asdict(settings), sort_keys=True).encode())
    for one in seen:
        digest.update(one.structure.positions.tobytes() + one.loads.numpy().tobytes())
        forces = None if one.forces is None else one.forces.tolist()
        digest.update(repr((one.energy, forces, one.structure.symbols)).encode())
    return digest.hexdigest()[:16]
