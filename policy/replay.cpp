#include "policy/replay.hpp"

#include "policy/paper.hpp"

#include <algorithm>

namespace statecached {

NodeIx ReplayLog::root_of(NodeIx root, const ReplaySpace& space) {
  for (const auto& [theirs, ours] : roots_) {
    if (theirs == root) return ours;
  }
  const NodeIx ours = tree_.add_root(static_cast<std::uint32_t>(spaces_.size()));
  spaces_.push_back(space);
  roots_.emplace_back(root, ours);
  return ours;
}

void ReplayLog::snapshot(const Index& index,
                         NodeIx root,
                         Tier tier,
                         const ReplaySpace& space,
                         std::uint64_t clock) {
  clock_ = clock;
  std::vector<Token> tokens;

  struct Step {
    NodeIx node, above;
  };

  std::vector<Step> stack;
  const auto push = [&](NodeIx node, NodeIx above) {
    for (NodeIx c = index.node(node).first_child; c != kNil; c = index.node(c).next_sibling)
      stack.push_back({c, above});
  };
  push(root, root_of(root, space));
  while (!stack.empty()) {
    const auto [ix, above] = stack.back();
    stack.pop_back();
    const Node& node = index.node(ix);
    const std::size_t t = statecached::index(tier);
    tokens.assign(node.at(node.start), node.at(node.start) + (node.end - node.start));
    const Position end = tree_.insert({above, node.start}, {tokens, {}, node.start}, Instant{});
    const NodeIx ours = tree_.split(end);
    bytes_ += tokens.size() * sizeof(Token) + sizeof(Node) + sizeof(Start);
    // Shorter than a block, it may hold nothing itself: what is below it in the tier says that it
    // is there.
    if (node.in_tier[t] > 0) start_.push_back({ours, node.used, node.state_bytes[t] > 0});
    push(ix, ours);
  }
}

void ReplayLog::add(NodeIx root,
                    const ReplaySpace& space,
                    std::span<const Token> tokens,
                    std::uint32_t prompt) {
  if (tokens.empty() || prompt == 0) return;
  const NodeIx ours = root_of(root, space);
  const Sequence sequence{tokens, {}, 0};
  const Position known = tree_.match({ours, 0}, sequence);
  Request request;
  request.all = tree_.split(tree_.insert({ours, 0}, sequence, Instant{}));
  request.prompt = prompt >= tokens.size()
                       ? request.all
                       : tree_.split({tree_.node_at(request.all, prompt), prompt});
  bytes_ += (tokens.size() - known.at) * sizeof(Token) + 3 * sizeof(Node) + sizeof(Request);
  requests_.push_back(request);
}

/// One trial.
class ReplayRun {
 public:
  ReplayRun(const ReplayLog& log, double alpha)
      : log_(log),
        tree_(log.tree_),
        score_(alpha),
        nodes_(log.tree_.node_slots()),
        clock_(log.clock_) {
    for (const auto& [theirs, ours] : log.roots_)
      nodes_[ours].present = true;
    for (const ReplayLog::Start& start : log.start_) {
      // A node of the snapshot may have been split since: its upper part is there too.
      for (NodeIx n = start.node; !nodes_[n].present; n = tree_.node(n).parent)
        appear(n);
      Own& own = nodes_[start.node];
      own.used = start.used;
      if (start.state) set_state(start.node, true);
    }
    for (const ReplayLog::Start& start : log.start_)
      queue(start.node);
  }

  std::uint64_t run() {
    std::uint64_t hit = 0;
    for (const ReplayLog::Request& request : log_.requests_)
      hit += one(request);
    return hit;
  }

 private:
  struct Own {
    std::uint64_t used = 0;
    std::uint32_t kids = 0;  ///< children that are present
    bool present = false, state = false;
  };

  [[nodiscard]] const ReplaySpace& space(NodeIx n) const {
    return log_.spaces_[tree_.node(n).space];
  }

  [[nodiscard]] double kv(NodeIx n) const {
    return space(n).kv_bytes * (tree_.node(n).end - tree_.node(n).start);
  }

  void appear(NodeIx n) {
    nodes_[n].present = true;
    bytes_ += kv(n);
    ++nodes_[tree_.node(n).parent].kids;
  }

  void vanish(NodeIx n) {
    nodes_[n].present = false;
    bytes_ -= kv(n);
    --nodes_[tree_.node(n).parent].kids;
  }

  void set_state(NodeIx n, bool on) {
    if (nodes_[n].state == on) return;
    nodes_[n].state = on;
    bytes_ += on ? space(n).state_bytes : -space(n).state_bytes;
  }

  void tick() { score_.tick(++clock_); }

  void queue(NodeIx n) {
    const Own& own = nodes_[n];
    if (!own.present || !own.state || own.kids > 1) {
      score_.erase(n);
      return;
    }
    NodeIx above = tree_.node(n).parent;
    while (above != kNil && !nodes_[above].state)
      above = tree_.node(above).parent;
    const std::uint32_t from = above == kNil ? 0 : tree_.node(above).end;
    const std::uint32_t end = tree_.node(n).end;
    Candidate candidate;
    candidate.node = n;
    candidate.efficiency = space(n).cost.flops(from, end) /
                           std::max(1.0, space(n).state_bytes + space(n).kv_bytes * end);
    candidate.used = own.used;
    candidate.held = n == held_;
    score_.put(candidate, Instant{});
  }

  /// The nearest below that have a checkpoint.
  void heirs(NodeIx n, std::uint64_t used) {
    std::vector<NodeIx> stack;
    const auto push = [&](NodeIx of) {
      for (NodeIx c = tree_.node(of).first_child; c != kNil; c = tree_.node(c).next_sibling) {
        if (nodes_[c].present) stack.push_back(c);
      }
    };
    push(n);
    while (!stack.empty()) {
      const NodeIx at = stack.back();
      stack.pop_back();
      if (!nodes_[at].state) {
        push(at);
        continue;
      }
      nodes_[at].used = std::max(nodes_[at].used, used);
      queue(at);
    }
  }

  void make_room(double need) {
    while (bytes_ + need > log_.capacity_) {
      const NodeIx victim = score_.best(Lane::clean, Instant{});
      if (victim == kNil) return;
      if (nodes_[victim].kids > 0) {
        set_state(victim, false);
        score_.erase(victim);
        heirs(victim, nodes_[victim].used);
        continue;
      }
      NodeIx n = victim;
      do {
        set_state(n, false);
        score_.erase(n);
        vanish(n);
        n = tree_.node(n).parent;
      } while (tree_.node(n).parent != kNil && !nodes_[n].state && nodes_[n].kids == 0);
      queue(n);
    }
  }

  std::uint64_t one(const ReplayLog::Request& request) {
    path_.clear();
    for (NodeIx n = request.all; tree_.node(n).parent != kNil; n = tree_.node(n).parent)
      path_.push_back(n);
    std::reverse(path_.begin(), path_.end());
    const std::uint32_t prompt = tree_.node(request.prompt).end;
    tick();
    NodeIx hit = kNil, deepest = kNil, last = kNil;
    for (const NodeIx n : path_) {
      if (!nodes_[n].present) break;
      last = n;
      if (!nodes_[n].state) continue;
      deepest = n;
      if (tree_.node(n).end <= prompt) hit = n;
    }
    if (hit != kNil) nodes_[hit].used = clock_;
    tick();
    tick();
    if (deepest != kNil) nodes_[deepest].used = clock_;
    const NodeIx was_held = std::exchange(held_, hit);
    for (const NodeIx n : {was_held, hit, deepest}) {
      if (n != kNil) queue(n);
    }
    const std::uint32_t stored = last == kNil ? 0 : tree_.node(last).end;
    const ReplaySpace& costs = space(request.all);
    const bool whole = last == request.all;
    const bool branch = last != kNil && !whole && !nodes_[last].state;
    const double need =
        costs.kv_bytes * (tree_.node(request.all).end - stored) +
        costs.state_bytes * ((branch ? 1 : 0) + (whole && nodes_[last].state ? 0 : 1));
    if (bytes_ + need > log_.capacity_) {
      tick();
      make_room(need);
    }
    for (const NodeIx n : path_) {
      if (!nodes_[n].present) appear(n);
    }
    if (branch && nodes_[last].kids > 1) {  // the other side is still there
      set_state(last, true);
      nodes_[last].used = clock_;
      heirs(last, 0);
    }
    set_state(request.all, true);
    nodes_[request.all].used = clock_;
    held_ = kNil;
    for (const NodeIx n : path_)
      queue(n);
    return hit == kNil ? 0 : tree_.node(hit).end;
  }

  const ReplayLog& log_;
  const Index& tree_;
  PaperScore score_;
  std::vector<Own> nodes_;
  std::vector<NodeIx> path_;
  std::uint64_t clock_;
  double bytes_ = 0;
  NodeIx held_ = kNil;
};

std::uint64_t ReplayLog::replay(double alpha) const {
  return ReplayRun(*this, alpha).run();
}

}  // namespace statecached
