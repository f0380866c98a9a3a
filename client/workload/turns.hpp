#pragma once
// What an engine saves of one request. Shared by statecache-replay and statecache-sim, so that both
// ask the cache for the same.

#include "base/spec.hpp"

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace statecached {

/// A KV block of tokens [first, end), first on the group's grid, or a checkpoint (first == end).
struct TurnWant {
  std::uint16_t group = 0;
  std::uint32_t first = 0;
  std::uint32_t end = 0;
  friend bool operator==(const TurnWant&, const TurnWant&) = default;
};

/// How many of them one call asks for: small enough that a granted batch never waits long for its
/// commit.
inline constexpr std::size_t kWantsAtOnce = 256;

/// A request that resumed after `hit` tokens and has computed the state of `total` (prompt and
/// output): the blocks of every group with KV from the cell of `hit` to the end, the last one
/// partial, and, of groups that need one, checkpoints at the wished positions past `hit` and at the
/// end. In the order in which they can be stored: nothing comes before its parents.
[[nodiscard]] std::vector<TurnWant> turn_wants(const NamespaceSpec& spec,
                                               std::uint32_t hit,
                                               std::uint32_t total,
                                               std::span<const std::uint32_t> wishes);

}  // namespace statecached
