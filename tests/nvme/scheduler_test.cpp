#include "tiers/nvme/scheduler.hpp"

#include "tests/nvme/support.hpp"

#include <cerrno>

namespace statecached {
namespace {

using test::make_op;

constexpr std::uint64_t kFar =
    64 * kMiB;  // keeps ops apart on the drive, so that they do not merge

class SchedulerTest : public ::testing::Test {
 protected:
  void add(std::uint64_t tag,
           DiskKind kind,
           DiskClass klass,
           std::uint64_t bytes,
           Instant deadline = {}) {
    DiskOp op = make_op(tag, kind, {{tag * kFar, {0, tag * kFar}, bytes}}, klass);
    op.deadline = deadline;
    scheduler_.add(std::move(op), finished_);
  }

  /// The tag whose bytes start next, by its place on the drive.
  std::uint64_t next_tag() {
    auto transfer = scheduler_.next(now_);
    if (!transfer) return 0;
    last_ = *transfer;
    flights_.push_back(*transfer);
    return transfer->disk_offset / kFar;
  }

  void finish(const Transfer& transfer) {
    scheduler_.finish(transfer, transfer.bytes, 0, now_, finished_);
  }

  std::vector<std::uint64_t> order_one_at_a_time() {
    std::vector<std::uint64_t> tags;
    while (auto transfer = scheduler_.next(now_)) {
      tags.push_back(transfer->disk_offset / kFar);
      finish(*transfer);
    }
    return tags;
  }

  static SchedulerLimits limits() {
    SchedulerLimits out;
    out.read_bytes = 2 * kMiB;
    out.write_bytes = 2 * kMiB;
    out.calibrate = false;
    return out;
  }

  SchedulerLimits limits_ = limits();
  Scheduler scheduler_{limits_};
  std::vector<Finished> finished_;
  std::vector<Transfer> flights_;
  Transfer last_;
  Instant now_{Nanos{1000}};
};

TEST_F(SchedulerTest, CancelEndsReadsThatHaveNotBegunAndNothingElse) {
  add(1, DiskKind::read, DiskClass::demand, 2 * kMiB);
  add(2, DiskKind::read, DiskClass::demand, kMiB);
  add(3, DiskKind::read, DiskClass::prefetch, kMiB);
  add(4, DiskKind::write, DiskClass::write_behind, kPage);
  EXPECT_EQ(next_tag(), 1U);
  const std::vector<std::uint64_t> tags{1, 2, 4, 77};
  scheduler_.cancel(tags, now_, finished_);
  ASSERT_EQ(finished_.size(), 1U);
  EXPECT_EQ(finished_[0].done.tag, 2U);
  EXPECT_EQ(finished_[0].done.os_error, ECANCELED);
  EXPECT_EQ(scheduler_.pending(DiskClass::demand), 2 * kMiB);
  finish(last_);
  // The rest of 1; prefetch goes in smaller transfers.
  EXPECT_EQ(order_one_at_a_time(), (std::vector<std::uint64_t>{1, 3, 3, 4}));
  EXPECT_EQ(scheduler_.ops(), 0U);
  EXPECT_FALSE(scheduler_.waiting());
  for (const Finished& op : finished_)
    EXPECT_EQ(op.done.os_error, op.done.tag == 2 ? ECANCELED : 0) << op.done.tag;
}

TEST_F(SchedulerTest, ServesClassesInStrictOrderAndDeadlinesInsidePrefetch) {
  add(1, DiskKind::write, DiskClass::write_behind, kPage);
  add(2, DiskKind::read, DiskClass::prefetch, kPage);
  add(3, DiskKind::read, DiskClass::prefetch, kPage, Instant{Nanos{900}});
  add(4, DiskKind::read, DiskClass::prefetch, kPage, Instant{Nanos{500}});
  add(5, DiskKind::read, DiskClass::demand, kPage, Instant{Nanos{900}});
  add(6, DiskKind::read, DiskClass::demand, kPage, Instant{Nanos{500}});
  EXPECT_EQ(order_one_at_a_time(), (std::vector<std::uint64_t>{5, 6, 4, 3, 2, 1}));
  EXPECT_EQ(finished_.size(), 6U);
  EXPECT_EQ(scheduler_.ops(), 0U);
}

TEST_F(SchedulerTest, MergesWhatFollowsOnTheDriveAndScattersInMemory) {
  // Given out of order; memory is contiguous for the first two on the drive only.
  DiskOp op = make_op(7,
                      DiskKind::read,
                      {{2 * kPage, {0, 40 * kPage}, kPage},
                       {0, {0, 8 * kPage}, kPage},
                       {kPage, {0, 9 * kPage}, kPage}});
  scheduler_.add(std::move(op), finished_);
  scheduler_.add(
      make_op(8, DiskKind::read, {{3 * kPage, {1, 0}, kPage}, {9 * kPage, {1, kPage}, kPage}}),
      finished_);
  auto first = scheduler_.next(now_);
  ASSERT_TRUE(first);
  EXPECT_EQ(first->disk_offset, 0U);
  EXPECT_EQ(first->bytes, 4 * kPage);
  ASSERT_EQ(first->runs.size(), 3U);
  EXPECT_EQ(first->runs[0].bytes, 2 * kPage);
  EXPECT_EQ(first->parts.size(), 2U);
  auto second = scheduler_.next(now_);
  ASSERT_TRUE(second);
  EXPECT_EQ(second->disk_offset, 9 * kPage);
  finish(*first);
  ASSERT_EQ(finished_.size(), 1U);
  EXPECT_EQ(finished_[0].done.tag, 7U);
  finish(*second);
  ASSERT_EQ(finished_.size(), 2U);
  EXPECT_EQ(finished_[1].bytes, 2 * kPage);
}

TEST_F(SchedulerTest, SplitsAtTheLongestTransferAndHoldsTheByteLimit) {
  add(1, DiskKind::read, DiskClass::demand, 3 * kMiB + kPage);
  EXPECT_EQ(next_tag(), 1U);
  EXPECT_EQ(last_.bytes, kMiB);
  EXPECT_EQ(next_tag(), 1U);
  EXPECT_FALSE(scheduler_.next(now_)) << "2 MiB of reads are in flight";
  finish(flights_[0]);
  EXPECT_TRUE(finished_.empty());
  auto third = scheduler_.next(now_);
  ASSERT_TRUE(third);
  EXPECT_EQ(third->bytes, kMiB);
  finish(flights_[1]);
  auto last = scheduler_.next(now_);
  ASSERT_TRUE(last);
  EXPECT_EQ(last->bytes, kPage);
  finish(*third);
  now_ += Nanos{5};
  finish(*last);
  ASSERT_EQ(finished_.size(), 1U);
  EXPECT_EQ(finished_[0].done.service, Nanos{5});
}

TEST_F(SchedulerTest, BoundsTheVectorsOfOneTransfer) {
  std::vector<DiskPiece> pieces;
  for (std::uint64_t i = 0; i < 300; ++i)
    pieces.push_back({i * kPage, {0, 2 * i * kPage}, kPage});
  Scheduler scheduler(SchedulerLimits{});
  scheduler.add(make_op(1, DiskKind::read, std::move(pieces)), finished_);
  auto first = scheduler.next(now_);
  auto second = scheduler.next(now_);
  ASSERT_TRUE(first && second);
  EXPECT_EQ(first->runs.size(), 256U);
  EXPECT_EQ(second->runs.size(), 44U);
  EXPECT_FALSE(scheduler.next(now_));
}

TEST_F(SchedulerTest, WriteBehindHasOneShortTransferWhileDemandReadsCome) {
  add(10, DiskKind::write, DiskClass::write_behind, 512 * kKiB);
  for (std::uint64_t tag = 11; tag < 15; ++tag) {
    add(tag, DiskKind::write, DiskClass::write_behind, 256 * kKiB);
  }
  add(1, DiskKind::read, DiskClass::demand, kPage);
  EXPECT_EQ(next_tag(), 1U);
  EXPECT_EQ(next_tag(), 10U);
  EXPECT_EQ(last_.bytes, 256 * kKiB);
  EXPECT_FALSE(scheduler_.next(now_));
  finish(flights_[0]);
  EXPECT_FALSE(scheduler_.next(now_)) << "the next demand read is expected soon";
  finish(flights_[1]);
  EXPECT_EQ(next_tag(), 10U);
  EXPECT_FALSE(scheduler_.next(now_));
  now_ += std::chrono::milliseconds(10);
  EXPECT_EQ(next_tag(), 11U) << "the drive is its own again";
  EXPECT_EQ(next_tag(), 12U);
  EXPECT_EQ(next_tag(), 13U);
}

TEST_F(SchedulerTest, PrefetchHasHalfOfTheLimit) {
  add(1, DiskKind::read, DiskClass::prefetch, 4 * kMiB);
  EXPECT_EQ(next_tag(), 1U);
  EXPECT_EQ(last_.bytes, 512 * kKiB);
  EXPECT_EQ(next_tag(), 1U);
  EXPECT_FALSE(scheduler_.next(now_));
  EXPECT_TRUE(scheduler_.has_room(DiskKind::sync));
  EXPECT_TRUE(scheduler_.has_room(DiskKind::read));
  add(2, DiskKind::read, DiskClass::demand, 4 * kMiB);
  EXPECT_EQ(next_tag(), 2U);
  EXPECT_EQ(last_.bytes, kMiB);
  EXPECT_FALSE(scheduler_.has_room(DiskKind::read));
  EXPECT_TRUE(scheduler_.has_room(DiskKind::write));
  EXPECT_EQ(scheduler_.pending(DiskClass::prefetch), 4 * kMiB);
  EXPECT_EQ(scheduler_.pending(DiskClass::demand), 4 * kMiB);
}

TEST_F(SchedulerTest, LowerClassesLeavePlacesForDemand) {
  for (std::uint64_t tag = 100; tag < 200; ++tag)
    add(tag, DiskKind::read, DiskClass::prefetch, kPage);
  std::size_t started = 0;
  while (scheduler_.next(now_))
    ++started;
  EXPECT_EQ(started, limits_.transfers - limits_.transfers / 4);
  add(1, DiskKind::read, DiskClass::demand, kPage);
  EXPECT_EQ(next_tag(), 1U);
}

TEST_F(SchedulerTest, ASyncDoesNotWaitAndThoseThatComeWhileOneRunsShareTheNext) {
  add(1, DiskKind::write, DiskClass::write_behind, kPage);
  EXPECT_EQ(next_tag(), 1U);
  scheduler_.add(make_op(20, DiskKind::sync, {}), finished_);
  auto first = scheduler_.next(now_);
  ASSERT_TRUE(first);
  EXPECT_EQ(first->kind, DiskKind::sync);
  scheduler_.add(make_op(21, DiskKind::sync, {}), finished_);
  scheduler_.add(make_op(22, DiskKind::sync, {}), finished_);
  EXPECT_FALSE(scheduler_.next(now_)) << "one that began earlier cannot cover them";
  finish(*first);
  ASSERT_EQ(finished_.size(), 1U);
  EXPECT_EQ(finished_[0].done.tag, 20U);
  auto second = scheduler_.next(now_);
  ASSERT_TRUE(second);
  scheduler_.finish(*second, 0, EIO, now_, finished_);
  ASSERT_EQ(finished_.size(), 3U);
  EXPECT_EQ(finished_[1].done.os_error, EIO);
  EXPECT_EQ(finished_[2].done.os_error, EIO);
}

TEST_F(SchedulerTest, AFailureHarmsOnlyTheOpsItReachesAndDropsTheirRest) {
  scheduler_.add(make_op(1, DiskKind::read, {{0, {0, 0}, kPage}}), finished_);
  scheduler_.add(
      make_op(2, DiskKind::read, {{kPage, {0, kPage}, kPage}, {kFar, {0, kFar}, 8 * kMiB}}),
      finished_);
  add(3, DiskKind::read, DiskClass::demand, kPage);
  auto transfer = scheduler_.next(now_);
  ASSERT_TRUE(transfer);
  EXPECT_EQ(transfer->bytes, 2 * kPage);
  scheduler_.finish(*transfer, kPage, EIO, now_, finished_);
  ASSERT_EQ(finished_.size(), 2U);
  EXPECT_EQ(finished_[0].done.os_error, 0);
  EXPECT_EQ(finished_[1].done.os_error, EIO);
  EXPECT_EQ(finished_[1].bytes, 0U);
  EXPECT_EQ(order_one_at_a_time(), std::vector<std::uint64_t>{3})
      << "nothing of op 2 is started any more";
  EXPECT_EQ(scheduler_.ops(), 0U);
}

TEST_F(SchedulerTest, AnOpWithoutPiecesIsOverAtOnce) {
  scheduler_.add(make_op(1, DiskKind::write, {}), finished_);
  ASSERT_EQ(finished_.size(), 1U);
  EXPECT_EQ(finished_[0].done.os_error, 0);
  EXPECT_FALSE(scheduler_.waiting());
}

}  // namespace
}  // namespace statecached
