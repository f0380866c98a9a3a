#include "tiers/catalog/memory_catalog.hpp"

#include "tiers/catalog/row_loader.hpp"

#include <utility>

namespace statecached {
namespace {

using RowMap = std::map<std::string, std::string, std::less<>>;

class MapCursor final : public RowCursor {
 public:
  explicit MapCursor(const RowMap& rows) : rows_(rows), at_(rows.begin()) {}

  void seek(std::string_view key) override { at_ = rows_.lower_bound(key); }

  void next() override { ++at_; }

  [[nodiscard]] bool valid() const override { return at_ != rows_.end(); }

  [[nodiscard]] std::string_view key() const override { return at_->first; }

  [[nodiscard]] std::string_view value() const override { return at_->second; }

  [[nodiscard]] Result<> status() const override { return {}; }

 private:
  const RowMap& rows_;
  RowMap::const_iterator at_;
};

}  // namespace

MemoryCatalog::MemoryCatalog(MemoryCatalogOptions options)
    : options_(options),
      prng_(options.seed) {}

bool MemoryCatalog::submit(CatalogBatch& batch) {
  if (pending_.size() + done_.size() >= options_.queue) return false;
  pending_.push_back(std::move(batch));
  return true;
}

std::size_t MemoryCatalog::poll(std::vector<CatalogDone>& out) {
  if (!options_.manual_sync) sync();
  const std::size_t count = done_.size();
  for (CatalogDone& done : done_)
    out.push_back(std::move(done));
  done_.clear();
  return count;
}

std::size_t MemoryCatalog::sync(std::size_t batches) {
  std::size_t count = 0;
  for (; count < batches && !pending_.empty(); ++count) {
    done_.push_back(apply(pending_.front()));
    pending_.pop_front();
  }
  return count;
}

void MemoryCatalog::crash() {
  pending_.clear();
  done_.clear();
  loading_.clear();
}

CatalogDone MemoryCatalog::apply(const CatalogBatch& batch) {
  const bool drawn = options_.fail_chance > 0 && prng_.chance(options_.fail_chance);
  if (drawn || fail_next_ > 0) {
    if (fail_next_ > 0) --fail_next_;
    if (fails_applied_ > 0 && prng_.chance(fails_applied_)) {
      auto changes = encode_changes(batch);
      for (std::size_t i = 0; changes && i < changes->size(); ++i)
        apply((*changes)[i]);
    }
    return {batch.tag, false, "the catalog was told to fail"};
  }
  if (!options_.discard || options_.count_bytes) {
    auto changes = encode_changes(batch);
    if (!changes) return {batch.tag, false, changes.error().message()};
    for (RowChange& change : *changes) {
      stats_.bytes += change.key.size() + change.value.size();
      if (!options_.discard) apply(change);
    }
  }
  ++stats_.batches;
  stats_.rows_put += batch.namespaces.size() + batch.domains.size() + batch.puts.size();
  stats_.rows_deleted += batch.deletes.size();
  return {batch.tag, true, {}};
}

void MemoryCatalog::apply(RowChange& change) {
  switch (change.kind) {
    case RowChange::Kind::put:
      rows_.insert_or_assign(std::move(change.key), std::move(change.value));
      break;
    case RowChange::Kind::erase:
      rows_.erase(change.key);
      break;
    case RowChange::Kind::drop_namespace:
      for (const char letter : {'N', 'D', 'O'}) {
        const KeyRange range = rows_of(letter, change.ns);
        rows_.erase(rows_.lower_bound(range.begin), rows_.lower_bound(range.end));
      }
      break;
  }
}

Result<> MemoryCatalog::load_begin(const std::function<void(CatalogRow&&)>& row) {
  loading_.clear();
  MapCursor cursor(rows_);
  SC_ASSIGN(LoadedHeads heads, load_heads(cursor, row));
  const auto keep = [&](CatalogRow&& found) {
    loading_.push_back(std::move(found));
    return true;
  };
  for (const std::uint32_t ns : heads.namespaces)
    SC_TRY(load_objects(cursor, ns, keep, heads.bad));
  for (const std::string& key : heads.bad)
    rows_.erase(key);
  stats_.rows_dropped += heads.bad.size();
  return {};
}

Result<bool> MemoryCatalog::load_some(std::size_t most,
                                      const std::function<void(CatalogRow&&)>& row) {
  for (std::size_t i = 0; i < most && !loading_.empty(); ++i) {
    row(std::move(loading_.front()));
    loading_.pop_front();
  }
  return loading_.empty();
}

}  // namespace statecached
