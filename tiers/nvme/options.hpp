#pragma once
// What can be chosen about a disk engine. Every fallback that a machine may force on us can also be
// forced here, so that it is tested on machines that need none.

#include "base/units.hpp"

#include <cstddef>
#include <cstdint>

namespace statecached {

/// Bounds on what is with the kernel at one time. Bytes are limited rather than requests: beyond
/// the knee of a drive's throughput curve more bytes in flight only lengthen the wait of the next
/// demand read. The limits are where the search for the knee starts (flight_budget.hpp). A transfer
/// starts while fewer bytes than the limit are in flight, and is at most half of it, so that two
/// are under way.
struct SchedulerLimits {
  std::uint64_t read_bytes = 4 * kMiB;
  std::uint64_t write_bytes = 16 * kMiB;    ///< high: while demand reads come, one at a time goes
  bool calibrate = true;                    ///< false: they stay as they are
  std::uint64_t transfer_bytes = 4 * kMiB;  ///< longest single transfer
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
