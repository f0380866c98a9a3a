"""What can go wrong. Each class is also the built-in exception that says the same."""

from __future__ import annotations

from typing import Dict, Type


class Error(Exception):
    """Base of all errors of this package; ``code`` is the number of the C API."""

    code: int = 13

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        if code:
            self.code = code


class InvalidArgument(Error, ValueError):
    """The call can never work."""

    code = 1


class NotFound(Error, LookupError):
    """No such ticket, socket or name; or the ticket was lost."""

    code = 2


class AlreadyExists(Error):
    code = 3


class NoSpace(Error):
    """Out of capacity, quota or descriptors."""

    code = 4


class PermissionDenied(Error, PermissionError):
    code = 5


class Unsupported(Error, NotImplementedError):
    """This library, machine or daemon cannot do it."""

    code = 6


class IOFailure(Error, OSError):
    """A system call failed."""

    code = 7


class Corrupt(Error):
    """The daemon sent what it must not send."""

    code = 8


class WrongVersion(Error):
    """The daemon speaks another version."""

    code = 9


class Closed(Error, ConnectionError):
    """The daemon has gone, or the session crossed a fork: compute it, and attach anew."""

    code = 10


class Timeout(Error, TimeoutError):
    code = 11


class Busy(Error):
    """The ring is full (nothing was sent), or the answer is not there yet."""

    code = 12


class Internal(Error):
    code = 13


class OutOfMemory(Error, MemoryError):
    code = 14


BY_CODE: Dict[int, Type[Error]] = {
    kind.code: kind
    for kind in (
        InvalidArgument,
        NotFound,
        AlreadyExists,
        NoSpace,
        PermissionDenied,
        Unsupported,
        IOFailure,
        Corrupt,
        WrongVersion,
        Closed,
        Timeout,
        Busy,
        Internal,
        OutOfMemory,
    )
}
