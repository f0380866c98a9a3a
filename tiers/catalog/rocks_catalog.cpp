#include "tiers/catalog/rocks_catalog.hpp"

#include "base/log.hpp"
#include "base/queue.hpp"
#include "base/unique_fd.hpp"
#include "tiers/catalog/row_codec.hpp"
#include "tiers/catalog/row_loader.hpp"

#include <fcntl.h>
#include <pthread.h>
#include <rocksdb/cache.h>
#include <rocksdb/db.h>
#include <rocksdb/env.h>
#include <rocksdb/file_system.h>
#include <rocksdb/options.h>
#include <rocksdb/table.h>
#include <rocksdb/write_batch.h>
#include <sys/stat.h>

#include <atomic>
#include <cerrno>
#include <deque>
#include <exception>
#include <optional>
#include <stdexcept>
#include <thread>

namespace statecached {
namespace {

namespace fs = std::filesystem;

/// A drive can be asked for this much at a time when every row is read in order.
constexpr std::size_t kReadahead = 4 * kMiB;
/// Rows that were deleted one by one leave the files at the latest this long after.
constexpr std::uint64_t kDeletedRowsSeconds = 24ULL * 3600;

rocksdb::Slice slice(std::string_view bytes) noexcept {
  return {bytes.data(), bytes.size()};
}

tl::unexpected<Error> fail_status(const rocksdb::Status& status, std::string_view doing) {
  Errc code = Errc::internal;
  if (status.IsCorruption()) {
    code = Errc::corrupt;
  } else if (status.IsNoSpace()) {
    code = Errc::no_space;
  } else if (status.IsIOError()) {
    code = Errc::io;
  }
  return fail(code, fmt::format("catalog: {}: {}", doing, status.ToString()));
}

/// Makes each file before RocksDB does, so that it is never readable by others.
class PrivateFiles final : public rocksdb::FileSystemWrapper {
 public:
  PrivateFiles() : FileSystemWrapper(rocksdb::FileSystem::Default()) {}

  [[nodiscard]] const char* Name() const override { return "statecached private files"; }

  rocksdb::IOStatus NewWritableFile(const std::string& name,
                                    const rocksdb::FileOptions& options,
                                    std::unique_ptr<rocksdb::FSWritableFile>* file,
                                    rocksdb::IODebugContext* debug) override {
    make(name);
    return FileSystemWrapper::NewWritableFile(name, options, file, debug);
  }

  rocksdb::IOStatus NewRandomRWFile(const std::string& name,
                                    const rocksdb::FileOptions& options,
                                    std::unique_ptr<rocksdb::FSRandomRWFile>* file,
                                    rocksdb::IODebugContext* debug) override {
    make(name);
    return FileSystemWrapper::NewRandomRWFile(name, options, file, debug);
  }

  rocksdb::IOStatus NewLogger(const std::string& name,
                              const rocksdb::IOOptions& options,
                              std::shared_ptr<rocksdb::Logger>* logger,
                              rocksdb::IODebugContext* debug) override {
    make(name);
    return FileSystemWrapper::NewLogger(name, options, logger, debug);
  }

  rocksdb::IOStatus LockFile(const std::string& name,
                             const rocksdb::IOOptions& options,
                             rocksdb::FileLock** lock,
                             rocksdb::IODebugContext* debug) override {
    make(name);
    return FileSystemWrapper::LockFile(name, options, lock, debug);
  }

 private:
  /// Never opens a file that is there: closing it would give up this process's lock on it. What
  /// fails here fails again, with its reason, in the call that follows.
  static void make(const std::string& name) {
    const UniqueFd made(::open(name.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600));
  }
};

rocksdb::Options rocks_options(const RocksCatalogOptions& options, rocksdb::Env& env) {
  rocksdb::Options out;
  out.env = &env;
  out.create_if_missing = true;
  out.paranoid_checks = true;
  // Every write that was reported is synced, so a torn tail of the log was never reported.
  out.wal_recovery_mode = rocksdb::WALRecoveryMode::kPointInTimeRecovery;
  out.compression = rocksdb::kNoCompression;
  out.write_buffer_size = options.write_buffer_bytes;
  out.max_write_buffer_number = 2;
  out.max_background_jobs = 2;
  out.wal_bytes_per_sync = kMiB;
  out.bytes_per_sync = kMiB;
  out.max_total_wal_size = 4 * options.write_buffer_bytes;
  out.level_compaction_dynamic_level_bytes = true;
  out.ttl = kDeletedRowsSeconds;
  out.info_log_level = rocksdb::WARN_LEVEL;
  out.max_log_file_size = kMiB;
  out.keep_log_file_num = 2;
  out.max_manifest_file_size = 4 * kMiB;
  out.stats_dump_period_sec = 0;
  out.stats_persist_period_sec = 0;
  rocksdb::BlockBasedTableOptions table;
  table.block_cache = rocksdb::NewLRUCache(options.block_cache_bytes);
  table.block_size = 16 * kKiB;  // rows are read in order, never looked up one by one
  out.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  return out;
}

rocksdb::ReadOptions scan_options() {
  rocksdb::ReadOptions out;
  out.fill_cache = false;
  out.readahead_size = kReadahead;
  return out;
}

rocksdb::WriteOptions synced() {
  rocksdb::WriteOptions out;
  out.sync = true;
  return out;
}

Result<> make_private_folder(const fs::path& folder) {
  if (::mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST) {
    return fail_errno(fmt::format("catalog folder {}", folder.string()));
  }
  if (::chmod(folder.c_str(), 0700) != 0) {
    return fail_errno(fmt::format("catalog folder {}: cannot make it private", folder.string()));
  }
  return {};
}

/// PrivateFiles takes care of new files; these are those that somebody copied in.
Result<> make_private_files(const fs::path& folder) {
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, error)) {
    if (::chmod(entry.path().c_str(), 0600) != 0 && errno != ENOENT) {
      return fail_errno(
          fmt::format("catalog file {}: cannot make it private", entry.path().string()));
    }
  }
  if (error) return fail_errno(fmt::format("catalog folder {}", folder.string()), error.value());
  return {};
}

/// RocksDB takes a folder without CURRENT for a new one and deletes the tables that lie in it.
bool lost_its_root(const fs::path& folder) {
  std::error_code error;
  if (fs::exists(folder / "CURRENT", error)) return false;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, error)) {
    if (entry.path().extension() == ".sst") return true;
  }
  return false;
}

Result<fs::path> move_aside(const fs::path& folder) {
  const std::string base = fmt::format("{}.corrupt-{}", folder.string(), wall_seconds());
  fs::path target = base;
  std::error_code error;
  for (int i = 1; fs::exists(target, error); ++i)
    target = fmt::format("{}-{}", base, i);
  fs::rename(folder, target, error);
  if (error) {
    return fail_errno(
        fmt::format("damaged catalog {}: cannot move it to {}", folder.string(), target.string()),
        error.value());
  }
  return target;
}

class RocksCursor final : public RowCursor {
 public:
  explicit RocksCursor(rocksdb::DB& db) : at_(db.NewIterator(scan_options())) {}

  void seek(std::string_view key) override { at_->Seek(slice(key)); }

  void next() override { at_->Next(); }

  [[nodiscard]] bool valid() const override { return at_->Valid(); }

  [[nodiscard]] std::string_view key() const override { return at_->key().ToStringView(); }

  [[nodiscard]] std::string_view value() const override { return at_->value().ToStringView(); }

  [[nodiscard]] Result<> status() const override {
    if (const rocksdb::Status status = at_->status(); !status.ok()) {
      return fail_status(status, "reading the rows");
    }
    return {};
  }

 private:
  std::unique_ptr<rocksdb::Iterator> at_;
};

struct Opened {
  std::unique_ptr<rocksdb::Env> env;  // outlives db
  std::unique_ptr<rocksdb::DB> db;
  CatalogMeta meta;
  std::deque<std::uint32_t> scrubs;
};

Result<CatalogMeta> read_meta(rocksdb::DB& db, const fs::path& folder) {
  std::string value;
  const rocksdb::Status status = db.Get(rocksdb::ReadOptions(), slice(meta_key()), &value);
  if (status.ok()) {
    SC_ASSIGN(CatalogMeta meta, decode_meta(value));
    if (meta.format != kFormatVersion) {
      return fail(
          Errc::version,
          fmt::format("catalog {} has format {} and this statecached reads and writes format {}: "
                      "run a version that knows format {}, or move the folder away to begin empty",
                      folder.string(),
                      meta.format,
                      kFormatVersion,
                      meta.format));
    }
    return meta;
  }
  if (!status.IsNotFound()) return fail_status(status, "reading the format");
  const std::unique_ptr<rocksdb::Iterator> any(db.NewIterator(scan_options()));
  any->SeekToFirst();
  if (any->Valid()) return fail(Errc::corrupt, "catalog: it has rows and no format");
  if (!any->status().ok()) return fail_status(any->status(), "reading the rows");
  CatalogMeta meta;
  SC_ASSIGN(const std::string encoded, encode_meta(meta));
  if (const auto put = db.Put(synced(), slice(meta_key()), slice(encoded)); !put.ok()) {
    return fail_status(put, "writing the format");
  }
  return meta;
}

Result<Opened> open_once(const fs::path& folder, const RocksCatalogOptions& options) {
  SC_TRY(make_private_folder(folder));
  if (lost_its_root(folder)) return fail(Errc::corrupt, "catalog: tables without the file CURRENT");
  SC_TRY(make_private_files(folder));
  Opened out;
  out.env = rocksdb::NewCompositeEnv(std::make_shared<PrivateFiles>());
  rocksdb::DB* raw = nullptr;
  const rocksdb::Status status =
      rocksdb::DB::Open(rocks_options(options, *out.env), folder.string(), &raw);
  out.db.reset(raw);
  if (status.IsIOError() && status.ToString().find("/LOCK") != std::string::npos) {
    return fail(
        Errc::busy,
        fmt::format(
            "catalog {} is open in another process: {}", folder.string(), status.ToString()));
  }
  // A file that the database lists and that is not there is damage, not a failing drive.
  if (status.IsPathNotFound()) return fail(Errc::corrupt, "catalog: " + status.ToString());
  if (!status.ok()) return fail_status(status, fmt::format("cannot open {}", folder.string()));
  // Before the blocks are checked, so that another version's catalog is refused and never moved.
  SC_ASSIGN(out.meta, read_meta(*out.db, folder));
  if (const auto sound = out.db->VerifyChecksum(scan_options()); !sound.ok()) {
    return fail_status(sound, "checking the tables");
  }
  RocksCursor cursor(*out.db);
  const KeyRange scrubs = rows_of('S');
  for (cursor.seek(scrubs.begin); cursor.valid() && cursor.key() < scrubs.end; cursor.next()) {
    std::uint32_t ns = 0;
    if (parse_scrub_key(cursor.key(), ns)) out.scrubs.push_back(ns);
  }
  SC_TRY(cursor.status());
  return out;
}

}  // namespace

class RocksCatalog::Impl {
 public:
  Impl(Opened opened, RocksCatalogOptions options, bool started_empty)
      : env_(std::move(opened.env)),
        db_(std::move(opened.db)),
        meta_(std::move(opened.meta)),
        options_(std::move(options)),
        started_empty_(started_empty),
        submitted_(options_.queue),
        done_(options_.queue),
        scrubs_(std::move(opened.scrubs)),
        pending_scrubs_(scrubs_.size()),
        thread_([this] { run(); }) {}

  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  ~Impl() {
    stop_.store(true, std::memory_order_release);
    cancel_.store(true, std::memory_order_release);
    room_.fetch_add(1, std::memory_order_release);
    room_.notify_one();
    if (loader_.joinable()) loader_.join();
    signal();
    thread_.join();
  }

  bool submit(CatalogBatch& batch) {
    // Counts reports too, so that the thread always has room for its report.
    if (in_flight_ >= options_.queue) return false;
    if (!submitted_.push(std::move(batch))) return false;
    ++in_flight_;
    signal();
    return true;
  }

  std::size_t poll(std::vector<CatalogDone>& out) {
    std::size_t count = 0;
    while (auto done = done_.pop()) {
      out.push_back(std::move(*done));
      ++count;
    }
    in_flight_ -= count;
    return count;
  }

  Result<> load_begin(const std::function<void(CatalogRow&&)>& row) {
    auto cursor = std::make_unique<RocksCursor>(*db_);
    SC_ASSIGN(LoadedHeads heads, load_heads(*cursor, row));
    // The cursor sees the rows of this moment, whatever is written while it goes on.
    loader_ = std::thread([this, cursor = std::move(cursor), heads = std::move(heads)]() mutable {
      ::pthread_setname_np(::pthread_self(), "catalog-load");
      load_all(*cursor, std::move(heads));
    });
    return {};
  }

  Result<bool> load_some(std::size_t most, const std::function<void(CatalogRow&&)>& row) {
    for (std::size_t taken = 0; taken < most;) {
      if (!taking_) {
        taking_ = loaded_.pop();
        taken_ = 0;
        if (!taking_) return false;
        room_.fetch_add(1, std::memory_order_release);
        room_.notify_one();
      }
      for (; taken_ < taking_->rows.size() && taken < most; ++taken_, ++taken)
        row(std::move(taking_->rows[taken_]));
      if (taken_ < taking_->rows.size()) return false;
      const Chunk chunk = *std::exchange(taking_, std::nullopt);
      if (!chunk.last) continue;
      loader_.join();
      if (!chunk.outcome) return tl::unexpected<Error>(chunk.outcome.error());
      return true;
    }
    return false;
  }

  Result<> record_paths(std::span<const std::string> uuids) {
    CatalogMeta meta = meta_;
    meta.paths.assign(uuids.begin(), uuids.end());
    SC_ASSIGN(const std::string value, encode_meta(meta));
    if (const auto status = db_->Put(synced(), slice(meta_key()), slice(value)); !status.ok()) {
      return fail_status(status, "recording the drive paths");
    }
    meta_ = std::move(meta);
    return {};
  }

  [[nodiscard]] const std::vector<std::string>& paths() const noexcept { return meta_.paths; }

  [[nodiscard]] bool started_empty() const noexcept { return started_empty_; }

  [[nodiscard]] std::size_t pending_scrubs() const noexcept {
    return pending_scrubs_.load(std::memory_order_acquire);
  }

  [[nodiscard]] CatalogStats stats() const {
    CatalogStats out;
    out.batches = batches_.load(std::memory_order_relaxed);
    out.rows_put = rows_put_.load(std::memory_order_relaxed);
    out.rows_deleted = rows_deleted_.load(std::memory_order_relaxed);
    out.rows_dropped = rows_dropped_.load(std::memory_order_relaxed);
    out.bytes = bytes_.load(std::memory_order_relaxed);
    return out;
  }

 private:
  /// Rows read ahead.
  struct Chunk {
    std::vector<CatalogRow> rows;
    Result<> outcome;
    bool last = false;
  };

  Result<> drop_rows(const std::vector<std::string>& bad) {
    rows_dropped_.fetch_add(bad.size(), std::memory_order_relaxed);
    if (bad.empty()) return {};
    log::warn("catalog: {} rows could not be used and are deleted", bad.size());
    rocksdb::WriteBatch write;
    for (const std::string& key : bad) {
      if (const auto status = write.Delete(slice(key)); !status.ok()) {
        return fail_status(status, "deleting rows");
      }
    }
    if (const auto status = db_->Write(synced(), &write); !status.ok()) {
      return fail_status(status, "deleting rows");
    }
    return {};
  }

  /// The loader's thread: waits for room. False: the catalog is closing.
  bool hand_over(Chunk&& chunk) {
    while (true) {
      const std::uint32_t seen = room_.load(std::memory_order_acquire);
      if (cancel_.load(std::memory_order_acquire)) return false;
      if (loaded_.push(std::move(chunk))) break;
      room_.wait(seen, std::memory_order_acquire);
    }
    if (options_.waker) options_.waker();
    return true;
  }

  void load_all(RocksCursor& cursor, LoadedHeads heads) {
    Chunk chunk;
    bool open = true;
    const auto take = [&](CatalogRow&& found) {
      chunk.rows.push_back(std::move(found));
      if (chunk.rows.size() < kChunkRows) return true;
      open = hand_over(std::move(chunk));
      chunk = Chunk{};
      return open;
    };
    Result<> outcome;
    try {
      for (const std::uint32_t ns : heads.namespaces) {
        if (outcome && open) outcome = load_objects(cursor, ns, take, heads.bad);
      }
      if (outcome && open) outcome = drop_rows(heads.bad);
    } catch (const std::exception& thrown) {
      outcome = fail(Errc::internal, fmt::format("catalog: {}", thrown.what()));
    }
    chunk.outcome = std::move(outcome);
    chunk.last = true;
    if (open) static_cast<void>(hand_over(std::move(chunk)));
  }

  /// Batches that share one write, and what will be said about each.
  struct Group {
    rocksdb::WriteBatch write;
    std::vector<CatalogDone> done;
    std::vector<std::uint32_t> dropped;
    std::uint64_t batches = 0, puts = 0, deletes = 0, bytes = 0;
  };

  void signal() noexcept {
    work_.fetch_add(1, std::memory_order_release);
    work_.notify_one();
  }

  void run() {
    while (true) {
      // Read before the queue, so that a batch submitted after the look at it ends the wait.
      const std::uint32_t seen = work_.load(std::memory_order_acquire);
      const bool stopping = stop_.load(std::memory_order_acquire);
      if (!submitted_.empty()) {
        commit();
      } else if (stopping) {
        return;
      } else if (!scrubs_.empty()) {
        scrub();
      } else {
        work_.wait(seen, std::memory_order_acquire);
      }
      if (!stopping && scrubs_.size() > kScrubsBehind) scrub();
    }
  }

  /// Takes queued batches up to the group's size and writes them as one; reports in order.
  void commit() {
    Group group;
    std::string error;
    try {
      while (group.write.GetDataSize() < options_.group_bytes) {
        auto batch = submitted_.pop();
        if (!batch) break;
        add(group, *batch);
      }
      error = write(group);
    } catch (const std::exception& thrown) {
      error = thrown.what();
    }
    if (!error.empty()) {
      log::error("catalog: a write failed: {}", error);
    } else {
      batches_.fetch_add(group.batches, std::memory_order_relaxed);
      rows_put_.fetch_add(group.puts, std::memory_order_relaxed);
      rows_deleted_.fetch_add(group.deletes, std::memory_order_relaxed);
      bytes_.fetch_add(group.bytes, std::memory_order_relaxed);
      pending_scrubs_.fetch_add(group.dropped.size(), std::memory_order_release);
      scrubs_.insert(scrubs_.end(), group.dropped.begin(), group.dropped.end());
    }
    for (CatalogDone& done : group.done) {
      if (!error.empty() && done.ok) {
        done.ok = false;
        done.error = error;
      }
      SC_ASSERT(done_.push(std::move(done)));  // submit() keeps a place for each
    }
    if (options_.waker) options_.waker();
  }

  static void add(Group& group, const CatalogBatch& batch) {
    // The report first: should memory run out below, the batch is still answered for.
    group.done.push_back({batch.tag, true, {}});
    auto changes = encode_changes(batch);
    if (!changes) {
      group.done.back() = {batch.tag, false, changes.error().message()};
      return;
    }
    for (const RowChange& change : *changes)
      add(group, change);
    ++group.batches;
  }

  static void add(Group& group, const RowChange& change) {
    group.bytes += change.key.size() + change.value.size();
    switch (change.kind) {
      case RowChange::Kind::put:
        ++group.puts;
        check(group.write.Put(slice(change.key), slice(change.value)));
        break;
      case RowChange::Kind::erase:
        ++group.deletes;
        check(group.write.Delete(slice(change.key)));
        break;
      case RowChange::Kind::drop_namespace:
        for (const char letter : {'N', 'D', 'O'}) {
          const KeyRange range = rows_of(letter, change.ns);
          check(group.write.DeleteRange(slice(range.begin), slice(range.end)));
        }
        check(group.write.Put(slice(scrub_key(change.ns)), rocksdb::Slice()));
        group.dropped.push_back(change.ns);
        break;
    }
  }

  /// A write batch in memory fails only for sizes beyond 4 GiB; commit() reports it.
  static void check(const rocksdb::Status& status) {
    if (!status.ok()) throw std::length_error(status.ToString());
  }

  /// Empty, or why it failed.
  std::string write(Group& group) {
    if (group.batches == 0) return {};
    if (failed_) {
      // After an error the database refuses writes until it is told to try again.
      if (const auto status = db_->Resume(); !status.ok()) return status.ToString();
      failed_ = false;
    }
    const rocksdb::Status status = db_->Write(synced(), &group.write);
    failed_ = !status.ok();
    return failed_ ? status.ToString() : std::string{};
  }

  /// Rewrites the files that hold rows of one dropped namespace.
  void scrub() {
    const std::uint32_t ns = scrubs_.front();
    rocksdb::CompactRangeOptions how;
    how.exclusive_manual_compaction = false;
    how.bottommost_level_compaction = rocksdb::BottommostLevelCompaction::kForceOptimized;
    how.canceled = &cancel_;
    rocksdb::Status status;
    for (const char letter : {'N', 'D', 'O'}) {
      const KeyRange range = rows_of(letter, ns);
      const rocksdb::Slice begin = slice(range.begin);
      const rocksdb::Slice end = slice(range.end);
      if (status.ok()) status = db_->CompactRange(how, &begin, &end);
    }
    // Not synced: done twice is harmless. Kept after an error, so that the next start tries again.
    if (status.ok()) status = db_->Delete(rocksdb::WriteOptions(), slice(scrub_key(ns)));
    if (!status.ok() && !cancel_.load(std::memory_order_acquire)) {
      log::error("catalog: namespace {} is dropped, but its bytes are still in files: {}",
                 ns,
                 status.ToString());
    }
    scrubs_.pop_front();
    pending_scrubs_.fetch_sub(1, std::memory_order_release);
    if (options_.waker) options_.waker();
  }

  /// Scrubs wait for an idle moment, but not for ever.
  static constexpr std::size_t kScrubsBehind = 16;
  /// Read ahead at a start: rows of some hundred bytes.
  static constexpr std::size_t kChunkRows = 4096;  // each wakes the other thread once
  static constexpr std::size_t kChunks = 8;

  std::unique_ptr<rocksdb::Env> env_;
  std::unique_ptr<rocksdb::DB> db_;
  CatalogMeta meta_;
  RocksCatalogOptions options_;
  bool started_empty_;
  std::size_t in_flight_ = 0;  // submitter's
  SpscQueue<CatalogBatch> submitted_;
  SpscQueue<CatalogDone> done_;
  std::deque<std::uint32_t> scrubs_;  // the thread's
  bool failed_ = false;               // the thread's
  std::atomic<std::size_t> pending_scrubs_;
  std::atomic<std::uint32_t> work_{0};
  std::atomic<bool> stop_{false};
  std::atomic<bool> cancel_{false};
  std::atomic<std::uint64_t> batches_{0}, rows_put_{0}, rows_deleted_{0}, rows_dropped_{0},
      bytes_{0};
  SpscQueue<Chunk> loaded_{kChunks};
  std::optional<Chunk> taking_;  // the submitter's
  std::size_t taken_ = 0;
  std::atomic<std::uint32_t> room_{0};
  std::thread loader_;
  std::thread thread_;  // last: it uses all of the above
};

Result<std::unique_ptr<RocksCatalog>> RocksCatalog::open(const fs::path& folder,
                                                         RocksCatalogOptions options) {
  try {
    bool started_empty = false;
    auto opened = open_once(folder, options);
    if (!opened && opened.error().code == Errc::corrupt) {
      SC_ASSIGN(const fs::path target, move_aside(folder));
      log::error(
          "the catalog {} is damaged ({}): it was moved to {} and an empty one is begun; what lies "
          "on the "
          "drives is forgotten. The moved folder holds users' prompts: delete it when it is not "
          "needed",
          folder.string(),
          opened.error().text,
          target.string());
      started_empty = true;
      opened = open_once(folder, options);
    }
    if (!opened) return tl::unexpected<Error>(std::move(opened.error()));
    auto impl = std::make_unique<Impl>(std::move(*opened), std::move(options), started_empty);
    return std::unique_ptr<RocksCatalog>(new RocksCatalog(std::move(impl)));
  } catch (const std::exception& thrown) {
    return fail(Errc::internal, fmt::format("catalog {}: {}", folder.string(), thrown.what()));
  }
}

RocksCatalog::RocksCatalog(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

RocksCatalog::~RocksCatalog() = default;

bool RocksCatalog::submit(CatalogBatch& batch) {
  return impl_->submit(batch);
}

std::size_t RocksCatalog::poll(std::vector<CatalogDone>& out) {
  return impl_->poll(out);
}

Result<> RocksCatalog::load_begin(const std::function<void(CatalogRow&&)>& row) {
  return impl_->load_begin(row);
}

Result<bool> RocksCatalog::load_some(std::size_t most,
                                     const std::function<void(CatalogRow&&)>& row) {
  return impl_->load_some(most, row);
}

CatalogStats RocksCatalog::stats() const {
  return impl_->stats();
}

Result<> RocksCatalog::record_paths(std::span<const std::string> uuids) {
  return impl_->record_paths(uuids);
}

std::vector<std::string> RocksCatalog::recorded_paths() const {
  return impl_->paths();
}

bool RocksCatalog::started_empty_after_corruption() const noexcept {
  return impl_->started_empty();
}

std::size_t RocksCatalog::pending_scrubs() const noexcept {
  return impl_->pending_scrubs();
}

}  // namespace statecached
