"""The job ``molecules``: Kohn-Sham samples on tetrahedra, a model of them, and its errors.

A run lives in one folder::

    config.yaml     resolved configuration      results.json  errors of every molecule
    structures.xyz  all conformers              report.html   tables, parity plots
    data/           one HDF5 file per molecule  predicted.xyz energies, forces, dipoles
    model/          weights and description     fields/       VTU files and a PVD for ParaView
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby, zip_longest
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.build import molecule as g2_molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read

from fedens.analysis.evaluation import Evaluation, mean_errors
from fedens.analysis.molecules import evaluate_molecule
from fedens.atoms.spherical import SphericalAtom
from fedens.calculator import Calculator
from fedens.configuration import MoleculeOptions, MoleculesConfiguration, load_job
from fedens.data.dataset import Dataset
from fedens.data.sample import Sample
from fedens.errors import (
    ConfigurationError,
    ConvergenceError,
    DatasetError,
    DeviceError,
    ExtrapolationWarning,
    StructureError,
)
from fedens.files import write_atomically
from fedens.models.molecule.model import MolecularModel
from fedens.models.molecule.training import MolecularTrainingSettings, train_molecules
from fedens.output.vtk import write_pvd, write_vtu
from fedens.progress import Progress
from fedens.reference.pyscf.free_atoms import free_atoms
from fedens.reference.pyscf.kohn_sham import PySCFLabeller
from fedens.report.molecules import write_molecules_report
from fedens.report.sections import for_terminal, summary_table
from fedens.sources.conformers import normal_modes, relaxed
from fedens.sources.structure_files import read_structures, write_xyz
from fedens.structure import Structure

#: What must be the same for samples of a folder to be used again.
_DATA_SECTIONS = ("seed", "molecules", "theory", "space")


@dataclass(frozen=True)
class MoleculesRun:
    """One configuration with its folder.

    Attributes:
        configuration: what to do. folder: where everything goes. progress: shows how far it is.
    """

    configuration: MoleculesConfiguration
    folder: Path
    progress: Progress

    @classmethod
    def open(
        cls, configuration: MoleculesConfiguration, folder: Path, progress: Progress
    ) -> MoleculesRun:
        """Prepare a run folder, or take one up again.

        Raises:
            ConfigurationError: the folder holds data of another configuration.
            DeviceError: for a GPU, which this job does not use.
        """
        if configuration.device == "cuda":
            raise DeviceError("device is cuda, molecules are learned on the CPU: use auto or cpu")
        resolved = folder / "config.yaml"
        if resolved.is_file():
            _refuse_other_data(load_job(resolved), configuration, folder)
        configuration.write(resolved)
        return cls(configuration, folder, progress)

    @cached_property
    def data(self) -> Dataset:
        """The data set of the run."""
        return Dataset.open(self.folder / "data", create=True)

    @cached_property
    def atoms(self) -> dict[str, SphericalAtom]:
        """Free atoms of all elements, from the cache where they have been made before."""
        theory = self.configuration.theory
        symbols = sorted({s for structure in self.structures.values() for s in structure.symbols})
        with self.progress.stage("free atoms", 1) as advance:
            made = free_atoms(symbols, theory.xc, theory.basis)
            advance(1)
        return made

    @cached_property
    def structures(self) -> dict[str, Structure]:
        """All structures by the names of their samples."""
        path = self.folder / "structures.xyz"
        groups = self.configuration.molecules.items()
        names = [name for group, options in groups for name in _sample_names(group, options)]
        if not path.is_file():
            drawn = [one for group, options in groups for one in self._draw(group, options)]
            named = zip(drawn, names, strict=True)
            write_xyz(path, [_named(structure.to_ase(), name) for structure, name in named])
        images = read(path, index=":", format="extxyz")
        return dict(zip(names, map(Structure.from_ase, images), strict=True))

    def _draw(self, group: str, options: MoleculeOptions) -> list[Structure]:
        count, seed = options.train + options.test, self.configuration.seed
        if options.file is not None:
            found = read_structures(options.file, options.index)
            if len(found) < count:
                raise ConfigurationError(
                    f"molecules.{group}: train and test ask for {count} structures, "
                    f"{options.file} has {len(found)} at index {options.index!r}"
                )
            order = np.random.default_rng(seed).permutation(len(found))
            return [found[i] for i in order[:count]]
        theory = self.configuration.theory
        with self.progress.stage(f"{group}: minimum and normal modes", 2) as advance:
            minimum = relaxed(_from_g2(group, options), theory.xc, theory.basis)
            advance(1)
            modes = normal_modes(minimum, theory.xc, theory.basis)
            advance(1)
        return modes.sample(count, options.temperature, seed)

    @property
    def split(self) -> tuple[list[str], list[str]]:
        """Names of the samples to learn from, and of those to compare with."""
        train, test = [], []
        for group, options in self.configuration.molecules.items():
            names = _sample_names(group, options)
            train += names[: options.train]
            test += names[options.train :]
        missing = [name for name in train + test if name not in self.data]
        there = [[n for n in names if n not in missing] for names in (train, test)]
        if not all(there):
            raise DatasetError(
                f"{self.folder / 'data'} lacks {', '.join(missing)}: too few converged; loosen "
                "theory.conv_tol, or lower the temperature"
            )
        return there[0], there[1]

    def generate(self) -> None:
        """Kohn-Sham samples of all structures that are not in the data set yet."""
        missing = {n: s for n, s in self.structures.items() if n not in self.data}
        failed = {}
        with self.progress.stage("Kohn-Sham fields", len(self.structures)) as advance:
            advance(len(self.structures) - len(missing))
            for name, structure in missing.items():
                try:
                    self.data.add(self.labeller(structure), name)
                except ConvergenceError as error:
                    failed[name] = str(error)
                advance(1)
        for name, message in failed.items():
            self.progress.say(f"{name} left out: {message}")

    @property
    def labeller(self) -> PySCFLabeller:
        """Kohn-Sham calculations as the configuration asks for them."""
        options = self.configuration
        return PySCFLabeller(**options.theory.model_dump(), **options.space.model_dump())

    def train(self) -> MolecularModel:
        """The model of the training samples; what has been done is not done again."""
        folder = self.folder / "model"
        names, _ = self.split
        key = {"samples": names, "configuration": self._learning()}
        if (folder / "model.json").is_file():
            model = MolecularModel.load(folder)
            assert isinstance(model, MolecularModel)
            if model.provenance.get("key") == key:
                self.progress.say(f"model is already trained; delete {folder} to train it again")
                return model
        model = self._trained(names, self._settings(), "training")
        model.provenance["key"] = key
        model.save(folder)
        return model

    def _learning(self) -> dict[str, object]:
        wanted = self.configuration.model_dump(mode="json")
        return {key: wanted[key] for key in (*_DATA_SECTIONS, "training")}

    def _settings(self) -> MolecularTrainingSettings:
        options = self.configuration.training.model_dump()
        return MolecularTrainingSettings(seed=self.configuration.seed, **options)

    def _trained(
        self, names: Sequence[str], settings: MolecularTrainingSettings, label: str
    ) -> MolecularModel:
        with self.progress.reporter(label) as report:
            return train_molecules(
                [self.data[name] for name in names],
                self.atoms,
                settings,
                checkpoints=self.folder / "model" / "checkpoints",
                report=report,
            )

    def evaluate(self, model: MolecularModel) -> list[Evaluation]:
        """Errors for the held-out samples; writes their predictions and some fields."""
        _, names = self.split
        options = self.configuration.evaluation
        evaluations, images, entries = [], [], []
        with (
            self.progress.stage("held-out molecules", len(names)) as advance,
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore", ExtrapolationWarning)  # their errors are known here
            for place, name in enumerate(_spread(names)):
                sample = self.data[name]
                evaluations.append(
                    evaluate_molecule(model, sample, name, _group(name), place < options.scf)
                )
                images.append(_named(_predicted(model, sample.structure), name))
                if place < options.fields:
                    entries.append((place, self._write_fields(model, sample, name)))
                advance(1)
        write_xyz(self.folder / "predicted.xyz", images)
        if entries:
            write_pvd(self.folder / "fields" / "held_out.pvd", entries)
        evaluations = sorted(evaluations, key=lambda one: one.name)
        content = json.dumps([one.to_json() for one in evaluations], indent=1)
        write_atomically(self.folder / "results.json", content)
        return evaluations

    def report(self, model: MolecularModel) -> Path:
        """Evaluate a model, write the report and say where it is."""
        evaluations = self.evaluate(model)
        curve = self.learning_curve(evaluations)
        path = self.folder / "report.html"
        write_molecules_report(
            path,
            self.configuration.name,
            model.provenance["n_samples"],
            self._what_was_run(model),
            evaluations,
            curve,
            {f"Training: {name}": model.history[name] for name in ("fields 1", "energy 1")},
        )
        table = summary_table(f"{len(evaluations)} held-out molecules", evaluations)
        self.progress.console.print(for_terminal(table))
        self.progress.say(f"open next: {path}")
        if self.configuration.evaluation.fields:
            self.progress.say(f"in ParaView: {self.folder / 'fields' / 'held_out.pvd'}")
        return path

    def _what_was_run(self, model: MolecularModel) -> dict[str, object]:
        theory, mesh = self.configuration.theory, self.configuration.space
        groups = self.configuration.molecules.items()
        learned = [f"{options.train} of {group}" for group, options in groups if options.train]
        held_out = [f"{options.test} of {group}" for group, options in groups if options.test]
        return {
            "reference": f"{theory.xc}/{theory.basis} by PySCF, all electrons",
            "meshes": f"tetrahedra of order {mesh.order}, {mesh.finest:g} bohr at hydrogen, "
            f"growing by {mesh.growth:g}",
            "learned": ", ".join(learned),
            "held out": ", ".join(held_out),
            "committee": f"{len(model.field_networks)} networks of fields, of energies as many",
            "seed": self.configuration.seed,
        }

    def _write_fields(self, model: MolecularModel, sample: Sample, name: str) -> list[Path]:
        """Reference, prediction and difference of each field on the sample's mesh."""
        space = sample.space()
        prediction = model.predict(sample.structure)
        written: dict[str, torch.Tensor] = {}
        for field, values in prediction.fields(space.points).items():
            reference = torch.tensor(sample.fields[field])
            written |= {field: reference, f"{field}_predicted": values}
            written[f"{field}_error"] = values - reference
        spread = prediction.density_uncertainty(space.points)
        if spread is not None:
            written["density_uncertainty"] = spread
        forces = {} if sample.forces is None else {"forces": sample.forces}
        path = self.folder / "fields" / f"{name}.vtu"
        return write_vtu(path, space, written, sample.structure, atom_fields=forces)

    def learning_curve(self, evaluations: Sequence[Evaluation]) -> list[dict[str, float]]:
        """Mean errors of smaller trainings of one network each, and of the model itself."""
        train, test = self.split
        rows = []
        for size in self.configuration.learning_curve:
            names = _spread(train)[:size]
            model = self._trained(names, replace(self._settings(), committee=1), f"{size} samples")
            found = [evaluate_molecule(model, self.data[name], name, _group(name)) for name in test]
            rows.append(_curve_row(size, 1, found))
        members = self.configuration.training.committee
        return [*rows, _curve_row(len(train), members, evaluations)]


def _curve_row(size: int, members: int, evaluations: Sequence[Evaluation]) -> dict[str, float]:
    means = mean_errors(one.numbers for one in evaluations)
    return {"structures": size, "networks": members, **means}


def _refuse_other_data(found: object, wanted: MoleculesConfiguration, folder: Path) -> None:
    for section in _DATA_SECTIONS:
        if getattr(found, section, None) != getattr(wanted, section):
            raise ConfigurationError(
                f"{folder} holds data of another configuration ({section} differs): choose "
                "another folder with --output, or delete it"
            )


def _from_g2(group: str, options: MoleculeOptions) -> Structure:
    assert options.molecule is not None
    try:
        return Structure.from_ase(g2_molecule(options.molecule))
    except (KeyError, NotImplementedError) as error:
        raise StructureError(
            f"molecules.{group}: ASE's g2 collection has no molecule {options.molecule!r}; use a "
            "name such as H2O or CH3CH2OH (ase.collections.g2.names), or file:"
        ) from error


def _sample_names(group: str, options: MoleculeOptions) -> list[str]:
    return [f"{group}-{i:04d}" for i in range(options.train + options.test)]


def _group(name: str) -> str:
    return name.rpartition("-")[0]


def _spread(names: Sequence[str]) -> list[str]:
    """The first of every molecule, then the second of every one, and so on."""
    groups = [list(group) for _, group in groupby(names, _group)]
    return [name for row in zip_longest(*groups) for name in row if name is not None]


def _named(atoms: Atoms, name: str) -> Atoms:
    atoms.info["name"] = name
    return atoms


def _predicted(model: MolecularModel, structure: Structure) -> Atoms:
    atoms, known = structure.to_ase(), ("energy", "forces", "dipole")
    calculator = Calculator(model)
    calculator.calculate(atoms, known)
    atoms.calc = SinglePointCalculator(atoms, **{k: calculator.results[k] for k in known})
    return atoms
