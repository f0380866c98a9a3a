"""Each field of what goes in: that it arrives, by what it changes. tests/capi/fields_test.cpp is the same in C."""

import gc
from pathlib import Path

import numpy as np
import pytest

import statecache as sc
from conftest import PATIENCE
from test_statecache import BLOCK, KV, STATE, restore, space, store, wants_of, write_granted


def groups(**state):
    return [
        sc.Group("kv", max_bytes=KV, block_tokens=BLOCK),
        sc.Group("window", max_bytes=KV, need=sc.Need.LAST, window=24, block_tokens=BLOCK),
        sc.Group("state", max_bytes=STATE, need=sc.Need.END, **state),
    ]


def lease(session, tokens, **limits):
    with session.begin(tokens, hold=sc.Hold.LEASE, **limits) as ticket:
        return ticket.wait_lease(PATIENCE)


def test_limits(daemon):
    tokens = list(range(64))
    with sc.Session(daemon.socket, space("limits")) as session:
        store(session, tokens, 32, 1)
        store(session, tokens, 64, 1)
        assert lease(session, tokens).tokens == 32  # one token is kept back
        assert lease(session, tokens, keep_back=0).tokens == 32  # always: it is the one that gives the logits
        assert lease(session, tokens + [1]).tokens == 64
        assert lease(session, tokens + [1], keep_back=2).tokens == 32
        assert lease(session, tokens + [1], at_most=63).tokens == 32
        assert lease(session, tokens + [1], priority=90, deadline=5.0, members=1).tokens == 64
        # What the engine has itself is not leased.
        own = lease(session, tokens + [1], have=sc.Have(every=48, end=32))
        assert own.tokens == 64
        assert {p.first for p in own.pieces if p.group == 0} == {48}
        with session.begin(tokens + [1]) as ticket:
            assert ticket.wait(PATIENCE).best == 64
            ticket.acquire(at_most=40)
            assert ticket.wait_lease(PATIENCE).tokens == 32


def test_refresh_finds_what_others_stored_since(daemon):
    tokens = list(range(70))
    with sc.Session(daemon.socket, space("refresh")) as session, sc.Session(daemon.socket, space("refresh")) as other:
        with session.begin(tokens) as ticket, session.begin(tokens[:40]) as short:
            assert ticket.wait(PATIENCE).best == 0 and short.wait(PATIENCE).best == 0
            version = ticket.poll().version
            store(other, tokens[:64], 32, 1)
            assert ticket.poll().version == version  # asked once
            session.refresh([ticket, short])
            assert ticket.wait(PATIENCE).best == 32 and short.wait(PATIENCE).best == 32
            assert ticket.poll().version > version


def test_grids(daemon):
    tokens = list(range(100))
    with sc.Session(daemon.socket, space("resume grid", resume_grid=32)) as session:
        store(session, tokens, 48, 1)
        assert restore(session, tokens, 1) == 0
        store(session, tokens, 64, 1)
        assert restore(session, tokens, 1) == 64
    with sc.Session(daemon.socket, space("checkpoint grid", checkpoint_grid=32, checkpoints_per_chunk=2)) as session:
        assert store(session, tokens, 48, 1) == 14  # all but the state
        store(session, tokens, 64, 1)
        with session.begin(tokens[:80] + [7] * 80) as ticket:
            wishes = ticket.wait(PATIENCE).wishes
            assert wishes and all(wish % 32 == 0 for wish in wishes)


def test_lookahead(daemon):
    with sc.Session(daemon.socket, space("ahead", groups=groups(lookahead=2))) as session:
        tokens = list(range(100))
        store(session, tokens, 66, 1)
        assert restore(session, tokens, 1) == 64


def test_layouts(daemon):
    tokens = list(range(60))
    with sc.Session(daemon.socket, space("layout")) as session:
        store(session, tokens, 50, 1)
        assert restore(session, tokens, 1) == 50
    with sc.Session(daemon.socket, space("layout", layout=sc.digest("float16"))) as session:
        assert restore(session, tokens, 1) == 0
        assert session.name.startswith("layout@")  # two of that name
    whole = sc.Group("kv", max_bytes=KV, block_tokens=BLOCK, token_major=False)
    share = sc.Group("kv", max_bytes=KV, block_tokens=BLOCK)
    for group, size in ((whole, KV), (share, KV // 4)):
        with sc.Session(daemon.socket, sc.Namespace("major", [group])) as session:
            with session.begin(tokens, hold=sc.Hold.NONE) as ticket:
                ticket.reserve([sc.Want(0, 0, 4), sc.Want(0, 0, 3, bytes=100)])
                part, said = ticket.wait_slots(PATIENCE)
                assert part.granted and part.bytes == size
                session.abandon([s for s in (part, said) if s.granted])
    with sc.Session(daemon.socket, sc.Namespace("said", [share])) as session:
        with session.begin(tokens, hold=sc.Hold.NONE) as ticket:
            ticket.reserve([sc.Want(0, 0, 16, bytes=100)])
            (said,) = ticket.wait_slots(PATIENCE)
            assert said.granted and said.bytes == 100
            session.abandon([said])


def test_fewer_tokens_than_reserved(daemon):
    with sc.Session(daemon.socket, space("fewer")) as session:
        tokens = list(range(60))
        with session.begin(tokens, hold=sc.Hold.NONE) as ticket:
            ticket.reserve(wants_of(48, 40))
            filled = []
            for slot in ticket.wait_slots(PATIENCE):
                slot.write(bytes([1]) * slot.bytes)
                filled.append((slot, 8) if slot.group < 2 and slot.end == 48 else slot)
            session.commit(filled)
            ticket.settle(PATIENCE)
        with session.begin(tokens, hold=sc.Hold.LEASE) as ticket:
            assert ticket.wait(PATIENCE).stored == 40
            found = ticket.wait_lease(PATIENCE)
            assert found.tokens == 40
            assert [p.valid for p in found.pieces if p.group == 0] == [16, 16, 8]


def test_reports_teach_what_recomputing_costs(daemon):
    with sc.Session(daemon.socket, space("reports")) as session:
        tokens = list(range(1000))
        store(session, tokens[:64], 64, 1)

        def recompute():
            with session.begin(tokens) as ticket:
                (point,) = ticket.wait(PATIENCE).points
                return point.recompute

        before = recompute()
        with session.begin(tokens, hold=sc.Hold.NONE) as ticket:
            ticket.finish(computed=1000, prefilled=1000, prefill=3600.0)
            ticket.settle(PATIENCE)
        assert recompute() > 2 * before


def test_parents_of_keys(daemon):
    """A run is linked to the key before it, and found at its depth."""
    keyed = sc.Namespace(
        "parents",
        [sc.Group("kv", max_bytes=KV, block_tokens=BLOCK)],
        addressing=sc.Addressing.KEYS,
        tokens_per_key=BLOCK,
        key_bytes=16,
        cost=sc.Cost(c1=15e9),
    )
    keys = [sc.digest("parents", str(i))[:16] for i in range(6)]
    with sc.Session(daemon.socket, keyed) as session:
        for first, last in ((0, 3), (3, 6)):
            parent = keys[first - 1] if first else None
            with session.begin_keys(keys[first:last], parent=parent, first_token=first * BLOCK, hold=sc.Hold.NONE) as ticket:
                ticket.reserve([sc.Want(0, at * BLOCK, (at + 1) * BLOCK) for at in range(first, last)])
                assert write_granted(session, ticket, 1) == 3
                ticket.settle(PATIENCE)
        with session.begin_keys(keys, first_token=0, hold=sc.Hold.LEASE) as ticket:
            assert ticket.wait_lease(PATIENCE).tokens == 6 * BLOCK
        with session.begin_keys(keys[4:], parent=keys[3], hold=sc.Hold.LEASE, at_most=BLOCK) as ticket:
            assert ticket.wait_lease(PATIENCE).tokens == BLOCK
        domain = sc.Domain(salt=sc.digest("tenant"))
        with session.begin_keys(keys, first_token=0, domain=domain, hold=sc.Hold.LEASE) as ticket:
            assert ticket.wait_lease(PATIENCE).tokens == 0


def test_several_runs_of_memory(daemon):
    """A large object may lie in several places: views are one each, and numpy needs one."""
    big = sc.Namespace("runs", [sc.Group("state", max_bytes=6 << 20, need=sc.Need.END)], cost=sc.Cost(c1=1e12))
    with sc.Session(daemon.socket, big) as session:
        with session.begin(list(range(9)), hold=sc.Hold.NONE) as ticket:
            ticket.reserve([sc.Want(0, 8, 8)])
            (slot,) = ticket.wait_slots(PATIENCE)
            assert sum(view.nbytes for view in slot.views()) == slot.bytes == 6 << 20
            if len(slot.extents) > 1:
                with pytest.raises(sc.InvalidArgument, match="runs"):
                    slot.numpy()
            content = bytes(range(256)) * (slot.bytes // 256)
            slot.write(content)
            session.commit([slot])
            ticket.settle(PATIENCE)
        with session.begin(list(range(9)), hold=sc.Hold.LEASE) as ticket:
            (piece,) = ticket.wait_lease(PATIENCE).pieces
            assert piece.tobytes() == content
            assert all(view.readonly for view in piece.views())
        del slot, piece
        gc.collect()


def test_the_readme(daemon):
    """Its program runs."""
    text = (Path(__file__).parents[2] / "client" / "python" / "README.md").read_text()
    program = text.split("```python\n")[1].split("```")[0]
    assert "/run/statecached/control.sock" in program
    program = program.replace("/run/statecached/control.sock", daemon.socket)
    names = {"tokens": list(range(50)), "n": 40, "state": np.full(8 << 20, 2.5, np.float16)}
    exec(compile(program, "README.md", "exec"), names)
    (slot,) = names["slots"]
    assert slot.granted and slot.bytes == 16 << 20
