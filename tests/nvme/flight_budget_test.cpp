// The search for the right number of bytes in flight, on simulated drives and a virtual clock.

#include "tests/nvme/support.hpp"
#include "tiers/nvme/sim_disk.hpp"

#include <gtest/gtest.h>

#include <algorithm>

namespace statecached {
namespace {

using test::make_op;

/// The limit at the end, and the usual one of the second half: the median over its looks. Trials of
/// twice and half of it come and go.
struct Limits {
  std::uint64_t last = 0;
  std::uint64_t usual = 0;
};

/// Reads 1 MiB blocks from a deep queue for `bytes`.
Limits read_until(SimDisk& disk, ManualClock& clock, std::uint64_t bytes) {
  std::vector<std::uint64_t> seen;
  std::vector<DiskDone> done;
  std::uint64_t submitted = 0;
  std::uint64_t finished = 0;
  while (finished < bytes) {
    while (submitted < finished + 64 * kMiB) {
      // Every other block, so that nothing merges.
      DiskOp op = make_op(1, DiskKind::read, {{submitted * 2 % (512 * kMiB), {0, 0}, kMiB}});
      if (!disk.submit(op)) break;
      submitted += kMiB;
    }
    clock.set(std::max(clock.now(), disk.next_completion()));
    done.clear();
    finished += disk.poll(done) * kMiB;
    if (finished > bytes / 2) seen.push_back(disk.stats().read_limit);
  }
  const auto middle = seen.begin() + static_cast<std::ptrdiff_t>(seen.size() / 2);
  std::nth_element(seen.begin(), middle, seen.end());
  return {disk.stats().read_limit, *middle};
}

SimDiskOptions drive(double rate, Nanos latency, std::uint64_t start) {
  SimDiskOptions options;
  options.read_bytes_per_second = rate;
  options.latency = latency;
  options.limits.read_bytes = start;
  return options;
}

TEST(FlightBudget, GrowsToTheKneeOfAFastDriveAndNotBeyond) {
  ManualClock clock;
  clock.advance(Nanos{1});
  // 8 GB/s with 500 us on top: one transfer of 4 MiB at a time wastes half, the knee is near 8 MiB.
  SimDisk disk(kGiB, clock, drive(8e9, std::chrono::microseconds(500), kMiB));
  const Limits limit = read_until(disk, clock, 8 * kGiB);
  EXPECT_GE(limit.last, 4 * kMiB);
  EXPECT_EQ(limit.usual, 8 * kMiB) << "twice as much is tried and does not stay";
  EXPECT_NEAR(disk.stats().read_rate, 8e9, 0.8e9);
}

TEST(FlightBudget, ShrinksWhereMoreBytesOnlyWaitLonger) {
  ManualClock clock;
  clock.advance(Nanos{1});
  SimDisk disk(kGiB, clock, drive(2e9, std::chrono::microseconds(20), 16 * kMiB));
  EXPECT_LE(read_until(disk, clock, 8 * kGiB).last, 4 * kMiB);
  EXPECT_NEAR(disk.stats().read_rate, 2e9, 0.1e9);
}

TEST(FlightBudget, NeverHoldsMoreThanASlowDriveMovesInFourMilliseconds) {
  ManualClock clock;
  clock.advance(Nanos{1});
  SimDisk disk(kGiB, clock, drive(3e8, std::chrono::milliseconds(5), 16 * kMiB));
  EXPECT_LE(read_until(disk, clock, 2 * kGiB).last, static_cast<std::uint64_t>(3e8 * 4e-3));
}

TEST(FlightBudget, StaysWhereItWasPutWithoutCalibration) {
  ManualClock clock;
  clock.advance(Nanos{1});
  SimDiskOptions options = drive(2e9, std::chrono::microseconds(500), kMiB);
  options.limits.calibrate = false;
  SimDisk disk(kGiB, clock, options);
  EXPECT_EQ(read_until(disk, clock, kGiB).last, kMiB);
  EXPECT_GT(disk.stats().read_rate, 0);
}

TEST(FlightBudget, MixedTrafficTeachesNothing) {
  FlightBudget budget(4 * kMiB, false);
  Instant now{Nanos{1}};
  for (int i = 0; i < 10'000; ++i) {
    now += std::chrono::milliseconds(1);
    budget.ended(kMiB, true, i % 8 != 0, now);
    budget.ended(kMiB, i % 8 != 4, true, now);
  }
  EXPECT_EQ(budget.limit(), 4 * kMiB);
  EXPECT_EQ(budget.rate(), 0);
}

}  // namespace
}  // namespace statecached
