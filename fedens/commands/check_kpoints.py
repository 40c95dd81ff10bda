"""What a denser mesh of k-points would change: what ``fedens check-kpoints`` does."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fedens.configuration import Configuration, FunctionalsConfiguration
from fedens.configuration.theory import KohnShamOptions
from fedens.data.sample import Sample
from fedens.errors import ConfigurationError
from fedens.jobs.kohn_sham import kohn_sham_labelling
from fedens.jobs.registry import load_job
from fedens.progress import Progress
from fedens.report.page import ReportTable
from fedens.report.sections import for_terminal
from fedens.structure import Structure
from fedens.units import HARTREE_IN_MEV, HARTREE_PER_BOHR_IN_MEV_PER_ANGSTROM

if TYPE_CHECKING:
    from fedens.reference.kohn_sham.labeller import KohnShamLabeller

_OnCrystals = Configuration | FunctionalsConfiguration
#: What labels for learning should keep to: free energy, meV/atom, and mean force, meV/angstrom.
ENERGY_LIMIT, FORCE_LIMIT = 1.0, 3.0

#: Label, unit, key of :func:`changes`.
_ROWS = (
    ("free energy", "meV/atom", "energy"),
    ("forces, mean of the components", "meV/angstrom", "mean_force"),
    ("forces, largest component", "meV/angstrom", "largest_force"),
    ("density", "% of the electrons", "density"),
)


def check_kpoints(config: Path, index: int, progress: Progress) -> None:
    """Solve one structure of a configuration with its k-points and at half their spacing.

    Args:
        config: of theory ``kohn_sham``. index: which of the structures.

    Raises:
        ConfigurationError: a configuration without k-points, or without that structure.
        ConvergenceError: one of the two calculations did not converge.
    """
    labeller, structure = _asked_for(config, index)
    assert labeller.kspacing is not None
    finer = replace(labeller, kspacing=labeller.kspacing / 2)
    progress.say(f"structure {index} of {config}: {structure}")
    with progress.stage("given and doubled k-points", 2) as count:

        def report(step: int, _: float, residual: float) -> None:
            count(0, f"step {step}: residual {residual:.1e}")

        samples = []
        for one in (labeller, finer):
            start = time.perf_counter()
            samples.append(one(structure, report))
            count(1)
            progress.say(_words(samples[-1], time.perf_counter() - start))
    found = changes(*samples)
    progress.console.print(for_terminal(_table(found)))
    progress.say(verdict(found))


def _asked_for(config: Path, index: int) -> tuple[KohnShamLabeller, Structure]:
    from fedens.reference.kohn_sham.labeller import KohnShamLabeller

    configuration = load_job(config)
    theory = getattr(configuration, "theory", None)
    if not isinstance(configuration, _OnCrystals) or not isinstance(theory, KohnShamOptions):
        raise ConfigurationError(
            f"{config} has no k-points to check: that needs a job on crystals with theory: "
            "{kind: kohn_sham, ...}"
        )
    if theory.kspacing is None:
        raise ConfigurationError(f"{config}: theory.kspacing is null: there is no mesh to double")
    structures = _structures(configuration)
    if not 0 <= index < len(structures):
        raise ConfigurationError(
            f"{config} has no structure {index}: choose 0 to {len(structures) - 1}"
        )
    if not structures[index].periodic:
        raise ConfigurationError(f"structure {index} of {config} is isolated: it has no k-points")
    settings = kohn_sham_labelling(theory, configuration.space)
    del settings["kind"]
    return KohnShamLabeller.from_description(settings), structures[index]


def _structures(configuration: _OnCrystals) -> list[Structure]:
    if isinstance(configuration, FunctionalsConfiguration):
        return [*configuration.cells().values(), *configuration.larger_cells().values()]
    return configuration.structures.source().structures(configuration.seed)


def changes(given: Sample, finer: Sample) -> dict[str, float]:
    """How two samples of one structure on one mesh differ, by the keys and units of the table."""
    per_atom = HARTREE_IN_MEV / len(given.structure)
    assert given.forces is not None
    assert finer.forces is not None
    forces = np.abs(given.forces - finer.forces) * HARTREE_PER_BOHR_IN_MEV_PER_ANGSTROM
    density = np.abs(given.fields["density"] - finer.fields["density"])
    return {
        "energy": abs(given.total_energy - finer.total_energy) * per_atom,
        "mean_force": float(forces.mean()),
        "largest_force": float(forces.max()),
        "density": 100 * float(given.weights @ density) / finer.number_of_electrons,
    }


def verdict(found: dict[str, float]) -> str:
    """Whether labels are as good as they should be, in a line."""
    limits = f"{ENERGY_LIMIT:g} meV/atom and {FORCE_LIMIT:g} meV/angstrom (mean)"
    if found["energy"] <= ENERGY_LIMIT and found["mean_force"] <= FORCE_LIMIT:
        return f"good enough to learn from: within {limits} of the doubled mesh"
    return (
        f"not good enough to learn from: more than {limits} from the doubled mesh; lower "
        "theory.kspacing, or raise theory.smearing.width, and check again"
    )


def _table(found: dict[str, float]) -> ReportTable:
    rows = [[label, found[key], unit] for label, unit, key in _ROWS]
    return ReportTable("change by doubled k-points", ["quantity", "change", "unit"], rows)


def _words(sample: Sample, seconds: float) -> str:
    sampling = sample.provenance["sampling"]
    spacing = sampling["kspacing_per_bohr"]
    return f"{sampling['kpoints']} k-points, spacing {spacing:.4f} per bohr: {seconds:.1f} s"
