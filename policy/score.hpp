#pragma once
// Keep value (design.md 6, marconi.md 7.3): reuse rate x seconds that losing a segment would add to
// its next hit, a byte that losing it would free. The seconds are against the best alternative
// really left: a copy in a lower tier, the nearest ancestor that still has its checkpoints, prefill
// from zero.

#include "policy/index.hpp"

namespace statecached {

struct Speeds {
  double engine_flops = 400e12;       ///< FLOP/s that the engine achieves in prefill
  std::array<double, kTiers> load{};  ///< bytes/s from each tier to the engine
};

struct SegmentTerms {
  double seconds_saved = 0;
  double bytes_freed = 1;
  std::uint32_t replay_from = 0;  ///< depth of the nearest ancestor that can be resumed

  [[nodiscard]] double efficiency() const noexcept { return seconds_saved / bytes_freed; }
};

/// Terms of giving up in `tier` what this node has there. `lower`: it has copies below this tier.
[[nodiscard]] SegmentTerms segment_terms(const Index& index,
                                         NodeIx node,
                                         Tier tier,
                                         bool lower,
                                         const Cost& cost,
                                         bool has_end_groups,
                                         const Speeds& speeds);

/// The paper's efficiency (marconi.md 3.4): FLOPs since the nearest ancestor that has a checkpoint,
/// over the bytes of one checkpoint and the KV of the whole path. 0 where nothing can resume.
[[nodiscard]] double paper_efficiency(const Index& index,
                                      NodeIx node,
                                      Tier tier,
                                      const NamespaceSpec& spec,
                                      bool has_end_groups);

}  // namespace statecached
