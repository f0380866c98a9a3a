#pragma once
// The inside of Cache. One class, in these files by what they do:
//   requests.cpp   clients, tickets, reservations
//   plan.cpp       depths, the choice, holds, leases
//   tails.cpp      the last whole block of a request, held for the next
//   keyed.cpp      where tickets lie in the tree, and namespaces that are addressed by keys
//   members.cpp    members that leave
//   tenants.cpp    quotas, and which arena is whose
//   staging.cpp    commits whose bytes are copied in first
//   tiers.cpp      space, victims, dropping copies
//   learning.cpp   wishes; uses, births and worth of resume points
//   nodes.cpp      what policies that work node by node need
//   loads.cpp      from NVMe to host memory
//   transfers.cpp  write-behind, copies down, catalog batches
//   sweeps.cpp     flush, verify, ls, rm: work over everything, a bounded piece a step
//   keeping.cpp    the table of host objects, and taking over what an earlier daemon left
//   recovery.cpp   what the catalog says at start
//   write_budget   what a day's writes leave (a class of its own)
//   paths.cpp      drives that fail, the write budget, deadlines of prefetches
//   inspect.cpp    what operators ask

#include "daemon/cache/cache.hpp"
#include "daemon/cache/load_time.hpp"
#include "daemon/cache/write_budget.hpp"
#include "policy/eviction.hpp"
#include "policy/index.hpp"
#include "policy/resume.hpp"
#include "policy/score.hpp"
#include "policy/speed.hpp"
#include "policy/tenants.hpp"
#include "policy/tuner.hpp"
#include "tiers/regions.hpp"
#include "tiers/space.hpp"

#include <deque>
#include <limits>
#include <map>
#include <memory_resource>
#include <unordered_map>
#include <unordered_set>

namespace statecached {

inline constexpr std::size_t kSpareTickets = 256;  ///< ended ones kept for their memory
inline constexpr double kAnyWorth = std::numeric_limits<double>::infinity();
inline constexpr std::size_t kStaleMax = 4096;
inline constexpr std::size_t kPointsMax = 16;               ///< depths in one answer
inline constexpr std::uint64_t kDiskOpBytes = 1ULL << 20U;  ///< one transfer (limits.md 3)
inline constexpr std::uint64_t kBatchBytes = 8ULL << 20U;   ///< one write-behind batch
inline constexpr std::size_t kBatchesMax = 8;               ///< in flight
/// of segments that hold nothing: 256 MiB
inline constexpr std::uint64_t kRememberedTokens = 1ULL << 26U;
inline constexpr std::uint32_t kTokensMax = 1U << 24U;  ///< of one sequence
inline constexpr Nanos kSetbackFirst = std::chrono::milliseconds(100);
inline constexpr Nanos kSetbackMost = std::chrono::seconds(30);
inline constexpr std::size_t kRowsPerStep = 512;  ///< taken over at start, and swept

/// What the tiers know of an object, beside the policy's Object of the same number.
struct alignas(64) Resident {
  // What a lease looks at lies together, in two lines of the processor's cache.
  std::uint64_t payload = 0;  ///< of one shard
  std::uint32_t hits = 0;
  std::uint16_t shards = 1;
  bool prefetched = false;       ///< read from NVMe and not leased since
  bool writing_behind = false;   ///< in a batch
  std::array<PageRuns, 2> runs;  ///< device, host
  std::uint16_t path = 0;        ///< drive
  PageRuns disk;
  boost::container::small_vector<Checksum, 1> sums;  ///< one a shard, once computed
  ObjectId id;
  ObjectNumber number = 0;  ///< of its catalog row; 0 before one was planned
  std::uint32_t domain = 0;
  std::uint64_t shards_in = 0;  ///< bit per committed shard
  std::uint64_t hashed_in = 0;  ///< of those, whose sums were computed as they were copied in
  std::uint32_t copies_in = 0;  ///< shards being copied in
  /// open reservations, one a shard not yet in
  boost::container::small_vector<std::uint32_t, 1> slots;
  Instant reserved{};
  Tier home = Tier::none;  ///< where it is being written
  bool copying_down = false;
  bool not_worth_disk = false;                  ///< priced out: may be dropped unwritten
  std::uint32_t table_slot = HostTable::kNone;  ///< of its row in the table of host objects
  ObjectNumber kept_number = 0;                 ///< its name there; 0 before it had one
  std::uint32_t tenant = 0;                     ///< who stored it
  bool quarantined = false;  ///< held, since a process of an earlier daemon may be reading it
};

struct DomainInfo {
  std::uint32_t number = 0;
  NodeIx root = kNil;
  bool durable = false;           ///< its row is in the catalog
  std::uint32_t kept_number = 0;  ///< in the table of host objects; 0: not named there
};

struct SpaceInfo {
  NamespaceSpec spec;
  Digest fingerprint;
  std::uint32_t trust_domain = 0;
  std::uint32_t generation = 1;
  std::map<Domain, DomainInfo> domains;
  ObjectNumber next_number = 1;
  std::uint32_t next_domain = 1;
  bool durable = false;   ///< its row, as it is now, is in the catalog
  bool row_sent = false;  ///< some row of it may be there
  bool has_end = false;
  bool removed = false;
  std::uint32_t clients = 0;
  std::uint64_t objects = 0;                  ///< in any tier
  std::array<std::uint64_t, kTiers> bytes{};  ///< of those, by tier
  Speeds speeds;
  EngineSpeed speed;
  /// share of its requests that save a checkpoint behind their prompt; first unknown
  double saves_ends = 0;
  std::uint32_t kept_number = 0;  ///< in the table of host objects; 0: not named there
  std::uint32_t kept_generation = 0;
  std::uint32_t kept_slot = HostTable::kNone;
};

struct ClientInfo {
  explicit ClientInfo(std::pmr::memory_resource* pool) : slots(pool), tickets(pool) {}

  bool attached = false;
  NamespaceIx space = 0;
  MemberInfo member;
  std::uint64_t leased_bytes = 0;
  std::pmr::unordered_set<std::uint64_t> slots;
  std::pmr::unordered_set<TicketName> tickets;  ///< begun or joined
};

struct Held {
  ObjectIx object = kNil;
  std::uint32_t valid = 0;
  Tier tier_at_begin = Tier::none;
};

struct Ticket {
  TicketName name;
  NamespaceIx space = 0;
  std::uint32_t generation = 1;
  Digest engine;
  ClientIx owner = 0;
  Domain domain;
  std::uint32_t domain_number = 0;
  std::vector<Token> tokens;
  std::vector<Mark> marks;
  std::uint32_t prompt = 0;
  std::uint32_t computed = 0;
  std::uint32_t keep_back = 1, at_most = kUnknown;
  Have have;
  HoldKind hold = HoldKind::none;
  DiskClass read_class = DiskClass::demand;
  Instant deadline{};
  Position anchor;  ///< deepest point of the sequence in the tree; its node is referenced
  Answer answer;
  std::uint32_t chosen = 0;
  std::vector<Held> held;   ///< what `chosen` needs, held
  std::size_t loading = 0;  ///< of those, still on their way to memory
  std::uint64_t leased_bytes = 0;
  std::optional<Lease> lease;
  bool want_lease = false;
  Instant soft_until{};
  std::vector<ClientIx> joined;
  std::uint16_t members = 1;
  std::uint16_t released = 0;
  std::vector<double> wish_worth;  ///< keep values of what answer.wishes name
  bool again = false;              ///< all of its prompt was known
  bool could_counted = false;      ///< where it could have resumed from was counted as used
  bool resumed_at = false;         ///< and so was where it did
  bool saved_end = false;          ///< a checkpoint behind its prompt was asked for
  std::vector<ClientIx> released_by;
  Instant loading_since{};
  std::uint64_t waits_for = 0;  ///< bytes of the queue that end with the load of the chosen depth
  Nanos predicted{};            ///< how long that would take
  bool finished = false, tainted = false, lost = false;
  std::uint32_t open_slots = 0;
  std::uint32_t resumed = 0;  ///< tokens of the deepest lease it had
  /// the other side of this branch point went to make room: nothing parts there now
  std::uint32_t branch_gone = kUnknown;
  /// last whole blocks it stored or found stored, held
  std::array<ObjectIx, kEveryGroupsMax> tails = no_tails();
  IdChain chain;

  static std::array<ObjectIx, kEveryGroupsMax> no_tails() {
    std::array<ObjectIx, kEveryGroupsMax> none{};
    none.fill(kNil);
    return none;
  }

  // Keyed (shape.scope != 0): `tokens` are the words of the run's keys. What clients see, and all
  // positions above but anchor.at, count from `origin`, where the run begins; in the tree it begins
  // at `base`.
  SymbolShape shape;
  std::uint32_t origin = 0;
  bool origin_known = true;
  std::uint32_t base = 0;
  NodeIx root = kNil;           ///< of the tree that `base` is in
  std::optional<Digest> after;  ///< the key before the run

  [[nodiscard]] bool keyed() const noexcept { return shape.scope != 0; }

  /// From a client's position to the tree's, modulo 2^32.
  [[nodiscard]] std::uint32_t offset() const noexcept { return base - origin; }

  /// The end of the sequence, as clients count.
  [[nodiscard]] std::uint32_t end() const noexcept {
    return origin + static_cast<std::uint32_t>(tokens.size()) / shape.words * shape.tokens;
  }

  [[nodiscard]] Sequence sequence() const noexcept {
    return {tokens, marks, base, shape.tokens, shape.words};
  }
};

struct Slot {
  ObjectIx object = kNil;
  std::uint16_t shard = 0;
  ClientIx client = 0;
  TicketName ticket;
  std::uint32_t generation = 0;
  bool open = false;
  /// its object was given up (object is kNil); space that waits for this one's writer
  std::uint64_t condemned = 0;
  bool copying = false;  ///< its bytes are with the copier; only that commits or frees it
};

/// A slot whose bytes are being copied in.
struct StageJob {
  ObjectIx object = kNil;       ///< kNil: given up meanwhile
  std::uint64_t condemned = 0;  ///< then where its space waits
  ClientIx client = 0;
  Filled filled;
  std::uint64_t token = 0;
};

/// Checksums of a host object, computed so that its row can be listed.
struct KeepSum {
  std::vector<Checksum> sums;
  std::size_t left = 0;
};

/// A row of an earlier daemon whose bytes are not verified yet.
struct Adoption {
  std::uint32_t slot = HostTable::kNone;
  NamespaceIx space = 0;
  Domain domain;
  ObjectRow row;
  PageRuns runs;
  std::size_t parts = 0;  ///< verifications outstanding
  bool bad = false;
};

/// Space of an object that was given up while somebody still writes there: the copier, or clients
/// whose shards of it are open.
struct Condemned {
  Tier tier = Tier::none;
  PageRuns runs;
  std::uint32_t writers = 0;
};

struct LoadState {
  std::vector<TicketName> waiters;
  std::uint64_t queued_to = 0;  ///< CacheImpl::queued_to_ with this one
  std::size_t parts = 0;        ///< disk operations, then verifications, outstanding
  bool failed = false;
  bool cancelled = false;  ///< some of it was not read, since nobody waited
  Reason reason = Reason::none;
};

struct WriteBatch {
  enum class Phase : std::uint8_t { data, sync, ready, rows };
  std::uint64_t number = 0;
  Phase phase = Phase::data;
  std::uint16_t path = 0;
  std::vector<ObjectIx> objects;
  std::vector<std::pair<NamespaceIx, std::uint32_t>> spaces;   ///< rows it carries: generation
  std::vector<std::pair<NamespaceIx, std::uint32_t>> domains;  ///< rows it carries: number
  std::size_t parts = 0;
  std::uint64_t budget = 0;  ///< taken from the write budget
  bool failed = false;
  Reason reason = Reason::none;
};

/// Kept whole until it is durable: what the catalog refuses is asked for again.
struct DeleteBatch {
  std::vector<std::pair<std::uint16_t, PageRuns>> runs;  ///< freed when it is durable
  std::vector<ObjectKey> rows;
  std::vector<std::uint32_t> dropped;  ///< namespaces, all rows
  std::vector<NamespaceIx> renewed;    ///< namespaces whose row is written again (generation)

  [[nodiscard]] bool empty() const noexcept {
    return rows.empty() && dropped.empty() && renewed.empty();
  }
};

/// A part of the way to the drives that refused something: left alone for a while, longer each
/// time.
struct Setback {
  Nanos pause{};
  Instant until{};

  void refused(Instant now) noexcept {
    pause = pause.count() == 0 ? kSetbackFirst : std::min<Nanos>(pause * 2, kSetbackMost);
    until = now + pause;
  }

  void worked() noexcept { *this = Setback{}; }

  [[nodiscard]] bool waits(Instant now) const noexcept { return now < until; }

  /// Nothing has worked since it was refused.
  [[nodiscard]] bool doubted() const noexcept { return pause.count() != 0; }
};

/// While the catalog is being read.
struct Recovery {
  std::unordered_map<std::uint64_t, ObjectIx> seen;  ///< (namespace, number)
  std::vector<std::vector<DomainInfo*>> domains;     ///< [namespace][number]
  std::uint64_t kept = 0, rejected = 0;
  std::int64_t wall_now = 0;
  bool reading = true;        ///< rows are still to come
  std::size_t next_node = 0;  ///< then: nodes before it are queued for eviction
};

enum class JobKind : std::uint8_t {
  load_read,
  load_verify,
  batch_sum,
  batch_data,
  batch_sync,
  batch_rows,
  rows_deleted,
  copy_down,
  verify_read,
  verify_sum,
  stage,
  keep_sum,
  adopt_verify
};

struct Job {
  JobKind kind = JobKind::load_read;
  std::vector<ObjectIx> objects;
  std::uint64_t batch = 0;  ///< WriteBatch or DeleteBatch
  std::uint16_t shard = 0;
  std::uint64_t bytes = 0;
  Instant started{};
  std::uint16_t path = 0;  ///< of a load_read, and the next two
  DiskClass klass = DiskClass::demand;
  Instant deadline{};
};

struct FlushJob {
  std::function<void(const FlushReport&)> done;
  Instant asked{};       ///< what was reserved later is not waited for
  std::size_t next = 0;  ///< of this pass
  std::size_t dirty = 0, started = 0;
  std::size_t age = 0;
  std::size_t last_dirty = SIZE_MAX;
  std::size_t idle = 0;  ///< passes since there was less to write
};

/// One copy of one object being checked.
struct Check {
  ObjectIx object = kNil;
  PageRuns buffer;  ///< host space that it is read into; none for a copy in the host tier
  std::size_t parts = 0;
  bool reading = false;  ///< parts counts the read; else the checksums
  bool bad = false;
};

struct VerifyJob {
  std::function<void(const VerifyReport&)> done;
  VerifyReport report;
  std::size_t next = 0;
  std::size_t told = 0;  ///< tenths, in the log
  std::uint64_t next_check = 1;
  std::uint64_t buffered = 0;
  std::unordered_map<std::uint64_t, Check> checks;
};

struct ListJob {
  Cache::ListWish wish;
  std::function<void(std::vector<ObjectStatus>)> done;
  std::vector<ObjectStatus> found;
  std::size_t next = 0;
};

struct RemoveJob {
  NamespaceIx ns = 0;
  std::function<void(std::uint64_t)> done;
  Instant asked;
  std::uint64_t count = 0;
  std::size_t next = 0;
};

class CacheImpl {
 public:
  CacheImpl(CacheOptions options, CacheSeams seams, CacheListener* listener);

  // requests.cpp
  Result<ClientIx> attach(const NamespaceSpec& spec, MemberInfo member, Instant now);
  void detach(ClientIx client, Instant now);
  Result<const Answer*> begin(ClientIx client,
                              const TicketName& name,
                              const BeginRequest& request,
                              Instant now);
  Result<const Answer*> refresh(ClientIx client, const TicketName& name, Instant now);
  Result<> join(ClientIx client, const TicketName& name, Instant now);
  Result<const Lease*> acquire(ClientIx client,
                               const TicketName& name,
                               std::uint32_t at_most,
                               Have have,
                               Instant now);
  Result<> append(const TicketName& name,
                  ClientIx client,
                  std::span<const Token> tokens,
                  std::span<const Mark> marks,
                  std::uint32_t computed);
  Result<> append_keys(const TicketName& name,
                       ClientIx client,
                       std::span<const Digest> keys,
                       std::uint32_t computed);
  Result<> reserve(ClientIx client,
                   const TicketName& name,
                   std::span<const WantItem> wants,
                   Instant now,
                   std::vector<SlotGrant>& out);
  bool commit(ClientIx client, const Filled& filled, Instant now);

  // tenants.cpp
  /// While it lives, host memory is that of this namespace's trust domain, and only its tenants
  /// give up any.
  class Focus {
   public:
    Focus(CacheImpl& cache, NamespaceIx ns) : cache_(cache) {
      cache_.focus_on(cache_.region_of(ns));
    }

    ~Focus() { cache_.focus_on(Regions::kAll); }

    Focus(const Focus&) = delete;
    Focus& operator=(const Focus&) = delete;

   private:
    CacheImpl& cache_;
  };

  void set_up_tenants();
  void focus_on(std::size_t region);
  [[nodiscard]] std::size_t region_of(NamespaceIx ns) const;
  [[nodiscard]] std::uint32_t tenant_of(NodeIx node) const;
  [[nodiscard]] std::uint32_t default_tenant(NamespaceIx ns) const;
  [[nodiscard]] std::uint32_t tenant_named(std::uint32_t key, NamespaceIx ns) const;
  bool make_quota_room(std::uint32_t tenant, Tier tier, std::uint64_t bytes, Instant now);
  std::uint64_t evict_own(std::uint32_t tenant, Tier tier, std::uint64_t bytes, Instant now);
  void enforce_quotas(Instant now);
  [[nodiscard]] std::vector<TenantStatus> tenant_statuses() const;
  std::uint64_t remove_tenant(std::uint32_t tenant, Instant now);

  // keeping.cpp
  void adopt(Instant now);
  void settle(std::span<const Extent> in_use, bool all, Instant now);
  [[nodiscard]] KeptStatus kept() const;
  void keep(ObjectIx o, Instant now);
  void unkeep(ObjectIx o);
  void write_kept_space(SpaceInfo& space, Instant now);
  void keep_generation(SpaceInfo& space, Instant now);
  void list(ObjectIx o, std::span<const Checksum> sums, Instant now);
  void kept_sum(const Job& job, const CopyDone& done, Instant now);
  void submit_adoptions();
  void adopt_part(const Job& job, bool ok, Instant now);
  bool build_adopted(Adoption& adoption, Instant now);
  bool adopt_namespaces(std::vector<std::pair<std::uint32_t, CatalogRow>>& rows, Instant now);
  [[nodiscard]] bool used_from_before(const PageRuns& runs) const;

  bool stage(ClientIx client,
             const Filled& filled,
             StagedBytes bytes,
             std::uint64_t token,
             Instant now);
  void staged(const CopyDone& done, Instant now);
  void condemn(ObjectIx o);
  void one_writer_less(std::uint64_t condemned);
  bool end_condemned(std::uint32_t slot);
  bool hand(SlotId slot, ClientIx to);
  bool abandon(ClientIx client, SlotId id, Instant now);
  Result<> finish(ClientIx client,
                  const TicketName& name,
                  std::uint32_t prefilled,
                  Nanos prefill,
                  Instant now);
  Result<> release(ClientIx client, const TicketName& name, bool cancelled, Instant now);
  Result<> invalidate(ClientIx client, Instant now);
  Result<Ticket*> ticket_of(ClientIx client, const TicketName& name);
  Ticket* find_ticket(const TicketName& name);
  void expire(Instant now);

  // tiers.cpp
  [[nodiscard]] bool present(Tier tier) const noexcept;

  [[nodiscard]] bool several_tiers() const noexcept {
    return present(Tier::host) && (present(Tier::device) || present(Tier::nvme));
  }

  [[nodiscard]] Tier below(Tier tier) const noexcept;  ///< the next lower tier present, or none

  [[nodiscard]] Regions& space_of(Tier tier) { return tier == Tier::device ? device_ : host_; }

  /// Gives up what has a keep value below `worth` for it.
  bool allocate(Tier tier,
                std::uint64_t bytes,
                bool contiguous,
                PageRuns& out,
                Instant now,
                double worth = kAnyWorth);
  std::uint64_t evict(Tier tier, std::uint64_t bytes, Instant now, double worth = kAnyWorth);
  std::uint64_t evict_node(NodeIx node, Tier tier, std::uint64_t bytes, Instant now);
  void drop_copy(ObjectIx o, Tier tier, Reason reason, Instant now);
  void drop_everywhere(ObjectIx o, Reason reason, Instant now);
  /// Makes objects unfindable at once; each goes when nothing holds it or hangs on it.
  void kill(const std::vector<ObjectIx>& list, Reason reason, Instant now);
  void bury(ObjectIx o, Reason reason, Instant now);
  /// Objects in any state whose parent it is.
  [[nodiscard]] std::vector<ObjectIx> children_of(ObjectIx o) const;
  /// It and all that hangs on it.
  void forget_below(ObjectIx o, Reason reason, Instant now);
  /// These and all that hangs on them.
  [[nodiscard]] std::vector<ObjectIx> with_all_below(std::vector<ObjectIx> list) const;
  void hold(ObjectIx o, Instant now);
  void unhold(ObjectIx o, Instant now);
  void requeue(NodeIx node);
  void settle_queues(Instant now);
  void trim_queues(Instant now);
  void tell_policies(NodeIx node, Instant now);
  [[nodiscard]] bool droppable(ObjectIx o, Tier tier) const;
  [[nodiscard]] bool backs_device() const noexcept;
  [[nodiscard]] bool gives_up_unwritten(Tier tier) const noexcept;
  [[nodiscard]] SegmentTerms terms(NodeIx node, Tier tier) const;
  [[nodiscard]] bool next_victim(NodeIx node, Tier tier, ObjectIx& victim) const;
  void submit_deletes(Instant now);
  void entered(ObjectIx o, Tier tier, Instant now);

  /// Counts the time of its life as the policy's; inside another one, nothing.
  class PolicyTime {
   public:
    explicit PolicyTime(CacheImpl& cache)
        : cache_(cache),
          clock_(cache.in_policy_ ? nullptr : cache.options_.policy_clock) {
      if (clock_ == nullptr) return;
      cache_.in_policy_ = true;
      start_ = clock_();
    }

    PolicyTime(const PolicyTime&) = delete;
    PolicyTime& operator=(const PolicyTime&) = delete;

    ~PolicyTime() {
      if (clock_ == nullptr) return;
      cache_.in_policy_ = false;
      cache_.counters_.policy_nanos += clock_() - start_;
    }

   private:
    CacheImpl& cache_;
    std::uint64_t (*clock_)();
    std::uint64_t start_ = 0;
  };

  // nodes.cpp
  void tick();

  void stamp(NodeIx ix, Instant now) {
    index_.node(ix).last_use = now;
    index_.node(ix).used = clock_;
  }

  [[nodiscard]] int children_in(const Node& node, Tier tier) const;
  [[nodiscard]] bool candidate_in(const Node& node, Tier tier) const;
  void heirs_of(NodeIx node, std::vector<NodeIx>& out) const;
  void requeue_heirs(NodeIx node);
  [[nodiscard]] ReplaySpace replay_space(const SpaceInfo& space) const;
  void snapshot_for_tuner(Tier tier);
  void tell_tuner(const Ticket& ticket);
  std::uint64_t evict_whole(NodeIx node, Tier tier, Instant now);
  void prepare_insert(Ticket& ticket, std::span<const WantItem> wants, Instant now);

  // recovery.cpp
  Result<std::uint64_t> recover(Instant now, std::int64_t wall_now);
  Result<> recover_begin(Instant now, std::int64_t wall_now);
  std::size_t recover_some(Instant now);

  // transfers.cpp
  std::size_t step(Instant now);
  void start_loads(Ticket& ticket, const std::vector<ObjectIx>& objects, Instant now);
  void read_objects(const std::vector<ObjectIx>& objects,
                    DiskClass klass,
                    Instant deadline,
                    Instant now);
  void cancel_orphans(Instant now);
  void end_cancelled(ObjectIx o, Instant now);
  void write_behind(Instant now);
  void copy_down(Instant now);
  void loaded(ObjectIx o, Instant now);
  [[nodiscard]] bool busy() const noexcept;

  // sweeps.cpp
  void flush(std::function<void(const FlushReport&)> done, Instant now);
  void verify(std::function<void(const VerifyReport&)> done);
  void list(const Cache::ListWish& wish, std::function<void(std::vector<ObjectStatus>)> done);
  bool list_some(ListJob& job, Instant now) const;
  void remove_namespace(NamespaceIx ns, std::function<void(std::uint64_t)> done, Instant now);

  // inspect.cpp
  Result<> audit() const;
  std::string display_name(NamespaceIx ns) const;
  Result<NamespaceIx> find_namespace(std::string_view name) const;
  ObjectStatus status_of(ObjectIx o, Instant now) const;
  std::vector<ExplainRow> explain(std::span<const NodeIx> path,
                                  Position end,
                                  std::uint32_t wanted,
                                  NamespaceIx ns,
                                  Instant now) const;
  TierStatus tier_status(Tier tier) const;
  std::uint64_t drop_namespace_objects(NamespaceIx ns, Reason reason, Instant now);

  CacheOptions options_;
  CacheSeams seams_;
  CacheListener* listener_;
  CacheCounters counters_;
  Index index_;
  std::vector<Resident> residents_;
  Regions device_, host_;
  std::vector<Space> disks_;
  PolicyTraits traits_;
  std::unique_ptr<Tuner> tuner_;  ///< of marconi_paper, where alpha is not given
  std::uint64_t clock_ = 0;       ///< logical: lookups, insertions, evictions
  bool in_policy_ = false;
  std::vector<NodeIx> stale_;  ///< nodes that the policies have to be told of
  Reuse reuse_;
  std::array<std::unique_ptr<EvictionPolicy>, kTiers> victims_;
  std::vector<SpaceInfo> spaces_;
  /// of small tables: what ended serves what begins
  std::pmr::unsynchronized_pool_resource pool_;
  std::vector<ClientInfo> clients_;
  using TicketMap = std::unordered_map<TicketName, Ticket>;
  TicketMap tickets_;
  std::vector<TicketMap::node_type> spare_tickets_;  ///< ended; kept for the memory they have
  std::vector<std::vector<Piece>> spare_pieces_;
  std::vector<Slot> slots_;
  std::vector<std::uint32_t> free_slots_;
  std::array<std::uint64_t, kTiers> held_bytes_{};
  std::array<std::uint64_t, kTiers> object_count_{};
  std::array<std::uint64_t, kTiers> moving_bytes_{};  ///< being copied down from this tier
  bool draining_ = false;
  Instant expired_at_{};

  std::unordered_map<ObjectIx, LoadState> loads_;
  bool orphans_ = false;  ///< of some load the last waiter has gone
  std::unordered_map<std::uint64_t, Job> jobs_;
  Histogram wait_error_;
  std::uint64_t loading_bytes_ = 0;  ///< claimed for loads that have not ended
  std::uint64_t queued_to_ = 0;      ///< bytes of all loads ever begun
  LoadTime load_time_;
  std::uint32_t reads_measured_ = 0;
  double nvme_rate_ = 0;  ///< bytes a second of one read
  std::vector<TenantStatus> tenants_;
  /// null: one tenant, nothing to tell apart
  std::array<TenantEviction*, kTiers> tenant_victims_{};
  std::vector<std::vector<bool>> region_tenants_;
  std::unordered_map<ObjectIx, KeepSum> keep_sums_;
  ObjectNumber next_kept_ = 1;
  std::uint32_t next_kept_space_ = 1, next_kept_domain_ = 1;
  std::deque<Adoption> adopting_;  ///< parents first; the first adopting_sent_ are being verified
  std::size_t adopting_sent_ = 0;
  std::uint64_t adopting_done_ = 0;  ///< how many left the front so far
  std::unordered_map<ObjectNumber, ObjectIx> adopted_;
  KeptStatus kept_;
  bool quarantine_ = false;  ///< some of the arena may be in use by processes of before
  bool all_settled_ = true;  ///< and it is known which: in_use_
  std::vector<Extent> in_use_;
  PageRuns quarantined_;  ///< taken in host_, nobody's
  std::vector<std::pair<ObjectIx, ObjectNumber>> quarantined_objects_;
  std::unordered_map<std::uint64_t, StageJob> stage_jobs_;  ///< by tag
  std::unordered_map<std::uint64_t, Condemned> condemned_;
  std::uint64_t next_condemned_ = 1;
  std::uint64_t next_tag_ = 1;
  std::deque<WriteBatch> batches_;  ///< in the order in which their rows are written
  std::uint64_t next_batch_ = 1;
  std::unordered_map<std::uint64_t, DeleteBatch> delete_batches_;
  DeleteBatch deleting_;  ///< collected, not yet submitted
  Setback catalog_setback_;
  std::vector<Setback> disk_setbacks_;
  bool nvme_waits_ = false;  ///< nothing is written there at present
  bool nvme_down_ = false;   ///< nor has anything worked since: memory goes on alone
  /// nothing can come down from the device, and nothing moves that could change it
  bool down_blocked_ = false;
  bool only_clean_ = false;             ///< what is not written yet stays
  std::size_t first_region_ = 0;        ///< of host memory, whose turn to write comes first
  bool catalog_unread_ = false;         ///< its rows could not be read to the end
  std::unique_ptr<Recovery> recovery_;  ///< while rows are taken over
  std::uint64_t recovered_ = 0;
  std::uint64_t freeing_bytes_ = 0;  ///< of NVMe, waiting for a durable delete
  std::vector<DiskHealth> health_;   ///< of the drives, as acted upon
  std::vector<std::deque<DiskOp>> disk_backlog_;
  std::deque<CopyOp> copy_backlog_;
  std::deque<CatalogBatch> catalog_backlog_;
  std::vector<DiskDone> disk_done_;
  std::vector<CopyDone> copy_done_;
  std::vector<CatalogDone> catalog_done_;
  std::deque<FlushJob> flushes_;
  std::deque<ListJob> lists_;
  std::deque<RemoveJob> removes_;
  bool priced_out_ = false;  ///< something has been, since the last look at it began
  bool reconsidering_ = false;
  std::size_t reconsider_next_ = 0;
  Instant reconsidered_at_{};
  std::deque<VerifyJob> verifies_;
  std::size_t sweep_work_ = 0;  ///< of this step: a sweep can go on at once
  std::int64_t wall_at_start_ = 0;
  Instant started_{};
  double disk_seconds_per_byte_ = 0;

  // transfers.cpp, inside
  void pump();
  std::size_t poll(Instant now);
  void on_disk(const DiskDone& done, Instant now);
  void on_copy(const CopyDone& done, Instant now);
  void on_catalog(const CatalogDone& done, Instant now);
  std::uint64_t add_job(Job job);
  bool start_batch(std::vector<ObjectIx> objects, Instant now);
  void batch_data(WriteBatch& batch, Instant now);
  void batch_part_done(std::uint64_t number, bool ok, Reason reason, Instant now);
  void advance_batches(Instant now);
  bool rows_of(WriteBatch& batch, CatalogBatch& rows, Instant now);
  void symbols_row(const Object& object, ObjectRow& row) const;
  void finish_batch(WriteBatch& batch, bool ok, Instant now);
  void abandon_write(ObjectIx o, Instant now);
  [[nodiscard]] bool on_disk_or_coming(ObjectIx o) const;
  std::vector<ObjectIx> dirty_path(NodeIx node) const;
  std::uint64_t disk_available() const;
  void make_disk_room(Instant now);
  void deleted(std::uint64_t number, bool ok);
  static void zip(const PageRuns& disk,
                  const PageRuns& memory,
                  std::uint32_t arena,
                  std::vector<DiskPiece>& out);
  void load_part_done(ObjectIx o, bool ok, Reason reason, Instant now);
  void submit_sums(ObjectIx o,
                   JobKind kind,
                   std::uint64_t batch,
                   const PageRuns& runs,
                   std::uint32_t arena);
  [[nodiscard]] std::vector<MemoryRun> shard_runs(const PageRuns& runs,
                                                  std::uint32_t arena,
                                                  std::uint16_t shard,
                                                  std::uint64_t padded,
                                                  std::uint64_t bytes) const;

  [[nodiscard]] std::int64_t wall(Instant now) const {
    return wall_at_start_ +
           std::chrono::duration_cast<std::chrono::seconds>(now - started_).count();
  }

  void forget_row(ObjectIx o);
  [[nodiscard]] NamespaceRow row_of_space(NamespaceIx ns, Instant now) const;
  void fail_unsynced(std::uint16_t path, std::uint64_t but);
  [[nodiscard]] bool writable(std::uint16_t path, Instant now) const;

  // tiers.cpp, inside
  [[nodiscard]] bool writes_behind() const noexcept;

  // sweeps.cpp, inside
  void step_flush(Instant now);
  void step_verify(Instant now);
  void step_list(Instant now);
  void step_remove(Instant now);
  void kill_of(NamespaceIx ns, const std::vector<ObjectIx>& list, Reason reason, Instant now);
  void step_reconsider(Instant now);
  [[nodiscard]] bool worth_disk_now(ObjectIx o, Instant now);
  void end_of_flush_pass(Instant now);
  [[nodiscard]] bool flush_wants(const FlushJob& flush, ObjectIx o) const;
  bool copy_to_host(ObjectIx o, Instant now);
  bool check_on_nvme(VerifyJob& verify, ObjectIx o, Instant now);
  void check_in_host(VerifyJob& verify, ObjectIx o, Instant now);
  void verify_part(std::uint64_t number, bool ok, Instant now);

  // recovery.cpp, inside
  bool recover_object(const ObjectRow& row, Instant now);
  bool recover_copy(ObjectIx o, const ObjectRow& row, const PageRuns& runs, Instant now);
  void recover_row(CatalogRow&& any, Instant now);
  void reject_row(const ObjectRow& row);
  void recovery_queue(Instant now);

  [[nodiscard]] bool reading_catalog() const noexcept {
    return recovery_ != nullptr && recovery_->reading;
  }

  // paths.cpp
  void watch_drives(Instant now);
  void drive_out(std::uint16_t drive, Instant now);
  void give_up_loads(std::uint16_t drive, Instant now);
  [[nodiscard]] std::uint64_t batch_bytes(Instant now) const;
  [[nodiscard]] bool budget_allows(const std::vector<ObjectIx>& objects,
                                   std::uint64_t beside,
                                   double seconds_per_byte,
                                   Instant now);
  std::uint64_t hold_back(NodeIx node);
  [[nodiscard]] bool in_time(const Ticket& ticket,
                             const std::vector<ObjectIx>& to_load,
                             Instant now) const;

  // plan.cpp
  struct Choice {  ///< one depth that plan() may choose
    std::uint32_t depth = 0;
    double seconds = 0;
    std::vector<Cover> covers;
    std::vector<ObjectIx> to_load;
    std::uint64_t bytes = 0;
  };

  // What plan() works with; kept for their memory.
  std::vector<NodeIx> path_;
  ResumeScan scan_;
  std::vector<Usable> usable_;
  std::vector<Choice> choices_;
  std::vector<ObjectIx> fresh_;
  std::vector<Held> letting_go_;
  void predict(Ticket& ticket,
               std::span<const ObjectIx> to_load,
               std::span<const ObjectIx> fresh,
               Instant now);
  void list_choices(Ticket& ticket, std::span<Usable> depths);
  void add_runs(const PageRuns& runs,
                std::uint32_t arena,
                std::uint16_t shard,
                std::uint64_t padded,
                std::uint64_t bytes,
                ExtentList& out) const;
  void unhold_all(std::span<const Held> held, Instant now);
  void plan(Ticket& ticket, std::uint32_t at_most, bool only_ready, bool load, Instant now);
  void touch(const std::vector<NodeIx>& path, NodeIx deepest, Instant now);
  void let_go(Ticket& ticket, Instant now);
  void make_lease(Ticket& ticket, Instant now);

  // tails.cpp
  void hold_tail(Ticket& ticket, ObjectIx o, Instant now);
  void let_go_tails(Ticket& ticket, Instant now);

  // requests.cpp, inside
  [[nodiscard]] TicketMap::node_type new_ticket();
  void end_ticket(const TicketName& name, Instant now);
  void maybe_end(Ticket& ticket, Instant now);
  void lose(Ticket& ticket, Instant now);
  SlotGrant reserve_one(Ticket& ticket,
                        ClientIx client,
                        const WantItem& want,
                        Instant now,
                        std::vector<SlotGrant>& out);
  Reason check_want(const Ticket& ticket, const SpaceInfo& space, const WantItem& want) const;
  bool find_parents(const SpaceInfo& space,
                    NodeIx node,
                    const WantItem& want,
                    std::uint32_t base,
                    Object& object) const;
  void appear(ObjectIx o, Instant now);

  // learning.cpp
  void wished(Ticket& ticket, Position here, std::uint32_t resumable, std::uint32_t limit) const;
  NodeIx could_resume(Ticket& ticket, const std::vector<NodeIx>& path, Instant now);
  void born(Ticket& ticket, std::uint32_t turns, bool parts, Instant now);
  [[nodiscard]] double worth_of(const Ticket& ticket, const WantItem& want) const;
  void requeue_around(NodeIx node);
  [[nodiscard]] bool carries_checkpoint_above(ObjectIx o) const;
  void discard_unborn(ObjectIx o, Instant now);
  void close_slot(std::uint32_t slot);
  NodeIx add_domain_root(NamespaceIx ns, std::uint32_t number);
  NodeIx domain_root(NamespaceIx ns, const Domain& domain, std::uint32_t& number);

  // keyed.cpp, inside
  Position match_ticket(Ticket& ticket, std::vector<NodeIx>& path);
  [[nodiscard]] bool insert_ticket(Ticket& ticket, Instant now);
  ObjectId id_of(Ticket& ticket, std::uint16_t group, std::uint32_t first, std::uint32_t end);
  Result<> take_run(Ticket& ticket, const BeginRequest& request);
  Result<> add_keys(Ticket& ticket, std::span<const Digest> keys) const;
  Position find_start(Ticket& ticket);
  void follow_moves();
  /// The key that ends at a position of the tree.
  [[nodiscard]] Digest key_at(const Ticket& ticket, std::uint32_t end) const;
  void key_row(const Object& object, ObjectRow& row) const;
  [[nodiscard]] bool place_run(const ObjectRow& row, Position& from, Object& object);
  Position insert_recovered_run(const ObjectRow& row, Position from, Instant used);

  void event(EventKind kind, Reason reason, Tier tier, ObjectIx o);

  [[nodiscard]] std::uint64_t padded_bytes(std::uint64_t payload, std::uint16_t shards) const {
    return round_up(payload, kPage) * shards;
  }
};

}  // namespace statecached
