"""A job in one file, as someone new would write it; a registry line makes ``fedens run`` know it.

Its reference data cost nothing: the energy of a structure is the sum of its coordinates.
"""

import os
import signal
import sys
import time
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import torch
from pydantic import Field, NonNegativeFloat, PositiveInt

from fedens.configuration import JobOptions
from fedens.data.sample import Sample
from fedens.errors import ConvergenceError, FunctionalError, SamplingError
from fedens.jobs.registry import JOBS
from fedens.jobs.run import Run, Section
from fedens.jobs.summary import Summary
from fedens.reference.labeller import LABELLERS
from fedens.report.page import ReportTable
from fedens.structure import Structure


class ToyConfiguration(JobOptions):
    """Everything the toy job needs to know."""

    job: Literal["toy"] = Field(default="toy", description="what fedens run does")
    count: PositiveInt = Field(default=3, description="structures")
    factor: float = Field(default=1.0, description="of the result")
    pause: NonNegativeFloat = Field(default=0.0, description="of each calculation, s")


@dataclass(frozen=True)
class ToyLabeller:
    """Sums of coordinates; some elements fail.

    Lithium kills its process, but goes on from a checkpoint; beryllium kills it every time.
    """

    pause: float

    def __call__(self, structure: Structure, report=None, checkpoint=None) -> Sample:
        """The sample of a structure."""
        if report is not None:
            report(3, 0.0, 0.25)
        time.sleep(self.pause)
        if "He" in structure.symbols:
            raise ConvergenceError("not converged: helium")
        if "B" in structure.symbols:
            raise SamplingError("no sampling: boron")
        if "C" in structure.symbols:
            raise FunctionalError("no functional: carbon")
        if "Be" in structure.symbols or ("Li" in structure.symbols and not checkpoint.exists()):
            checkpoint.parent.mkdir(exist_ok=True)
            checkpoint.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return Sample(
            structure,
            points=np.zeros((1, 3)),
            weights=np.ones(1),
            fields={"density": np.ones(1)},
            energy=float(structure.positions.sum()),
            energies={},
            ion_energy=0.0,
            forces=None,
            stress=None,
            converged=True,
            provenance={"threads": torch.get_num_threads()},
        )

    def describe(self):
        """Kind and pause."""
        return {"kind": "toy", **asdict(self)}

    @classmethod
    def from_description(cls, description):
        """The labeller of :meth:`describe`."""
        return cls(**description)


class ToyRun(Run[ToyConfiguration]):
    """Adds up energies."""

    data_sections = ("seed", "count")

    @property
    def labelling(self):
        """Sums of coordinates."""
        return ToyLabeller(self.configuration.pause).describe()

    def generate(self):
        """The samples; the last one fails."""
        symbols = [*["H"] * self.configuration.count, "He"]
        atoms = {f"{i}-{s}": Structure([s], [[i, 2.0, 0.1]]) for i, s in enumerate(symbols)}
        return self.generate_data(atoms)

    def train(self):
        """The sum of the energies, times the factor."""
        inputs = {"samples": self.checksums(self.data.names), **self.chosen("factor")}
        return self.once("sum", Section(inputs, self._sum))

    def _sum(self):
        return self.configuration.factor * sum(sample.energy for sample in self.data)

    def compared(self):
        """The result."""
        result = self.train()

        def compute():
            self.write_json("results.json", {"sum": result, "left_out": self.failures})
            table = ReportTable("toy", ("quantity", "value"), [("sum", result)])
            return Summary(table)

        return self.summarised("results", Section({"sum": result}, compute, ["results.json"]))


REGISTRY_LINE = ("toy_job:ToyRun", ToyConfiguration)
LABELLERS["toy"] = "toy_job:ToyLabeller"

if __name__ == "__main__":
    from fedens.commands.cli import main

    sys.modules["toy_job"] = sys.modules["__main__"]
    JOBS["toy"] = REGISTRY_LINE
    main()
