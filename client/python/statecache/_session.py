"""Session and Ticket: the calls."""

from __future__ import annotations

import array
import ctypes
from types import TracebackType
from typing import Any, Callable, Iterable, List, Optional, Sequence, Tuple, Type, Union

from . import _abi
from ._abi import lib, sized
from ._types import (
    UNKNOWN,
    Answer,
    Counters,
    Domain,
    Grant,
    Have,
    Hold,
    Lease,
    Mark,
    Member,
    Memory,
    Namespace,
    Point,
    State,
    TicketRef,
    Tier,
    Want,
    digest_bytes,
)
from .errors import BY_CODE, Closed, Error, InvalidArgument

#: Token ids: a list of ints, or anything that holds uint32 in one run of memory (taken without a copy).
Tokens = Union[Sequence[int], Any]


def _check(code: int) -> None:
    if code != 0:
        kind = BY_CODE.get(code, Error)
        text = lib.statecache_last_error().decode(errors="replace")
        raise kind(text or lib.statecache_strerror(code).decode(), code)


def _micros(seconds: float) -> int:
    # Far enough is for ever.
    return max(0, min(int(seconds * 1e6), 1 << 50))


def _digest(raw: bytes, what: str, least: int = 32) -> Any:
    return _abi.statecache_digest.from_buffer_copy(digest_bytes(raw, what, least))


def _tokens(tokens: Tokens) -> Tuple[Any, int, Any]:
    """(pointer, count, what must stay alive)."""
    if isinstance(tokens, (list, tuple, range)):
        tokens = array.array("I", tokens)
    flat: Any = tokens
    view = memoryview(flat)
    if view.itemsize != 4 or view.format not in ("I", "i", "L", "l", "=I", "<I") or not view.c_contiguous:
        raise InvalidArgument("tokens must be integers of 32 bits in one run of memory, or a list")
    count = view.nbytes // 4
    if count == 0:
        return None, 0, None
    address, keep = _address(view)
    return ctypes.cast(address, ctypes.POINTER(ctypes.c_uint32)), count, keep


class _PyBuffer(ctypes.Structure):
    _fields_ = [
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.py_object),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    ]


_get_buffer = ctypes.pythonapi.PyObject_GetBuffer
_get_buffer.argtypes = [ctypes.py_object, ctypes.POINTER(_PyBuffer), ctypes.c_int]
_get_buffer.restype = ctypes.c_int
_release_buffer = ctypes.pythonapi.PyBuffer_Release
_release_buffer.argtypes = [ctypes.POINTER(_PyBuffer)]
_release_buffer.restype = None


class _Address:
    """Holds a buffer open; its address, also of one that is read-only."""

    def __init__(self, source: Any, writable: bool) -> None:
        self._buffer = _PyBuffer()
        # PyBUF_SIMPLE or PyBUF_WRITABLE; both demand one contiguous run.
        if _get_buffer(source, ctypes.byref(self._buffer), 1 if writable else 0) != 0:
            raise InvalidArgument("a buffer that is not contiguous")
        self.value: int = self._buffer.buf or 0
        self.bytes: int = self._buffer.len

    def __del__(self) -> None:
        _release_buffer(ctypes.byref(self._buffer))


def _address(source: Any, writable: bool = False) -> Tuple[int, _Address]:
    keep = _Address(source, writable)
    return keep.value, keep


def _marks(marks: Sequence[Mark]) -> Any:
    rows = []
    for mark in marks:
        row = sized(_abi.statecache_mark, at=mark.at, length=mark.length, atomic=int(mark.atomic))
        row.content = _digest(mark.content, "a mark's content")
        rows.append(row)
    return _abi.array_of(_abi.statecache_mark, rows)


def _domain(domain: Optional[Domain]) -> Any:
    if domain is None:
        return None
    out = sized(_abi.statecache_domain)
    out.adapter = _digest(domain.adapter, "adapter")
    out.salt = _digest(domain.salt, "salt")
    return ctypes.pointer(out)


def _keys(keys: Sequence[bytes]) -> Any:
    return _abi.array_of(_abi.statecache_digest, [_digest(key, "a key", 16) for key in keys])


def _have(have: Optional[Have]) -> Any:
    if have is None:
        return None
    return ctypes.pointer(sized(_abi.statecache_have, every=have.every, end=have.end))


class _Handle:
    """The C session. Views of its memory hold on to it: it ends when the last of them is gone."""

    def __init__(self, value: int) -> None:
        self.value = value
        self._detach = lib.statecache_detach

    def __del__(self) -> None:
        self._detach(self.value)


class _Bytes:
    """What Piece and Slot have in common: bytes of the arena, as views without a copy."""

    __slots__ = ("_handle", "_extents", "bytes")

    def __init__(self, handle: _Handle, extents: Tuple[Tuple[int, int], ...], count: int) -> None:
        self._handle = handle
        self._extents = extents
        self.bytes = count

    @property
    def extents(self) -> Tuple[Tuple[int, int], ...]:
        """(address, bytes) of each run."""
        return self._extents

    def _views(self, writable: bool) -> List[memoryview]:
        out = []
        for address, size in self._extents:
            block: Any = (ctypes.c_ubyte * size).from_address(address)
            block._statecache = self._handle  # keeps the mapping
            view = memoryview(block).cast("B")
            out.append(view if writable else view.toreadonly())
        return out

    def _one(self, writable: bool) -> memoryview:
        if len(self._extents) != 1:
            raise InvalidArgument(
                f"the object lies in {len(self._extents)} runs: use views(), or make the group contiguous"
            )
        return self._views(writable)[0]


class Piece(_Bytes):
    """This member's shard of one object under a lease. Read-only; good until the ticket's release."""

    __slots__ = ("group", "shard", "first", "valid", "tier")

    def __init__(self, handle: _Handle, row: Any) -> None:
        super().__init__(handle, _extents_of(row), row.bytes)
        self.group: int = row.group
        self.shard: int = row.shard
        self.first: int = row.first  #: block: its first token; checkpoint: state after so many
        self.valid: int = row.valid  #: block: tokens that count here; checkpoint: 0
        self.tier = Tier(row.tier)

    def views(self) -> List[memoryview]:
        """One read-only view of each run; no copy."""
        return self._views(False)

    def numpy(self, dtype: Any = "uint8") -> Any:
        """A read-only numpy array over the arena's memory; no copy. InvalidArgument: more than one run."""
        import numpy

        return numpy.frombuffer(self._one(False), dtype=dtype)

    def torch(self, dtype: Any = None) -> Any:
        """A torch tensor (uint8, or viewed as ``dtype``) over the arena's memory; no copy. Never write to it."""
        return _torch_over(self._one(True), dtype)

    def tobytes(self) -> bytes:
        """A copy."""
        return b"".join(self._views(False))

    def __repr__(self) -> str:
        return f"Piece(group={self.group}, shard={self.shard}, first={self.first}, valid={self.valid}, bytes={self.bytes})"


class Slot(_Bytes):
    """The answer to one Want, or the shard of an object that another member of the ticket reserved."""

    __slots__ = ("id", "group", "shard", "first", "end", "grant")
    # bytes: payload; first == end: a state after so many tokens, else the block [first, end)

    def __init__(self, handle: _Handle, row: Any) -> None:
        super().__init__(handle, _extents_of(row), row.bytes)
        self.id: int = row.id  #: 0 unless granted
        self.group: int = row.group
        self.shard: int = row.shard
        self.first: int = row.first
        self.end: int = row.end
        self.grant = Grant(row.grant)

    @property
    def granted(self) -> bool:
        """To be written, and then committed or abandoned."""
        return self.grant == Grant.GRANTED

    def views(self) -> List[memoryview]:
        """One writable view of each run; no copy."""
        return self._views(True)

    def numpy(self, dtype: Any = "uint8") -> Any:
        """A writable numpy array over the slot; no copy. InvalidArgument: more than one run."""
        import numpy

        return numpy.frombuffer(self._one(True), dtype=dtype)

    def torch(self, dtype: Any = None) -> Any:
        """A torch tensor (uint8, or viewed as ``dtype``) over the slot; no copy."""
        return _torch_over(self._one(True), dtype)

    def write(self, data: Any) -> None:
        """Copies ``data`` (the buffer protocol; at most ``bytes`` long) into the slot."""
        source = memoryview(data).cast("B")
        if source.nbytes > self.bytes:
            raise InvalidArgument(f"{source.nbytes} bytes for a slot of {self.bytes}")
        at = 0
        for view in self._views(True):
            part = source[at : at + view.nbytes]
            view[: part.nbytes] = part
            at += part.nbytes

    def __repr__(self) -> str:
        return f"Slot(group={self.group}, shard={self.shard}, first={self.first}, end={self.end}, grant={self.grant.name})"


def _torch_over(view: memoryview, dtype: Any) -> Any:
    import torch

    out = torch.frombuffer(view, dtype=torch.uint8)
    return out if dtype is None else out.view(dtype)


def _extents_of(row: Any) -> Tuple[Tuple[int, int], ...]:
    return tuple((row.where[i].data or 0, row.where[i].bytes) for i in range(row.extent_count))


class Ticket:
    """One request. As a context manager it ends the ticket: finish and release, or cancel on an exception."""

    def __init__(self, session: "Session", number: int) -> None:
        self._session = session
        self._number = number

    @property
    def id(self) -> int:
        """Of this session; never used twice."""
        return self._number

    def _call(self, function: Callable[..., int], *arguments: Any) -> None:
        _check(function(self._session._handle().value, self._number, *arguments))

    # ---- find ----

    def poll(self, have: Optional[Have] = None) -> Answer:
        """The latest answer, without a round trip. A ticket that has ended answers State.LOST."""
        return self._answer(lib.statecache_poll, _have(have))

    def wait(self, timeout: float, have: Optional[Have] = None) -> Answer:
        """As poll, once the state is READY, FAILED or LOST, or the time is over (no error)."""
        return self._answer(lib.statecache_wait, _micros(timeout), _have(have))

    def _answer(self, function: Callable[..., int], *arguments: Any) -> Answer:
        out = sized(_abi.statecache_answer, point_size=ctypes.sizeof(_abi.statecache_point))
        self._call(function, *arguments, ctypes.byref(out))
        try:
            points = tuple(
                Point(p.tokens, Tier(p.tier), p.bytes, p.ready_in_us * 1e-6, p.recompute_us * 1e-6)
                for p in (out.points[i] for i in range(out.point_count))
            )
            wishes = tuple(out.wishes[i] for i in range(out.wish_count))
            return Answer(State(out.state), out.version, out.best, out.usable, out.stored, points, wishes)
        finally:
            lib.statecache_answer_clear(ctypes.byref(out))

    def refresh(self) -> None:
        """Matches again: what others stored since."""
        self._session.refresh([self])

    def acquire(self, at_most: int = UNKNOWN, have: Optional[Have] = None) -> None:
        """Asks to lease the deepest ready depth of at most ``at_most`` tokens; the lease comes by wait_lease."""
        self._call(lib.statecache_acquire, at_most, _have(have))

    # ---- across processes, and reading ----

    @property
    def ref(self) -> TicketRef:
        """To give to other processes of the engine, which Session.join it, once the daemon has answered begin (wait,
        wait_lease or settle): a join that overtakes it finds no such ticket."""
        out = _abi.statecache_ref()
        self._call(lib.statecache_get_ref, ctypes.byref(out))
        return TicketRef(out.low, out.high)

    def wait_lease(self, timeout: float) -> Lease:
        """The lease that begin(hold=Hold.LEASE), acquire or join asked for. Timeout; NotFound: lost."""
        out = sized(_abi.statecache_lease, piece_size=ctypes.sizeof(_abi.statecache_piece))
        self._call(lib.statecache_wait_lease, _micros(timeout), ctypes.byref(out))
        try:
            handle = self._session._handle()
            return Lease(out.tokens, tuple(Piece(handle, out.pieces[i]) for i in range(out.piece_count)))
        finally:
            lib.statecache_lease_clear(ctypes.byref(out))

    def read_into(self, memory: Sequence[Memory], timeout: float) -> List[bool]:
        """Waits for the lease and copies pieces into the caller's buffers; False where there is no such piece or
        the buffer is too small."""
        return self._copies(lib.statecache_read_into, memory, timeout, True)

    # ---- grow and save ----

    def append(self, tokens: Tokens, marks: Sequence[Mark] = (), computed: int = UNKNOWN) -> None:
        """The sequence goes on; the state of the first ``computed`` tokens of all is computed (UNKNOWN: all), or will be
        when what is reserved of them is committed. Marks: positions of the whole sequence."""
        pointer, count, keep = _tokens(tokens)
        self._call(lib.statecache_append, pointer, count, _marks(marks), len(marks), computed)
        del keep

    def append_keys(self, keys: Sequence[bytes], computed: int = UNKNOWN) -> None:
        """The same with the keys of further pages, in a namespace that is addressed by keys."""
        self._call(lib.statecache_append_keys, _keys(keys), len(keys), computed)

    def reserve(self, wants: Iterable[Want]) -> None:
        """Asks for space: all shards of an object or none. The answers come by wait_slots, for the other members of the
        ticket unasked. May be called before the state is computed."""
        rows = [sized(_abi.statecache_want, group=w.group, first=w.first, end=w.end, bytes=w.bytes) for w in wants]
        self._call(lib.statecache_reserve, _abi.array_of(_abi.statecache_want, rows), len(rows))

    def slots(self) -> List[Slot]:
        """Answered and not yet taken by wait_slots, without waiting."""
        return self._slots(lib.statecache_peek_slots)

    def wait_slots(self, timeout: float) -> List[Slot]:
        """Waits until every reserve is answered, and takes the answers: one a want, in order. Timeout: nothing is
        taken. Each granted slot must be committed or abandoned."""
        return self._slots(lib.statecache_wait_slots, _micros(timeout))

    def _slots(self, function: Callable[..., int], *arguments: Any) -> List[Slot]:
        out = sized(_abi.statecache_slots, slot_size=ctypes.sizeof(_abi.statecache_slot))
        self._call(function, *arguments, ctypes.byref(out))
        try:
            handle = self._session._handle()
            return [Slot(handle, out.items[i]) for i in range(out.count)]
        finally:
            lib.statecache_slots_clear(ctypes.byref(out))

    def write_from(self, memory: Sequence[Memory], timeout: float) -> List[bool]:
        """Reserves, waits, copies and commits; True: committed, or stored already. Each buffer has exactly the
        object's payload."""
        return self._copies(lib.statecache_write_from, memory, timeout, False)

    def _copies(self, function: Callable[..., int], memory: Sequence[Memory], timeout: float, write: bool) -> List[bool]:
        rows, keep = [], []
        for item in memory:
            address, held = _address(item.buffer, write)
            extent = _abi.statecache_extent(address, held.bytes)
            keep.append((held, extent))
            row = sized(_abi.statecache_memory, group=item.group, at=item.at, valid=item.valid, piece_count=1)
            row.pieces = ctypes.pointer(extent)
            rows.append(row)
        ok = (ctypes.c_uint8 * max(1, len(rows)))()
        self._call(function, _abi.array_of(_abi.statecache_memory, rows), len(rows), _micros(timeout), ok)
        del keep
        return [ok[i] != 0 for i in range(len(rows))]

    def taint(self) -> None:
        """The tokens no longer determine the state (context shift): nothing more is stored under the ticket."""
        self._call(lib.statecache_taint)

    # ---- end: each may be repeated ----

    def finish(self, computed: int = 0, prefilled: int = 0, prefill: float = 0.0) -> None:
        """No more appends and reserves. ``prefill``: seconds that computing ``prefilled`` prompt tokens took; it
        teaches the daemon what recomputing costs."""
        report = sized(_abi.statecache_report, computed=computed, prefilled=prefilled, prefill_us=_micros(prefill))
        self._call(lib.statecache_finish, ctypes.byref(report))

    def release(self) -> None:
        """This member reads no more: its pieces may be overwritten from here on."""
        self._call(lib.statecache_release)

    def cancel(self) -> None:
        """Stops loading; then as finish and release."""
        self._call(lib.statecache_cancel)

    def settle(self, timeout: float) -> None:
        """Waits until all that was posted is answered; raises the first thing that the daemon refused since."""
        self._call(lib.statecache_settle, _micros(timeout))

    def __enter__(self) -> "Ticket":
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        try:
            if kind is not None:
                self.cancel()
            else:
                self.finish()
                self.release()
        except Closed:
            pass  # nothing is left to end

    def __repr__(self) -> str:
        return f"Ticket({self._number})"


class Session:
    """One process's connection. A context manager: closes at the end. Of no use after fork: attach anew."""

    def __init__(self, socket: str, namespace: Namespace, member: Optional[Member] = None, timeout: float = 10.0) -> None:
        """Connects, opens the namespace (made when it is new) and maps the arenas. NotFound: no such socket;
        InvalidArgument says what of the namespace."""
        member = member if member is not None else Member()
        groups = []
        for g in namespace.groups:
            groups.append(
                sized(
                    _abi.statecache_group,
                    need=int(g.need),
                    name=g.name.encode(),
                    block_tokens=g.block_tokens,
                    window=g.window,
                    lookahead=g.lookahead,
                    shards=g.shards,
                    contiguous=int(g.contiguous),
                    token_major=int(g.token_major),
                    max_bytes=g.max_bytes,
                )
            )
        cost = sized(
            _abi.statecache_cost,
            window=namespace.cost.window,
            c0=namespace.cost.c0,
            c1=namespace.cost.c1,
            c2=namespace.cost.c2,
            window_c2=namespace.cost.window_c2,
        )
        space = sized(
            _abi.statecache_namespace,
            group_count=len(groups),
            name=namespace.name.encode(),
            model=_digest(namespace.model, "model"),
            layout=_digest(namespace.layout, "layout"),
            groups=_abi.array_of(_abi.statecache_group, groups),
            resume_grid=namespace.resume_grid,
            checkpoint_grid=namespace.checkpoint_grid,
            checkpoints_per_chunk=namespace.checkpoints_per_chunk,
            addressing=int(namespace.addressing),
            tokens_per_key=namespace.tokens_per_key,
            key_bytes=namespace.key_bytes,
            cost=ctypes.pointer(cost),
        )
        shards = (ctypes.c_uint16 * max(1, len(member.shard)))(*member.shard)
        who = sized(
            _abi.statecache_member,
            rank=member.rank,
            world=member.world,
            engine=_digest(member.engine, "engine"),
            shards=ctypes.cast(shards, ctypes.POINTER(ctypes.c_uint16)),
            shard_count=len(member.shard),
            program=member.program.encode(),
        )
        out = ctypes.c_void_p()
        _check(lib.statecache_attach(socket.encode(), ctypes.byref(space), ctypes.byref(who), _micros(timeout), ctypes.byref(out)))
        self._open: Optional[_Handle] = _Handle(out.value or 0)

    def _handle(self) -> _Handle:
        if self._open is None:
            raise Closed("this session was closed")
        return self._open

    # ---- what it is ----

    @property
    def connected(self) -> bool:
        """False once the daemon's end was seen."""
        return self._open is not None and bool(lib.statecache_connected(self._open.value))

    @property
    def name(self) -> str:
        """The namespace as people see it."""
        return str(lib.statecache_name(self._handle().value).decode())

    @property
    def epoch(self) -> int:
        """Of the daemon's run."""
        return int(lib.statecache_epoch(self._handle().value))

    @property
    def writable(self) -> bool:
        """Slots lie in the arena and are written in place. What is stored is read in place in either case."""
        return bool(lib.statecache_writable(self._handle().value))

    @property
    def counters(self) -> Counters:
        """Of this session since it began."""
        out = sized(_abi.statecache_counters)
        _check(lib.statecache_get_counters(self._handle().value, ctypes.byref(out)))
        return Counters(out.posted, out.busy, out.errors, out.committed, out.refused, out.returned)

    # ---- find ----

    def begin(
        self,
        tokens: Tokens,
        *,
        marks: Sequence[Mark] = (),
        domain: Optional[Domain] = None,
        parent: Optional[Ticket] = None,
        parent_tokens: int = 0,
        have: Have = Have(),
        hold: Hold = Hold.SOFT,
        keep_back: int = 1,
        at_most: int = UNKNOWN,
        deadline: float = 0.0,
        priority: int = 50,
        members: int = 0,
    ) -> Ticket:
        """Posts one record with the tokens, and returns at once: the answer comes by the ticket's poll, wait or
        wait_lease. ``parent``: its first ``parent_tokens`` come before ``tokens``. ``have``: what the engine has itself
        is neither loaded nor leased. ``keep_back``: tokens always left to compute (at least 1). ``at_most``: resume no
        deeper. ``deadline``: seconds from now; a prefetch (Hold.SOFT) that cannot make it is not started. ``members``:
        processes that will join; 0: all of the engine. InvalidArgument: more tokens than a record can carry (use
        parent and append). Busy: the ring is full."""
        pointer, count, keep = _tokens(tokens)
        ask = sized(
            _abi.statecache_ask,
            parent_tokens=parent_tokens,
            tokens=pointer,
            token_count=count,
            marks=_marks(marks),
            mark_count=len(marks),
            domain=_domain(domain),
            parent=parent.id if parent is not None else 0,
        )
        limits = self._limits(have, hold, keep_back, at_most, deadline, priority, members)
        ticket = self._begun(lib.statecache_begin, ask, limits)
        del keep
        return ticket

    def begin_keys(
        self,
        keys: Sequence[bytes],
        *,
        parent: Optional[bytes] = None,
        first_token: int = UNKNOWN,
        domain: Optional[Domain] = None,
        have: Have = Have(),
        hold: Hold = Hold.SOFT,
        at_most: int = UNKNOWN,
        deadline: float = 0.0,
        priority: int = 50,
        members: int = 0,
    ) -> Ticket:
        """For a namespace that is addressed by keys: one key a page, each chained over all before it. ``parent`` is
        the key before the first. Positions count from first_token; where that is UNKNOWN, from the run's beginning."""
        run = sized(
            _abi.statecache_key_run,
            first_token=first_token,
            keys=_keys(keys),
            key_count=len(keys),
            domain=_domain(domain),
        )
        if parent is not None:
            run.parent = ctypes.pointer(_digest(parent, "parent", 16))
        return self._begun(lib.statecache_begin_keys, run, self._limits(have, hold, 0, at_most, deadline, priority, members))

    @staticmethod
    def _limits(have: Have, hold: Hold, keep_back: int, at_most: int, deadline: float, priority: int, members: int) -> Any:
        return sized(
            _abi.statecache_limits,
            hold=int(hold),
            have_every=have.every,
            have_end=have.end,
            keep_back=keep_back,
            at_most=at_most,
            deadline_us=_micros(deadline),
            members=members,
            priority=priority,
        )

    def _begun(self, function: Callable[..., int], what: Any, limits: Any) -> Ticket:
        number = ctypes.c_uint64()
        _check(function(self._handle().value, ctypes.byref(what), ctypes.byref(limits), ctypes.byref(number)))
        return Ticket(self, number.value)

    def join(self, ref: TicketRef) -> Ticket:
        """Becomes a member of another process's ticket; its lease comes by wait_lease, and slots when another member
        reserves (settle first). A name that the daemon does not know shows as State.LOST."""
        name = _abi.statecache_ref(ref.low, ref.high)
        number = ctypes.c_uint64()
        _check(lib.statecache_join(self._handle().value, ctypes.byref(name), ctypes.byref(number)))
        return Ticket(self, number.value)

    def refresh(self, tickets: Sequence[Ticket]) -> None:
        """Matches many again, with one doorbell."""
        numbers = (ctypes.c_uint64 * max(1, len(tickets)))(*(t.id for t in tickets))
        _check(lib.statecache_refresh(self._handle().value, numbers, len(tickets)))

    # ---- save ----

    def commit(self, slots: Iterable[Union[Slot, Tuple[Slot, int]]]) -> None:
        """These slots are written: a Slot, or (Slot, tokens really written). Refusals are counted, see counters."""
        rows = []
        for item in slots:
            slot, valid = item if isinstance(item, tuple) else (item, 0)
            rows.append(sized(_abi.statecache_filled, valid=valid, slot=slot.id))
        _check(lib.statecache_commit(self._handle().value, _abi.array_of(_abi.statecache_filled, rows), len(rows)))

    def abandon(self, slots: Iterable[Slot]) -> None:
        """These slots will not be written any more. Only after own traffic into them has ended."""
        numbers = [slot.id for slot in slots]
        row = (ctypes.c_uint64 * max(1, len(numbers)))(*numbers)
        _check(lib.statecache_abandon(self._handle().value, row, len(numbers)))

    def invalidate(self) -> None:
        """New weights: nothing that is stored so far is found again. Leases stay readable."""
        _check(lib.statecache_invalidate(self._handle().value))

    def drain(self, timeout: float) -> None:
        """Waits until everything posted by this session is answered."""
        _check(lib.statecache_drain(self._handle().value, _micros(timeout)))

    # ---- end ----

    def close(self) -> None:
        """Ends the connection; may be repeated. Memory stays mapped while views of it live."""
        self._open = None

    def __enter__(self) -> "Session":
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return "Session(closed)" if self._open is None else f"Session({self.name!r})"


# ---- operators ------------------------------------------------------------------------------------------


def _admin_arguments(arguments: Sequence[str], tokens: Tokens) -> Tuple[Any, Any, int, Any]:
    texts = (ctypes.c_char_p * max(1, len(arguments)))(*(a.encode() for a in arguments))
    pointer, count, keep = _tokens(tokens)
    return texts, pointer, count, keep


def admin(socket: str, command: str, arguments: Sequence[str] = (), tokens: Tokens = (), timeout: float = 600.0) -> Any:
    """One command of statecachectl; its reply, the object that ``statecachectl --json`` prints."""
    import json

    texts, pointer, count, keep = _admin_arguments(arguments, tokens)
    out = ctypes.c_void_p()
    _check(
        lib.statecache_admin(
            socket.encode(), command.encode(), texts, len(arguments), pointer, count, _micros(timeout), ctypes.byref(out)
        )
    )
    try:
        del keep
        return json.loads(ctypes.string_at(out.value or 0))
    finally:
        lib.statecache_free(out)


def admin_stream(
    socket: str,
    command: str,
    each: Callable[[Any], bool],
    arguments: Sequence[str] = (),
    tokens: Tokens = (),
    idle: float = 86400.0,
) -> None:
    """As admin for commands that answer more than once: ``each`` gets every reply and returns False to stop."""
    import json

    raised: List[BaseException] = []

    def tell(user: Any, text: bytes) -> int:
        try:
            return 1 if each(json.loads(text)) else 0
        except BaseException as error:  # goes on in the caller, not through C
            raised.append(error)
            return 0

    texts, pointer, count, keep = _admin_arguments(arguments, tokens)
    code = lib.statecache_admin_stream(
        socket.encode(), command.encode(), texts, len(arguments), pointer, count, _abi._EACH(tell), None, _micros(idle)
    )
    del keep
    if raised:
        raise raised[0]
    _check(code)


def library_version() -> str:
    """Of libstatecache.so."""
    return str(lib.statecache_version().decode())
