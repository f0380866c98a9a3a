#pragma once
// h(p) and object ids (design.md 4): SHA-256 chained over symbols and marks in steps of kChainStep.

#include "base/ids.hpp"
#include "base/spec.hpp"

#include <cstdint>
#include <span>

namespace statecached {

/// The chain over one sequence, advanced in order. Value type: copy it to fork.
///   link(0) = SHA-256("statecached chain" || format version)
///   link(k+1) = SHA-256(link(k) || symbols [64k, 64k+64) || marks that reach into that cell)
///   h(p) = SHA-256(link(p / 64) || remaining p % 64 symbols || marks that reach into them || p)
/// A mark is hashed as (at, where it ends in this cell, content), so that h(p) says all about [0,
/// p) and nothing about what follows: blocks that end inside an image differ with the image.
/// Numbers are 32-bit little-endian. Marks must be in ascending order and disjoint.
class IdChain {
 public:
  IdChain();

  /// Positions hashed in so far, a multiple of kChainStep.
  [[nodiscard]] std::uint32_t position() const noexcept { return position_; }

  [[nodiscard]] const Digest& link() const noexcept { return link_; }

  /// Hashes whole cells of `tokens` (the whole sequence from 0) until position() == p rounded down.
  void advance(std::span<const Token> tokens, std::span<const Mark> marks, std::uint32_t p);
  /// h(p); requires position() <= p < position() + kChainStep or advances a copy.
  [[nodiscard]] Digest at(std::span<const Token> tokens,
                          std::span<const Mark> marks,
                          std::uint32_t p) const;

 private:
  std::uint32_t position_ = 0;
  Digest link_;
};

struct ObjectName {
  Digest fingerprint;
  std::uint32_t generation = 0;
  std::uint32_t trust_domain = 0;
  Domain domain;
  std::uint16_t group = 0;
  std::uint32_t first = 0;
  std::uint32_t end = 0;
};

/// First 128 bits of SHA-256(name || h(end)).
[[nodiscard]] ObjectId object_id(const ObjectName& name, const Digest& h_end);

[[nodiscard]] Digest sha256(std::span<const std::byte> bytes);

}  // namespace statecached
