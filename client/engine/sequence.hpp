#pragma once
// A sequence's state as the cache sees it: which groups there are, and the bytes of each object.
//
// Group 0 "attention", every: blocks of K and V of all attention layers, token by token:
//   [token][layer][K own heads, V own heads], float32. Any prefix of a block is its first bytes.
// Group 1 "window", last: the same for the sliding-window layers (left out where the model has
// none). Last group "recurrent", end: [layer][three inputs of the convolution, state], float32.

#include "client/engine/model.hpp"

#include "statecache/client.hpp"

#include <span>

namespace statecached::engine {

struct Groups {
  std::uint16_t attention = 0;
  std::uint16_t window = statecache::kUnknown & 0xffffU;  ///< no such group
  std::uint16_t recurrent = 1;
};

[[nodiscard]] Groups groups_of(const ModelConfig& config);
/// What this model's engine opens: the same on all of its workers.
[[nodiscard]] statecache::NamespaceSpec namespace_of(const ModelConfig& config,
                                                     std::uint32_t shards,
                                                     std::uint32_t block_tokens);

/// Payload of a block of `tokens`, or of a state (tokens is ignored), of this process's shard.
[[nodiscard]] std::uint64_t payload_bytes(const Model& model,
                                          std::uint16_t group,
                                          std::uint32_t tokens);

/// Copies an object into the arena: block [first, end), or the state as it is now. False: the
/// memory is of another size.
[[nodiscard]] bool store(const Model& model,
                         const Sequence& sequence,
                         std::uint16_t group,
                         std::uint32_t first,
                         std::uint32_t end,
                         std::span<const statecache::Extent> to);
/// And out of it. KV grows to `end` tokens where it is shorter.
[[nodiscard]] bool load(const Model& model,
                        Sequence& sequence,
                        std::uint16_t group,
                        std::uint32_t first,
                        std::uint32_t end,
                        std::span<const statecache::Extent> from);

}  // namespace statecached::engine
