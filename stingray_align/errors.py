"""Exceptions and warnings with one meaning each, so that callers can catch them by name."""

from astropy.utils.exceptions import AstropyUserWarning

__all__ = ["ArchiveError", "DomainShiftWarning", "EventDataError", "EventDataWarning",
           "MissingModelError", "ModelFileError", "PartitionError"]


class ArchiveError(OSError):
    """An archive cannot be reached, refuses, or sent what is damaged or must not be unpacked."""


class EventDataError(ValueError):
    """An event list, event file or region cannot be used; the message says what to do."""


class ModelFileError(ValueError):
    """A saved model, aligner or catalogue is damaged or of another version."""


class MissingModelError(OSError):
    """A text model or an optional package is not on this machine and cannot be fetched."""


class PartitionError(OSError):
    """Partitions of a catalogue on disk could not be read or written; the message names them."""


class DomainShiftWarning(AstropyUserWarning):
    """The data differ from what the model was trained on; results are to be read with care."""


class EventDataWarning(AstropyUserWarning):
    """Something in an event list was missing or odd and a documented choice was made."""
