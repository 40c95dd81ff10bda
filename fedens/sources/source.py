"""What gives a run its structures."""

from __future__ import annotations

from typing import Protocol

from fedens.structure import Structure


class Source(Protocol):
    """Structures in an order: the same object and ``seed`` give the same ones."""

    def structures(self, seed: int = 0) -> list[Structure]:
        """Those that are asked for."""

    def further(self, count: int, seed: int = 0) -> dict[int, Structure]:
        """``count`` structures beyond those: place in the order -> structure.

        Raises:
            StructureError: fewer are left.
        """
