#include "tiers/nvme/sim_disk.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

namespace statecached {
namespace {

constexpr std::uint64_t kSector = 512;

/// Calls use(memory of one page, number of the page inside the transfer) for the first `bytes`.
template <class Use>
void each_page(const Memories& memories, const Transfer& transfer, std::uint64_t bytes, Use use) {
  std::uint64_t page = 0;
  for (const TransferRun& run : transfer.runs) {
    std::byte* memory = bytes_at(memories, run.memory, run.bytes).data();
    for (std::uint64_t at = 0; at < run.bytes; at += kPage, ++page) {
      if (page * kPage >= bytes) return;
      use(memory + at, page);
    }
  }
}

}  // namespace

SimDisk::SimDisk(std::uint64_t capacity,
                 const Clock& clock,
                 const SimDiskOptions& options,
                 const Memories* memories)
    : capacity_(capacity),
      clock_(clock),
      options_(options),
      memories_(memories),
      random_(options.seed),
      scheduler_(options.limits) {
  SC_ASSERT(capacity != 0 && capacity % kPage == 0);
  SC_ASSERT(options.read_bytes_per_second > 0 && options.write_bytes_per_second > 0);
}

bool SimDisk::submit(DiskOp& op) {
  check_op(op, capacity_, memories_);
  const Instant now = clock_.now();
  run_until(now);
  if (outstanding_ >= options_.queue_ops) return false;
  ++outstanding_;
  counters_.accepted();
  scheduler_.add(std::move(op), finished_);
  collect();
  start_transfers(now);
  return true;
}

std::size_t SimDisk::poll(std::vector<DiskDone>& out) {
  run_until(clock_.now());
  const std::size_t count = done_.size();
  out.insert(out.end(), done_.begin(), done_.end());
  done_.clear();
  outstanding_ -= count;
  return count;
}

void SimDisk::cancel(std::span<const std::uint64_t> tags) {
  run_until(clock_.now());
  std::vector<std::uint64_t> sorted(tags.begin(), tags.end());
  std::sort(sorted.begin(), sorted.end());
  scheduler_.cancel(sorted, clock_.now(), finished_);
  collect();
}

Instant SimDisk::next_completion() const {
  if (!done_.empty()) return clock_.now();
  return events_.empty() ? Instant::max() : events_.top().at;
}

void SimDisk::run_until(Instant now) {
  while (!events_.empty() && events_.top().at <= now) {
    const Event event = events_.top();
    events_.pop();
    const Transfer transfer = std::move(flights_[event.flight]);
    free_.push_back(event.flight);
    end_transfer(transfer, event.failed, event.at);
    start_transfers(event.at);
  }
}

void SimDisk::start_transfers(Instant now) {
  while (auto transfer = scheduler_.next(now)) {
    bool failed = false;
    if (transfer->kind == DiskKind::sync) {
      failed = options_.faults.eio_sync > 0 && random_.chance(options_.faults.eio_sync);
      if (failed) fail_sync();
      sync_all();
    }
    const Instant end = end_time(*transfer, now);
    std::uint32_t flight = 0;
    if (free_.empty()) {
      flight = static_cast<std::uint32_t>(flights_.size());
      flights_.push_back(std::move(*transfer));
    } else {
      flight = free_.back();
      free_.pop_back();
      flights_[flight] = std::move(*transfer);
    }
    events_.push({end, sequence_++, flight, failed});
  }
}

Instant SimDisk::end_time(const Transfer& transfer, Instant now) {
  if (transfer.kind == DiskKind::sync) return now + options_.sync_latency;
  const double rate = transfer.kind == DiskKind::read ? options_.read_bytes_per_second
                                                      : options_.write_bytes_per_second;
  channel_free_ =
      std::max(channel_free_, now) + from_seconds(static_cast<double>(transfer.bytes) / rate);
  const Nanos extra = random_.chance(options_.faults.late) ? options_.faults.late_by : Nanos{};
  return channel_free_ + options_.latency + extra;
}

/// How many bytes are moved before a drawn EIO; all of them without.
std::uint64_t SimDisk::stop_at(const Transfer& transfer, double chance) {
  if (!random_.chance(chance)) return transfer.bytes;
  return random_.below(transfer.bytes / kPage) * kPage;
}

void SimDisk::end_transfer(const Transfer& transfer, bool failed, Instant now) {
  std::uint64_t moved = 0;
  int error = failed ? EIO : 0;
  if (transfer.kind == DiskKind::read) {
    moved = stop_at(transfer, options_.faults.eio_read);
    if (moved < transfer.bytes) error = EIO;
    const bool rots = random_.chance(options_.faults.bit_rot);
    if (memories_ != nullptr && rots) rot(transfer);
    if (memories_ != nullptr) read_bytes(transfer, moved);
  } else if (transfer.kind == DiskKind::write) {
    moved = stop_at(transfer, options_.faults.eio_write);
    if (moved < transfer.bytes) error = EIO;
    if (options_.faults.enospc_write > 0 && moved == transfer.bytes) {
      moved = stop_at(transfer, options_.faults.enospc_write);
      if (moved < transfer.bytes) error = ENOSPC;
    }
    const bool lost = options_.faults.lost_write > 0 && random_.chance(options_.faults.lost_write);
    std::uint64_t offset = transfer.disk_offset;
    if (random_.chance(options_.faults.misdirected)) {
      offset = random_.below((capacity_ - transfer.bytes) / kPage + 1) * kPage;
    }
    if (memories_ != nullptr && !lost) write_bytes(transfer, moved, offset);
  }
  scheduler_.finish(transfer, moved, error, now, finished_);
  collect();
}

void SimDisk::collect() {
  counters_.budgets(scheduler_);
  for (const Finished& op : finished_) {
    counters_.finished(op);
    done_.push_back(op.done);
  }
  finished_.clear();
}

const SimDisk::Page* SimDisk::find(std::uint64_t page) const {
  if (const auto at = unsynced_.find(page); at != unsynced_.end()) return &at->second;
  if (const auto at = durable_.find(page); at != durable_.end()) return &at->second;
  return nullptr;
}

void SimDisk::read_bytes(const Transfer& transfer, std::uint64_t bytes) {
  const std::uint64_t first = transfer.disk_offset / kPage;
  each_page(*memories_, transfer, bytes, [&](std::byte* memory, std::uint64_t page) {
    const Page* stored = find(first + page);
    if (stored != nullptr) {
      std::memcpy(memory, stored->data(), kPage);
    } else {
      std::memset(memory, 0, kPage);
    }
  });
}

void SimDisk::write_bytes(const Transfer& transfer,
                          std::uint64_t bytes,
                          std::uint64_t disk_offset) {
  const std::uint64_t first = disk_offset / kPage;
  each_page(*memories_, transfer, bytes, [&](const std::byte* memory, std::uint64_t page) {
    std::memcpy(unsynced_[first + page].data(), memory, kPage);
  });
}

void SimDisk::rot(const Transfer& transfer) {
  const std::uint64_t at = transfer.disk_offset + random_.below(transfer.bytes);
  const std::uint64_t page = at / kPage;
  const auto over = unsynced_.find(page);
  Page& stored = over != unsynced_.end() ? over->second : durable_[page];
  stored[at % kPage] ^= std::byte{1} << random_.below(8);
}

/// The page cache forgets what it could not write.
void SimDisk::fail_sync() {
  std::erase_if(unsynced_, [&](const auto&) { return random_.chance(0.5); });
}

/// What had ended when the sync began is durable when the sync ends; treating it so at once is
/// within the promise.
void SimDisk::sync_all() {
  for (const auto& [page, bytes] : unsynced_)
    durable_[page] = bytes;
  unsynced_.clear();
}

void SimDisk::crash() {
  run_until(clock_.now());
  // Of a write under way any page may have arrived.
  while (!events_.empty()) {
    const Transfer transfer = std::move(flights_[events_.top().flight]);
    events_.pop();
    if (memories_ == nullptr || transfer.kind != DiskKind::write) continue;
    const std::uint64_t first = transfer.disk_offset / kPage;
    each_page(
        *memories_, transfer, transfer.bytes, [&](const std::byte* memory, std::uint64_t page) {
          if (random_.chance(0.5)) std::memcpy(unsynced_[first + page].data(), memory, kPage);
        });
  }
  for (const auto& [page, bytes] : unsynced_) {
    if (random_.chance(options_.faults.lost_before_sync)) continue;
    const bool torn = random_.chance(options_.faults.torn);
    Page& stored = durable_[page];
    for (std::uint64_t at = 0; at < kPage; at += kSector) {
      if (torn && random_.chance(0.5)) continue;
      std::memcpy(stored.data() + at, bytes.data() + at, kSector);
    }
  }
  unsynced_.clear();
  flights_.clear();
  free_.clear();
  counters_.dropped(scheduler_.ops());
  scheduler_ = Scheduler(options_.limits);
  channel_free_ = clock_.now();
  done_.clear();
  outstanding_ = 0;
}

}  // namespace statecached
