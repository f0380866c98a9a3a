#pragma once
// `statecachectl bench nvme`: the daemon's own disk engine and checksums on one of its drives,
// against a bare io_uring loop with the same block size, depth, file and buffers.
//
// It works on a file of its own in a folder `bench` below the drive, filled once and removed at the
// end, and on an arena of its own: nothing that is cached is touched. Rounds alternate between ours
// and bare, each pass in the same random order, and ratios are medians over the pairs. Reading
// counts a block when its XXH3-128 has been checked; writing hashes each block while it is written
// and ends with one fdatasync, as write-behind does. CPU seconds are the whole process's.

#include "base/result.hpp"
#include "tiers/host/arena.hpp"
#include "tiers/nvme/options.hpp"
#include "tiers/nvme/path.hpp"

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <thread>

namespace statecached {

struct NvmeBenchOptions {
  std::string drive;               ///< the folder of the drive path
  std::uint64_t block = 0;         ///< 4 KiB to 64 MiB, a multiple of 4 KiB
  std::uint64_t file_bytes = 0;    ///< also what one pass moves
  std::uint32_t pairs = 0;         ///< at least 1
  std::uint32_t demand_reads = 0;  ///< of 256 KiB, half of them beside write-behind; 0: none
  DiskOptions disk;
  DirectIo direct = DirectIo::automatic;
  HugePages huge_pages = HugePages::automatic;
};

/// The report as one JSON object (interface.md has the keys). Blocks for seconds; call it on a
/// thread of its own. Errors: no_space and what else open_path() says, io, corrupt (a block did not
/// verify), timeout (`stop` was set).
[[nodiscard]] Result<std::string> nvme_bench(const NvmeBenchOptions& options,
                                             const std::atomic<bool>& stop);

/// One bench at a time, on a thread of its own. start() and stop() belong to one thread at a time.
class NvmeBenchRunner {
 public:
  using Done = std::function<void(Result<std::string>)>;

  NvmeBenchRunner() = default;
  NvmeBenchRunner(const NvmeBenchRunner&) = delete;
  NvmeBenchRunner& operator=(const NvmeBenchRunner&) = delete;
  ~NvmeBenchRunner();

  /// Calls `done` from the bench's thread. Error: busy.
  [[nodiscard]] Result<> start(NvmeBenchOptions options, Done done);
  /// Breaks off what runs and waits for its end.
  void stop();

 private:
  std::atomic<bool> running_{false};
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

}  // namespace statecached
