#pragma once
// Which drive is which. Catalog rows name drives by number; people reorder, add and remove paths.
// The catalog keeps the identity behind each number: a drive keeps its number wherever it is
// listed, rows of one that has gone are deleted before its number is given to another.

#include "tiers/catalog.hpp"
#include "tiers/catalog/rocks_catalog.hpp"
#include "tiers/disk.hpp"

#include <memory>
#include <string>
#include <unordered_set>
#include <vector>

namespace statecached {

/// For each number, the index into `present` of the drive that has it; kGone: it is not there.
inline constexpr std::size_t kGone = static_cast<std::size_t>(-1);

struct DriveNumbers {
  std::vector<std::size_t> drives;
  std::vector<std::string> uuids;             ///< to record
  std::unordered_set<std::uint16_t> changed;  ///< rows that name these are void
};

[[nodiscard]] DriveNumbers number_drives(const std::vector<std::string>& recorded,
                                         const std::vector<std::string>& present);

/// Stands for a drive that is not there, so that the others keep their numbers: no space, every
/// transfer fails.
[[nodiscard]] std::unique_ptr<Disk> make_gone_disk();

/// The catalog as the Cache sees it: load_some() leaves out rows of drives that have changed,
/// deletes them durably, then records the drives. Everything else goes straight through.
class NumberedCatalog final : public Catalog {
 public:
  NumberedCatalog(RocksCatalog& inner, DriveNumbers numbers)
      : inner_(inner),
        numbers_(std::move(numbers)) {}

  [[nodiscard]] bool submit(CatalogBatch& batch) override { return inner_.submit(batch); }

  std::size_t poll(std::vector<CatalogDone>& out) override;

  [[nodiscard]] Result<> load_begin(const std::function<void(CatalogRow&&)>& row) override {
    return inner_.load_begin(row);
  }

  [[nodiscard]] Result<bool> load_some(std::size_t most,
                                       const std::function<void(CatalogRow&&)>& row) override;

  [[nodiscard]] CatalogStats stats() const override { return inner_.stats(); }

 private:
  [[nodiscard]] Result<> remove(std::vector<ObjectKey> keys);
  [[nodiscard]] bool lost(const CatalogRow& row);
  [[nodiscard]] Result<> settle();

  RocksCatalog& inner_;
  DriveNumbers numbers_;
  std::vector<ObjectKey> gone_;    ///< rows of drives that have changed
  std::vector<CatalogDone> kept_;  ///< completions that remove() met and that are not its own
};

}  // namespace statecached
