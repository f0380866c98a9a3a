#pragma once
// The order in which a Catalog loads, once for every implementation: it is part of the contract.

#include "tiers/catalog.hpp"

#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace statecached {

/// A walk over a sorted table of rows. Views hold until the next seek() or next().
class RowCursor {
 public:
  RowCursor() = default;
  RowCursor(const RowCursor&) = delete;
  RowCursor& operator=(const RowCursor&) = delete;
  virtual ~RowCursor() = default;
  /// To the first row whose key is not less.
  virtual void seek(std::string_view key) = 0;
  virtual void next() = 0;
  [[nodiscard]] virtual bool valid() const = 0;
  [[nodiscard]] virtual std::string_view key() const = 0;
  [[nodiscard]] virtual std::string_view value() const = 0;
  /// Why valid() is false: the end, or an error.
  [[nodiscard]] virtual Result<> status() const = 0;
};

/// What load_heads() found.
struct LoadedHeads {
  std::vector<std::uint32_t> namespaces;  ///< hottest first
  /// Keys of rows that must be dropped: those that do not decode, and those of a namespace that is
  /// not there.
  std::vector<std::string> bad;
};

/// Hands out the namespaces, hottest first, each with its domains.
[[nodiscard]] Result<LoadedHeads> load_heads(RowCursor& cursor,
                                             const std::function<void(CatalogRow&&)>& row);
/// Hands out the objects of one namespace, by number, while `row` returns true; appends the keys of
/// those that do not decode.
[[nodiscard]] Result<> load_objects(RowCursor& cursor,
                                    std::uint32_t ns,
                                    const std::function<bool(CatalogRow&&)>& row,
                                    std::vector<std::string>& bad);

}  // namespace statecached
