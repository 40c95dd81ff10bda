"""Answers of every method of the job ``functional`` on every cell: see fedens.jobs.functionals."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from typing import Any

from fedens.analysis.functionals import (
    Answer,
    Line,
    atoms_answer,
    compare,
    functional_answer,
    model_answer,
)
from fedens.data.sample import Sample
from fedens.errors import ConvergenceError, ExtrapolationWarning, ModelError
from fedens.jobs.functional_training import FunctionalTraining
from fedens.jobs.other_code import learn_elsewhere
from fedens.jobs.run import Section
from fedens.models.base import Model
from fedens.models.functional.model import FunctionalModel
from fedens.models.points.model import EnergyModel
from fedens.report.functionals import SETS

Row = dict[str, Any]
Models = Mapping[str, Model]

#: Method without a model -> its kinetic functional.
_CLASSICAL = {"wang_teter": "wt", "wgc": "wgc", "lkt": "lkt", "line": "wt"}


class FunctionalAnswers(FunctionalTraining):
    """A run as far as the errors of every method on every cell that was not trained on."""

    @cached_property
    def sets(self) -> dict[str, list[str]]:
        """Names of the cells to evaluate, by what they are; a set without cells is left out."""
        every = {"held_out": self.split[1], "larger": self.larger}
        return {kind: names for kind, names in every.items() if names}

    def rows(self, models: Models) -> list[Row]:
        """Errors of every method on every cell: see :func:`fedens.analysis.functionals.compare`.

        With ``method``, ``set`` and ``name`` of the cell; or, where there are none, a ``failure``.
        """
        found = []
        for method in self.configuration.comparison.methods:
            for kind, names in self.sets.items():
                found += self._rows(method, kind, names, models)
        return found + self._mace_rows()

    def _rows(self, method: str, kind: str, names: Sequence[str], models: Models) -> list[Row]:
        cases = {
            f"{method}, {name}": Section(
                {"method": self._identity(method, models), "sample": self.checksums([name])},
                partial(self.row, method, name, models),
            )
            for name in names
        }
        rows = self.each(f"{method}, {SETS[kind]}", cases)
        place = zip(rows, names, strict=True)
        return [{"method": method, "set": kind, "name": name, **row} for row, name in place]

    def _identity(self, method: str, models: Models) -> Any:
        """All that the answers of a method depend on, beside the cell."""
        if method not in _CLASSICAL:
            return models[method].provenance["key"] if method in models else None
        functional = self.functional(_CLASSICAL[method]).describe()
        line = self._line if method == "line" else None
        return [functional, line, self.chosen("solver")]

    def row(self, method: str, name: str, models: Models, error_bars: bool = True) -> Row:
        """Errors on one cell, or why there are none."""
        sample = self.data[name]
        try:
            with warnings.catch_warnings():  # cells unlike the training's are what is asked about
                warnings.simplefilter("ignore", ExtrapolationWarning)
                return compare(self._answer(method, sample, models, error_bars), sample)
        except (ConvergenceError, ModelError) as error:
            return {"failure": str(error)}

    def _answer(self, method: str, sample: Sample, models: Models, error_bars: bool) -> Answer:
        model = models.get(method)
        if isinstance(model, FunctionalModel):
            return model_answer(model, sample, error_bars)
        if isinstance(model, EnergyModel):
            return atoms_answer(model, sample)
        if method not in _CLASSICAL:
            raise ModelError("no model: its functional runs away on the training cells")
        answer = self._classical(_CLASSICAL[method], sample)
        return self._line(answer) if method == "line" else answer

    def _classical(self, kinetic: str, sample: Sample) -> Answer:
        solver = self.configuration.solver
        return functional_answer(
            self.functional(kinetic), sample, solver.residual_tolerance, solver.max_evaluations
        )

    @cached_property
    def _line(self) -> Line:
        """Through Wang-Teter's energies of the training cells."""
        names = self.split[0]
        inputs = {
            "samples": self.checksums(names),
            "functional": self.functional("wt").describe(),
            **self.chosen("solver"),
        }
        section = Section(inputs, partial(self._fitted_line, names))
        return Line(*self.once("line through Wang-Teter's energies", section))

    def _fitted_line(self, names: Sequence[str]) -> tuple[float, float]:
        samples = [self.data[name] for name in names]
        energies = [self._classical("wt", sample).energy for sample in samples]
        line = Line.fit(energies, samples)
        return line.offset, line.slope

    def _mace_rows(self) -> list[Row]:
        """The same of MACE, where it is asked for and there."""
        options = self.configuration.comparison.mace
        if options is None:
            return []
        if not options.python.exists():
            self.progress.say(f"MACE is left out: there is no interpreter {options.python}")
            return []
        names = {name: kind for kind, found in self.sets.items() for name in found}
        inputs = {
            "samples": self.checksums([*self.split[0], *names]),
            **self.chosen("seed", "comparison.mace"),
        }
        rows = self.once("mace", Section(inputs, partial(self._learned_by_mace, list(names))))
        return [
            {"method": "mace", "set": kind, "name": name, **row}
            for (name, kind), row in zip(names.items(), rows, strict=True)
        ]

    def _learned_by_mace(self, names: Sequence[str]) -> list[Row]:
        options, cells = self.configuration.comparison.mace, [self.data[name] for name in names]
        assert options is not None
        training = [self.data[name] for name in self.split[0]]
        log, seed = self.folder / "mace.log", self.configuration.seed
        try:
            answers = learn_elsewhere(options, training, cells, seed, log)
            return [compare(answer, cell) for answer, cell in zip(answers, cells, strict=True)]
        except ModelError as error:
            return [{"failure": str(error)}] * len(names)
