"""Values by chemical symbol, or one for every element."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

Value = TypeVar("Value")


class _EveryElement(dict[str, Value]):
    """One value for whichever element is asked for; described under ``*``."""

    def __missing__(self, symbol: str) -> Value:
        return self["*"]

    def __contains__(self, symbol: object) -> bool:
        return True


def by_symbol(value: Value | Mapping[str, Value]) -> Mapping[str, Value]:
    """A mapping of symbols to values; ``*``, or a value alone, stands for every element."""
    if not isinstance(value, Mapping):
        return _EveryElement({"*": value})
    return _EveryElement(value) if set(value) == {"*"} else dict(value)
