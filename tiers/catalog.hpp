#pragma once
// The seam to the durable index of what lies on the drives. Production: tiers/catalog (RocksDB on a
// thread of its own). Twin: tiers/catalog/memory_catalog (explicit sync points, loses what was not
// synced). Never on a request's path.

#include "base/ids.hpp"
#include "base/result.hpp"
#include "base/spec.hpp"
#include "tiers/copy_engine.hpp"
#include "tiers/extent.hpp"

#include <cstdint>
#include <functional>
#include <string>
#include <variant>
#include <vector>

namespace statecached {

/// of one namespace; parents have smaller numbers; 0 is none
using ObjectNumber = std::uint64_t;

struct NamespaceRow {
  std::uint32_t number = 0;
  std::uint32_t generation = 1;
  std::uint32_t trust_domain = 0;
  NamespaceSpec spec;
  std::int64_t last_used = 0;  ///< seconds since 1970; hot namespaces load first
};

struct DomainRow {
  std::uint32_t ns = 0;
  std::uint32_t number = 0;
  Domain domain;
};

struct DiskExtent {
  std::uint16_t path = 0;  ///< index of the drive path, by its recorded identity
  Extent extent;
};

/// One object that is whole on NVMe. `symbols` run from the end of its deepest parent to its own
/// end (all of [0, end) when it has none); `marks` are those that end there.
struct ObjectRow {
  std::uint32_t ns = 0;
  ObjectNumber number = 0;
  std::uint32_t generation = 1;
  std::uint32_t domain = 0;
  std::uint16_t group = 0;
  std::uint32_t first = 0;
  std::uint32_t end = 0;
  ObjectId id;
  std::vector<ObjectNumber> parents;  ///< one per `every` group that has one
  std::vector<Token> symbols;
  std::vector<Mark> marks;
  std::uint64_t payload_bytes = 0;  ///< of one shard, unpadded
  std::vector<DiskExtent> extents;  ///< all shards, in order, each padded to kPage
  std::vector<Checksum> checksums;  ///< one a shard
  std::uint32_t hits = 0;
  std::int64_t last_used = 0;  ///< seconds since 1970
  std::uint32_t tenant = 0;    ///< a digest of the name of who stored it; 0: nobody that is named
};

struct ObjectKey {
  std::uint32_t ns = 0;
  ObjectNumber number = 0;
};

/// One atomic, durable (synced) change.
struct CatalogBatch {
  std::uint64_t tag = 0;
  std::vector<NamespaceRow> namespaces;  ///< put
  std::vector<DomainRow> domains;        ///< put
  std::vector<ObjectRow> puts;           ///< written in this order: parents first
  std::vector<ObjectKey> deletes;
  std::vector<std::uint32_t> drop_namespaces;  ///< all rows of it
};

struct CatalogDone {
  std::uint64_t tag = 0;
  bool ok = true;
  std::string error;
};

using CatalogRow = std::variant<NamespaceRow, DomainRow, ObjectRow>;

struct CatalogStats {
  std::uint64_t batches = 0, rows_put = 0, rows_deleted = 0, rows_dropped = 0, bytes = 0;
};

/// Threads as for Disk.
class Catalog {
 public:
  Catalog() = default;
  Catalog(const Catalog&) = delete;
  Catalog& operator=(const Catalog&) = delete;
  virtual ~Catalog() = default;

  /// Batches take effect in the order of submission; each is reported when it is durable.
  [[nodiscard]] virtual bool submit(CatalogBatch& batch) = 0;
  virtual std::size_t poll(std::vector<CatalogDone>& out) = 0;
  /// Start-up, in pieces, for who serves meanwhile. load_begin() hands out every namespace, by
  /// last_used descending, each followed by its domains, before it returns, on the caller's thread.
  /// Objects then come from load_some(), about `most` at a time: namespace after namespace in the
  /// same order, of each by number (so parents come before children). It never waits: it hands out
  /// what has been read by now (the waker rings for more), and returns true when there is nothing
  /// more to come. A row that cannot be decoded, or whose namespace is not there, is dropped and
  /// counted. Batches may be submitted in between; what they change is not seen by this load.
  [[nodiscard]] virtual Result<> load_begin(const std::function<void(CatalogRow&&)>& row) = 0;
  [[nodiscard]] virtual Result<bool> load_some(std::size_t most,
                                               const std::function<void(CatalogRow&&)>& row) = 0;
  [[nodiscard]] virtual CatalogStats stats() const = 0;
};

}  // namespace statecached
