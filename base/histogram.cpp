#include "base/histogram.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

namespace statecached {

unsigned Histogram::bucket(std::uint64_t value) noexcept {
  if (value < (1U << kSubBits)) return static_cast<unsigned>(value);
  const unsigned shift = static_cast<unsigned>(std::bit_width(value)) - 1 - kSubBits;
  const unsigned sub = static_cast<unsigned>(value >> shift) & ((1U << kSubBits) - 1);
  return ((shift + 1) << kSubBits) + sub;
}

std::uint64_t Histogram::upper_edge(unsigned bucket) noexcept {
  if (bucket < (1U << kSubBits)) return bucket;
  const unsigned shift = (bucket >> kSubBits) - 1;
  const std::uint64_t lead = (1U << kSubBits) + (bucket & ((1U << kSubBits) - 1));
  return ((lead + 1) << shift) - 1;  // the last bucket wraps to 2^64 - 1, as it should
}

void Histogram::record(std::uint64_t value) noexcept {
  ++buckets_[bucket(value)];
  ++count_;
  sum_ += value;
  max_ = std::max(max_, value);
}

void Histogram::merge(const Histogram& other) noexcept {
  for (unsigned i = 0; i < kBuckets; ++i)
    buckets_[i] += other.buckets_[i];
  count_ += other.count_;
  sum_ += other.sum_;
  max_ = std::max(max_, other.max_);
}

double Histogram::mean() const noexcept {
  return count_ == 0 ? 0.0 : static_cast<double>(sum_) / static_cast<double>(count_);
}

std::uint64_t Histogram::quantile(double q) const noexcept {
  if (count_ == 0) return 0;
  const double wanted = std::ceil(std::clamp(q, 0.0, 1.0) * static_cast<double>(count_));
  const std::uint64_t rank = std::max<std::uint64_t>(1, static_cast<std::uint64_t>(wanted));
  std::uint64_t seen = 0;
  for (unsigned i = 0; i < kBuckets; ++i) {
    seen += buckets_[i];
    if (seen >= rank) return std::min(upper_edge(i), max_);
  }
  return max_;
}

std::uint64_t Histogram::count_up_to(std::uint64_t bound) const noexcept {
  std::uint64_t total = 0;
  const unsigned last = bucket(bound);
  for (unsigned i = 0; i <= last; ++i)
    total += buckets_[i];
  return total;
}

}  // namespace statecached
