#pragma once
// The state machine that owns everything a cache of model states knows: namespaces, the prefix
// tree, what lies in which tier, who holds it, what is being written, read, demoted. It does no I/O
// and reads no clock: time comes in with each call, work goes out through the seams (Disk,
// CopyEngine, Catalog) and comes back when step() polls them. The daemon and the simulator run this
// same code.
//
// Threads: one (the conductor). Listener calls happen inside the calls that cause them.

#include "base/histogram.hpp"
#include "base/ids.hpp"
#include "base/result.hpp"
#include "base/spec.hpp"
#include "base/time.hpp"
#include "policy/options.hpp"
#include "policy/tier.hpp"
#include "tiers/catalog.hpp"
#include "tiers/copy_engine.hpp"
#include "tiers/disk.hpp"
#include "tiers/host/table.hpp"

#include <boost/container/small_vector.hpp>

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace statecached {

using ClientIx = std::uint32_t;  ///< one attached process; never reused
using NamespaceIx = std::uint32_t;
using SlotId = std::uint64_t;  ///< index and generation of a reservation's part

/// Whose state is whose. Numbers in MemberInfo are indices into CacheOptions::tenants.
struct TenantOptions {
  std::uint32_t trust_domain = 0;
  std::uint64_t quota = UINT64_MAX;  ///< bytes in each tier
  std::uint32_t key = 0;  ///< what rows call it, whatever else is configured; 0: the default
};

/// A part of the host tier that one trust domain has alone: an arena of its own.
struct RegionOptions {
  std::uint32_t trust_domain = 0;
  std::uint64_t bytes = 0;
};

struct TenantStatus {
  TenantOptions options;
  std::array<std::uint64_t, kTiers> bytes{};
  std::uint64_t objects = 0;
  std::uint64_t writing = 0;  ///< reserved, not visible yet
  std::uint64_t refused = 0;  ///< reservations, for its quota
  std::uint32_t clients = 0;
};

struct CacheOptions {
  std::uint64_t device_bytes = 0;  ///< 0: no device tier. Memory arena kDeviceArena
  std::uint64_t host_bytes = 0;    ///< 0: no host tier (simulator only). Memory arena kHostArena
  PolicyOptions policy;
  std::uint64_t lease_bytes_max = UINT64_MAX;  ///< of one client
  Nanos reservation_age = std::chrono::seconds(30);
  Nanos soft_hold_age = std::chrono::seconds(10);
  double engine_flops = 400e12;  ///< prior of the FLOP/s an engine achieves
  double host_bytes_per_second = 50e9;
  double nvme_bytes_per_second = 2e9;  ///< prior; measured from then on (the simulator keeps it)
  /// Where marconi_paper's alpha is tried on past requests (the daemon: a thread of its own); null:
  /// at once.
  std::function<void(std::function<void()>)> background;
  bool measure_speeds = true;
  /// Nanoseconds of a clock, to measure the time inside policy code with
  /// (CacheCounters::policy_nanos); null: not measured.
  std::uint64_t (*policy_clock)() = nullptr;
  bool follow_verdict = true;  ///< false: the deepest depth always (the paper's counting)
  /// least number of tokens left to compute, whatever a request asks
  std::uint32_t keep_back = 1;
  std::vector<TenantOptions> tenants;  ///< empty: one, without limits
  std::vector<RegionOptions> regions;  ///< of host_bytes, in the order of addresses; empty: one
  std::uint32_t slot_base = 0;  ///< slot names begin here: other ones than an earlier daemon's
};

inline constexpr std::uint32_t kHostArena = 0;
inline constexpr std::uint32_t kDeviceArena = 1;

class WriteBudget;

struct CacheSeams {
  std::vector<Disk*> disks;    ///< empty: no NVMe tier
  Catalog* catalog = nullptr;  ///< null exactly when disks is empty
  CopyEngine* copier = nullptr;
  WriteBudget* budget = nullptr;  ///< null: unlimited
  /// lists what the host tier holds; null: nothing outlives us there
  HostTable* table = nullptr;
};

/// A process that attaches. `shard[g]` is its shard of group g (empty: shard 0 everywhere).
struct MemberInfo {
  Digest engine;
  std::uint16_t rank = 0;
  std::uint16_t world = 1;
  std::vector<std::uint16_t> shard;
  std::uint32_t tenant = 0;
  std::uint32_t trust_domain = 0;
  bool may_write = true;        ///< in place; false and not staged: every reservation is declined
  bool staged = false;          ///< writes come by stage()
  std::uint64_t host_base = 0;  ///< where its trust domain's arena begins in the host tier
  std::string program;
  std::int32_t pid = 0;
  std::uint64_t session = 0;   ///< its own number, the same when it attaches again; 0: none
  std::uint64_t started = 0;   ///< of its process, as /proc says it
  bool again = false;          ///< it was attached to an earlier daemon
  std::vector<Extent> in_use;  ///< then: what it still reads or writes of that one's host memory
};

struct Have {
  std::uint32_t every = 0;
  std::uint32_t end = 0;
};
enum class HoldKind : std::uint8_t { none, soft, lease };

struct BeginRequest {
  std::span<const Token> tokens;
  std::span<const Mark> marks;
  Domain domain;
  TicketName parent;  ///< zero: none
  std::uint32_t parent_tokens = 0;
  Have have;
  HoldKind hold = HoldKind::soft;
  std::uint32_t keep_back = 1;
  std::uint32_t at_most = kUnknown;
  Nanos deadline{};  ///< from now; 0: none
  std::uint8_t priority = 50;
  std::uint16_t members = 0;     ///< 0: the engine's world
  std::span<const Digest> keys;  ///< a keyed namespace: these instead of tokens, marks and parent
  std::optional<Digest> after;   ///< the key before the first
  std::uint32_t first_token = kUnknown;
};

enum class TicketState : std::uint8_t { pending, loading, ready, failed, lost };

struct Point {
  std::uint32_t tokens = 0;
  Tier tier = Tier::none;   ///< the lowest tier that any part of it needs
  std::uint64_t bytes = 0;  ///< to be loaded into the host tier
  Nanos ready_in{};
  Nanos recompute{};  ///< prefill of [0, tokens) instead
};

struct Answer {
  TicketState state = TicketState::pending;
  std::uint32_t version = 0;
  std::uint32_t best = 0;
  std::uint32_t usable = 0;
  std::uint32_t stored = 0;
  std::vector<Point> points;          ///< ascending depth
  std::vector<std::uint32_t> wishes;  ///< checkpoints to take, most wanted first
};

/// Where one shard lies: nearly always one extent, and then nothing is allocated.
using ExtentList = boost::container::small_vector<Extent, 1>;

/// One shard of one object under a lease. `runs` lie in `arena`.
struct Piece {
  std::uint16_t group = 0;
  Tier tier_at_begin = Tier::none;
  std::uint32_t arena = 0;
  std::uint32_t first = 0;
  std::uint32_t valid = 0;  ///< tokens of it that count here; 0 for a checkpoint
  std::uint16_t shard = 0;
  std::uint64_t payload_bytes = 0;
  ExtentList runs;
};

struct Lease {
  std::uint32_t tokens = 0;
  std::vector<Piece> pieces;  ///< all shards, token order
};

struct WantItem {
  std::uint16_t group = 0;
  std::uint32_t first = 0;  ///< block: multiple of B; checkpoint: equal to end
  std::uint32_t end = 0;
  std::uint64_t bytes = 0;  ///< payload of one shard; 0: the group's layout says
};

enum class GrantKind : std::uint8_t {
  granted = 1,
  exists = 2,
  in_flight = 3,
  declined = 4,
  no_space = 5
};

/// The answer for one shard of one WantItem. Not granted: slot 0, no runs, shard 0.
struct SlotGrant {
  SlotId slot = 0;
  GrantKind grant = GrantKind::declined;
  std::uint16_t group = 0;
  std::uint32_t first = 0;
  std::uint32_t end = 0;
  std::uint16_t shard = 0;
  std::uint32_t arena = 0;
  std::uint64_t payload_bytes = 0;
  ExtentList runs;
};

struct Filled {
  SlotId slot = 0;
  std::uint32_t valid = 0;  ///< 0: as reserved
};

/// Where a client that may not write an arena has put the bytes of a slot: runs of memory of its
/// own.
struct StagedBytes {
  std::shared_ptr<const Mapping> memory;
  ExtentList runs;
};

/// Why something was refused, dropped or lost; also the `reason` label of counters and events.
enum class Reason : std::uint8_t {
  none,
  capacity,
  quota,
  tainted,
  read_only,
  parents_missing,
  not_worth_it,
  bad_range,
  stale_slot,
  too_large,
  io_error,
  corrupt,
  invalidated,
  client_died,
  superseded,
  replaced,
  removed,
  soft_hold_expired,
  count_,
};
[[nodiscard]] const char* to_string(Reason reason) noexcept;

enum class EventKind : std::uint8_t {
  stored,
  durable,
  demoted,
  promoted,
  dropped,
  refused,
  count_
};
[[nodiscard]] const char* to_string(EventKind kind) noexcept;

struct CacheEvent {
  EventKind kind = EventKind::stored;
  Reason reason = Reason::none;
  Tier tier = Tier::none;
  NamespaceIx ns = 0;
  ObjectId id;  ///< zero for a refusal
  std::uint16_t group = 0;
  std::uint32_t first = 0;
  std::uint32_t end = 0;
  std::uint64_t bytes = 0;
};

/// News. Methods must not call back into the Cache.
class CacheListener {
 public:
  CacheListener() = default;
  CacheListener(const CacheListener&) = delete;
  CacheListener& operator=(const CacheListener&) = delete;
  virtual ~CacheListener() = default;
  /// The answer of this ticket changed after begin() or refresh() returned (loaded, failed, lost).
  virtual void on_answer(const TicketName& ticket) = 0;
  /// A lease that was asked for while loading is there now: Cache::lease() has it.
  virtual void on_leased(const TicketName& ticket) = 0;
  virtual void on_event(const CacheEvent& event) = 0;

  /// What stage() started has ended: committed, or refused.
  virtual void on_staged(std::uint64_t token, bool committed) {
    static_cast<void>(token);
    static_cast<void>(committed);
  }
};

struct TierStatus {
  std::uint64_t capacity = 0;
  std::uint64_t used = 0;  ///< allocated, padding included
  std::uint64_t peak = 0;
  std::uint64_t objects = 0;
  std::uint64_t held_bytes = 0;
};

struct CacheCounters {
  std::uint64_t policy_nanos = 0;  ///< matching, planning, scoring, choosing victims
  std::uint64_t requests = 0, input_tokens = 0;
  std::array<std::uint64_t, kTiers> hit_tokens{};  ///< leased, by the tier at begin
  std::uint64_t leases = 0, reservations = 0, grants = 0, commits = 0, commits_refused = 0;
  /// reservations, by reason
  std::array<std::uint64_t, static_cast<std::size_t>(Reason::count_)> refused{};
  /// objects
  std::array<std::array<std::uint64_t, static_cast<std::size_t>(Reason::count_)>, kTiers> evicted{};
  std::array<std::uint64_t, kTiers> bytes_demoted{};   ///< into this tier
  std::array<std::uint64_t, kTiers> bytes_promoted{};  ///< into this tier
  std::uint64_t bytes_stored = 0, bytes_dropped = 0, nvme_bytes_written = 0, nvme_bytes_read = 0;
  std::uint64_t checksum_failures = 0, io_errors = 0, loads = 0, load_failures = 0, evictions = 0;
  std::uint64_t prefetched_unused_bytes = 0;
  std::uint64_t catalog_errors = 0;  ///< batches that the catalog refused
  /// objects given up because the drives were behind, or out
  std::uint64_t dropped_unwritten = 0;
  std::uint64_t prefetch_refused = 0;  ///< loads that could not have met their deadline
  double flops = 0, flops_saved = 0;
};

struct NamespaceStatus {
  NamespaceIx ix = 0;
  std::string name;  ///< as people see it
  Digest fingerprint;
  std::uint32_t generation = 0;
  std::uint64_t objects = 0;
  std::array<std::uint64_t, kTiers> bytes{};
  std::uint32_t clients = 0;
};

/// One object as `ls` shows it.
struct ObjectStatus {
  ObjectId id;
  NamespaceIx ns = 0;
  std::uint16_t group = 0;
  std::uint32_t first = 0;
  std::uint32_t end = 0;
  std::uint64_t bytes = 0;
  std::array<bool, kTiers> in{};
  double keep_value = 0;  ///< seconds saved per second and byte, of its segment
  Nanos age{};            ///< since last use
  std::uint32_t holds = 0;
};

/// One depth as `explain` shows it: a segment of the prefix, or where it stops.
struct ExplainRow {
  std::uint32_t from = 0, to = 0;
  std::uint32_t kv_blocks = 0, kv_blocks_missing = 0;
  bool checkpoint = false;
  Tier kv_tier = Tier::none, checkpoint_tier = Tier::none;  ///< lowest tier of the parts
  double seconds_saved = 0;  ///< what losing it would add to the next hit
  double bytes_freed = 0;
  double reuse_rate = 0;  ///< per second
  double keep_value = 0;
  Nanos age{};
  std::string why;  ///< what is missing and why, in words; empty when nothing is
};

struct FlushReport {
  std::uint64_t durable_objects = 0;  ///< on NVMe now, rows synced
  std::uint64_t failed_objects = 0;   ///< could not be written (capacity, errors); still in memory
  std::string why;
};

struct VerifyReport {
  std::uint64_t objects = 0, bytes = 0, bad = 0;
};

/// What an earlier daemon left in host memory.
struct KeptStatus {
  std::uint64_t objects = 0;            ///< that a daemon after this one would find
  std::uint64_t listed = 0;             ///< objects that its table named
  std::uint64_t verified = 0;           ///< of those, whole and served again
  std::uint64_t lost = 0;               ///< other bytes, parents missing, another generation
  std::uint64_t waiting = 0;            ///< not looked at yet
  std::uint64_t quarantined_bytes = 0;  ///< that processes of then may still use
};

class CacheImpl;

class Cache {
 public:
  Cache(CacheOptions options, CacheSeams seams, CacheListener* listener);
  Cache(const Cache&) = delete;
  Cache& operator=(const Cache&) = delete;
  ~Cache();

  // ---- start ------------------------------------------------------------------------------------
  /// Reads the catalog and takes over what lies on the drives. Before anything else.
  [[nodiscard]] Result<std::uint64_t> recover(Instant now, std::int64_t wall_now);
  /// The same without waiting for every row: namespaces are known on return, step() takes objects
  /// over as they are read, hot namespaces first. What is known is served; nothing is written to
  /// NVMe or given up there before the last row.
  [[nodiscard]] Result<> recover_begin(Instant now, std::int64_t wall_now);
  [[nodiscard]] bool recovering() const noexcept;
  [[nodiscard]] std::uint64_t recovered() const noexcept;  ///< objects taken over so far

  /// Takes over what the table lists, after recover(). Each object is verified before it is found
  /// by anybody; everything else in the arena is quarantined until settle() says who uses what.
  void adopt(Instant now);
  /// `all`: every process that may use memory of then has said what, or is gone, and `in_use` is
  /// all of it.
  void settle(std::span<const Extent> in_use, bool all, Instant now);
  [[nodiscard]] KeptStatus kept() const;

  // ---- clients ----------------------------------------------------------------------------------
  /// Opens (or finds) the namespace and registers the member. Errors: a spec that is invalid; a
  /// tier too small for one object of it.
  [[nodiscard]] Result<ClientIx> attach(const NamespaceSpec& spec, MemberInfo member, Instant now);
  [[nodiscard]] NamespaceIx namespace_of(ClientIx client) const;
  [[nodiscard]] std::uint32_t generation(NamespaceIx ns) const;
  [[nodiscard]] const MemberInfo& member(ClientIx client) const;
  /// The process is gone: its leases, tickets and unfinished reservations come back.
  void detach(ClientIx client, Instant now);

  // ---- a request (design.md 2). Errors: not_found (no such ticket), invalid_argument, permission
  // -----
  /// Matches, plans, starts loading what the verdict wants (hold != none). A lease that is ready at
  /// once is there when this returns: see leased().
  [[nodiscard]] Result<const Answer*> begin(ClientIx client,
                                            const TicketName& name,
                                            const BeginRequest& request,
                                            Instant now);
  [[nodiscard]] Result<const Answer*> refresh(ClientIx client, const TicketName& name, Instant now);
  [[nodiscard]] Result<const Answer*> answer(const TicketName& name) const;
  [[nodiscard]] Result<> join(ClientIx client, const TicketName& name, Instant now);
  /// Leases the deepest ready depth <= at_most; 0 tokens is a valid lease of nothing. While the
  /// best depth is loading: leases what is ready now.
  [[nodiscard]] Result<const Lease*> acquire(ClientIx client,
                                             const TicketName& name,
                                             std::uint32_t at_most,
                                             Have have,
                                             Instant now);
  /// The lease of a ticket, or null while there is none.
  [[nodiscard]] const Lease* lease(const TicketName& name) const;
  /// The sequence grows; `computed` tokens of it (kUnknown: all) have their state computed.
  [[nodiscard]] Result<> append(ClientIx client,
                                const TicketName& name,
                                std::span<const Token> tokens,
                                std::span<const Mark> marks,
                                std::uint32_t computed,
                                Instant now);
  /// The same with the keys of further pages. All positions of a keyed ticket are tokens from
  /// first_token on, or from the beginning of its run where that is not known.
  [[nodiscard]] Result<> append_keys(ClientIx client,
                                     const TicketName& name,
                                     std::span<const Digest> keys,
                                     std::uint32_t computed);
  /// One SlotGrant for each shard of each granted want, and one for each want that was not granted.
  [[nodiscard]] Result<std::vector<SlotGrant>> reserve(ClientIx client,
                                                       const TicketName& name,
                                                       std::span<const WantItem> wants,
                                                       Instant now);
  /// The same, appended to `out`: a long list may be asked for in parts.
  [[nodiscard]] Result<> reserve(ClientIx client,
                                 const TicketName& name,
                                 std::span<const WantItem> wants,
                                 Instant now,
                                 std::vector<SlotGrant>& out);
  /// This shard of a reservation is written by another member of the ticket: its death ends the
  /// object.
  [[nodiscard]] bool hand(SlotId slot, ClientIx to);
  /// True: accepted. An object becomes visible when all its shards are in.
  [[nodiscard]] bool commit(ClientIx client, const Filled& filled, Instant now);
  /// As commit for a client that is `staged`: the bytes are copied in and hashed first, then it is
  /// committed; on_staged(token) says how that went. False: refused at once, nothing will come.
  [[nodiscard]] bool stage(ClientIx client,
                           const Filled& filled,
                           StagedBytes bytes,
                           std::uint64_t token,
                           Instant now);
  [[nodiscard]] bool abandon(ClientIx client, SlotId slot, Instant now);
  [[nodiscard]] Result<> taint(ClientIx client, const TicketName& name, Instant now);
  [[nodiscard]] Result<> finish(ClientIx client,
                                const TicketName& name,
                                std::uint32_t computed,
                                std::uint32_t prefilled,
                                Nanos prefill,
                                Instant now);
  [[nodiscard]] Result<> release(ClientIx client, const TicketName& name, Instant now);
  [[nodiscard]] Result<> cancel(ClientIx client, const TicketName& name, Instant now);
  /// New generation: nothing stored so far is found again, in any tier, on disk either.
  [[nodiscard]] Result<> invalidate(ClientIx client, Instant now);
  /// Clients that joined a ticket (its beginner included).
  [[nodiscard]] std::span<const ClientIx> members(const TicketName& name) const;

  // ---- time -------------------------------------------------------------------------------------
  /// Polls the seams, finishes transfers, writes behind, evicts ahead, expires. Returns how many
  /// completions it handled: 0 means there is nothing to do until something completes.
  std::size_t step(Instant now);
  /// Something was submitted to a seam and has not come back.
  [[nodiscard]] bool busy() const noexcept;

  // ---- operators --------------------------------------------------------------------------------
  /// Writes everything committed so far; `done` is called from step().
  void flush(std::function<void(const FlushReport&)> done, Instant now);
  /// Reads and checks every object on NVMe (and checks host copies whose checksum is known).
  void verify(std::function<void(const VerifyReport&)> done);
  /// Forgets a namespace in every tier, rows included; what is leased goes when its lease ends.
  /// Nothing of it survives the next start from here on; `done` (how many objects) is called from
  /// step() when the last is unfindable.
  void remove_namespace(NamespaceIx ns, std::function<void(std::uint64_t)> done, Instant now);
  void set_draining(bool draining) noexcept;  ///< true: every reservation is declined

  [[nodiscard]] TierStatus tier(Tier tier) const;
  /// The alpha in force; none unless the policy is marconi_paper.
  [[nodiscard]] std::optional<double> alpha() const;
  [[nodiscard]] const CacheCounters& counters() const noexcept;
  /// Of loads that were waited for: how long they took in thousandths of what the answer had said.
  [[nodiscard]] const Histogram& wait_error() const noexcept;
  [[nodiscard]] std::vector<NamespaceStatus> namespaces() const;
  [[nodiscard]] std::vector<TenantStatus> tenants() const;
  /// Forgets all that this tenant stored, in every tier, and what hangs on it. How many objects.
  [[nodiscard]] std::uint64_t remove_tenant(std::uint32_t tenant, Instant now);
  /// "name", or "name@first-8-hex" where several namespaces share the name.
  [[nodiscard]] std::string display_name(NamespaceIx ns) const;
  [[nodiscard]] Result<NamespaceIx> find_namespace(std::string_view name) const;
  enum class Sort : std::uint8_t { keep, bytes, age, depth };

  struct ListWish {
    std::optional<NamespaceIx> ns;
    std::optional<Tier> tier;
    Sort sort = Sort::keep;
    std::size_t limit = 100;
  };

  /// The first `limit` objects in that order; `done` is called from step().
  void list(const ListWish& wish, std::function<void(std::vector<ObjectStatus>)> done);
  /// The same at once, however long it takes: for tests.
  [[nodiscard]] std::vector<ObjectStatus> objects(std::optional<NamespaceIx> ns,
                                                  std::optional<Tier> tier,
                                                  Sort sort,
                                                  std::size_t limit,
                                                  Instant now) const;
  [[nodiscard]] Result<std::vector<ExplainRow>> explain(NamespaceIx ns,
                                                        std::span<const Token> tokens,
                                                        Instant now) const;
  /// As above for the prefix that ends at this object.
  [[nodiscard]] Result<std::vector<ExplainRow>> explain(NamespaceIx ns,
                                                        const ObjectId& id,
                                                        Instant now) const;
  [[nodiscard]] std::uint64_t bytes_held(ClientIx client) const;
  [[nodiscard]] std::uint64_t tickets() const noexcept;
  /// Recounts every ledger from scratch and compares; a message for the first that does not add up.
  [[nodiscard]] Result<> audit() const;

 private:
  std::unique_ptr<CacheImpl> impl_;
};

}  // namespace statecached
