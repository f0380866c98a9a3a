#pragma once
// Which bytes a drive moves next. Pure: no I/O, no threads, no clock; every engine owns one and
// drives it from one thread or under one lock.
//
// Bytes in flight of each kind are limited by a FlightBudget. Prefetch has half of it, and while
// demand reads come (one unfinished, or the last ended less than 10 ms ago) write-behind has one
// transfer of 256 KiB at a time: so a demand read waits for little that is under way.
//
// Classes are served in strict order; inside a class by deadline (prefetch) or by arrival. Pieces
// that follow each other on the drive, also those of consecutive ops, become one transfer, up to
// limits.transfer_bytes; longer runs are split there. Ops in flight together must not overlap where
// one of them writes: the order among them is not kept.
//
// A sync covers writes completed before it was submitted, so it never waits for writes; one runs at
// a time, and all that wait when it starts share it.

#include "tiers/disk.hpp"
#include "tiers/memory.hpp"
#include "tiers/nvme/flight_budget.hpp"
#include "tiers/nvme/options.hpp"

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <set>
#include <span>
#include <vector>

namespace statecached {

/// Bytes that are contiguous in memory.
struct TransferRun {
  MemoryRef memory;
  std::uint64_t bytes = 0;
};

/// One request to the kernel: a contiguous range of the drive, scattered in memory.
struct Transfer {
  struct Part {
    std::uint32_t op = 0;  ///< the scheduler's slot
    std::uint64_t bytes = 0;
  };

  DiskKind kind = DiskKind::read;
  DiskClass klass = DiskClass::demand;
  std::uint64_t disk_offset = 0;
  std::uint64_t bytes = 0;  ///< 0 for a sync
  std::vector<TransferRun> runs;
  std::vector<Part> parts;  ///< which ops the bytes belong to, in drive order
};

/// An op that is over, with what statistics need.
struct Finished {
  DiskDone done;
  DiskKind kind = DiskKind::read;
  DiskClass klass = DiskClass::demand;
  std::uint64_t bytes = 0;
};

class Scheduler {
 public:
  explicit Scheduler(const SchedulerLimits& limits)
      : limits_(limits),
        budgets_{FlightBudget{limits.read_bytes, !limits.calibrate},
                 FlightBudget{limits.write_bytes, !limits.calibrate}} {}

  /// Takes the op. One without pieces (and no sync) is over at once.
  void add(DiskOp&& op, std::vector<Finished>& out);

  /// Reads with one of these (sorted) tags of which nothing was started are over, with ECANCELED.
  void cancel(std::span<const std::uint64_t> tags, Instant now, std::vector<Finished>& out);

  /// The next transfer that may start now. The caller must finish() each exactly once.
  [[nodiscard]] std::optional<Transfer> next(Instant now);

  /// The transfer ended after `done_bytes`; os_error must be 0 exactly when that is all of it. An
  /// op that failed gives up what it had not started.
  void finish(const Transfer& transfer,
              std::uint64_t done_bytes,
              int os_error,
              Instant now,
              std::vector<Finished>& out);

  /// Ops taken and not over.
  [[nodiscard]] std::size_t ops() const noexcept { return live_; }

  /// Whether anything waits to be started.
  [[nodiscard]] bool waiting() const noexcept { return waiting_ != 0; }

  /// Whether a demand op of this kind could start now: if not, a transfer in flight must end first.
  [[nodiscard]] bool has_room(DiskKind kind) const noexcept;

  /// Bytes of a class that are accepted and not over.
  [[nodiscard]] std::uint64_t pending(DiskClass klass) const noexcept {
    return pending_[static_cast<std::size_t>(klass)];
  }

  [[nodiscard]] const FlightBudget& budget(DiskKind kind) const noexcept {
    return budgets_[kind == DiskKind::write ? 1 : 0];
  }

  [[nodiscard]] std::size_t in_flight() const noexcept { return transfers_; }

 private:
  struct OpState {
    DiskOp op;
    std::uint64_t sequence = 0;
    std::size_t next_piece = 0;
    std::uint64_t next_offset = 0;  ///< inside that piece
    std::uint64_t total = 0;
    std::uint64_t unstarted = 0;
    std::uint64_t in_flight = 0;
    std::optional<Instant> started;
    int error = 0;
  };

  struct Key {
    Instant deadline;
    std::uint64_t sequence = 0;
    std::uint32_t slot = 0;

    friend bool operator<(const Key& a, const Key& b) noexcept {
      return a.deadline != b.deadline ? a.deadline < b.deadline : a.sequence < b.sequence;
    }
  };

  using Queue = std::set<Key>;

  [[nodiscard]] static Key key_of(const OpState& state, std::uint32_t slot) noexcept;
  [[nodiscard]] Queue& queue_of(const OpState& state) noexcept;
  [[nodiscard]] bool allowed(DiskClass klass, DiskKind kind, Instant now) const noexcept;
  [[nodiscard]] bool demand_comes(Instant now) const noexcept;
  [[nodiscard]] std::uint64_t longest(DiskClass klass, DiskKind kind, Instant now) const noexcept;
  [[nodiscard]] Transfer start_sync(Instant now);
  [[nodiscard]] Transfer start_transfer(Queue& queue, DiskClass klass, DiskKind kind, Instant now);
  void take_pieces(OpState& state,
                   std::uint32_t slot,
                   std::uint64_t longest,
                   Transfer& transfer) const;
  void end_part(std::uint32_t slot,
                std::uint64_t bytes,
                int os_error,
                Instant now,
                std::vector<Finished>& out);
  void retire(std::uint32_t slot, Instant now, std::vector<Finished>& out);

  SchedulerLimits limits_;
  std::array<FlightBudget, 2> budgets_;  ///< [read or write]
  std::array<std::uint64_t, 3> pending_{};
  std::optional<Instant> last_demand_;  ///< when a demand read last ended
  std::vector<OpState> slots_;
  std::vector<std::uint32_t> free_;
  std::array<std::array<Queue, 2>, 3> queues_;  ///< [class][read or write]
  std::vector<std::uint32_t> syncs_;
  std::array<std::uint64_t, 2> bytes_{};          ///< in flight, [read or write]
  std::array<std::size_t, 3> class_transfers_{};  ///< in flight
  std::size_t transfers_ = 0;
  std::size_t demand_reads_ = 0;  ///< ops not over
  std::size_t live_ = 0;
  std::size_t waiting_ = 0;
  std::uint64_t sequence_ = 0;
  bool sync_in_flight_ = false;
};

/// Asserts what the contract of tiers/disk.hpp asks of an op. `memories` may be null.
void check_op(const DiskOp& op, std::uint64_t capacity, const Memories* memories);

/// Totals that any thread may read while one writes them.
class DiskCounters {
 public:
  void accepted() noexcept { queued_.fetch_add(1, std::memory_order_relaxed); }

  void finished(const Finished& op) noexcept;

  void budgets(const Scheduler& scheduler) noexcept;

  void dropped(std::uint64_t ops) noexcept { queued_.fetch_sub(ops, std::memory_order_relaxed); }

  [[nodiscard]] DiskStats snapshot() const noexcept;

 private:
  std::atomic<std::uint64_t> reads_{0}, writes_{0}, syncs_{0}, errors_{0};
  std::atomic<std::uint64_t> bytes_read_{0}, bytes_written_{0}, queued_{0};
  std::atomic<std::uint64_t> read_limit_{0}, write_limit_{0};
  std::atomic<double> read_rate_{0};
};

}  // namespace statecached
