#pragma once
// The catalog in RocksDB, written by a thread of its own. The folder (0700, files 0600) holds
// users' prompts as tokens; a dropped namespace is compacted away, also when the process ends in
// between.

#include "tiers/catalog.hpp"
#include "tiers/waker.hpp"

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace statecached {

struct RocksCatalogOptions {
  Waker waker;                         ///< may be empty
  std::size_t queue = 256;             ///< batches accepted and not yet polled
  std::size_t group_bytes = 4 * kMiB;  ///< of queued batches that share one synced write
  std::uint64_t block_cache_bytes = 32 * kMiB;
  std::uint64_t write_buffer_bytes = 32 * kMiB;  ///< two of them
};

/// submit(), poll(), load_begin(), load_some(), record_paths() and recorded_paths() belong to one
/// thread; stats() and pending_scrubs() may be called from any. The destructor writes what was
/// submitted, then joins.
class RocksCatalog final : public Catalog {
 public:
  /// Opens or creates the folder; its parent must exist. Every stored block's checksum is read, so
  /// damage shows here: a damaged database is renamed to `<folder>.corrupt-<seconds since 1970>`
  /// and an empty one is begun. Errc::busy: another process has it open. Errc::version: written by
  /// another format version. Errc::permission, Errc::io: the folder cannot be used.
  [[nodiscard]] static Result<std::unique_ptr<RocksCatalog>> open(
      const std::filesystem::path& folder,
      RocksCatalogOptions options = {});
  ~RocksCatalog() override;

  [[nodiscard]] bool submit(CatalogBatch& batch) override;
  std::size_t poll(std::vector<CatalogDone>& out) override;
  /// A thread of its own reads and decodes ahead of load_some(), a bounded number of rows, and
  /// deletes the rows it dropped.
  [[nodiscard]] Result<> load_begin(const std::function<void(CatalogRow&&)>& row) override;
  [[nodiscard]] Result<bool> load_some(std::size_t most,
                                       const std::function<void(CatalogRow&&)>& row) override;
  [[nodiscard]] CatalogStats stats() const override;

  /// Replaces the identities of the drive paths; durable on return. Index i is DiskExtent::path i,
  /// so a path that has gone keeps its place for as long as rows name it.
  [[nodiscard]] Result<> record_paths(std::span<const std::string> uuids);
  [[nodiscard]] std::vector<std::string> recorded_paths() const;
  [[nodiscard]] bool started_empty_after_corruption() const noexcept;
  /// Dropped namespaces whose bytes may still be in files; the waker is called when one is done.
  [[nodiscard]] std::size_t pending_scrubs() const noexcept;

 private:
  class Impl;
  explicit RocksCatalog(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace statecached
