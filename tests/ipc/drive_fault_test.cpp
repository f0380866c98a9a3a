// The real daemon on real file systems that fail: full, shared, frozen, shut down, remounted
// read-only, taken away, resized. What needs a mount of one's own is skipped where that is not
// allowed.

#include "base/units.hpp"
#include "tests/ipc/toy_engine.hpp"
#include "tests/support/daemon_process.hpp"

#include <gtest/gtest.h>
#include <linux/fs.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include <functional>

namespace statecached {
namespace {

using statecache::Session;
using test::counting;
using test::DaemonProcess;
using test::kPatience;
using test::Tokens;
using test::ToyEngine;

constexpr unsigned long kShutdown = _IOR('X', 125, std::uint32_t);  // of ext4 and XFS
constexpr std::uint32_t kWithoutFlush = 2;

bool run(const std::string& command) {
  return std::system((command + " >/dev/null 2>&1").c_str()) == 0;
}

std::string device_of(const std::string& folder) {
  std::ifstream mounts("/proc/self/mounts");
  std::string device, at, rest;
  while (mounts >> device >> at && std::getline(mounts, rest))
    if (at == folder) return device;
  return {};
}

bool eventually(const std::function<bool()>& condition) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (std::chrono::steady_clock::now() < end) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return false;
}

/// From here on what this process mounts is seen by it and its children alone, and is gone with the
/// last of them, however they end.
bool own_mounts() {
  static const bool able = ::unshare(CLONE_NEWNS) == 0 &&
                           ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
  return able;
}

/// A file system of one's own below the daemon's folder; gone with the object.
class Mounted {
 public:
  ~Mounted() {
    if (folder_.empty()) return;
    run("fsfreeze -u " + folder_);
    ::umount2(folder_.c_str(), MNT_DETACH);
  }

  Mounted() = default;
  Mounted(const Mounted&) = delete;
  Mounted& operator=(const Mounted&) = delete;

  bool memory(const std::string& folder, const std::string& size) {
    if (!own_mounts()) return false;
    std::filesystem::create_directories(folder);
    if (::mount("none", folder.c_str(), "tmpfs", 0, ("size=" + size).c_str()) != 0) return false;
    folder_ = folder;
    return true;
  }

  bool ext4(const std::string& folder, const std::string& size) {
    if (!own_mounts()) return false;
    std::filesystem::create_directories(folder);
    const std::string image = folder + ".image";
    if (!run("truncate -s " + size + " " + image) || !run("mkfs.ext4 -q " + image)) return false;
    if (!run("mount -o loop,errors=remount-ro " + image + " " + folder)) return false;
    folder_ = folder;
    return true;
  }

 private:
  std::string folder_;
};

class DriveFaults : public ::testing::Test {
 protected:
  static constexpr std::uint32_t kPrompt = 640;  ///< tokens: ten blocks and a state, 60 KiB

  static Tokens prompt(std::uint32_t i) { return counting(kPrompt, 1 + i * 10'000); }

  void attach() {
    auto session = ToyEngine::attach(daemon.socket());
    ASSERT_TRUE(session) << session.status().text << daemon.log();
    session_.emplace(std::move(*session));
    engine_.emplace(*session_);
  }

  /// All of each prompt; an engine that is faster than the drive tries again.
  void store(std::uint32_t from, std::uint32_t to) {
    for (std::uint32_t i = from; i < to; ++i) {
      // A state at the end is one that the daemon wishes for, however little room there is.
      ASSERT_TRUE(eventually([&] { return engine_->store(prompt(i), {kPrompt}) == 11; })) << i;
    }
  }

  /// In parts that memory holds until they are written: what a drive is too slow for may be given
  /// up.
  void store_on_drive(std::uint32_t from, std::uint32_t to) {
    constexpr std::uint32_t kPart = 50;
    for (std::uint32_t i = from; i < to; i += kPart) {
      store(i, std::min(i + kPart, to));
      ASSERT_EQ(daemon.ctl({"flush"}).code, 0);
    }
  }

  /// Prompts of which a state came back; whatever comes must be right.
  std::uint32_t hits(std::uint32_t from, std::uint32_t to) {
    std::uint32_t count = 0;
    for (std::uint32_t i = from; i < to; ++i) {
      Tokens longer = prompt(i);
      longer.push_back(0);
      const auto restored = engine_->restore(longer);
      EXPECT_TRUE(restored.ok) << i;
      if (restored.tokens > 0) ++count;
      EXPECT_TRUE(engine_->release(restored)) << i;
    }
    return count;
  }

  [[nodiscard]] std::string status() const { return daemon.ctl({"--json", "status"}).out; }

  void stop() {
    engine_.reset();
    session_.reset();
    EXPECT_EQ(daemon.stop(), 0) << daemon.log();
  }

  DaemonProcess daemon;
  std::optional<Session> session_;
  std::optional<ToyEngine> engine_;
};

TEST_F(DriveFaults, TwoDrivesAreUsedTogetherAndOneMayGo) {
  const std::string a = daemon.dir() + "/a";
  const std::string b = daemon.dir() + "/b";
  daemon.set({"nvme.paths=" + a + "," + b, "nvme.capacity=64MiB"});
  ASSERT_TRUE(daemon.start()) << daemon.log();
  attach();
  for (std::uint32_t i = 0; i < 24; i += 4) {
    store(i, i + 4);
    EXPECT_EQ(daemon.ctl({"flush"}).code, 0);
  }
  stop();
  daemon.set({"nvme.paths=" + b + "," + a, "nvme.capacity=64MiB"});
  ASSERT_TRUE(daemon.start()) << daemon.log();
  attach();
  EXPECT_EQ(hits(0, 24), 24U) << "drives are known by what they are, not by their place";
  stop();
  daemon.set({"nvme.paths=" + b, "nvme.capacity=32MiB"});
  ASSERT_TRUE(daemon.start()) << daemon.log();
  EXPECT_TRUE(eventually([&] {
    return daemon.log().find("not there any more") != std::string::npos;
  })) << daemon.log();
  attach();
  const std::uint32_t left = hits(0, 24);
  EXPECT_GT(left, 0U);
  EXPECT_LT(left, 24U) << "both had some";
  EXPECT_EQ(daemon.ctl({"verify"}).code, 0);
  stop();
}

TEST_F(DriveFaults, CapacityMayGrowAndShrinksOnlyWhenAsked) {
  daemon.set({"nvme.capacity=32MiB"});
  ASSERT_TRUE(daemon.start()) << daemon.log();
  attach();
  store(0, 20);
  stop();
  daemon.set({"nvme.capacity=96MiB"});
  ASSERT_TRUE(daemon.start()) << daemon.log();
  attach();
  EXPECT_EQ(hits(0, 20), 20U);
  stop();
  daemon.set({"nvme.capacity=32MiB"});
  EXPECT_FALSE(daemon.start());
  EXPECT_NE(daemon.log().find("shrink"), std::string::npos) << daemon.log();
  daemon.set({"nvme.capacity=32MiB", "nvme.shrink=truncate"});
  ASSERT_TRUE(daemon.start()) << daemon.log();
  attach();
  EXPECT_GT(hits(0, 20), 0U);
  EXPECT_EQ(daemon.ctl({"verify"}).code, 0);
  stop();
}

TEST_F(DriveFaults, TheSecondDaemonOnADriveIsRefused) {
  ASSERT_TRUE(daemon.start()) << daemon.log();
  DaemonProcess second({"nvme.paths=" + daemon.dir() + "/state/nvme"});
  EXPECT_FALSE(second.start());
  EXPECT_NE(second.log().find("in use by another"), std::string::npos) << second.log();
  attach();
  store(0, 2);
  EXPECT_EQ(hits(0, 2), 2U) << "the first does not notice";
}

TEST_F(DriveFaults, PreallocationWritesNoZeros) {
  daemon.set({"nvme.capacity=2GiB"});
  ASSERT_TRUE(daemon.start()) << daemon.log();

  struct stat file {};

  const std::string data = daemon.dir() + "/state/nvme/statecached.data";
  ASSERT_EQ(::stat(data.c_str(), &file), 0);
  EXPECT_GE(static_cast<std::uint64_t>(file.st_blocks) * 512, 2 * kGiB);
  const std::int64_t written = test::written_by(daemon.pid());
  if (written < 0) GTEST_SKIP() << "no accounts of what a process writes";
  EXPECT_LT(static_cast<std::uint64_t>(written), 8 * kMiB);
}

TEST_F(DriveFaults, AFullFileSystemIsSaidAtStartAndHarmlessLater) {
  Mounted mounted;
  const std::string folder = daemon.dir() + "/full";
  if (!mounted.memory(folder, "48m")) GTEST_SKIP() << "may not mount";
  const std::string drive = folder + "/drive";
  daemon.set({"nvme.paths=" + drive, "nvme.capacity=64MiB"});
  EXPECT_FALSE(daemon.start());
  EXPECT_NE(daemon.log().find("cannot hold nvme.capacity"), std::string::npos) << daemon.log();
  daemon.set({"nvme.paths=" + drive, "nvme.capacity=32MiB"});
  ASSERT_TRUE(daemon.start()) << daemon.log();
  // Others fill what is left.
  EXPECT_FALSE(run("dd if=/dev/zero of=" + folder + "/other bs=1M count=64"));
  attach();
  store(0, 40);
  const auto flush = daemon.ctl({"flush"});
  EXPECT_EQ(flush.code, 0) << flush.out << flush.err << daemon.log();
  stop();
  ASSERT_TRUE(daemon.start()) << daemon.log();
  attach();
  EXPECT_EQ(hits(0, 40), 40U);
  EXPECT_NE(status().find("\"health\":\"ok\""), std::string::npos) << status();
  stop();
}

TEST_F(DriveFaults, ADriveThatVanishesMakesMisses) {
  Mounted mounted;
  const std::string folder = daemon.dir() + "/gone";
  if (!mounted.ext4(folder, "160M")) GTEST_SKIP() << "may not mount";
  daemon.set({"nvme.paths=" + folder, "nvme.capacity=64MiB", "host.capacity=8MiB"});
  ASSERT_TRUE(daemon.start()) << daemon.log();
  attach();
  store_on_drive(0, 300);
  EXPECT_GT(hits(0, 300), 250U);
  const UniqueFd fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY));
  if (::ioctl(fd.get(), kShutdown, &kWithoutFlush) != 0) GTEST_SKIP() << "cannot shut ext4 down";
  const std::uint32_t left = hits(0, 300);
  EXPECT_LT(left, 150U) << "memory holds a part";
  EXPECT_NE(status().find("\"health\":\"out\""), std::string::npos) << status() << daemon.log();
  EXPECT_NE(daemon.log().find("taken out"), std::string::npos);
  store(400, 420);
  EXPECT_GT(hits(400, 420), 0U) << "memory still serves";
  stop();
}

TEST_F(DriveFaults, AFrozenFileSystemIsGivenUpInTime) {
  Mounted mounted;
  const std::string folder = daemon.dir() + "/frozen";
  if (!mounted.ext4(folder, "160M")) GTEST_SKIP() << "may not mount";
  daemon.set({"nvme.paths=" + folder,
              "nvme.capacity=64MiB",
              "host.capacity=8MiB",
              "limits.transfer_timeout=1s"});
  ASSERT_TRUE(daemon.start()) << daemon.log();
  attach();
  store(0, 20);
  EXPECT_EQ(daemon.ctl({"flush"}).code, 0);
  if (!run("fsfreeze -f " + folder)) GTEST_SKIP() << "cannot freeze";
  store(100, 120);
  // What flush waits for ends when the drive is given up, not when it comes back.
  EXPECT_EQ(daemon.ctl({"flush"}).code, 1);
  EXPECT_NE(status().find("\"health\":\"out\""), std::string::npos) << status() << daemon.log();
  store(200, 210);
  EXPECT_GT(hits(200, 210), 0U);
  EXPECT_TRUE(run("fsfreeze -u " + folder));
  stop();
}

TEST_F(DriveFaults, AReadOnlyRemountStopsWritingAndNotReading) {
  Mounted mounted;
  const std::string folder = daemon.dir() + "/ro";
  if (!mounted.ext4(folder, "160M")) GTEST_SKIP() << "may not mount";
  daemon.set({"nvme.paths=" + folder, "nvme.capacity=64MiB", "host.capacity=8MiB"});
  ASSERT_TRUE(daemon.start()) << daemon.log();
  attach();
  store_on_drive(0, 200);
  const std::string device = std::filesystem::path(device_of(folder)).filename();
  if (!run("echo test | tee /sys/fs/ext4/" + device + "/trigger_fs_error"))
    GTEST_SKIP() << "cannot make ext4 go read-only";
  store(300, 310);
  if (daemon.ctl({"flush"}).code == 0) {
    stop();
    GTEST_SKIP() << "this kernel lets files that are open go on being written";
  }
  EXPECT_TRUE(eventually([&] {
    return status().find("\"health\":\"read_only\"") != std::string::npos;
  })) << status()
      << daemon.log();
  EXPECT_GT(hits(0, 200), 150U) << "what is on it is still read";
  stop();
}

}  // namespace
}  // namespace statecached
