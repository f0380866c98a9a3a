#pragma once
// What crosses the rings: plain little-endian records of fixed size, and the arrays beside them.
// Every struct here is the format: trivially copyable, no padding that is not named, sizes
// asserted. A record is copied out of shared memory before it is looked at.
//
//   client -> daemon   Request (64 bytes) in the request ring; its payload in the request area
//   daemon -> client   Completion (64 bytes) in the completion ring; its payload in the reply area

#include "base/ids.hpp"
#include "base/spec.hpp"

#include <cstdint>
#include <type_traits>

namespace statecached::wire {

inline constexpr std::uint32_t kProtocolMin = 1;
inline constexpr std::uint32_t kProtocolMax = 1;

enum class Op : std::uint16_t {
  begin = 1,    ///< payload: BeginArgs, tokens (or keys), marks
  join = 2,     ///< become a member of a ticket of one's own engine group
  refresh = 3,  ///< match again (the ticket's points are sent anew)
  acquire = 4,  ///< a = at most this many tokens; b, c = have.every, have.end
  /// a = tokens, b = computed (kUnknown: all of them), c = marks; payload: tokens, marks
  append = 5,
  reserve = 6,  ///< a = number of wants; payload: WantRecord[a]
  commit = 7,   ///< a = number; payload: FilledRecord[a]
  abandon = 8,  ///< a = number; payload: uint64 slot[a]
  taint = 9,
  finish = 10,  ///< a = tokens computed, b = tokens prefilled, d = prefill nanoseconds
  release = 11,
  cancel = 12,
  invalidate = 13,
  let_go = 14,  ///< nothing is used any more of what was declared when attaching again
};

struct Request {
  std::uint16_t op = 0;              ///< Op
  std::uint16_t flags = 0;           ///< zero
  std::uint32_t cookie = 0;          ///< returned in the completion that answers this record
  TicketName ticket;                 ///< zero for commit, abandon, invalidate
  std::uint64_t payload_offset = 0;  ///< in the request area, FIFO; see channel.hpp
  std::uint32_t payload_bytes = 0;
  std::uint32_t a = 0;
  std::uint32_t b = 0;
  std::uint32_t c = 0;
  std::uint64_t d = 0;
  std::uint64_t reserved = 0;  ///< zero; makes it one cache line
};

static_assert(sizeof(Request) == 64 && std::is_trivially_copyable_v<Request>);

enum class Hold : std::uint8_t { none = 0, soft = 1, lease = 2 };

struct BeginArgs {
  Domain domain;
  TicketName parent;  ///< zero: none; else its first parent_tokens come before the tokens here
  std::uint32_t parent_tokens = 0;
  std::uint32_t tokens = 0;  ///< that follow this struct (a keyed namespace: keys of 32 bytes)
  std::uint32_t marks = 0;   ///< that follow the tokens; positions are of the whole sequence
      ///< (keyed: 1 where the key before the run follows them, and parent_tokens
      ///< is the run's first token or kUnknown)
  std::uint32_t have_every = 0;
  std::uint32_t have_end = 0;
  std::uint32_t keep_back = 1;  ///< tokens always left to compute
  std::uint32_t at_most = kUnknown;
  std::uint32_t deadline_us = 0;  ///< from now; 0: none
  std::uint16_t members = 0;      ///< how many will join; 0: all of the engine group
  std::uint8_t hold = 0;          ///< Hold
  std::uint8_t priority = 50;
  std::uint32_t reserved = 0;
};

static_assert(sizeof(BeginArgs) == 120 && std::is_trivially_copyable_v<BeginArgs>);

struct WantRecord {  ///< a block that holds tokens [first of its cell, at + ...), see below
  std::uint16_t group = 0;
  std::uint16_t reserved = 0;
  std::uint32_t first = 0;  ///< block: a multiple of block_tokens; checkpoint: equal to end
  std::uint32_t end = 0;    ///< block: first + valid tokens; checkpoint: state after `end` tokens
  std::uint32_t reserved2 = 0;
  std::uint64_t bytes = 0;  ///< payload of one shard; 0: what the group's layout says
};

static_assert(sizeof(WantRecord) == 24);

struct FilledRecord {
  std::uint64_t slot = 0;
  std::uint32_t valid = 0;  ///< tokens really written (<= reserved); 0: as reserved
  std::uint32_t reserved = 0;
};

static_assert(sizeof(FilledRecord) == 16);

enum class Event : std::uint16_t {
  /// begin, refresh, or news while loading. payload: AnswerRecord, PointRecord[], wishes u32[]
  answer = 1,
  /// begin with Hold::lease, acquire, join. a = tokens; payload: PieceRecord[b], ExtentRecord[c]
  leased = 2,
  slots = 3,      ///< reserve. payload: SlotRecord[a], ExtentRecord[b]
  committed = 4,  ///< commit. a = accepted, b = refused (slot unknown or stale)
  done = 5,       ///< everything else; code says how it went
  lost = 6,       ///< the ticket is gone (invalidated, evicted under a soft hold): compute it
};

struct Completion {
  std::uint16_t event = 0;   ///< Event
  std::uint16_t code = 0;    ///< Errc; 0 is success
  std::uint32_t cookie = 0;  ///< of the request it answers; 0: news
  TicketName ticket;
  std::uint64_t payload_offset = 0;  ///< in the reply area
  std::uint32_t payload_bytes = 0;
  std::uint32_t a = 0;
  std::uint32_t b = 0;
  std::uint32_t c = 0;
  std::uint64_t d = 0;
  std::uint64_t reserved = 0;  ///< zero; makes it one cache line
};

static_assert(sizeof(Completion) == 64 && std::is_trivially_copyable_v<Completion>);

enum class State : std::uint8_t { pending = 0, loading = 1, ready = 2, failed = 3, lost = 4 };
/// 0 is nearest to the engine.
enum class TierName : std::uint8_t { device = 0, host = 1, nvme = 2, none = 255 };

struct AnswerRecord {
  std::uint32_t version = 0;  ///< grows with every answer of this ticket
  std::uint32_t best = 0;     ///< tokens of the depth the verdict chose (0: compute all)
  std::uint32_t usable = 0;   ///< deepest depth that is ready now
  std::uint32_t stored = 0;   ///< tokens of the prompt for which all `every` groups have KV
  std::uint32_t points = 0;
  std::uint32_t wishes = 0;
  std::uint8_t state = 0;  ///< State of `best`
  std::uint8_t reserved[7] = {};
};

static_assert(sizeof(AnswerRecord) == 32);

struct PointRecord {  ///< one depth the request could resume from
  std::uint32_t tokens = 0;
  std::uint8_t tier = 0;  ///< TierName: the lowest tier that any part of it needs
  std::uint8_t reserved[3] = {};
  std::uint64_t bytes = 0;  ///< to be loaded into the host tier, all shards
  std::uint32_t ready_in_us = 0;
  std::uint32_t recompute_us = 0;  ///< prefill of [0, tokens) instead
};

static_assert(sizeof(PointRecord) == 24);

struct PieceRecord {  ///< this member's shards of one object of a lease, in token order
  std::uint16_t group = 0;
  std::uint8_t tier_at_begin = 0;  ///< TierName where it was at begin
  std::uint8_t arena = 0;          ///< index of the arena its extents lie in (attach reply's order)
  std::uint32_t first = 0;
  std::uint32_t valid = 0;  ///< block: tokens that count for this prompt; checkpoint: 0
  std::uint16_t shard = 0;
  std::uint16_t extents = 0;  ///< 1: inline below; else ExtentRecords from index `offset`
  std::uint64_t offset = 0;
  std::uint64_t bytes = 0;  ///< payload, unpadded
};

static_assert(sizeof(PieceRecord) == 32);

struct ExtentRecord {
  std::uint64_t offset = 0;
  std::uint64_t bytes = 0;
};

enum class Grant : std::uint8_t {
  pending = 0,
  granted = 1,    ///< write, then commit
  exists = 2,     ///< already stored
  in_flight = 3,  ///< another is writing it; ask again later if it matters
  declined = 4,   ///< not worth keeping, tainted, read-only client, parents missing
  no_space = 5,
};

struct SlotRecord {
  std::uint64_t slot = 0;
  std::uint16_t group = 0;
  std::uint8_t grant = 0;  ///< Grant
  std::uint8_t arena = 0;
  std::uint32_t first = 0;
  std::uint32_t end = 0;
  std::uint16_t shard = 0;
  std::uint16_t extents = 0;  ///< as in PieceRecord
  std::uint64_t offset = 0;
  std::uint64_t bytes = 0;  ///< of this shard, unpadded
};

static_assert(sizeof(SlotRecord) == 40);

}  // namespace statecached::wire
