#include "tests/catalog/sample_rows.hpp"

#include <gtest/gtest.h>

#include <algorithm>

namespace statecached {
namespace {

using sample::bytes_of;
using sample::domain_row;
using sample::namespace_row;
using sample::object_row;

struct Encoded {
  std::string key;
  std::string value;
};

Encoded encoded(const NamespaceRow& row) {
  return {namespace_key(row.number), encode_row(row).value()};
}

Encoded encoded(const DomainRow& row) {
  return {domain_key(row.ns, row.number), encode_row(row).value()};
}

Encoded encoded(const ObjectRow& row) {
  return {object_key(row.ns, row.number), encode_row(row).value()};
}

std::vector<Encoded> one_of_each() {
  return {encoded(namespace_row(7, 99)), encoded(domain_row(7, 3)), encoded(object_row(7, 12))};
}

TEST(RowCodec, NamespaceComesBackWhole) {
  const NamespaceRow row = namespace_row(0x01020304, -5);
  const Encoded bytes = encoded(row);
  const auto decoded = decode_row(bytes.key, bytes.value);
  ASSERT_TRUE(decoded);
  const auto& back = std::get<NamespaceRow>(*decoded);
  EXPECT_EQ(back.number, row.number);
  EXPECT_EQ(back.generation, row.generation);
  EXPECT_EQ(back.trust_domain, row.trust_domain);
  EXPECT_EQ(back.last_used, row.last_used);
  EXPECT_EQ(back.spec.name, row.spec.name);
  EXPECT_EQ(back.spec.groups, row.spec.groups);
  EXPECT_EQ(back.spec.cost, row.spec.cost);
  EXPECT_EQ(back.spec.fingerprint(), row.spec.fingerprint());
}

TEST(RowCodec, DomainComesBackWhole) {
  const DomainRow row = domain_row(0xfffffffe, 0x10203040);
  const Encoded bytes = encoded(row);
  const auto decoded = decode_row(bytes.key, bytes.value);
  ASSERT_TRUE(decoded);
  const auto& back = std::get<DomainRow>(*decoded);
  EXPECT_EQ(back.ns, row.ns);
  EXPECT_EQ(back.number, row.number);
  EXPECT_EQ(back.domain, row.domain);
}

void expect_same(const ObjectRow& back, const ObjectRow& row) {
  EXPECT_EQ(back.ns, row.ns);
  EXPECT_EQ(back.number, row.number);
  EXPECT_EQ(back.generation, row.generation);
  EXPECT_EQ(back.domain, row.domain);
  EXPECT_EQ(back.group, row.group);
  EXPECT_EQ(back.first, row.first);
  EXPECT_EQ(back.end, row.end);
  EXPECT_EQ(back.id, row.id);
  EXPECT_EQ(back.parents, row.parents);
  EXPECT_EQ(back.symbols, row.symbols);
  EXPECT_EQ(back.marks, row.marks);
  EXPECT_EQ(back.payload_bytes, row.payload_bytes);
  EXPECT_EQ(back.tenant, row.tenant);
  ASSERT_EQ(back.extents.size(), row.extents.size());
  for (std::size_t i = 0; i < row.extents.size(); ++i) {
    EXPECT_EQ(back.extents[i].path, row.extents[i].path);
    EXPECT_EQ(back.extents[i].extent, row.extents[i].extent);
  }
  EXPECT_EQ(back.checksums, row.checksums);
  EXPECT_EQ(back.hits, row.hits);
  EXPECT_EQ(back.last_used, row.last_used);
}

TEST(RowCodec, ObjectsComeBackWhole) {
  for (std::uint64_t seed = 1; seed <= 300; ++seed) {
    SCOPED_TRACE(seed);
    const ObjectRow row =
        object_row(static_cast<std::uint32_t>(mix64(seed)), 1 + seed * seed * seed, seed);
    const Encoded bytes = encoded(row);
    const auto decoded = decode_row(bytes.key, bytes.value);
    ASSERT_TRUE(decoded) << decoded.error().message();
    expect_same(std::get<ObjectRow>(*decoded), row);
  }
  ObjectRow bare;
  bare.number = 1;
  const Encoded bytes = encoded(bare);
  const auto decoded = decode_row(bytes.key, bytes.value);
  ASSERT_TRUE(decoded);
  expect_same(std::get<ObjectRow>(*decoded), bare);
}

/// What the version before wrote: the same without its last fixed field.
TEST(RowCodec, ObjectsOfTheFirstVersionAreReadAsNobodys) {
  constexpr std::size_t kTenantAt = 55;
  ObjectRow row = object_row(3, 12);
  const Encoded bytes = encoded(row);
  std::string body = bytes.value.substr(0, bytes.value.size() - sizeof(std::uint64_t));
  body.erase(kTenantAt, sizeof row.tenant);
  body.front() = 1;
  const auto decoded = decode_row(bytes.key, seal_value(bytes.key, body));
  ASSERT_TRUE(decoded) << decoded.error().message();
  row.tenant = 0;
  expect_same(std::get<ObjectRow>(*decoded), row);
  body.front() = 3;
  EXPECT_FALSE(decode_row(bytes.key, seal_value(bytes.key, body)));
}

TEST(RowCodec, KeysSortParentsFirst) {
  const std::vector<std::string> ordered = {object_key(1, 1),
                                            object_key(1, 255),
                                            object_key(1, 256),
                                            object_key(1, 1ULL << 40U),
                                            object_key(2, 1),
                                            object_key(256, 1)};
  EXPECT_TRUE(std::is_sorted(ordered.begin(), ordered.end()));
  const KeyRange range = rows_of('O', 1);
  for (std::size_t i = 0; i < ordered.size(); ++i) {
    EXPECT_EQ(ordered[i] >= range.begin && ordered[i] < range.end, i < 4) << i;
  }
  const KeyRange last = rows_of('O', UINT32_MAX);
  EXPECT_LT(object_key(UINT32_MAX, UINT64_MAX), last.end);
  EXPECT_GE(object_key(UINT32_MAX, 0), last.begin);
  EXPECT_LT(last.end, rows_of('S').begin);
}

TEST(RowCodec, EveryTruncationIsFound) {
  for (const Encoded& row : one_of_each()) {
    for (std::size_t size = 0; size < row.value.size(); ++size) {
      const auto decoded = decode_row(row.key, std::string_view(row.value).substr(0, size));
      ASSERT_FALSE(decoded) << row.key.front() << " of " << size;
      ASSERT_EQ(decoded.error().code, Errc::corrupt);
    }
    EXPECT_FALSE(decode_row(row.key, row.value + "x"));
  }
}

TEST(RowCodec, EveryFlippedBitIsFound) {
  for (const Encoded& row : one_of_each()) {
    for (std::size_t bit = 0; bit < 8 * row.value.size(); ++bit) {
      std::string damaged = row.value;
      damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << (bit % 8)));
      const auto decoded = decode_row(row.key, damaged);
      ASSERT_FALSE(decoded) << row.key.front() << " bit " << bit;
      ASSERT_EQ(decoded.error().code, Errc::corrupt);
    }
    for (std::size_t bit = 0; bit < 8 * row.key.size(); ++bit) {
      std::string damaged = row.key;
      damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << (bit % 8)));
      ASSERT_FALSE(decode_row(damaged, row.value)) << row.key.front() << " key bit " << bit;
    }
  }
}

TEST(RowCodec, AValueUnderAnotherKeyIsFound) {
  EXPECT_FALSE(decode_row(object_key(7, 13), encoded(object_row(7, 12)).value));
  EXPECT_FALSE(decode_row(object_key(8, 12), encoded(object_row(7, 12)).value));
  EXPECT_FALSE(decode_row("", ""));
  EXPECT_FALSE(decode_row("Q1234", encoded(domain_row(1, 1)).value));
}

// Behind a checksum that holds, as hostile bytes would be: it may decode, but never to more than
// its bytes, and then it is exactly those bytes.
TEST(RowCodec, HostileBytesBehindAGoodChecksumAreHarmless) {
  Prng prng(42);
  std::size_t good = 0;
  std::size_t bad = 0;
  for (int round = 0; round < 60'000; ++round) {
    const Encoded row = round % 3 == 0 ? encoded(object_row(7, 2 + prng.below(9), prng.next()))
                                       : one_of_each()[prng.below(3)];
    std::string body = row.value.substr(0, row.value.size() - 8);
    for (std::uint64_t i = 1 + prng.below(4); i > 0; --i) {
      body[prng.below(body.size())] =
          static_cast<char>(prng.below(2) == 0 ? 0xff : prng.below(256));
    }
    if (prng.chance(0.2)) body.resize(prng.below(body.size() + 1));
    const std::string value = seal_value(row.key, body);
    const auto decoded = decode_row(row.key, value);
    if (decoded) {
      ++good;
      if (row.key.front() != 'N') {
        ASSERT_EQ(bytes_of(*decoded), value);
      }
    } else {
      ++bad;
      ASSERT_EQ(decoded.error().code, Errc::corrupt);
    }
  }
  EXPECT_GT(good, 1000U);
  EXPECT_GT(bad, 1000U);
}

TEST(RowCodec, RowsThatBreakALimitAreNotWritten) {
  const auto refused = [](auto&& change) {
    ObjectRow row = object_row(1, 50);
    change(row);
    const auto value = encode_row(row);
    return !value && value.error().code == Errc::invalid_argument;
  };
  EXPECT_FALSE(refused([](ObjectRow&) {}));
  EXPECT_TRUE(refused([](ObjectRow& r) {
    r.number = 0;
    r.parents.clear();
  }));
  EXPECT_TRUE(refused([](ObjectRow& r) { r.parents = {50}; }));
  EXPECT_TRUE(refused([](ObjectRow& r) { r.parents = {0}; }));
  EXPECT_TRUE(refused([](ObjectRow& r) { r.parents = {1, 2, 3, 4, 5}; }));
  EXPECT_TRUE(refused([](ObjectRow& r) { r.group = kGroupsMax; }));
  EXPECT_TRUE(refused([](ObjectRow& r) { r.first = r.end + 1; }));
  EXPECT_TRUE(refused([](ObjectRow& r) { r.checksums.resize(kShardsMax + 1); }));
  EXPECT_TRUE(refused([](ObjectRow& r) { r.extents[0].extent.bytes = 100; }));
  EXPECT_TRUE(refused([](ObjectRow& r) { r.extents[0].extent.bytes = 0; }));
  EXPECT_TRUE(refused([](ObjectRow& r) { r.extents[0].extent.offset = 0 - kPage; }));
  EXPECT_TRUE(refused([](ObjectRow& r) { r.extents[0].path = kCatalogPathsMax; }));
}

TEST(RowCodec, Meta) {
  CatalogMeta meta;
  meta.paths = {"0d9a", "", std::string(kCatalogPathNameMax, 'x')};
  const std::string value = encode_meta(meta).value();
  const auto back = decode_meta(value);
  ASSERT_TRUE(back);
  EXPECT_EQ(back->format, kFormatVersion);
  EXPECT_EQ(back->paths, meta.paths);
  for (std::size_t size = 0; size < value.size(); ++size) {
    EXPECT_FALSE(decode_meta(std::string_view(value).substr(0, size)));
  }
  for (std::size_t bit = 0; bit < 8 * value.size(); ++bit) {
    std::string damaged = value;
    damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << (bit % 8)));
    EXPECT_FALSE(decode_meta(damaged)) << bit;
  }
  meta.paths.emplace_back(kCatalogPathNameMax + 1, 'x');
  EXPECT_FALSE(encode_meta(meta));
  meta.paths.assign(kCatalogPathsMax + 1, "a");
  EXPECT_FALSE(encode_meta(meta));
}

TEST(RowCodec, MetaOfAnotherFormatTellsWhich) {
  CatalogMeta meta;
  meta.format = kFormatVersion + 1;
  meta.paths = {"a"};
  const auto back = decode_meta(encode_meta(meta).value());
  ASSERT_TRUE(back);
  EXPECT_EQ(back->format, kFormatVersion + 1);
  EXPECT_TRUE(back->paths.empty());
}

TEST(RowCodec, ScrubKeys) {
  std::uint32_t ns = 0;
  EXPECT_TRUE(parse_scrub_key(scrub_key(77), ns));
  EXPECT_EQ(ns, 77U);
  EXPECT_FALSE(parse_scrub_key("S123", ns));
  EXPECT_FALSE(parse_scrub_key(namespace_key(1), ns));
}

}  // namespace
}  // namespace statecached
