"""One process of an engine of two, in Python: what tests/capi/member.c is in C, see there.

Usage: member.py SOCKET NAMESPACE RANK
"""

import sys

import statecache as sc

BLOCK = 16
PATIENCE = 20.0


def own_shard(group, rank):
    return 0 if group == 1 else rank


def content_of(group, first, shard):
    return 1 + (group * 83 + first * 7 + shard * 31) % 251


class Process:
    def __init__(self, socket, name, rank):
        self.rank = rank
        space = sc.Namespace(
            name,
            [
                sc.Group("kv", max_bytes=4096, block_tokens=BLOCK, shards=2),
                sc.Group("window", max_bytes=2048, need=sc.Need.LAST, window=24, block_tokens=BLOCK),
                sc.Group("state", max_bytes=5000, need=sc.Need.END, shards=2),
            ],
            model=name.encode().ljust(32, b"\0"),
            cost=sc.Cost(c1=15e9),
        )
        shard = [own_shard(group, rank) for group in range(3)]
        member = sc.Member(engine=bytes([7]) * 32, rank=rank, world=2, shard=shard, program="member.py")
        self.session = sc.Session(socket, space, member)
        self.ticket = None

    def begin(self, hold, count):
        hold = sc.Hold.LEASE if hold == "lease" else sc.Hold.NONE
        self.ticket = self.session.begin(range(int(count)), hold=hold)
        self.ticket.settle(PATIENCE)
        return f"ref {self.ticket.ref.low} {self.ticket.ref.high}"

    def join(self, low, high):
        self.ticket = self.session.join(sc.TicketRef(int(low), int(high)))
        self.ticket.settle(PATIENCE)
        return "joined"

    def reserve(self, count):
        count = int(count)
        wants = [sc.Want(g, at, min(at + BLOCK, count)) for at in range(0, count, BLOCK) for g in (0, 1)]
        self.ticket.reserve(wants + [sc.Want(2, count, count)])
        self.ticket.settle(PATIENCE)
        return "reserved"

    def fill(self, count):
        done = 0
        while done < int(count):
            for slot in self.ticket.wait_slots(PATIENCE):
                assert slot.granted and slot.shard == own_shard(slot.group, self.rank), slot
                slot.write(bytes([content_of(slot.group, slot.first, slot.shard)]) * slot.bytes)
                self.session.commit([slot])
                done += 1
        self.session.drain(PATIENCE)
        return f"filled {done}"

    def lease(self):
        lease = self.ticket.wait_lease(PATIENCE)
        seen = [0, 0, 0]
        for piece in lease.pieces:
            shard = own_shard(piece.group, self.rank)
            assert piece.shard == shard and piece.bytes > 0, piece
            assert piece.tobytes() == bytes([content_of(piece.group, piece.first, shard)]) * piece.bytes, piece
            seen[piece.group] += 1
        return f"lease {lease.tokens} {seen[0]} {seen[1]} {seen[2]}"

    def end(self):
        self.ticket.finish()
        self.ticket.release()
        self.session.drain(PATIENCE)
        return "ended"


def main():
    process = Process(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    for line in sys.stdin:
        command, *arguments = line.split()
        print(getattr(process, command)(*arguments), flush=True)
    process.session.close()


if __name__ == "__main__":
    main()
