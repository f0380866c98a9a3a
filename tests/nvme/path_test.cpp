#include "tests/nvme/support.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include <cerrno>
#include <fstream>

namespace statecached {
namespace {

constexpr std::uint64_t kCapacity = 8 * kMiB;

struct stat status_of(const std::string& name) {
  struct stat status {};

  EXPECT_EQ(::stat(name.c_str(), &status), 0) << name;
  return status;
}

class PathTest : public ::testing::Test {
 protected:
  [[nodiscard]] std::string data() const { return drive_ + "/statecached.data"; }

  [[nodiscard]] std::string identity() const { return drive_ + "/statecached.identity"; }

  void write_identity(const std::string& text) const { std::ofstream(identity()) << text; }

  test::TemporaryDirectory directory_;
  std::string drive_ = directory_ / "drive";
};

TEST_F(PathTest, CreatesPrivateFilesOfFullSizeWithoutHoles) {
  auto path = open_path(drive_, kCapacity);
  ASSERT_TRUE(path) << path.error().message();
  EXPECT_TRUE(path->created);
  EXPECT_FALSE(path->uuid.is_zero());
  EXPECT_EQ(path->capacity, kCapacity);
  EXPECT_EQ(status_of(drive_).st_mode & 07777U, 0700U);
  EXPECT_EQ(status_of(data()).st_mode & 07777U, 0600U);
  EXPECT_EQ(status_of(identity()).st_mode & 07777U, 0600U);
  EXPECT_EQ(status_of(data()).st_size, static_cast<off_t>(kCapacity));
  EXPECT_GE(static_cast<std::uint64_t>(status_of(data()).st_blocks) * 512, kCapacity);
}

TEST_F(PathTest, IsTheSameDriveWhenOpenedAgain) {
  Id128 uuid;
  {
    auto path = open_path(drive_, kCapacity);
    ASSERT_TRUE(path);
    uuid = path->uuid;
  }
  auto again = open_path(drive_, kCapacity);
  ASSERT_TRUE(again);
  EXPECT_EQ(again->uuid, uuid);
  EXPECT_FALSE(again->created);
}

TEST_F(PathTest, RefusesASecondOpenerAndNamesTheDirectory) {
  auto first = open_path(drive_, kCapacity);
  ASSERT_TRUE(first);
  auto second = open_path(drive_, kCapacity);
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, Errc::busy);
  EXPECT_NE(second.error().text.find(drive_), std::string::npos);
}

TEST_F(PathTest, GrowsAndKeepsTheUuid) {
  Id128 uuid;
  {
    auto path = open_path(drive_, kCapacity);
    ASSERT_TRUE(path);
    uuid = path->uuid;
  }
  {
    auto grown = open_path(drive_, 2 * kCapacity);
    ASSERT_TRUE(grown);
    EXPECT_EQ(grown->capacity, 2 * kCapacity);
    EXPECT_EQ(grown->uuid, uuid);
    EXPECT_EQ(status_of(data()).st_size, static_cast<off_t>(2 * kCapacity));
  }
  EXPECT_EQ(open_path(drive_, kCapacity).error().code, Errc::invalid_argument)
      << "the growth was recorded";
}

TEST_F(PathTest, ShrinksOnlyWhenTold) {
  ASSERT_TRUE(open_path(drive_, kCapacity));
  auto refused = open_path(drive_, kCapacity / 2);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Errc::invalid_argument);
  {
    auto kept = open_path(drive_, kCapacity / 2, {.shrink = Shrink::keep});
    ASSERT_TRUE(kept);
    EXPECT_EQ(kept->capacity, kCapacity);
    ASSERT_TRUE(shrink_path(*kept, kCapacity / 2));
    EXPECT_EQ(kept->capacity, kCapacity / 2);
    EXPECT_EQ(status_of(data()).st_size, static_cast<off_t>(kCapacity / 2));
  }
  auto truncated = open_path(drive_, kCapacity / 4, {.shrink = Shrink::truncate});
  ASSERT_TRUE(truncated);
  EXPECT_EQ(truncated->capacity, kCapacity / 4);
  EXPECT_EQ(status_of(data()).st_size, static_cast<off_t>(kCapacity / 4));
}

TEST_F(PathTest, SaysHowMuchSpaceIsMissing) {
  struct statvfs space {};

  ASSERT_EQ(::statvfs(STATECACHED_TEST_DIR, &space), 0);
  const std::uint64_t total = std::uint64_t{space.f_blocks} * space.f_frsize;
  auto path = open_path(drive_, round_up(total, kDriveGrain) + kGiB / 2);
  ASSERT_FALSE(path);
  EXPECT_EQ(path.error().code, Errc::no_space);
  EXPECT_NE(path.error().text.find("nvme.capacity"), std::string::npos);
  EXPECT_FALSE(std::filesystem::exists(data())) << "nothing is left behind";
}

TEST_F(PathTest, RefusesACapacityOffTheGrain) {
  EXPECT_EQ(open_path(drive_, kCapacity + kPage).error().code, Errc::invalid_argument);
  EXPECT_EQ(open_path(drive_, 0).error().code, Errc::invalid_argument);
}

TEST_F(PathTest, RefusesAMissingParent) {
  auto path = open_path(drive_ + "/a/b", kCapacity);
  ASSERT_FALSE(path);
  EXPECT_EQ(path.error().code, Errc::not_found);
}

TEST_F(PathTest, RefusesAForeignOrBrokenIdentity) {
  ASSERT_TRUE(open_path(drive_, kCapacity));
  const std::string uuid(32, 'a');
  write_identity("statecached drive\nversion 2\nuuid " + uuid + "\ncapacity 8388608\n");
  EXPECT_EQ(open_path(drive_, kCapacity).error().code, Errc::version);
  for (const std::string& text :
       {std::string("something else"),
        std::string(""),
        std::string("statecached drive\nversion 1\nuuid xyz\ncapacity 8388608\n"),
        "statecached drive\nversion 1\nuuid " + uuid + "\ncapacity 8388609\n",
        "statecached drive\nversion 1\nuuid " + uuid + "\ncapacity 8388608",
        "statecached drive\nversion 1\nuuid " + uuid + "\ncapacity 8388608\nmore\n"}) {
    write_identity(text);
    EXPECT_EQ(open_path(drive_, kCapacity).error().code, Errc::corrupt) << text;
  }
  write_identity("statecached drive\nversion 1\nuuid " + uuid + "\ncapacity 8388608\n");
  auto path = open_path(drive_, kCapacity);
  ASSERT_TRUE(path);
  EXPECT_EQ(to_hex(path->uuid), uuid);
}

TEST_F(PathTest, ALostFileIsANewDrive) {
  Id128 uuid;
  {
    auto path = open_path(drive_, kCapacity);
    ASSERT_TRUE(path);
    uuid = path->uuid;
  }
  for (const std::string& lost : {data(), identity()}) {
    ASSERT_TRUE(std::filesystem::remove(lost));
    auto path = open_path(drive_, kCapacity);
    ASSERT_TRUE(path);
    EXPECT_TRUE(path->created);
    EXPECT_NE(path->uuid, uuid);
    uuid = path->uuid;
  }
}

TEST_F(PathTest, DirectIsOffWhenSwitchedOff) {
  auto path = open_path(drive_, kCapacity, {.direct = DirectIo::off});
  ASSERT_TRUE(path);
  EXPECT_FALSE(path->direct);
  EXPECT_EQ(static_cast<unsigned>(::fcntl(path->fd.get(), F_GETFL)) & O_DIRECT, 0U);
}

TEST_F(PathTest, DirectIsOnOrRefusedWhenDemanded) {
  auto automatic = open_path(drive_, kCapacity);
  ASSERT_TRUE(automatic);
  const bool possible = automatic->direct;
  automatic = fail(Errc::closed, "");
  auto path = open_path(drive_, kCapacity, {.direct = DirectIo::on});
  ASSERT_EQ(path.has_value(), possible);
  if (path) {
    EXPECT_NE(static_cast<unsigned>(::fcntl(path->fd.get(), F_GETFL)) & O_DIRECT, 0U);
  } else {
    EXPECT_EQ(path.error().code, Errc::unsupported);
  }
}

}  // namespace
}  // namespace statecached
