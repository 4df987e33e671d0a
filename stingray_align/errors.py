"""Exceptions and warnings with one meaning each, so that callers can catch them by name."""

from astropy.utils.exceptions import AstropyUserWarning

__all__ = ["DomainShiftWarning", "EventDataError", "EventDataWarning", "MissingModelError",
           "ModelFileError", "ServiceError"]


class EventDataError(ValueError):
    """An event list, event file or region cannot be used; the message says what to do."""


class ModelFileError(ValueError):
    """A saved model, aligner or catalogue is damaged or of another version."""


class MissingModelError(OSError):
    """A text model or an optional package is not on this machine and cannot be fetched."""


class ServiceError(OSError):
    """A service on the network cannot be reached, refuses, or answers what cannot be read."""


class DomainShiftWarning(AstropyUserWarning):
    """The data differ from what the model was trained on; results are to be read with care."""


class EventDataWarning(AstropyUserWarning):
    """Something in an event list was missing or odd and a documented choice was made."""
