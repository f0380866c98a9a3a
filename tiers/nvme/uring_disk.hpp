#pragma once
// A drive path through io_uring: one thread owns the ring and the scheduler and sleeps in the
// kernel until a transfer ends or the conductor signals an eventfd, which it does only when the
// thread sleeps and could start what was submitted: while the bytes in flight are at their limit
// the next completion picks it up.
//
// Probed at start: SINGLE_ISSUER|DEFER_TASKRUN (else plain flags), a registered file, registered
// buffers (else ordinary vectors, also for transfers that are scattered in memory).

#include "base/queue.hpp"
#include "tiers/memory.hpp"
#include "tiers/nvme/path.hpp"
#include "tiers/nvme/scheduler.hpp"
#include "tiers/waker.hpp"

#include <atomic>
#include <memory>
#include <thread>

namespace statecached {

class UringDisk final : public Disk {
 public:
  /// `memories` must outlive the disk, and those with bytes keep their addresses. `path` is moved
  /// from only on success. Errors: unsupported, permission, no_space: io_uring cannot be used here.
  [[nodiscard]] static Result<std::unique_ptr<UringDisk>> create(DrivePath&& path,
                                                                 const Memories& memories,
                                                                 const DiskOptions& options,
                                                                 Waker waker);
  /// Completes everything that was accepted.
  ~UringDisk() override;

  [[nodiscard]] std::uint64_t capacity() const noexcept override { return path_.capacity; }

  [[nodiscard]] bool submit(DiskOp& op) override;
  std::size_t poll(std::vector<DiskDone>& out) override;
  void cancel(std::span<const std::uint64_t> tags) override;

  [[nodiscard]] DiskStats stats() const override {
    DiskStats out = counters_.snapshot();
    out.direct = path_.direct;
    out.registered_buffers = registered_;
    out.defer_taskrun = deferred_;
    return out;
  }

  [[nodiscard]] const char* engine() const noexcept override { return "io_uring"; }

  /// What was found at start.
  [[nodiscard]] bool defers_taskrun() const noexcept { return deferred_; }

  [[nodiscard]] bool buffers_registered() const noexcept { return registered_; }

 private:
  class Worker;
  UringDisk(const Memories& memories, const DiskOptions& options, Waker waker);
  void wake_worker(std::uint8_t bits) noexcept;

  // Written before the thread runs.
  const Memories& memories_;
  const DiskOptions options_;
  const Waker waker_;
  DrivePath path_;
  int data_fd_ = -1;
  UniqueFd event_;
  bool deferred_ = false;
  bool registered_ = false;

  // The conductor's.
  std::size_t outstanding_ = 0;  ///< accepted and not polled: bounds both queues

  // Shared.
  SpscQueue<DiskOp> incoming_;
  SpscQueue<DiskDone> outgoing_;
  SpscQueue<std::vector<std::uint64_t>> cancelled_;
  std::atomic<std::uint8_t> wanted_{0};  ///< bit per DiskKind that wakes the sleeping thread
  std::atomic<bool> stopping_{false};
  DiskCounters counters_;

  std::thread thread_;
};

}  // namespace statecached
