// Node by node, as the paper's policies work: what a node gives up as a whole, room for a whole
// batch at once, and the logical clock that counts lookups, insertions and evictions.
#include "daemon/cache/cache_impl.hpp"

#include <algorithm>

namespace statecached {
namespace {

/// Nodes that a change of one node may ask to be looked at again.
constexpr std::size_t kHeirsMax = 64;

}  // namespace

void CacheImpl::tick() {
  ++clock_;
  if (tuner_) {
    if (const auto alpha = tuner_->take()) {
      for (const auto& victims : victims_)
        victims->set_alpha(*alpha);
    }
  }
  for (const auto& victims : victims_)
    victims->tick(clock_);
}

/// Children with something in this tier: 0, 1, or 2 for more.
int CacheImpl::children_in(const Node& node, Tier tier) const {
  int found = 0;
  for (NodeIx c = node.first_child; c != kNil && found < 2; c = index_.node(c).next_sibling) {
    if (index_.node(c).in_tier[index(tier)] > 0) ++found;
  }
  return found;
}

/// Could be given up if nothing held it.
bool CacheImpl::candidate_in(const Node& node, Tier tier) const {
  if (node.in_tier[index(tier)] == 0) return false;
  const int kids = children_in(node, tier);
  return kids == 0 || (kids == 1 && traits_.single_child && node.state_bytes[index(tier)] > 0);
}

/// The nearest nodes below that have a checkpoint: what they save counts from the nearest one above
/// them.
void CacheImpl::heirs_of(NodeIx ix, std::vector<NodeIx>& out) const {
  std::vector<NodeIx> stack;
  const auto push_children = [&](const Node& node) {
    for (NodeIx c = node.first_child; c != kNil && stack.size() < kHeirsMax;
         c = index_.node(c).next_sibling)
      stack.push_back(c);
  };
  push_children(index_.node(ix));
  while (!stack.empty() && out.size() < kHeirsMax) {
    const NodeIx at = stack.back();
    stack.pop_back();
    if (index_.node(at).has_state()) {
      out.push_back(at);
    } else {
      push_children(index_.node(at));
    }
  }
}

void CacheImpl::requeue_heirs(NodeIx ix) {
  std::vector<NodeIx> heirs;
  heirs_of(ix, heirs);
  for (NodeIx heir : heirs)
    requeue(heir);
}

std::uint64_t CacheImpl::evict_whole(NodeIx ix, Tier tier, Instant now) {
  const std::size_t t = index(tier);
  std::uint64_t freed = 0;
  // its checkpoint alone; its KV becomes that of the node below
  if (children_in(index_.node(ix), tier) > 0) {
    freed = evict_node(ix, tier, UINT64_MAX, now);
    if (freed == 0) return 0;
    std::vector<NodeIx> heirs;
    heirs_of(ix, heirs);
    const Node& gone = index_.node(ix);
    for (NodeIx heir : heirs) {
      Node& node = index_.node(heir);
      node.used = std::max(node.used, gone.used);
      node.last_use = std::max(node.last_use, gone.last_use);
      requeue(heir);
    }
    return freed;
  }
  // With it goes the KV above that nothing else needs, up to the next checkpoint or branch.
  while (ix != kNil && index_.node(ix).alive && index_.node(ix).in_tier[t] > 0) {
    const NodeIx above = index_.node(ix).parent;
    const std::uint64_t got = evict_node(ix, tier, UINT64_MAX, now);
    freed += got;
    if (got == 0 || above == kNil || !index_.node(above).alive) break;
    const Node& next = index_.node(above);
    if (!spaces_[next.space].has_end || next.has_state() || children_in(next, tier) > 0) break;
    ix = above;
  }
  return freed;
}

ReplaySpace CacheImpl::replay_space(const SpaceInfo& space) const {
  ReplaySpace out;
  out.cost = space.spec.cost;
  for (const Group& group : space.spec.groups) {
    const auto bytes = static_cast<double>(padded_bytes(group.max_bytes, group.shards));
    if (group.need == Need::every) out.kv_bytes += bytes / group.block_tokens;
    if (group.need == Need::end) out.state_bytes += bytes;
  }
  return out;
}

/// The tier is about to give something up: this is where the trials of alpha begin.
void CacheImpl::snapshot_for_tuner(Tier tier) {
  ReplayLog& log = tuner_->begin();
  for (const SpaceInfo& space : spaces_) {
    if (!space.has_end || space.removed || space.spec.addressing == Addressing::keys) continue;
    for (const auto& [domain, info] : space.domains)
      log.snapshot(index_, info.root, tier, replay_space(space), clock_);
  }
}

void CacheImpl::tell_tuner(const Ticket& ticket) {
  const SpaceInfo& space = spaces_[ticket.space];
  const auto domain = space.domains.find(ticket.domain);
  if (ticket.keyed() || !space.has_end || domain == space.domains.end()) return;
  tuner_->request(
      domain->second.root, replay_space(space), ticket.tokens, ticket.prompt, ticket.resumed);
}

/// Before a request's first reservation since its sequence grew: what it passes counts as used, and
/// room is made for all it wants.
void CacheImpl::prepare_insert(Ticket& ticket, std::span<const WantItem> wants, Instant now) {
  std::optional<PolicyTime> policy_time(std::in_place, *this);
  const std::uint32_t offset = ticket.offset();
  const bool grown = ticket.anchor.at < ticket.end() + offset;
  const SpaceInfo& space = spaces_[ticket.space];
  Position here = ticket.anchor;
  if (grown) {
    tick();
    tick();
    here = index_.match({index_.node_at(here.node, std::max(here.at, 1U)), here.at},
                        ticket.sequence());
    NodeIx n = here.node;
    if (!traits_.refresh_path && here.at < index_.node(n).end) n = index_.node(n).parent;
    while (n != kNil && index_.node(n).parent != kNil) {
      const bool stamped = traits_.refresh_path || !space.has_end || index_.node(n).has_state();
      if (stamped) {
        stamp(n, now);
        requeue(n);
      }
      if (stamped && !traits_.refresh_path) break;
      n = index_.node(n).parent;
    }
  }
  std::uint64_t need = 0;
  for (const WantItem& want : wants) {
    if (want.group >= space.spec.groups.size()) continue;
    const Group& group = space.spec.groups[want.group];
    const std::uint32_t end = want.end + offset;
    if (end <= here.at && index_.find(here.node, want.group, want.first + offset, end) != kNil)
      continue;
    const std::uint64_t payload =
        want.bytes != 0 ? want.bytes : space.spec.payload_bytes(want.group, want.end - want.first);
    need += padded_bytes(payload, group.shards);
  }
  const Tier home = present(Tier::device) ? Tier::device : Tier::host;
  const std::uint64_t available = space_of(home).available();
  if (need <= available) return;
  if (grown) tick();
  policy_time.reset();
  if (tuner_ && tuner_->wants_snapshot()) snapshot_for_tuner(home);
  static_cast<void>(evict(home, need - available, now));
  const Node& other = index_.node(here.node);
  if (grown && other.objects.empty() && other.first_child == kNil)
    ticket.branch_gone = here.at - offset;
}

}  // namespace statecached
