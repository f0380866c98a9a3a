#include "tiers/catalog/rocks_catalog.hpp"

#include "base/unique_fd.hpp"
#include "tests/catalog/sample_rows.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <rocksdb/db.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <array>
#include <csignal>
#include <cstring>
#include <fstream>
#include <set>
#include <sstream>

namespace statecached {
namespace {

namespace fs = std::filesystem;
using sample::domain_row;
using sample::labels;
using sample::namespace_row;
using sample::object_row;
using Labels = std::vector<std::string>;

class RocksCatalogTest : public testing::Test {
 protected:
  [[nodiscard]] fs::path path() const { return folder_.path() / "catalog"; }

  Result<std::unique_ptr<RocksCatalog>> open() {
    RocksCatalogOptions options;
    options.waker = [this] { bell_.ring(); };
    return RocksCatalog::open(path(), options);
  }

  std::unique_ptr<RocksCatalog> open_ok() {
    auto opened = open();
    EXPECT_TRUE(opened) << opened.error().message();
    return opened ? std::move(*opened) : nullptr;
  }

  void write(RocksCatalog& catalog, CatalogBatch batch) {
    ASSERT_TRUE(catalog.submit(batch));
    std::vector<CatalogDone> done;
    ASSERT_TRUE(bell_.wait([&] { return catalog.poll(done) > 0; }));
    EXPECT_TRUE(done[0].ok) << done[0].error;
  }

  static CatalogBatch small_batch(std::uint32_t ns = 1) {
    CatalogBatch batch;
    batch.namespaces = {namespace_row(ns)};
    batch.domains = {domain_row(ns, 1)};
    batch.puts = {object_row(ns, 1), object_row(ns, 2)};
    return batch;
  }

  /// Changes the database behind the catalog's back, and leaves the rows in a table file.
  template <class Change>
  void tamper(Change&& change) {
    rocksdb::Options options;
    options.create_if_missing = true;
    rocksdb::DB* raw = nullptr;
    const auto status = rocksdb::DB::Open(options, path().string(), &raw);
    ASSERT_TRUE(status.ok()) << status.ToString();
    const std::unique_ptr<rocksdb::DB> db(raw);
    change(*db);
    ASSERT_TRUE(db->Flush(rocksdb::FlushOptions()).ok());
  }

  std::vector<fs::path> files_with(const char* extension) const {
    std::vector<fs::path> out;
    for (const auto& entry : fs::directory_iterator(path())) {
      if (entry.path().extension() == extension) out.push_back(entry.path());
    }
    return out;
  }

  /// Folders that were moved aside.
  std::vector<std::string> aside() const {
    std::vector<std::string> out;
    for (const auto& entry : fs::directory_iterator(folder_.path())) {
      const std::string name = entry.path().filename();
      if (name != "catalog") out.push_back(name);
    }
    return out;
  }

  void expect_begun_anew(std::size_t asides = 1) {
    auto catalog = open_ok();
    ASSERT_NE(catalog, nullptr);
    EXPECT_TRUE(catalog->started_empty_after_corruption());
    EXPECT_EQ(labels(*catalog), Labels{});
    ASSERT_EQ(aside().size(), asides);
    for (const std::string& name : aside())
      EXPECT_EQ(name.rfind("catalog.corrupt-", 0), 0U) << name;
    write(*catalog, small_batch());
    EXPECT_EQ(labels(*catalog).size(), 4U);
    catalog.reset();
    catalog = open_ok();
    ASSERT_NE(catalog, nullptr);
    EXPECT_FALSE(catalog->started_empty_after_corruption());
    EXPECT_EQ(labels(*catalog).size(), 4U);
  }

  sample::TemporaryFolder folder_;
  sample::Bell bell_;
};

/// A catalog_writer with pipes to its input and from its output.
class Writer {
 public:
  Writer(const fs::path& folder, const char* mode) {
    std::array<int, 2> in{};
    std::array<int, 2> out{};
    if (::pipe2(in.data(), O_CLOEXEC) != 0 || ::pipe2(out.data(), O_CLOEXEC) != 0) return;
    input_.reset(in[1]);
    output_.reset(out[0]);
    const UniqueFd child_in(in[0]);
    const UniqueFd child_out(out[1]);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, child_in.get(), STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&actions, child_out.get(), STDOUT_FILENO);
    std::string program = CATALOG_WRITER;
    std::string where = folder.string();
    std::string how = mode;
    std::array<char*, 4> arguments{program.data(), where.data(), how.data(), nullptr};
    if (::posix_spawn(&pid_, program.c_str(), &actions, nullptr, arguments.data(), environ) != 0)
      pid_ = 0;
    posix_spawn_file_actions_destroy(&actions);
  }

  Writer(const Writer&) = delete;
  Writer& operator=(const Writer&) = delete;

  ~Writer() { kill(); }

  /// The next line without its end; empty at the end of its output.
  std::string line() {
    std::string out;
    char byte = 0;
    while (::read(output_.get(), &byte, 1) == 1 && byte != '\n')
      out.push_back(byte);
    return out;
  }

  void kill() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    pid_ = 0;
  }

 private:
  pid_t pid_ = 0;
  UniqueFd input_;
  UniqueFd output_;
};

TEST_F(RocksCatalogTest, RowsAndPathsOutliveAClose) {
  auto catalog = open_ok();
  ASSERT_NE(catalog, nullptr);
  EXPECT_FALSE(catalog->started_empty_after_corruption());
  EXPECT_TRUE(catalog->recorded_paths().empty());
  const std::vector<std::string> paths = {"6f1c", "b2"};
  ASSERT_TRUE(catalog->record_paths(paths));
  write(*catalog, small_batch());
  catalog.reset();
  catalog = open_ok();
  ASSERT_NE(catalog, nullptr);
  EXPECT_FALSE(catalog->started_empty_after_corruption());
  EXPECT_EQ(catalog->recorded_paths(), paths);
  EXPECT_EQ(labels(*catalog), (Labels{"N1", "D1/1", "O1/1", "O1/2"}));
  const std::vector<std::string> too_many(kCatalogPathsMax + 1, "a");
  EXPECT_FALSE(catalog->record_paths(too_many));
  EXPECT_EQ(catalog->recorded_paths(), paths);
}

TEST_F(RocksCatalogTest, ClosingWritesWhatWasSubmitted) {
  auto catalog = open_ok();
  ASSERT_NE(catalog, nullptr);
  for (ObjectNumber i = 1; i <= 100; ++i) {
    CatalogBatch batch;
    batch.namespaces = {namespace_row(1)};
    batch.puts = {object_row(1, i)};
    ASSERT_TRUE(catalog->submit(batch));
  }
  catalog.reset();
  catalog = open_ok();
  ASSERT_NE(catalog, nullptr);
  EXPECT_EQ(labels(*catalog).size(), 101U);
}

TEST_F(RocksCatalogTest, WhatWasReportedSurvivesAKill) {
  Prng prng(11);
  for (int round = 0; round < 4; ++round) {
    SCOPED_TRACE(round);
    fs::remove_all(path());
    Writer writer(path(), "write");
    ASSERT_EQ(writer.line(), "open");
    std::uint64_t last = 0;
    const std::uint64_t stop_at = 20 + prng.below(2000);
    while (last < stop_at) {
      const std::string line = writer.line();
      ASSERT_FALSE(line.empty());
      last = std::stoull(line);
    }
    writer.kill();
    for (std::string line = writer.line(); !line.empty(); line = writer.line())
      last = std::stoull(line);

    auto catalog = open_ok();
    ASSERT_NE(catalog, nullptr);
    EXPECT_FALSE(catalog->started_empty_after_corruption());
    auto rows = sample::load_all(*catalog);
    ASSERT_TRUE(rows) << rows.error().message();
    ASSERT_FALSE(rows->empty());
    // Batches are whole and in order: the namespace names the last that took effect.
    const auto durable =
        static_cast<std::uint64_t>(std::get<NamespaceRow>(rows->front()).last_used);
    EXPECT_GE(durable, last);
    std::set<ObjectNumber> expected;
    for (std::uint64_t tag = 1; tag <= durable; ++tag) {
      if (tag == durable) expected.insert(3 * tag);
      expected.insert({3 * tag + 1, 3 * tag + 2});
    }
    std::set<ObjectNumber> found;
    for (std::size_t i = 1; i < rows->size(); ++i) {
      const auto& row = std::get<ObjectRow>((*rows)[i]);
      found.insert(row.number);
      ASSERT_EQ(sample::bytes_of(row), sample::bytes_of(object_row(1, row.number)));
    }
    EXPECT_EQ(found, expected);
    EXPECT_EQ(catalog->stats().rows_dropped, 0U);
  }
}

TEST_F(RocksCatalogTest, ASecondOpenIsRefused) {
  {
    auto catalog = open_ok();
    ASSERT_NE(catalog, nullptr);
    auto second = open();
    ASSERT_FALSE(second);
    EXPECT_EQ(second.error().code, Errc::busy) << second.error().message();
    write(*catalog, small_batch());  // and the first goes on
  }
  Writer other(path(), "hold");
  ASSERT_EQ(other.line(), "open");
  auto second = open();
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, Errc::busy) << second.error().message();
  EXPECT_TRUE(aside().empty());
  other.kill();
  auto catalog = open_ok();
  ASSERT_NE(catalog, nullptr);
  EXPECT_EQ(labels(*catalog).size(), 4U);
}

TEST_F(RocksCatalogTest, FilesAreForTheirOwnerOnly) {
  const mode_t before = ::umask(0);
  auto catalog = open_ok();
  ASSERT_NE(catalog, nullptr);
  write(*catalog, small_batch());
  CatalogBatch drop;
  drop.drop_namespaces = {1};  // makes table files too
  write(*catalog, std::move(drop));
  EXPECT_TRUE(bell_.wait([&] { return catalog->pending_scrubs() == 0; }));
  write(*catalog, small_batch());
  const auto expect_private = [&] {
    struct stat info {};
    ASSERT_EQ(::stat(path().c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 07777U, 0700U);
    std::size_t files = 0;
    for (const auto& entry : fs::directory_iterator(path())) {
      ASSERT_EQ(::stat(entry.path().c_str(), &info), 0);
      EXPECT_EQ(info.st_mode & 07777U, 0600U) << entry.path();
      ++files;
    }
    EXPECT_GE(files, 5U);
  };
  expect_private();
  catalog.reset();
  for (const auto& entry : fs::directory_iterator(path())) {
    ASSERT_EQ(::chmod(entry.path().c_str(), 0644), 0);
  }
  ASSERT_EQ(::chmod(path().c_str(), 0755), 0);
  catalog = open_ok();
  expect_private();
  ::umask(before);
}

TEST_F(RocksCatalogTest, DamagedTablesAreMovedAside) {
  {
    auto catalog = open_ok();
    ASSERT_NE(catalog, nullptr);
    CatalogBatch batch = small_batch();
    for (ObjectNumber i = 3; i <= 1000; ++i)
      batch.puts.push_back(object_row(1, i));
    write(*catalog, std::move(batch));
  }
  tamper([](rocksdb::DB& db) { ASSERT_TRUE(db.Put(rocksdb::WriteOptions(), "z", "z").ok()); });
  const auto tables = files_with(".sst");
  ASSERT_FALSE(tables.empty());
  std::size_t large = 0;
  for (const fs::path& table : tables) {
    if (fs::file_size(table) < 300'000) continue;
    ++large;
    std::fstream file(table, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(150'000);  // in the rows: the file still opens, and only reading them shows it
    file.write("damage", 6);
  }
  ASSERT_EQ(large, 1U);
  expect_begun_anew();
}

TEST_F(RocksCatalogTest, EveryOtherDamageIsMovedAsideToo) {
  const auto damage = [this](std::size_t asides, auto&& how) {
    SCOPED_TRACE(asides);
    tamper([](rocksdb::DB& db) { ASSERT_TRUE(db.Put(rocksdb::WriteOptions(), "z", "z").ok()); });
    how();
    expect_begun_anew(asides);
  };
  { write(*open_ok(), small_batch()); }
  damage(1, [this] {
    for (const auto& file : files_with(".sst"))
      fs::remove(file);
  });
  damage(2, [this] { fs::remove(path() / "CURRENT"); });
  damage(3, [this] { std::ofstream(path() / "CURRENT") << "nonsense"; });
  damage(4, [this] {
    for (const auto& entry : fs::directory_iterator(path())) {
      if (entry.path().filename().string().rfind("MANIFEST", 0) == 0)
        fs::resize_file(entry.path(), 20);
    }
  });
  damage(5, [this] {
    for (const auto& entry : fs::directory_iterator(path())) {
      if (entry.path().filename().string().rfind("MANIFEST", 0) == 0) fs::remove(entry.path());
    }
  });
  damage(6, [this] { tamper([](rocksdb::DB& db) { ASSERT_TRUE(db.Delete({}, "M").ok()); }); });
  damage(7, [this] {
    tamper([](rocksdb::DB& db) { ASSERT_TRUE(db.Put({}, "M", "nonsense").ok()); });
  });
}

TEST_F(RocksCatalogTest, ADamagedRowIsDroppedAlone) {
  { write(*open_ok(), small_batch()); }
  tamper([](rocksdb::DB& db) {
    std::string value;
    ASSERT_TRUE(db.Get({}, object_key(1, 1), &value).ok());
    value[20] = static_cast<char>(value[20] ^ 4);
    ASSERT_TRUE(db.Put({}, object_key(1, 1), value).ok());
    ASSERT_TRUE(db.Put({}, "O12", "no such key").ok());
  });
  auto catalog = open_ok();
  ASSERT_NE(catalog, nullptr);
  EXPECT_FALSE(catalog->started_empty_after_corruption());
  EXPECT_EQ(labels(*catalog), (Labels{"N1", "D1/1", "O1/2"}));
  EXPECT_EQ(catalog->stats().rows_dropped, 2U);
  catalog.reset();
  catalog = open_ok();
  ASSERT_NE(catalog, nullptr);
  EXPECT_EQ(labels(*catalog), (Labels{"N1", "D1/1", "O1/2"}));
  EXPECT_EQ(catalog->stats().rows_dropped, 0U);
}

TEST_F(RocksCatalogTest, AnotherFormatIsRefusedAndLeftAlone) {
  { write(*open_ok(), small_batch()); }
  CatalogMeta meta;
  meta.format = kFormatVersion + 1;
  const std::string value = encode_meta(meta).value();
  tamper([&](rocksdb::DB& db) { ASSERT_TRUE(db.Put({}, meta_key(), value).ok()); });
  auto opened = open();
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code, Errc::version);
  EXPECT_NE(opened.error().text.find("begin empty"), std::string::npos) << opened.error().text;
  EXPECT_TRUE(aside().empty());
}

TEST_F(RocksCatalogTest, AFolderThatCannotBeIsAnError) {
  auto opened = RocksCatalog::open(folder_.path() / "no" / "catalog");
  ASSERT_FALSE(opened);
  EXPECT_NE(opened.error().text.find("catalog folder"), std::string::npos);
  std::ofstream(path()) << "a file";
  EXPECT_FALSE(open());
  EXPECT_TRUE(fs::is_regular_file(path()));
}

/// Whether a file of the folder holds the bytes.
bool bytes_in_files(const fs::path& folder, std::string_view bytes) {
  for (const auto& entry : fs::directory_iterator(folder)) {
    std::ostringstream all;
    all << std::ifstream(entry.path(), std::ios::binary).rdbuf();
    if (all.str().find(bytes) != std::string::npos) return true;
  }
  return false;
}

/// The prompt of namespace 9 as it lies in a row.
constexpr std::string_view kSecret = "the-prompt-of-9!";

CatalogBatch secret_batch() {
  CatalogBatch batch;
  batch.namespaces = {namespace_row(9)};
  batch.puts = {object_row(9, 1)};
  static_assert(kSecret.size() == 16);
  std::memcpy(batch.puts[0].symbols.data(), kSecret.data(), kSecret.size());
  return batch;
}

TEST_F(RocksCatalogTest, ADroppedNamespaceLeavesNoByteInAnyFile) {
  auto catalog = open_ok();
  ASSERT_NE(catalog, nullptr);
  write(*catalog, secret_batch());
  write(*catalog, small_batch(8));
  EXPECT_TRUE(bytes_in_files(path(), kSecret));
  catalog.reset();
  tamper([](rocksdb::DB& db) {  // into a table at the bottom
    ASSERT_TRUE(db.CompactRange(rocksdb::CompactRangeOptions(), nullptr, nullptr).ok());
  });
  EXPECT_TRUE(bytes_in_files(path(), kSecret));
  catalog = open_ok();
  ASSERT_NE(catalog, nullptr);
  write(*catalog, secret_batch());  // and once more into the log
  CatalogBatch drop;
  drop.drop_namespaces = {9};
  write(*catalog, std::move(drop));
  EXPECT_TRUE(bell_.wait([&] { return catalog->pending_scrubs() == 0; }));
  EXPECT_EQ(labels(*catalog), (Labels{"N8", "D8/1", "O8/1", "O8/2"}));
  catalog.reset();
  EXPECT_FALSE(bytes_in_files(path(), kSecret));
}

TEST_F(RocksCatalogTest, AnInterruptedScrubIsFinishedAfterTheNextStart) {
  { write(*open_ok(), secret_batch()); }
  tamper([](rocksdb::DB& db) {  // the drop was written, and the process ended
    rocksdb::WriteBatch write;
    for (const char letter : {'N', 'D', 'O'}) {
      const KeyRange range = rows_of(letter, 9);
      ASSERT_TRUE(write.DeleteRange(range.begin, range.end).ok());
    }
    ASSERT_TRUE(write.Put(scrub_key(9), "").ok());
    ASSERT_TRUE(db.Write({}, &write).ok());
  });
  EXPECT_TRUE(bytes_in_files(path(), kSecret));
  auto catalog = open_ok();
  ASSERT_NE(catalog, nullptr);
  EXPECT_TRUE(bell_.wait([&] { return catalog->pending_scrubs() == 0; }));
  catalog.reset();
  EXPECT_FALSE(bytes_in_files(path(), kSecret));
  catalog = open_ok();
  ASSERT_NE(catalog, nullptr);
  EXPECT_EQ(catalog->pending_scrubs(), 0U);
}

}  // namespace
}  // namespace statecached
