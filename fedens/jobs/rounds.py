"""Active learning: in rounds, label structures that the model knows least about, and train on.

A round looks at structures that the run does not hold yet, labels those of the most uncertain
energy and goes on training with them. Held-out structures stay held out. What a round has done is
not done again when the run is started anew; round 0 is the first training::

    rounds/1/candidates.json   the uncertainty of each candidate
    rounds/1/model.json        with its weights: the model after the round
    rounds/1/errors.json       a row of the report's table
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from fedens.files import write_atomically
from fedens.models.crystal.model import Predictor
from fedens.models.crystal.training import TrainingSettings
from fedens.structure import Structure
from fedens.units import HARTREE_IN_MEV

if TYPE_CHECKING:
    from fedens.jobs.crystals import Run

_ADDED = re.compile(r"round\d+-")
#: Learning rate of a round relative to the first training's: at the full rate the energy densities
#: forget more in the few steps than they learn.
_RATE = 1 / 3


def is_added(name: str) -> bool:
    """Whether a sample's name says that a round has added it."""
    return _ADDED.match(name) is not None


def candidates(run: Run) -> list[dict[str, Structure]]:
    """By name, the structures that each round looks at; none is in two rounds, or used otherwise.

    Raises:
        StructureError: a structure file that has too few.
    """
    options = run.configuration.rounds
    if not options.count:
        return []
    source = run.configuration.structures.source()
    every = source.further(options.count * options.candidates, run.configuration.seed)
    named = [
        (f"round{1 + i // options.candidates}-{place:04d}-{structure.formula}", structure)
        for i, (place, structure) in enumerate(every.items())
    ]
    firsts = range(0, len(named), options.candidates)
    return [dict(named[first : first + options.candidates]) for first in firsts]


@torch.no_grad()
def energy_uncertainty(predictor: Predictor, structure: Structure) -> float:
    """Estimated error of the energy by the functional, meV/atom; no forces, to be quick."""
    uncertainty = predictor.predict(structure).energy_uncertainty("functional")
    assert uncertainty is not None  # the functional needs no committee
    return uncertainty * HARTREE_IN_MEV / len(structure)


def most_uncertain(uncertainties: Mapping[str, float], count: int) -> list[str]:
    """The ``count`` names of the largest uncertainties, the largest first."""
    return sorted(uncertainties, key=lambda name: (-uncertainties[name], name))[:count]


def learn_in_rounds(run: Run) -> Predictor:
    """The first training and all rounds of a run; returns the last model.

    Raises:
        StructureError: a structure file that has too few structures.
    """
    names, _ = run.split
    predictor = run.trained(names, run.settings(), _folder(run, 0))
    _record_errors(run, 0, predictor, names, [], None)
    for number, looked_at in enumerate(candidates(run), start=1):
        uncertainties = _uncertainties(run, number, predictor, looked_at)
        chosen = most_uncertain(uncertainties, run.configuration.rounds.add)
        run.label(f"round {number}: reference data", {name: looked_at[name] for name in chosen})
        added = [name for name in chosen if name in run.data]
        names = [*names, *added]
        predictor = run.trained(names, _settings(run), _folder(run, number), predictor)
        mean = sum(uncertainties.values()) / len(uncertainties)
        _record_errors(run, number, predictor, names, added, mean)
    return predictor


def read_rounds(run: Run) -> list[dict[str, Any]]:
    """One row per round done, the first training included; empty for a run without rounds.

    Each has ``round``, ``structures`` (trained on), ``added`` (names),
    ``mean_candidate_uncertainty_mev_per_atom`` (by the model before the round; None at first) and
    mean errors of the held-out structures.
    """
    count = run.configuration.rounds.count
    if not count:
        return []
    records = [_read(_folder(run, number) / "errors.json") for number in range(count + 1)]
    return [record["row"] for record in records if record]


def _folder(run: Run, number: int) -> Path:
    return run.folder / "rounds" / str(number)


def _settings(run: Run) -> TrainingSettings:
    """Those of the first training for another number of steps, at a lower rate."""
    first, steps = run.settings(), run.configuration.rounds.steps
    limit = None if first.max_seconds is None else first.max_seconds * steps / first.steps
    rate = _RATE * first.learning_rate
    return replace(first, steps=steps, max_seconds=limit, learning_rate=rate)


def _uncertainties(
    run: Run, number: int, predictor: Predictor, looked_at: Mapping[str, Structure]
) -> dict[str, float]:
    """Energy uncertainty of a round's candidates, meV/atom; kept in the round's folder."""
    path, digest = _folder(run, number) / "candidates.json", model_digest(predictor)
    record = _read(path)
    known = record.get("uncertainty_mev_per_atom", {})
    if record.get("model") == digest and known.keys() == looked_at.keys():
        return known
    result = {}
    with run.progress.stage(f"round {number}: candidates", len(looked_at)) as advance:
        for name, structure in looked_at.items():
            result[name] = energy_uncertainty(predictor, structure)
            advance(1)
    content = {"model": digest, "uncertainty_mev_per_atom": result}
    write_atomically(path, json.dumps(content, indent=1))
    return result


def _record_errors(
    run: Run,
    number: int,
    predictor: Predictor,
    names: Sequence[str],
    added: Sequence[str],
    uncertainty: float | None,
) -> None:
    """Write a round's row, unless that of this model is there."""
    path, digest = _folder(run, number) / "errors.json", model_digest(predictor)
    if _read(path).get("model") == digest:
        return
    row = {
        "round": number,
        "structures": len(names),
        "added": list(added),
        "mean_candidate_uncertainty_mev_per_atom": uncertainty,
        **run.mean_errors(predictor, run.split[1]),
    }
    write_atomically(path, json.dumps({"model": digest, "row": row}, indent=1))


def model_digest(predictor: Predictor) -> str:
    """Short for what a trained model depends on."""
    return hashlib.sha256(predictor.provenance["key"].encode()).hexdigest()


def _read(path: Path) -> dict[str, Any]:
    """A record, empty where there is none yet."""
    return json.loads(path.read_text()) if path.is_file() else {}
