"""The model that the other examples use: the demo's own, or a small one that trains in seconds."""

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

#: The demo of this folder: 12 structures and four networks, some minutes.
DEMO = Path(__file__).with_name("aluminium.yaml")

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
        folder: of a model to load. Without it, the model of ``make demo`` is taken from
            ``runs/aluminium``, where it is made first if it is not there.
        quick: without a folder, take the small model of ``runs/quick`` instead.
    """
    if folder is not None:
        return Predictor.load(folder)
    configuration = QUICK if quick else load_configuration(DEMO)
    with open_run(configuration, Path("runs") / configuration.name, Progress()) as run:
        run.generate()
        return run.train()
