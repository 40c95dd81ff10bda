"""Devices by name."""

from __future__ import annotations

import torch

from fedens.errors import DeviceError


def resolve_device(name: str) -> torch.device:
    """``auto``, ``cpu`` or ``cuda`` as a torch device.

    Raises:
        DeviceError: a device that this machine lacks.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name not in ("cpu", "cuda"):
        raise DeviceError(f"device is {name!r}; expected 'auto', 'cpu' or 'cuda'")
    if name == "cuda" and not torch.cuda.is_available():
        raise DeviceError("device 'cuda' was asked for, but torch finds no GPU here; use 'auto'")
    return torch.device(name)
