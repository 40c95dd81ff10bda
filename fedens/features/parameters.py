"""Checks of the parameters of descriptors."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fedens.errors import DescriptorError


def finite(name: str, value: float) -> float:
    """The value as a float; raises :class:`DescriptorError` unless it is finite."""
    number = float(value)
    if not math.isfinite(number):
        raise DescriptorError(f"{name} is {value}: not a finite number")
    return number


def positive(name: str, value: float) -> float:
    """The value as a float; raises :class:`DescriptorError` unless it is finite and positive."""
    number = float(value)
    if not (math.isfinite(number) and number > 0):
        raise DescriptorError(f"{name} is {value}: expected a positive number")
    return number


def different(name: str, values: Sequence[float]) -> tuple[float, ...]:
    """The values as floats; raises :class:`DescriptorError` unless positive and different."""
    result = tuple(positive(name, value) for value in values)
    if not result or len(set(result)) != len(result):
        raise DescriptorError(f"{name} is {list(values)}: expected different positive numbers")
    return result


def whole(name: str, value: int, largest: int) -> int:
    """The value; raises :class:`DescriptorError` unless it is whole and 0 to ``largest``."""
    if isinstance(value, bool) or int(value) != value or not 0 <= value <= largest:
        raise DescriptorError(f"{name} is {value}: expected a whole number, 0 to {largest}")
    return int(value)


def one_of(name: str, value: str, allowed: Sequence[str]) -> str:
    """The value; raises :class:`DescriptorError` unless it is one of those allowed."""
    if value not in allowed:
        raise DescriptorError(f"{name} is {value!r}: expected one of {', '.join(allowed)}")
    return value
