"""Checkpoints of a fit: weights and the optimiser's moments as safetensors, the rest as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fedens.files import write_atomically

_RECORD = "checkpoint.json"
#: AdamW's state of a parameter; its steps are fewer where some losses do not depend on it.
_STATE = ("step", "exp_avg", "exp_avg_sq")


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A fit after some steps.

    Attributes:
        tensors: ``weights.NAME``, and AdamW's ``step.NAME``, ``exp_avg.NAME`` and
            ``exp_avg_sq.NAME`` of every parameter that has them. step: steps done. seconds: that
            they took.
        history: the losses recorded.
    """

    tensors: dict[str, Tensor]
    step: int
    seconds: float
    history: dict[str, list[Any]]

    @classmethod
    def of(
        cls,
        network: nn.Module,
        optimiser: torch.optim.Optimizer,
        step: int,
        seconds: float,
        history: dict[str, list[Any]],
    ) -> Checkpoint:
        """The present state of a network and its AdamW."""
        tensors = {f"weights.{k}": v for k, v in network.state_dict().items()}
        for name, parameter in network.named_parameters():
            state = optimiser.state.get(parameter, {})
            tensors |= {f"{key}.{name}": state[key] for key in _STATE if key in state}
        tensors = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
        return cls(tensors, step, seconds, history)

    def restore(self, network: nn.Module, optimiser: torch.optim.Optimizer) -> None:
        """Put a network and its fresh AdamW into this state."""
        network.load_state_dict(under(self.tensors, "weights."))
        for name, parameter in network.named_parameters():
            if f"step.{name}" in self.tensors:
                step, *moments = (self.tensors[f"{key}.{name}"] for key in _STATE)
                values = (step, *(moment.to(parameter) for moment in moments))
                optimiser.state[parameter] = dict(zip(_STATE, values, strict=True))


def under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with a prefix, without it."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def write_checkpoint(folder: Path, identity: str, checkpoint: Checkpoint) -> None:
    """Write a checkpoint whole, in the place of the one before.

    Raises:
        OutputError: it cannot be written.
    """
    name = f"checkpoint-{checkpoint.step}.safetensors"
    write_atomically(folder / name, lambda path: save_file(checkpoint.tensors, path))
    record = {"file": name, "identity": identity, "step": checkpoint.step}
    record |= {"seconds": checkpoint.seconds, "history": checkpoint.history}
    write_atomically(folder / _RECORD, json.dumps(record))
    for old in folder.glob("checkpoint-*.safetensors"):
        if old.name != name:
            old.unlink()


def read_checkpoint(folder: Path, identity: str) -> Checkpoint | None:
    """The last checkpoint of a fit, if there is one of this identity that can be read."""
    try:
        record = json.loads((folder / _RECORD).read_text())
        if record["identity"] != identity:
            return None
        tensors = load_file(folder / record["file"])
        return Checkpoint(tensors, record["step"], record["seconds"], record["history"])
    except (OSError, ValueError, KeyError, TypeError, SafetensorError):
        return None  # it can be done again
