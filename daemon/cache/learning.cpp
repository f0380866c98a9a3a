// Checkpoints wished for; what the default policy learns from, and what it makes of it: uses and
// births of resume points, keep values of what a request would store, and what has to be looked at
// again when a checkpoint comes or goes.
#include "daemon/cache/cache_impl.hpp"
#include "policy/admission.hpp"
#include "policy/clairvoyant.hpp"

#include <algorithm>
#include <numeric>
#include <utility>

namespace statecached {
namespace {

constexpr int kChildrenLookedAt = 64;

}  // namespace

void CacheImpl::touch(const std::vector<NodeIx>& path, NodeIx deepest, Instant now) {
  // Marconi refreshes what was used, and closure protects its ancestors; LRU refreshes the whole
  // path.
  if (traits_.refresh_path) {
    for (NodeIx node : path) {
      stamp(node, now);
      requeue(node);
    }
    return;
  }
  if (deepest == kNil) return;
  Node& node = index_.node(deepest);
  if (traits_.learns) reuse_.used(reuse_class(index_, deepest), now - node.last_use);
  ++node.hits;
  stamp(deepest, now);
  if (traits_.learns) reuse_.born(index_, deepest);
  requeue(deepest);
}

/// Where this request should take checkpoints, as the client counts; it matches up to `here`.
void CacheImpl::wished(Ticket& ticket,
                       Position here,
                       std::uint32_t resumable,
                       std::uint32_t limit) const {
  const SpaceInfo& space = spaces_[ticket.space];
  const PolicyOptions& policy = options_.policy;
  if (policy.admission == Admission::future && space.has_end) {
    ticket.answer.wishes = policy.future->partings(limit, space.spec.checkpoint_grid);
    return;
  }
  const Node& last = index_.node(here.node);
  AdmissionInput in;
  in.prompt = ticket.prompt;
  in.matched = here.at - ticket.offset();
  in.resumable = resumable;
  in.checkpoint_grid = std::lcm(space.spec.checkpoint_grid, ticket.shape.tokens);
  in.keep_back = ticket.keep_back;
  in.has_end_groups = space.has_end;
  in.every_tokens = policy.every_tokens;
  in.parts = !traits_.learns || here.at < last.end || last.first_child != kNil;
  // Where the engine saves the sequence's own end, that will be nearer to what comes next, and of
  // two states so near to each other each makes the other worth nearly nothing. Only a prompt that
  // was known as it is may well come again. Where another tier lies below there is room for both.
  in.prompt_end = !traits_.learns || several_tiers() || space.saves_ends < 0.5 ||
                  here.at >= ticket.prompt + ticket.offset();
  ticket.answer.wishes = wishes(in, policy.admission);
}

/// What a request could have resumed from counts as used, whether or not its checkpoint is still
/// there.
NodeIx CacheImpl::could_resume(Ticket& ticket, const std::vector<NodeIx>& path, Instant now) {
  reuse_.advance(index_, now);
  const Position here = ticket.anchor;
  const Node& last = index_.node(here.node);
  const NodeIx could = here.at == last.end ? here.node : last.parent;
  if (could == kNil || index_.node(could).parent == kNil) return kNil;
  if (!std::exchange(ticket.could_counted, true)) touch(path, could, now);
  return could;
}

/// A sequence is new in the tree: its end, and where it parts from another inside what was one
/// segment, begin to live.
void CacheImpl::born(Ticket& ticket, std::uint32_t turns, bool parts, Instant now) {
  const NodeIx leaf = ticket.anchor.node;
  Node& end = index_.node(leaf);
  end.ends = true;
  end.turns = turns;
  reuse_.born(index_, leaf);
  if (parts && end.parent != kNil) {
    stamp(end.parent, now);
    reuse_.born(index_, end.parent);
  }
  const SpaceInfo& space = spaces_[ticket.space];
  // As the tree counts.
  const std::uint32_t offset = ticket.offset();
  const std::uint32_t stored = ticket.answer.stored + offset;
  const std::uint32_t from_here = ticket.chosen == 0 ? ticket.base : ticket.chosen + offset;
  const auto value = [&](std::uint32_t from, std::uint32_t at, ReuseClass what) {
    double bytes = 0;
    for (std::uint16_t g = 0; g < space.spec.groups.size(); ++g) {
      const Group& group = space.spec.groups[g];
      if (group.need == Need::end) {
        bytes += static_cast<double>(padded_bytes(space.spec.payload_bytes(g, 0), group.shards));
      } else if (at > stored) {
        const double blocks = static_cast<double>(at - stored) / group.block_tokens;
        bytes += blocks * static_cast<double>(padded_bytes(
                              space.spec.payload_bytes(g, group.block_tokens), group.shards));
      }
    }
    const double saved = space.spec.cost.flops(std::min(from, at), at) / space.speeds.engine_flops;
    return reuse_.rate(what, Nanos{0}) * saved / std::max(bytes, 1.0);
  };
  ticket.wish_worth.clear();
  for (const std::uint32_t asked : ticket.answer.wishes) {
    const std::uint32_t wish = asked + offset;
    const NodeIx at = index_.node_at(leaf, wish);
    if (index_.node(at).end == wish && at != leaf) {
      ticket.wish_worth.push_back(value(from_here, wish, reuse_class(index_, at)));
    } else if (ticket.again) {
      ticket.wish_worth.push_back(value(from_here, wish, reuse_class(ReuseKind::branch, 0, wish)));
    } else {
      // the prompt's end: see wished()
      const bool last = several_tiers() || space.saves_ends < 0.5;
      ticket.wish_worth.push_back(last ? kAnyWorth : 0);
    }
  }
}

/// Keep value that something about to be stored (`want` as the client counts) would have, as far as
/// it may displace others.
double CacheImpl::worth_of(const Ticket& ticket, const WantItem& want) const {
  if (!traits_.learns) return kAnyWorth;
  const SpaceInfo& space = spaces_[ticket.space];
  const auto& wishes = ticket.answer.wishes;
  const bool state = space.spec.groups[want.group].need == Need::end;
  double worth = state && want.end < ticket.end() ? 0 : kAnyWorth;
  for (std::size_t i = 0; i < std::min(wishes.size(), ticket.wish_worth.size()); ++i) {
    if (state ? want.end == wishes[i] : want.end <= wishes[i])
      worth = std::max(worth, ticket.wish_worth[i]);
  }
  return worth;
}

/// A block that begins before its node is the last one that a checkpoint between its two ends
/// needs, unless another branch has one like it.
bool CacheImpl::carries_checkpoint_above(ObjectIx o) const {
  const Object& object = index_.object(o);
  const Node* node = &index_.node(object.node);
  if (object.need == Need::end || object.first >= node->start) return false;
  const std::uint32_t cell_end =
      object.first + spaces_[object.space].spec.groups[object.group].block_tokens;
  while (node->parent != kNil && node->start > object.first) {
    const NodeIx above = node->parent;
    node = &index_.node(above);
    if (node->has_state() &&
        index_.find_cover({above, node->end}, object.group, object.first, node->end, cell_end, o) ==
            kNil)
      return true;
  }
  return false;
}

/// Keep values of what is near in the tree change with a node's checkpoints: of the nearest
/// ancestors, who are now (no longer) the last to resume from, and of what lies below, which has
/// now another alternative.
void CacheImpl::requeue_around(NodeIx ix) {
  if (!traits_.learns) return;
  for (NodeIx up = index_.node(ix).parent; up != kNil; up = index_.node(up).parent) {
    requeue(up);
    if (index_.node(up).has_state()) break;
  }
  // A child's block may have been kept for the checkpoint alone.
  int looked = 0;
  for (NodeIx c = index_.node(ix).first_child; c != kNil && looked < kChildrenLookedAt;
       c = index_.node(c).next_sibling, ++looked)
    requeue(c);
  requeue_heirs(ix);
}

}  // namespace statecached
