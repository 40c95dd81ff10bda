"""The last density of a calculation in a file, from which a killed one goes on."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fedens.energy.kohn_sham import KohnSham
from fedens.errors import DatasetError
from fedens.fem.tensor import TensorSpace
from fedens.files import write_atomically
from fedens.structure import Structure


@dataclass(frozen=True)
class Checkpoint:
    """A density in a numpy archive, and of what.

    Attributes:
        path: the file. identity: the structure's digest, space and functional, as JSON.
        space: where the density lives.
    """

    path: Path
    identity: str
    space: TensorSpace

    @classmethod
    def of(
        cls,
        path: str | Path | None,
        structure: Structure,
        space: TensorSpace,
        functional: KohnSham,
    ) -> Checkpoint | None:
        """The checkpoint of a calculation; None without a path."""
        if path is None:
            return None
        parts = [structure.digest, space.describe(), functional.describe()]
        identity = json.dumps(parts, sort_keys=True)
        return cls(Path(path), identity, space)

    def write(self, density: Tensor) -> None:
        """Keep a density (n_points,)."""

        def save(path: Path) -> None:
            with path.open("wb") as file:
                np.savez(file, density=density.cpu().numpy(), identity=np.array(self.identity))

        write_atomically(self.path, save)

    def density(self) -> Tensor | None:
        """The density kept, (n_points,); None where there is no file.

        Raises:
            DatasetError: a file of another structure, space or functional, or a broken one.
        """
        if not self.path.exists():
            return None
        if self.path.is_dir():
            raise DatasetError(
                f"{self.path} is a folder: give a file in it, such as {self.path}/density.npz"
            )
        try:
            with self.path.open("rb") as file:
                arrays = np.load(file, allow_pickle=False)
                density, identity = arrays["density"], str(arrays["identity"])
        except (OSError, EOFError, ValueError, LookupError, zipfile.BadZipFile) as error:
            raise DatasetError(
                f"{self.path} is no checkpoint of a density ({error}); delete it to start anew"
            ) from error
        if identity != self.identity:
            raise DatasetError(
                f"{self.path} holds the density of another structure, space or functional; delete "
                "it, or give this calculation a file of its own"
            )
        return torch.tensor(density, device=self.space.device)

    def remove(self) -> None:
        """Delete the file; the calculation is at its end."""
        self.path.unlink(missing_ok=True)
