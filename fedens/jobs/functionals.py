"""The job ``functional``: a kinetic functional learned from small Kohn-Sham cells, and compared.

Beside what every run's folder holds (:mod:`fedens.jobs.run`)::

    metrics.json       every number           model_potentials/  labels without atoms
    models/<method>/   models compared with that of the run
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from fedens.analysis.functionals import calibration, chosen, summary
from fedens.data.sample import Sample
from fedens.data.sampling import describe_samplings
from fedens.errors import ConvergenceError
from fedens.jobs.functional_answers import FunctionalAnswers, Row
from fedens.jobs.functional_training import LEARNING, in_proportion
from fedens.jobs.run import Section
from fedens.jobs.summary import HELD_OUT_FIELDS, REPORT, Summary
from fedens.models.base import Model
from fedens.models.functional.model import FunctionalModel
from fedens.output.vtk import write_vtu
from fedens.report.functionals import larger_in_words, terminal_table, write_functionals_report
from fedens.report.slices import density_slices


class FunctionalsRun(FunctionalAnswers):
    """Learns a kinetic functional, and compares it with others on cells held out and larger."""

    # --- learning curve

    def learning_curve(self) -> list[Row]:
        """Of every method that learns the summary on held-out cells, by number of cells."""
        options = self.configuration.comparison
        methods = [name for name in LEARNING if name in options.methods]
        curve = options.learning_curve
        cases = {
            f"learning curve, {size} cells, draw {draw}": self._curve_section(methods, size, draw)
            for draw in range(curve.draws)
            for size in curve.sizes
        }
        found = self.each("learning curve", cases) if cases and methods else []
        return [row for rows in found for row in rows]

    def _curve_section(self, methods: Sequence[str], size: int, draw: int) -> Section:
        every = self.split[0]
        names = in_proportion(every, self.configuration.seed + draw) if draw else every
        names = names[:size]
        inputs = {method: self.inputs(method, names) for method in methods}
        inputs["held-out samples"] = self.checksums(self.split[1])
        return Section(inputs, partial(self._curve_rows, methods, names, draw))

    def _curve_rows(self, methods: Sequence[str], names: Sequence[str], draw: int) -> list[Row]:
        models: dict[str, Model] = {}
        for method in self.folders:
            with suppress(ConvergenceError):  # its rows say so
                models[method] = self.fit(method, names, models)
        held_out = self.split[1]
        return [
            {
                "method": method,
                "structures": len(names),
                "draw": draw,
                **summary([self.row(method, name, models, False) for name in held_out]),
            }
            for method in methods
        ]

    # --- comparison

    def compared(self) -> Summary:
        """Compare on held-out and larger cells; write metrics, report and ParaView files."""
        models = self.train()
        rows, curve, best = self.rows(models), self.learning_curve(), models[self.best]
        files = ["metrics.json", REPORT]
        files += [HELD_OUT_FIELDS] * self.configuration.output.fields
        inputs = {
            "rows": rows,
            "learning curve": curve,
            "model": best.provenance["key"],
            **self.chosen("output"),
        }
        section = Section(inputs, partial(self._compared, best, rows, curve), files)
        return self.summarised("held-out evaluation", section)

    def _compared(self, best: Model, rows: Sequence[Row], curve: Sequence[Row]) -> Summary:
        assert isinstance(best, FunctionalModel)
        picture = self._write_fields(best)
        self.write_json("metrics.json", self._metrics(rows, curve))
        write_functionals_report(
            self.folder / REPORT,
            self.configuration.name,
            self.best,
            self._what_was_run(best),
            rows,
            curve,
            picture if self.configuration.output.figures else None,
        )
        return Summary(terminal_table(rows), larger_in_words(rows))

    def _metrics(self, rows: Sequence[Row], curve: Sequence[Row]) -> Row:
        methods = list(dict.fromkeys(row["method"] for row in rows))
        found: Row = {
            kind: {m: summary(chosen(rows, kind, m)) for m in methods} for kind in self.sets
        }
        known = {m: calibration(chosen(rows, "held_out", m)) for m in methods}
        return found | {
            "uncertainties": {method: bars for method, bars in known.items() if bars},
            "learning_curve": list(curve),
            "per_structure": list(rows),
            "training_structures": self.split[0],
            "left_out": self.failures,
        }

    def _write_fields(self, model: FunctionalModel) -> bytes | None:
        """Densities of the held-out cells for ParaView; a picture of the worst as PNG."""
        pictures: dict[float, bytes] = {}

        def predict(_: int, name: str) -> tuple[None, Sequence[Path]]:
            sample = self.data[name]
            try:
                density = model.predict(sample.structure, sample.tensor_space()).density.values
            except ConvergenceError:  # as its row says
                return None, []
            error = density - torch.tensor(sample.fields["density"])
            worst = float(error.abs().max())
            if worst > max(pictures, default=-1.0):
                pictures.clear()
                pictures[worst] = density_slices(sample, density)
            fields = {"density_reference": density - error, "density_predicted": density}
            return None, self._vtu(name, sample, {**fields, "density_error": error})

        self.compare_each("fields of held-out cells", self.split[1], predict)
        return next(iter(pictures.values()), None)

    def _vtu(self, name: str, sample: Sample, fields: Mapping[str, Tensor]) -> Sequence[Path]:
        output = self.configuration.output
        if not output.fields:
            return []
        return write_vtu(
            self.folder / "fields" / f"{name}.vtu",
            sample.space(),
            fields,
            sample.structure,
            subdivisions=output.subdivisions,
        )

    def _what_was_run(self, model: FunctionalModel) -> Row:
        options = self.configuration
        index = [self.data.index[name] for name in self.split[0]]
        formulas = Counter(entry["formula"] for entry in index)
        models = options.training.model_potentials.model_dump(exclude={"densities"})
        return {
            "configuration": options.name,
            "seed": options.seed,
            "data": f"Kohn-Sham, {options.theory.xc}",
            **describe_samplings(entry["sampling"] for entry in index),
            "training cells": ", ".join(f"{n} {formula}" for formula, n in formulas.items()),
            "model potentials": ", ".join(f"{n} {kind}" for kind, n in models.items() if n),
            "mean density n0": f"{options.mean_density:.6f} electron/bohr^3",
            **model.summary,
        }
