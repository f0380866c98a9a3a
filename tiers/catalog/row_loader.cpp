#include "tiers/catalog/row_loader.hpp"

#include "base/log.hpp"
#include "tiers/catalog/row_codec.hpp"

#include <algorithm>

namespace statecached {
namespace {

/// Decodes the rows of one range and hands them on; keys of the others go to `bad`.
template <class Take>
Result<> scan(RowCursor& cursor,
              const KeyRange& range,
              std::vector<std::string>& bad,
              Take&& take) {
  for (cursor.seek(range.begin); cursor.valid() && cursor.key() < range.end; cursor.next()) {
    auto row = decode_row(cursor.key(), cursor.value());
    if (row) {
      take(std::move(*row));
    } else {
      // One line is enough to see what it is; a damaged range would fill the log.
      if (bad.empty()) log::warn("{}; it is dropped", row.error().message());
      bad.emplace_back(cursor.key());
    }
  }
  return cursor.status();
}

Result<> collect(RowCursor& cursor,
                 std::string_view begin,
                 std::string_view end,
                 std::vector<std::string>& keys) {
  for (cursor.seek(begin); cursor.valid() && cursor.key() < end; cursor.next()) {
    keys.emplace_back(cursor.key());
  }
  return cursor.status();
}

/// Rows between those of the namespaces that exist: nobody will ever ask for them again.
Result<> collect_orphans(RowCursor& cursor,
                         const std::vector<NamespaceRow>& namespaces,
                         std::vector<std::string>& keys) {
  std::vector<std::uint32_t> numbers;
  for (const NamespaceRow& ns : namespaces)
    numbers.push_back(ns.number);
  std::sort(numbers.begin(), numbers.end());
  for (const char letter : {'D', 'O'}) {
    KeyRange gap = rows_of(letter);
    const std::string last = gap.end;
    for (const std::uint32_t number : numbers) {
      KeyRange own = rows_of(letter, number);
      SC_TRY(collect(cursor, gap.begin, own.begin, keys));
      gap.begin = std::move(own.end);
    }
    SC_TRY(collect(cursor, gap.begin, last, keys));
  }
  return {};
}

}  // namespace

Result<std::vector<std::string>> load_rows(RowCursor& cursor,
                                           const std::function<void(CatalogRow&&)>& row) {
  std::vector<std::string> bad;
  std::vector<NamespaceRow> namespaces;
  SC_TRY(scan(cursor, rows_of('N'), bad, [&](CatalogRow&& found) {
    namespaces.push_back(std::get<NamespaceRow>(std::move(found)));
  }));
  SC_TRY(collect_orphans(cursor, namespaces, bad));
  std::stable_sort(
      namespaces.begin(), namespaces.end(), [](const NamespaceRow& a, const NamespaceRow& b) {
        return a.last_used > b.last_used;
      });
  for (NamespaceRow& ns : namespaces) {
    const std::uint32_t number = ns.number;
    row(CatalogRow(std::move(ns)));
    for (const char letter : {'D', 'O'}) {
      SC_TRY(scan(cursor, rows_of(letter, number), bad, [&](CatalogRow&& found) {
        row(std::move(found));
      }));
    }
  }
  return bad;
}

}  // namespace statecached
