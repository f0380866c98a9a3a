#include "tiers/catalog/row_loader.hpp"

#include "base/log.hpp"
#include "tiers/catalog/row_codec.hpp"

#include <algorithm>

namespace statecached {
namespace {

/// Decodes the rows of one range and hands them on while `take` wants more; keys of the others go
/// to `bad`.
template <class Take>
Result<> scan(RowCursor& cursor,
              const KeyRange& range,
              std::vector<std::string>& bad,
              Take&& take) {
  for (cursor.seek(range.begin); cursor.valid() && cursor.key() < range.end; cursor.next()) {
    auto row = decode_row(cursor.key(), cursor.value());
    if (row) {
      if (!take(std::move(*row))) return {};
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

/// All namespaces, hottest first.
Result<std::vector<NamespaceRow>> load_namespaces(RowCursor& cursor,
                                                  std::vector<std::string>& bad) {
  std::vector<NamespaceRow> out;
  SC_TRY(scan(cursor, rows_of('N'), bad, [&](CatalogRow&& found) {
    out.push_back(std::get<NamespaceRow>(std::move(found)));
    return true;
  }));
  SC_TRY(collect_orphans(cursor, out, bad));
  std::stable_sort(out.begin(), out.end(), [](const NamespaceRow& a, const NamespaceRow& b) {
    return a.last_used > b.last_used;
  });
  return out;
}

Result<> load_domains(RowCursor& cursor,
                      std::uint32_t ns,
                      const std::function<void(CatalogRow&&)>& row,
                      std::vector<std::string>& bad) {
  return scan(cursor, rows_of('D', ns), bad, [&](CatalogRow&& found) {
    row(std::move(found));
    return true;
  });
}

}  // namespace

Result<LoadedHeads> load_heads(RowCursor& cursor, const std::function<void(CatalogRow&&)>& row) {
  LoadedHeads out;
  SC_ASSIGN(std::vector<NamespaceRow> namespaces, load_namespaces(cursor, out.bad));
  for (NamespaceRow& ns : namespaces) {
    const std::uint32_t number = ns.number;
    out.namespaces.push_back(number);
    row(CatalogRow(std::move(ns)));
    SC_TRY(load_domains(cursor, number, row, out.bad));
  }
  return out;
}

Result<> load_objects(RowCursor& cursor,
                      std::uint32_t ns,
                      const std::function<bool(CatalogRow&&)>& row,
                      std::vector<std::string>& bad) {
  return scan(cursor, rows_of('O', ns), bad, row);
}

}  // namespace statecached
