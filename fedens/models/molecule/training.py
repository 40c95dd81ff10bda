"""Training of models of molecules: first the fields, then the total energy and its derivative.

Two networks share nothing but what they see, so that neither is fitted at the other's cost. In
the sum of learned kinetic, xc and electrostatic energies the errors of the fields, which are of
first order in them, do not cancel: learned by itself, the total energy is several times better.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from fedens.atoms.gaussian_basis import AtomicBasis
from fedens.atoms.spherical import SphericalAtom
from fedens.data.sample import Sample
from fedens.errors import ModelError
from fedens.features.gmp import GMP
from fedens.fields import LOCAL_FIELDS
from fedens.learning.equivariant import (
    ElementNetwork,
    EquivariantNetwork,
    Whitening,
    split_orders,
)
from fedens.learning.fit import Checkpoints, FitSettings, Objective, fit
from fedens.models.molecule.data import (
    MAX_BYTES,
    MoleculeData,
    held_out,
    prepare_molecule,
    whitened_basis,
)
from fedens.models.molecule.model import MolecularModel
from fedens.models.molecule.objective import EnergyObjective, FieldObjective
from fedens.models.molecule.prediction import Calibration
from fedens.progress import Advance, Report, silent

#: Widths (bohr) and orders of what atoms see, of Gaussians of this amplitude and exponent.
WIDTHS, MAX_ORDER, PROBED = (0.5, 0.8, 1.2, 1.8, 2.7, 4.0), 3, (1.0, 2.0)
#: Variances below these shares of the largest are damped, for fields and energies.
_FIELD_FLOOR, _ENERGY_FLOOR = 1e-3, 1e-4
_WARM_UP_STEPS, _LAST_RATE = 50, 0.003
#: Gradients are cut to this length.
_FIELD_CLIP, _ENERGY_CLIP = 0.01, 100.0
#: Steps between checkpoints.
_CHECKPOINT_EVERY = 500
#: With fewer molecules left out by a member, there is no telling how far the spread falls short.
_FEWEST = 2


@dataclass(frozen=True)
class MolecularTrainingSettings:
    """How to train.

    Attributes:
        committee: networks of each kind, whose spread is the uncertainty. Of several, each leaves
            out its share of the molecules, which show how far the spread falls short of errors.
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
        checkpoints: folder where trainings leave what they have done: with the same settings and
            samples, one that was cut off goes on from there, and finished networks stay.

    Raises:
        ModelError: no samples, samples that differ, or too large ones; a training that diverges.
    """
    settings = settings or MolecularTrainingSettings()
    charge = _common_charge(samples)
    symbols = sorted({s for sample in samples for s in sample.structure.symbols})
    descriptor = GMP(
        WIDTHS, MAX_ORDER, gaussians={s: [PROBED] for s in symbols}, channels="element"
    )
    molecules, basis = _prepared(samples, atoms, descriptor, settings, report)
    labels = [asdict(settings), *((one.energy, one.structure.symbols) for one in molecules)]
    tensors = [t for one in molecules for t in (one.moments, one.loads, one.forces)]
    saved = Checkpoints.for_data(checkpoints, labels, tensors)
    committee = _Committee(molecules, basis, settings, saved, report)
    model = MolecularModel(
        descriptor,
        basis,
        {s: atoms[s] for s in symbols},
        [committee.fields(member) for member in range(settings.committee)],
        [committee.energy(member) for member in range(settings.committee)],
        {s: torch.stack(a[0].flatten(0, 1).aminmax(dim=0)) for s, a in committee.moments.items()},
        charge,
        history=committee.history,
        provenance={
            "settings": asdict(settings),
            "functional": samples[0].provenance.get("functional"),
            "n_samples": len(samples),
            "formulas": sorted({sample.structure.formula for sample in samples}),
        },
    )
    return replace(model, calibration=left_out_calibration(model, molecules))


def _common_charge(samples: Sequence[Sample]) -> float:
    """The charge of all; an error where they differ, or their levels of theory."""
    if not samples:
        raise ModelError("no samples to learn from: expected one or more")
    charges = sorted({sample.structure.charge for sample in samples})
    if len(charges) > 1:
        raise ModelError(
            f"samples have charges {charges}: a model is for molecules of one charge; split them"
        )
    levels = [sample.provenance.get("functional") for sample in samples]
    others = [level for level in levels if level != levels[0]]
    if others:
        raise ModelError(f"samples are of {levels[0]} and of {others[0]}: learn from one theory")
    return charges[0]


def _prepared(
    samples: Sequence[Sample],
    atoms: Mapping[str, SphericalAtom],
    descriptor: GMP,
    settings: MolecularTrainingSettings,
    report: Report,
) -> tuple[list[MoleculeData], AtomicBasis]:
    """All samples in the functions of a whitened basis, and that basis."""
    bare = AtomicBasis.even_tempered([s for sample in samples for s in sample.structure.symbols])
    sizes = [4 * bare.offsets(sample.structure)[-1] ** 2 for sample in samples]
    if sum(sizes) > MAX_BYTES:
        raise ModelError(
            f"fitting the fields of {len(samples)} molecules takes {sum(sizes) / 2**30:.1f} GiB, "
            f"at most {MAX_BYTES / 2**30:.0f} are used: train on fewer or smaller molecules"
        )
    molecules = []
    for i, sample in enumerate(samples):
        drawn = settings.seed + i
        molecules.append(prepare_molecule(sample, bare, atoms, descriptor, settings.points, drawn))
        report(Advance("fields of the samples", i + 1, len(samples)))
    basis, contraction = whitened_basis(bare, molecules)
    return [one.contracted(contraction(one.structure)) for one in molecules], basis


@dataclass(eq=False)
class _Committee:
    """Makes and trains the networks of a committee, or goes on where a training was cut off."""

    molecules: Sequence[MoleculeData]
    basis: AtomicBasis
    settings: MolecularTrainingSettings
    checkpoints: Checkpoints | None
    report: Report
    history: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    @cached_property
    def moments(self) -> dict[str, list[Tensor]]:
        """Moments of all atoms of each element, (n_atoms, 2l+1, n_series) for each l."""
        symbols = [s for one in self.molecules for s in one.structure.symbols]
        moments = torch.cat([one.moments for one in self.molecules])
        return {
            s: split_orders(moments[[i for i, t in enumerate(symbols) if t == s]], MAX_ORDER)
            for s in sorted(set(symbols))
        }

    def fields(self, member: int) -> EquivariantNetwork:
        """A network of the fields' coefficients."""
        outputs = {s: [len(LOCAL_FIELDS) * n for n in self.basis.n_radial(s)] for s in self.moments}
        objective = FieldObjective(*self._data(member), self.basis, self.settings.dipole_weight)
        network = self._network(member, outputs, _FIELD_FLOOR)
        steps, decay = self.settings.steps, self.settings.weight_decay
        return self._trained("fields", network, objective, member, steps, decay, _FIELD_CLIP)

    def energy(self, member: int) -> EquivariantNetwork:
        """A network of the atoms' energies."""
        settings = self.settings
        objective = EnergyObjective(*self._data(member), settings.energy_weight, settings.forces)
        network = self._network(member, {s: [1] for s in self.moments}, _ENERGY_FLOOR)
        steps, decay = settings.energy_steps, settings.energy_weight_decay
        return self._trained("energy", network, objective, member, steps, decay, _ENERGY_CLIP)

    def _data(self, member: int) -> tuple[Sequence[MoleculeData], int, list[int]]:
        """Molecules, how many of them a step sees, and which are held out."""
        out = held_out(self.molecules, member, self.settings.committee)
        return self.molecules, self.settings.batch, out

    def _network(
        self, member: int, outputs: Mapping[str, Sequence[int]], floor: float
    ) -> EquivariantNetwork:
        torch.manual_seed(self.settings.seed + 1000 * member)
        channels, hidden = self.settings.channels, self.settings.hidden
        networks = {
            s: ElementNetwork(Whitening.fit(moments, floor), channels, outputs[s], hidden)
            for s, moments in self.moments.items()
        }
        return EquivariantNetwork(networks)

    def _trained(
        self,
        kind: str,
        network: EquivariantNetwork,
        objective: Objective[list[int]],
        member: int,
        steps: int,
        weight_decay: float,
        largest_gradient: float,
    ) -> EquivariantNetwork:
        settings = FitSettings(
            steps,
            self.settings.learning_rate,
            weight_decay=weight_decay,
            warm_up_steps=_WARM_UP_STEPS,
            last_rate=_LAST_RATE,
            largest_gradient=largest_gradient,
            checkpoint_every=_CHECKPOINT_EVERY,
            seed=self.settings.seed,
        )
        label = f"{kind} {member + 1}"
        history = fit(
            network,
            objective,
            settings,
            label,
            member=member,
            checkpoints=self.checkpoints,
            report=self.report,
        )
        self.history[label] = vars(history)
        return network


@torch.no_grad()
def left_out_calibration(model: MolecularModel, molecules: Sequence[MoleculeData]) -> Calibration:
    """Factors from the committee's spread to the error of a member.

    The root of the mean squared error, over that of the spread, both of molecules that a member
    was not trained on; 1 where a member left out none or a single one.
    """
    committee = len(model.field_networks)
    rows = []
    for member in range(committee):
        out = held_out(molecules, member, committee)
        if len(out) < _FEWEST:
            return Calibration()
        rows += [_squares(model, molecules[i], member) for i in out]
    errors, spreads = torch.tensor(rows).sum(dim=0)
    density, energy = (errors / spreads).sqrt().tolist()
    return Calibration(density, energy)


def _squares(
    model: MolecularModel, one: MoleculeData, member: int
) -> tuple[list[float], list[float]]:
    """Squared error of a member and squared spread, each of density and energy."""
    coefficients = model.coefficients(one.structure, one.moments)
    energies = model.learned_energies(one.structure, one.moments)
    apart = coefficients[:, 0] - coefficients[:, 0].mean(dim=0)
    spread = ((apart @ one.gram.double()) * apart).sum() / (len(apart) - 1)
    error = one.squared_errors(coefficients[member])[0]
    return (
        [float(error), float((energies[member] - one.energy) ** 2)],
        [float(spread), float(energies.var())],
    )
