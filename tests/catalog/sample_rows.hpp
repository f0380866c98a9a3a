#pragma once
// Rows for the catalog's tests, and what a test needs to wait for and to read back.

#include "base/prng.hpp"
#include "tiers/catalog.hpp"
#include "tiers/catalog/row_codec.hpp"

#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace statecached::sample {

inline NamespaceRow namespace_row(std::uint32_t number, std::int64_t last_used = 0) {
  NamespaceRow row;
  row.number = number;
  row.generation = 3;
  row.trust_domain = 2;
  row.last_used = last_used;
  row.spec.name = "model-" + std::to_string(number);
  row.spec.model.bytes[0] = std::byte{7};
  row.spec.layout.bytes[31] = std::byte{9};
  Group group;
  group.name = "kv";
  group.max_bytes = 3 * kPage;
  row.spec.groups.push_back(group);
  row.spec.cost.c1 = 2.5e9;
  return row;
}

inline DomainRow domain_row(std::uint32_t ns, std::uint32_t number) {
  DomainRow row;
  row.ns = ns;
  row.number = number;
  row.domain.adapter.bytes[3] = std::byte{1};
  row.domain.salt.bytes[4] = static_cast<std::byte>(number);
  return row;
}

inline ObjectRow object_row(std::uint32_t ns, ObjectNumber number, std::uint64_t seed = 1) {
  Prng prng(seed ^ mix64(number));
  ObjectRow row;
  row.ns = ns;
  row.number = number;
  row.generation = 2;
  row.domain = 5;
  row.group = static_cast<std::uint16_t>(prng.below(kGroupsMax));
  row.first = 64;
  row.end = 128;
  row.id = {prng.next(), prng.next()};
  if (number > 1) row.parents.push_back(1 + prng.below(number - 1));
  if (number > 2 && prng.chance(0.5)) row.parents.push_back(number - 1);
  for (int i = 0; i < 64; ++i)
    row.symbols.push_back(static_cast<Token>(prng.next()));
  for (std::uint64_t i = prng.below(3); i > 0; --i) {
    Mark mark;
    mark.at = 64;
    mark.length = 10;
    mark.content.bytes[5] = static_cast<std::byte>(i);
    mark.atomic = 1;
    row.marks.push_back(mark);
  }
  const std::uint64_t shards = 1 + prng.below(3);
  for (std::uint64_t i = 0; i < shards; ++i) {
    row.extents.push_back({static_cast<std::uint16_t>(i), {kPage * prng.below(1000), kPage * 3}});
    row.checksums.push_back({prng.next(), prng.next()});
  }
  row.payload_bytes = 3 * kPage - 17;
  row.hits = 4;
  row.tenant = static_cast<std::uint32_t>(mix64(seed + number));
  row.last_used = 1'700'000'000;
  return row;
}

/// Equal rows have equal bytes, so a row is compared by them.
inline std::string bytes_of(const CatalogRow& row) {
  auto value = std::visit([](const auto& r) { return encode_row(r); }, row);
  return value ? *value : "not encodable: " + value.error().text;
}

/// "N3", "D3/1", "O3/17".
inline std::string label(const CatalogRow& row) {
  if (const auto* ns = std::get_if<NamespaceRow>(&row)) return "N" + std::to_string(ns->number);
  if (const auto* domain = std::get_if<DomainRow>(&row)) {
    return "D" + std::to_string(domain->ns) + "/" + std::to_string(domain->number);
  }
  const auto& object = std::get<ObjectRow>(row);
  return "O" + std::to_string(object.ns) + "/" + std::to_string(object.number);
}

/// What a load gives, in its order. Errc::timeout when it has not ended within a minute.
inline Result<std::vector<CatalogRow>> load_all(Catalog& catalog) {
  std::vector<CatalogRow> rows;
  const auto keep = [&](CatalogRow&& row) { rows.push_back(std::move(row)); };
  SC_TRY(catalog.load_begin(keep));
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::minutes(1);
  while (true) {
    SC_ASSIGN(const bool last, catalog.load_some(100, keep));
    if (last) return rows;
    if (std::chrono::steady_clock::now() > deadline) return fail(Errc::timeout, "rows are missing");
    std::this_thread::yield();  // the waker is the test's own
  }
}

inline std::vector<std::string> labels(Catalog& catalog) {
  std::vector<std::string> out;
  auto rows = load_all(catalog);
  if (!rows) return {"load failed: " + rows.error().message()};
  for (const CatalogRow& row : *rows)
    out.push_back(label(row));
  return out;
}

/// A waker that a test can wait on.
class Bell {
 public:
  void ring() {
    const std::lock_guard lock(mutex_);
    rung_.notify_all();
  }

  /// False when it did not come true within a minute.
  template <class Condition>
  bool wait(Condition&& condition) {
    std::unique_lock lock(mutex_);
    return rung_.wait_for(lock, std::chrono::seconds(60), condition);
  }

 private:
  std::mutex mutex_;
  std::condition_variable rung_;
};

/// A folder of its own, removed at the end.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "catalog-XXXXXX").string();
    if (::mkdtemp(name.data()) != nullptr) path_ = name;
  }

  ~TemporaryFolder() {
    std::error_code ignored;
    if (!path_.empty()) std::filesystem::remove_all(path_, ignored);
  }

  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  [[nodiscard]] const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

}  // namespace statecached::sample
