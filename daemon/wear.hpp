#pragma once
// What the daemon has written: the process's total from the kernel's accounts (/proc/self/io),
// which the write budget is charged with, and each drive's total over its lifetime, which is kept
// in its folder. One thread of its own; figures for any thread.

#include "base/result.hpp"
#include "daemon/cache/write_budget.hpp"
#include "tiers/disk.hpp"

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace statecached {

/// Bytes that this process has caused to be written to block devices. Errors: this kernel does not
/// account for it.
[[nodiscard]] Result<std::uint64_t> process_bytes_written();

struct WornDrive {
  std::string folder;          ///< empty: not there
  const Disk* disk = nullptr;  ///< outlives the Wear
};

/// What a crash must not turn into a fresh burst.
struct SavedBudget {
  std::uint64_t tokens = 0;
  std::int64_t wall_seconds = 0;
};

/// What is there to spend now: all of the burst without a saved state.
[[nodiscard]] std::uint64_t restored_tokens(const WriteBudgetOptions& options,
                                            const std::string& state_dir,
                                            std::int64_t wall_now);

class Wear {
 public:
  /// `budget` may be null. Without the kernel's accounts the drives' own totals, and a warning.
  Wear(std::vector<WornDrive> drives, std::string state_dir, WriteBudget* budget);
  /// Saves.
  ~Wear();
  Wear(const Wear&) = delete;
  Wear& operator=(const Wear&) = delete;

  [[nodiscard]] std::uint64_t process_written() const noexcept { return written_.load(); }

  /// Data written to the drive with this number since its file was made.
  [[nodiscard]] std::uint64_t lifetime(std::size_t drive) const;

 private:
  void run();
  void measure();
  void save(bool all);

  const std::vector<WornDrive> drives_;
  const std::string state_dir_;
  WriteBudget* const budget_;
  std::vector<std::uint64_t> before_;  ///< of earlier processes, by drive
  std::vector<std::uint64_t> saved_;   ///< by drive, as in the file
  std::int64_t saved_tokens_ = 0;
  bool accounts_ = true;
  std::atomic<std::uint64_t> written_{0};
  std::mutex mutex_;
  std::condition_variable stop_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace statecached
