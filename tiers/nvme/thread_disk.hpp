#pragma once
// A drive path through preadv, pwritev and fdatasync on a few threads: for systems that refuse
// io_uring (containers often do). The scheduler is shared under one lock, so order and limits are
// the same as with io_uring.

#include "tiers/memory.hpp"
#include "tiers/nvme/path.hpp"
#include "tiers/nvme/scheduler.hpp"
#include "tiers/waker.hpp"

#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace statecached {

class ThreadDisk final : public Disk {
 public:
  /// `memories` must outlive the disk.
  [[nodiscard]] static std::unique_ptr<ThreadDisk> create(DrivePath&& path,
                                                          const Memories& memories,
                                                          const DiskOptions& options,
                                                          Waker waker);
  /// Completes everything that was accepted.
  ~ThreadDisk() override;

  [[nodiscard]] std::uint64_t capacity() const noexcept override { return path_.capacity; }

  [[nodiscard]] bool submit(DiskOp& op) override;
  std::size_t poll(std::vector<DiskDone>& out) override;
  void cancel(std::span<const std::uint64_t> tags) override;

  [[nodiscard]] DiskStats stats() const override {
    DiskStats out = counters_.snapshot();
    out.direct = path_.direct;
    return out;
  }

  [[nodiscard]] const char* engine() const noexcept override { return "threads"; }

 private:
  ThreadDisk(DrivePath&& path, const Memories& memories, const DiskOptions& options, Waker waker);
  void work();
  [[nodiscard]] int perform(const Transfer& transfer, std::uint64_t& done) const;

  const DrivePath path_;
  const Memories& memories_;
  const DiskOptions options_;
  const Waker waker_;
  std::size_t outstanding_ = 0;  ///< the conductor's: accepted and not polled
  DiskCounters counters_;

  std::mutex mutex_;
  std::condition_variable work_;
  Scheduler scheduler_;             ///< under mutex_
  std::vector<Finished> finished_;  ///< under mutex_
  bool stopping_ = false;           ///< under mutex_

  std::vector<std::thread> threads_;
};

}  // namespace statecached
