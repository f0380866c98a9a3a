#pragma once
// The twin of RocksCatalog for tests and the simulator: a sorted map of encoded rows, the same
// codec and the same load order, and explicit moments at which batches become durable. One thread.

#include "base/prng.hpp"
#include "tiers/catalog.hpp"
#include "tiers/catalog/row_codec.hpp"

#include <deque>
#include <map>
#include <string>

namespace statecached {

struct MemoryCatalogOptions {
  std::size_t queue = 256;   ///< batches accepted and not yet polled
  bool manual_sync = false;  ///< batches become durable only by sync(); else by poll()
  bool discard = false;      ///< store nothing, only count: simulations of long traces
  bool count_bytes = false;  ///< with `discard`: encode rows all the same, for stats().bytes
  double fail_chance = 0;    ///< of each batch, drawn from `seed`
  std::uint64_t seed = 1;
};

class MemoryCatalog final : public Catalog {
 public:
  explicit MemoryCatalog(MemoryCatalogOptions options = {});

  [[nodiscard]] bool submit(CatalogBatch& batch) override;
  std::size_t poll(std::vector<CatalogDone>& out) override;
  [[nodiscard]] Result<> load_begin(const std::function<void(CatalogRow&&)>& row) override;
  [[nodiscard]] Result<bool> load_some(std::size_t most,
                                       const std::function<void(CatalogRow&&)>& row) override;

  [[nodiscard]] CatalogStats stats() const override { return stats_; }

  /// Makes the oldest `batches` durable; they are reported by the next poll(). Returns how many.
  std::size_t sync(std::size_t batches = SIZE_MAX);
  /// Power loss: what was not durable is gone and nothing more is reported. A load shows the rest.
  void crash();

  /// The next `batches` that would become durable fail instead and change nothing.
  void fail_next(std::size_t batches) noexcept { fail_next_ = batches; }

  /// Chance of each batch to be refused, from now on; of those, how many are written all the same.
  void set_fail_chance(double fails, double applied = 0) noexcept {
    options_.fail_chance = fails;
    fails_applied_ = applied;
  }

  /// Accepted and not durable yet.
  [[nodiscard]] std::size_t pending() const noexcept { return pending_.size(); }

  /// The durable rows, by key: for tests that damage them.
  [[nodiscard]] std::map<std::string, std::string, std::less<>>& rows() noexcept { return rows_; }

 private:
  CatalogDone apply(const CatalogBatch& batch);
  void apply(RowChange& change);

  MemoryCatalogOptions options_;
  Prng prng_;
  std::size_t fail_next_ = 0;
  double fails_applied_ = 0;
  std::deque<CatalogBatch> pending_;
  std::deque<CatalogRow> loading_;  ///< read by load_begin(), not yet handed out
  std::vector<CatalogDone> done_;
  std::map<std::string, std::string, std::less<>> rows_;
  CatalogStats stats_;
};

}  // namespace statecached
