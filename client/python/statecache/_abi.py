"""The structs and functions of statecache.h, as ctypes sees them. tests/python compares them with the ABI dump."""

from __future__ import annotations

import ctypes
import os
from ctypes import (
    CDLL,
    CFUNCTYPE,
    POINTER,
    Structure,
    c_char_p,
    c_double,
    c_int,
    c_int64,
    c_size_t,
    c_uint8,
    c_uint16,
    c_uint32,
    c_uint64,
    c_void_p,
)
from pathlib import Path
from typing import Any, Dict, List, Tuple

UNKNOWN = 0xFFFFFFFF


class statecache_digest(Structure):
    _fields_ = [
        ("bytes", c_uint8 * 32),
    ]


class statecache_extent(Structure):
    _fields_ = [
        ("data", c_void_p),
        ("bytes", c_size_t),
    ]


class statecache_ref(Structure):
    _fields_ = [
        ("low", c_uint64),
        ("high", c_uint64),
    ]


class statecache_group(Structure):
    _fields_ = [
        ("struct_size", c_uint32),
        ("need", c_uint32),
        ("name", c_char_p),
        ("block_tokens", c_uint32),
        ("window", c_uint32),
        ("lookahead", c_uint32),
        ("shards", c_uint16),
        ("contiguous", c_uint8),
        ("token_major", c_uint8),
        ("max_bytes", c_uint64),
    ]


class statecache_cost(Structure):
    _fields_ = [
        ("struct_size", c_uint32),
        ("window", c_uint32),
        ("c0", c_double),
        ("c1", c_double),
        ("c2", c_double),
        ("window_c2", c_double),
    ]


class statecache_namespace(Structure):
    _fields_ = [
        ("struct_size", c_uint32),
        ("group_count", c_uint32),
        ("name", c_char_p),
        ("model", statecache_digest),
        ("layout", statecache_digest),
        ("groups", POINTER(statecache_group)),
        ("resume_grid", c_uint32),
        ("checkpoint_grid", c_uint32),
        ("checkpoints_per_chunk", c_uint32),
        ("addressing", c_uint32),
        ("tokens_per_key", c_uint32),
        ("key_bytes", c_uint32),
        ("cost", POINTER(statecache_cost)),
    ]


class statecache_member(Structure):
    _fields_ = [
        ("struct_size", c_uint32),
        ("rank", c_uint16),
        ("world", c_uint16),
        ("engine", statecache_digest),
        ("shards", POINTER(c_uint16)),
        ("shard_count", c_uint32),
        ("reserved", c_uint32),
        ("program", c_char_p),
    ]


class statecache_counters(Structure):
    _fields_ = [
        ("struct_size", c_uint32),
        ("reserved", c_uint32),
        ("posted", c_uint64),
        ("busy", c_uint64),
        ("errors", c_uint64),
        ("committed", c_uint64),
        ("refused", c_uint64),
        ("returned", c_uint64),
    ]


class statecache_domain(Structure):
    _fields_ = [
        ("struct_size", c_uint32),
        ("reserved", c_uint32),
        ("adapter", statecache_digest),
        ("salt", statecache_digest),
    ]


class statecache_mark(Structure):
    _fields_ = [
        ("struct_size", c_uint32),
        ("at", c_uint32),
        ("length", c_uint32),
        ("atomic", c_uint32),
        ("content", statecache_digest),
    ]


class statecache_have(Structure):
    _fields_ = [
        ("struct_size", c_uint32),
        ("every", c_uint32),
        ("end", c_uint32),
    ]


class statecache_limits(Structure):
    _fields_ = [
        ("struct_size", c_uint32),
        ("hold", c_uint32),
        ("have_every", c_uint32),
        ("have_end", c_uint32),
        ("keep_back", c_uint32),
        ("at_most", c_uint32),
        ("deadline_us", c_int64),
        ("members", c_uint16),
        ("priority", c_uint8),
        ("reserved", c_uint8 * 5),
    ]


class statecache_ask(Structure):
    _fields_ = [
        ("struct_size", c_uint32),
        ("parent_tokens", c_uint32),
        ("tokens", POINTER(c_uint32)),
        ("token_count", c_size_t),
        ("marks", POINTER(statecache_mark)),
        ("mark_count", c_size_t),
        ("domain", POINTER(statecache_domain)),
        ("parent", c_uint64),
    ]


class statecache_key_run(Structure):
    _fields_ = [
        ("struct_size", c_uint32),
        ("first_token", c_uint32),
        ("keys", POINTER(statecache_digest)),
        ("key_count", c_size_t),
        ("parent", POINTER(statecache_digest)),
        ("domain", POINTER(statecache_domain)),
    ]


class statecache_point(Structure):
    _fields_ = [
        ("struct_size", c_uint32),
        ("tokens", c_uint32),
        ("tier", c_uint32),
        ("reserved", c_uint32),
        ("bytes", c_uint64),
        ("ready_in_us", c_int64),
        ("recompute_us", c_int64),
    ]


class statecache_answer(Structure):
    _fields_ = [
        ("struct_size", c_uint32),
        ("point_size", c_uint32),
        ("state", c_uint32),
        ("version", c_uint32),
        ("best", c_uint32),
        ("usable", c_uint32),
        ("stored", c_uint32),
        ("reserved", c_uint32),
        ("points", POINTER(statecache_point)),
        ("point_count", c_size_t),
        ("wishes", POINTER(c_uint32)),
        ("wish_count", c_size_t),
        ("owner", c_void_p),
    ]


class statecache_piece(Structure):
    _fields_ = [
        ("struct_size", c_uint32),
        ("group", c_uint16),
        ("shard", c_uint16),
        ("first", c_uint32),
        ("valid", c_uint32),
        ("tier", c_uint32),
        ("extent_count", c_uint32),
        ("bytes", c_uint64),
        ("where", POINTER(statecache_extent)),
    ]


class statecache_lease(Structure):
    _fields_ = [
        ("struct_size", c_uint32),
        ("piece_size", c_uint32),
        ("tokens", c_uint32),
        ("reserved", c_uint32),
        ("pieces", POINTER(statecache_piece)),
        ("piece_count", c_size_t),
        ("owner", c_void_p),
    ]


class statecache_memory(Structure):
    _fields_ = [
        ("struct_size", c_uint32),
        ("group", c_uint16),
        ("reserved", c_uint16),
        ("at", c_uint32),
        ("valid", c_uint32),
        ("pieces", POINTER(statecache_extent)),
        ("piece_count", c_size_t),
    ]


class statecache_want(Structure):
    _fields_ = [
        ("struct_size", c_uint32),
        ("group", c_uint32),
        ("first", c_uint32),
        ("end", c_uint32),
        ("bytes", c_uint64),
    ]


class statecache_slot(Structure):
    _fields_ = [
        ("struct_size", c_uint32),
        ("group", c_uint16),
        ("shard", c_uint16),
        ("id", c_uint64),
        ("first", c_uint32),
        ("end", c_uint32),
        ("grant", c_uint32),
        ("extent_count", c_uint32),
        ("bytes", c_uint64),
        ("where", POINTER(statecache_extent)),
    ]


class statecache_slots(Structure):
    _fields_ = [
        ("struct_size", c_uint32),
        ("slot_size", c_uint32),
        ("items", POINTER(statecache_slot)),
        ("count", c_size_t),
        ("owner", c_void_p),
    ]


class statecache_filled(Structure):
    _fields_ = [
        ("struct_size", c_uint32),
        ("valid", c_uint32),
        ("slot", c_uint64),
    ]


class statecache_report(Structure):
    _fields_ = [
        ("struct_size", c_uint32),
        ("computed", c_uint32),
        ("prefilled", c_uint32),
        ("reserved", c_uint32),
        ("prefill_us", c_int64),
    ]


_EACH = CFUNCTYPE(c_int, c_void_p, c_char_p)

FUNCTIONS: Dict[str, Tuple[Any, List[Any]]] = {
    "statecache_strerror": (c_char_p, [c_int]),
    "statecache_last_error": (c_char_p, []),
    "statecache_version": (c_char_p, []),
    "statecache_attach": (c_int, [c_char_p, POINTER(statecache_namespace), POINTER(statecache_member), c_int64, POINTER(c_void_p)]),
    "statecache_detach": (None, [c_void_p]),
    "statecache_connected": (c_int, [c_void_p]),
    "statecache_name": (c_char_p, [c_void_p]),
    "statecache_epoch": (c_uint64, [c_void_p]),
    "statecache_writable": (c_int, [c_void_p]),
    "statecache_get_counters": (c_int, [c_void_p, POINTER(statecache_counters)]),
    "statecache_begin": (c_int, [c_void_p, POINTER(statecache_ask), POINTER(statecache_limits), POINTER(c_uint64)]),
    "statecache_begin_keys": (c_int, [c_void_p, POINTER(statecache_key_run), POINTER(statecache_limits), POINTER(c_uint64)]),
    "statecache_poll": (c_int, [c_void_p, c_uint64, POINTER(statecache_have), POINTER(statecache_answer)]),
    "statecache_wait": (c_int, [c_void_p, c_uint64, c_int64, POINTER(statecache_have), POINTER(statecache_answer)]),
    "statecache_answer_clear": (None, [POINTER(statecache_answer)]),
    "statecache_refresh": (c_int, [c_void_p, POINTER(c_uint64), c_size_t]),
    "statecache_acquire": (c_int, [c_void_p, c_uint64, c_uint32, POINTER(statecache_have)]),
    "statecache_get_ref": (c_int, [c_void_p, c_uint64, POINTER(statecache_ref)]),
    "statecache_join": (c_int, [c_void_p, POINTER(statecache_ref), POINTER(c_uint64)]),
    "statecache_wait_lease": (c_int, [c_void_p, c_uint64, c_int64, POINTER(statecache_lease)]),
    "statecache_lease_clear": (None, [POINTER(statecache_lease)]),
    "statecache_read_into": (c_int, [c_void_p, c_uint64, POINTER(statecache_memory), c_size_t, c_int64, POINTER(c_uint8)]),
    "statecache_append": (c_int, [c_void_p, c_uint64, POINTER(c_uint32), c_size_t, POINTER(statecache_mark), c_size_t, c_uint32]),
    "statecache_append_keys": (c_int, [c_void_p, c_uint64, POINTER(statecache_digest), c_size_t, c_uint32]),
    "statecache_reserve": (c_int, [c_void_p, c_uint64, POINTER(statecache_want), c_size_t]),
    "statecache_peek_slots": (c_int, [c_void_p, c_uint64, POINTER(statecache_slots)]),
    "statecache_wait_slots": (c_int, [c_void_p, c_uint64, c_int64, POINTER(statecache_slots)]),
    "statecache_slots_clear": (None, [POINTER(statecache_slots)]),
    "statecache_commit": (c_int, [c_void_p, POINTER(statecache_filled), c_size_t]),
    "statecache_abandon": (c_int, [c_void_p, POINTER(c_uint64), c_size_t]),
    "statecache_write_from": (c_int, [c_void_p, c_uint64, POINTER(statecache_memory), c_size_t, c_int64, POINTER(c_uint8)]),
    "statecache_taint": (c_int, [c_void_p, c_uint64]),
    "statecache_finish": (c_int, [c_void_p, c_uint64, POINTER(statecache_report)]),
    "statecache_release": (c_int, [c_void_p, c_uint64]),
    "statecache_cancel": (c_int, [c_void_p, c_uint64]),
    "statecache_invalidate": (c_int, [c_void_p]),
    "statecache_settle": (c_int, [c_void_p, c_uint64, c_int64]),
    "statecache_drain": (c_int, [c_void_p, c_int64]),
    "statecache_admin": (c_int, [c_char_p, c_char_p, POINTER(c_char_p), c_size_t, POINTER(c_uint32), c_size_t, c_int64, POINTER(c_void_p)]),
    "statecache_free": (None, [c_void_p]),
    "statecache_admin_stream": (c_int, [c_char_p, c_char_p, POINTER(c_char_p), c_size_t, POINTER(c_uint32), c_size_t, _EACH, c_void_p, c_int64]),
}



def _load() -> CDLL:
    """$STATECACHE_LIBRARY, the one in this package, or the system's."""
    named = os.environ.get("STATECACHE_LIBRARY")
    packaged = Path(__file__).with_name("libstatecache.so.0")
    path = named or (str(packaged) if packaged.is_file() else "libstatecache.so.0")
    try:
        library = CDLL(path)
    except OSError as error:
        raise ImportError(
            f"statecache: cannot load {path}: {error}. Install libstatecache.so where the system finds it, or set "
            "STATECACHE_LIBRARY to the file"
        ) from error
    for name, (result, arguments) in FUNCTIONS.items():
        function = getattr(library, name)
        function.restype = result
        function.argtypes = arguments
    return library


lib = _load()


def sized(kind: Any, **fields: Any) -> Any:
    """A zeroed struct with its struct_size set."""
    out = kind(**fields)
    out.struct_size = ctypes.sizeof(kind)
    return out


def array_of(kind: Any, rows: List[Any]) -> Any:
    """An array of structs; None for no rows."""
    return (kind * len(rows))(*rows) if rows else None
