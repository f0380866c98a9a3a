#include "policy/score.hpp"

#include <algorithm>

namespace statecached {
namespace {

/// Children looked at to see whether the KV of a node can go with its state.
constexpr int kChildrenLookedAt = 64;

/// Whether a child other than `except` has something in the tier.
bool children_in(const Index& index, const Node& node, Tier tier, NodeIx except = kNil) {
  int looked = 0;
  for (NodeIx c = node.first_child; c != kNil; c = index.node(c).next_sibling) {
    if (c == except) continue;
    if (index.node(c).in_tier[statecached::index(tier)] > 0 || ++looked == kChildrenLookedAt)
      return true;
  }
  return false;
}

}  // namespace

SegmentTerms segment_terms(const Index& index,
                           NodeIx ix,
                           Tier tier,
                           bool lower,
                           const Cost& cost,
                           bool has_end_groups,
                           const Speeds& speeds) {
  const Node& node = index.node(ix);
  const std::size_t t = statecached::index(tier);
  SegmentTerms terms;
  const bool leaf = !children_in(index, node, tier);
  double bytes = static_cast<double>(node.state_bytes[t]);
  if (leaf) bytes += static_cast<double>(node.kv_bytes[t]);
  bool alone = leaf;
  NodeIx below = ix;
  NodeIx above = node.parent;
  while (has_end_groups && above != kNil && !index.node(above).has_state()) {
    // KV of stateless single-child ancestors is worth nothing without this node: it goes too.
    const Node& up = index.node(above);
    alone = alone && !children_in(index, up, tier, below);
    if (alone) bytes += static_cast<double>(up.kv_bytes[t]);
    below = above;
    above = up.parent;
  }
  terms.replay_from = above == kNil ? 0 : index.node(above).end;
  terms.bytes_freed = std::max(bytes, 1.0);
  const bool resumable = !has_end_groups || node.state_bytes[t] > 0;
  if (!resumable) return terms;  // KV behind the last checkpoint: nothing can resume there
  terms.seconds_saved = cost.flops(terms.replay_from, node.end) / speeds.engine_flops;
  if (lower) {
    const double load = terms.bytes_freed / speeds.load[std::min(t + 1, kTiers - 1)];
    terms.seconds_saved = std::min(terms.seconds_saved, load);
  }
  return terms;
}

double paper_efficiency(const Index& index,
                        NodeIx ix,
                        Tier tier,
                        const NamespaceSpec& spec,
                        bool has_end_groups) {
  const Node& node = index.node(ix);
  const std::uint64_t state = node.state_bytes[statecached::index(tier)];
  if (has_end_groups && state == 0) return 0;
  NodeIx above = node.parent;
  while (has_end_groups && above != kNil && !index.node(above).has_state())
    above = index.node(above).parent;
  const std::uint32_t from = above == kNil ? 0 : index.node(above).end;
  double bytes = static_cast<double>(state);
  for (const Group& group : spec.groups) {
    if (group.need != Need::every) continue;
    bytes += static_cast<double>(group.max_bytes) * group.shards / group.block_tokens * node.end;
  }
  return spec.cost.flops(from, node.end) / std::max(bytes, 1.0);
}

}  // namespace statecached
