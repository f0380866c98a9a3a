"""The values that go in and come out. All are immutable."""

from __future__ import annotations

import enum
import hashlib
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Sequence, Tuple, Union

if TYPE_CHECKING:
    from ._session import Piece

#: Not known, or no limit; where a count or a position of tokens may be so.
UNKNOWN = 0xFFFFFFFF

_ZERO = bytes(32)


def digest(*parts: Union[bytes, str]) -> bytes:
    """32 bytes that name these parts: SHA-256 over them with their lengths."""
    out = hashlib.sha256()
    for part in parts:
        raw = part.encode() if isinstance(part, str) else bytes(part)
        out.update(struct.pack("<Q", len(raw)))
        out.update(raw)
    return out.digest()


class Need(enum.IntEnum):
    """What resuming at position p needs of a group."""

    EVERY = 0  #: every block of [0, p): full attention, MLA
    LAST = 1  #: the blocks of the last ``window`` tokens
    END = 2  #: a state at exactly p: recurrent layers


class Addressing(enum.IntEnum):
    TOKENS = 0
    KEYS = 1


class Hold(enum.IntEnum):
    NONE = 0  #: a ticket only for saving
    SOFT = 1  #: load it and protect it for a while
    LEASE = 2  #: also give addresses


class State(enum.IntEnum):
    PENDING = 0
    LOADING = 1
    READY = 2
    FAILED = 3
    LOST = 4


class Tier(enum.IntEnum):
    DEVICE = 0
    HOST = 1
    NVME = 2
    NOWHERE = 255


class Grant(enum.IntEnum):
    PENDING = 0
    GRANTED = 1  #: write, then commit
    EXISTS = 2  #: stored already
    IN_FLIGHT = 3  #: another is writing it
    DECLINED = 4  #: not worth keeping, tainted, read-only, or what it hangs on is missing
    NO_SPACE = 5


@dataclass(frozen=True)
class Group:
    """A kind of state. ``max_bytes``: largest payload of one shard of one object."""

    name: str
    max_bytes: int
    need: Need = Need.EVERY
    block_tokens: int = 64  #: ignored for Need.END
    window: int = 0  #: tokens, for Need.LAST
    lookahead: int = 0  #: an object that ends at e serves resuming at e - lookahead
    shards: int = 1
    contiguous: bool = False  #: one shard must lie in one extent: needed for Piece.numpy() without a copy
    token_major: bool = True  #: a partial block needs only its share of max_bytes


@dataclass(frozen=True)
class Cost:
    """FLOPs of prefilling tokens a..b: c0 + c1 (b-a) + c2 (b^2-a^2), and window_c2 capped at ``window``."""

    c0: float = 0.0
    c1: float = 0.0
    c2: float = 0.0
    window_c2: float = 0.0
    window: int = 0


@dataclass(frozen=True)
class Namespace:
    """One model as one engine lays it out. Another content (all but name and cost) is another namespace."""

    name: str
    groups: Sequence[Group]
    model: bytes = _ZERO  #: 32 bytes: weights, revision, quantisation ...; see digest()
    layout: bytes = _ZERO  #: 32 bytes: strides, data types, build
    resume_grid: int = 1  #: resume only at multiples of it
    checkpoint_grid: int = 1  #: checkpoints only at multiples of it
    checkpoints_per_chunk: int = 0  #: how many the engine can take in one chunk of a prefill; 0: any
    cost: Cost = field(default_factory=Cost)
    addressing: Addressing = Addressing.TOKENS
    tokens_per_key: int = 0  #: keyed only
    key_bytes: int = 0  #: keyed only: 16 to 32


@dataclass(frozen=True)
class Member:
    """This process within the engine. Processes with the same ``engine`` may share tickets."""

    engine: bytes = _ZERO
    rank: int = 0
    world: int = 1
    shard: Sequence[int] = ()  #: its shard of each group; empty: shard 0 of all
    program: str = ""


@dataclass(frozen=True)
class Domain:
    """What else the state depends on. Another domain shares nothing, from the first token on."""

    adapter: bytes = _ZERO  #: 32 bytes; a LoRA
    salt: bytes = _ZERO  #: 32 bytes; a tenant, a user


@dataclass(frozen=True)
class Mark:
    """Tokens [at, at + length) stand for other content (an image)."""

    at: int
    length: int
    content: bytes
    atomic: bool = False  #: never resumed strictly inside


@dataclass(frozen=True)
class Have:
    """Already in the engine: KV of the first ``every`` tokens; the state after ``end`` tokens."""

    every: int = 0
    end: int = 0


@dataclass(frozen=True)
class Point:
    """One depth that the request could resume from."""

    tokens: int
    tier: Tier  #: the lowest tier that any part of it needs
    bytes: int  #: to be loaded
    ready_in: float  #: seconds
    recompute: float  #: seconds that prefilling [0, tokens) would take instead


@dataclass(frozen=True)
class Answer:
    """What is there of a request."""

    state: State
    version: int  #: grows with every change
    best: int  #: tokens of the depth that was chosen; 0: compute all
    usable: int  #: deepest depth that is ready now
    stored: int  #: tokens for which all groups of Need.EVERY have KV
    points: Tuple[Point, ...]  #: ascending depth
    wishes: Tuple[int, ...]  #: checkpoints to take, most wanted first


@dataclass(frozen=True)
class Want:
    """A block [first, end) of a group, or, with first == end, the state after ``end`` tokens."""

    group: int
    first: int
    end: int
    bytes: int = 0  #: payload of one shard; 0: what the group's layout says


@dataclass(frozen=True)
class Memory:
    """The caller's memory for this member's shard of one object: anything with the buffer protocol, contiguous
    (a numpy array, a bytearray, a pinned torch tensor's .numpy())."""

    group: int
    at: int  #: first token of the block; tokens before the state
    buffer: Any
    valid: int = 0  #: write_from: tokens in the block; ignored for a state


@dataclass(frozen=True)
class Lease:
    """Good until Ticket.release(): after that the views of its pieces show other objects."""

    tokens: int  #: resume here; 0: compute all
    pieces: Tuple["Piece", ...]  #: token order


@dataclass(frozen=True)
class TicketRef:
    """A ticket's name across processes of one engine: plain bytes."""

    low: int
    high: int

    def to_bytes(self) -> bytes:
        return struct.pack("<QQ", self.low, self.high)

    @classmethod
    def from_bytes(cls, raw: bytes) -> "TicketRef":
        low, high = struct.unpack("<QQ", raw)
        return cls(low, high)


@dataclass(frozen=True)
class Counters:
    """Of a session since it began."""

    posted: int  #: records sent
    busy: int  #: records not sent, the ring was full
    errors: int  #: records that the daemon refused
    committed: int  #: slots accepted
    refused: int  #: slots refused at commit
    returned: int  #: granted slots that nobody was left to fill, given back


def digest_bytes(value: bytes, what: str, least: int = 32) -> bytes:
    """32 bytes; shorter ones (keys) are filled with zeros."""
    raw = bytes(value)
    if not least <= len(raw) <= 32:
        raise ValueError(f"{what} must have {least} to 32 bytes, not {len(raw)}" if least < 32 else
                         f"{what} must have 32 bytes, not {len(raw)}")
    return raw.ljust(32, b"\0")


