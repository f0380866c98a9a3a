#include "tiers/nvme/thread_disk.hpp"

#include "tiers/nvme/quiet_thread.hpp"

#include <pthread.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

namespace statecached {
namespace {

SchedulerLimits limits_of(const DiskOptions& options) {
  SchedulerLimits limits = options.limits;
  limits.transfers = std::min(limits.transfers, options.threads);
  return limits;
}

/// The vectors of what is left after `done` bytes.
void build_vectors(const Memories& memories,
                   const Transfer& transfer,
                   std::uint64_t done,
                   std::vector<iovec>& out) {
  out.clear();
  for (const TransferRun& run : transfer.runs) {
    if (done >= run.bytes) {
      done -= run.bytes;
      continue;
    }
    const auto bytes = bytes_at(memories, run.memory, run.bytes).subspan(done);
    out.push_back({bytes.data(), bytes.size()});
    done = 0;
  }
}

}  // namespace

ThreadDisk::ThreadDisk(DrivePath&& path,
                       const Memories& memories,
                       const DiskOptions& options,
                       Waker waker)
    : path_(std::move(path)),
      memories_(memories),
      options_(options),
      waker_(std::move(waker)),
      scheduler_(limits_of(options)) {
  counters_.budgets(scheduler_);
}

std::unique_ptr<ThreadDisk> ThreadDisk::create(DrivePath&& path,
                                               const Memories& memories,
                                               const DiskOptions& options,
                                               Waker waker) {
  std::unique_ptr<ThreadDisk> disk(
      new ThreadDisk(std::move(path), memories, options, std::move(waker)));
  for (std::size_t i = 0; i < options.threads; ++i) {
    disk->threads_.push_back(start_quiet_thread([raw = disk.get()] { raw->work(); }));
  }
  return disk;
}

ThreadDisk::~ThreadDisk() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  work_.notify_all();
  for (std::thread& thread : threads_)
    thread.join();
}

bool ThreadDisk::submit(DiskOp& op) {
  check_op(op, path_.capacity, &memories_);
  if (outstanding_ >= options_.queue_ops) return false;
  ++outstanding_;
  counters_.accepted();
  bool over = false;
  {
    const std::lock_guard lock(mutex_);
    const std::size_t before = finished_.size();
    scheduler_.add(std::move(op), finished_);
    over = finished_.size() != before;
    if (over) counters_.finished(finished_.back());
  }
  if (!over) {
    work_.notify_one();
  } else if (waker_) {
    waker_();
  }
  return true;
}

std::size_t ThreadDisk::poll(std::vector<DiskDone>& out) {
  std::vector<Finished> taken;
  {
    const std::lock_guard lock(mutex_);
    taken.swap(finished_);
  }
  for (const Finished& op : taken)
    out.push_back(op.done);
  outstanding_ -= taken.size();
  return taken.size();
}

void ThreadDisk::cancel(std::span<const std::uint64_t> tags) {
  std::vector<std::uint64_t> sorted(tags.begin(), tags.end());
  std::sort(sorted.begin(), sorted.end());
  bool over = false;
  {
    const std::lock_guard lock(mutex_);
    const std::size_t before = finished_.size();
    scheduler_.cancel(sorted, MonotonicClock().now(), finished_);
    for (std::size_t i = before; i < finished_.size(); ++i)
      counters_.finished(finished_[i]);
    over = finished_.size() != before;
  }
  if (over && waker_) waker_();
}

/// Returns the errno, or 0 when all bytes were moved.
int ThreadDisk::perform(const Transfer& transfer, std::uint64_t& done) const {
  const int fd = path_.fd.get();
  if (transfer.kind == DiskKind::sync) return ::fdatasync(fd) == 0 ? 0 : errno;
  std::vector<iovec> vectors;
  while (done < transfer.bytes) {
    build_vectors(memories_, transfer, done, vectors);
    const auto count = static_cast<int>(vectors.size());
    const auto offset = static_cast<off_t>(transfer.disk_offset + done);
    const ssize_t moved = transfer.kind == DiskKind::read
                              ? ::preadv(fd, vectors.data(), count, offset)
                              : ::pwritev(fd, vectors.data(), count, offset);
    if (moved < 0 && errno == EINTR) continue;
    if (moved < 0) return errno;
    // A short transfer goes on from the last whole page, as O_DIRECT demands; no page at all is
    // EIO.
    const std::uint64_t whole = round_down(static_cast<std::uint64_t>(moved), kPage);
    if (whole == 0) return EIO;
    done += whole;
  }
  return 0;
}

void ThreadDisk::work() {
  ::pthread_setname_np(::pthread_self(), "sc-disk");
  const MonotonicClock clock;
  std::unique_lock lock(mutex_);
  while (true) {
    std::optional<Transfer> transfer;
    work_.wait(lock, [&] {
      transfer = scheduler_.next(clock.now());
      return transfer.has_value() || (stopping_ && !scheduler_.waiting());
    });
    if (!transfer) return;
    // One end may allow several starts, and one op may need several threads: each start passes it
    // on.
    if (scheduler_.waiting()) work_.notify_one();
    lock.unlock();
    std::uint64_t done = 0;
    const int os_error = perform(*transfer, done);
    lock.lock();
    const std::size_t before = finished_.size();
    scheduler_.finish(*transfer, done, os_error, clock.now(), finished_);
    const bool over = finished_.size() != before;
    for (std::size_t i = before; i < finished_.size(); ++i)
      counters_.finished(finished_[i]);
    counters_.budgets(scheduler_);
    if (stopping_ && !scheduler_.waiting()) work_.notify_all();
    if (over && waker_) {
      lock.unlock();
      waker_();
      lock.lock();
    }
  }
}

}  // namespace statecached
