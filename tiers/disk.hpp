#pragma once
// The seam to one drive path: a file of fixed size, read and written in place, asynchronously.
// Production: tiers/nvme (io_uring, or a thread pool). Tests and simulator: tiers/nvme/sim_disk.

#include "base/result.hpp"
#include "base/time.hpp"
#include "tiers/extent.hpp"

#include <cstdint>
#include <span>
#include <vector>

namespace statecached {

enum class DiskKind : std::uint8_t { read, write, sync };

/// Strict order of service: demand reads, then prefetch (earliest deadline first), then
/// write-behind.
enum class DiskClass : std::uint8_t { demand = 0, prefetch = 1, write_behind = 2 };

/// One run of a transfer. All three are multiples of kPage.
struct DiskPiece {
  std::uint64_t disk_offset = 0;
  MemoryRef memory;
  std::uint64_t bytes = 0;
};

/// A read or write of some pieces, complete when all are; or a sync: complete when every write that
/// was *completed* before it was submitted is durable (fdatasync). The engine merges pieces that
/// are adjacent on the drive into one vectored transfer.
struct DiskOp {
  std::uint64_t tag = 0;  ///< the caller's; returned in DiskDone
  DiskKind kind = DiskKind::read;
  DiskClass klass = DiskClass::demand;
  Instant deadline{};  ///< orders prefetch; the zero Instant means none
  std::vector<DiskPiece> pieces;
};

struct DiskDone {
  std::uint64_t tag = 0;
  int os_error = 0;  ///< 0, or the errno of the first piece that failed (short = EIO)
  Nanos service{};   ///< from the moment it was handed to the kernel
};

/// Whether a path can still be used. `read_only`: it refuses writes. `out`: nothing comes from it.
enum class DiskHealth : std::uint8_t { good, read_only, out };

struct DiskStats {
  std::uint64_t reads = 0, writes = 0, syncs = 0, errors = 0;
  std::uint64_t bytes_read = 0, bytes_written = 0;
  std::uint64_t queued = 0;  ///< ops accepted and not done
  /// bytes in flight, as calibrated; 0: not limited
  std::uint64_t read_limit = 0, write_limit = 0;
  /// How it is served: around the page cache; from buffers that the kernel knows; DEFER_TASKRUN.
  bool direct = false, registered_buffers = false, defer_taskrun = false;
  double read_rate = 0;  ///< bytes a second under full load, of late; 0: not measured
};

/// submit() and poll() belong to one thread (the conductor). stats() may be called from any.
class Disk {
 public:
  Disk() = default;
  Disk(const Disk&) = delete;
  Disk& operator=(const Disk&) = delete;
  virtual ~Disk() = default;

  [[nodiscard]] virtual std::uint64_t capacity() const noexcept = 0;
  /// Accepts the op or, when its bounded queue is full, leaves it untouched and returns false.
  [[nodiscard]] virtual bool submit(DiskOp& op) = 0;
  /// Appends what has finished since; returns how many. Never blocks.
  virtual std::size_t poll(std::vector<DiskDone>& out) = 0;

  /// Nobody waits for these ops any more: a read of which nothing has been started ends with
  /// ECANCELED instead; the others go on. A wish: an engine may ignore it. By the thread of
  /// submit().
  virtual void cancel(std::span<const std::uint64_t> tags) { static_cast<void>(tags); }

  [[nodiscard]] virtual DiskStats stats() const = 0;

  /// May worsen at any poll(), never gets better.
  [[nodiscard]] virtual DiskHealth health() const noexcept { return DiskHealth::good; }

  /// "io_uring", "threads", "simulated": for status.
  [[nodiscard]] virtual const char* engine() const noexcept = 0;
};

}  // namespace statecached
