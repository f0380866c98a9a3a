// When a drive is no longer used, and what its owner then sees.

#include "tiers/nvme/guarded_disk.hpp"

#include "tests/nvme/support.hpp"
#include "tests/nvme/switch_disk.hpp"
#include "tiers/nvme/sim_disk.hpp"

#include <gtest/gtest.h>

#include <cerrno>

namespace statecached {
namespace {

using test::make_op;

class GuardedDiskTest : public ::testing::Test {
 protected:
  GuardedDiskTest() { clock_.advance(std::chrono::seconds(100)); }

  void submit(std::uint64_t tag, DiskKind kind, DiskClass klass = DiskClass::demand) {
    std::vector<DiskPiece> pieces;
    if (kind != DiskKind::sync) pieces = {{tag * kMiB, {0, 0}, kPage}};
    DiskOp op = make_op(tag, kind, std::move(pieces), klass);
    ASSERT_TRUE(disk_.submit(op));
  }

  std::vector<DiskDone> after(Nanos time) {
    clock_.advance(time);
    std::vector<DiskDone> done;
    disk_.poll(done);
    return done;
  }

  int result(std::uint64_t tag, DiskKind kind) {
    submit(tag, kind);
    const auto done = after(std::chrono::milliseconds(10));
    EXPECT_EQ(done.size(), 1U);
    if (done.empty()) return -1;
    EXPECT_EQ(done[0].tag, tag);
    return done[0].os_error;
  }

  ManualClock clock_;
  SimDisk drive_{kGiB, clock_, SimDiskOptions{}};
  test::SwitchDisk switch_{drive_};
  GuardedDisk disk_{std::make_unique<test::BorrowedDisk>(switch_),
                    clock_,
                    std::chrono::seconds(30),
                    "/a/drive"};
};

TEST_F(GuardedDiskTest, PassesOnWhatWorksUnderItsOwnersTags) {
  EXPECT_EQ(result(7, DiskKind::write), 0);
  EXPECT_EQ(result(7, DiskKind::read), 0);
  EXPECT_EQ(result(3, DiskKind::sync), 0);
  EXPECT_EQ(disk_.health(), DiskHealth::good);
}

TEST_F(GuardedDiskTest, SomeBadReadsAreNotABadDrive) {
  for (int round = 0; round < 5; ++round) {
    switch_.read_error = EIO;
    for (std::uint64_t i = 1; i < 8; ++i)
      EXPECT_EQ(result(i, DiskKind::read), EIO);
    switch_.read_error = 0;
    EXPECT_EQ(result(8, DiskKind::read), 0);
  }
  EXPECT_EQ(disk_.health(), DiskHealth::good);
}

TEST_F(GuardedDiskTest, EightBadReadsInARowTakeItOut) {
  switch_.read_error = EIO;
  for (std::uint64_t i = 1; i <= 8; ++i)
    EXPECT_EQ(result(i, DiskKind::read), EIO);
  EXPECT_EQ(disk_.health(), DiskHealth::out);
  const std::size_t before = switch_.submitted;
  EXPECT_EQ(result(9, DiskKind::read), ENODEV);
  EXPECT_EQ(result(10, DiskKind::write), ENODEV);
  EXPECT_EQ(switch_.submitted, before) << "a drive that is out is left alone";
}

TEST_F(GuardedDiskTest, AVanishedDeviceIsOutAtOnce) {
  switch_.read_error = ENODEV;
  EXPECT_EQ(result(1, DiskKind::read), ENODEV);
  EXPECT_EQ(disk_.health(), DiskHealth::out);
}

TEST_F(GuardedDiskTest, AReadOnlyDriveIsStillRead) {
  switch_.write_error = EROFS;
  EXPECT_EQ(result(1, DiskKind::write), EROFS);
  EXPECT_EQ(disk_.health(), DiskHealth::read_only);
  const std::size_t before = switch_.submitted;
  EXPECT_EQ(result(2, DiskKind::write), EROFS);
  EXPECT_EQ(result(3, DiskKind::sync), EROFS);
  EXPECT_EQ(switch_.submitted, before);
  EXPECT_EQ(result(4, DiskKind::read), 0);
}

TEST_F(GuardedDiskTest, WritesThatFailForLongStopWriting) {
  switch_.write_error = ENOSPC;
  EXPECT_EQ(result(1, DiskKind::write), ENOSPC);
  EXPECT_EQ(result(2, DiskKind::write), ENOSPC);
  EXPECT_EQ(disk_.health(), DiskHealth::good);
  switch_.write_error = 0;
  EXPECT_EQ(result(3, DiskKind::write), 0);
  switch_.write_error = ENOSPC;
  for (std::uint64_t i = 0; i < 30; ++i) {
    EXPECT_EQ(disk_.health(), DiskHealth::good);
    EXPECT_EQ(result(i, DiskKind::write), ENOSPC);
    clock_.advance(std::chrono::seconds(1));
  }
  EXPECT_EQ(result(40, DiskKind::sync), ENOSPC);
  EXPECT_EQ(disk_.health(), DiskHealth::read_only);
}

TEST_F(GuardedDiskTest, ADriveThatHangsGivesWritesUpAndKeepsReads) {
  switch_.hangs = true;
  submit(1, DiskKind::read);
  submit(2, DiskKind::write);
  submit(3, DiskKind::sync);
  EXPECT_TRUE(after(std::chrono::seconds(29)).empty());
  EXPECT_EQ(disk_.health(), DiskHealth::good);
  const auto given_up = after(std::chrono::seconds(5));
  EXPECT_EQ(disk_.health(), DiskHealth::out);
  ASSERT_EQ(given_up.size(), 2U) << "the memory of a read may still be written to";
  for (const DiskDone& done : given_up) {
    EXPECT_NE(done.tag, 1U);
    EXPECT_EQ(done.os_error, ETIMEDOUT);
  }
  switch_.hangs = false;
  const auto late = after(std::chrono::seconds(1));
  ASSERT_EQ(late.size(), 1U) << "and the writes are not reported twice";
  EXPECT_EQ(late[0].tag, 1U);
}

TEST_F(GuardedDiskTest, OneLostRequestAmongManyIsNoticed) {
  class Losing final : public Disk {
   public:
    explicit Losing(Disk& inner) : inner_(inner) {}

    [[nodiscard]] std::uint64_t capacity() const noexcept override { return inner_.capacity(); }

    [[nodiscard]] bool submit(DiskOp& op) override {
      return std::exchange(lost_, true) ? inner_.submit(op) : true;
    }

    std::size_t poll(std::vector<DiskDone>& out) override { return inner_.poll(out); }

    [[nodiscard]] DiskStats stats() const override { return {}; }

    [[nodiscard]] const char* engine() const noexcept override { return "losing"; }

   private:
    Disk& inner_;
    bool lost_ = false;
  };

  GuardedDisk disk(std::make_unique<Losing>(drive_), clock_, std::chrono::seconds(30), "/a/drive");
  std::vector<DiskDone> done;
  for (std::uint64_t i = 0; i < 62; ++i) {
    EXPECT_EQ(disk.health(), DiskHealth::good) << i;
    DiskOp op = make_op(i, DiskKind::read, {{0, {0, 0}, kPage}});
    ASSERT_TRUE(disk.submit(op));
    clock_.advance(std::chrono::seconds(1));
    disk.poll(done);
  }
  clock_.advance(std::chrono::seconds(3));
  disk.poll(done);
  EXPECT_EQ(disk.health(), DiskHealth::out);
}

TEST_F(GuardedDiskTest, AnIdleDriveDoesNotAge) {
  EXPECT_EQ(result(1, DiskKind::read), 0);
  EXPECT_TRUE(after(std::chrono::hours(10)).empty());
  submit(2, DiskKind::read);
  EXPECT_EQ(after(std::chrono::milliseconds(10)).size(), 1U);
  EXPECT_EQ(disk_.health(), DiskHealth::good);
}

}  // namespace
}  // namespace statecached
