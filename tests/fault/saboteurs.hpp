#pragma once
// Seams with one promise broken each, for tests that expect the judge (world.hpp) to notice. Not
// faults of drives, which the cache must bear: these are orders and syncs that somebody might
// remove.

#include "base/prng.hpp"
#include "tiers/catalog.hpp"
#include "tiers/copy_engine.hpp"
#include "tiers/disk.hpp"

#include <deque>
#include <functional>
#include <memory>
#include <unordered_set>
#include <vector>

namespace statecached::test {

enum class Sabotage : std::uint8_t {
  none,
  sync_swallowed,      ///< fdatasync reports success and does nothing
  sync_early,          ///< fdatasync reports success before it is done
  write_early,         ///< a write reports success before it is done
  rows_early,          ///< a catalog batch reports success before it is durable
  deletes_early,       ///< the same for batches that only delete: extents are reused too soon
  deletes_lost,        ///< batches that only delete report success and are dropped
  rows_reordered,      ///< catalog batches become durable in another order than they were submitted
  rows_errors_hidden,  ///< a batch that failed reports success
  namespaces_lost,     ///< a batch's namespaces and domains are left out
  checksum_unread,     ///< verification after a read always succeeds
};

class SabotagedDisk final : public Disk {
 public:
  SabotagedDisk(Disk& inner, Sabotage how) : inner_(inner), how_(how) {}

  [[nodiscard]] std::uint64_t capacity() const noexcept override { return inner_.capacity(); }

  [[nodiscard]] bool submit(DiskOp& op) override {
    const bool early = (op.kind == DiskKind::sync && how_ == Sabotage::sync_early) ||
                       (op.kind == DiskKind::write && how_ == Sabotage::write_early);
    if (op.kind == DiskKind::sync && how_ == Sabotage::sync_swallowed) {
      done_.push_back({op.tag, 0, {}});
      return true;
    }
    if (!early) return inner_.submit(op);
    if (waiting_.size() >= 4) return false;
    done_.push_back({op.tag, 0, {}});
    op.tag = kEarly;
    waiting_.push_back(std::move(op));
    return true;
  }

  std::size_t poll(std::vector<DiskDone>& out) override {
    const std::size_t before = out.size();
    if (!waiting_.empty() && ++polls_ % 4 == 0 && inner_.submit(waiting_.front()))
      waiting_.pop_front();
    inner_.poll(out);
    std::erase_if(out, [](const DiskDone& done) { return done.tag == kEarly; });
    out.insert(out.end(), done_.begin(), done_.end());
    done_.clear();
    return out.size() - before;
  }

  void cancel(std::span<const std::uint64_t> tags) override { inner_.cancel(tags); }

  [[nodiscard]] DiskStats stats() const override { return inner_.stats(); }

  [[nodiscard]] const char* engine() const noexcept override { return "sabotaged"; }

 private:
  static constexpr std::uint64_t kEarly = UINT64_MAX;
  Disk& inner_;
  Sabotage how_;
  std::uint64_t polls_ = 0;
  std::deque<DiskOp> waiting_;
  std::vector<DiskDone> done_;
};

class SabotagedCatalog final : public Catalog {
 public:
  SabotagedCatalog(Catalog& inner, Sabotage how, std::uint64_t seed)
      : inner_(inner),
        how_(how),
        prng_(seed) {}

  [[nodiscard]] bool submit(CatalogBatch& batch) override {
    const bool deletes = batch.puts.empty();
    if (how_ == Sabotage::deletes_lost && deletes) {
      done_.push_back({batch.tag, true, {}});
      return true;
    }
    if (how_ == Sabotage::namespaces_lost && !deletes) {
      batch.namespaces.clear();
      batch.domains.clear();
    }
    const bool early = how_ == Sabotage::rows_early || (how_ == Sabotage::deletes_early && deletes);
    if (early) {
      done_.push_back({batch.tag, true, {}});
      batch.tag = kEarly;
    }
    // What was told too early lies about for a while, or it would seldom matter.
    if (early || how_ == Sabotage::rows_reordered) {
      waiting_.push_back(std::move(batch));
      return true;
    }
    return inner_.submit(batch);
  }

  std::size_t poll(std::vector<CatalogDone>& out) override {
    const std::size_t before = out.size();
    while (waiting_.size() > 4 || (!waiting_.empty() && prng_.chance(0.03))) {
      const std::size_t at = how_ == Sabotage::rows_reordered ? prng_.below(waiting_.size()) : 0;
      if (!inner_.submit(waiting_[at])) break;
      waiting_.erase(waiting_.begin() + static_cast<std::ptrdiff_t>(at));
    }
    inner_.poll(out);
    std::erase_if(out, [](const CatalogDone& done) { return done.tag == kEarly; });
    if (how_ == Sabotage::rows_errors_hidden) {
      for (CatalogDone& done : out)
        done.ok = true;
    }
    out.insert(out.end(), done_.begin(), done_.end());
    done_.clear();
    return out.size() - before;
  }

  [[nodiscard]] Result<> load_begin(const std::function<void(CatalogRow&&)>& row) override {
    return inner_.load_begin(row);
  }

  [[nodiscard]] Result<bool> load_some(std::size_t most,
                                       const std::function<void(CatalogRow&&)>& row) override {
    return inner_.load_some(most, row);
  }

  [[nodiscard]] CatalogStats stats() const override { return inner_.stats(); }

  void crash() {
    waiting_.clear();
    done_.clear();
  }

 private:
  static constexpr std::uint64_t kEarly = UINT64_MAX;
  Catalog& inner_;
  Sabotage how_;
  Prng prng_;
  std::deque<CatalogBatch> waiting_;
  std::vector<CatalogDone> done_;
};

}  // namespace statecached::test
