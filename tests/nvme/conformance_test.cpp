// One contract (tiers/disk.hpp), every engine and every forced fallback.

#include "base/prng.hpp"
#include "tests/nvme/support.hpp"
#include "tiers/nvme/make_disk.hpp"
#include "tiers/nvme/sim_disk.hpp"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <numeric>

namespace statecached {
namespace {

using test::make_op;

constexpr std::uint64_t kCapacity = 32 * kMiB;
constexpr std::uint64_t kPages = kCapacity / kPage;
constexpr std::size_t kQueueOps = 64;

struct Variant {
  const char* name;
  bool simulated;
  DiskEngine engine;
  DirectIo direct;
  bool register_buffers;
  bool defer_taskrun;
};

class DiskConformance : public ::testing::TestWithParam<Variant> {
 protected:
  void SetUp() override { open(); }

  void open() {
    const Variant& variant = GetParam();
    if (variant.simulated) {
      SimDiskOptions options;
      options.queue_ops = kQueueOps;
      auto sim = std::make_unique<SimDisk>(kCapacity, clock_, options, &memories_);
      sim_ = sim.get();
      disk_ = std::move(sim);
      return;
    }
    auto path = open_path(drive_, kCapacity, {.direct = variant.direct});
    ASSERT_TRUE(path) << path.error().message();
    DiskOptions options;
    options.engine = variant.engine;
    options.register_buffers = variant.register_buffers;
    options.defer_taskrun = variant.defer_taskrun;
    options.queue_ops = kQueueOps;
    auto disk = make_disk(std::move(*path), memories_, options, [this] { bell_.ring(); });
    ASSERT_TRUE(disk) << disk.error().message();
    disk_ = std::move(*disk);
  }

  std::vector<DiskDone> wait(std::size_t count) {
    return test::wait_for(*disk_, count, [this] {
      if (sim_ == nullptr) return bell_.wait();
      const Instant next = sim_->next_completion();
      if (next == Instant::max()) return false;
      clock_.set(std::max(next, clock_.now()));
      return true;
    });
  }

  void run(std::vector<DiskOp> ops, int os_error = 0) {
    const std::size_t count = ops.size();
    for (DiskOp& op : ops)
      ASSERT_TRUE(disk_->submit(op));
    for (const DiskDone& done : wait(count))
      EXPECT_EQ(done.os_error, os_error) << "tag " << done.tag;
  }

  void sync() { run({make_op(999, DiskKind::sync, {})}); }

  void fill(std::uint32_t arena, std::uint64_t page, std::uint64_t value) {
    auto* words = word_at(arena, page);
    for (std::uint64_t i = 0; i < kPage / 8; ++i)
      words[i] = mix64(value * 512 + i);
  }

  [[nodiscard]] bool holds(std::uint32_t arena, std::uint64_t page, std::uint64_t value) {
    const auto* words = word_at(arena, page);
    for (std::uint64_t i = 0; i < kPage / 8; ++i) {
      if (words[i] != (value == 0 ? 0 : mix64(value * 512 + i))) return false;
    }
    return true;
  }

  std::uint64_t* word_at(std::uint32_t arena, std::uint64_t page) {
    return static_cast<std::uint64_t*>(static_cast<void*>(memories_[arena].base + page * kPage));
  }

  test::TemporaryDirectory directory_;
  std::string drive_ = directory_ / "drive";
  Mapping written_ = test::make_arena(kCapacity);
  Mapping read_ = test::make_arena(kCapacity);
  // The null one stands for a memory without bytes, which registration must step over.
  Memories memories_{{written_.data(), kCapacity}, {nullptr, kCapacity}, {read_.data(), kCapacity}};
  static constexpr std::uint32_t kFrom = 0;
  static constexpr std::uint32_t kTo = 2;
  ManualClock clock_;
  test::Bell bell_;
  SimDisk* sim_ = nullptr;
  std::unique_ptr<Disk> disk_;
};

/// Cuts a permutation of pages into ops of pieces of one to forty pages.
std::vector<DiskOp> random_ops(Prng& random,
                               DiskKind kind,
                               std::uint32_t arena,
                               const std::vector<std::uint64_t>& starts) {
  std::vector<DiskOp> ops;
  std::vector<std::uint64_t> order(starts.size() - 1);
  std::iota(order.begin(), order.end(), 0);
  for (std::size_t i = order.size(); i > 1; --i)
    std::swap(order[i - 1], order[random.below(i)]);
  for (const std::uint64_t piece : order) {
    if (ops.empty() || random.chance(0.3)) {
      ops.push_back(make_op(ops.size(), kind, {}, static_cast<DiskClass>(random.below(3))));
    }
    const std::uint64_t at = starts[piece] * kPage;
    // Memory runs backwards by halves, so that drive neighbours are and are not memory neighbours.
    const std::uint64_t memory =
        at < kCapacity / 2 ? at : kCapacity / 2 + kCapacity - starts[piece + 1] * kPage;
    ops.back().pieces.push_back({at, {arena, memory}, starts[piece + 1] * kPage - at});
  }
  return ops;
}

std::vector<std::uint64_t> random_cuts(Prng& random) {
  std::vector<std::uint64_t> cuts{0};
  while (cuts.back() < kPages) {
    std::uint64_t next = std::min(kPages, cuts.back() + 1 + random.below(40));
    if (cuts.back() < kPages / 2) next = std::min(next, kPages / 2);  // pieces stay on their side
    cuts.push_back(next);
  }
  return cuts;
}

TEST_P(DiskConformance, ReadsBackWhatWasWrittenInRandomPieces) {
  Prng random(42);
  const auto run_all = [&](std::vector<DiskOp> ops) {
    std::vector<DiskDone> done;
    for (DiskOp& op : ops) {
      while (!disk_->submit(op)) {
        for (const DiskDone& one : wait(1))
          done.push_back(one);
      }
    }
    for (const DiskDone& one : wait(ops.size() - done.size()))
      done.push_back(one);
    const auto errors = test::errors_by_tag(done);
    EXPECT_EQ(errors.size(), ops.size());
    for (const auto& [tag, error] : errors)
      EXPECT_EQ(error, 0) << tag;
  };
  for (std::uint64_t round = 0; round < 3; ++round) {
    for (std::uint64_t page = 0; page < kPages; ++page)
      fill(kFrom, page, round * kPages + page + 1);
    std::memset(read_.data(), 0xee, read_.size());
    const auto cuts = random_cuts(random);
    run_all(random_ops(random, DiskKind::write, kFrom, cuts));
    sync();
    // The same cuts give the same places in memory; order, merging and grouping differ.
    run_all(random_ops(random, DiskKind::read, kTo, cuts));
    for (std::uint64_t page = 0; page < kPages; ++page) {
      ASSERT_TRUE(holds(kTo, page, round * kPages + page + 1))
          << "round " << round << " page " << page;
    }
  }
  EXPECT_EQ(disk_->stats().bytes_written, 3 * kCapacity);
  EXPECT_EQ(disk_->stats().bytes_read, 3 * kCapacity);
  EXPECT_EQ(disk_->stats().queued, 0U);
}

TEST_P(DiskConformance, MovesOneLongRunAndManyScatteredPages) {
  constexpr std::uint64_t kRun =
      900;  // pages: over three transfers, over three vectors' worth of pages
  for (std::uint64_t page = 0; page < kRun; ++page)
    fill(kFrom, page, page + 1);
  run({make_op(1, DiskKind::write, {{kMiB, {kFrom, 0}, kRun * kPage}}, DiskClass::write_behind)});
  std::vector<DiskPiece> scattered;
  for (std::uint64_t page = 0; page < kRun; ++page) {
    scattered.push_back({kMiB + page * kPage, {kTo, 2 * page * kPage}, kPage});
  }
  run({make_op(2, DiskKind::read, std::move(scattered))});
  for (std::uint64_t page = 0; page < kRun; ++page) {
    ASSERT_TRUE(holds(kTo, 2 * page, page + 1)) << page;
    ASSERT_TRUE(holds(kTo, 2 * page + 1, 0)) << "only what was asked for is written, page " << page;
  }
}

TEST_P(DiskConformance, UnwrittenBytesReadAsZeros) {
  fill(kTo, 5, 77);
  run({make_op(1, DiskKind::read, {{kCapacity - kPage, {kTo, 5 * kPage}, kPage}})});
  EXPECT_TRUE(holds(kTo, 5, 0));
}

TEST_P(DiskConformance, AFullQueueLeavesTheOpUntouched) {
  // Nothing is polled, so the places stay taken however fast the drive is.
  for (std::uint64_t tag = 0; tag < kQueueOps; ++tag) {
    DiskOp op = make_op(tag, DiskKind::read, {{tag * kPage, {kTo, tag * kPage}, kPage}});
    ASSERT_TRUE(disk_->submit(op));
  }
  DiskOp extra = make_op(7777, DiskKind::read, {{kMiB, {kTo, kMiB}, kPage}}, DiskClass::prefetch);
  ASSERT_FALSE(disk_->submit(extra));
  EXPECT_EQ(extra.tag, 7777U);
  EXPECT_EQ(extra.pieces.size(), 1U);
  EXPECT_EQ(extra.klass, DiskClass::prefetch);
  EXPECT_EQ(test::errors_by_tag(wait(kQueueOps)).size(), kQueueOps);
  EXPECT_TRUE(disk_->submit(extra));
  EXPECT_EQ(wait(1).at(0).tag, 7777U);
}

TEST_P(DiskConformance, ManySyncsAmongWritesAllComplete) {
  std::vector<DiskOp> ops;
  for (std::uint64_t tag = 0; tag < 40; ++tag) {
    const bool is_sync = tag % 2 == 1;
    ops.push_back(is_sync ? make_op(tag, DiskKind::sync, {})
                          : make_op(tag,
                                    DiskKind::write,
                                    {{tag * kMiB / 2, {kFrom, 0}, 64 * kKiB}},
                                    DiskClass::write_behind));
  }
  run(std::move(ops));
  EXPECT_EQ(disk_->stats().syncs, 20U);
  EXPECT_EQ(disk_->stats().writes, 20U);
}

TEST_P(DiskConformance, AnOpWithoutPiecesCompletes) {
  run({make_op(1, DiskKind::read, {}), make_op(2, DiskKind::write, {})});
}

TEST_P(DiskConformance, ReportsServiceTime) {
  DiskOp op = make_op(1, DiskKind::read, {{0, {kTo, 0}, kMiB}});
  ASSERT_TRUE(disk_->submit(op));
  EXPECT_GT(wait(1).at(0).service, Nanos{});
}

TEST_P(DiskConformance, WhatLiesBehindTheEndOfTheFileIsAnIoError) {
  if (sim_ != nullptr) {
    SimFaults faults;
    faults.eio_read = 1;
    sim_->set_faults(faults);
  } else {
    // Somebody cuts the file: the transfer comes back short, is continued, and then has nothing
    // more.
    std::filesystem::resize_file(drive_ + "/statecached.data", kCapacity - 96 * kKiB);
  }
  run({make_op(1, DiskKind::read, {{kCapacity - 128 * kKiB, {kTo, 0}, 128 * kKiB}})}, EIO);
  EXPECT_EQ(disk_->stats().errors, 1U);
  EXPECT_EQ(disk_->stats().bytes_read, 0U);
  if (sim_ != nullptr) sim_->set_faults({});
  run({make_op(2, DiskKind::read, {{kCapacity - 256 * kKiB, {kTo, 0}, 128 * kKiB}})});
}

TEST_P(DiskConformance, DestructionCompletesWhatWasAccepted) {
  if (sim_ != nullptr) GTEST_SKIP() << "its bytes end with it";
  for (std::uint64_t page = 0; page < kPages; ++page)
    fill(kFrom, page, page + 1);
  for (std::uint64_t tag = 0; tag < kQueueOps; ++tag) {
    const std::uint64_t bytes = kCapacity / kQueueOps;
    DiskOp op = make_op(tag,
                        DiskKind::write,
                        {{tag * bytes, {kFrom, tag * bytes}, bytes}},
                        DiskClass::write_behind);
    ASSERT_TRUE(disk_->submit(op));
  }
  disk_.reset();
  const UniqueFd fd(::open((drive_ + "/statecached.data").c_str(), O_RDONLY | O_CLOEXEC));
  ASSERT_EQ(::pread(fd.get(), read_.data(), kCapacity, 0), static_cast<ssize_t>(kCapacity));
  EXPECT_EQ(std::memcmp(read_.data(), written_.data(), kCapacity), 0);
  open();  // and the directory is free again
}

constexpr DiskEngine kUring = DiskEngine::io_uring;
constexpr DiskEngine kThreads = DiskEngine::threads;
constexpr DirectIo kAuto = DirectIo::automatic;
const Variant kVariants[] = {
    {"io_uring", false, kUring, kAuto, true, true},
    {"io_uring_without_registration", false, kUring, kAuto, false, true},
    {"io_uring_without_defer", false, kUring, kAuto, true, false},
    {"io_uring_buffered", false, kUring, DirectIo::off, true, true},
    {"threads", false, kThreads, kAuto, true, true},
    {"threads_buffered", false, kThreads, DirectIo::off, true, true},
    {"simulated", true, DiskEngine::automatic, kAuto, true, true},
};

TEST_P(DiskConformance, WhatIsCancelledEndsOnceReadOrNot) {
  for (std::uint64_t page = 0; page < kPages; ++page)
    fill(kFrom, page, page + 1);
  run({make_op(1, DiskKind::write, {{0, {kFrom, 0}, kCapacity}}, DiskClass::write_behind)});
  constexpr std::uint64_t kBytes = kCapacity / 32;
  std::vector<std::uint64_t> tags;
  for (std::uint64_t i = 0; i < 32; ++i) {
    DiskOp op = make_op(100 + i, DiskKind::read, {{i * kBytes, {kTo, i * kBytes}, kBytes}});
    ASSERT_TRUE(disk_->submit(op));
    if (i % 2 == 1) tags.push_back(100 + i);
  }
  disk_->cancel(tags);
  std::vector<std::uint64_t> seen;
  for (const DiskDone& done : wait(32)) {
    seen.push_back(done.tag);
    const std::uint64_t first = (done.tag - 100) * kBytes / kPage;
    if (done.os_error == 0) {
      EXPECT_TRUE(holds(kTo, first, first + 1)) << done.tag;
    } else {
      EXPECT_EQ(done.os_error, ECANCELED);
      EXPECT_EQ(done.tag % 2, 1U) << "nobody cancelled it";
    }
  }
  std::sort(seen.begin(), seen.end());
  EXPECT_EQ(std::unique(seen.begin(), seen.end()), seen.end());
  EXPECT_EQ(disk_->stats().errors, 0U);
  EXPECT_EQ(disk_->stats().queued, 0U);
}

INSTANTIATE_TEST_SUITE_P(Engines,
                         DiskConformance,
                         ::testing::ValuesIn(kVariants),
                         [](const auto& variant) { return std::string(variant.param.name); });

}  // namespace
}  // namespace statecached
