"""Contracts as callable checks, for function spaces, energy terms, descriptors and models.

Run them on your own class; they raise :class:`AssertionError` with what is wrong.
"""

from fedens.testing.descriptors import check_descriptor
from fedens.testing.differences import central_difference
from fedens.testing.models import check_model
from fedens.testing.spaces import check_function_space
from fedens.testing.terms import check_energy_term, check_uniform_response

__all__ = [
    "central_difference",
    "check_descriptor",
    "check_energy_term",
    "check_function_space",
    "check_model",
    "check_uniform_response",
]
