#pragma once
// Bytes that stand for a model's state, as a function of the namespace and the tokens alone, so
// that whoever restores a piece can tell whether it is the right one, whole, and in its place.
//
// A rolling hash h(p) covers tokens [0, p). The KV of the token at position t is a stream of h(t+1)
// and the group; a checkpoint after p tokens is a stream of h(p) and the group. So a KV block's
// payload is token-major, and a longer block serves for the tokens that it shares with another
// sequence, as real KV does. Made and checked at the speed of memory.
//
// A Payload belongs to one thread. Sizes in bytes, positions in tokens.

#include "base/ids.hpp"

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace statecached {

/// One object's payload. A KV block: tokens [first, end), `unit` bytes each. A checkpoint: first ==
/// end, `unit` bytes in all.
struct PayloadShape {
  std::uint16_t group = 0;
  std::uint32_t first = 0;
  std::uint32_t end = 0;
  std::uint64_t unit = 0;

  [[nodiscard]] std::uint64_t bytes() const noexcept {
    return first == end ? unit : (end - first) * unit;
  }
};

class Payload {
 public:
  explicit Payload(std::uint64_t namespace_seed) noexcept;

  /// Forgets the sequence; keeps the memory.
  void clear() noexcept;
  void extend(std::span<const Token> tokens);

  [[nodiscard]] std::uint32_t tokens() const noexcept {
    return static_cast<std::uint32_t>(hashes_.size() - 1);
  }

  /// Bytes [at, at + out.size()) of the payload. The sequence must reach shape.end.
  void fill(const PayloadShape& shape, std::uint64_t at, std::span<std::byte> out) const;
  /// How many of `have`'s bytes differ from what fill() would write.
  [[nodiscard]] std::uint64_t mismatches(const PayloadShape& shape,
                                         std::uint64_t at,
                                         std::span<const std::byte> have) const;

 private:
  std::vector<std::uint64_t> hashes_;  ///< h(0) ... h(tokens())
};

}  // namespace statecached
