"""Errors that fedens raises. All derive from :class:`FedensError`."""

from __future__ import annotations


class FedensError(Exception):
    """Base of every error that fedens raises on purpose."""


class StructureError(FedensError, ValueError):
    """A structure that cannot be used: NaN, overlapping atoms, unknown element, bad cell."""


class SpaceError(FedensError, ValueError):
    """A function space that cannot be built, or a mesh too coarse for what is asked of it."""


class FunctionalError(FedensError, ValueError):
    """An energy functional that is not defined for the system or the parameters given."""


class PseudopotentialError(FedensError, ValueError):
    """A pseudopotential that is missing, malformed or unsuited."""


class SamplingError(FedensError, ValueError):
    """K-points, a smearing or a number of bands that do not fit each other or the system."""


class ConvergenceError(FedensError, RuntimeError):
    """A calculation that did not converge. The unfinished result is in ``result``."""

    def __init__(self, message: str, result: object = None):
        super().__init__(message)
        self.result = result


class DescriptorError(FedensError, ValueError):
    """Descriptor parameters that cannot be used, or an element without data."""


class DatasetError(FedensError, ValueError):
    """A data set or sample that is truncated, foreign, inconsistent or of another version."""


class ModelError(FedensError, ValueError):
    """A model folder that is broken or does not fit what it is used for."""


class ConfigurationError(FedensError, ValueError):
    """A configuration with an unknown key, a wrong type or a value out of range."""


class DeviceError(FedensError, RuntimeError):
    """A device was asked for that this machine does not have."""


class RunLockedError(FedensError, RuntimeError):
    """A run folder that another process is at work in."""


class OutputError(FedensError, OSError):
    """A file or folder that cannot be written."""


class MixtureWarning(UserWarning):
    """Parts of a calculation that were made for different functionals."""


class ExtrapolationWarning(UserWarning):
    """A model is asked about structures unlike those it was trained on."""
