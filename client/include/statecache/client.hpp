#pragma once
// The C++ API of statecached, a prefix cache for the states and KV blocks of language models.
//
// A Session is one process's connection. Calls post a fixed-size record into shared memory or read
// shared memory; only calls named wait, settle or drain, and the copies read_into and write_from,
// block, each with a time limit. Whatever fails, is refused or is lost means "compute it": no call
// here is needed for a correct answer of the engine.
//
// Threads: every function of Session may be called from any thread at the same time, except moving
// and destroying it. Ownership: all that is returned is the caller's; only the memory that Extents
// point to belongs to the daemon's arena and stays mapped as long as the Session lives. Fork: a
// Session is of no use in a forked child, every call there fails with Errc::closed. The daemon's
// end: every ticket answers State::lost, every call Errc::closed, at once; attach anew. Exceptions:
// none leave this library; out of memory ends the process. Units: tokens for positions, lengths and
// depths, counted from the beginning of the sequence; bytes for sizes; Micros for times, which are
// limits from now on. Errors that any function may give, and that are not repeated below: closed;
// busy (the ring is full; nothing was sent); not_found (no such ticket, or one that has ended);
// invalid_argument (more items than one record can carry: split them). What the daemon alone can
// see is refused later: settle() tells.

#include "statecache/export.hpp"
#include "statecache/status.hpp"

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace statecache {

using Token = std::uint32_t;
using SlotId = std::uint64_t;
using TicketId = std::uint64_t;  ///< local to the Session; never 0, never used twice
using Digest = std::array<std::byte, 32>;
using Micros = std::chrono::microseconds;
inline constexpr std::uint32_t kUnknown = std::numeric_limits<std::uint32_t>::max();

// ---- what is cached ----------------------------------------------------------------------------

/// What resuming at position p needs of a group: all of [0, p); the last `window` tokens; a state
/// at p.
enum class Need : std::uint8_t { every = 0, last = 1, end = 2 };

struct Group {
  std::string name;  ///< 1 to 255 bytes, each name once
  Need need = Need::every;
  /// block k holds tokens [k block_tokens, (k + 1) block_tokens), or the part
  std::uint32_t block_tokens = 64;
  ///< of them that exists; ignored for Need::end
  std::uint32_t window = 0;  ///< tokens, for Need::last
  /// an object that ends at e serves resuming at e - lookahead (drafts that
  std::uint32_t lookahead = 0;
  ///< look ahead); its bytes depend on tokens [0, e)
  /// largest payload of one shard of one object: all layers of the group
  std::uint64_t max_bytes = 0;
  std::uint16_t shards = 1;  ///< 1 to 64; an object is there when all its shards are
  bool contiguous = false;   ///< one shard must lie in one Extent
  /// a partial block needs only its share of max_bytes, and the beginning of
  bool token_major = true;
  ///< a block is that of a shorter one
};

/// FLOPs of prefilling tokens a..b: c0 + c1 (b-a) + c2 (b^2-a^2), and the same with window_c2 for
/// groups whose attention is capped at `window` tokens.
struct Cost {
  double c0 = 0, c1 = 0, c2 = 0, window_c2 = 0;
  std::uint32_t window = 0;
};

enum class Addressing : std::uint8_t { tokens = 0, keys = 1 };

struct NamespaceSpec {
  std::string name;                   ///< for people; another content is another namespace
  Digest model{};                     ///< weights, revision, quantisation ...
  Digest layout{};                    ///< strides, data types, build
  std::vector<Group> groups;          ///< at most 8
  std::uint32_t resume_grid = 1;      ///< resume only at multiples of it
  std::uint32_t checkpoint_grid = 1;  ///< checkpoints only at multiples of it
  /// how many the engine can take in one chunk of a prefill; 0: any. It
  std::uint32_t checkpoints_per_chunk = 0;
  ///< names the engine's habit; which wishes it follows is the engine's
  ///< choice, who knows its chunks: they come best first
  Cost cost;  ///< what reports of prefill times are compared with; not a part of the
              ///< namespace's identity, nor is `name`
  Addressing addressing = Addressing::tokens;
  std::uint32_t tokens_per_key = 0;  ///< keyed only: one key stands for so many tokens
  std::uint8_t key_bytes = 0;        ///< keyed only: 16 to 32
};

/// This process within the engine. Processes with the same `engine` may share tickets.
struct Member {
  Digest engine{};
  std::uint16_t rank = 0;   ///< below `world`
  std::uint16_t world = 1;  ///< processes of the engine that attach
  /// its shard of each group, below Group::shards; empty: shard 0 of all. Two
  std::vector<std::uint16_t> shard;
  ///< members may hold the same shard of a group: one of them writes it
  std::string program;  ///< for people
};

// ---- asking ------------------------------------------------------------------------------------

/// What else the state depends on. Another domain shares nothing, from the first token on.
struct Domain {
  Digest adapter{};  ///< a LoRA; zero: none
  Digest salt{};     ///< a tenant, a user; zero: shared by all
};

/// Tokens [at, at + length) stand for other content (an image). Sorted, not overlapping.
struct Mark {
  std::uint32_t at = 0;
  std::uint32_t length = 0;
  Digest content{};
  bool atomic = false;  ///< never resumed strictly inside
};

/// Already in the engine: KV of the first `every` tokens; the state after `end` tokens. It is
/// neither loaded nor leased.
struct Have {
  std::uint32_t every = 0;
  std::uint32_t end = 0;
};
/// none: a ticket only for saving. soft: load it and protect it for a while. lease: also give
/// addresses.
enum class Hold : std::uint8_t { none = 0, soft = 1, lease = 2 };

struct Limits {
  Have have;
  Hold hold = Hold::soft;
  /// tokens always left to compute; 0 is taken as 1: the last one gives the logits
  std::uint32_t keep_back = 1;
  std::uint32_t at_most = kUnknown;  ///< resume no deeper
  /// from now; a prefetch (Hold::soft) that cannot make it is not started. 0: none
  Micros deadline{};
  std::uint8_t priority = 50;  ///< 0 to 100. The daemon of this version takes no notice of it
  std::uint16_t members = 0;   ///< processes that will join; 0: all of the engine
};

struct Ask {
  std::span<const Token> tokens;  ///< read before begin() returns
  std::span<const Mark> marks;    ///< positions of the whole sequence
  Domain domain;
  TicketId parent = 0;  ///< its first parent_tokens come before `tokens`; 0: none
  std::uint32_t parent_tokens = 0;
};

/// One key a page, each chained over all before it. Positions of the ticket are tokens of the
/// sequence, from first_token on; where that is not known, tokens from the beginning of the run.
/// What comes before the run is taken to be in the engine: points tell what of the run itself is
/// there.
struct KeyRun {
  /// key_bytes of each, the rest zero; read before begin() returns
  std::span<const Digest> keys;
  std::optional<Digest> parent;  ///< the key before the first; none: the run begins the sequence
                                 ///< (first_token 0), or the engine does not know
  std::uint32_t first_token =
      kUnknown;  ///< a multiple of tokens_per_key; kUnknown: the engine does not know
  Domain domain;
};

enum class State : std::uint8_t { pending = 0, loading = 1, ready = 2, failed = 3, lost = 4 };
enum class Tier : std::uint8_t { device = 0, host = 1, nvme = 2, none = 255 };

/// One depth that the request could resume from.
struct Point {
  std::uint32_t tokens = 0;
  Tier tier = Tier::none;   ///< the lowest tier that any part of it needs
  std::uint64_t bytes = 0;  ///< to be loaded
  Micros ready_in{};
  Micros recompute{};  ///< prefill of [0, tokens) instead
};

struct Answer {
  State state = State::pending;
  std::uint32_t version = 0;          ///< grows with every change
  std::uint32_t best = 0;             ///< tokens of the depth that was chosen; 0: compute all
  std::uint32_t usable = 0;           ///< deepest depth that is ready now
  std::uint32_t stored = 0;           ///< tokens for which all groups of Need::every have KV
  std::vector<Point> points;          ///< ascending
  std::vector<std::uint32_t> wishes;  ///< checkpoints to take, most wanted first
};

// ---- bytes -------------------------------------------------------------------------------------

/// Memory: of the arena in Pieces and Slots, of the caller in Memory.
struct Extent {
  std::byte* data = nullptr;  ///< of a Piece: never write there (it may be mapped read-only)
  std::size_t bytes = 0;
};

/// The extents of one shard: nearly always one, and then nothing is allocated. A contiguous range.
class Extents {
 public:
  Extents() = default;

  Extents(std::initializer_list<Extent> list) {
    for (const Extent& extent : list)
      push_back(extent);
  }

  void push_back(const Extent& extent) {
    if (!any_) {
      one_ = extent;
      any_ = true;
      return;
    }
    if (more_.empty()) more_.push_back(one_);
    more_.push_back(extent);
  }

  /// Keeps what was allocated.
  void clear() noexcept {
    more_.clear();
    any_ = false;
  }

  [[nodiscard]] std::size_t size() const noexcept {
    return more_.empty() ? (any_ ? 1 : 0) : more_.size();
  }

  [[nodiscard]] bool empty() const noexcept { return !any_; }

  [[nodiscard]] const Extent* data() const noexcept { return more_.empty() ? &one_ : more_.data(); }

  [[nodiscard]] const Extent* begin() const noexcept { return data(); }

  [[nodiscard]] const Extent* end() const noexcept { return data() + size(); }

  [[nodiscard]] const Extent& operator[](std::size_t at) const noexcept { return data()[at]; }

  [[nodiscard]] const Extent& front() const noexcept { return *data(); }

 private:
  Extent one_;
  bool any_ = false;
  std::vector<Extent> more_;  ///< all of them, from two on
};

/// This member's shard of one object under a lease.
struct Piece {
  std::uint16_t group = 0;  ///< index into NamespaceSpec::groups
  std::uint16_t shard = 0;
  std::uint32_t first = 0;  ///< block: its first token; checkpoint: state after so many
  std::uint32_t valid = 0;  ///< block: tokens that count here; checkpoint: 0
  Tier tier = Tier::none;   ///< where it was at begin
  std::uint64_t bytes = 0;  ///< payload; the sum of `where`
  Extents where;
};

/// A block [first, end) with first a multiple of the group's block_tokens and at most block_tokens
/// long, or, with first == end, the state after `end` tokens (of a group that looks ahead: the
/// state for resuming at end - lookahead).
struct Want {
  std::uint16_t group = 0;
  std::uint32_t first = 0;
  std::uint32_t end = 0;
  std::uint64_t bytes = 0;  ///< payload of one shard; 0: what the group's layout says
};
enum class Grant : std::uint8_t {
  pending = 0,
  granted = 1,    ///< write, then commit
  exists = 2,     ///< stored already
  in_flight = 3,  ///< another is writing it
  /// not worth keeping, tainted, read-only, out of range, or what it hangs on is missing: a block
  declined = 4,
  ///< hangs on the block before it, a state on the whole blocks of Need::every below it
  no_space = 5,  ///< all that is there is in use, or not yet saved elsewhere
};

/// The answer to one Want (this member's shard), or, unasked, the shard of an object that another
/// member of the ticket reserved.
struct Slot {
  SlotId id = 0;  ///< 0 unless granted
  std::uint16_t group = 0;
  std::uint16_t shard = 0;
  std::uint32_t first = 0;
  std::uint32_t end = 0;
  Grant grant = Grant::pending;
  std::uint64_t bytes = 0;  ///< payload; the sum of `where`
  Extents where;
};

struct Filled {
  SlotId slot = 0;
  std::uint32_t valid = 0;  ///< tokens really written; 0: as reserved
};

/// The caller's memory for this member's shard of one object.
struct Memory {
  std::uint16_t group = 0;
  std::uint32_t at = 0;     ///< first token of the block; tokens before the state
  std::uint32_t valid = 0;  ///< write_from: tokens in the block; ignored for a state
  /// in order; their sizes add up to the payload's, or to more (read_into)
  std::span<const Extent> pieces;
};

struct Lease {
  std::uint32_t tokens = 0;   ///< resume here; 0: compute all
  std::vector<Piece> pieces;  ///< token order
};

struct Report {
  /// tokens whose state was computed, all in all, generated ones included
  std::uint32_t computed = 0;
  std::uint32_t prefilled = 0;  ///< of the prompt: what was not restored
  Micros prefill{};  ///< time it took; teaches the daemon what recomputing costs. 0: not measured
};

/// A ticket's name across processes of one engine: plain bytes.
struct TicketRef {
  std::uint64_t low = 0;
  std::uint64_t high = 0;
};

struct Counters {
  std::uint64_t posted = 0;     ///< records sent
  std::uint64_t busy = 0;       ///< records not sent, the ring was full
  std::uint64_t errors = 0;     ///< records that the daemon refused
  std::uint64_t committed = 0;  ///< slots accepted
  std::uint64_t refused = 0;    ///< slots refused at commit
  std::uint64_t returned = 0;   ///< granted slots that nobody was left to fill, given back
};

class STATECACHE_API Session {
 public:
  class Impl;

  /// Connects, opens the namespace (made when it is new) and maps the arenas: writable where the
  /// daemon allows it, else read-only. `timeout` limits the wait for the daemon's reply. Errors:
  /// not_found (no such socket), permission, invalid_argument (the spec; the text says what),
  /// version, no_space, timeout.
  static Result<Session> attach(std::string_view socket,
                                const NamespaceSpec& spec,
                                const Member& member,
                                Micros timeout = std::chrono::seconds(10)) noexcept;
  /// What was moved from may only be destroyed or assigned to.
  Session(Session&&) noexcept;
  Session& operator=(Session&&) noexcept;
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;
  /// Ends the connection and unmaps the arenas: no Extent of this Session may be used any more.
  /// What this process held comes back to the daemon when the process ends.
  ~Session();

  /// False once the daemon has gone: looks at the socket at each call.
  [[nodiscard]] bool connected() const noexcept;
  /// The namespace as people see it: its name, or name@first-8-hex where that is ambiguous.
  [[nodiscard]] const std::string& name() const noexcept;
  /// Of the daemon's run: another number after a restart.
  [[nodiscard]] std::uint64_t epoch() const noexcept;
  /// Slots lie in the arena and are written in place. What is stored is read in place in either
  /// case.
  [[nodiscard]] bool writable() const noexcept;
  /// Of this Session since attach; each grows by itself, so that they need not fit together.
  [[nodiscard]] Counters counters() const noexcept;

  // ---- find ----
  /// Posts one record with the tokens. The ticket answers State::pending until the daemon has
  /// matched. Errors: invalid_argument (more tokens than the ring's area holds: use parent and
  /// append; a namespace of keys); not_found (no such parent). Marks that overlap, or a
  /// parent_tokens beyond the parent's end: settle() tells.
  Result<TicketId> begin(const Ask& ask, const Limits& limits = {}) noexcept;
  /// The same for a namespace that is addressed by keys. Limits::keep_back does not count there:
  /// keys name whole pages of a prompt that goes on. Errors: invalid_argument (a namespace of
  /// tokens; a key with bytes after its key_bytes).
  Result<TicketId> begin(const KeyRun& run, const Limits& limits = {}) noexcept;
  /// The latest answer, without a round trip. Depths that the engine itself has (`have`: the lesser
  /// of its parts, as far as the namespace has such groups) are left out: best and usable are 0
  /// unless deeper. An unknown ticket answers State::lost.
  [[nodiscard]] Answer poll(TicketId ticket, Have have = {}) const noexcept;
  /// As poll, once the state is ready, failed or lost, or the time is over: then the state is still
  /// pending or loading, which is no error. A refresh is waited for.
  [[nodiscard]] Answer wait(TicketId ticket, Micros timeout, Have have = {}) const noexcept;
  /// Matches again: what others stored since. Errors: the first that failed; the others were sent.
  Status refresh(std::span<const TicketId> tickets) noexcept;
  /// Asks to lease the deepest ready depth of at most `at_most` tokens, and to drop the rest. What
  /// is still loading is not waited for. The lease comes by wait_lease; one of 0 tokens when
  /// nothing was ready.
  Status acquire(TicketId ticket, std::uint32_t at_most = kUnknown, Have have = {}) noexcept;

  // ---- read ----
  /// Plain bytes to give to other processes of the engine, once the daemon has answered begin()
  /// (wait, wait_lease or settle): a join that overtakes it finds no such ticket.
  Result<TicketRef> ref(TicketId ticket) const noexcept;
  /// Becomes a member of the ticket; its lease, when there is one, comes by wait_lease. A name that
  /// the daemon does not know, or another engine's, shows as State::lost. Errors: invalid_argument
  /// (the zero name); already_exists (this Session has that ticket).
  Result<TicketId> join(const TicketRef& ref) noexcept;
  /// The lease that begin(Hold::lease), acquire or join asked for. Errors: timeout; what the daemon
  /// refused acquire with; not_found when the ticket was lost; invalid_argument when none was asked
  /// for.
  Result<Lease> wait_lease(TicketId ticket, Micros timeout) const noexcept;
  /// The same into a Lease that is kept: its memory is used again, so that in time nothing
  /// allocates. On an error it is as it was.
  Status wait_lease(TicketId ticket, Micros timeout, Lease& into) const noexcept;
  /// Its pieces, this member's shards in token order, without waiting. Errors: as wait_lease, but
  /// busy while the lease is not there. Pieces may be read until release(); the copy here is the
  /// caller's.
  Result<std::vector<Piece>> pieces(TicketId ticket) const noexcept;
  /// Waits for the lease and copies pieces into the caller's memory. ok[i] is false where there is
  /// no such piece or memory[i] is smaller than it; nothing is copied there. `ok` has memory's
  /// size. Errors: as wait_lease; invalid_argument (another size of `ok`). The copies are this
  /// thread's work, without a lock.
  Status read_into(TicketId ticket,
                   std::span<const Memory> memory,
                   Micros timeout,
                   std::span<bool> ok) const noexcept;

  // ---- grow and save ----
  /// The sequence goes on with these tokens, read before this returns; the state of the first
  /// `computed` of all is computed (kUnknown: all), or will be when what is reserved of them is
  /// committed: reserve() reaches as far. Marks: positions of the whole sequence. Errors:
  /// invalid_argument (as begin); `computed` beyond the end: settle() tells.
  Status append(TicketId ticket,
                std::span<const Token> tokens,
                std::span<const Mark> marks = {},
                std::uint32_t computed = kUnknown) noexcept;
  /// The same with the keys of further pages, in a namespace that is addressed by keys.
  Status append_keys(TicketId ticket,
                     std::span<const Digest> keys,
                     std::uint32_t computed = kUnknown) noexcept;
  /// Asks for space: all shards of an object or none. The answers come by wait_slots, for the other
  /// members of the ticket unasked. May be called before the state is computed, so that the answer
  /// is there when it is. What is out of range is answered with Grant::declined.
  Status reserve(TicketId ticket, std::span<const Want> wants) noexcept;
  /// Answered and not yet taken by wait_slots, without waiting. A granted slot may be written until
  /// it is committed, abandoned or older than limits.reservation_age of the daemon's settings.
  Result<std::vector<Slot>> slots(TicketId ticket) const noexcept;
  /// Waits until every reserve of this ticket is answered, and takes the answers: one a want, in
  /// order. With nothing outstanding it returns what is there. Errors: timeout (nothing is taken);
  /// what the daemon refused a reserve with.
  Result<std::vector<Slot>> wait_slots(TicketId ticket, Micros timeout) noexcept;
  /// The same into a vector that is kept, as with wait_lease.
  Status wait_slots(TicketId ticket, Micros timeout, std::vector<Slot>& into) noexcept;
  /// These slots are written; an object becomes visible when all its shards are. Needs no ticket.
  /// Refusals (the reservation was too old, or invalidated) are counted, see counters(); such a
  /// slot's memory is another's by then, which is why a reservation must not be kept for minutes.
  Status commit(std::span<const Filled> filled) noexcept;
  /// These slots will not be written any more. Only after own traffic into them has ended.
  Status abandon(std::span<const SlotId> slots) noexcept;
  /// Reserves, waits for the slots, copies and commits, for memory[i] of exactly the object's
  /// payload. ok[i]: committed (counters() tells refusals), or stored already. `ok` has memory's
  /// size. Errors: invalid_argument (another size of `ok`; no such group; the same object twice);
  /// timeout.
  Status write_from(TicketId ticket,
                    std::span<const Memory> memory,
                    Micros timeout,
                    std::span<bool> ok) noexcept;
  /// The tokens no longer determine the state (context shift): nothing more is stored under the
  /// ticket.
  Status taint(TicketId ticket) noexcept;

  // ---- end: each may be repeated, and is Ok for a ticket that has ended ----
  /// No more appends and reserves; slots that were granted may still be committed. Of a joined
  /// ticket only the local handle is meant: the member that began it finishes it, and its report
  /// counts.
  Status finish(TicketId ticket, const Report& report = {}) noexcept;
  /// This member reads no more: its pieces may be overwritten from here on. With finish, the end of
  /// the handle.
  Status release(TicketId ticket) noexcept;
  /// Stops loading; then as finish and release.
  Status cancel(TicketId ticket) noexcept;
  /// New weights: nothing that is stored so far is found again. Leases stay readable.
  Status invalidate() noexcept;

  // ---- order ----
  /// Waits until all that was posted for the ticket is answered. Errors: timeout; else the first
  /// thing the daemon refused since the last settle.
  Status settle(TicketId ticket, Micros timeout) noexcept;
  /// Waits until everything posted by this Session is answered. Errors: timeout.
  Status drain(Micros timeout) noexcept;

 private:
  explicit Session(std::unique_ptr<Impl> impl) noexcept;
  std::unique_ptr<Impl> impl_;
};

}  // namespace statecache
