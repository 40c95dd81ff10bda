"""Descriptors of the atoms as seen from reference points."""

from fedens.features.descriptor import Concatenation, Descriptor, descriptor_from_description
from fedens.features.gmp import GMP
from fedens.features.points import reference_points
from fedens.features.scaling import Standardise

__all__ = [
    "GMP",
    "Concatenation",
    "Descriptor",
    "Standardise",
    "descriptor_from_description",
    "reference_points",
]
