#include "policy/victims.hpp"

#include <bit>

namespace statecached {
namespace {
constexpr Nanos kYoungest = std::chrono::milliseconds(250);
}

std::uint8_t Victims::age_of(Instant last_use, Instant now) const noexcept {
  if (by_age_) return 0;
  const std::int64_t age = (now - last_use).count() / kYoungest.count();
  if (age <= 0) return 0;
  return static_cast<std::uint8_t>(std::min<std::uint64_t>(kAges - 1, static_cast<std::uint64_t>(std::bit_width(static_cast<std::uint64_t>(age)))));
}

void Victims::put_at(Bucket& bucket, std::uint32_t at, NodeIx node) {
  bucket.heap[at] = node;
  entries_[node].heap_at = at;
}

void Victims::sift_up(Bucket& bucket, std::uint32_t at) {
  const NodeIx node = bucket.heap[at];
  while (at > 0) {
    const std::uint32_t above = (at - 1) / 2;
    if (entries_[bucket.heap[above]].key <= entries_[node].key) break;
    put_at(bucket, at, bucket.heap[above]);
    at = above;
  }
  put_at(bucket, at, node);
}

void Victims::sift_down(Bucket& bucket, std::uint32_t at) {
  const NodeIx node = bucket.heap[at];
  const auto count = static_cast<std::uint32_t>(bucket.heap.size());
  while (2 * at + 1 < count) {
    std::uint32_t below = 2 * at + 1;
    if (below + 1 < count && entries_[bucket.heap[below + 1]].key < entries_[bucket.heap[below]].key) ++below;
    if (entries_[node].key <= entries_[bucket.heap[below]].key) break;
    put_at(bucket, at, bucket.heap[below]);
    at = below;
  }
  put_at(bucket, at, node);
}

void Victims::place(NodeIx node, std::uint8_t at) {
  Entry& entry = entries_[node];
  Bucket& bucket = buckets_[at];
  entry.bucket = at;
  bytes_[at / kAges] += entry.bytes;
  bucket.heap.push_back(node);
  entry.heap_at = static_cast<std::uint32_t>(bucket.heap.size() - 1);
  sift_up(bucket, entry.heap_at);
  // Nearly always the newest or the oldest of its bucket, so the walk is short.
  NodeIx before = bucket.newest;
  while (before != kNil && entries_[before].last_use > entry.last_use) before = entries_[before].older;
  entry.older = before;
  entry.newer = before == kNil ? bucket.oldest : entries_[before].newer;
  if (entry.older == kNil) {
    bucket.oldest = node;
  } else {
    entries_[entry.older].newer = node;
  }
  if (entry.newer == kNil) {
    bucket.newest = node;
  } else {
    entries_[entry.newer].older = node;
  }
}

void Victims::put(const Candidate& candidate, Instant now) {
  const NodeIx node = candidate.node;
  const Lane lane = candidate.lane;
  const double efficiency = candidate.efficiency;
  const std::uint64_t bytes = candidate.bytes;
  const Instant last_use = candidate.last_use;
  if (node >= entries_.size()) entries_.resize(node + 1U);
  const auto target = static_cast<std::uint8_t>(static_cast<std::uint8_t>(lane) * kAges + age_of(last_use, now));
  Entry& entry = entries_[node];
  const double key = by_age_ ? static_cast<double>(last_use.time_since_epoch().count()) : efficiency;
  if (entry.bucket == target && entry.last_use == last_use) {
    bytes_[static_cast<std::size_t>(lane)] += bytes - entry.bytes;
    entry.bytes = bytes;
    const bool lower = key < entry.key;
    if (key == entry.key) return;
    entry.key = key;
    if (lower) {
      sift_up(buckets_[target], entry.heap_at);
    } else {
      sift_down(buckets_[target], entry.heap_at);
    }
    return;
  }
  erase(node);
  entry.key = key;
  entry.bytes = bytes;
  entry.last_use = last_use;
  place(node, target);
}

void Victims::erase(NodeIx node) {
  if (!contains(node)) return;
  Entry& entry = entries_[node];
  Bucket& bucket = buckets_[entry.bucket];
  bytes_[entry.bucket / kAges] -= entry.bytes;
  if (entry.older == kNil) {
    bucket.oldest = entry.newer;
  } else {
    entries_[entry.older].newer = entry.newer;
  }
  if (entry.newer == kNil) {
    bucket.newest = entry.older;
  } else {
    entries_[entry.newer].older = entry.older;
  }
  const std::uint32_t at = entry.heap_at;
  const NodeIx last = bucket.heap.back();
  bucket.heap.pop_back();
  entry.bucket = kNone;
  if (last == node) return;
  put_at(bucket, at, last);
  sift_up(bucket, at);
  sift_down(bucket, entries_[last].heap_at);
}

void Victims::graduate(Lane lane, Instant now) {
  const auto base = static_cast<std::uint8_t>(static_cast<std::uint8_t>(lane) * kAges);
  for (std::uint8_t age = 0; age + 1 < kAges; ++age) {
    Bucket& bucket = buckets_[base + age];
    while (bucket.oldest != kNil) {
      const NodeIx node = bucket.oldest;
      const std::uint8_t due = age_of(entries_[node].last_use, now);
      if (due <= age) break;
      const double key = entries_[node].key;
      erase(node);
      entries_[node].key = key;
      place(node, static_cast<std::uint8_t>(base + due));
    }
  }
}

NodeIx Victims::best(Lane lane, Instant now) {
  if (!by_age_) graduate(lane, now);
  const std::size_t base = static_cast<std::size_t>(lane) * kAges;
  NodeIx choice = kNil;
  double least = 0;
  for (std::size_t age = 0; age < kAges; ++age) {
    const Bucket& bucket = buckets_[base + age];
    if (bucket.heap.empty()) continue;
    const NodeIx node = bucket.heap.front();
    const double value = by_age_ ? entries_[node].key : entries_[node].key * reuse_rate(now - entries_[node].last_use);
    if (choice == kNil || value < least) {
      choice = node;
      least = value;
    }
  }
  return choice;
}

}  // namespace statecached
