#pragma once
// The inside of a Session: the channel, the tickets, and who waits.
//
// One mutex guards everything below `mutex_`. Completions are taken by whoever holds it (drain). Of
// the threads that wait, one at a time, the leader, spins and sleeps on the channel without the
// mutex; the others sleep on the condition variable. A thread that drains while a leader is out
// pokes it, since what it took may be what the leader waits for.

#include "client/wire/channel.hpp"
#include "client/wire/control.hpp"

#include "statecache/client.hpp"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <memory_resource>
#include <mutex>
#include <thread>
#include <unordered_map>

namespace statecache {

namespace base = ::statecached;
namespace wire = ::statecached::wire;
using SteadyTime = std::chrono::steady_clock::time_point;

[[nodiscard]] Status to_status(const base::Error& error);
[[nodiscard]] Status failure(Errc code, std::string text);
/// The code of a completion; unknown numbers become internal.
[[nodiscard]] Errc to_errc(std::uint16_t code) noexcept;
/// How often this process has been forked, counted in each child.
[[nodiscard]] unsigned fork_generation() noexcept;
/// Far enough is for ever.
[[nodiscard]] SteadyTime deadline_after(Micros timeout) noexcept;

struct ArenaMap {
  base::Mapping map;
  bool writable = false;
  bool staging = false;
};

/// What one exchange over the socket brings.
struct Connection {
  base::UniqueFd socket;
  std::shared_ptr<wire::ClientChannel> channel;
  std::vector<ArenaMap> arenas;
  wire::AttachedReply attached;
};

[[nodiscard]] base::Result<Connection> connect_to(std::string_view path,
                                                  const wire::AttachMessage& message,
                                                  Micros timeout);

/// A slot that was granted and neither committed nor given up. What it covers of the host arena:
/// nearly always one extent, and then nothing is allocated.
struct OpenSlot {
  std::uint64_t run = 0;
  wire::ExtentRecord first{};
  std::vector<wire::ExtentRecord> more;
};

struct Ticket {
  base::TicketName name;
  std::uint64_t run = 0;  ///< the daemon's run that knows it: Impl::run()
  /// of an earlier run: what the lease gave, in the host arena
  std::vector<wire::ExtentRecord> was_leased;
  bool joined = false;
  bool finished = false;
  bool released = false;
  bool lease_wanted = false;
  bool leased = false;
  bool lost_heard = false;            ///< the daemon said so
  std::uint32_t unanswered = 0;       ///< records of any kind
  std::uint32_t asks_unanswered = 0;  ///< begin, refresh
  std::uint32_t reserves_unanswered = 0;
  Answer answer;
  Lease lease;
  std::vector<Slot> slots;  ///< answered, not taken
  Status lease_error;
  Status reserve_error;
  Status first_error;  ///< since the last settle

  /// As new, except for the memory it has.
  void renew(const base::TicketName& new_name);
};

/// A record that is not answered yet.
struct Pending {
  wire::Op op = wire::Op::begin;
  TicketId ticket = 0;
  bool internal = false;  ///< a reserve of write_from
};

/// The answer to a reserve of write_from, once it is there.
struct InternalReserve {
  bool answered = false;
  Status error;
  std::vector<Slot>* slots = nullptr;  ///< of the thread that waits in write_from
};

class STATECACHE_LOCAL Session::Impl {
 public:
  using Lock = std::unique_lock<std::mutex>;
  using Parts = std::span<const std::span<const std::byte>>;

  Impl() = default;
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;
  /// Ends the keeper.
  ~Impl();

  // ---- set by attach, constant from then on ----
  std::string path;
  wire::AttachMessage message;
  base::NamespaceSpec spec;
  std::vector<std::uint16_t> shards;  ///< this member's, of each group
  std::string shown_as;
  bool spin = false;
  bool has_end_groups = false;
  bool has_block_groups = false;
  unsigned forks = fork_generation();

  // ---- of the daemon's run that it is attached to: with the mutex ----
  base::UniqueFd socket;  ///< replaced by the keeper alone, which may poll it without the mutex
  std::shared_ptr<wire::ClientChannel> channel;
  std::vector<ArenaMap> arenas;
  wire::AttachedReply attached;

  // ---- reattach.cpp ----
  /// Takes the connection over; with the mutex, or before anybody else knows of this object.
  void install(Connection&& connection);
  /// Starts the thread that notices the daemon's end and attaches again.
  base::Result<> start_keeper();

  /// Counts the daemon's runs that this Session was attached to.
  [[nodiscard]] std::uint64_t run() const noexcept { return run_; }

  /// The daemon that knew it has gone: its calls end here.
  [[nodiscard]] bool outlived(const Ticket& ticket) const noexcept {
    return down_ || ticket.run != run_;
  }

  /// The slot was given up or filled; false: it is of an earlier run, and the daemon must not hear
  /// of it.
  bool close_slot(SlotId slot);
  /// Tells the daemon when nothing of an earlier run is used any more.
  void let_go_of_former();

  // ---- impl.cpp ----
  [[nodiscard]] bool forked() const noexcept { return fork_generation() != forks; }

  /// Takes the mutex. Fails in a forked child (without touching it) and when the daemon has gone.
  /// `look`: at the socket, however lately that was done; for calls whose answer is the connection.
  Status enter(Lock& lock, bool look = false);
  /// Sends one record. On Ok its completion will find `pending`.
  Status post(wire::Request record, Parts parts, Pending pending);
  /// As above for a ticket; keeps its counts.
  Status post_for(TicketId id, Ticket& ticket, wire::Request record, Parts parts);
  /// A ticket of its own for a begin with this payload.
  Result<TicketId> post_begin(Parts parts, Hold hold);

  [[nodiscard]] bool keyed() const noexcept { return spec.addressing == base::Addressing::keys; }

  /// Keys for a namespace that is addressed by keys, each zero from key_bytes on.
  [[nodiscard]] Status check_keys(std::span<const Digest> keys) const;
  /// Null: no such ticket.
  [[nodiscard]] Ticket* find(TicketId id);
  TicketId add_ticket(const base::TicketName& name);
  void erase_ticket(TicketId id);
  [[nodiscard]] base::TicketName random_name();
  /// Takes every completion that is there; notices the daemon's end every few milliseconds.
  void drain();

  /// Until done() (called with the mutex held) or the deadline. False: not done; then down() says
  /// whether the daemon has gone.
  template <class Done>
  bool wait_until(Lock& lock, SteadyTime deadline, Done done) {
    while (true) {
      drain();
      if (done()) break;
      if (down_ || std::chrono::steady_clock::now() >= deadline) {
        pass_on();
        return false;
      }
      wait_once(lock, deadline);
    }
    pass_on();
    return true;
  }

  [[nodiscard]] bool down() const noexcept { return down_; }

  /// The answer as it is for an engine that has so much itself.
  [[nodiscard]] Answer judged(const Ticket& ticket, Have have) const;
  /// Its state alone, for who looks again and again: allocates nothing.
  [[nodiscard]] State judged_state(const Ticket& ticket, Have have) const;
  /// How deep the engine could resume without us.
  [[nodiscard]] std::uint32_t own_tokens(Have have) const;
  /// Forgets the ticket when nothing can come of it any more.
  void forget_if_done(TicketId id);
  /// Frees slots that nobody will fill.
  void give_back(std::span<const Slot> slots);

  [[nodiscard]] std::uint16_t shard_of(std::uint16_t group) const noexcept {
    return group < shards.size() ? shards[group] : std::uint16_t{0};
  }

  Status closed() const {
    return failure(Errc::closed, "the daemon has gone: compute it, and attach anew");
  }

  mutable std::mutex mutex;
  std::pmr::unsynchronized_pool_resource pool;  ///< of the tables: what ended serves what begins
  std::pmr::unordered_map<TicketId, Ticket> tickets{&pool};
  std::pmr::unordered_map<base::TicketName, TicketId> by_name{&pool};
  std::pmr::unordered_map<std::uint32_t, InternalReserve> internal{&pool};
  std::pmr::unordered_map<std::uint32_t, Pending> pending{&pool};
  std::pmr::unordered_map<SlotId, OpenSlot> open_slots{&pool};
  std::vector<wire::WantRecord> wants;  ///< of the record in hand; kept for their capacity
  std::vector<wire::FilledRecord> filled;
  std::vector<SlotId> given_up;
  std::uint32_t last_cookie = 0;
  TicketId last_ticket = 0;
  Counters counters;

 private:
  void wait_once(Lock& lock, SteadyTime deadline);
  void pass_on();
  void look_at_socket(SteadyTime now);
  /// Spins for a moment; true when it saw something.
  [[nodiscard]] static bool spin_for(const wire::ClientChannel& on,
                                     std::uint32_t seen,
                                     std::chrono::nanoseconds limit) noexcept;
  [[nodiscard]] std::chrono::nanoseconds spin_limit() noexcept;
  void keep_attached();
  [[nodiscard]] bool wait_for_end() const;
  [[nodiscard]] bool pause(std::chrono::milliseconds time) const;
  void on_end();
  void lose_everything();
  [[nodiscard]] std::vector<wire::ExtentRecord> in_use() const;
  [[nodiscard]] std::vector<wire::ExtentRecord> offsets_of(const Lease& lease) const;

  // ---- completions.cpp ----
  void on_completion(const wire::Completion& completion, std::span<const std::byte> payload);
  void on_answer(Ticket& ticket, std::span<const std::byte> payload);
  void on_leased(Ticket& ticket,
                 const wire::Completion& completion,
                 std::span<const std::byte> payload);
  void on_slots(const wire::Completion& completion,
                const Pending* answered,
                Ticket* ticket,
                std::span<const std::byte> payload);
  void on_failure(const Pending& answered, Ticket* ticket, std::uint32_t cookie, Errc code);
  [[nodiscard]] bool resolve(std::uint8_t arena,
                             std::uint16_t extents,
                             std::uint64_t offset,
                             std::uint64_t bytes,
                             std::span<const std::byte> table,
                             Extents& out) const;

  /// What came is not what a daemon of ours sends: nothing of it is believed any more.
  void distrust() noexcept { down_ = distrusted_ = true; }

  bool down_ = false;
  bool distrusted_ = false;  ///< a daemon that is not attached to again
  std::uint64_t run_ = 0;
  bool declared_ = false;  ///< the daemon keeps something of an earlier run for us
  /// arenas that leases and slots of earlier runs lie in
  std::vector<std::vector<ArenaMap>> former_;
  base::UniqueFd stop_;  ///< eventfd: the keeper ends
  std::unique_ptr<std::thread> keeper_;
  bool leader_ = false;
  std::uint32_t misses_ = 0;  ///< spins in a row that saw nothing
  std::uint32_t followers_ = 0;
  std::condition_variable changed_;
  SteadyTime socket_looked_at_{};
  std::vector<base::TicketName> names_;  ///< random, not used yet
  std::vector<std::byte> payload_;       ///< of the completion in hand; kept for its capacity
  std::vector<Slot> arrived_;            ///< slots of the completion in hand; kept likewise
  std::vector<std::pmr::unordered_map<TicketId, Ticket>::node_type> spare_tickets_;
};

/// One part of a record's payload.
template <class T>
[[nodiscard]] std::span<const std::byte> bytes_of(std::span<const T> items) noexcept {
  return std::as_bytes(items);
}

}  // namespace statecache
