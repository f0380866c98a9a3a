"""The Python package against a live daemon."""

import gc
import re
import signal
import sys
import threading
import time
import types
from pathlib import Path

import numpy as np
import pytest

import statecache as sc
from conftest import PATIENCE

BLOCK = 16
KV = BLOCK * 256
STATE = 5000


def space(name, **changes):
    fields = dict(
        name=name,
        model=sc.digest("weights", name),
        groups=[
            sc.Group("kv", max_bytes=KV, block_tokens=BLOCK),
            sc.Group("window", max_bytes=KV, need=sc.Need.LAST, window=24, block_tokens=BLOCK),
            sc.Group("state", max_bytes=STATE, need=sc.Need.END),
        ],
        cost=sc.Cost(c1=15e9),
    )
    fields.update(changes)
    return sc.Namespace(**fields)


def fill_of(group, first, shard, seed):
    return (1 + group * 83 + first * 7 + shard * 31 + seed * 13) % 256


def wants_of(tokens, state):
    out = []
    for first in range(0, tokens, BLOCK):
        for group in (0, 1):
            out.append(sc.Want(group, first, min(first + BLOCK, tokens)))
    return out + [sc.Want(2, state, state)]


def write_granted(session, ticket, seed):
    granted = [s for s in ticket.wait_slots(PATIENCE) if s.granted]
    for slot in granted:
        slot.write(bytes([fill_of(slot.group, slot.first, slot.shard, seed)]) * slot.bytes)
    session.commit(granted)
    return len(granted)


def store(session, tokens, state, seed, **how):
    with session.begin(tokens, hold=sc.Hold.NONE, **how) as ticket:
        ticket.reserve(wants_of(len(tokens), state))
        written = write_granted(session, ticket, seed)
        ticket.settle(PATIENCE)
        ticket.finish(computed=len(tokens), prefilled=len(tokens), prefill=0.1)
    session.drain(PATIENCE)
    return written


def restore(session, tokens, seed, **how):
    with session.begin(tokens, hold=sc.Hold.LEASE, **how) as ticket:
        lease = ticket.wait_lease(PATIENCE)
        for piece in lease.pieces:
            content = piece.tobytes()
            assert len(content) == piece.bytes
            assert content == bytes([fill_of(piece.group, piece.first, piece.shard, seed)]) * piece.bytes
        return lease.tokens


def test_round_trip(daemon):
    with sc.Session(daemon.socket, space("round")) as session:
        assert session.connected and session.writable and session.name == "round" and session.epoch != 0
        assert sc.library_version() == sc.__version__
        tokens = list(range(100))
        assert store(session, tokens, 90, 1) == 15
        assert store(session, tokens, 90, 1) == 0
        assert restore(session, tokens, 1) == 90
        assert restore(session, np.arange(100, dtype=np.uint32), 1) == 90
        assert restore(session, range(1, 101), 1) == 0
        assert session.counters.committed == 15
        assert session.counters.refused == 0


def test_answers(daemon):
    with sc.Session(daemon.socket, space("answers")) as session:
        store(session, list(range(128)), 96, 2)
        with session.begin(list(range(80)) + [7] * 40) as ticket:
            answer = ticket.wait(PATIENCE)
            assert answer.state is sc.State.READY
            assert answer.stored == 80
            assert answer.points == ()
            assert answer.wishes[0] == 80  # the branch point
        with session.begin(range(128)) as ticket:
            answer = ticket.wait(PATIENCE)
            assert [p.tokens for p in answer.points] == [96]
            assert answer.points[0].tier is sc.Tier.HOST
            assert answer.points[0].recompute > 0
            assert ticket.poll(have=sc.Have(100, 100)).best == 0
            ticket.refresh()
            ticket.acquire()
            assert ticket.wait_lease(PATIENCE).tokens == 96
            ticket.cancel()
            ticket.cancel()


def test_domains_and_marks(daemon):
    with sc.Session(daemon.socket, space("domains")) as session:
        tokens = list(range(64))
        adapter = sc.Domain(adapter=sc.digest("lora"))
        image = [sc.Mark(0, 10, sc.digest("cat"), atomic=True)]
        store(session, tokens, 60, 3)
        store(session, tokens, 60, 4, domain=adapter)
        store(session, tokens, 60, 5, marks=image)
        assert restore(session, tokens, 3) == 60
        assert restore(session, tokens, 4, domain=adapter) == 60
        assert restore(session, tokens, 5, marks=image) == 60
        assert restore(session, tokens, 5, marks=[sc.Mark(0, 10, sc.digest("dog"), atomic=True)]) == 0
        assert restore(session, tokens, 4, domain=sc.Domain(salt=sc.digest("tenant"))) == 0


def test_members_share_a_ticket(daemon):
    groups = [
        sc.Group("kv", max_bytes=KV, block_tokens=BLOCK, shards=2),
        sc.Group("window", max_bytes=KV, need=sc.Need.LAST, window=24, block_tokens=BLOCK),
        sc.Group("state", max_bytes=STATE, need=sc.Need.END, shards=2),
    ]
    shared = space("shared", groups=groups)

    def member(rank):
        return sc.Member(engine=sc.digest("engine"), rank=rank, world=2, shard=[rank, 0, rank], program="pytest")

    with sc.Session(daemon.socket, shared, member(0)) as scheduler, sc.Session(daemon.socket, shared, member(1)) as worker:
        tokens = list(range(48))
        with scheduler.begin(tokens, hold=sc.Hold.NONE) as ticket:
            scheduler.drain(PATIENCE)
            joined = worker.join(sc.TicketRef.from_bytes(ticket.ref.to_bytes()))
            with pytest.raises(sc.AlreadyExists):
                worker.join(ticket.ref)
            joined.settle(PATIENCE)
            ticket.reserve(wants_of(48, 48))
            assert write_granted(scheduler, ticket, 6) == 7
            scheduler.drain(PATIENCE)
            assert restore(scheduler, list(range(60)), 6) == 0  # half the shards are missing
            written = 0
            done = threading.Event()
            for _ in range(2000):
                written += write_granted(worker, joined, 6)
                if written == 4:
                    break
                done.wait(0.001)
            assert written == 4
            worker.drain(PATIENCE)
            with joined:
                pass
        assert restore(scheduler, list(range(60)), 6) == 48
        assert restore(worker, list(range(60)), 6) == 48


def test_own_pool(daemon):
    with sc.Session(daemon.socket, space("pool")) as session:
        tokens = list(range(32))
        pool = {}
        for first in (0, 16):
            for group in (0, 1):
                pool[group, first, BLOCK] = np.full(KV, fill_of(group, first, 0, 7), np.uint8)
        pool[2, 30, 0] = np.full(STATE, fill_of(2, 30, 0, 7), np.uint8)
        memory = [sc.Memory(group, at, buffer, valid) for (group, at, valid), buffer in pool.items()]
        with session.begin(tokens, hold=sc.Hold.NONE) as ticket:
            assert ticket.write_from(memory, PATIENCE) == [True] * 5
            ticket.settle(PATIENCE)
        for buffer in pool.values():
            buffer[:] = 0
        with session.begin(tokens, hold=sc.Hold.LEASE) as ticket:
            ok = ticket.read_into(memory + [sc.Memory(2, 31, bytearray(STATE))], PATIENCE)
            assert ok == [True] * 5 + [False]
        for (group, first, _), buffer in pool.items():
            assert buffer[0] == fill_of(group, first, 0, 7)
        with session.begin(tokens, hold=sc.Hold.LEASE) as ticket:
            with pytest.raises((sc.Error, BufferError, TypeError)):
                ticket.read_into([sc.Memory(2, 30, bytes(STATE))], PATIENCE)  # cannot be written


def test_grow_fork_taint_invalidate(daemon):
    with sc.Session(daemon.socket, space("grow")) as session:
        with session.begin(list(range(20)), hold=sc.Hold.NONE) as ticket:
            ticket.append(list(range(20, 48)))
            ticket.reserve(wants_of(48, 48))
            assert write_granted(session, ticket, 8) == 7
            with session.begin([900] * 30, parent=ticket, parent_tokens=48) as fork:
                assert fork.wait(PATIENCE).best == 48
                fork.taint()
                fork.reserve([sc.Want(0, 48, 64)])
                assert fork.wait_slots(PATIENCE)[0].grant is sc.Grant.DECLINED
            ticket.reserve([sc.Want(2, 47, 47)])
            ticket.settle(PATIENCE)
            assert len(ticket.slots()) == 1
            session.abandon([s for s in ticket.wait_slots(PATIENCE) if s.granted])
        assert restore(session, list(range(60)), 8) == 48
        session.invalidate()
        assert restore(session, list(range(60)), 8) == 0


def test_runs_of_keys(daemon):
    keyed = sc.Namespace(
        "keyed",
        [sc.Group("kv", max_bytes=KV, block_tokens=BLOCK), sc.Group("state", max_bytes=STATE, need=sc.Need.END)],
        addressing=sc.Addressing.KEYS,
        tokens_per_key=BLOCK,
        key_bytes=20,
        cost=sc.Cost(c1=15e9),
    )
    keys = [sc.digest("page", str(i))[:20] for i in range(8)]
    with sc.Session(daemon.socket, keyed) as session:

        def save(run, parent=None, first_token=sc.UNKNOWN):
            origin = 0 if first_token == sc.UNKNOWN else first_token
            with session.begin_keys(run[:-1], parent=parent, first_token=first_token, hold=sc.Hold.NONE) as ticket:
                ticket.append_keys(run[-1:])
                end = origin + len(run) * BLOCK
                wants = [sc.Want(0, at, at + BLOCK) for at in range(origin, end, BLOCK)]
                ticket.reserve(wants + [sc.Want(1, end, end)])
                written = write_granted(session, ticket, 1)
                ticket.settle(PATIENCE)
                return written

        def depth(run, **how):
            with session.begin_keys(run, hold=sc.Hold.LEASE, **how) as ticket:
                return ticket.wait_lease(PATIENCE).tokens

        assert save(keys[4:], parent=keys[3]) == 5
        assert depth(keys[4:]) == 4 * BLOCK
        assert depth(keys, first_token=0) == 0
        assert save(keys[:4], first_token=0) == 5
        assert depth(keys, first_token=0) == 8 * BLOCK
        assert depth(keys[6:]) == 2 * BLOCK
        with pytest.raises(sc.InvalidArgument):
            session.begin([1, 2, 3])
        with pytest.raises(ValueError, match="a key must have 16 to 32 bytes"):
            session.begin_keys([b"short"])


def test_sixteen_mebibytes_without_a_copy(daemon):
    size = 16 << 20
    big = sc.Namespace("big", [sc.Group("state", max_bytes=size, need=sc.Need.END, contiguous=True)], cost=sc.Cost(c1=1e12))
    with sc.Session(daemon.socket, big) as session:
        tokens = np.arange(64, dtype=np.uint32)
        pattern = np.random.default_rng(1).integers(0, 256, size, dtype=np.uint8)
        with session.begin(tokens, hold=sc.Hold.NONE) as ticket:
            ticket.reserve([sc.Want(0, 60, 60)])
            (slot,) = ticket.wait_slots(PATIENCE)
            target = slot.numpy()
            assert target.ctypes.data == slot.extents[0][0]
            target[:] = pattern
            session.commit([slot])
            ticket.settle(PATIENCE)
        with session.begin(tokens, hold=sc.Hold.LEASE) as ticket:
            lease = ticket.wait_lease(PATIENCE)
            assert lease.tokens == 60
            (piece,) = lease.pieces
            view = piece.numpy()
            address = piece.extents[0][0]
            assert view.nbytes == size
            assert view.ctypes.data == address  # the arena's own memory
            assert not view.flags.owndata and not view.flags.writeable
            assert inside_the_arena(address, size)
            assert np.array_equal(view, pattern)
            assert piece.numpy(np.float32).ctypes.data == address
            with pytest.raises(ValueError):
                view[0] = 1
            # The mapping outlives the session while a view lives.
            session.close()
            gc.collect()
            assert view[123] == pattern[123]
            assert inside_the_arena(address, size)
        del view, piece, lease, target, slot, ticket
        gc.collect()
        assert not inside_the_arena(address, size)


def inside_the_arena(address, size):
    """Of the memory that this process shares with the daemon."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        low, high = (int(x, 16) for x in line.split()[0].split("-"))
        if "memfd" in line and low <= address and address + size <= high:
            return True
    return False


class StandInTensor:
    """As much of a tensor as the package and this test use, over numpy."""

    def __init__(self, array):
        self.array = array

    def data_ptr(self):
        return self.array.ctypes.data

    def view(self, dtype):
        return StandInTensor(self.array.view(dtype))

    def fill_(self, value):
        self.array[:] = value

    def sum(self):
        return self.array.sum()


def stand_in_for_torch():
    def frombuffer(buffer, *, dtype):
        assert not memoryview(buffer).readonly  # torch warns of such memory: it has no tensors that cannot be written
        return StandInTensor(np.frombuffer(buffer, dtype))

    module = types.ModuleType("torch")
    module.uint8, module.float32, module.frombuffer = np.uint8, np.float32, frombuffer
    return module


@pytest.mark.parametrize("which", ["torch", "stand-in"])
def test_torch(daemon, which, monkeypatch):
    """The stand-in shows that the package's own half is right where torch is not installed."""
    if which == "stand-in":
        torch = stand_in_for_torch()
        monkeypatch.setitem(sys.modules, "torch", torch)
    else:
        torch = pytest.importorskip("torch")
    groups = [sc.Group("state", max_bytes=4096, need=sc.Need.END, contiguous=True)]
    small = sc.Namespace(which, groups, model=sc.digest(which), cost=sc.Cost(c1=1e12))
    tokens = list(range(30))
    with sc.Session(daemon.socket, small) as session:
        with session.begin(tokens, hold=sc.Hold.NONE) as ticket:
            ticket.reserve([sc.Want(0, 29, 29)])
            (slot,) = ticket.wait_slots(PATIENCE)
            assert slot.torch().data_ptr() == slot.extents[0][0]
            tensor = slot.torch(torch.float32)
            assert tensor.data_ptr() == slot.extents[0][0]
            tensor.fill_(1.5)
            session.commit([slot])
            ticket.settle(PATIENCE)
        with session.begin(tokens, hold=sc.Hold.LEASE) as ticket:
            (piece,) = ticket.wait_lease(PATIENCE).pieces
            read = piece.torch(torch.float32)
            assert read.data_ptr() == piece.extents[0][0]
            # The mapping outlives session and piece while the tensor lives.
            session.close()
            del ticket, piece, slot, tensor
            gc.collect()
            assert float(read.sum()) == 1536.0


def test_errors_say_what_is_wrong(daemon, tmp_path):
    with pytest.raises(sc.NotFound):
        sc.Session(str(tmp_path / "nowhere"), space("errors"))
    with pytest.raises(sc.InvalidArgument, match="window"):
        sc.Session(daemon.socket, space("errors", groups=[sc.Group("w", max_bytes=1, need=sc.Need.LAST)]))
    with pytest.raises(ValueError, match="model must have 32 bytes"):
        sc.Session(daemon.socket, space("errors", model=b"short"))
    with sc.Session(daemon.socket, space("errors")) as session:
        with pytest.raises(sc.InvalidArgument, match="tokens"):
            session.begin_keys([bytes(32)])
        with pytest.raises(sc.InvalidArgument):
            session.begin(np.arange(4, dtype=np.int64))
        with session.begin([1, 2, 3], hold=sc.Hold.NONE) as ticket:
            with pytest.raises(ValueError, match="no lease"):  # sc.InvalidArgument is one
                ticket.wait_lease(0.0)
            ticket.append([1], computed=99)
            with pytest.raises(sc.InvalidArgument):
                ticket.settle(PATIENCE)
        with pytest.raises(RuntimeError, match="in the middle"):
            with session.begin([1, 2, 3]) as ticket:
                raise RuntimeError("in the middle")
        session.drain(PATIENCE)
        assert ticket.poll().state is sc.State.LOST  # cancelled
    with pytest.raises(ConnectionError):
        session.begin([1])
    assert not session.connected
    assert repr(session) == "Session(closed)"


def test_operators(daemon):
    assert "tiers" in sc.admin(daemon.socket, "status")
    seen = []
    sc.admin_stream(daemon.socket, "status", lambda reply: bool(seen.append(reply)))
    assert len(seen) == 1
    with pytest.raises(sc.InvalidArgument):
        sc.admin(daemon.socket, "nonsense")

    def broken(reply):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        sc.admin_stream(daemon.socket, "status", broken)


def test_threads_share_a_session(daemon):
    with sc.Session(daemon.socket, space("threads")) as session:
        failures = []

        def work(number):
            try:
                tokens = [number] * 64
                assert store(session, tokens, 60, number) > 0
                assert restore(session, tokens, number) == 60
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(1, 7)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []


def test_the_daemons_end(own_daemon):
    session = sc.Session(own_daemon.socket, space("end"))
    ticket = session.begin(list(range(40)))
    own_daemon.stop(signal.SIGKILL)
    # What was answered before the end stays true until the end is noticed: drain notices it.
    with pytest.raises(sc.Closed):
        session.drain(PATIENCE)
    assert not session.connected
    assert ticket.wait(PATIENCE).state is sc.State.LOST
    with ticket:
        pass  # ending what is lost is no error
    before = session.epoch
    own_daemon.start()
    # The session attaches again by itself.
    deadline = time.monotonic() + 20
    while not (session.connected and session.epoch != before) and time.monotonic() < deadline:
        time.sleep(0.01)
    with sc.Session(own_daemon.socket, space("end")) as again:
        assert again.connected and session.connected
        assert again.epoch == session.epoch != before


def test_structs_are_those_of_the_header():
    import ctypes
    import os

    from statecache import _abi

    dump = Path(os.environ["STATECACHE_ABI"]).read_text()
    for name, size in re.findall(r"^struct (\w+) (\d+)$", dump, re.M):
        assert ctypes.sizeof(getattr(_abi, name)) == int(size), name
    for name, field, offset, size in re.findall(r"^  (\w+)\.(\w+) (\d+) (\d+)$", dump, re.M):
        ours = getattr(getattr(_abi, name), field)
        assert (ours.offset, ours.size) == (int(offset), int(size)), (name, field)
    exported = {name for name in re.findall(r"^symbol (\w+)$", dump, re.M) if name.startswith("statecache_")}
    assert exported == set(_abi.FUNCTIONS)
    for code in range(1, 15):
        assert f" {code}\n" in dump and code in sc.errors.BY_CODE
