#pragma once
// Bytes of catalog rows. Keys are big-endian, so that their order is the order in which rows are
// loaded; values are versioned and little-endian and end in a checksum that also covers the key, so
// that a torn, altered or misplaced row is never taken for a good one. Pure functions, any thread.
//
//   'M'                          CatalogMeta
//   'N' namespace                NamespaceRow
//   'D' namespace domain         DomainRow
//   'O' namespace number         ObjectRow (number: 8 bytes, the others 4)
//   'S' namespace                empty: a dropped namespace whose bytes may still be in files

#include "tiers/catalog.hpp"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace statecached {

inline constexpr std::size_t kCatalogPathsMax = 256;     ///< drive paths ever recorded
inline constexpr std::size_t kCatalogPathNameMax = 255;  ///< bytes of one identity

/// What the whole catalog is made for.
struct CatalogMeta {
  std::uint32_t format = kFormatVersion;
  std::vector<std::string> paths;  ///< identities of drive paths; the index is DiskExtent::path
};

[[nodiscard]] std::string meta_key();
[[nodiscard]] std::string namespace_key(std::uint32_t ns);
[[nodiscard]] std::string domain_key(std::uint32_t ns, std::uint32_t domain);
[[nodiscard]] std::string object_key(std::uint32_t ns, ObjectNumber number);
[[nodiscard]] std::string scrub_key(std::uint32_t ns);
/// The namespace of a key made by scrub_key(); false when it is none.
[[nodiscard]] bool parse_scrub_key(std::string_view key, std::uint32_t& ns) noexcept;

/// Keys in [begin, end).
struct KeyRange {
  std::string begin;
  std::string end;
};

/// All rows of one letter: 'N', 'D', 'O' or 'S'.
[[nodiscard]] KeyRange rows_of(char letter);
/// The rows of one letter that belong to one namespace.
[[nodiscard]] KeyRange rows_of(char letter, std::uint32_t ns);

/// Values. Errc::invalid_argument for a row that breaks a limit (parents of kEveryGroupsMax that
/// are smaller than the row, shards of kShardsMax, extents of whole pages, a valid NamespaceSpec),
/// since it would not decode.
[[nodiscard]] Result<std::string> encode_row(const NamespaceRow& row);
[[nodiscard]] Result<std::string> encode_row(const DomainRow& row);
[[nodiscard]] Result<std::string> encode_row(const ObjectRow& row);
[[nodiscard]] Result<std::string> encode_meta(const CatalogMeta& meta);

/// A row by its key and value, both of which may be anything: Errc::corrupt unless they are what
/// encode_row() made for this key. The limits above are checked again.
[[nodiscard]] Result<CatalogRow> decode_row(std::string_view key, std::string_view value);
/// Of another format only `format` is filled in.
[[nodiscard]] Result<CatalogMeta> decode_meta(std::string_view value);

/// Appends the checksum that makes a value of `body` for `key`.
[[nodiscard]] std::string seal_value(std::string_view key, std::string body);

/// One change to the table of rows.
struct RowChange {
  enum class Kind : std::uint8_t { put, erase, drop_namespace };
  Kind kind = Kind::put;
  std::string key;       ///< of put and erase
  std::string value;     ///< of put
  std::uint32_t ns = 0;  ///< of drop_namespace
};

/// The changes of a batch in the order in which they take effect: namespaces, domains, puts,
/// deletes, drops.
[[nodiscard]] Result<std::vector<RowChange>> encode_changes(const CatalogBatch& batch);

}  // namespace statecached
