"""Values by chemical symbol, or one for every element."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeVar

Value = TypeVar("Value")


class _EveryElement(Mapping[str, Value]):
    """One value for whichever element is asked for; described under ``*``."""

    def __init__(self, value: Value):
        self._value = value

    def __getitem__(self, symbol: str) -> Value:
        return self._value

    def __contains__(self, symbol: object) -> bool:
        return True

    def __iter__(self) -> Iterator[str]:
        return iter(["*"])

    def __len__(self) -> int:
        return 1


def by_symbol(value: Value | Mapping[str, Value]) -> Mapping[str, Value]:
    """A mapping of symbols to values; ``*``, or a value alone, stands for every element."""
    if isinstance(value, Mapping):
        return _EveryElement(value["*"]) if set(value) == {"*"} else dict(value)
    return _EveryElement(value)
