#pragma once
// What can be chosen about a disk engine. Every fallback that a machine may force on us can also be
// forced here, so that it is tested on machines that need none.

#include "base/units.hpp"

#include <cstddef>
#include <cstdint>

namespace statecached {

/// Bounds on what is with the kernel at one time. Bytes are limited rather than requests: beyond
/// the knee of a drive's throughput curve more bytes in flight only lengthen the wait of the next
/// demand read. 2 MiB of reads and 1 MiB of writes reach the flat part of the curve on the drives
/// measured so far; a faster drive is told so by its settings. A transfer starts while fewer bytes
/// than the limit are in flight, so the excess is always below one transfer.
struct SchedulerLimits {
  std::uint64_t read_bytes = 2 * kMiB;
  std::uint64_t write_bytes = 1 * kMiB;
  std::uint64_t transfer_bytes = 1 * kMiB;  ///< longest single transfer
  std::size_t transfer_runs = 256;          ///< most memory runs (iovecs) in one transfer
  std::size_t transfers = 64;               ///< most transfers in flight, syncs included
};

enum class DiskEngine : std::uint8_t { automatic, io_uring, threads };

struct DiskOptions {
  DiskEngine engine = DiskEngine::automatic;
  bool register_buffers = true;  ///< off: as where RLIMIT_MEMLOCK forbids it
  bool defer_taskrun = true;     ///< off: as on kernels before 6.1
  std::size_t queue_ops = 1024;  ///< ops accepted and not yet polled as done
  std::size_t threads = 4;       ///< of the thread engine
  SchedulerLimits limits{};
};

}  // namespace statecached
