// Drives keep their numbers; only the rows of a drive that has gone are void.

#include "daemon/drives.hpp"

#include <gtest/gtest.h>

namespace statecached {
namespace {

using Names = std::vector<std::string>;
using Order = std::vector<std::size_t>;

TEST(Drives, NumbersFollowTheDriveNotTheList) {
  const auto first = number_drives({}, {"a", "b"});
  EXPECT_EQ(first.drives, (Order{0, 1}));
  EXPECT_EQ(first.uuids, (Names{"a", "b"}));
  EXPECT_TRUE(first.changed.empty());
  const auto swapped = number_drives({"a", "b"}, {"b", "a"});
  EXPECT_EQ(swapped.drives, (Order{1, 0}));
  EXPECT_EQ(swapped.uuids, (Names{"a", "b"}));
  EXPECT_TRUE(swapped.changed.empty());
}

TEST(Drives, ANewDriveTakesTheFirstFreeNumber) {
  const auto added = number_drives({"a"}, {"b", "a"});
  EXPECT_EQ(added.drives, (Order{1, 0}));
  EXPECT_EQ(added.uuids, (Names{"a", "b"}));
  EXPECT_TRUE(added.changed.empty());
  const auto replaced = number_drives({"a", "b"}, {"c", "b"});
  EXPECT_EQ(replaced.drives, (Order{0, 1}));
  EXPECT_EQ(replaced.uuids, (Names{"c", "b"}));
  EXPECT_EQ(replaced.changed, (std::unordered_set<std::uint16_t>{0}));
}

TEST(Drives, AGoneDriveLeavesAHoleOnlyBelowOthers) {
  const auto below = number_drives({"a", "b"}, {"b"});
  EXPECT_EQ(below.drives, (Order{kGone, 0}));
  EXPECT_EQ(below.changed, (std::unordered_set<std::uint16_t>{0}));
  const auto last = number_drives({"a", "b"}, {"a"});
  EXPECT_EQ(last.drives, (Order{0}));
  EXPECT_EQ(last.uuids, (Names{"a"}));
  EXPECT_EQ(last.changed, (std::unordered_set<std::uint16_t>{1}));
}

TEST(Drives, AGoneDiskFailsEverything) {
  const auto disk = make_gone_disk();
  EXPECT_EQ(disk->capacity(), 0U);
  DiskOp op;
  op.tag = 42;
  EXPECT_TRUE(disk->submit(op));
  std::vector<DiskDone> done;
  EXPECT_EQ(disk->poll(done), 1U);
  EXPECT_EQ(done.at(0).tag, 42U);
  EXPECT_NE(done.at(0).os_error, 0);
}

}  // namespace
}  // namespace statecached
