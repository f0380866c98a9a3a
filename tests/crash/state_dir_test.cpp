// What can befall a state directory: a damaged catalog, another version's, a file system that is
// full or read-only. And what a stop in good order leaves there.

#include "tests/ipc/toy_engine.hpp"
#include "tests/support/daemon_process.hpp"
#include "tiers/catalog/row_codec.hpp"

#include "statecache/admin.hpp"
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <rocksdb/db.h>
#include <sched.h>
#include <sys/mount.h>

namespace statecached::test {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;
using namespace std::chrono_literals;

class StateDir : public testing::Test {
 protected:
  fs::path state() const { return fs::path(daemon.dir()) / "state"; }

  Json ask(const std::string& command, const std::vector<std::string>& arguments = {}) {
    const auto reply = statecache::admin(daemon.socket(), command, arguments, {}, 2min);
    if (!reply) {
      ADD_FAILURE() << command << ": " << reply.status().text << "\n" << daemon.log();
      return Json::object();
    }
    return Json::parse(*reply, nullptr, false);
  }

  std::uint64_t objects() {
    static_cast<void>(ask("verify"));  // waits until every row has come in
    return ask("status")["tiers"]["nvme"]["objects"].get<std::uint64_t>();
  }

  /// Stores some prompts and says how many objects that made.
  int store(std::uint32_t from, std::uint32_t prompts) {
    auto session = ToyEngine::attach(daemon.socket());
    if (!session) {
      ADD_FAILURE() << session.status().text << "\n" << daemon.log();
      return 0;
    }
    ToyEngine engine(*session);
    int count = 0;
    for (std::uint32_t i = 0; i < prompts; ++i)
      count += engine.store(counting(300, 1 + (from + i) * 1000), {300});
    return count;
  }

  /// Restores a prompt that store() stored: its tokens, or 0. Every byte is checked.
  std::uint32_t restore(std::uint32_t number) {
    auto session = ToyEngine::attach(daemon.socket());
    if (!session) return 0;
    ToyEngine engine(*session);
    Tokens tokens = counting(300, 1 + number * 1000);
    tokens.push_back(7);
    const auto got = engine.restore(tokens);
    EXPECT_TRUE(got.ok);
    EXPECT_TRUE(engine.release(got));
    return got.tokens;
  }

  DaemonProcess daemon;
};

TEST_F(StateDir, AStopInGoodOrderKeepsWhatWasInMemory) {
  ASSERT_TRUE(daemon.start()) << daemon.log();
  const int stored = store(1, 20);
  ASSERT_EQ(stored, 20 * 6);
  EXPECT_EQ(ask("status")["tiers"]["nvme"]["objects"], 0)
      << "written early: the stop has nothing to show";
  ASSERT_EQ(daemon.stop(), 0) << daemon.log();
  ASSERT_TRUE(daemon.start()) << daemon.log();
  EXPECT_EQ(objects(), static_cast<std::uint64_t>(stored));
  EXPECT_EQ(restore(3), 300U);
  EXPECT_EQ(daemon.stop(), 0) << daemon.log();
}

TEST_F(StateDir, AStopEndsWhenItsTimeIsOverAndWhatWasWrittenIsWhole) {
  daemon.set({"limits.stop_time=1ms"});
  ASSERT_TRUE(daemon.start()) << daemon.log();
  const int stored = store(1, 200);
  const auto begin = std::chrono::steady_clock::now();
  ASSERT_EQ(daemon.stop(), 0) << daemon.log();
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 30s);
  ASSERT_TRUE(daemon.start()) << daemon.log();
  EXPECT_LE(objects(), static_cast<std::uint64_t>(stored));
  EXPECT_EQ(ask("verify")["bad"], 0);
  EXPECT_EQ(daemon.stop(), 0) << daemon.log();
}

TEST_F(StateDir, DrainWritesEverythingAndAdmitsNothingMore) {
  ASSERT_TRUE(daemon.start()) << daemon.log();
  const int stored = store(1, 10);
  const Json report = ask("drain");
  EXPECT_EQ(report["durable_objects"], stored);
  EXPECT_EQ(report["failed_objects"], 0);
  EXPECT_EQ(store(100, 1), 0);
  EXPECT_EQ(restore(1), 300U);
  daemon.kill9();  // nothing is left to do for a stop
  ASSERT_TRUE(daemon.start()) << daemon.log();
  EXPECT_EQ(objects(), static_cast<std::uint64_t>(stored));
  EXPECT_EQ(daemon.stop(), 0) << daemon.log();
}

TEST_F(StateDir, ADamagedCatalogIsMovedAsideLoudlyAndAnEmptyOneBegun) {
  ASSERT_TRUE(daemon.start()) << daemon.log();
  ASSERT_GT(store(1, 10), 0);
  ASSERT_EQ(daemon.stop(), 0);
  int damaged = 0;
  for (const auto& entry : fs::directory_iterator(state() / "catalog")) {
    if (entry.path().filename().string().rfind("MANIFEST", 0) != 0) continue;
    std::fstream file(entry.path(), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(16);
    file << "this was a manifest once";
    ++damaged;
  }
  ASSERT_GT(damaged, 0);
  ASSERT_TRUE(daemon.start()) << daemon.log();
  EXPECT_NE(daemon.log().find("is damaged"), std::string::npos) << daemon.log();
  EXPECT_EQ(objects(), 0U);
  const auto aside = std::count_if(
      fs::directory_iterator(state()), fs::directory_iterator(), [](const auto& entry) {
        return entry.path().filename().string().rfind("catalog.corrupt-", 0) == 0;
      });
  EXPECT_EQ(aside, 1);
  // And it works from there, over the bytes of before.
  EXPECT_EQ(restore(1), 0U);
  const int again = store(1, 10);
  ASSERT_EQ(daemon.stop(), 0);
  ASSERT_TRUE(daemon.start()) << daemon.log();
  EXPECT_EQ(objects(), static_cast<std::uint64_t>(again));
  EXPECT_EQ(restore(1), 300U);
  EXPECT_EQ(daemon.stop(), 0) << daemon.log();
}

TEST_F(StateDir, AnotherVersionsCatalogIsRefusedAndLeftAlone) {
  for (const std::uint32_t format : {kFormatVersion - 1, kFormatVersion + 1}) {
    SCOPED_TRACE(format);
    fs::remove_all(state());
    fs::create_directories(state());
    rocksdb::Options options;
    options.create_if_missing = true;
    rocksdb::DB* raw = nullptr;
    ASSERT_TRUE(rocksdb::DB::Open(options, (state() / "catalog").string(), &raw).ok());
    const std::unique_ptr<rocksdb::DB> db(raw);
    CatalogMeta meta;
    meta.format = format;
    const auto value = encode_meta(meta);
    ASSERT_TRUE(value.has_value());
    ASSERT_TRUE(db->Put(rocksdb::WriteOptions(), meta_key(), *value).ok());
    ASSERT_TRUE(db->Close().ok());
    EXPECT_FALSE(daemon.start());
    EXPECT_NE(daemon.log().find("has format " + std::to_string(format)), std::string::npos)
        << daemon.log();
    for (const auto& entry : fs::directory_iterator(state()))
      EXPECT_EQ(entry.path().filename().string().find("corrupt"), std::string::npos);
  }
}

/// A file system of one's own, where the system lets a process have one.
class OwnMount : public StateDir {
 protected:
  void SetUp() override {
    static const bool able = [] {
      if (::unshare(CLONE_NEWNS) != 0) return false;
      return ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
    }();
    const fs::path folder = state() / "catalog";
    fs::create_directories(folder);
    if (!able || ::mount("none", folder.c_str(), "tmpfs", 0, "size=4m") != 0)
      GTEST_SKIP() << "this process may not mount anything";
    mounted_ = folder;
  }

  void TearDown() override {
    daemon.kill9();
    if (!mounted_.empty()) ::umount2(mounted_.c_str(), MNT_DETACH);
  }

  /// The file system is full; false: it has room again.
  void fill(bool full) {
    const fs::path ballast = mounted_ / "ballast";
    if (!full) {
      fs::remove(ballast);
      // After ENOSPC RocksDB takes writes again only when a write buffer's worth is free.
      ASSERT_EQ(::mount(nullptr, mounted_.c_str(), nullptr, MS_REMOUNT, "size=256m"), 0);
      return;
    }
    for (const std::size_t piece : {std::size_t{1} << 20U, std::size_t{4096}}) {
      std::ofstream file(ballast, std::ios::binary | std::ios::app);
      const std::string block(piece, 'x');
      while (file << block << std::flush) {
      }
    }
  }

  fs::path mounted_;
};

TEST_F(OwnMount, AFullFileSystemLeavesMemoryAndComesBack) {
  daemon.set({"policy.nvme_write=through", "host.capacity=16MiB"});
  ASSERT_TRUE(daemon.start()) << daemon.log();
  ASSERT_GT(store(1, 5), 0);
  ASSERT_EQ(ask("flush")["failed_objects"], 0);
  fill(true);
  // More than the host tier holds: without NVMe it goes on with what it has room for.
  for (std::uint32_t i = 0; i < 40; ++i)
    ASSERT_EQ(store(1000 + i * 20, 20), 20 * 6) << "block " << i << "\n" << daemon.log();
  EXPECT_EQ(restore(1000 + 39 * 20 + 19), 300U);
  EXPECT_GT(ask("flush")["failed_objects"], 0);
  EXPECT_NE(daemon.log().find("the catalog refused a batch"), std::string::npos);
  fill(false);
  const auto deadline = std::chrono::steady_clock::now() + 2min;
  while (ask("flush")["failed_objects"] != 0 && std::chrono::steady_clock::now() < deadline)
    std::this_thread::sleep_for(200ms);
  EXPECT_EQ(ask("flush")["failed_objects"], 0) << daemon.log();
  EXPECT_EQ(restore(1), 300U);
  EXPECT_EQ(ask("verify")["bad"], 0);
}

TEST_F(OwnMount, AReadOnlyStateDirectoryLeavesMemory) {
  ASSERT_EQ(::mount(nullptr, mounted_.c_str(), nullptr, MS_REMOUNT | MS_RDONLY, nullptr), 0);
  ASSERT_TRUE(daemon.start()) << daemon.log();
  EXPECT_NE(daemon.log().find("goes on with memory"), std::string::npos) << daemon.log();
  EXPECT_EQ(store(1, 5), 5 * 6);
  EXPECT_EQ(restore(1), 300U);
  EXPECT_EQ(daemon.stop(), 0) << daemon.log();
}

}  // namespace
}  // namespace statecached::test
