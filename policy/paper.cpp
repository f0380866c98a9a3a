#include "policy/paper.hpp"

#include <algorithm>

namespace statecached {

void PaperScore::put(const Candidate& candidate, Instant now) {
  static_cast<void>(now);
  if (candidate.node >= entries_.size()) entries_.resize(candidate.node + 1U);
  Entry& entry = entries_[candidate.node];
  const std::uint8_t number = candidate.held ? kHeld : static_cast<std::uint8_t>(candidate.lane);
  Queue& queue = lanes_[number];
  if (entry.present && entry.queue == number && entry.used == candidate.used &&
      entry.efficiency == candidate.efficiency) {
    queue.bytes += candidate.bytes - entry.bytes;
    entry.bytes = candidate.bytes;
    return;
  }
  erase(candidate.node);
  entry = {candidate.efficiency, candidate.used, candidate.bytes, number, true};
  queue.by_use.emplace(entry.used, candidate.node);
  queue.by_efficiency.emplace(entry.efficiency, candidate.node);
  queue.bytes += entry.bytes;
}

void PaperScore::erase(NodeIx node) {
  if (!contains(node)) return;
  Entry& entry = entries_[node];
  Queue& queue = lanes_[entry.queue];
  queue.by_use.erase({entry.used, node});
  queue.by_efficiency.erase({entry.efficiency, node});
  queue.bytes -= entry.bytes;
  entry.present = false;
}

NodeIx PaperScore::best(Lane lane, Instant now) {
  static_cast<void>(now);
  const Queue& queue = lanes_[static_cast<std::size_t>(lane)];
  if (queue.by_use.empty()) return kNil;
  const auto recency = [&](std::uint64_t used) {
    return 1.0 / static_cast<double>(std::max<std::uint64_t>(clock_ - std::min(clock_, used), 1));
  };
  double oldest = recency(queue.by_use.begin()->first);
  double newest = recency(queue.by_use.rbegin()->first);
  double least = queue.by_efficiency.begin()->first;
  double most = queue.by_efficiency.rbegin()->first;
  if (const Queue& held = lanes_[kHeld]; !held.by_use.empty()) {
    oldest = std::min(oldest, recency(held.by_use.begin()->first));
    newest = std::max(newest, recency(held.by_use.rbegin()->first));
    least = std::min(least, held.by_efficiency.begin()->first);
    most = std::max(most, held.by_efficiency.rbegin()->first);
  }
  // All equal: 1 for all, as the paper's code has it; a constant changes nothing.
  const auto recency_term = [&](std::uint64_t used) {
    return newest > oldest ? (recency(used) - oldest) / (newest - oldest) : 1.0;
  };
  const auto efficiency_term = [&](double value) {
    return alpha_ * (most > least ? (value - least) / (most - least) : 1.0);
  };

  NodeIx choice = kNil;
  double score = 0;
  std::uint64_t used = 0;
  const auto consider = [&](NodeIx node) {
    const Entry& entry = entries_[node];
    const double value = recency_term(entry.used) + efficiency_term(entry.efficiency);
    // Equal scores: the longer unused, then the one that is older in the tree.
    if (choice != kNil && (value > score || (value == score && std::pair{entry.used, node} >=
                                                                   std::pair{used, choice})))
      return;
    choice = node;
    score = value;
    used = entry.used;
  };
  auto u = queue.by_use.begin();
  auto e = queue.by_efficiency.begin();
  while (u != queue.by_use.end() && e != queue.by_efficiency.end()) {
    if (choice != kNil && recency_term(u->first) + efficiency_term(e->first) > score) break;
    consider(u->second);
    consider(e->second);
    ++u;
    ++e;
  }
  return choice;
}

}  // namespace statecached
