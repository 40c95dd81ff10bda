"""The run folder of ``examples/aluminium.yaml``, which several benchmarks start from."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass
from pathlib import Path

# threads that wait should sleep: on a machine with other work, spinning is many times slower
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from fedens import Dataset, Predictor


@dataclass(frozen=True)
class DemoRun:
    """A run folder with its data and its trained model."""

    data: Dataset
    predictor: Predictor
    training: list[str]
    held_out: list[str]

    @classmethod
    def open(cls, folder: Path) -> DemoRun:
        """That of ``examples/aluminium.yaml`` (``runs/aluminium``), or another of its kind."""
        if not (folder / "model" / "model.json").is_file():
            command = "fedens run examples/aluminium.yaml"
            sys.exit(f"no trained model in {folder / 'model'}: run `{command}` first")
        predictor = Predictor.load(folder / "model")
        data = Dataset.open(folder / "data")
        training, held_out = data.split(int(predictor.provenance["n_samples"]), seed=0)
        return cls(data, predictor, training, held_out)


def arguments(text: str | None) -> argparse.ArgumentParser:
    """Options that these benchmarks share."""
    parser = argparse.ArgumentParser(
        description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, default=Path("runs/aluminium"), help="run folder")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--quick", action="store_true", help="a minute at most, for a look")
    return parser
