#pragma once
// Copies bytes and computes their XXH3-128 in the same pass. Each source byte is read exactly once,
// so that what was hashed is what was written, whatever somebody else does to the source meanwhile.
//
// Threads: an object belongs to one thread at a time. Memory: all of it at construction, none
// later.

#include "base/units.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>

namespace statecached {

/// The two halves of an XXH3-128.
struct Hash128 {
  std::uint64_t low = 0;
  std::uint64_t high = 0;
  friend bool operator==(const Hash128&, const Hash128&) = default;
};

class FusedCopy {
 public:
  /// Stays in the first-level cache, beside the source.
  static constexpr std::size_t kPiece = 8 * kKiB;

  FusedCopy();
  ~FusedCopy();
  FusedCopy(const FusedCopy&) = delete;
  FusedCopy& operator=(const FusedCopy&) = delete;

  /// A new payload. `bytes` of it will come: from kStreamFrom (base/copy.hpp) on they are written
  /// with stores that leave the cache to the engines, where the CPU has them.
  void start(std::uint64_t seed, std::size_t bytes) noexcept;
  /// The next part. The ranges must not overlap.
  void add(std::byte* to, const std::byte* from, std::size_t bytes) noexcept;
  /// The hash of all parts; what was written is visible to whoever sees this call's result.
  [[nodiscard]] Hash128 finish() noexcept;

 private:
  struct State;
  std::unique_ptr<State> state_;
  bool streaming_ = false;
};

/// The ceiling that FusedCopy is measured against: the plain loop, which copies a piece and then
/// hashes the *source* of that piece while the cache still has it. Cheaper by nothing but the
/// safety.
[[nodiscard]] Hash128 bare_fused_copy(std::byte* to,
                                      const std::byte* from,
                                      std::size_t bytes,
                                      std::uint64_t seed) noexcept;

}  // namespace statecached
