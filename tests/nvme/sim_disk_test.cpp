#include "tiers/nvme/sim_disk.hpp"

#include "tests/nvme/support.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace statecached {
namespace {

using test::make_op;

constexpr std::uint64_t kCapacity = 16 * kMiB;
constexpr std::uint64_t kPages = 256;  // of each arena

class SimDiskTest : public ::testing::Test {
 protected:
  void build(const SimFaults& faults = {}, std::uint64_t seed = 1) {
    SimDiskOptions options;
    options.faults = faults;
    options.seed = seed;
    disk_ = std::make_unique<SimDisk>(kCapacity, clock_, options, &memories_);
  }

  std::vector<DiskDone> wait(std::size_t count) {
    return test::wait_for(*disk_, count, [this] {
      const Instant next = disk_->next_completion();
      if (next == Instant::max()) return false;
      clock_.set(std::max(next, clock_.now()));
      return true;
    });
  }

  int run(DiskKind kind, std::uint64_t page, std::uint64_t pages) {
    const std::uint32_t arena = kind == DiskKind::read ? 1 : 0;
    DiskOp op = make_op(1, kind, {});
    if (kind != DiskKind::sync) op.pieces = {{page * kPage, {arena, page * kPage}, pages * kPage}};
    EXPECT_TRUE(disk_->submit(op));
    return wait(1).at(0).os_error;
  }

  void fill(std::uint8_t value) { std::memset(from_.data(), value, from_.size()); }

  /// How many bytes of a page just read have this value.
  std::size_t count(std::uint64_t page, std::uint8_t value) {
    const std::byte* first = to_.data() + page * kPage;
    return static_cast<std::size_t>(std::count(first, first + kPage, std::byte{value}));
  }

  std::size_t whole_pages(std::uint8_t value) {
    std::size_t pages = 0;
    for (std::uint64_t page = 0; page < kPages; ++page)
      pages += count(page, value) == kPage ? 1U : 0U;
    return pages;
  }

  Mapping from_ = test::make_arena(kPages * kPage);
  Mapping to_ = test::make_arena(kPages * kPage);
  Memories memories_{{from_.data(), kPages* kPage}, {to_.data(), kPages* kPage}};
  ManualClock clock_;
  std::unique_ptr<SimDisk> disk_;
};

TEST_F(SimDiskTest, TakesLatencyPlusBytesOverRate) {
  SimDiskOptions options;
  options.read_bytes_per_second = 1e9;
  options.latency = Nanos{1000};
  SimDisk disk(kCapacity, clock_, options);
  DiskOp first = make_op(1, DiskKind::read, {{0, {0, 0}, 4096}});
  DiskOp second = make_op(2, DiskKind::read, {{kMiB, {0, 0}, 4096}});
  ASSERT_TRUE(disk.submit(first));
  ASSERT_TRUE(disk.submit(second));
  EXPECT_EQ(disk.next_completion(), Instant{Nanos{4096 + 1000}});
  clock_.set(Instant{Nanos{5095}});
  std::vector<DiskDone> done;
  EXPECT_EQ(disk.poll(done), 0U);
  clock_.set(Instant{Nanos{5096}});
  EXPECT_EQ(disk.poll(done), 1U);
  EXPECT_EQ(done.at(0).service, Nanos{5096});
  EXPECT_EQ(disk.next_completion(), Instant{Nanos{2 * 4096 + 1000}})
      << "one channel, latencies overlap";
  clock_.advance(Nanos{10000});
  EXPECT_EQ(disk.poll(done), 1U);
  EXPECT_EQ(disk.next_completion(), Instant::max());
}

TEST_F(SimDiskTest, ALateLookFindsTheSameTimes) {
  // Eight transfers of 1 MiB: the later ones start when the earlier end, not when somebody looks.
  SimDiskOptions options;
  options.read_bytes_per_second = static_cast<double>(kMiB) * 1000;  // 1 ms each
  options.latency = Nanos{};
  SimDisk disk(kCapacity, clock_, options);
  DiskOp op = make_op(1, DiskKind::read, {{0, {0, 0}, 8 * kMiB}});
  ASSERT_TRUE(disk.submit(op));
  clock_.advance(std::chrono::seconds(1));
  std::vector<DiskDone> done;
  ASSERT_EQ(disk.poll(done), 1U);
  EXPECT_EQ(done[0].service, Nanos{8'000'000});
}

TEST_F(SimDiskTest, ADemandReadOvertakesQueuedPrefetch) {
  SimDiskOptions options;
  SimDisk disk(kCapacity, clock_, options);
  for (std::uint64_t tag = 0; tag < 8; ++tag) {
    DiskOp op = make_op(tag, DiskKind::read, {{tag * 2 * kMiB, {0, 0}, kMiB}}, DiskClass::prefetch);
    ASSERT_TRUE(disk.submit(op));
  }
  DiskOp demand = make_op(100, DiskKind::read, {{kMiB, {0, 0}, kPage}});
  ASSERT_TRUE(disk.submit(demand));
  std::vector<DiskDone> done;
  while (done.size() < 9) {
    ASSERT_NE(disk.next_completion(), Instant::max());
    clock_.set(disk.next_completion());
    disk.poll(done);
  }
  EXPECT_EQ(done.at(2).tag, 100U) << "after the two that were with the drive";
}

TEST_F(SimDiskTest, MillionsOfOpsOnAHugeDriveCostNoMemoryInProportion) {
  SimDiskOptions options;
  options.queue_ops = 64;
  SimDisk disk(std::uint64_t{1} << 50U, clock_, options);
  std::vector<DiskDone> done;
  std::uint64_t completed = 0;
  constexpr std::uint64_t kOps = 1'000'000;
  for (std::uint64_t tag = 0; tag < kOps; ++tag) {
    const bool write = tag % 4 == 0;
    DiskOp op = make_op(tag,
                        write ? DiskKind::write : DiskKind::read,
                        {{mix64(tag) % (std::uint64_t{1} << 30U) * kPage, {0, 0}, 64 * kKiB}},
                        write ? DiskClass::write_behind : DiskClass::demand);
    while (!disk.submit(op)) {
      clock_.set(disk.next_completion());
      completed += disk.poll(done);
      done.clear();
    }
  }
  while (completed < kOps) {
    ASSERT_NE(disk.next_completion(), Instant::max());
    clock_.set(disk.next_completion());
    completed += disk.poll(done);
    done.clear();
  }
  EXPECT_EQ(disk.stats().bytes_read + disk.stats().bytes_written, kOps * 64 * kKiB);
  const double expected = static_cast<double>(kOps * 64 * kKiB) / options.read_bytes_per_second;
  const double took = seconds(clock_.now().time_since_epoch());
  EXPECT_GE(took, expected);
  EXPECT_LE(took, expected * 1.05) << "only throttled write-behind lets the channel idle";
}

TEST_F(SimDiskTest, FailsReadsAndWritesWithEio) {
  build({.eio_read = 1});
  EXPECT_EQ(run(DiskKind::write, 0, 4), 0);
  EXPECT_EQ(run(DiskKind::read, 0, 4), EIO);
  disk_->set_faults({.eio_write = 1});
  EXPECT_EQ(run(DiskKind::read, 0, 4), 0);
  EXPECT_EQ(run(DiskKind::write, 0, 4), EIO);
  EXPECT_EQ(disk_->stats().errors, 2U);
}

TEST_F(SimDiskTest, FlipsOneBitForGood) {
  build();
  fill(0);
  EXPECT_EQ(run(DiskKind::write, 0, 4), 0);
  disk_->set_faults({.bit_rot = 1});
  for (const SimFaults& faults : {SimFaults{.bit_rot = 1}, SimFaults{}}) {
    disk_->set_faults(faults);
    EXPECT_EQ(run(DiskKind::read, 0, 4), 0);
    std::size_t changed = 0;
    for (std::uint64_t page = 0; page < 4; ++page)
      changed += kPage - count(page, 0);
    EXPECT_EQ(changed, 1U);
  }
}

TEST_F(SimDiskTest, MisdirectedWritesLeaveTheOldBytes) {
  build();
  fill(1);
  EXPECT_EQ(run(DiskKind::write, 0, 1), 0);
  disk_->set_faults({.misdirected = 1});
  fill(2);
  EXPECT_EQ(run(DiskKind::write, 0, 1), 0) << "it reports success";
  disk_->set_faults({});
  EXPECT_EQ(run(DiskKind::read, 0, 1), 0);
  EXPECT_EQ(count(0, 1), kPage);
}

TEST_F(SimDiskTest, LateTransfersTakeLonger) {
  build();
  EXPECT_EQ(run(DiskKind::read, 0, 1), 0);
  const Nanos usual = clock_.now().time_since_epoch();
  disk_->set_faults({.late = 1, .late_by = Nanos{77'000'000}});
  EXPECT_EQ(run(DiskKind::read, 0, 1), 0);
  EXPECT_EQ(clock_.now().time_since_epoch(), 2 * usual + Nanos{77'000'000});
}

TEST_F(SimDiskTest, ACrashKeepsWhatASyncCoveredAndLosesTheRest) {
  build({.lost_before_sync = 1});
  fill(1);
  EXPECT_EQ(run(DiskKind::write, 0, kPages), 0);
  EXPECT_EQ(run(DiskKind::sync, 0, 0), 0);
  fill(2);
  EXPECT_EQ(run(DiskKind::write, 0, kPages / 2), 0);
  DiskOp queued = make_op(9, DiskKind::write, {{kMiB, {0, 0}, kPage}});
  ASSERT_TRUE(disk_->submit(queued));
  disk_->crash();
  EXPECT_EQ(disk_->next_completion(), Instant::max()) << "what was under way never completes";
  EXPECT_EQ(disk_->stats().queued, 0U);
  EXPECT_EQ(run(DiskKind::read, 0, kPages), 0);
  EXPECT_EQ(whole_pages(1), kPages);
}

TEST_F(SimDiskTest, ACrashTearsPagesBySeed) {
  std::vector<std::byte> images[3];
  for (std::size_t i = 0; i < 3; ++i) {
    build({.lost_before_sync = 0.25, .torn = 0.5}, i == 2 ? 5 : 4);
    fill(1);
    EXPECT_EQ(run(DiskKind::write, 0, kPages), 0);
    EXPECT_EQ(run(DiskKind::sync, 0, 0), 0);
    fill(2);
    EXPECT_EQ(run(DiskKind::write, 0, kPages), 0);
    disk_->crash();
    EXPECT_EQ(run(DiskKind::read, 0, kPages), 0);
    const std::size_t old_pages = whole_pages(1);
    const std::size_t new_pages = whole_pages(2);
    EXPECT_GT(old_pages, kPages / 8);
    EXPECT_GT(new_pages, kPages / 8);
    EXPECT_GT(kPages - old_pages - new_pages, kPages / 8) << "some have sectors of both";
    for (std::uint64_t page = 0; page < kPages; ++page)
      EXPECT_EQ(count(page, 1) % 512, 0U);
    images[i].assign(to_.data(), to_.data() + to_.size());
  }
  EXPECT_EQ(images[0], images[1]) << "the same seed";
  EXPECT_NE(images[0], images[2]) << "another seed";
}

}  // namespace
}  // namespace statecached
