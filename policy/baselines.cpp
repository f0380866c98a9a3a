#include "policy/baselines.hpp"

#include <algorithm>

namespace statecached {
namespace {

constexpr std::uint8_t kCountMax = 3;
constexpr std::uint64_t kSmallShare = 10;  ///< the small queue has one part in so many
constexpr std::size_t kGhostsLeast = 1024;

}  // namespace

void S3Fifo::put(const Candidate& candidate, Instant now) {
  static_cast<void>(now);
  if (candidate.node >= entries_.size()) entries_.resize(candidate.node + 1U);
  erase(candidate.node);
  Entry& entry = entries_[candidate.node];
  if (entry.content != candidate.content) {
    entry = Entry{};
    entry.content = candidate.content;
    entry.place = next_place_++;
    entry.main = ghost_.contains(candidate.content);
    entry.hits = candidate.hits;
  } else if (candidate.hits > entry.hits) {
    entry.count = static_cast<std::uint8_t>(
        std::min<std::uint32_t>(kCountMax, entry.count + (candidate.hits - entry.hits)));
    entry.hits = candidate.hits;
  }
  entry.bytes = candidate.bytes;
  entry.lane = static_cast<std::uint8_t>(candidate.lane);
  entry.present = true;
  queues_[entry.lane][entry.main ? 1 : 0].emplace(entry.place, candidate.node);
  bytes_[entry.lane][entry.main ? 1 : 0] += entry.bytes;
}

void S3Fifo::erase(NodeIx node) {
  if (!contains(node)) return;
  Entry& entry = entries_[node];
  queues_[entry.lane][entry.main ? 1 : 0].erase({entry.place, node});
  bytes_[entry.lane][entry.main ? 1 : 0] -= entry.bytes;
  entry.present = false;
}

void S3Fifo::move(NodeIx node, bool main) {
  erase(node);
  Entry& entry = entries_[node];
  entry.place = next_place_++;
  entry.main = main;
  entry.present = true;
  queues_[entry.lane][main ? 1 : 0].emplace(entry.place, node);
  bytes_[entry.lane][main ? 1 : 0] += entry.bytes;
}

void S3Fifo::remember(std::uint64_t content) {
  const std::size_t most = std::max(kGhostsLeast, queues_[0][1].size() + queues_[1][1].size());
  ghost_.insert(content);
  ghost_order_.push_back(content);
  while (ghost_order_.size() > most) {
    ghost_.erase(ghost_.find(ghost_order_.front()));
    ghost_order_.pop_front();
  }
}

NodeIx S3Fifo::best(Lane lane, Instant now) {
  static_cast<void>(now);
  auto& [small, main] = queues_[static_cast<std::size_t>(lane)];
  const auto& [small_bytes, main_bytes] = bytes_[static_cast<std::size_t>(lane)];
  while (!small.empty() || !main.empty()) {
    const bool from_small =
        main.empty() || (!small.empty() && small_bytes * kSmallShare >= small_bytes + main_bytes);
    const NodeIx node = (from_small ? small : main).begin()->second;
    Entry& entry = entries_[node];
    if (entry.count == 0) {
      if (from_small) remember(entry.content);
      return node;
    }
    entry.count = from_small ? std::uint8_t{0} : static_cast<std::uint8_t>(entry.count - 1);
    move(node, true);
  }
  return kNil;
}

void GreedyDual::put(const Candidate& candidate, Instant now) {
  static_cast<void>(now);
  if (candidate.node >= entries_.size()) entries_.resize(candidate.node + 1U);
  erase(candidate.node);
  Entry& entry = entries_[candidate.node];
  if (entry.content != candidate.content || entry.used != candidate.used) entry.base = level_;
  entry.content = candidate.content;
  entry.used = candidate.used;
  entry.bytes = candidate.bytes;
  entry.lane = static_cast<std::uint8_t>(candidate.lane);
  entry.value = entry.base + (candidate.hits + 1.0) * candidate.efficiency;
  entry.present = true;
  queues_[entry.lane].emplace(entry.value, candidate.node);
  bytes_[entry.lane] += entry.bytes;
}

void GreedyDual::erase(NodeIx node) {
  if (!contains(node)) return;
  Entry& entry = entries_[node];
  queues_[entry.lane].erase({entry.value, node});
  bytes_[entry.lane] -= entry.bytes;
  entry.present = false;
}

NodeIx GreedyDual::best(Lane lane, Instant now) {
  static_cast<void>(now);
  const auto& queue = queues_[static_cast<std::size_t>(lane)];
  if (queue.empty()) return kNil;
  level_ = std::max(level_, queue.begin()->first);
  return queue.begin()->second;
}

}  // namespace statecached
