"""The model that other examples use: that of ``aluminium.yaml``, or one that trains in seconds."""

from pathlib import Path

from fedens import Predictor
from fedens.configuration import (
    Configuration,
    MeshOptions,
    NetworkOptions,
    ThermalCellsOptions,
    TrainingOptions,
    load_configuration,
)
from fedens.jobs.registry import open_run
from fedens.progress import Progress

#: Of this folder: 12 structures and four networks, some minutes.
FULL = Path(__file__).with_name("aluminium.yaml")

#: The same metal on a coarser mesh: three structures, one network of 200 steps, seconds.
QUICK = Configuration(
    name="quick",
    structures=ThermalCellsOptions(count=4),
    space=MeshOptions(spacing=0.425, order=6),
    training=TrainingOptions(train_count=3, steps=200, network=NetworkOptions(committee=1)),
)


def example_model(folder: str | Path | None = None, quick: bool = False) -> Predictor:
    """A model of aluminium, with the functional it was trained on.

    Args:
        folder: of a model to load. Without it, that of ``aluminium.yaml`` is taken from
            ``runs/aluminium``, where it is made first if it is not there.
        quick: without a folder, take the small model of ``runs/quick`` instead.
    """
    if folder is not None:
        return Predictor.load(folder)
    configuration = QUICK if quick else load_configuration(FULL)
    with open_run(configuration, Path("runs") / configuration.name, Progress()) as run:
        run.generate()
        return run.train()
