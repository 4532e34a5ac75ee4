"""Every error that a process of this project raises on purpose.

An error says whose fault it is; `serving` decides which gRPC status that is:

    RespanError
    ├── InputError            the caller asked for something impossible
    │   ├── SettingsError     ... in a settings file; names file, line, key and value
    │   └── ModelError        ... of a model folder that cannot do it
    ├── VolumeNotFoundError   nothing is stored at that URI
    ├── VolumeFormatError     something is stored, but it breaks its format's contract
    ├── StorageError          the object store is away, or refuses
    ├── CapacityError         the request is too large for this machine
    │   └── BusyError         ... for now: the same request may succeed later
    └── CancelledError        the caller went away or asked to stop

A message names the thing, the value, and the way out.
"""

RETRY_AFTER = "retry-after-s"
"""Trailing metadata of a refusal that holds for now only: seconds until it is worth a new try."""


class RespanError(Exception):
    """Anything that this project raises on purpose."""


class InputError(RespanError):
    """The caller asked for something impossible."""


class SettingsError(InputError):
    """A settings file is missing, unreadable, or says something impossible."""


class ModelError(InputError):
    """A model folder is incomplete, unsafe, or does not fit the request."""


class VolumeNotFoundError(RespanError):
    """Nothing is stored at that URI."""


class VolumeFormatError(RespanError):
    """Something is stored there, but it breaks its format's contract."""


class StorageError(RespanError):
    """The object store is away, or refuses what it is asked for."""


class CapacityError(RespanError):
    """The request is too large for this machine."""


class BusyError(CapacityError):
    """Others use what the request needs; the same request may succeed later."""

    def __init__(self, text: str, retry_after_s: float = 15.0) -> None:
        super().__init__(text)
        self.retry_after_s = retry_after_s


class CancelledError(RespanError):
    """The caller went away or asked to stop."""
