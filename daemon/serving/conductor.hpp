#pragma once
// The thread that serves: it owns the Cache and the daemon's end of every client's channel, turns
// records into calls and news into completions, and sleeps when there is nothing to do.
//
// Threads: run() and all that follows "its thread" belong to one thread; post() is for any. Errors
// of a client stay with that client: a bad record is answered with invalid_argument, a broken
// channel is no longer served.

#include "base/queue.hpp"
#include "client/wire/channel.hpp"
#include "daemon/cache/cache.hpp"
#include "daemon/serving/bell.hpp"
#include "daemon/serving/codec.hpp"
#include "daemon/serving/staging.hpp"
#include "daemon/serving/step_meter.hpp"

#include <atomic>
#include <deque>
#include <memory_resource>
#include <string>
#include <unordered_map>
#include <unordered_set>

namespace statecached {

struct ServingOptions {
  std::uint32_t batch = 16;  ///< records of one client before the next is looked at
  Nanos slice = std::chrono::microseconds(40);  ///< of one client before the next is looked at
  Nanos spin = std::chrono::microseconds(50);   ///< awake after the last work; 0 on a single core
  wire::ChannelSizes channel;
  std::uint32_t clients_max = 64;
  std::uint32_t tickets_max = 1024;  ///< open at a time, of one client
  std::uint64_t epoch = 0;
  std::uint64_t staging_bytes = 64ULL << 20U;  ///< of each client that is staged
  std::uint32_t staging_arena = 1;             ///< its number at the client: after the arenas
  std::size_t events_kept = 4096;
  std::size_t backlog_replies = 8192;  ///< of one client that does not read; then it is dropped
  std::uint64_t backlog_bytes = 64ULL << 20U;
};

/// What the control plane sends back to a process that attaches. The fds are duplicates.
struct AttachedClient {
  ClientIx client = 0;
  std::string name;
  std::uint32_t generation = 0;
  UniqueFd channel;
  UniqueFd doorbell;
  UniqueFd staging;  ///< of a staged client
  std::uint64_t staging_bytes = 0;
};

struct KeptEvent {
  std::uint64_t number = 0;  ///< from 1, without gaps
  std::int64_t time = 0;     ///< seconds since 1970
  CacheEvent event;
};

struct ClientStatus {
  ClientIx client = 0;
  NamespaceIx ns = 0;
  MemberInfo member;
  std::uint64_t bytes_held = 0;
  std::uint64_t tickets = 0;
  std::uint64_t slots = 0;
  std::uint64_t records = 0;
  std::uint64_t backlog = 0;
  bool closed = false;  ///< no longer served; still holds what its process may be using
};

inline constexpr std::size_t kOps = static_cast<std::size_t>(wire::Op::let_go) + 1;

struct ServingStats {
  std::array<std::uint64_t, kOps> records{};  ///< by wire::Op; [0]: unknown
  std::uint64_t bad_records = 0;
  std::uint64_t clients_dropped = 0;
  std::uint64_t completions = 0;
  std::uint64_t backlogged = 0;  ///< completions that found the client's ring or area full
  std::uint64_t sleeps = 0;
  std::uint64_t commands = 0;
  std::uint64_t attached = 0;
  std::uint64_t staging_full = 0;  ///< objects that found no room in a staging area
  Histogram begin_ns;              ///< from taking the record to posting the answer
  Histogram turn_ns;               ///< of turns that had work
  Histogram step_cpu_ns;           ///< of one step, by the clock of the conductor's processor time
  Histogram step_wall_ns;          ///< of the same steps
  std::uint64_t slices = 0;        ///< steps that did a part of a request
};

class Conductor final : private CacheListener {
 public:
  using Command = std::function<void(Conductor&)>;
  /// Tells which clients were dropped for breaking the protocol. Called on the conductor's thread.
  using Dropped = std::function<void(ClientIx, const std::string& why)>;

  /// `clock` and `bell` outlive it; the seams' wakers ring the bell.
  static Result<std::unique_ptr<Conductor>> create(ServingOptions options,
                                                   CacheOptions cache,
                                                   CacheSeams seams,
                                                   const Clock& clock,
                                                   Bell& bell);
  ~Conductor() override;

  /// Any thread. False: too many commands wait, or run() has returned.
  [[nodiscard]] bool post(Command command);

  // ---- its thread, or before run() -------------------------------------------------------------
  /// Serves until stop() has done its work.
  void run();
  /// Declines reservations, writes what is committed, then lets run() return; `limit` from now at
  /// most.
  void stop(Nanos limit);

  void on_dropped(Dropped dropped) { dropped_ = std::move(dropped); }

  [[nodiscard]] Result<AttachedClient> attach(const NamespaceSpec& spec, MemberInfo member);
  /// The other end is gone or broke the protocol: what it posted is served, then nothing more; its
  /// loads are cancelled. True: it holds no memory, detach() it at once. False: its process may
  /// still be reading or writing the arena, detach() when that process is gone.
  [[nodiscard]] bool close(ClientIx client);
  /// Its process is gone (or never held anything).
  void detach(ClientIx client);

  /// Takes over what an earlier daemon left in host memory; before run(), after Cache::recover().
  void adopt(HostTable& table);
  /// Processes that may still use memory of then, and did not attach again or end yet.
  [[nodiscard]] std::vector<KeptClient> earlier() const;
  void earlier_gone(std::int32_t pid, std::uint64_t started);

  [[nodiscard]] Cache& cache() noexcept { return *cache_; }

  [[nodiscard]] Instant now() const noexcept { return clock_.now(); }

  [[nodiscard]] bool draining() const noexcept { return draining_; }

  void set_draining(bool draining);

  [[nodiscard]] const ServingStats& stats() const noexcept { return stats_; }

  [[nodiscard]] std::size_t clients() const noexcept { return clients_.size(); }

  [[nodiscard]] std::vector<ClientStatus> client_statuses() const;
  /// Kept events with number > since, oldest first, the last `limit` of them.
  [[nodiscard]] std::vector<KeptEvent> events(std::uint64_t since, std::size_t limit) const;

 private:
  struct Client {
    ClientIx ix = 0;
    wire::DaemonChannel channel;
    UniqueFd doorbell;
    MemberInfo member;
    std::size_t groups = 0;
    bool keyed = false;
    bool closed = false;
    bool posted = false;  ///< completions since the last ring()
    std::uint64_t records = 0;
    std::deque<Reply> backlog;
    std::uint64_t backlog_bytes = 0;
    std::pmr::unordered_set<TicketName> tickets;
    std::pmr::unordered_set<SlotId> slots;
    std::unique_ptr<StagingArea> staging;  ///< of a client that may not write the arena
    std::vector<bool> contiguous;          ///< by group
    std::uint32_t table_entry = HostTable::kNone;
    bool may_hold = false;  ///< as the table says
    // A request that takes more than one step. Nothing else of this client is looked at meanwhile.
    enum class Doing : std::uint8_t { nothing, taking, reserve, commit, abandon };
    Doing doing = Doing::nothing;
    wire::Request record;
    std::vector<std::byte> payload;  ///< while `taking`
    std::size_t done = 0;            ///< items of the list
    std::vector<WantItem> wants;
    std::vector<SlotGrant> grants;
    std::vector<Filled> filled;
    std::vector<SlotId> abandoned;
    std::uint32_t accepted = 0, refused = 0;
    std::uint64_t commit = 0;  ///< of a commit through the staging area: its number

    explicit Client(std::pmr::memory_resource* pool) : tickets(pool), slots(pool) {}
  };

  /// A process that was attached to an earlier daemon and held something.
  struct Earlier {
    std::uint32_t entry = 0;
    KeptClient who;
    bool declared = false;  ///< what it uses is known
    std::vector<Extent> in_use;
    ClientIx now_client = 0;
  };

  /// A commit whose bytes are being copied in.
  struct StagedCommit {
    ClientIx client = 0;
    std::uint32_t cookie = 0;
    std::size_t left = 0;  ///< copies, and one while its list is being gone through
    Reply reply;
  };

  /// Granted shards of a ticket that nobody who joined has.
  struct Unclaimed {
    ClientIx reserver = 0;
    Instant since{};
    std::vector<SlotGrant> grants;
  };

  struct StagedSlot {
    std::uint64_t commit = 0;
    ClientIx client = 0;
    SlotId slot = 0;
  };

  Conductor(ServingOptions options, const Clock& clock, Bell& bell, UniqueFd epoll);

  // loop (conductor.cpp)
  std::size_t turn(Instant now);
  std::size_t run_commands();
  std::size_t serve(Client& client, Instant now);
  void sleep(Instant now);
  [[nodiscard]] int sleep_limit_ms(Instant now) const;
  void drop(Client& client, const std::string& why);
  bool drain_backlog(Client& client);
  /// Leaves the reply's memory to the caller, unless it had to be kept.
  void send(Client& client, std::uint32_t cookie, Reply& reply);
  /// Takes one record and serves it, or a part of either. False: there is nothing.
  bool serve_step(Client& client, Instant now);
  bool take_record(Client& client, Instant now);
  void deliver_news();
  void send_lost(Client& client, const TicketName& ticket);
  void step_done();
  [[nodiscard]] Client* find(ClientIx client);

  // records (requests.cpp)
  void handle(Client& client,
              const wire::Request& record,
              std::span<const std::byte> payload,
              Instant now);
  [[nodiscard]] Result<> dispatch(Client& client,
                                  const wire::Request& record,
                                  std::span<const std::byte> payload,
                                  Instant now);
  [[nodiscard]] Result<> begin(Client& client,
                               const wire::Request& record,
                               std::span<const std::byte> payload,
                               Instant now);
  [[nodiscard]] Result<> join(Client& client, const wire::Request& record, Instant now);
  [[nodiscard]] Result<> refresh(Client& client, const wire::Request& record, Instant now);
  [[nodiscard]] Result<> acquire(Client& client, const wire::Request& record, Instant now);
  [[nodiscard]] Result<> append(Client& client,
                                const wire::Request& record,
                                std::span<const std::byte> payload,
                                Instant now);
  [[nodiscard]] Result<> reserve(Client& client,
                                 const wire::Request& record,
                                 std::span<const std::byte> payload,
                                 Instant now);
  [[nodiscard]] Result<> commit(Client& client,
                                const wire::Request& record,
                                std::span<const std::byte> payload,
                                Instant now);
  [[nodiscard]] Result<> abandon(Client& client,
                                 const wire::Request& record,
                                 std::span<const std::byte> payload,
                                 Instant now);
  [[nodiscard]] Result<> end(Client& client, const wire::Request& record, Instant now);
  /// The next items of what the client is doing, for a slice; then the answer.
  void go_on(Client& client, Instant now);
  [[nodiscard]] Result<bool> some_wants(Client& client, Instant now);
  void begin_list(Client& client, Client::Doing doing);
  void give_back_grants(Client& client, Instant now);
  void send_slots(Client& client);
  /// Whose a granted shard is to write: the reserver's, or the member's that has it; null: of none
  /// that has joined.
  [[nodiscard]] Client* writer_of(Client& reserver, const SlotGrant& grant);
  // shards whose member has not joined yet
  void claim(Client& client, const TicketName& ticket, Instant now);
  void give_up_unclaimed(const TicketName& ticket, Instant now);
  void expire_unclaimed(Instant now);
  // staging (staged.cpp)
  void place_in_staging(Client& reserver, std::size_t from, Instant at);
  void begin_staged(Client& client);
  /// False: refused. True: it is being copied in.
  [[nodiscard]] bool commit_staged(Client& client, const Filled& item, Instant at);
  /// True: given up, or given up before; false: not a slot of its own, or being copied in.
  [[nodiscard]] bool abandon_one_staged(Client& client, SlotId slot, Instant at);
  void end_staged(Client& client);
  void one_staged_less(std::uint64_t commit);
  void finish_staged();
  void abandon_staged(Client& client, Instant at);
  // a daemon before this one, and one after (earlier.cpp)
  void earlier_declared(ClientIx client, const MemberInfo& member);
  void earlier_done(ClientIx client);
  void settle_earlier();
  void may_hold(Client& client);
  void holds_nothing(Client& client);
  void send_done(Client& client, const wire::Request& record, Errc code);
  void send_answer(Client& client,
                   std::uint32_t cookie,
                   const TicketName& ticket,
                   const Answer& answer);
  void send_lease(Client& client,
                  std::uint32_t cookie,
                  const TicketName& ticket,
                  const Lease& lease);

  void on_answer(const TicketName& ticket) override { answered_.push_back(ticket); }

  void on_leased(const TicketName& ticket) override { leased_.push_back(ticket); }

  void on_event(const CacheEvent& event) override;

  void on_staged(std::uint64_t token, bool committed) override {
    staged_done_.emplace_back(token, committed);
  }

  ServingOptions options_;
  const Clock& clock_;
  Bell& bell_;
  UniqueFd epoll_;
  std::unique_ptr<Cache> cache_;
  std::pmr::unsynchronized_pool_resource pool_;  ///< of small tables; outlives clients_
  HostTable* table_ = nullptr;
  std::vector<Earlier> earlier_;
  Dropped dropped_;
  Mailbox<Command> mailbox_{4096};
  std::atomic<bool> open_{true};
  std::vector<Command> commands_;
  std::vector<std::unique_ptr<Client>> clients_;
  std::unordered_map<ClientIx, Client*> by_ix_;
  std::size_t first_ = 0;  ///< whose turn it is to be looked at first
  std::vector<TicketName> answered_;
  std::vector<TicketName> leased_;
  std::vector<KeptEvent> events_;  ///< a ring of options_.events_kept, by number
  std::unordered_map<TicketName, Unclaimed> unclaimed_;
  Nanos reservation_age_{};  ///< so long is waited for a shard's member to join
  Instant unclaimed_seen_{};
  bool any_staged_ = false;  ///< some client has had a staging area
  std::unordered_map<std::uint64_t, StagedCommit> commits_;
  std::unordered_map<std::uint64_t, StagedSlot> staged_;  ///< by token
  std::unordered_set<SlotId> copying_slots_;
  std::vector<std::pair<std::uint64_t, bool>> staged_done_;
  std::uint64_t last_commit_ = 0;
  std::uint64_t last_token_ = 0;
  std::uint64_t event_number_ = 0;
  ServingStats stats_;
  std::vector<std::byte> payload_;  ///< of the record in hand; kept for its capacity
  Reply reply_;                     ///< being made; kept likewise
  /// An answer is far shorter than the lease behind it: growing one from the other writes zeros.
  Reply answer_reply_;
  StepMeter meter_{clock_};
  bool draining_ = false;
  bool stopping_ = false;
  bool finished_ = false;
  Instant stop_deadline_{};
};

}  // namespace statecached
