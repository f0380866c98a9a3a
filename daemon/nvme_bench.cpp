#include "daemon/nvme_bench.hpp"

#include "base/prng.hpp"
#include "base/time.hpp"
#include "base/units.hpp"
#include "tiers/host/copier.hpp"
#include "tiers/nvme/bare_ring.hpp"
#include "tiers/nvme/make_disk.hpp"
#include "tiers/nvme/quiet_thread.hpp"

#include <fmt/format.h>
#include <linux/futex.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <filesystem>
#include <memory>
#include <numeric>
#include <optional>
#include <vector>

namespace statecached {
namespace {

constexpr std::uint64_t kDemandBytes = 256 * kKiB;
/// What the cache hands the engine at a time (kDiskOpBytes of daemon/cache).
constexpr std::uint64_t kOpBytes = 1 * kMiB;
constexpr double kWriteShare = 0.2;  ///< of the measured write speed, beside demand reads
constexpr std::uint32_t kTurns = 10;
constexpr std::uint64_t kDepthMax = 64;

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

double quantile(std::vector<double>& values, double q) {
  if (values.empty()) return 0;
  const auto at = static_cast<std::ptrdiff_t>(q * static_cast<double>(values.size() - 1));
  std::nth_element(values.begin(), values.begin() + at, values.end());
  return values[static_cast<std::size_t>(at)];
}

double cpu_seconds() {
  rusage use{};
  ::getrusage(RUSAGE_SELF, &use);
  const auto of = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) * 1e-6;
  };
  return of(use.ru_utime) + of(use.ru_stime);
}

/// What the conductor's bell does: one atomic store while the owner is awake, a system call to wake
/// it.
class Signal {
 public:
  void ring() noexcept {
    rung_.store(1);
    if (sleeping_.exchange(false)) {
      ::syscall(SYS_futex, &rung_, FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0);
    }
  }

  /// Until a ring after the last wait, or `limit`, or for no reason.
  void wait(Nanos limit) noexcept {
    sleeping_.store(true);
    if (rung_.load() == 0) {
      const timespec time{0, std::min<long>(limit.count(), 999'999'999)};
      ::syscall(SYS_futex, &rung_, FUTEX_WAIT_PRIVATE, 0, &time, nullptr, 0);
    }
    sleeping_.store(false);
    rung_.store(0);
  }

 private:
  std::atomic<std::uint32_t> rung_{0};
  std::atomic<bool> sleeping_{false};
};

/// The folder and its file go with it.
class Scratch {
 public:
  explicit Scratch(std::string folder) : folder_(std::move(folder)) {}

  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  ~Scratch() {
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }

 private:
  const std::string folder_;
};

struct Pass {
  double gb_per_s = 0;
  double cpu_s_per_gib = 0;
};

/// Rate and CPU time of what happens between start and end.
class Meter {
 public:
  explicit Meter(const Clock& clock) : clock_(clock), start_(clock.now()), cpu_(cpu_seconds()) {}

  [[nodiscard]] Pass end(std::uint64_t bytes) const {
    const double took = seconds(clock_.now() - start_);
    const double cpu = cpu_seconds() - cpu_;
    const auto moved = static_cast<double>(bytes);
    return {moved / took * 1e-9, cpu / (moved / static_cast<double>(kGiB))};
  }

 private:
  const Clock& clock_;
  const Instant start_;
  const double cpu_;
};

class Bench {
 public:
  Bench(const NvmeBenchOptions& options, const std::atomic<bool>& stop)
      : options_(options),
        stop_(stop),
        random_(options.block) {}

  ~Bench() {
    // The engine first: it may still write into the arena and ring the signal.
    disk_.reset();
    copier_.reset();
  }

  Bench(const Bench&) = delete;
  Bench& operator=(const Bench&) = delete;

  Result<std::string> run();

 private:
  Result<> prepare();
  Result<> pair(bool ours_first);
  Result<Pass> ours(DiskKind kind);
  Result<Pass> bare(DiskKind kind);
  Pass hash();
  [[nodiscard]] unsigned depth(std::uint64_t limit) const;
  Result<> demand();
  Result<> demand_reads(std::uint32_t count,
                        double write_bytes_per_second,
                        std::vector<double>& us);
  Result<> step(std::size_t& blocks_done);
  Result<> sync();
  void submit_block(DiskKind kind, std::uint64_t number, std::uint64_t slot);
  void submit_sum(std::uint64_t number, std::uint64_t slot);
  void written_part(std::uint64_t slot, std::size_t& blocks_done);

  void shuffle() {
    for (std::size_t i = offsets_.size(); i > 1; --i)
      std::swap(offsets_[i - 1], offsets_[random_.below(i)]);
  }

  [[nodiscard]] std::string report();

  [[nodiscard]] std::uint64_t source(std::uint64_t block) const {
    return block % slots_ * options_.block;
  }

  [[nodiscard]] std::uint64_t target(std::uint64_t slot) const {
    return (slots_ + slot) * options_.block;
  }

  const NvmeBenchOptions& options_;
  const std::atomic<bool>& stop_;
  Prng random_;
  MonotonicClock clock_;
  Signal signal_;
  std::uint64_t slots_ = 0;
  unsigned read_depth_ = 2, write_depth_ = 2;
  bool direct_ = false;
  std::optional<Arena> arena_;
  Memories memories_;
  UniqueFd fd_;  ///< a second descriptor of the same open file
  std::unique_ptr<Disk> disk_;
  std::unique_ptr<CopyThread> copier_;
  std::vector<std::uint64_t> offsets_;
  std::vector<Checksum> sums_;

  struct Flight {
    std::uint64_t block = 0;
    std::size_t parts = 0;
    DiskKind kind = DiskKind::read;
  };

  std::vector<Flight> flights_;  ///< by slot
  std::vector<std::uint64_t> free_;
  std::deque<DiskOp> backlog_;
  std::vector<DiskDone> disk_done_;
  std::vector<CopyDone> copy_done_;

  std::vector<double> read_, raw_read_, read_ratio_, write_, raw_write_, write_ratio_;
  std::vector<double> cpu_, raw_cpu_, write_cpu_, raw_write_cpu_, hash_cpu_, cpu_ratio_;
  std::vector<double> write_cpu_ratio_;
  std::vector<double> alone_us_, busy_us_;
  std::uint64_t background_bytes_ = 0;
  double background_s_ = 0;
};

Result<> Bench::prepare() {
  const std::uint64_t block = options_.block;
  if (block < kPage || block > 64 * kMiB || block % kPage != 0) {
    return fail(Errc::invalid_argument,
                fmt::format("--size {} is no multiple of 4KiB up to 64MiB", format_size(block)));
  }
  // A prefix of 32 MiB or more under way, as the cache hands it over whole.
  slots_ = std::clamp<std::uint64_t>(32 * kMiB / block, 4, kDepthMax * 2);
  // As many blocks from each source slot, so that bare writes can go through the slots in turn.
  const std::uint64_t blocks =
      round_down(std::max<std::uint64_t>(options_.file_bytes / block, slots_), slots_);
  ArenaOptions arena;
  arena.bytes = 2 * slots_ * block;
  arena.huge_pages = options_.huge_pages;
  arena.name = "statecached-bench";
  SC_ASSIGN(arena_, Arena::create(arena));
  memories_.push_back({arena_->data(), arena_->bytes()});
  auto* words = reinterpret_cast<std::uint64_t*>(arena_->data());
  for (std::uint64_t i = 0; i < slots_ * block / sizeof(std::uint64_t); ++i)
    words[i] = random_.next();
  PathOptions path;
  path.direct = options_.direct;
  SC_ASSIGN(DrivePath drive,
            open_path(options_.drive + "/bench", round_up(blocks * block, kDriveGrain), path));
  direct_ = drive.direct;
  fd_.reset(::dup(drive.fd.get()));
  if (!fd_) return fail_errno("duplicating a descriptor");
  SC_ASSIGN(disk_,
            make_disk(std::move(drive), memories_, options_.disk, [this] { signal_.ring(); }));
  copier_ = std::make_unique<CopyThread>(memories_, [this] { signal_.ring(); });
  for (std::uint64_t i = 0; i < blocks; ++i) {
    offsets_.push_back(i * block);
    sums_.push_back(checksum_of({arena_->data() + source(i), block}, i));
  }
  flights_.resize(slots_);
  return {};
}

/// Beside the writes, as the cache does it: only the row waits for it.
void Bench::submit_sum(std::uint64_t number, std::uint64_t slot) {
  ++flights_[slot].parts;
  CopyOp op;
  op.tag = slot;
  op.kind = CopyKind::checksum;
  op.seed = number;
  op.payload_bytes = options_.block;
  op.source = {{{0, source(number)}, options_.block}};
  const bool taken = copier_->submit(op);
  SC_ASSERT(taken);  // never more than one a slot
}

void Bench::submit_block(DiskKind kind, std::uint64_t number, std::uint64_t slot) {
  Flight& flight = flights_[slot];
  flight = {number, 0, kind};
  if (kind == DiskKind::write) submit_sum(number, slot);
  const std::uint64_t memory = kind == DiskKind::read ? target(slot) : source(number);
  for (std::uint64_t at = 0; at < options_.block; at += kOpBytes) {
    DiskOp op;
    op.tag = slot;
    op.kind = kind;
    op.klass = kind == DiskKind::read ? DiskClass::demand : DiskClass::write_behind;
    op.pieces = {
        {number * options_.block + at, {0, memory + at}, std::min(kOpBytes, options_.block - at)}};
    ++flight.parts;
    backlog_.push_back(std::move(op));
  }
}

/// Hands over, polls, and sleeps when there was nothing. A block read is done when it is verified,
/// one written when its transfers and its checksum are.
Result<> Bench::step(std::size_t& blocks_done) {
  while (!backlog_.empty() && disk_->submit(backlog_.front()))
    backlog_.pop_front();
  disk_done_.clear();
  copy_done_.clear();
  if (disk_->poll(disk_done_) + copier_->poll(copy_done_) == 0) {
    if (stop_.load()) return fail(Errc::timeout, "the daemon is stopping");
    signal_.wait(std::chrono::milliseconds(100));
    return {};
  }
  for (const DiskDone& done : disk_done_) {
    if (done.os_error != 0) return fail_errno("a transfer of the bench failed", done.os_error);
    Flight& flight = flights_[done.tag];
    if (flight.kind == DiskKind::write) {
      written_part(done.tag, blocks_done);
      continue;
    }
    if (--flight.parts > 0) continue;
    CopyOp op;
    op.tag = done.tag;
    op.kind = CopyKind::verify;
    op.seed = flight.block;
    op.payload_bytes = options_.block;
    op.expected = sums_[flight.block];
    op.source = {{{0, target(done.tag)}, options_.block}};
    const bool taken = copier_->submit(op);
    SC_ASSERT(taken);  // never more than one a slot
  }
  for (const CopyDone& done : copy_done_) {
    if (flights_[done.tag].kind == DiskKind::write) {
      written_part(done.tag, blocks_done);
      continue;
    }
    if (!done.ok) return fail(Errc::corrupt, "a block of the bench did not read back as written");
    free_.push_back(done.tag);
    ++blocks_done;
  }
  return {};
}

void Bench::written_part(std::uint64_t slot, std::size_t& blocks_done) {
  if (--flights_[slot].parts > 0) return;
  free_.push_back(slot);
  ++blocks_done;
}

Result<> Bench::sync() {
  DiskOp op;
  op.kind = DiskKind::sync;
  op.klass = DiskClass::write_behind;
  const bool taken = disk_->submit(op);
  SC_ASSERT(taken);
  disk_done_.clear();
  while (disk_->poll(disk_done_) == 0)
    signal_.wait(std::chrono::milliseconds(100));
  if (disk_done_.front().os_error != 0)
    return fail_errno("fdatasync in the bench", disk_done_.front().os_error);
  return {};
}

Result<Pass> Bench::ours(DiskKind kind) {
  free_.resize(slots_);
  std::iota(free_.begin(), free_.end(), std::uint64_t{0});
  const Meter meter(clock_);
  std::size_t next = 0;
  std::size_t done = 0;
  while (done < offsets_.size()) {
    while (next < offsets_.size() && !free_.empty()) {
      const std::uint64_t slot = free_.back();
      free_.pop_back();
      const std::uint64_t block = offsets_[next++] / options_.block;
      submit_block(kind, block, slot);
    }
    SC_TRY(step(done));
  }
  if (kind == DiskKind::write) SC_TRY(sync());
  return meter.end(offsets_.size() * options_.block);
}

Result<Pass> Bench::bare(DiskKind kind) {
  // Writing takes each block from where its content is, so that the file stays what it was.
  const bool write = kind == DiskKind::write;
  std::vector<std::uint64_t> order = offsets_;
  if (write) {
    std::vector<std::vector<std::uint64_t>> of(slots_);
    for (const std::uint64_t at : offsets_)
      of[at / options_.block % slots_].push_back(at);
    order.clear();
    for (std::size_t round = 0; order.size() < offsets_.size(); ++round) {
      for (const auto& list : of) {
        if (round < list.size()) order.push_back(list[round]);
      }
    }
  }
  const std::uint64_t half = slots_ * options_.block;
  SC_ASSIGN(auto ring,
            BareRing::open(fd_.get(),
                           {arena_->data() + (write ? 0 : half), half},
                           write ? write_depth_ : read_depth_));
  const Meter meter(clock_);
  SC_TRY(ring->run(kind, order, options_.block));
  return meter.end(offsets_.size() * options_.block);
}

/// The checksums alone, over the buffers that reads land in. checksum_of() is of another
/// translation unit: the loop stays though nobody looks at its results.
Pass Bench::hash() {
  const Meter meter(clock_);
  for (std::size_t i = 0; i < offsets_.size(); ++i)
    static_cast<void>(checksum_of({arena_->data() + target(i % slots_), options_.block}, i));
  return meter.end(offsets_.size() * options_.block);
}

/// As many blocks in flight as the engine's calibrated limit allows it, and two at least: a drive
/// with a single request has nothing to do between two.
unsigned Bench::depth(std::uint64_t limit) const {
  return static_cast<unsigned>(std::clamp<std::uint64_t>(
      limit / options_.block, 2, std::min<std::uint64_t>(slots_, kDepthMax)));
}

Result<> Bench::pair(bool ours_first) {
  shuffle();
  const DiskStats stats = disk_->stats();
  read_depth_ = depth(stats.read_limit);
  write_depth_ = depth(stats.write_limit);
  for (const DiskKind kind : {DiskKind::read, DiskKind::write}) {
    Pass our;
    Pass raw;
    for (const bool ours_now : {ours_first, !ours_first}) {
      if (ours_now) {
        SC_ASSIGN(our, ours(kind));
      } else {
        SC_ASSIGN(raw, bare(kind));
      }
    }
    const bool read = kind == DiskKind::read;
    (read ? read_ : write_).push_back(our.gb_per_s);
    (read ? raw_read_ : raw_write_).push_back(raw.gb_per_s);
    (read ? read_ratio_ : write_ratio_).push_back(our.gb_per_s / raw.gb_per_s);
    (read ? cpu_ : write_cpu_).push_back(our.cpu_s_per_gib);
    (read ? raw_cpu_ : raw_write_cpu_).push_back(raw.cpu_s_per_gib);
    if (read) hash_cpu_.push_back(hash().cpu_s_per_gib);
    (read ? cpu_ratio_ : write_cpu_ratio_)
        .push_back(our.cpu_s_per_gib / (raw.cpu_s_per_gib + hash_cpu_.back()));
  }
  return {};
}

/// One read at a time, as an engine waits for it, beside write-behind at a given rate in batches of
/// 8 MiB, as the cache starts them.
Result<> Bench::demand_reads(std::uint32_t count, double rate, std::vector<double>& us) {
  constexpr std::uint64_t kReadTag = 1;
  constexpr std::uint64_t kWriteTag = 2;
  constexpr double kBatch = 8 * static_cast<double>(kMiB);
  const std::uint64_t file = offsets_.size() * options_.block;
  const Instant start = clock_.now();
  double due = rate > 0 ? kBatch : 0;
  std::uint64_t written = 0;
  std::size_t writing = 0;
  std::uint64_t at = 0;
  for (std::uint32_t i = 0; i < count; ++i) {
    DiskOp read;
    read.tag = kReadTag;
    read.pieces = {
        {random_.below(file / kDemandBytes) * kDemandBytes, {0, target(0)}, kDemandBytes}};
    const Instant asked = clock_.now();
    if (!disk_->submit(read)) return fail(Errc::internal, "the bench's queue is full");
    for (bool there = false; !there;) {
      while (rate > 0 && due >= kBatch && writing == 0) {
        for (std::uint64_t done = 0; done < 8 * kMiB; done += kOpBytes) {
          DiskOp op;
          op.tag = kWriteTag;
          op.kind = DiskKind::write;
          op.klass = DiskClass::write_behind;
          at = (at + kOpBytes) % round_down(file / 2, kOpBytes);
          op.pieces = {{at, {0, 0}, kOpBytes}};
          if (!disk_->submit(op)) return fail(Errc::internal, "the bench's queue is full");
          ++writing;
        }
        due -= kBatch;
      }
      disk_done_.clear();
      if (disk_->poll(disk_done_) == 0) signal_.wait(std::chrono::milliseconds(100));
      for (const DiskDone& done : disk_done_) {
        if (done.os_error != 0) return fail_errno("a transfer of the bench failed", done.os_error);
        there = there || done.tag == kReadTag;
        if (done.tag != kWriteTag) continue;
        --writing;
        written += kOpBytes;
      }
    }
    const Instant now = clock_.now();
    us.push_back(seconds(now - asked) * 1e6);
    due = kBatch + rate * seconds(now - start) - static_cast<double>(written);
    if (stop_.load()) return fail(Errc::timeout, "the daemon is stopping");
  }
  if (rate > 0) {
    background_bytes_ += written;
    background_s_ += seconds(clock_.now() - start);
  }
  while (writing > 0) {
    disk_done_.clear();
    if (disk_->poll(disk_done_) == 0) signal_.wait(std::chrono::milliseconds(100));
    writing -= disk_done_.size();
  }
  return {};
}

/// In turns, so that both meet the same moods of the drive.
Result<> Bench::demand() {
  if (options_.demand_reads == 0) return {};
  const double rate = kWriteShare * median(write_) * 1e9;
  const std::uint32_t count = std::max(options_.demand_reads / kTurns / 2, 1U);
  std::vector<double> warm;
  SC_TRY(demand_reads(count, 0, warm));
  for (std::uint32_t turn = 0; turn < kTurns; ++turn) {
    SC_TRY(demand_reads(count, 0, alone_us_));
    SC_TRY(demand_reads(count, rate, busy_us_));
  }
  return {};
}

std::string Bench::report() {
  std::string out = "{";
  const auto number = [&out](const char* key, double value) {
    out += fmt::format("{}\"{}\":{:.4f}", out.size() > 1 ? "," : "", key, value);
  };
  number("read_gb_per_s", median(read_));
  number("raw_read_gb_per_s", median(raw_read_));
  number("read_ratio", median(read_ratio_));
  number("write_gb_per_s", median(write_));
  number("raw_write_gb_per_s", median(raw_write_));
  number("write_ratio", median(write_ratio_));
  number("cpu_s_per_gib", median(cpu_));
  number("raw_cpu_s_per_gib", median(raw_cpu_));
  number("hash_cpu_s_per_gib", median(hash_cpu_));
  number("cpu_ratio", median(cpu_ratio_));
  number("write_cpu_s_per_gib", median(write_cpu_));
  number("raw_write_cpu_s_per_gib", median(raw_write_cpu_));
  number("write_cpu_ratio", median(write_cpu_ratio_));
  if (!alone_us_.empty()) {
    const double alone = quantile(alone_us_, 0.99);
    const double busy = quantile(busy_us_, 0.99);
    out += fmt::format(
        ",\"demand_read_us\":{{\"p50\":{:.1f},\"p99\":{:.1f}}},\"demand_read_beside_writes_us\":"
        "{{\"p50\":{:.1f},\"p99\":{:.1f}}}",
        quantile(alone_us_, 0.5),
        alone,
        quantile(busy_us_, 0.5),
        busy);
    number("demand_p99_ratio", alone > 0 ? busy / alone : 0);
    number("background_write_gb_per_s",
           static_cast<double>(background_bytes_) / background_s_ * 1e-9);
  }
  const DiskStats stats = disk_->stats();
  out += fmt::format(
      ",\"read_limit_bytes\":{},\"write_limit_bytes\":{}", stats.read_limit, stats.write_limit);
  out += fmt::format(
      ",\"size\":{},\"read_depth\":{},\"write_depth\":{},\"pairs\":{},\"file_bytes\":{},"
      "\"engine\":\"{}\",\"direct\":{},\"huge_page_share\":{:.2f}}}",
      options_.block,
      read_depth_,
      write_depth_,
      options_.pairs,
      offsets_.size() * options_.block,
      disk_->engine(),
      direct_,
      arena_->huge_share());
  return out;
}

Result<std::string> Bench::run() {
  SC_TRY(prepare());
  // Fills the file: from here on both sides meet extents that are written.
  SC_TRY(bare(DiskKind::write));
  // And warms up: the engine looks for the right number of bytes in flight.
  for (const DiskKind kind : {DiskKind::read, DiskKind::write})
    SC_TRY(ours(kind));
  for (std::uint32_t i = 0; i < options_.pairs; ++i)
    SC_TRY(pair(i % 2 == 0));
  SC_TRY(demand());
  return report();
}

}  // namespace

Result<> NvmeBenchRunner::start(NvmeBenchOptions options, Done done) {
  if (running_.exchange(true)) return fail(Errc::busy, "a bench is running already");
  if (thread_.joinable()) thread_.join();
  thread_ = start_quiet_thread([this, options = std::move(options), done = std::move(done)] {
    Result<std::string> report = nvme_bench(options, stop_);
    running_.store(false);
    done(std::move(report));
  });
  return {};
}

NvmeBenchRunner::~NvmeBenchRunner() {
  stop();
}

void NvmeBenchRunner::stop() {
  stop_.store(true);
  if (thread_.joinable()) thread_.join();
}

Result<std::string> nvme_bench(const NvmeBenchOptions& options, const std::atomic<bool>& stop) {
  const std::string folder = options.drive + "/bench";
  if (std::error_code error; std::filesystem::exists(folder, error) &&
                             !std::filesystem::exists(folder + "/statecached.identity", error) &&
                             !std::filesystem::is_empty(folder, error)) {
    return fail(Errc::busy, fmt::format("{} holds something else than a bench's file", folder));
  }
  const Scratch scratch(folder);
  Bench bench(options, stop);
  return bench.run();
}

}  // namespace statecached
