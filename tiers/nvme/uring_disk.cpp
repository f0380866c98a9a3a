#include "tiers/nvme/uring_disk.hpp"

#include "base/log.hpp"
#include "tiers/nvme/quiet_thread.hpp"

#include <fmt/format.h>
#include <liburing.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <functional>
#include <future>
#include <optional>
#include <utility>

namespace statecached {
namespace {

constexpr std::uint64_t kWakeTag = ~std::uint64_t{0};
/// The kernel takes at most 1 GiB as one registered buffer.
constexpr std::uint64_t kRegisteredMax = 1 * kGiB;
/// A transfer that the kernel keeps refusing for want of resources fails after so many attempts.
constexpr int kAttemptsMax = 64;

/// Of a long backlog, at most so many bytes end before its owner is woken (Worker::deliver).
constexpr std::uint64_t kRingBytes = 4 * kMiB;
/// Lists of ops to cancel that the thread has not seen yet; further ones are ignored.
constexpr std::size_t kCancelsMax = 64;
/// Of the bits that wake the worker: room for a kind of transfer, by bit_of(), or the end.
constexpr std::uint8_t kStopBit = 8;

constexpr std::uint8_t bit_of(DiskKind kind) noexcept {
  return static_cast<std::uint8_t>(1U << static_cast<unsigned>(kind));
}

/// Owns an initialised ring.
class Ring {
 public:
  Ring() = default;
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;

  ~Ring() {
    if (open_) ::io_uring_queue_exit(&ring_);
  }

  [[nodiscard]] int open(unsigned entries, unsigned flags) {
    io_uring_params params{};
    params.flags = flags;
    const int rc = ::io_uring_queue_init_params(entries, &ring_, &params);
    open_ = rc == 0;
    return rc;
  }

  [[nodiscard]] io_uring* get() noexcept { return &ring_; }

 private:
  io_uring ring_{};
  bool open_ = false;
};

}  // namespace

/// Lives on the I/O thread's stack.
class UringDisk::Worker {
 public:
  explicit Worker(UringDisk& disk) : disk_(disk), scheduler_(disk.options_.limits) {}

  /// Everything that can be refused. With SINGLE_ISSUER it must happen on the thread that submits.
  [[nodiscard]] Result<> prepare();
  void run();

 private:
  struct Flight {
    std::optional<Transfer> transfer;
    std::uint64_t done = 0;
    int attempts = 0;
    std::vector<iovec> vectors;
  };

  [[nodiscard]] Result<> open_ring();
  void register_file();
  void register_buffers();
  [[nodiscard]] int registered_index(const iovec& vector) const noexcept;
  [[nodiscard]] io_uring_sqe* take_sqe();
  void arm_wake();
  void take_incoming();
  void start_transfers();
  void issue(std::uint32_t index);
  void build_vectors(Flight& flight) const;
  void reap();
  void complete(std::uint32_t index, int result);
  void deliver();
  void wait();

  UringDisk& disk_;
  Scheduler scheduler_;
  Ring ring_;
  MonotonicClock clock_;
  bool file_registered_ = false;
  std::vector<iovec> registered_;  ///< sorted by address
  std::vector<Flight> flights_;
  std::vector<std::uint32_t> free_;
  std::vector<Finished> finished_;
  std::uint64_t unrung_ = 0;      ///< bytes handed over since the waker was called
  std::uint64_t wake_count_ = 0;  ///< where the kernel puts the eventfd's value
  bool wake_armed_ = false;
};

Result<> UringDisk::Worker::prepare() {
  SC_TRY(open_ring());
  disk_.counters_.budgets(scheduler_);
  register_file();
  if (disk_.options_.register_buffers) register_buffers();
  flights_.resize(disk_.options_.limits.transfers);
  for (std::uint32_t i = 0; i < flights_.size(); ++i)
    free_.push_back(i);
  return {};
}

Result<> UringDisk::Worker::open_ring() {
  // Every transfer in flight and the eventfd's read have a place, so the rings never run over.
  const auto entries = static_cast<unsigned>(disk_.options_.limits.transfers + 2);
  constexpr unsigned kPlain = IORING_SETUP_CLAMP;
  constexpr unsigned kBatched = kPlain | IORING_SETUP_SUBMIT_ALL;
  constexpr unsigned kDeferred = kBatched | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;
  int rc = -EINVAL;
  if (disk_.options_.defer_taskrun) {
    rc = ring_.open(entries, kDeferred);
    disk_.deferred_ = rc == 0;
  }
  if (rc == -EINVAL) rc = ring_.open(entries, kBatched);
  if (rc == -EINVAL) rc = ring_.open(entries, kPlain);
  if (rc != 0) return fail_errno("this system refuses io_uring", -rc);
  // Saves a file lookup a call where the kernel has it; nothing depends on it.
  static_cast<void>(::io_uring_register_ring_fd(ring_.get()));
  return {};
}

void UringDisk::Worker::register_file() {
  file_registered_ = ::io_uring_register_files(ring_.get(), &disk_.data_fd_, 1) == 0;
}

void UringDisk::Worker::register_buffers() {
  for (const Memory& memory : disk_.memories_) {
    if (memory.base == nullptr) continue;
    for (std::uint64_t at = 0; at < memory.bytes; at += kRegisteredMax) {
      registered_.push_back({memory.base + at, std::min(kRegisteredMax, memory.bytes - at)});
    }
  }
  if (registered_.empty()) return;
  std::sort(registered_.begin(), registered_.end(), [](const iovec& a, const iovec& b) {
    return std::less<>{}(a.iov_base, b.iov_base);
  });
  const int rc = ::io_uring_register_buffers(
      ring_.get(), registered_.data(), static_cast<unsigned>(registered_.size()));
  disk_.registered_ = rc == 0;
  if (rc != 0) {
    registered_.clear();
    log::warn(
        "cannot register the arenas with io_uring (errno {}; LimitMEMLOCK=infinity allows it): "
        "transfers cost more CPU",
        -rc);
  }
}

int UringDisk::Worker::registered_index(const iovec& vector) const noexcept {
  auto after = std::upper_bound(registered_.begin(),
                                registered_.end(),
                                vector.iov_base,
                                [](const void* address, const iovec& buffer) {
                                  return std::less<>{}(address, buffer.iov_base);
                                });
  if (after == registered_.begin()) return -1;
  const iovec& buffer = *--after;
  const auto offset = static_cast<std::size_t>(static_cast<const std::byte*>(vector.iov_base) -
                                               static_cast<const std::byte*>(buffer.iov_base));
  if (offset + vector.iov_len > buffer.iov_len) return -1;
  return static_cast<int>(after - registered_.begin());
}

io_uring_sqe* UringDisk::Worker::take_sqe() {
  io_uring_sqe* sqe = ::io_uring_get_sqe(ring_.get());
  SC_ASSERT(sqe != nullptr);
  return sqe;
}

void UringDisk::Worker::arm_wake() {
  if (wake_armed_) return;
  io_uring_sqe* sqe = take_sqe();
  ::io_uring_prep_read(sqe, disk_.event_.get(), &wake_count_, sizeof wake_count_, 0);
  ::io_uring_sqe_set_data64(sqe, kWakeTag);
  wake_armed_ = true;
}

/// Cancels are taken first and applied last: what they name was pushed before them.
void UringDisk::Worker::take_incoming() {
  std::vector<std::uint64_t> cancelled;
  while (auto tags = disk_.cancelled_.pop())
    cancelled.insert(cancelled.end(), tags->begin(), tags->end());
  while (auto op = disk_.incoming_.pop())
    scheduler_.add(std::move(*op), finished_);
  if (cancelled.empty()) return;
  std::sort(cancelled.begin(), cancelled.end());
  scheduler_.cancel(cancelled, clock_.now(), finished_);
}

void UringDisk::Worker::start_transfers() {
  while (!free_.empty()) {
    auto transfer = scheduler_.next(clock_.now());
    if (!transfer) return;
    const std::uint32_t index = free_.back();
    free_.pop_back();
    Flight& flight = flights_[index];
    flight.transfer = std::move(transfer);
    flight.done = 0;
    flight.attempts = 0;
    issue(index);
  }
}

/// What is left of the transfer.
void UringDisk::Worker::build_vectors(Flight& flight) const {
  flight.vectors.clear();
  std::uint64_t skip = flight.done;
  for (const TransferRun& run : flight.transfer->runs) {
    if (skip >= run.bytes) {
      skip -= run.bytes;
      continue;
    }
    const auto bytes = bytes_at(disk_.memories_, run.memory, run.bytes).subspan(skip);
    flight.vectors.push_back({bytes.data(), bytes.size()});
    skip = 0;
  }
}

void UringDisk::Worker::issue(std::uint32_t index) {
  Flight& flight = flights_[index];
  const Transfer& transfer = *flight.transfer;
  const int fd = file_registered_ ? 0 : disk_.data_fd_;
  io_uring_sqe* sqe = take_sqe();
  if (transfer.kind == DiskKind::sync) {
    ::io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC);
  } else {
    build_vectors(flight);
    const iovec& first = flight.vectors.front();
    const auto count = static_cast<unsigned>(flight.vectors.size());
    const auto length = static_cast<unsigned>(first.iov_len);
    const std::uint64_t offset = transfer.disk_offset + flight.done;
    const int buffer = count == 1 ? registered_index(first) : -1;
    const bool read = transfer.kind == DiskKind::read;
    if (buffer >= 0 && read) {
      ::io_uring_prep_read_fixed(sqe, fd, first.iov_base, length, offset, buffer);
    } else if (buffer >= 0) {
      ::io_uring_prep_write_fixed(sqe, fd, first.iov_base, length, offset, buffer);
    } else if (read) {
      ::io_uring_prep_readv(sqe, fd, flight.vectors.data(), count, offset);
    } else {
      ::io_uring_prep_writev(sqe, fd, flight.vectors.data(), count, offset);
    }
  }
  if (file_registered_) ::io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE);
  ::io_uring_sqe_set_data64(sqe, index);
}

void UringDisk::Worker::complete(std::uint32_t index, int result) {
  Flight& flight = flights_[index];
  const Transfer& transfer = *flight.transfer;
  int os_error = 0;
  if (result == -EINTR || result == -EAGAIN) {
    if (++flight.attempts < kAttemptsMax) return issue(index);
    os_error = EIO;
  } else if (result < 0) {
    os_error = -result;
  } else if (transfer.kind != DiskKind::sync) {
    // A short transfer goes on from the last whole page, as O_DIRECT demands; no page at all is
    // EIO.
    const std::uint64_t whole = round_down(static_cast<std::uint64_t>(result), kPage);
    flight.done += whole;
    if (flight.done < transfer.bytes) {
      if (whole != 0) return issue(index);
      os_error = EIO;
    }
  }
  scheduler_.finish(transfer, flight.done, os_error, clock_.now(), finished_);
  flight.transfer.reset();
  free_.push_back(index);
}

void UringDisk::Worker::reap() {
  io_uring_cqe* cqe = nullptr;
  while (::io_uring_peek_cqe(ring_.get(), &cqe) == 0) {
    const std::uint64_t tag = ::io_uring_cqe_get_data64(cqe);
    const int result = cqe->res;
    ::io_uring_cqe_seen(ring_.get(), cqe);
    if (tag == kWakeTag) {
      wake_armed_ = false;
    } else {
      complete(static_cast<std::uint32_t>(tag), result);
    }
  }
}

/// Hands over what has finished. Whoever waits is woken at once for the last of a class, a sync or
/// a failure; of a long backlog after a quarter of what is left of it or 4 MiB, whichever is less,
/// since each wake-up is a system call and a switch of threads.
void UringDisk::Worker::deliver() {
  if (finished_.empty()) return;
  bool now = false;
  for (const Finished& op : finished_) {
    disk_.counters_.finished(op);
    unrung_ += op.bytes;
    const std::uint64_t left = scheduler_.pending(op.klass);
    now = now || op.kind == DiskKind::sync || op.done.os_error != 0 ||
          unrung_ >= std::min(left / 4, kRingBytes);
    // There is room: submit() bounds what is accepted and not polled.
    const bool pushed = disk_.outgoing_.push(DiskDone(op.done));
    SC_ASSERT(pushed);
  }
  finished_.clear();
  disk_.counters_.budgets(scheduler_);
  if (!now || !disk_.waker_) return;
  unrung_ = 0;
  // The drive first: waking a sleeper may take longer than a small transfer.
  if (::io_uring_sq_ready(ring_.get()) != 0) static_cast<void>(::io_uring_submit(ring_.get()));
  disk_.waker_();
}

/// Sleeps until a completion. Both sides swap `wanted_` around their look at the queue, so either
/// the op is seen here or the conductor sees the sleeper and signals.
void UringDisk::Worker::wait() {
  arm_wake();
  std::uint8_t wanted = kStopBit;
  for (const DiskKind kind : {DiskKind::read, DiskKind::write, DiskKind::sync}) {
    if (scheduler_.has_room(kind)) wanted = static_cast<std::uint8_t>(wanted | bit_of(kind));
  }
  disk_.wanted_.exchange(wanted);
  const bool leaving = disk_.stopping_.load() && scheduler_.ops() == 0;
  const bool idle = disk_.incoming_.empty() && !leaving;
  const int rc = ::io_uring_submit_and_wait(ring_.get(), idle ? 1 : 0);
  disk_.wanted_.exchange(0);
  SC_ASSERT(rc >= 0 || rc == -EINTR || rc == -EAGAIN || rc == -EBUSY);
}

void UringDisk::Worker::run() {
  ::pthread_setname_np(::pthread_self(), "sc-uring");
  while (true) {
    // Read first: whatever was pushed before stopping is then in the queue below.
    const bool stopping = disk_.stopping_.load();
    take_incoming();
    start_transfers();
    deliver();
    if (stopping && scheduler_.ops() == 0) return;
    wait();
    reap();
  }
}

UringDisk::UringDisk(const Memories& memories, const DiskOptions& options, Waker waker)
    : memories_(memories),
      options_(options),
      waker_(std::move(waker)),
      incoming_(options.queue_ops),
      outgoing_(options.queue_ops),
      cancelled_(kCancelsMax) {}

Result<std::unique_ptr<UringDisk>> UringDisk::create(DrivePath&& path,
                                                     const Memories& memories,
                                                     const DiskOptions& options,
                                                     Waker waker) {
  std::unique_ptr<UringDisk> disk(new UringDisk(memories, options, std::move(waker)));
  disk->event_.reset(::eventfd(0, EFD_CLOEXEC));
  if (!disk->event_) return fail_errno("cannot create an eventfd");
  disk->data_fd_ = path.fd.get();
  std::promise<Result<>> prepared;
  disk->thread_ = start_quiet_thread([raw = disk.get(), &prepared] {
    Worker worker(*raw);
    Result<> result = worker.prepare();
    const bool ok = result.has_value();
    prepared.set_value(std::move(result));  // `prepared` is gone from here on
    if (ok) worker.run();
  });
  SC_TRY(prepared.get_future().get());
  disk->path_ = std::move(path);
  return disk;
}

UringDisk::~UringDisk() {
  if (!thread_.joinable()) return;
  stopping_.store(true);
  wake_worker(kStopBit);
  thread_.join();
}

void UringDisk::wake_worker(std::uint8_t bits) noexcept {
  // A read-modify-write, so that the push before it is not passed by a plain load.
  if ((wanted_.fetch_or(0) & bits) == 0 || wanted_.exchange(0) == 0) return;
  const std::uint64_t one = 1;
  const ssize_t put = ::write(event_.get(), &one, sizeof one);
  SC_ASSERT(put == static_cast<ssize_t>(sizeof one));
}

bool UringDisk::submit(DiskOp& op) {
  check_op(op, path_.capacity, &memories_);
  if (outstanding_ >= options_.queue_ops) return false;
  counters_.accepted();  // before the push: the worker takes it off again
  const std::uint8_t bit = bit_of(op.kind);
  const bool pushed = incoming_.push(std::move(op));
  SC_ASSERT(pushed);
  ++outstanding_;
  wake_worker(bit);
  return true;
}

std::size_t UringDisk::poll(std::vector<DiskDone>& out) {
  std::size_t count = 0;
  while (auto done = outgoing_.pop()) {
    out.push_back(*done);
    ++count;
  }
  outstanding_ -= count;
  return count;
}

/// Wakes nobody: what can be cancelled waits for a transfer whose end wakes the thread.
void UringDisk::cancel(std::span<const std::uint64_t> tags) {
  static_cast<void>(cancelled_.push(std::vector<std::uint64_t>(tags.begin(), tags.end())));
}

}  // namespace statecached
