"""The job ``molecules``: Kohn-Sham samples on tetrahedra, a model of them, and its errors.

Beside what every run's folder holds (:mod:`fedens.jobs.run`)::

    structures.xyz  all conformers     results.json   errors of every molecule
    predicted.xyz   energies, forces, dipoles
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, partial
from itertools import groupby, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.build import molecule as g2_molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read

from fedens.analysis.evaluation import Evaluation, mean_errors
from fedens.analysis.molecules import evaluate_molecule
from fedens.calculator import Calculator
from fedens.configuration import MoleculeOptions, MoleculesConfiguration
from fedens.data.sample import Sample
from fedens.errors import (
    ConfigurationError,
    DatasetError,
    DeviceError,
    ExtrapolationWarning,
    StructureError,
)
from fedens.jobs.run import Run, Section
from fedens.jobs.summary import HELD_OUT_FIELDS, REPORT, Summary
from fedens.models.molecule.model import MolecularModel
from fedens.models.molecule.training import MolecularTrainingSettings, train_molecules
from fedens.output.vtk import write_vtu
from fedens.reference.pyscf.free_atoms import free_atoms
from fedens.report.molecules import write_molecules_report
from fedens.report.sections import summary_table
from fedens.sources.conformers import normal_modes, relaxed
from fedens.sources.structure_files import read_structures, write_xyz
from fedens.structure import Structure


class MoleculesRun(Run[MoleculesConfiguration]):
    """Learns the fields, energies and forces of molecules from Kohn-Sham calculations."""

    data_sections = ("seed", "molecules", "theory", "space")

    @property
    def device(self) -> torch.device:
        """The CPU."""
        if self.configuration.device == "cuda":
            raise DeviceError("device is cuda, molecules are learned on the CPU: use auto or cpu")
        return torch.device("cpu")

    @property
    def labelling(self) -> dict[str, Any]:
        """Kohn-Sham calculations."""
        options = self.configuration
        return {"kind": "pyscf", **options.theory.model_dump(), **options.space.model_dump()}

    @cached_property
    def structures(self) -> dict[str, Structure]:
        """All structures by the names of their samples."""
        groups = self.configuration.molecules.items()
        names = [name for group, options in groups for name in _sample_names(group, options)]
        files = {
            f"structures of {group}": read_structures(options.file, options.index)
            for group, options in groups
            if options.file is not None
        }
        inputs = {**self.chosen("seed", "molecules", "theory"), **files}
        self.once("conformers", Section(inputs, lambda: self._draw_all(names), ["structures.xyz"]))
        images = read(self.folder / "structures.xyz", index=":", format="extxyz")
        return dict(zip(names, map(Structure.from_ase, images), strict=True))

    def _draw_all(self, names: Sequence[str]) -> None:
        groups = self.configuration.molecules.items()
        drawn = [one for group, options in groups for one in self._draw(group, options)]
        named = zip(drawn, names, strict=True)
        images = [_named(structure.to_ase(), name) for structure, name in named]
        write_xyz(self.folder / "structures.xyz", images)

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

    def generate(self) -> dict[str, str]:
        """Kohn-Sham samples of all structures; returns those that did not converge."""
        return self.generate_data(self.structures)

    def train(self) -> MolecularModel:
        """The model of the training samples; what has been done is not done again."""
        names, _ = self.split
        settings = self._settings()
        return self.model(
            self.folder / "model",
            {"samples": self.checksums(names), "settings": settings},
            lambda: self._trained(names, settings, "training"),
        )

    def _settings(self) -> MolecularTrainingSettings:
        options = self.configuration.training.model_dump()
        return MolecularTrainingSettings(seed=self.configuration.seed, **options)

    def _trained(
        self, names: Sequence[str], settings: MolecularTrainingSettings, label: str
    ) -> MolecularModel:
        samples, theory = [self.data[name] for name in names], self.configuration.theory
        symbols = {symbol for sample in samples for symbol in sample.structure.symbols}
        with self.progress.stage("free atoms", 1) as advance:
            atoms = free_atoms(sorted(symbols), theory.xc, theory.basis)
            advance(1)
        with self.progress.reporter(label) as report:
            return train_molecules(
                samples,
                atoms,
                settings,
                checkpoints=self.folder / "model" / "checkpoints",
                report=report,
            )

    def compared(self) -> Summary:
        """Errors for the held-out samples; writes their predictions, some fields and the report."""
        model, options = self.train(), self.configuration.evaluation
        curve = self.learning_curve()
        inputs = {
            "model": model.provenance["key"],
            "held-out samples": self.checksums(self.split[1]),
            "learning curve": curve,
            **self.chosen("evaluation"),
        }
        files = ["results.json", "predicted.xyz", REPORT]
        files += [HELD_OUT_FIELDS] * bool(options.fields)
        section = Section(inputs, lambda: self._compared(model, curve), files)
        return self.summarised("held-out molecules", section)

    def _compared(self, model: MolecularModel, curve: Sequence[dict[str, float]]) -> Summary:
        options, (train, test), images = self.configuration.evaluation, self.split, []

        def compare(place: int, name: str) -> tuple[Evaluation, Sequence[Path]]:
            sample = self.data[name]
            images.append(_named(_predicted(model, sample.structure), name))
            written = place < options.fields
            return (
                evaluate_molecule(model, sample, name, _group(name), place < options.scf),
                self._write_fields(model, sample, name) if written else [],
            )

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExtrapolationWarning)  # their errors are known here
            found = self.compare_each("held-out molecules", _spread(test), compare)
        write_xyz(self.folder / "predicted.xyz", images)
        evaluations = sorted(found, key=lambda one: one.name)
        whole = _curve_row(len(train), self.configuration.training.committee, evaluations)
        results = {"molecules": [one.to_json() for one in evaluations], "left_out": self.failures}
        self.write_json("results.json", results)
        write_molecules_report(
            self.folder / REPORT,
            self.configuration.name,
            model.provenance["n_samples"],
            self._what_was_run(model),
            evaluations,
            [*curve, whole],
            {f"Training: {name}": model.history[name] for name in ("fields 1", "energy 1")},
        )
        return Summary(summary_table(f"{len(evaluations)} held-out molecules", evaluations))

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

    def learning_curve(self) -> list[dict[str, float]]:
        """Mean errors of smaller trainings of one network each."""
        (train, test), rows = self.split, []
        settings = replace(self._settings(), committee=1)
        for size in self.configuration.learning_curve:
            names = _spread(train)[:size]
            inputs = {
                "samples": self.checksums(names),
                "held-out samples": self.checksums(test),
                "settings": settings,
            }
            section = Section(inputs, partial(self._learning_point, names, settings))
            rows.append(self.once(f"learning curve, {len(names)} samples", section))
        return rows

    def _learning_point(
        self, names: Sequence[str], settings: MolecularTrainingSettings
    ) -> dict[str, float]:
        model, (_, test) = self._trained(names, settings, f"{len(names)} samples"), self.split
        found = [evaluate_molecule(model, self.data[name], name, _group(name)) for name in test]
        return _curve_row(len(names), 1, found)


def _curve_row(size: int, members: int, evaluations: Sequence[Evaluation]) -> dict[str, float]:
    means = mean_errors(one.numbers for one in evaluations)
    return {"structures": size, "networks": members, **means}


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
