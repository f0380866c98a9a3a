#pragma once
// Names of things. Digests are SHA-256; ids are its first 128 bits; tickets are random.

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <string>

namespace statecached {

using Token = std::uint32_t;

/// A SHA-256 digest, or a caller's 32 bytes.
struct Digest {
  std::array<std::byte, 32> bytes{};
  friend auto operator<=>(const Digest&, const Digest&) = default;
};

/// 128 bits, as two little-endian words. ObjectId: first 128 bits of the SHA-256 of design.md 4.
struct Id128 {
  std::uint64_t low = 0;
  std::uint64_t high = 0;
  friend auto operator<=>(const Id128&, const Id128&) = default;

  [[nodiscard]] bool is_zero() const noexcept { return (low | high) == 0; }
};

using ObjectId = Id128;
using TicketName = Id128;

/// Tokens [at, at+length) stand for other content (an image). Plain bytes: it crosses the wire.
struct Mark {
  std::uint32_t at = 0;
  std::uint32_t length = 0;
  Digest content;
  std::uint32_t atomic = 0;  ///< 1: never resumed strictly inside
  std::uint32_t reserved = 0;
  friend bool operator==(const Mark&, const Mark&) = default;
};

static_assert(sizeof(Mark) == 48);

/// What else selects content, given with each request. Each domain has its own root.
struct Domain {
  Digest adapter;
  Digest salt;
  friend auto operator<=>(const Domain&, const Domain&) = default;
};

static_assert(sizeof(Domain) == 64);

[[nodiscard]] std::string to_hex(const Digest& digest, std::size_t bytes = 32);
[[nodiscard]] std::string to_hex(const Id128& id);
/// Parses what to_hex(Id128) printed; false when it is not 32 hexadecimal digits.
[[nodiscard]] bool parse_hex(std::string_view text, Id128& out) noexcept;
[[nodiscard]] bool parse_hex(std::string_view text, Digest& out) noexcept;

}  // namespace statecached

template <>
struct std::hash<statecached::Id128> {
  std::size_t operator()(const statecached::Id128& id) const noexcept {
    return id.low ^ (id.high * 0x9e3779b97f4a7c15ULL);
  }
};

template <>
struct std::hash<statecached::Digest> {
  std::size_t operator()(const statecached::Digest& digest) const noexcept {
    std::size_t value = 0;
    std::memcpy(&value, digest.bytes.data(), sizeof value);
    return value;
  }
};
