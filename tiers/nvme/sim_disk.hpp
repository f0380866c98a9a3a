#pragma once
// The in-memory twin of a drive path, on a clock that its owner moves. Order and limits come from
// the scheduler of the real engines; the drive is one channel that moves bytes at a fixed rate plus
// a latency a transfer.
//
// With memories it keeps bytes: a durable image, and over it the writes that no sync has covered.
// Without memories it is only a model of time and never allocates in proportion to its capacity.
//
// Faults are drawn from the seed: the same calls at the same times give the same results.
//   eio_read, eio_write   a transfer stops at some page with EIO
//   enospc_write          the same with ENOSPC
//   eio_sync              a sync fails, and some of what it had to cover is gone
//   misdirected           a write reports success and lands elsewhere
//   lost_write            a write reports success and lands nowhere
//   bit_rot               a read finds one bit of what it reads flipped, for good
//   late                  a transfer takes `late_by` more
//   lost, torn            crash(): an unsynced page is gone, or has only some of its sectors
//
// One thread. The clock and the memories must outlive it.

#include "base/prng.hpp"
#include "tiers/memory.hpp"
#include "tiers/nvme/scheduler.hpp"

#include <array>
#include <cstddef>
#include <functional>
#include <map>
#include <queue>
#include <vector>

namespace statecached {

struct SimFaults {
  double eio_read = 0;
  double eio_write = 0;
  double misdirected = 0;
  double bit_rot = 0;
  double eio_sync = 0;
  double enospc_write = 0;
  double lost_write = 0;
  double late = 0;
  Nanos late_by{100'000'000};
  double lost_before_sync = 0.5;  ///< crash() only
  double torn = 0.25;             ///< crash() only, of what is not lost
};

/// The rates are those of an imagined drive, for its owner to set.
struct SimDiskOptions {
  double read_bytes_per_second = 2e9;
  double write_bytes_per_second = 2e9;
  Nanos latency{100'000};
  Nanos sync_latency{500'000};
  std::uint64_t seed = 1;
  SimFaults faults{};
  std::size_t queue_ops = 1024;
  SchedulerLimits limits{};
};

class SimDisk final : public Disk {
 public:
  SimDisk(std::uint64_t capacity,
          const Clock& clock,
          const SimDiskOptions& options,
          const Memories* memories = nullptr);

  [[nodiscard]] std::uint64_t capacity() const noexcept override { return capacity_; }

  [[nodiscard]] bool submit(DiskOp& op) override;
  /// What is due at the clock's now.
  std::size_t poll(std::vector<DiskDone>& out) override;
  void cancel(std::span<const std::uint64_t> tags) override;

  [[nodiscard]] DiskStats stats() const override { return counters_.snapshot(); }

  [[nodiscard]] const char* engine() const noexcept override { return "simulated"; }

  /// When poll() is next worth calling: an op may be over by then, or only a part of one.
  /// Instant::max() when nothing is under way.
  [[nodiscard]] Instant next_completion() const;

  /// Power loss: what was not over is forgotten without completion, unsynced writes may be lost or
  /// torn. The disk then goes on as after a restart.
  void crash();

  /// From now on.
  void set_faults(const SimFaults& faults) noexcept { options_.faults = faults; }

 private:
  using Page = std::array<std::byte, kPage>;
  using Pages = std::map<std::uint64_t, Page>;  ///< ordered: crash() must not depend on hashing

  struct Event {
    Instant at;
    std::uint64_t sequence = 0;
    std::uint32_t flight = 0;
    bool failed = false;  ///< a sync

    friend bool operator>(const Event& a, const Event& b) noexcept {
      return a.at != b.at ? a.at > b.at : a.sequence > b.sequence;
    }
  };

  void run_until(Instant now);
  void start_transfers(Instant now);
  void end_transfer(const Transfer& transfer, bool failed, Instant now);
  void fail_sync();
  void collect();
  [[nodiscard]] std::uint64_t stop_at(const Transfer& transfer, double chance);
  [[nodiscard]] Instant end_time(const Transfer& transfer, Instant now);
  void read_bytes(const Transfer& transfer, std::uint64_t bytes);
  void write_bytes(const Transfer& transfer, std::uint64_t bytes, std::uint64_t disk_offset);
  void rot(const Transfer& transfer);
  void sync_all();
  [[nodiscard]] const Page* find(std::uint64_t page) const;

  const std::uint64_t capacity_;
  const Clock& clock_;
  SimDiskOptions options_;
  const Memories* memories_;
  Prng random_;
  Scheduler scheduler_;
  DiskCounters counters_;
  std::vector<Transfer> flights_;
  std::vector<std::uint32_t> free_;
  std::priority_queue<Event, std::vector<Event>, std::greater<>> events_;
  std::uint64_t sequence_ = 0;
  Instant channel_free_{};
  std::size_t outstanding_ = 0;
  std::vector<Finished> finished_;
  std::vector<DiskDone> done_;
  Pages durable_;
  Pages unsynced_;
};

}  // namespace statecached
