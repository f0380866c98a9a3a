#pragma once
// What a namespace is made of: groups of state, how they are addressed, and the cost of computing
// them. Shared by the wire, the catalog, the policy and the cache.

#include "base/ids.hpp"
#include "base/result.hpp"

#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <vector>

namespace statecached {

/// What resuming at position p needs of a group.
enum class Need : std::uint8_t {
  every = 0,  ///< every block of [0, p): full attention, MLA
  last = 1,   ///< the blocks of [p - window, p): sliding window
  end = 2,    ///< an object at exactly p: recurrent layers, short convolutions
};

inline constexpr std::size_t kGroupsMax = 8;       ///< bounds per-request work and record sizes
inline constexpr std::size_t kEveryGroupsMax = 4;  ///< bounds the parents of one object
inline constexpr std::uint32_t kBlockTokensMax = 65536;
inline constexpr std::uint16_t kShardsMax = 64;     ///< one bit each in a commit mask
inline constexpr std::uint32_t kChainStep = 64;     ///< symbols hashed per step of the id chain
inline constexpr std::uint32_t kFormatVersion = 1;  ///< of ids, wire and catalog together

struct Group {
  std::string name;
  Need need = Need::every;
  std::uint32_t block_tokens = 64;  ///< B; ignored for Need::end
  std::uint32_t window = 0;         ///< tokens, for Need::last
  std::uint32_t lookahead = 0;      ///< good for resuming this many tokens before its end
  std::uint64_t max_bytes = 0;      ///< largest payload of one shard of one object
  std::uint16_t shards = 1;
  bool contiguous = false;  ///< extents of one shard must be one run
  bool token_major = true;  ///< a partial block needs only valid/B of max_bytes
  friend bool operator==(const Group&, const Group&) = default;
};

/// Prefill seconds of tokens a..b: (c0 + c1 (b-a) + c2 (b^2-a^2) [+ window term]) /
/// flops_per_second. The terms are FLOPs (design.md 6): c0 per call, c1 per token, c2 per squared
/// token. `window_c2` is c2 of windowed groups, whose pairs are capped at `window` tokens a query.
struct Cost {
  double c0 = 0;
  double c1 = 0;
  double c2 = 0;
  double window_c2 = 0;
  std::uint32_t window = 0;
  std::uint32_t reserved = 0;
  friend bool operator==(const Cost&, const Cost&) = default;

  /// FLOPs of prefilling tokens a..b with [0, a) resident. 0 for b <= a.
  [[nodiscard]] double flops(std::uint64_t a, std::uint64_t b) const noexcept;
};

enum class Addressing : std::uint8_t { tokens = 0, keys = 1 };

struct NamespaceSpec {
  std::string name;
  Digest model;
  Digest layout;
  std::vector<Group> groups;
  std::uint32_t resume_grid = 1;
  std::uint32_t checkpoint_grid = 1;
  std::uint32_t checkpoints_per_chunk = 0;
  Cost cost;
  Addressing addressing = Addressing::tokens;
  std::uint32_t tokens_per_key = 0;
  std::uint8_t key_bytes = 0;

  /// Checks every limit above; the message names the group and what is wrong with it.
  [[nodiscard]] Result<> validate() const;
  /// SHA-256 over all that fixes content: model, layout, groups, grids, addressing and format
  /// version; not the name and not the cost.
  [[nodiscard]] Digest fingerprint() const;
  /// Bytes of one shard of a block with `valid` tokens, unpadded (a checkpoint: max_bytes).
  [[nodiscard]] std::uint64_t payload_bytes(std::uint16_t group,
                                            std::uint32_t valid) const noexcept;
};

/// Little-endian bytes of a spec (versioned), and back. Used by the catalog and the wire.
[[nodiscard]] std::vector<std::byte> encode(const NamespaceSpec& spec);
[[nodiscard]] Result<NamespaceSpec> decode_spec(std::span<const std::byte> bytes);

inline constexpr std::uint32_t kUnknown = std::numeric_limits<std::uint32_t>::max();

}  // namespace statecached
