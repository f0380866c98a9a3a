"""Two processes of one engine, in C and in Python: one ticket, a shard of every object each."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


class Member:
    """A process that is told what to do line by line: member.py, or the program of tests/capi/member.c."""

    def __init__(self, language, socket, name, rank):
        if language == "c":
            command = [os.environ["STATECACHE_C_MEMBER"]]
            environment = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}
        else:
            command = [sys.executable, str(Path(__file__).with_name("member.py"))]
            environment = dict(os.environ)
        self.process = subprocess.Popen(
            command + [socket, name, str(rank)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            env=environment,
        )

    def tell(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().strip()
        assert answer, f"{command}: exit code {self.process.wait()}"
        return answer

    def stop(self):
        self.process.stdin.close()
        return self.process.wait(30)


@pytest.mark.parametrize("worker", ["c", "python"])
@pytest.mark.parametrize("scheduler", ["c", "python"])
def test_two_processes_hold_a_shard_each(daemon, scheduler, worker):
    name = f"{scheduler}-{worker}"
    members = [Member(scheduler, daemon.socket, name, 0), Member(worker, daemon.socket, name, 1)]
    first, second = members
    try:
        ref = first.tell("begin none 48").split()[1:]
        assert second.tell("join " + " ".join(ref)) == "joined"
        assert first.tell("reserve 48") == "reserved"
        assert first.tell("fill 7") == "filled 7"  # three KV blocks, three of the window, the state
        assert first.tell("end") == "ended"
        # Half of the shards are there: nobody sees anything.
        ref = first.tell("begin lease 60").split()[1:]
        assert first.tell("lease") == "lease 0 0 0 0"
        assert first.tell("end") == "ended"
        assert second.tell("fill 4") == "filled 4"  # they came when the other process reserved
        assert second.tell("end") == "ended"
        # All are there: one ticket, each process reads its own.
        ref = first.tell("begin lease 60").split()[1:]
        assert second.tell("join " + " ".join(ref)) == "joined"
        assert first.tell("lease") == "lease 48 3 2 1"
        assert second.tell("lease") == "lease 48 3 2 1"
        assert first.tell("end") == "ended"
        # The scheduler has ended; the worker's own half of the lease stands until its release.
        assert second.tell("lease") == "lease 48 3 2 1"
        assert second.tell("end") == "ended"
    finally:
        codes = [member.stop() for member in members]
    assert codes == [0, 0]


def test_another_engine_cannot_join(daemon):
    """A ticket's name is of use within its engine only."""
    import statecache as sc

    space = sc.Namespace("others", [sc.Group("state", max_bytes=64, need=sc.Need.END)])
    one = sc.Session(daemon.socket, space, sc.Member(engine=sc.digest("one")))
    other = sc.Session(daemon.socket, space, sc.Member(engine=sc.digest("other")))
    with one, other, one.begin([1, 2, 3], hold=sc.Hold.NONE) as ticket:
        ticket.settle(20.0)
        joined = other.join(ticket.ref)
        assert joined.wait(20.0).state is sc.State.LOST
