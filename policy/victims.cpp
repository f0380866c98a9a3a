#include "policy/victims.hpp"

#include <bit>

namespace statecached {

std::size_t Victims::bucket_of(const Candidate& candidate, Instant now) const noexcept {
  const std::size_t base = static_cast<std::size_t>(candidate.lane) * kPerLane;
  if (reuse_ == nullptr) return base;
  return base + candidate.reuse * kReuseAges + Reuse::age_bucket(now - candidate.last_use);
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
    if (below + 1 < count &&
        entries_[bucket.heap[below + 1]].key < entries_[bucket.heap[below]].key)
      ++below;
    if (entries_[node].key <= entries_[bucket.heap[below]].key) break;
    put_at(bucket, at, bucket.heap[below]);
    at = below;
  }
  put_at(bucket, at, node);
}

void Victims::place(NodeIx node, std::size_t at) {
  Entry& entry = entries_[node];
  Bucket& bucket = buckets_[at];
  entry.bucket = static_cast<std::uint16_t>(at);
  bytes_[at / kPerLane] += entry.bytes;
  occupied_[at / kReuseAges] |= std::uint64_t{1} << at % kReuseAges;
  bucket.heap.push_back(node);
  entry.heap_at = static_cast<std::uint32_t>(bucket.heap.size() - 1);
  sift_up(bucket, entry.heap_at);
  // Nearly always the newest or the oldest of its bucket, so the walk is short.
  NodeIx before = bucket.newest;
  while (before != kNil && entries_[before].last_use > entry.last_use)
    before = entries_[before].older;
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
  if (node >= entries_.size()) entries_.resize(node + 1U);
  const std::size_t target = bucket_of(candidate, now);
  Entry& entry = entries_[node];
  const double key = reuse_ == nullptr
                         ? static_cast<double>(candidate.last_use.time_since_epoch().count())
                         : candidate.efficiency;
  if (entry.bucket == target && entry.last_use == candidate.last_use) {
    bytes_[target / kPerLane] += candidate.bytes - entry.bytes;
    entry.bytes = candidate.bytes;
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
  entry.bytes = candidate.bytes;
  entry.last_use = candidate.last_use;
  place(node, target);
}

void Victims::erase(NodeIx node) {
  if (!contains(node)) return;
  Entry& entry = entries_[node];
  Bucket& bucket = buckets_[entry.bucket];
  bytes_[entry.bucket / kPerLane] -= entry.bytes;
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
  if (bucket.heap.empty())
    occupied_[entry.bucket / kReuseAges] &= ~(std::uint64_t{1} << entry.bucket % kReuseAges);
  entry.bucket = kNone;
  if (last == node) return;
  put_at(bucket, at, last);
  sift_up(bucket, at);
  sift_down(bucket, entries_[last].heap_at);
}

/// Moves what has grown older since it was put into its bucket.
void Victims::graduate(std::size_t row, Instant now) {
  const std::size_t base = row * kReuseAges;
  for (std::uint64_t left = occupied_[row]; left != 0; left &= left - 1) {
    const auto age = static_cast<std::size_t>(std::countr_zero(left));
    Bucket& bucket = buckets_[base + age];
    while (bucket.oldest != kNil) {
      const NodeIx node = bucket.oldest;
      const std::size_t due = Reuse::age_bucket(now - entries_[node].last_use);
      if (due <= age) break;
      const double key = entries_[node].key;
      erase(node);
      entries_[node].key = key;
      place(node, base + due);
    }
  }
}

NodeIx Victims::best(Lane lane, Instant now) {
  NodeIx choice = kNil;
  double least = 0;
  for (std::size_t what = 0; what < kReuseClasses; ++what) {
    const std::size_t row = static_cast<std::size_t>(lane) * kReuseClasses + what;
    if (occupied_[row] == 0) continue;
    if (reuse_ != nullptr) graduate(row, now);
    for (std::uint64_t left = occupied_[row]; left != 0; left &= left - 1) {
      const auto age = static_cast<std::size_t>(std::countr_zero(left));
      const NodeIx node = buckets_[row * kReuseAges + age].heap.front();
      const double rate = reuse_ == nullptr ? 1 : reuse_->rate(static_cast<ReuseClass>(what), age);
      const double value = entries_[node].key * rate;
      if (choice == kNil || value < least) {
        choice = node;
        least = value;
      }
    }
  }
  best_value_ = reuse_ == nullptr ? 0 : least;
  return choice;
}

}  // namespace statecached
