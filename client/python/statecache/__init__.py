"""Client of statecached, a prefix cache for the states and KV blocks of language models.

Units: tokens for positions, seconds (float) for times, bytes for sizes. Whatever fails, is refused or is lost
means "compute it". Every function may be called from any thread; those named wait, settle or drain and the
copies read_into and write_from block, each with a time limit, and release the interpreter lock while they do.
"""

from __future__ import annotations

from ._session import Piece, Session, Slot, Ticket, admin, admin_stream, library_version
from ._types import (
    UNKNOWN,
    Addressing,
    Answer,
    Cost,
    Counters,
    Domain,
    Grant,
    Group,
    Have,
    Hold,
    Lease,
    Mark,
    Member,
    Memory,
    Namespace,
    Need,
    Point,
    State,
    TicketRef,
    Tier,
    Want,
    digest,
)
from .errors import (
    AlreadyExists,
    Busy,
    Closed,
    Corrupt,
    Error,
    Internal,
    InvalidArgument,
    IOFailure,
    NoSpace,
    NotFound,
    OutOfMemory,
    PermissionDenied,
    Timeout,
    Unsupported,
    WrongVersion,
)

__version__ = "0.1.0"

__all__ = [
    "UNKNOWN", "Addressing", "AlreadyExists", "Answer", "Busy", "Closed", "Corrupt", "Cost", "Counters", "Domain",
    "Error", "Grant", "Group", "Have", "Hold", "IOFailure", "Internal", "InvalidArgument", "Lease", "Mark", "Member",
    "Memory", "Namespace", "Need", "NoSpace", "NotFound", "OutOfMemory", "PermissionDenied", "Piece", "Point",
    "Session", "Slot", "State", "Ticket", "TicketRef", "Tier", "Timeout", "Unsupported", "Want", "WrongVersion",
    "admin", "admin_stream", "digest", "library_version",
]
