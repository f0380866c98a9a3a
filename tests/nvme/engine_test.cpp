// Which engine is chosen, and what it found.

#include "tests/nvme/support.hpp"
#include "tiers/nvme/make_disk.hpp"
#include "tiers/nvme/uring_disk.hpp"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include <cerrno>
#include <cstddef>
#include <thread>

namespace statecached {
namespace {

constexpr std::uint64_t kCapacity = 4 * kMiB;

/// For this thread and those it starts: io_uring_setup fails as in a container that forbids it.
bool forbid_io_uring() {
  sock_filter code[] = {
      {BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(seccomp_data, nr)},
      {BPF_JMP | BPF_JEQ | BPF_K, 0, 1, SYS_io_uring_setup},
      {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ERRNO | EPERM},
      {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW},
  };
  sock_fprog program{4, code};
  return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

class EngineTest : public ::testing::Test {
 protected:
  Result<std::unique_ptr<Disk>> make(DiskOptions options) {
    SC_ASSIGN(DrivePath path, open_path(drive_, kCapacity));
    return make_disk(std::move(path), memories_, options, [this] { bell_.ring(); });
  }

  void expect_moves_bytes(Disk& disk) {
    arena_.data()[17] = std::byte{0x5a};
    for (const DiskKind kind : {DiskKind::write, DiskKind::read}) {
      const std::uint64_t memory = kind == DiskKind::write ? 0 : kPage;
      DiskOp op = test::make_op(1, kind, {{kMiB, {0, memory}, kPage}});
      ASSERT_TRUE(disk.submit(op));
      const auto done = test::wait_for(disk, 1, [this] { return bell_.wait(); });
      ASSERT_EQ(done.at(0).os_error, 0);
    }
    EXPECT_EQ(arena_.data()[kPage + 17], std::byte{0x5a});
  }

  test::TemporaryDirectory directory_;
  std::string drive_ = directory_ / "drive";
  Mapping arena_ = test::make_arena(kCapacity);
  Memories memories_{{arena_.data(), kCapacity}};
  test::Bell bell_;
};

TEST_F(EngineTest, WhereIoUringIsForbiddenThreadsServe) {
  std::thread([this] {
    if (!forbid_io_uring()) GTEST_SKIP() << "no seccomp here";
    auto demanded = make({.engine = DiskEngine::io_uring});
    ASSERT_FALSE(demanded);
    EXPECT_EQ(demanded.error().code, Errc::permission);
    auto automatic = make({});
    ASSERT_TRUE(automatic) << automatic.error().message();
    EXPECT_STREQ((*automatic)->engine(), "threads");
    expect_moves_bytes(**automatic);
  }).join();
}

TEST_F(EngineTest, TheSwitchesForceWhatTheyName) {
  auto threads = make({.engine = DiskEngine::threads});
  ASSERT_TRUE(threads);
  EXPECT_STREQ((*threads)->engine(), "threads");
  (*threads).reset();
  for (const bool on : {true, false}) {
    auto path = open_path(drive_, kCapacity);
    ASSERT_TRUE(path);
    auto disk = UringDisk::create(
        std::move(*path), memories_, {.register_buffers = on, .defer_taskrun = on}, [this] {
          bell_.ring();
        });
    if (!disk) GTEST_SKIP() << disk.error().message();
    EXPECT_EQ((*disk)->capacity(), kCapacity);
    if (!on) {
      EXPECT_FALSE((*disk)->buffers_registered());
      EXPECT_FALSE((*disk)->defers_taskrun());
    }
    expect_moves_bytes(**disk);
  }
}

TEST_F(EngineTest, EveryArenaIsReachedWhateverTheOrderOfTheirAddresses) {
  Mapping small = test::make_arena(kMiB);
  Mapping filler = test::make_arena(2 * kMiB);
  memories_ = {{small.data(), kMiB}, {arena_.data(), kCapacity}, {filler.data(), 2 * kMiB}};
  auto path = open_path(drive_, kCapacity);
  ASSERT_TRUE(path);
  auto disk = UringDisk::create(std::move(*path), memories_, {}, [this] { bell_.ring(); });
  if (!disk) GTEST_SKIP() << disk.error().message();
  for (std::uint32_t arena = 0; arena < memories_.size(); ++arena) {
    DiskOp op =
        test::make_op(arena, DiskKind::read, {{0, {arena, memories_[arena].bytes - kPage}, kPage}});
    memories_[arena].base[memories_[arena].bytes - 1] = std::byte{1};
    ASSERT_TRUE((*disk)->submit(op));
    EXPECT_EQ(test::wait_for(**disk, 1, [this] { return bell_.wait(); }).at(0).os_error, 0);
    EXPECT_EQ(memories_[arena].base[memories_[arena].bytes - 1], std::byte{0});
  }
}

TEST_F(EngineTest, ArenasThatCannotBeRegisteredAreUsedUnregistered) {
  void* closed = ::mmap(nullptr, kMiB, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(closed, MAP_FAILED);
  const Mapping owner(closed, kMiB);
  memories_.push_back({owner.data(), kMiB});
  auto path = open_path(drive_, kCapacity);
  ASSERT_TRUE(path);
  auto disk = UringDisk::create(std::move(*path), memories_, {}, [this] { bell_.ring(); });
  if (!disk) GTEST_SKIP() << disk.error().message();
  EXPECT_FALSE((*disk)->buffers_registered());
  expect_moves_bytes(**disk);
}

TEST_F(EngineTest, RefusesLimitsThatCannotWork) {
  DiskOptions options;
  options.limits.transfer_bytes = 1000;
  EXPECT_EQ(make(options).error().code, Errc::invalid_argument);
  options = {};
  options.queue_ops = 0;
  EXPECT_EQ(make(options).error().code, Errc::invalid_argument);
}

}  // namespace
}  // namespace statecached
