#include "tiers/catalog/row_codec.hpp"

#include <fmt/format.h>

#include <concepts>
#include <cstring>
#include <span>
#include <type_traits>

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace statecached {
namespace {

constexpr std::uint8_t kRowVersion = 1;
/// From 2 on a row of an object says whose it is.
constexpr std::uint8_t kObjectVersion = 2;
constexpr std::size_t kSealBytes = 8;
constexpr std::size_t kMarkBytes = 44;  // without its reserved word
constexpr std::size_t kExtentBytes = 18;

std::uint64_t seal_of(std::string_view key, std::string_view body) noexcept {
  return XXH3_64bits_withSeed(body.data(), body.size(), XXH3_64bits(key.data(), key.size()));
}

template <std::unsigned_integral T>
void put_big(std::string& out, T value) {
  for (std::size_t i = sizeof(T); i-- > 0;) {
    out.push_back(static_cast<char>(static_cast<unsigned char>(value >> (8 * i))));
  }
}

template <std::unsigned_integral T>
T get_big(std::string_view bytes) noexcept {
  T value = 0;
  for (std::size_t i = 0; i < sizeof(T); ++i) {
    value = static_cast<T>(static_cast<std::uint64_t>(value) << 8U |
                           static_cast<unsigned char>(bytes[i]));
  }
  return value;
}

class Writer {
 public:
  explicit Writer(std::size_t expected) { out_.reserve(expected + kSealBytes); }

  template <std::integral T>
  void number(T value) {
    const auto bits = static_cast<std::make_unsigned_t<T>>(value);
    for (std::size_t i = 0; i < sizeof(T); ++i) {
      out_.push_back(static_cast<char>(static_cast<unsigned char>(bits >> (8 * i))));
    }
  }

  void bytes(std::span<const std::byte> data) {
    const std::size_t at = out_.size();
    out_.resize(at + data.size());
    if (!data.empty()) std::memcpy(out_.data() + at, data.data(), data.size());
  }

  void text(std::string_view data) { out_.append(data); }

  [[nodiscard]] std::string take() { return std::move(out_); }

 private:
  std::string out_;
};

/// Reads what Writer wrote. After a read past the end every value is zero and ok() is false.
class Reader {
 public:
  explicit Reader(std::string_view data) : data_(data) {}

  template <std::integral T>
  T number() {
    std::make_unsigned_t<T> bits = 0;
    const std::string_view raw = take(sizeof(T));
    if (!ok_) return T{0};
    for (std::size_t i = sizeof(T); i-- > 0;) {
      bits = static_cast<std::make_unsigned_t<T>>(static_cast<std::uint64_t>(bits) << 8U |
                                                  static_cast<unsigned char>(raw[i]));
    }
    return static_cast<T>(bits);
  }

  void bytes(std::span<std::byte> into) {
    const std::string_view raw = take(into.size());
    if (ok_ && !raw.empty()) std::memcpy(into.data(), raw.data(), raw.size());
  }

  std::string_view take(std::size_t size) {
    if (!ok_ || data_.size() < size) {
      ok_ = false;
      return {};
    }
    const std::string_view out = data_.substr(0, size);
    data_.remove_prefix(size);
    return out;
  }

  /// A count of items of `each` bytes that must still be there; 0 and not ok() when they are not.
  std::size_t count(std::uint64_t claimed, std::size_t each) {
    if (!ok_ || claimed > data_.size() / each) ok_ = false;
    return ok_ ? static_cast<std::size_t>(claimed) : 0;
  }

  [[nodiscard]] bool ok() const noexcept { return ok_; }

  /// Everything was read, and nothing is left over.
  [[nodiscard]] bool complete() const noexcept { return ok_ && data_.empty(); }

 private:
  std::string_view data_;
  bool ok_ = true;
};

/// What is wrong with a row, or nullptr. The same for writing and reading.
const char* fault_of(const ObjectRow& row) noexcept {
  if (row.number == 0) return "its number is 0";
  if (row.group >= kGroupsMax) return "its group is out of range";
  if (row.first > row.end) return "its first token lies behind its end";
  if (row.parents.size() > kEveryGroupsMax) return "it has too many parents";
  for (const ObjectNumber parent : row.parents) {
    if (parent == 0 || parent >= row.number) return "a parent's number is not smaller than its own";
  }
  if (row.checksums.size() > kShardsMax) return "it has too many shards";
  for (const DiskExtent& part : row.extents) {
    if (part.path >= kCatalogPathsMax) return "a drive path is out of range";
    if (part.extent.bytes == 0 || part.extent.bytes % kPage != 0 ||
        part.extent.offset % kPage != 0 ||
        part.extent.offset + part.extent.bytes < part.extent.offset) {
      return "an extent is not a run of pages";
    }
  }
  return nullptr;
}

tl::unexpected<Error> corrupt(const char* what, const char* why) {
  return fail(Errc::corrupt, fmt::format("catalog row of {}: {}", what, why));
}

/// The body of a value whose checksum holds for this key, without its version.
Result<std::string_view> unseal(std::string_view key,
                                std::string_view value,
                                const char* what,
                                std::uint8_t newest = kRowVersion) {
  if (value.size() < kSealBytes + 1) return corrupt(what, "too short");
  Reader seal(value.substr(value.size() - kSealBytes));
  value.remove_suffix(kSealBytes);
  if (seal.number<std::uint64_t>() != seal_of(key, value)) {
    return corrupt(what, "its checksum does not match");
  }
  const auto version = static_cast<std::uint8_t>(value.front());
  if (version < kRowVersion || version > newest) {
    return corrupt(what, "of an unknown row version");
  }
  return value.substr(1);
}

Result<CatalogRow> decode_namespace(std::string_view key, std::string_view value) {
  SC_ASSIGN(const std::string_view body, unseal(key, value, "a namespace"));
  Reader in(body);
  NamespaceRow row;
  row.number = get_big<std::uint32_t>(key.substr(1));
  row.generation = in.number<std::uint32_t>();
  row.trust_domain = in.number<std::uint32_t>();
  row.last_used = in.number<std::int64_t>();
  const std::string_view spec = in.take(in.count(in.number<std::uint32_t>(), 1));
  if (!in.complete()) return corrupt("a namespace", "its lengths do not fit");
  auto decoded = decode_spec(std::as_bytes(std::span(spec.data(), spec.size())));
  if (!decoded) return corrupt("a namespace", decoded.error().text.c_str());
  row.spec = std::move(*decoded);
  return CatalogRow(std::move(row));
}

Result<CatalogRow> decode_domain(std::string_view key, std::string_view value) {
  SC_ASSIGN(const std::string_view body, unseal(key, value, "a domain"));
  Reader in(body);
  DomainRow row;
  row.ns = get_big<std::uint32_t>(key.substr(1));
  row.number = get_big<std::uint32_t>(key.substr(5));
  in.bytes(row.domain.adapter.bytes);
  in.bytes(row.domain.salt.bytes);
  if (!in.complete()) return corrupt("a domain", "its lengths do not fit");
  return CatalogRow(row);
}

void read_arrays(Reader& in, ObjectRow& row) {
  row.parents.resize(in.count(in.number<std::uint8_t>(), sizeof(ObjectNumber)));
  for (ObjectNumber& parent : row.parents)
    parent = in.number<ObjectNumber>();
  row.checksums.resize(in.count(in.number<std::uint16_t>(), sizeof(Checksum)));
  for (Checksum& sum : row.checksums) {
    sum.low = in.number<std::uint64_t>();
    sum.high = in.number<std::uint64_t>();
  }
  row.marks.resize(in.count(in.number<std::uint32_t>(), kMarkBytes));
  for (Mark& mark : row.marks) {
    mark.at = in.number<std::uint32_t>();
    mark.length = in.number<std::uint32_t>();
    in.bytes(mark.content.bytes);
    mark.atomic = in.number<std::uint32_t>();
  }
  row.extents.resize(in.count(in.number<std::uint32_t>(), kExtentBytes));
  for (DiskExtent& part : row.extents) {
    part.path = in.number<std::uint16_t>();
    part.extent.offset = in.number<std::uint64_t>();
    part.extent.bytes = in.number<std::uint64_t>();
  }
  row.symbols.resize(in.count(in.number<std::uint32_t>(), sizeof(Token)));
  for (Token& symbol : row.symbols)
    symbol = in.number<Token>();
}

Result<CatalogRow> decode_object(std::string_view key, std::string_view value) {
  SC_ASSIGN(const std::string_view body, unseal(key, value, "an object", kObjectVersion));
  Reader in(body);
  ObjectRow row;
  row.ns = get_big<std::uint32_t>(key.substr(1));
  row.number = get_big<std::uint64_t>(key.substr(5));
  row.generation = in.number<std::uint32_t>();
  row.domain = in.number<std::uint32_t>();
  row.group = in.number<std::uint16_t>();
  row.first = in.number<std::uint32_t>();
  row.end = in.number<std::uint32_t>();
  row.id.low = in.number<std::uint64_t>();
  row.id.high = in.number<std::uint64_t>();
  row.payload_bytes = in.number<std::uint64_t>();
  row.hits = in.number<std::uint32_t>();
  row.last_used = in.number<std::int64_t>();
  if (value.front() >= kObjectVersion) row.tenant = in.number<std::uint32_t>();
  read_arrays(in, row);
  if (!in.complete()) return corrupt("an object", "its lengths do not fit");
  if (const char* fault = fault_of(row)) return corrupt("an object", fault);
  return CatalogRow(std::move(row));
}

std::string key_of(char letter, std::uint32_t ns) {
  std::string key(1, letter);
  put_big(key, ns);
  return key;
}

}  // namespace

std::string meta_key() {
  return "M";
}

std::string namespace_key(std::uint32_t ns) {
  return key_of('N', ns);
}

std::string scrub_key(std::uint32_t ns) {
  return key_of('S', ns);
}

std::string domain_key(std::uint32_t ns, std::uint32_t domain) {
  std::string key = key_of('D', ns);
  put_big(key, domain);
  return key;
}

std::string object_key(std::uint32_t ns, ObjectNumber number) {
  std::string key = key_of('O', ns);
  put_big(key, number);
  return key;
}

bool parse_scrub_key(std::string_view key, std::uint32_t& ns) noexcept {
  if (key.size() != 5 || key.front() != 'S') return false;
  ns = get_big<std::uint32_t>(key.substr(1));
  return true;
}

KeyRange rows_of(char letter) {
  return {std::string(1, letter), std::string(1, static_cast<char>(letter + 1))};
}

KeyRange rows_of(char letter, std::uint32_t ns) {
  return {key_of(letter, ns), ns == UINT32_MAX ? rows_of(letter).end : key_of(letter, ns + 1)};
}

std::string seal_value(std::string_view key, std::string body) {
  const std::uint64_t seal = seal_of(key, body);
  for (std::size_t i = 0; i < kSealBytes; ++i) {
    body.push_back(static_cast<char>(static_cast<unsigned char>(seal >> (8 * i))));
  }
  return body;
}

Result<std::string> encode_row(const NamespaceRow& row) {
  if (const auto valid = row.spec.validate(); !valid) {
    return fail(Errc::invalid_argument,
                fmt::format("namespace {} cannot be recorded: {}", row.number, valid.error().text));
  }
  const std::vector<std::byte> spec = encode(row.spec);
  Writer out(21 + spec.size());
  out.number(kRowVersion);
  out.number(row.generation);
  out.number(row.trust_domain);
  out.number(row.last_used);
  out.number(static_cast<std::uint32_t>(spec.size()));
  out.bytes(spec);
  return seal_value(namespace_key(row.number), out.take());
}

Result<std::string> encode_row(const DomainRow& row) {
  Writer out(1 + sizeof(Domain));
  out.number(kRowVersion);
  out.bytes(row.domain.adapter.bytes);
  out.bytes(row.domain.salt.bytes);
  return seal_value(domain_key(row.ns, row.number), out.take());
}

Result<std::string> encode_row(const ObjectRow& row) {
  if (const char* fault = fault_of(row)) {
    return fail(
        Errc::invalid_argument,
        fmt::format("object {} of namespace {} cannot be recorded: {}", row.number, row.ns, fault));
  }
  Writer out(84 + row.parents.size() * sizeof(ObjectNumber) +
             row.checksums.size() * sizeof(Checksum) + row.marks.size() * kMarkBytes +
             row.extents.size() * kExtentBytes + row.symbols.size() * sizeof(Token));
  out.number(kObjectVersion);
  out.number(row.generation);
  out.number(row.domain);
  out.number(row.group);
  out.number(row.first);
  out.number(row.end);
  out.number(row.id.low);
  out.number(row.id.high);
  out.number(row.payload_bytes);
  out.number(row.hits);
  out.number(row.last_used);
  out.number(row.tenant);
  out.number(static_cast<std::uint8_t>(row.parents.size()));
  for (const ObjectNumber parent : row.parents)
    out.number(parent);
  out.number(static_cast<std::uint16_t>(row.checksums.size()));
  for (const Checksum& sum : row.checksums) {
    out.number(sum.low);
    out.number(sum.high);
  }
  out.number(static_cast<std::uint32_t>(row.marks.size()));
  for (const Mark& mark : row.marks) {
    out.number(mark.at);
    out.number(mark.length);
    out.bytes(mark.content.bytes);
    out.number(mark.atomic);
  }
  out.number(static_cast<std::uint32_t>(row.extents.size()));
  for (const DiskExtent& part : row.extents) {
    out.number(part.path);
    out.number(part.extent.offset);
    out.number(part.extent.bytes);
  }
  out.number(static_cast<std::uint32_t>(row.symbols.size()));
  for (const Token symbol : row.symbols)
    out.number(symbol);
  return seal_value(object_key(row.ns, row.number), out.take());
}

Result<std::string> encode_meta(const CatalogMeta& meta) {
  if (meta.paths.size() > kCatalogPathsMax) {
    return fail(Errc::no_space,
                fmt::format("{} drive paths are more than the {} a catalog can tell apart",
                            meta.paths.size(),
                            kCatalogPathsMax));
  }
  Writer out(64);
  out.number(kRowVersion);
  out.number(meta.format);
  out.number(static_cast<std::uint16_t>(meta.paths.size()));
  for (const std::string& path : meta.paths) {
    if (path.size() > kCatalogPathNameMax) {
      return fail(Errc::invalid_argument,
                  fmt::format("the identity of a drive path has {} bytes, at most {} fit",
                              path.size(),
                              kCatalogPathNameMax));
    }
    out.number(static_cast<std::uint8_t>(path.size()));
    out.text(path);
  }
  return seal_value(meta_key(), out.take());
}

Result<CatalogRow> decode_row(std::string_view key, std::string_view value) {
  const char letter = key.empty() ? '\0' : key.front();
  if (letter == 'N' && key.size() == 5) return decode_namespace(key, value);
  if (letter == 'D' && key.size() == 9) return decode_domain(key, value);
  if (letter == 'O' && key.size() == 13) return decode_object(key, value);
  return corrupt("an unknown kind", "its key has no known form");
}

Result<CatalogMeta> decode_meta(std::string_view value) {
  SC_ASSIGN(const std::string_view body, unseal(meta_key(), value, "the format"));
  Reader in(body);
  CatalogMeta meta;
  meta.format = in.number<std::uint32_t>();
  if (!in.ok()) return corrupt("the format", "too short");
  if (meta.format != kFormatVersion) return meta;
  const auto count = in.number<std::uint16_t>();
  if (count > kCatalogPathsMax) return corrupt("the format", "too many drive paths");
  for (std::size_t i = in.count(count, 1); i > 0 && in.ok(); --i) {
    meta.paths.emplace_back(in.take(in.number<std::uint8_t>()));
  }
  if (!in.complete()) return corrupt("the format", "its lengths do not fit");
  return meta;
}

Result<std::vector<RowChange>> encode_changes(const CatalogBatch& batch) {
  using Kind = RowChange::Kind;
  std::vector<RowChange> out;
  out.reserve(batch.namespaces.size() + batch.domains.size() + batch.puts.size() +
              batch.deletes.size() + batch.drop_namespaces.size());
  for (const NamespaceRow& row : batch.namespaces) {
    SC_ASSIGN(std::string value, encode_row(row));
    out.push_back({Kind::put, namespace_key(row.number), std::move(value), row.number});
  }
  for (const DomainRow& row : batch.domains) {
    SC_ASSIGN(std::string value, encode_row(row));
    out.push_back({Kind::put, domain_key(row.ns, row.number), std::move(value), row.ns});
  }
  for (const ObjectRow& row : batch.puts) {
    SC_ASSIGN(std::string value, encode_row(row));
    out.push_back({Kind::put, object_key(row.ns, row.number), std::move(value), row.ns});
  }
  for (const ObjectKey& key : batch.deletes) {
    out.push_back({Kind::erase, object_key(key.ns, key.number), {}, key.ns});
  }
  for (const std::uint32_t ns : batch.drop_namespaces)
    out.push_back({Kind::drop_namespace, {}, {}, ns});
  return out;
}

}  // namespace statecached
