"""Descriptors of the atoms as seen from reference points.

All kinds are imported here, so that a stored description finds its class.
"""

from fedens.features.descriptor import Concatenation, Descriptor, descriptor_from_description
from fedens.features.gmp import GMP
from fedens.features.lode import LODE
from fedens.features.points import reference_points
from fedens.features.response import ResponseFields
from fedens.features.spectrum import PowerSpectrum

__all__ = [
    "GMP",
    "LODE",
    "Concatenation",
    "Descriptor",
    "PowerSpectrum",
    "ResponseFields",
    "descriptor_from_description",
    "reference_points",
]
